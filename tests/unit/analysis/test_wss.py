"""Working set sizes: worked numbers."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.records.record_samples import AGGR_NS, START_NS, snapshot

from pydamon.analysis.wss import WorkingSet, unsettled, working_sets
from pydamon.records.batch import RegionBatch


def _sizes(*sizes: int) -> WorkingSet:
    starts = START_NS + np.arange(len(sizes)) * AGGR_NS
    return WorkingSet(0, starts, starts + AGGR_NS, np.array(sizes, dtype=np.uint64))


def test_regions_with_enough_accesses_count() -> None:
    regions = [(0, 100, 0, 0), (100, 300, 1, 0), (300, 700, 2, 0), (1000, 1008, 20, 0)]
    batches = [RegionBatch.of([snapshot(0, regions)]), RegionBatch.of([snapshot(1, regions[:2])])]
    for min_accesses, expected in ((0, [708, 300]), (1, [608, 200]), (2, [408, 0]), (3, [8, 0]), (21, [0, 0])):
        (found,) = working_sets(batches, min_accesses)
        assert found.bytes.tolist() == expected


def test_targets_are_kept_apart() -> None:
    batch = RegionBatch.of([snapshot(0, [(0, 8 << t, 1, 0)], target=t) for t in (3, 0)])
    assert [(f.target, f.bytes.tolist()) for f in working_sets([batch])] == [(0, [8]), (3, [64])]


def test_nothing_gives_nothing() -> None:
    assert working_sets([]) == []


def test_percentiles_are_those_of_the_fields_tool() -> None:
    """Of 10 sorted sizes the one at int(percentile / 100 * 10), at most the last: 50 % is the sixth."""
    sizes = _sizes(*(10 * n for n in (3, 1, 2, 0, 4, 9, 8, 7, 6, 5)))
    assert sizes.percentiles([0, 25, 50, 75, 99.9, 100]) == [0, 20, 50, 70, 90, 90]
    # int(29 / 100.0 * 100) is 28: floating point is part of the definition.
    assert _sizes(*range(100)).percentiles([29]) == [28]


def test_snapshots_of_other_intervals_count_by_them() -> None:
    starts = START_NS + np.arange(3) * AGGR_NS
    sizes = np.array([10, 50, 30], np.uint64)
    # 7, 1 and 2 units of time: of the time 70 % had 10 bytes, up to 90 % 30, the rest 50
    found = WorkingSet(0, starts, starts + AGGR_NS, sizes, weight=np.array([700, 100, 200]))
    assert found.percentiles([0, 69, 70, 89, 90, 100]) == [10, 10, 30, 30, 50, 50]
    assert found.mean_bytes == (70 + 50 + 60) // 10
    assert found.settled().percentiles([69]) == [10]
    alike = WorkingSet(0, starts, starts + AGGR_NS, sizes, weight=np.array([100, 100, 100]))
    assert alike.percentiles([0, 50, 100]) == [10, 30, 50]


def test_the_aggregation_that_the_end_cut_short_counts_for_its_samples() -> None:
    all_there = {"resident": np.array([100], np.uint64)}
    used, idle = (snapshot(number, [(0, 100, nr, 0)]).replace(**all_there) for number, nr in enumerate((5, 0)))
    found = [used] * 9 + [idle.replace(aggr_us=idle.aggr_us // 20)]
    assert working_sets([RegionBatch.of(found)])[0].percentiles([0, 1]) == [0, 100]
    as_the_kernel = [one.replace(resident=None) for one in found]
    assert working_sets([RegionBatch.of(as_the_kernel)])[0].percentiles([0, 9, 10]) == [0, 0, 100]


def test_the_mean_is_rounded_down_and_does_not_overflow() -> None:
    assert _sizes(1, 2, 2).mean_bytes == 1
    assert _sizes(2**64 - 1, 2**64 - 1, 2**64 - 3).mean_bytes == 2**64 - 2


def test_over_time_is_the_mean_weighted_by_time() -> None:
    """Snapshots of 100 ms with 10, 20 and 60 bytes in two columns of 150 ms: (10 x 100 + 20 x 50) / 150 and so on."""
    over = _sizes(10, 20, 60).over_time(2)
    edges, values = over.edges, over.mean
    assert (edges - START_NS).tolist() == [0, 150_000_000, 300_000_000]
    assert values.tolist() == pytest.approx([(1000 + 1000) / 150, (1000 + 6000) / 150])


def test_over_time_has_gaps_where_nothing_was_recorded() -> None:
    late = START_NS + 9 * AGGR_NS
    sizes = WorkingSet(
        0,
        np.array([START_NS, late]),
        np.array([START_NS + AGGR_NS, late + AGGR_NS]),
        np.array([10, 20], dtype=np.uint64),
    )
    values = sizes.over_time(10).mean
    assert values[[0, 9]].tolist() == pytest.approx([10, 20])
    assert np.isnan(values[1:9]).all()


@pytest.mark.parametrize(
    ("regions", "first"),
    [
        ([10, 20, 30, 30, 40] + [30] * 95, 2),  # it grew until the third, which is as large as the next
        ([10, 10] + [30] * 98, 0),
        (list(range(1000)), 10),
        (list(range(50)), 5),
        ([1, 2, 3], 0),
        ([5], 0),
    ],
)
def test_regions_settle(regions: list[int], first: int) -> None:
    assert unsettled(np.array(regions)) == first
