"""Looking through a process's memory in steps: this process, whose pages are known, and what smaps says of it."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import time
from collections.abc import Iterator

import numpy as np
import pytest

from pydamon.linux import resident_scan
from pydamon.linux.process import Mapping, Process
from pydamon.linux.resident_scan import UNKNOWN, ResidentScan

PAGE = 4096
MIB = 1 << 20


@pytest.fixture
def scan() -> Iterator[ResidentScan]:
    own = Process(os.getpid())
    found = ResidentScan(own)
    yield found
    own.close()


@pytest.fixture
def memory() -> Iterator[tuple[mmap.mmap, int]]:
    with mmap.mmap(-1, 16 * MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        view = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(view)
        del view
        yield memory, start


def bytes_of(scan: ResidentScan, start: int, end: int) -> tuple[int, int]:
    low, high = np.array([start], np.uint64), np.array([end], np.uint64)
    return int(scan.runs.resident_bytes(low, high)[0]), int(scan.runs.seen_bytes(low, high)[0])


def sweep(scan: ResidentScan) -> None:
    """All of it, whatever share of the time that is."""
    scan.follow(scan._process.mappings())
    for _ in range(10_000):
        scan.step(now_ns=scan._due_ns)
        if scan.swept:
            return
    raise AssertionError("it never comes to an end")


@pytest.mark.parametrize("by_reading", [False, True])
def test_every_eighth_page_is_an_eighth(scan: ResidentScan, memory: tuple[mmap.mmap, int], by_reading: bool) -> None:
    area, start = memory
    for page in range(0, len(area) // PAGE, 8):
        area[page * PAGE] = 1
    scan._by_reading = by_reading
    sweep(scan)
    assert bytes_of(scan, start, start + len(area)) == (len(area) // 8, len(area))
    assert bytes_of(scan, start + PAGE, start + 8 * PAGE) == (0, 7 * PAGE)


def test_what_was_read_but_never_written_is_the_zero_page_and_not_resident(
    scan: ResidentScan, memory: tuple[mmap.mmap, int]
) -> None:
    area, start = memory
    assert sum(area[page * PAGE] for page in range(1024)) == 0
    sweep(scan)
    if scan._by_reading:
        pytest.skip("no PAGEMAP_SCAN: the zero page cannot be told from others")
    assert bytes_of(scan, start, start + len(area)) == (0, len(area))


def test_it_agrees_with_the_resident_size_in_smaps(scan: ResidentScan, memory: tuple[mmap.mmap, int]) -> None:
    memory[0][: 4 * MIB] = b"x" * (4 * MIB)
    sweep(scan)
    with open("/proc/self/smaps_rollup") as file:
        rss = int(re.search(r"^Rss:\s+(\d+) kB", file.read(), re.MULTILINE)[1]) * 1024  # type: ignore[index]
    # (what this test itself has faulted in between the two looks)
    assert abs(scan.runs.total_bytes() - rss) < 2 * MIB


def test_a_step_ends_although_there_is_more(
    scan: ResidentScan, memory: tuple[mmap.mmap, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory[0][:] = b"x" * len(memory[0])
    monkeypatch.setattr(resident_scan, "STEP_NS", 1)  # one call each
    monkeypatch.setattr(resident_scan, "_CALL_NS", 1)
    scan._span = 4 * MIB
    scan.follow(scan._process.mappings())
    calls = 0
    seen = []
    while not scan.swept:
        scan.step(now_ns=scan._due_ns)
        seen.append(int(scan.runs.seen_bytes(scan._spans[:, 0], scan._spans[:, 1]).sum()))
        calls += 1
    assert calls > 4
    assert seen == sorted(seen)
    assert seen[-1] == int(scan._before[-1])


def test_the_next_step_waits_for_its_share_of_the_time(scan: ResidentScan) -> None:
    sweep(scan)
    spent, due = scan.spent_ns, scan._due_ns
    scan.step(now_ns=due - 1)
    assert scan.spent_ns == spent
    scan.step(now_ns=due)
    assert scan.spent_ns > spent
    assert scan._due_ns - due == 500 * (scan.spent_ns - spent)


def looks(scan: ResidentScan, due: int) -> list[bool]:
    """At which of so many due times it really looks."""
    found = []
    for _ in range(due):
        spent = scan.spent_ns
        scan.step(now_ns=scan._due_ns)
        found.append(scan.spent_ns > spent)
    return found


def test_looks_are_left_out_where_nothing_changes(scan: ResidentScan, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process has in memory may change at any time: it is told that it has not, and then that it has."""
    found, pages = np.array([[1 << 20, 2 << 20]], np.uint64), 1000
    monkeypatch.setattr(resident_scan, "resident_part", lambda fd, low, high: (found, high))
    monkeypatch.setattr(resident_scan, "resident_pages", lambda pid: pages)
    scan.follow([Mapping(1 << 20, 3 << 20, "rw-p", 0, 0, "")])
    assert looks(scan, 10) == [True, True, False, True, False, False, True, False, False, False]
    pages = 1010  # it has grown by more than a 128th
    assert looks(scan, 1) == [True]
    found = np.array([[1 << 20, 3 << 20]], np.uint64)
    assert looks(scan, 4) == [False, True, True, False]  # the second has found something else
    assert int(scan.runs.total_bytes()) == 2 << 20
    scan.follow([Mapping(1 << 20, 4 << 20, "rw-p", 0, 0, "")])
    assert looks(scan, 1) == [True]


def test_a_call_that_has_to_wait_does_not_put_off_the_next_one(
    scan: ResidentScan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call waits as long as the target holds the lock on its memory: seen were 385 ms, and so no look for 192 s."""
    sweep(scan)
    look = scan._look

    def slow(low: int, high: int) -> int | None:
        time.sleep(0.2)
        return look(low, high)

    monkeypatch.setattr(scan, "_look", slow)
    began_ns = scan._due_ns
    scan.step(now_ns=began_ns)
    assert scan._due_ns - began_ns < 500 * 200_000_000 // 2


def test_memory_that_is_new_is_unknown_until_it_was_looked_at(scan: ResidentScan) -> None:
    sweep(scan)
    with mmap.mmap(-1, MIB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        view = ctypes.c_char.from_buffer(area)
        start = ctypes.addressof(view)
        del view
        area[0] = 1
        scan.follow(scan._process.mappings())
        assert bytes_of(scan, start, start + MIB) == (0, 0)
        sweep(scan)
        assert bytes_of(scan, start, start + MIB)[1] == MIB
    scan.follow(scan._process.mappings())
    assert bytes_of(scan, start, start + MIB) == (0, 0)  # it is gone


def test_a_terabyte_that_is_only_reserved_costs_nothing(scan: ResidentScan) -> None:
    with mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ):  # MAP_NORESERVE
        scan.follow(scan._process.mappings())
        if scan._by_reading:
            pytest.skip("no PAGEMAP_SCAN")
        sweep(scan)
    assert scan.runs.total_bytes() < 1 << 33


def test_a_region_is_unknown_until_all_that_is_mapped_in_it_was_looked_at(
    scan: ResidentScan, memory: tuple[mmap.mmap, int]
) -> None:
    area, start = memory
    area[3 * PAGE] = area[len(area) - 1] = 1
    half = start + len(area) // 2
    name, end = "", start + len(area)
    # As if the upper half had been mapped behind a gap.
    scan.follow([Mapping(start, half, "rw-p", 0, 0, name), Mapping(half + MIB, end, "rw-p", 0, 0, name)])

    def told(*ranges: tuple[int, int]) -> list[int]:
        found = scan.resident_bytes(*(np.array(side, np.uint64) for side in zip(*ranges, strict=True)))
        assert found is not None
        return found.tolist()

    whole, lower, gap = (start, end), (start, half + MIB), (half, half + MIB)
    assert told(whole, lower, gap) == [UNKNOWN, UNKNOWN, 0]
    scan._span, scan._cursor = len(area) // 2, start
    scan.runs.note(start, half, np.array([[start + 3 * PAGE, start + 4 * PAGE]], np.uint64))
    scan._seen = None
    assert told(whole, lower, (half + MIB, end), gap) == [UNKNOWN, PAGE, UNKNOWN, 0]
    while not scan.swept:
        scan.step(now_ns=scan._due_ns)
    assert told(whole, lower, (half + MIB, end)) == [2 * PAGE, PAGE, PAGE]
    # Something is mapped in the gap: that is unknown, the rest is not.
    scan.follow([Mapping(start, end, "rw-p", 0, 0, name)])
    assert told(whole, (start, half), gap, (half + MIB, end)) == [UNKNOWN, PAGE, UNKNOWN, PAGE]


def test_many_runs_are_bounded_and_said(
    scan: ResidentScan, memory: tuple[mmap.mmap, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    area, _ = memory
    for page in range(0, len(area) // PAGE, 2):
        area[page * PAGE] = 1
    monkeypatch.setattr(resident_scan, "_MOST_RUNS", 100)
    scan.follow(scan._process.mappings())
    scan.step(now_ns=scan._due_ns)
    assert scan.obstacle is not None
    assert "100 runs" in scan.obstacle


def test_memory_that_may_not_be_looked_at_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Process(os.getpid())
    scan = ResidentScan(own)
    try:
        monkeypatch.setattr(os, "open", _refuse)
        scan.follow(own.mappings())
        scan.step()
        assert scan.obstacle is not None
        assert "run as its owner or as root" in scan.obstacle
        assert not scan.runs.seen_bytes(np.zeros(1, np.uint64), np.full(1, 1 << 47, np.uint64)).any()
    finally:
        own.close()


def _refuse(*_: object) -> int:
    raise PermissionError(13, "Permission denied")
