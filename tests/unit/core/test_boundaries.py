"""Regions that end where large mappings end."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydamon.core import adjust, boundaries
from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.linux.process import Mapping
from pydamon.ops.sim.ops import SimOps
from pydamon.spec import Context, NrRegions
from pydamon.workload.model import parse

PAGE = 4096
MIB = 1 << 20


def mapping(start: int, end: int) -> Mapping:
    return Mapping(start * PAGE, end * PAGE, "rw-p", 0, 0, "")


def pages(array: np.ndarray) -> list[int]:
    return (array // np.uint64(PAGE)).tolist()


def regions(*pairs: tuple[int, int]) -> Regions:
    start, end = np.array(pairs, np.uint64).T * np.uint64(PAGE)
    return Regions(start, end)


def test_both_ends_of_large_mappings_and_of_large_gaps_count() -> None:
    # 0-100 large; 100-103 and 103-105 small, side by side; a gap of 95 pages; 200-240 large; a small gap; 241-300.
    found = boundaries.of_mappings(
        [mapping(0, 100), mapping(100, 103), mapping(103, 105), mapping(200, 240), mapping(241, 300)], 20 * PAGE, PAGE
    )
    assert pages(found) == [0, 100, 105, 200, 240, 241, 300]
    assert len(boundaries.of_mappings([], PAGE, PAGE)) == 0


def test_few_mappings_are_large() -> None:
    # 1000 regions at most: 125 mappings may be large, so one has an 125th of all at least
    assert boundaries.large_spans(125 * MIB, 1000, PAGE) == MIB
    assert boundaries.large_spans(MIB, 1000, PAGE) == MIB // 125
    assert boundaries.large_spans(PAGE, 1000, PAGE) == PAGE
    assert boundaries.large_spans(MIB, 3, PAGE) == MIB
    # What gaps have taken is no longer there for boundaries.
    assert boundaries.large_spans(MIB, 1000, PAGE, 25) == MIB // 100
    assert boundaries.large_spans(MIB, 1000, PAGE, 125) == MIB


def test_gaps_get_an_eighth_of_the_regions_if_the_targets_leave_room() -> None:
    assert boundaries.most_gaps(1000, 1) == 125
    assert boundaries.most_gaps(1000, 250) == 125
    assert boundaries.most_gaps(1000, 300) == 50
    assert boundaries.most_gaps(1000, 333) == 0
    assert boundaries.most_gaps(10, 30) == 0


def test_regions_are_cut_and_the_pieces_keep_the_counters() -> None:
    whole = regions((0, 10), (10, 30), (50, 60))
    whole.nr_accesses[:], whole.age[:] = [1, 2, 3], [4, 5, 6]
    cut = boundaries.cut(whole, np.array([0, 10, 12, 20, 40, 55, 60, 70], np.uint64) * np.uint64(PAGE))
    assert pages(cut.start) == [0, 10, 12, 20, 50, 55]
    assert pages(cut.end) == [10, 12, 20, 30, 55, 60]
    assert cut.nr_accesses.tolist() == [1, 2, 2, 2, 3, 3]
    assert cut.age.tolist() == [4, 5, 5, 5, 6, 6]
    assert boundaries.cut(whole, boundaries.NO_BOUNDARIES) is whole


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=20),
    st.lists(st.integers(0, 300), max_size=30),
    st.lists(st.booleans(), min_size=20, max_size=20),
)
def test_cutting_and_merging_keep_what_is_covered(sizes: list[int], ends: list[int], holes: list[bool]) -> None:
    pairs, at = [], 5
    for size, hole in zip(sizes, holes, strict=False):
        at += 3 * hole
        pairs.append((at, at + size))
        at += size
    before = regions(*pairs)
    wanted = np.unique(np.array(ends, np.uint64) * np.uint64(PAGE))
    cut = boundaries.cut(before, wanted)
    assert cut.total_size() == before.total_size()
    inside = [end for end in set(ends) if any(low < end < high for low, high in pairs)]
    assert sorted(pages(cut.start)) == sorted({low for low, _ in pairs} | set(inside))
    merged = adjust.merge(cut, 0, 2**63, wanted)
    # All count alike: what touches becomes one, but for the boundaries.
    kept = {low for low, _ in pairs if low in set(ends) or low not in {high for _, high in pairs}} | set(inside)
    assert set(pages(merged.start)) == kept
    assert merged.total_size() == before.total_size()


# 20 mappings of 1 MiB with small gaps; the fourth is hot.
PATTERN = "\n".join(f"m{i}, {MIB}" for i in range(20)) + "\n\nhot\n2000\nm3, 0, 4096, 1\n"


def snapshots(*, faithful: bool, most: int = 1000) -> list[tuple[np.ndarray, np.ndarray]]:
    clock = VirtualClock()
    ops = SimOps([parse(PATTERN, source="test")], clock)
    bounds = NrRegions(min=3, max=most)
    context = Context(ops="sim", nr_regions=bounds, faithful=faithful)
    kdamond = Kdamond(ops, context, clock, rng=np.random.default_rng(1))
    found = [(shots[0].start, shots[0].nr_accesses) for shots in kdamond.monitor()]
    assert all(len(start) <= most for start, _ in found)
    return found


def test_the_hot_mapping_is_found_in_the_first_snapshot() -> None:
    start, nr_accesses = snapshots(faithful=False)[0]
    hot = start[nr_accesses > 0]
    assert len(hot) == 1
    assert nr_accesses.max() == 20
    # faithfully a region of a third of the process has some of it, and the mapping is found later
    start, nr_accesses = snapshots(faithful=True)[0]
    assert len(start) == 3
    assert nr_accesses.max() < 20


def test_the_maximum_number_of_regions_goes_first() -> None:
    # one of 8 regions may be cut for mappings: none is large
    assert all(len(start) <= 8 for start, _ in snapshots(faithful=False, most=8))
