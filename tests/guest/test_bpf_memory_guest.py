"""Recordings through `bpf` of memory that only the lab may make: swapped out, and huge pages of hugetlbfs."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.command import PYDAMON
from tests.helpers.neighbour import neighbour
from tests.helpers.programs import program
from tests.helpers.records import recorded
from tests.helpers.waiting import wait_until

from pydamon.core.snapshot import Snapshot
from pydamon.records.reader import RecordReader

pytestmark = pytest.mark.guest

MIB = 1 << 20
PLACE = 0x6000_0000_0000
HUGE_PAGES = Path("/proc/sys/vm/nr_hugepages")
SLOW = ("--sample", "25ms", "--aggr", "500ms", "--update", "1s")

COMMON = """
import ctypes, signal, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
PLACE, MIB = 0x6000_0000_0000, 1 << 20
def area(mib, flags=0):
    assert libc.mmap(PLACE, mib * MIB, 3, 0x100022 | flags, -1, 0) == PLACE
    return memoryview((ctypes.c_char * (mib * MIB)).from_address(PLACE)).cast("B")[::4096]
told = []
signal.signal(signal.SIGUSR1, lambda *_: told.append(1))
"""
# 32 MiB, of which the upper half is in swap, and is read once it is told so; the lower half is read all the time.
SWAPPED = """
view = area(32)
libc.madvise(PLACE, 32 * MIB, 15)
view[:] = b"x" * len(view)
assert libc.madvise(PLACE + 16 * MIB, 16 * MIB, 21) == 0
print("ready", flush=True)
while True:
    bytes(view if told else view[: len(view) // 2])
    time.sleep(0.02)
"""
# 16 MiB of hugetlb memory that is read all the time.
HUGETLB = """
view = area(16, 0x40000)
view[:] = b"x" * len(view)
print("ready", flush=True)
while True:
    bytes(view)
    time.sleep(0.02)
"""


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Sixteen of 2 MiB are reserved."""
    before = HUGE_PAGES.read_text()
    HUGE_PAGES.write_text("16")
    if int(HUGE_PAGES.read_text()) < 16:
        pytest.skip("memory is too fragmented for 16 huge pages")
    yield
    HUGE_PAGES.write_text(before)


@contextmanager
def recording(pid: int, path: Path) -> Iterator[list[str]]:
    """A recording of that process goes on; what it has said is in the list afterwards."""
    said: list[str] = []
    command = [*PYDAMON, "record", "-o", str(path), "--primitive", "bpf", *SLOW, str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as recorder:
        try:
            yield said
            recorder.send_signal(signal.SIGINT)
            said += recorder.communicate(timeout=120)[1].splitlines()
            assert recorder.returncode == 0, said
        finally:
            recorder.kill()


def within(one: Snapshot, column: str, start: int, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """That column of the regions that lie in the range."""
    values = one.column(column)
    inside = (one.start >= start) & (one.end <= start + size)
    found = np.zeros(len(one.start), np.uint64) if values is None else values.astype(np.uint64)
    return found[inside]


def used(one: Snapshot, start: int, size: int) -> int:
    """Resident bytes of regions in the range that were accessed."""
    return int(within(one, "resident", start, size)[within(one, "nr_accesses", start, size) > 0].sum())


def test_memory_in_swap_is_not_used_until_it_is(tmp_path: Path) -> None:
    path = tmp_path / "r"
    low, high, half = PLACE, PLACE + 16 * MIB, 16 * MIB
    with program(COMMON + SWAPPED, "-S") as pid, neighbour(pid), recording(pid, path) as said:
        wait_until(lambda: len(recorded(path)) >= 6, every_s=0.5)
        before = recorded(path)[-1]
        subprocess.run(["kill", "-USR1", str(pid)], check=True)
        # Not of the last one, which the end cuts short.
        wait_until(lambda: used(recorded(path)[-1], high, half) >= half * 3 // 4, every_s=0.5)
    assert not any("Traceback" in line for line in said)
    assert used(before, low, half) >= half * 3 // 4
    assert int(within(before, "resident", high, half).sum()) <= MIB
    assert used(before, high, half) <= MIB
    with RecordReader(path) as reader:
        swap = [row["swap_bytes"] for row in reader.table_rows("footprint")]
    assert swap[0] >= 15 * MIB
    assert swap[-1] <= MIB


@pytest.mark.usefixtures("huge_pages")
def test_hugetlb_memory_is_unknown_and_never_cold(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with program(COMMON + HUGETLB, "-S") as pid, recording(pid, path) as said:
        wait_until(lambda: len(recorded(path)) >= 6, every_s=0.5)
    last = recorded(path)[-1]
    inside = within(last, "unknown", PLACE, 16 * MIB)
    assert len(inside)
    assert (inside == last.max_nr_accesses).all()
    (told,) = [line for line in said if "cannot be watched" in line]
    assert "16.0 MiB huge pages of hugetlbfs" in told
    done = subprocess.run([*PYDAMON, "report", "wss", "-i", str(path)], capture_output=True, text=True, check=True)
    assert "unknown whether used" in done.stdout
