"""Programs whose mappings are many, huge, or change while they are recorded: answers are right, their cost bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from benchmarks.answers_asked import record as bounded_record
from benchmarks.answers_asked import resident, used
from tests.helpers.again import for_longer
from tests.helpers.command import PYDAMON, pydamon
from tests.helpers.waiting import wait_until

from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError
from pydamon.primitives.registry import obstacle
from pydamon.records.reader import RecordReader

pytestmark = pytest.mark.usefixtures("processes")
_OBSTACLE = obstacle("bpf")
BPF = pytest.mark.skipif(_OBSTACLE is not None, reason=f"bpf cannot be used here: {_OBSTACLE}")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
MIB = 1 << 20
SLACK = 0.03  # of what is resident: recordings are short, and the machine may be busy
OTHERS = 10 * MIB  # what the interpreter and its libraries have
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
    if moved == 0x6100_0000_0000 and time.monotonic() - began > int(sys.argv[2]):
        libc.munmap(gone, 32 * MIB)
        moved = libc.mremap(moved, 32 * MIB, 32 * MIB, 3, 0x6200_0000_0000)
        assert moved == 0x6200_0000_0000
    time.sleep(0.02)
"""
# Until it is told (SIGUSR1) 64 MiB at one place; then it becomes a program with 16 MiB at another one.
EXECS = """
import signal
place, mib, told = int(sys.argv[2]), int(sys.argv[3]), []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
area(mib * MIB, place)
libc.madvise(place, mib * MIB, 15)
ctypes.memset(place, 1, mib * MIB)
if mib == 64:
    ready()
while not told:
    ctypes.memset(place, 2, mib * MIB)
    time.sleep(0.05)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[1], str(0x6100_0000_0000), "16"])
"""
# Every other page of 65,000 is read-only, which makes each of them a mapping of its own; the first half is used.
MANY_MAPPINGS = """
place = area(65_000 * 4096, 0x6000_0000_0000)
libc.madvise(place, 65_000 * 4096, 15)
view = memoryview((ctypes.c_char * (65_000 * 4096)).from_address(place)).cast("B")[::4096]
view[:] = b"x" * len(view)
for at in range(0, 65_000, 2):
    if libc.mprotect(place + at * 4096, 4096, 1):
        raise SystemExit(print("missing: fewer mappings are allowed (vm.max_map_count)", flush=True))
ready()
while True:
    bytes(view[: len(view) // 2])
    time.sleep(0.05)
"""
# 4,096 pages over 50 GiB, half of which are used, beside 100 GiB that are reserved and may not be touched.
SPARSE = """
area(100 * GIB, protection=0)
place = area(50 * GIB, 0x6000_0000_0000)
libc.madvise(place, 50 * GIB, 15)
view = memoryview((ctypes.c_char * (50 * GIB)).from_address(place)).cast("B")[:: 50 * GIB // 4096]
view[:] = b"x" * len(view)
ready()
while True:
    bytes(view[: len(view) // 2])
    time.sleep(0.05)
"""
# 100 GiB that are reserved and may not be touched beside 64 MiB, half of which are used.
RESERVED = """
area(100 * GIB, protection=0)
place = area(64 * MIB, 0x6000_0000_0000)
libc.madvise(place, 64 * MIB, 15)
view = memoryview((ctypes.c_char * (64 * MIB)).from_address(place)).cast("B")[::4096]
view[:] = b"x" * len(view)
ready()
while True:
    bytes(view[: len(view) // 2])
    time.sleep(0.05)
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


@contextmanager
def program(text: str, *arguments: str) -> Iterator[int]:
    """The process group of one that runs the program and says that it is ready; its first argument is its text."""
    text = COMMON + text
    command = [sys.executable, "-c", text, text, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        try:
            said = child.stdout.readline()
            if said.startswith(b"missing: "):
                pytest.skip(said[9:].decode().strip())
            assert said == b"ready\n"
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


@BPF
def test_memory_that_is_unmapped_and_memory_that_moves_are_followed(tmp_path: Path) -> None:
    for moves_s in (2, 10, 40):  # later where it has moved before it is monitored, or did nothing for a while
        with program(MOVED, str(moves_s)) as pid:
            snapshots, said = record(tmp_path, pid, "--duration", f"{3 * moves_s}s")
        assert "Traceback" not in said
        if len(snapshots) < 2:
            continue
        first, last = snapshots[0], snapshots[-1]
        used = within(snapshots[-2], 0x6200_0000_0000, 32 * MIB, used=True)
        if within(first, 0x6000_0000_0000, 32 * MIB) and used >= 8 * MIB:
            break
    assert within(first, 0x6000_0000_0000, 32 * MIB) == within(first, 0x6100_0000_0000, 32 * MIB) == 32 * MIB
    assert within(last, 0x6000_0000_0000, 32 * MIB) == within(last, 0x6100_0000_0000, 32 * MIB) == 0
    assert within(last, 0x6200_0000_0000, 32 * MIB) == 32 * MIB
    assert used >= 8 * MIB


@BPF
@pytest.mark.parametrize(
    ("text", "there_mib", "used_mib"),
    [(SPARSE, 16, 8), (RESERVED, 64, 32), (MANY_MAPPINGS, 253.9, 126.95)],
    ids=["50 GiB sparsely", "100 GiB reserved", "65,000 mappings"],
)
def test_memory_far_and_wide(text: str, there_mib: float, used_mib: float, tmp_path: Path) -> None:
    with program(text) as pid:
        recorded = bounded_record([pid], str(tmp_path / "r"), 8, "--primitive", "bpf")
        there, most = resident([pid]), rss(pid)
    answer = used(recorded)
    told = answer.windows[2]
    assert told is not None
    assert there_mib * MIB <= answer.resident <= there + SLACK * there
    assert told[1] - SLACK * there <= used_mib * MIB + OTHERS
    assert told[2] + SLACK * there >= used_mib * MIB
    assert recorded.cpu_share < 0.5  # of which most is to read the mappings the first time
    assert recorded.peak_bytes < 250 * MIB
    assert recorded.elapsed_s < 60
    assert "Traceback" not in recorded.said
    assert cpu_ns(tmp_path) < 3_000_000_000
    with RecordReader(tmp_path / "r") as reader:
        snapshots = list(reader.snapshots())
    assert snapshots
    assert len(snapshots[-1].start) <= 1000
    for one in snapshots:
        assert within(one, 0, 2**63, used=True) <= within(one, 0, 2**63) <= most + MIB
    whole = snapshots[-2:][0]  # the last ends with the recording: after one sample of it, perhaps
    assert within(whole, 0x6000_0000_0000, 50 << 30, used=True) >= used_mib * MIB / 2


@BPF
def test_another_program_in_the_same_process_has_other_memory(tmp_path: Path) -> None:
    path, first, second = tmp_path / "r", 0x6000_0000_0000, 0x6100_0000_0000
    with program(EXECS, str(first), "64") as pid:
        command = [*PYDAMON, "record", "-o", str(path), "--primitive", "bpf", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recording:
            wait_until(lambda: len(looks(path)) >= 2)
            before = resident([pid])
            os.kill(pid, signal.SIGUSR1)
            wait_until(lambda: 16 * MIB < resident([pid]) < before / 2)
            since = len(looks(path))
            wait_until(lambda: len(looks(path)) >= since + 4)
            recording.send_signal(signal.SIGINT)
            _, said = recording.communicate()
        there = resident([pid])
    assert recording.returncode == 0, said
    assert "Traceback" not in said
    sizes = looks(path)
    assert sizes[0] > 64 * MIB
    assert 16 * MIB < sizes[-1] <= there * (1 + SLACK)
    with RecordReader(path) as reader:
        snapshots = list(reader.snapshots())
    assert within(snapshots[0], first, 64 * MIB) == 64 * MIB
    assert within(snapshots[-1], first, 64 * MIB) == 0
    assert within(snapshots[-1], second, 16 * MIB) == 16 * MIB


def looks(path: Path) -> list[int]:
    """What was resident at each look at the panel, as far as it is in the file."""
    try:
        with RecordReader(path) as reader:
            return [row["resident_bytes"] for row in reader.table_rows("panel")]
    except (PydamonError, OSError):
        return []


@BPF
def test_a_stopped_process_uses_nothing(tmp_path: Path) -> None:
    with program(STOPPED) as pid:
        os.kill(pid, signal.SIGSTOP)
        snapshots: list[Snapshot] = []

        def recorded(duration: str) -> None:
            snapshots[:], said = record(tmp_path, pid, "--duration", duration)
            assert "Traceback" not in said

        for_longer(recorded, lambda: len(snapshots) >= 2, 3)
    assert within(snapshots[-1], 0, 2**63, used=True) <= MIB
    assert within(snapshots[-1], 0, 2**63) >= 32 * MIB


@BPF
def test_hundreds_of_children(tmp_path: Path) -> None:
    for seconds in (5, 20, 60):  # more where a machine is so busy that not all are found by then
        with program(CHILDREN) as pid:
            snapshots, said = record(tmp_path, pid, "--include-children", "--duration", f"{seconds}s")
        if len({one.target for one in snapshots}) == 301:
            break
    assert len({one.target for one in snapshots}) == 301
    assert "the page panel has fewer than 64 pages of " in said
    last_ns = max(one.end_ns for one in snapshots)
    last = [len(one.start) for one in snapshots if one.end_ns == last_ns]
    assert sum(last) <= 301 * 20  # of each at least some, however few the maximum leaves for it


@ROOT
def test_an_ordinary_user_records_a_process_of_his_own() -> None:
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        subprocess.run([*PYDAMON, "--version"], capture_output=True, check=True, **nobody)  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this Python lies where nobody may not read")
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies where only root may go
        os.chmod(folder, 0o777)
        command = [sys.executable, "-c", COMMON + RESERVED]
        with subprocess.Popen(command, stdout=subprocess.PIPE, **nobody) as child:  # type: ignore[call-overload]
            try:
                assert child.stdout.readline() == b"ready\n"
                found: list[Snapshot] = []

                def recorded(duration: str) -> None:
                    words = ["record", "--force", "-o", f"{folder}/r", "--duration", duration, str(child.pid)]
                    done = subprocess.run([*PYDAMON, *words], capture_output=True, text=True, check=False, **nobody)  # type: ignore[call-overload]
                    assert done.returncode == 0, done.stderr
                    assert "through smaps" in done.stderr
                    with RecordReader(f"{folder}/r") as reader:
                        found[:] = reader.last_snapshots().values()

                for_longer(recorded, lambda: found, 3)
                there = resident([child.pid])
            finally:
                child.kill()
        told = found[0].column("resident")
    assert told is not None
    assert 64 * MIB <= int(told[told != 2**64 - 1].sum()) <= there * (1 + SLACK)
