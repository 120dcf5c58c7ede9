"""Programs whose mappings are many, huge, or change while they are recorded: what is told stays true and bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.command import pydamon

from pydamon.core.snapshot import Snapshot
from pydamon.primitives.registry import obstacle
from pydamon.records.reader import RecordReader

pytestmark = pytest.mark.usefixtures("processes")
MIB = 1 << 20
COMMON = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mprotect.argtypes = libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
MIB, GIB = 1 << 20, 1 << 30
def area(size, place=None, protection=3, flags=0x4022):
    found = libc.mmap(place, size, protection, flags | (0x100000 if place else 0), -1, 0)
    assert found < 2**63
    return found
def ready():
    print("ready", flush=True)
"""
MOVED = """
gone, moved = area(32 * MIB, 0x6000_0000_0000), area(32 * MIB, 0x6100_0000_0000)
ctypes.memset(gone, 1, 32 * MIB)
ctypes.memset(moved, 1, 32 * MIB)
ready()
began = time.monotonic()
while True:
    ctypes.memset(moved, 2, 16 * MIB)
    if moved == 0x6100_0000_0000 and time.monotonic() - began > 2:
        libc.munmap(gone, 32 * MIB)
        moved = libc.mremap(moved, 32 * MIB, 32 * MIB, 3, 0x6200_0000_0000)
        assert moved == 0x6200_0000_0000
    time.sleep(0.02)
"""
EXECS = """
area(32 * MIB, 0x6000_0000_0000)
ctypes.memset(0x6000_0000_0000, 1, 32 * MIB)
if len(sys.argv) < 3:
    ready()
    time.sleep(2)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1].replace("0x6000", "0x6100"), sys.argv[1], "again"])
while True:
    ctypes.memset(0x6000_0000_0000, 2, 16 * MIB)
    time.sleep(0.02)
"""
MANY_MAPPINGS = """
place = area(65_000 * 4096)
for at in range(0, 65_000, 2):
    assert libc.mprotect(place + at * 4096, 4096, 1) == 0
ready()
while True:
    ctypes.memset(place + 4096, 1, 4096)
    time.sleep(0.01)
"""
SPARSE = """
area(100 * GIB, protection=0)
place = area(50 * GIB)
libc.madvise(place, 50 * GIB, 15)
pages = [place + at * (50 * GIB // 16384) // 4096 * 4096 for at in range(16384)]
first = True
while True:
    for page in pages:
        ctypes.memset(page, 1, 1)
    if first:
        ready()
    first = False
    time.sleep(0.01)
"""
STOPPED = """
place = area(32 * MIB)
ctypes.memset(place, 1, 32 * MIB)
ready()
while True:
    ctypes.memset(place, 2, 32 * MIB)
"""
CHILDREN = """
import signal
for _ in range(300):
    if os.fork() == 0:
        signal.pause()
ready()
signal.pause()
"""


@pytest.fixture(autouse=True)
def _bpf() -> None:
    why = obstacle("bpf")
    if why is not None:
        pytest.skip(f"bpf cannot be used here: {why}")


@contextmanager
def program(text: str) -> Iterator[int]:
    """The process group of one that runs the program and says that it is ready."""
    text = COMMON + text
    command = [sys.executable, "-c", text, text]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"ready\n"
            yield child.pid
        finally:
            os.killpg(child.pid, signal.SIGKILL)


def record(tmp_path: Path, pid: int, *options: str) -> tuple[list[Snapshot], str]:
    """The snapshots, and what was said."""
    path = tmp_path / "r"
    done = pydamon("record", "-o", str(path), "--primitive", "bpf", *options, str(pid))
    assert done.returncode == 0, done.stderr
    with RecordReader(path) as reader:
        return list(reader.snapshots()), done.stderr


def cpu_ns(tmp_path: Path) -> int:
    with RecordReader(tmp_path / "r") as reader:
        return max(int(row["cpu_ns"]) for row in reader.table_rows("cost"))


def within(one: Snapshot, start: int, size: int, *, used: bool = False) -> int:
    """Resident bytes of the regions that lie in a range; ``used``: of those that were accessed."""
    resident = one.column("resident")
    assert resident is not None
    inside = (one.start >= start) & (one.end <= start + size) & (resident != 2**64 - 1)
    return int(resident[inside & (one.nr_accesses > 0) if used else inside].sum(dtype=np.uint64))


def rss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))


def test_memory_that_is_unmapped_and_memory_that_moves_are_followed(tmp_path: Path) -> None:
    with program(MOVED) as pid:
        snapshots, said = record(tmp_path, pid, "--duration", "6s")
    first, last = snapshots[0], snapshots[-1]
    assert "Traceback" not in said
    assert within(first, 0x6000_0000_0000, 32 * MIB) == within(first, 0x6100_0000_0000, 32 * MIB) == 32 * MIB
    assert within(last, 0x6000_0000_0000, 32 * MIB) == within(last, 0x6100_0000_0000, 32 * MIB) == 0
    assert within(last, 0x6200_0000_0000, 32 * MIB) == 32 * MIB
    assert within(snapshots[-2], 0x6200_0000_0000, 32 * MIB, used=True) >= 8 * MIB


def test_another_program_in_the_same_process_has_other_memory(tmp_path: Path) -> None:
    with program(EXECS) as pid:
        snapshots, said = record(tmp_path, pid, "--duration", "6s")
    assert "Traceback" not in said
    assert within(snapshots[0], 0x6000_0000_0000, 32 * MIB) == 32 * MIB
    assert within(snapshots[-1], 0x6000_0000_0000, 32 * MIB) == 0
    assert within(snapshots[-1], 0x6100_0000_0000, 32 * MIB) == 32 * MIB


def test_tens_of_thousands_of_mappings(tmp_path: Path) -> None:
    with program(MANY_MAPPINGS) as pid:
        snapshots, said = record(tmp_path, pid, "--duration", "3s")
    assert snapshots
    assert len(snapshots[-1].start) <= 1000
    assert "Traceback" not in said
    assert cpu_ns(tmp_path) < 3_000_000_000  # of which most is to read them the first time


def test_memory_that_is_mapped_and_not_there_is_not_used(tmp_path: Path) -> None:
    with program(SPARSE) as pid:
        snapshots, _ = record(tmp_path, pid, "--duration", "4s")
        resident = rss(pid)
    for one in snapshots:
        assert within(one, 0, 2**63, used=True) <= within(one, 0, 2**63) <= resident + MIB
    assert within(snapshots[-1], 0, 2**63, used=True) >= 32 * MIB


def test_a_stopped_process_uses_nothing(tmp_path: Path) -> None:
    with program(STOPPED) as pid:
        os.kill(pid, signal.SIGSTOP)
        snapshots, said = record(tmp_path, pid, "--duration", "3s")
    assert "Traceback" not in said
    assert len(snapshots) >= 2
    assert within(snapshots[-1], 0, 2**63, used=True) <= MIB
    assert within(snapshots[-1], 0, 2**63) >= 32 * MIB


def test_hundreds_of_children(tmp_path: Path) -> None:
    with program(CHILDREN) as pid:
        snapshots, said = record(tmp_path, pid, "--include-children", "--duration", "5s")
    assert len({one.target for one in snapshots}) == 301
    assert "the page panel has fewer than 64 pages of " in said
    last_ns = max(one.end_ns for one in snapshots)
    last = [len(one.start) for one in snapshots if one.end_ns == last_ns]
    assert sum(last) <= 301 * 20  # of each at least some, however few the maximum leaves for it
