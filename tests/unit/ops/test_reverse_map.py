"""The reverse map, over a /proc made here and over this machine's own."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pydamon.linux.pagemap_scan import resident_ranges
from pydamon.ops.reverse_map import Owner, ReverseMap

PAGE = 4096
PRESENT, SWAPPED = 1 << 63, 1 << 62


class Proc:
    """A directory like /proc: processes with mappings [first page, number of pages] and frames by page."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self, pid: int, mappings: list[tuple[int, int]], frames: dict[int, int], *, ticks: int = 7, flags: int = 0
    ) -> None:
        directory = self.root / str(pid)
        directory.mkdir(exist_ok=True)
        after = ["S", "1", "1", "1", "0", "-1", str(flags), *["0"] * 12, str(ticks), "0", "0"]
        (directory / "stat").write_text(f"{pid} (a (b) c{pid}) {' '.join(after)}\n")
        lines = [f"{first * PAGE:x}-{(first + count) * PAGE:x} rw-p 00000000 00:00 0 \n" for first, count in mappings]
        (directory / "maps").write_text("".join(lines))
        entries = np.zeros(max((first + count for first, count in mappings), default=0), np.uint64)
        for page, frame in frames.items():
            entries[page] = frame | PRESENT
        (directory / "pagemap").write_bytes(entries.tobytes())

    def map(self, **options: object) -> ReverseMap:
        built = ReverseMap(proc=str(self.root), **options)  # type: ignore[arg-type]
        built.refresh()
        return built


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    (tmp_path / "self").mkdir()
    (tmp_path / "meminfo").write_text("")
    return Proc(tmp_path)


def frames(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint64)


def test_frames_are_traced_back(proc: Proc) -> None:
    proc.add(10, [(16, 8), (100, 4)], {16: 500, 17: 501, 23: 40, 101: 502})
    proc.add(3, [(50, 2)], {50: 7, 51: 500})
    proc.add(2, [(50, 2)], {50: 9}, flags=0x00200000)  # a kernel thread
    built = proc.map()
    index, addresses, count = built.lookup(frames(500, 7, 40, 502, 9, 499))
    assert [built.owners[at].pid if at >= 0 else None for at in index] == [3, 3, 10, 10, None, None]
    assert addresses.tolist() == [51 * PAGE, 50 * PAGE, 23 * PAGE, 101 * PAGE, 0, 0]
    assert count.tolist() == [2, 1, 1, 1, 0, 0]
    assert [(owner.pid, at) for owner, at in built.mappers(500)] == [(3, 51 * PAGE), (10, 16 * PAGE)]
    assert built.owners[1] == Owner(10, 7, "a (b) c10")
    assert len(built) == built.cost.pages == 6
    assert built.cost.processes == 2


def test_swapped_and_hidden_pages_are_left_out(proc: Proc) -> None:
    proc.add(10, [(0, 4)], {0: 0, 1: 33})
    entries = np.fromfile(proc.root / "10/pagemap", np.uint64)
    entries[2] = SWAPPED | 77
    entries.tofile(proc.root / "10/pagemap")
    assert len(proc.map()) == 1


def test_by_physical_range(proc: Proc) -> None:
    proc.add(10, [(16, 8)], {16: 100, 17: 101, 18: 102, 20: 103, 21: 900})
    proc.add(11, [(0, 8)], {3: 101, 4: 104})
    built = proc.map()
    assert [(o.pid, size) for o, size in built.mapped_bytes(100 * PAGE, 105 * PAGE)] == [(10, 4 * PAGE), (11, 2 * PAGE)]
    assert [(o.pid, r.tolist()) for o, r in built.virtual_ranges(100 * PAGE, 105 * PAGE)] == [
        (10, [[16 * PAGE, 19 * PAGE], [20 * PAGE, 21 * PAGE]]),
        (11, [[3 * PAGE, 5 * PAGE]]),
    ]
    assert built.virtual_ranges(0, 50 * PAGE) == []
    assert built.mapped_bytes(0, 50 * PAGE) == []


def test_memory_is_bounded(proc: Proc) -> None:
    for pid in range(1, 6):
        proc.add(pid, [(0, 10)], {page: 100 * pid + page for page in range(10)})
    built = proc.map(max_pages=25)
    assert len(built) == 25
    assert built.truncated
    assert not proc.map(max_pages=50).truncated


def test_processes_come_and_go(proc: Proc) -> None:
    proc.add(5, [(0, 1)], {0: 50}, ticks=1)
    built = proc.map()
    proc.add(5, [(0, 1)], {0: 51}, ticks=2)  # another process by now
    built.refresh()
    assert built.mappers(50) == []
    assert built.mappers(51)[0][0].start_ticks == 2
    (proc.root / "5" / "stat").write_text("")  # ended while it was looked at
    built.refresh()
    assert len(built) == 0
    assert built.cost.refreshes == 3


def test_a_process_that_may_not_be_looked_at(proc: Proc) -> None:
    proc.add(5, [(0, 1)], {0: 50})
    (proc.root / "5" / "pagemap").unlink()
    (proc.root / "5" / "pagemap").mkdir()  # opens, but cannot be read
    proc.add(6, [(0, 1)], {0: 51})
    built = proc.map()
    assert built.mappers(51)
    assert len(built) == 1


def test_it_keeps_to_its_share(proc: Proc) -> None:
    proc.add(5, [(0, 1)], {0: 50})
    built = proc.map(share=1e-9)
    assert not built.refresh_if_due()
    assert proc.map(share=1e9).refresh_if_due()


def test_many_scattered_pages_equal_a_plain_reading(proc: Proc) -> None:
    rng = np.random.default_rng(1)
    pages = np.sort(rng.choice(60_000, 5000, replace=False)).tolist()
    table = {page: int(frame) for page, frame in zip(pages, rng.permutation(5000) + 1, strict=True)}
    proc.add(9, [(0, 20_000), (20_010, 30_000), (55_000, 5000)], table)
    mapped = {f: p for p, f in table.items() if p < 20_000 or 20_010 <= p < 50_010 or p >= 55_000}
    built = proc.map()
    near = {f: p for p, f in table.items() if p < 50_010}  # the gap of ten pages is read along with its neighbours
    index, addresses, _ = built.lookup(np.arange(1, 5001, dtype=np.uint64))
    got = {frame: int(at) // PAGE for frame, at, i in zip(range(1, 5001), addresses, index, strict=True) if i >= 0}
    assert mapped.items() <= got.items() <= (near | mapped).items()


CHILD = """
import ctypes, mmap, sys
m = mmap.mmap(-1, 64 << 12, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for page in range(64): m[page << 12] = 1
print(ctypes.addressof(ctypes.c_char.from_buffer(m)), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="frame numbers are for root")
@pytest.mark.usefixtures("processes")
def test_this_machine() -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        start = int(child.stdout.readline())
        built = ReverseMap(pids=lambda: [child.pid])
        built.refresh()
        with open(f"/proc/{child.pid}/pagemap", "rb", buffering=0) as file:
            entries = np.frombuffer(os.pread(file.fileno(), 8 * 64, start // PAGE * 8), np.uint64)
        index, addresses, count = built.lookup(entries & np.uint64((1 << 55) - 1))
        assert built.owners[0].pid == child.pid
        assert (index == 0).all()
        assert addresses.tolist() == [start + page * PAGE for page in range(64)]
        assert (count == 1).all()
    finally:
        child.kill()
        child.communicate()


def test_resident_ranges_of_this_process() -> None:
    with mmap.mmap(-1, 64 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        view = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(view)
        del view
        for page in (0, 1, 2, 40):
            memory[page * PAGE] = 1
        fd = os.open("/proc/self/pagemap", os.O_RDONLY)
        try:
            ranges = resident_ranges(fd)
        except OSError:
            pytest.skip("this kernel has no PAGEMAP_SCAN")
        finally:
            os.close(fd)
    inside = [(low, high) for low, high in ranges.tolist() if high > start and low < start + 64 * PAGE]
    covered = {page for page in range(64) if any(low <= start + page * PAGE < high for low, high in inside)}
    assert covered == {0, 1, 2, 40}
