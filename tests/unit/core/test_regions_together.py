"""What is done with the regions of all targets at once is what would be done with each target's by itself."""

from __future__ import annotations

import copy

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pydamon.core import adjust
from pydamon.core.boundaries import NO_BOUNDARIES
from pydamon.core.regions import Regions
from pydamon.core.together import Together

PAGE = 4096
WINDOW = 20
ROWS = ("start", "end", "nr_accesses", "last_nr_accesses", "moving_sum", "age", "age_ns", "unknown", "probe_hits")


@st.composite
def targets(draw: st.DrawFn) -> list[Regions]:
    """Up to four targets, in which the same addresses may be mapped; one may have joined in mid-aggregation."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        rows = draw(st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.integers(0, 20)), max_size=12))
        at, start, end = PAGE, [], []
        for pages, hole, _ in rows:
            start.append(at + hole * PAGE)
            at = start[-1] + pages * PAGE
            end.append(at)
        regions = Regions(np.array(start, np.uint64), np.array(end, np.uint64))
        counted = np.array([nr for *_, nr in rows], np.int64)
        regions.counts.set_nr_probes(1)
        regions.counts.accessed[:] = (counted * 3) % 21
        regions.count_samples(WINDOW, WINDOW)
        if number == 3:  # this one has just joined
            regions.counts.reset()
        regions.reset_aggregated()
        regions.counts.accessed[:] = counted
        regions.counts.hits[:] = counted // 2
        regions.age[:] = counted % 5
        regions.age_ns[:] = counted * 1000
        regions.count_samples(7 if number == 3 else WINDOW, WINDOW)
        if draw(st.booleans()):
            regions.counts.unknown[:] = (counted * 7) % 11
            regions.settle_unknown(WINDOW)
        found.append(regions)
    return found


def rows(regions: Regions) -> dict[str, object]:
    return {name: getattr(regions, name).tolist() for name in ROWS}


@given(targets(), st.integers(0, 20), st.booleans())
@settings(deadline=None)
def test_merging(given_targets: list[Regions], max_seen: int, bounded: bool) -> None:
    apart, together = given_targets, copy.deepcopy(given_targets)
    bounds = [one.start[1::2] if bounded else NO_BOUNDARIES for one in apart]
    for one in apart:
        adjust.update_age(one, max_seen // 10, 5)
    expected = [adjust.merge(one, max_seen // 10, 1 << 20, bound) for one, bound in zip(apart, bounds, strict=True)]
    merged = adjust.merge_all(
        together,
        max_seen=max_seen,
        sz_limit=1 << 20,
        max_nr_regions=1000,
        window=WINDOW,
        boundaries=bounds if bounded else (),
        elapsed_ns=5,
    )
    assert [rows(one) for one in merged] == [rows(one) for one in expected]
    for before, after in zip(together, merged, strict=True):
        if len(before) == len(after):  # a sampler sees by this that nothing is to be loaded anew
            assert after.start is before.start
            assert after.counts is before.counts


@given(targets(), st.integers(0, 99))
@settings(deadline=None)
def test_splitting(given_targets: list[Regions], seed: int) -> None:
    apart, together = given_targets, copy.deepcopy(given_targets)
    n = sum(map(len, apart))
    dice = np.random.default_rng(seed)
    expected = [adjust.split(one, 2, PAGE, dice) for one in apart]
    split = adjust.split_all(
        together, last_nr_regions=n + 1, max_nr_regions=1000, min_region=PAGE, rng=np.random.default_rng(seed)
    )
    assert [rows(one) for one in split] == [rows(one) for one in expected]


def test_parts_are_counted_on_their_own() -> None:
    """What is changed in one target's part later changes no other's."""
    first, second = (Regions(np.array([at, at + PAGE], np.uint64), np.array([at + PAGE, at + 2 * PAGE], np.uint64))
                     for at in (PAGE, PAGE))  # fmt: skip
    together = Together([first, second])
    one, other = together.parted()
    one.counts.accessed[:] = 5
    one.age[:] = 3
    assert other.nr_accesses.tolist() == other.age.tolist() == [0, 0]
    assert together.borders.tolist() == [2]
