"""Resident pages are sampled rather than absent ones."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.helpers.waiting import GENEROUS_S

from pydamon.linux.process import Mapping, Process
from pydamon.linux.resident_scan import UNKNOWN, ResidentScan
from pydamon.ops.residency import Residencies, Residency
from pydamon.ops.sampling import PageSampler
from pydamon.ops.vaddr import VaddrOps
from pydamon.primitives.base import NOT_ACCESSED, PrimitiveCost

PAGE = 4096
BASE = 0x7000_0000_0000


@pytest.fixture
def process() -> Iterator[Process]:
    own = Process(os.getpid())
    yield own
    own.close()


def known(process: Process, runs: list[tuple[int, int]]) -> Residency:
    """With these runs of pages (first, beyond) resident."""
    found = np.array(runs, np.uint64).reshape(-1, 2) * np.uint64(PAGE) + np.uint64(BASE)
    result = Residency(process)
    result.scan.runs.note(BASE, BASE + 1000 * PAGE, found)
    return result


def sampled(result: Residency, start: list[int], end: list[int], seed: int = 0) -> dict[int, int]:
    """Which page is sampled of which range (by index)."""
    low, high = (np.array(pages, np.uint64) * np.uint64(PAGE) + np.uint64(BASE) for pages in (start, end))
    index, addresses = result.sample(low, high, np.random.default_rng(seed))
    assert not (addresses % PAGE).any()
    return dict(zip(index.tolist(), ((addresses - np.uint64(BASE)) // np.uint64(PAGE)).tolist(), strict=True))


def test_each_range_gives_one_of_its_resident_pages(process: Process) -> None:
    result = known(process, [(3, 5), (8, 9), (20, 30)])
    for seed in range(20):
        found = sampled(result, [0, 4, 5, 9, 25, 40], [4, 9, 8, 20, 26, 50], seed)
        # 5-8, 9-20 and 40-50 have none
        assert set(found) == {0, 1, 4}
        assert found[0] == 3
        assert found[1] in (4, 8)
        assert found[4] == 25


def test_all_resident_pages_are_equally_likely(process: Process) -> None:
    result = known(process, [(0, 1), (10, 13)])
    found = [sampled(result, [0], [100], seed)[0] for seed in range(400)]
    # a quarter of 400 each; five standard deviations are 43
    assert all(57 < found.count(page) < 143 for page in (0, 10, 11, 12))


def test_nothing_known_gives_nothing(process: Process) -> None:
    assert sampled(known(process, []), [0], [100]) == {}
    assert sampled(Residency(process), [0], [100]) == {}


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=10), st.integers(0, 60), st.integers(1, 60))
def test_like_a_list_of_pages(lengths: list[tuple[int, int]], first: int, count: int) -> None:
    runs, pages, at = [], set(), 0
    for gap, length in lengths:
        at += gap
        runs.append((at, at + length))
        pages |= set(range(at, at + length))
        at += length
    own = Process(os.getpid())
    found = sampled(known(own, runs), [first], [first + count])
    own.close()
    expected = pages & set(range(first, first + count))
    assert set(found.values()) <= expected
    assert bool(found) == bool(expected)


class OnePageInEight:
    """Watches any page; those whose number is no multiple of eight are absent."""

    name = "fake"

    def __init__(self, process: Process) -> None:
        self.cost = PrimitiveCost()
        self.watched = np.empty(0, np.uint64)

    def prepare(self, addresses: np.ndarray) -> np.ndarray:
        self.watched = addresses.copy()
        return np.ones(len(addresses), np.bool_)

    def replace(self, index: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        self.watched[index] = addresses
        return np.ones(len(index), np.bool_)

    def absent(self) -> np.ndarray:
        absent: np.ndarray = self.watched // np.uint64(PAGE) % np.uint64(8) != 0
        return absent

    def check(self) -> np.ndarray:
        return np.full(len(self.watched), NOT_ACCESSED, np.uint8)

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize("faithful", [True, False])
def test_absent_pages_are_exchanged_unless_it_is_faithful(faithful: bool) -> None:
    resident = np.array([(page, page + 1) for page in range(0, 4096, 8)], np.uint64) * np.uint64(PAGE)
    ops = VaddrOps([Process(os.getpid())], OnePageInEight, rng=np.random.default_rng(1))
    mapped = [Mapping(0, 8192 * PAGE, "rw-p", 0, 0, "")]
    ops._mappings[0] = mapped
    ops._residencies.of(0, ops.processes[0], mapped).scan.runs.note(0, 8192 * PAGE, resident)
    ops._residencies._due_ns = 1 << 62  # nobody looks at what is really there
    ops.faithful = faithful
    start = np.arange(0, 8192, 64, dtype=np.uint64) * np.uint64(PAGE)  # the upper half has no resident page
    assert isinstance(ops.sampler, PageSampler)
    ops.sampler.prepare_access_checks(0, start, start + np.uint64(64 * PAGE))
    primitive = ops.primitives[0]
    assert isinstance(primitive, OnePageInEight)
    assert ((primitive.watched >= start) & (primitive.watched < start + np.uint64(64 * PAGE))).all()
    present = ~primitive.absent()
    if faithful:
        assert present.mean() < 0.3  # an eighth of 128, and chance
    else:
        assert present[:64].all()
        assert present[64:].mean() < 0.3
    ops.cleanup()


def test_the_pages_of_this_process(process: Process) -> None:
    with mmap.mmap(-1, 64 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as area:
        area[5 * PAGE] = 1
        view = ctypes.c_char.from_buffer(area)
        at = ctypes.addressof(view)
        del view  # or it cannot be closed
        ops = VaddrOps([process], OnePageInEight)
        ops.init()
        start, end = np.array([at, at], np.uint64), np.array([at + 64 * PAGE, at + 5 * PAGE], np.uint64)
        assert wait_for(lambda: ops.resident_bytes(0, start, end), [PAGE, 0])
        residency = ops.residency(0)
        assert residency is None  # the kernel's way
        ops.faithful = False
        residency = ops.residency(0)
        assert residency is not None
        index, addresses = residency.sample(start, end, np.random.default_rng(1))
        assert index.tolist() == [0]
        assert addresses.tolist() == [at + 5 * PAGE]
        ops.primitives.clear()  # (the fixture closes the process)


def wait_for(ask: Callable[[], Any], expected: list[int]) -> bool:
    """Whether it becomes that; until then it is unknown."""
    end = time.monotonic() + GENEROUS_S
    while (found := ask().tolist()) != expected and time.monotonic() < end:
        assert set(found) - set(expected) <= {UNKNOWN}
        time.sleep(0.01)
    return bool(found == expected)


@pytest.mark.usefixtures("processes")
def test_another_program_has_other_memory(process: Process) -> None:
    code = "import os, time; time.sleep(0.5); os.execvp('sleep', ['sleep', '600'])"
    with subprocess.Popen([sys.executable, "-c", code]) as child:
        ops = VaddrOps([Process(child.pid)], OnePageInEight)
        whole = np.zeros(1, np.uint64), np.full(1, (1 << 47) - PAGE, np.uint64)
        try:
            ops.init()
            end = time.monotonic() + GENEROUS_S
            seen: set[int | None] = set()
            while time.monotonic() < end and not (
                seen and child_name(child.pid) == "sleep" and total_is_rss(ops, whole)
            ):
                ops.update()
                found = ops.resident_bytes(0, *whole)
                seen.add(None if found is None else int(found[0]))
                time.sleep(0.02)
            assert child_name(child.pid) == "sleep"
            assert total_is_rss(ops, whole)
        finally:
            child.kill()
            child.wait()
        ops.update()
        ops.resident_bytes(0, *whole)  # it has ended: whatever it says
        ops.cleanup()


def child_name(pid: int) -> str:
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def total_is_rss(ops: VaddrOps, whole: tuple[Any, Any]) -> bool:
    found = ops.resident_bytes(0, *whole)
    with open(f"/proc/{ops.processes[0].pid}/smaps_rollup") as file:
        rss = next(int(line.split()[1]) * 1024 for line in file if line.startswith("Rss:"))
    return found is not None and abs(int(found[0]) - rss) <= 64 << 10


def test_all_targets_together_take_a_small_share_of_the_time(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000_000_000]
    looked = []

    def step(scan: ResidentScan) -> None:
        looked.append(scan)
        scan.spent_ns += 2_000_000
        scan.swept = True

    monkeypatch.setattr(ResidentScan, "step", step)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: now[0])
    many = Residencies()
    scans = [many.of(target, process, []).scan for target in range(7)]
    many.step()
    assert looked == scans[:3]  # 5 ms are over after the third
    many.step()
    now[0] += 59_999_999  # ten times that, as there are some that nobody has looked at
    many.step()
    assert looked == scans[:3]
    now[0] += 1
    many.step()
    assert looked == scans[:6]
    now[0] += 60_000_000
    many.step()
    assert looked[6:] == [scans[6], scans[0], scans[1]]  # first those that nobody has looked at, then in turn
    now[0] += 599_999_999
    many.step()
    assert len(looked) == 9
    now[0] += 1
    many.step()
    assert looked[9:] == [scans[2], scans[3], scans[4]]


def test_what_cannot_be_looked_at_is_said_once(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(scan: ResidentScan) -> None:
        scan.obstacle = "not for you"

    monkeypatch.setattr(ResidentScan, "step", step)
    many = Residencies()
    many.of(0, process, [])
    many.of(1, process, [])
    many.step()
    assert many.take_notices() == ["how much of the memory is resident is not known: not for you"]
    many._due_ns = 0
    many.step()
    assert many.take_notices() == []
    assert many.of(0, process, []).scan.resident_bytes(np.zeros(1, np.uint64), np.ones(1, np.uint64)) is None
