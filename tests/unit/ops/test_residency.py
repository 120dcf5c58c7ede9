"""Resident pages are sampled rather than absent ones."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.linux.process import Process
from pydamon.ops import residency
from pydamon.ops.residency import Residency
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


def known(process: Process, runs: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> Residency:
    """With these runs of pages (first, beyond) resident."""
    found = np.array(runs, np.uint64).reshape(-1, 2) * np.uint64(PAGE) + np.uint64(BASE)
    monkeypatch.setattr(residency, "resident_ranges", lambda fd: found)
    result = Residency(process)
    result.refresh()
    return result


def sampled(result: Residency, start: list[int], end: list[int], seed: int = 0) -> dict[int, int]:
    """Which page is sampled of which range (by index)."""
    low, high = (np.array(pages, np.uint64) * np.uint64(PAGE) + np.uint64(BASE) for pages in (start, end))
    index, addresses = result.sample(low, high, np.random.default_rng(seed))
    assert not (addresses % PAGE).any()
    return dict(zip(index.tolist(), ((addresses - np.uint64(BASE)) // np.uint64(PAGE)).tolist(), strict=True))


def test_each_range_gives_one_of_its_resident_pages(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    result = known(process, [(3, 5), (8, 9), (20, 30)], monkeypatch)
    for seed in range(20):
        found = sampled(result, [0, 4, 5, 9, 25, 40], [4, 9, 8, 20, 26, 50], seed)
        # 5-8, 9-20 and 40-50 have none
        assert set(found) == {0, 1, 4}
        assert found[0] == 3
        assert found[1] in (4, 8)
        assert found[4] == 25


def test_all_resident_pages_are_equally_likely(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    result = known(process, [(0, 1), (10, 13)], monkeypatch)
    found = [sampled(result, [0], [100], seed)[0] for seed in range(400)]
    # a quarter of 400 each; five standard deviations are 43
    assert all(57 < found.count(page) < 143 for page in (0, 10, 11, 12))


def test_nothing_known_gives_nothing(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sampled(known(process, [], monkeypatch), [0], [100]) == {}
    assert sampled(Residency(process), [0], [100]) == {}


def test_too_many_runs_are_not_kept(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "_MAX_RUNS", 2)
    assert sampled(known(process, [(0, 1), (2, 3), (4, 5)], monkeypatch), [0], [10]) == {}


def test_a_large_process_is_not_scanned(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "_MAX_RESIDENT", PAGE)
    assert sampled(known(process, [(0, 1)], monkeypatch), [0], [10]) == {}


def test_a_kernel_without_the_call_gives_nothing(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(25, "Inappropriate ioctl for device")  # ENOTTY

    monkeypatch.setattr(residency, "resident_ranges", refuse)
    result = Residency(process)
    result.refresh()
    assert sampled(result, [0], [10]) == {}


def test_looking_takes_a_small_share_of_the_time(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0, 1_000, 499_000, 501_001, 501_002, 502_000])  # ns; what takes 1 us is due again after 500 us
    scans: list[int] = []

    def scan(fd: int) -> Any:
        scans.append(fd)
        return np.empty((0, 2), np.uint64)

    monkeypatch.setattr("pydamon.ops.residency.time.perf_counter_ns", lambda: next(now))
    monkeypatch.setattr(residency, "resident_ranges", scan)
    result = Residency(process)
    result.refresh()
    result.refresh()
    assert len(scans) == 1
    result.refresh()
    assert len(scans) == 2


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), max_size=10), st.integers(0, 60), st.integers(1, 60))
def test_like_a_list_of_pages(lengths: list[tuple[int, int]], first: int, count: int) -> None:
    runs, pages, at = [], set(), 0
    for gap, length in lengths:
        at += gap
        runs.append((at, at + length))
        pages |= set(range(at, at + length))
        at += length
    own = Process(os.getpid())
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = sampled(known(own, runs, monkeypatch), [first], [first + count])
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
def test_absent_pages_are_exchanged_unless_it_is_faithful(faithful: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    resident = np.array([(page, page + 1) for page in range(0, 4096, 8)], np.uint64) * np.uint64(PAGE)
    monkeypatch.setattr(residency, "resident_ranges", lambda fd: resident)
    ops = VaddrOps([Process(os.getpid())], OnePageInEight, rng=np.random.default_rng(1))
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
        result = Residency(process)
        result.refresh()
        if not len(result._start):
            pytest.skip("PAGEMAP_SCAN needs Linux 6.7")
        start, end = np.array([at], np.uint64), np.array([at + 64 * PAGE], np.uint64)
        index, addresses = result.sample(start, end, np.random.default_rng(1))
        assert index.tolist() == [0]
        assert addresses.tolist() == [at + 5 * PAGE]
