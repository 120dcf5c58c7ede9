"""Processes whose memory is unlike that of most: the answer is right, and what it takes is bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from benchmarks.answers_asked import record, resident, used
from benchmarks.answers_programs import MIB, Missing, python
from tests.helpers.command import PYDAMON
from tests.helpers.waiting import wait_until

from pydamon.engines.user.choose import offers
from pydamon.errors import PydamonError
from pydamon.records.reader import RecordReader

_OBSTACLE = next(offer.obstacle for offer in offers() if offer.name == "bpf")
BPF = pytest.mark.skipif(_OBSTACLE is not None, reason=f"primitive bpf: {_OBSTACLE}")
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")

SLACK = 0.03  # of what is resident: recordings are short, and the machine may be busy
OTHERS = 10 * MIB  # what the interpreter and its libraries have

# 4,096 pages over 50 GiB, half of which are used.
SPARSE = """
import mmap, time
area = mmap.mmap(-1, 50 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
area.madvise(mmap.MADV_NOHUGEPAGE)
view = memoryview(area)[:: len(area) // 4096]
view[:] = b"x" * len(view)
print("ready", flush=True)
while True:
    bytes(view[: len(view) // 2])
    time.sleep(0.05)
"""

# 100 GiB that are reserved and may not be touched beside 64 MiB, half of which are used.
RESERVED = """
import ctypes, mmap, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mmap(None, 100 << 30, 0, 0x4022, -1, 0)
area = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
view = memoryview(area)[::4096]
view[:] = b"x" * len(view)
print("ready", flush=True)
while True:
    bytes(view[: len(view) // 2])
    time.sleep(0.05)
"""

# Every other page of 65,000 is read-only, which makes each of them a mapping of its own; the first half is used.
MANY_MAPPINGS = """
import ctypes, mmap, time
libc = ctypes.CDLL(None)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
area = mmap.mmap(-1, 65000 * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
view = memoryview(area)[::4096]
view[:] = b"x" * len(view)
start = ctypes.addressof(ctypes.c_char.from_buffer(area))
for page in range(0, 65000, 2):
    if libc.mprotect(start + page * 4096, 4096, 1): raise SystemExit("fewer mappings are allowed")
print("ready", flush=True)
while True:
    bytes(view[: len(view) // 2])
    time.sleep(0.05)
"""

# 64 MiB until it is told (SIGUSR1); then it becomes a program of 16 MiB.
BECOMES_ANOTHER = """
import mmap, os, signal, sys, time
text, mib = sys.argv[1], int(sys.argv[2])
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
area = mmap.mmap(-1, mib << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
view = memoryview(area)[::4096]
view[:] = b"x" * len(view)
if mib == 64: print("ready", flush=True)
while not told:
    bytes(view)
    time.sleep(0.05)
os.execv(sys.executable, [sys.executable, "-c", text, text, "16"])
"""


@BPF
@pytest.mark.parametrize(
    ("text", "there_mib", "used_mib"),
    [(SPARSE, 16, 8), (RESERVED, 64, 32), (MANY_MAPPINGS, 253.9, 126.95)],
    ids=["50 GiB sparsely", "100 GiB reserved", "65,000 mappings"],
)
def test_memory_far_and_wide(text: str, there_mib: float, used_mib: float, tmp_path: Path) -> None:
    with ExitStack() as stack:
        try:
            running = stack.enter_context(python(text))
        except Missing as reason:
            pytest.skip(str(reason))
        recorded = record(running.pids, str(tmp_path / "r"), 6)
        there = resident(running.pids)
    answer = used(recorded)
    told = answer.windows[2]
    assert told is not None
    assert there_mib * MIB <= answer.resident <= there + SLACK * there
    assert told[1] - SLACK * there <= used_mib * MIB + OTHERS
    assert told[2] + SLACK * there >= used_mib * MIB
    assert recorded.cpu_share < 0.5
    assert recorded.peak_bytes < 250 * MIB
    assert recorded.elapsed_s < 60


@BPF
def test_a_process_that_becomes_another_program(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with python(BECOMES_ANOTHER, BECOMES_ANOTHER, "64") as running:
        (pid,) = running.pids
        command = [*PYDAMON, "record", "-o", str(path), str(pid)]
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


def looks(path: Path) -> list[int]:
    """What was resident at each look at the panel, as far as it is in the file."""
    try:
        with RecordReader(path) as reader:
            return [row["resident_bytes"] for row in reader.table_rows("panel")]
    except (PydamonError, OSError):
        return []


@ROOT
def test_an_ordinary_user_records_a_process_of_his_own() -> None:
    nobody = {"user": 65534, "group": 65534, "extra_groups": []}
    try:
        subprocess.run([*PYDAMON, "--version"], capture_output=True, check=True, **nobody)  # type: ignore[call-overload]
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this Python lies where nobody may not read")
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies where only root may go
        os.chmod(folder, 0o777)
        program = [sys.executable, "-c", RESERVED]
        with subprocess.Popen(program, stdout=subprocess.PIPE, **nobody) as child:  # type: ignore[call-overload]
            try:
                assert child.stdout.readline() == b"ready\n"
                command = [*PYDAMON, "record", "-o", f"{folder}/r", "--duration", "3s", str(child.pid)]
                done = subprocess.run(command, capture_output=True, text=True, check=False, **nobody)  # type: ignore[call-overload]
                there = resident([child.pid])
            finally:
                child.kill()
        assert done.returncode == 0, done.stderr
        assert "through smaps" in done.stderr
        with RecordReader(f"{folder}/r") as reader:
            told = reader.last_snapshots()[0].column("resident")
    assert told is not None
    assert 64 * MIB <= int(told[told != 2**64 - 1].sum()) <= there * (1 + SLACK)
