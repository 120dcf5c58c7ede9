"""Counters of regions: moving sum, unanswered samples, rescaling."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pydamon.core import adjust
from pydamon.core.regions import Regions


def one(last: int = 0, age: int = 0) -> Regions:
    regions = Regions(np.array([0], np.uint64), np.array([4096], np.uint64))
    regions.last_nr_accesses[:] = last
    regions.age[:] = age
    return regions


def record(regions: Regions, accessed: Any, unknown: Any = 0, *, window: int) -> None:
    """One sample, as a sampler and the loop count it."""
    regions.counts.accessed += accessed
    regions.counts.unknown += unknown
    regions.count_samples(1, window)


def test_moving_sum_is_the_last_count_at_first_and_the_new_one_at_the_end() -> None:
    rng = np.random.default_rng(5)
    regions = one(last=7)
    assert regions.moving_sum.tolist() == [7]
    for answer in rng.random(20) < 0.5:
        record(regions, np.array([answer]), window=20)
    assert regions.moving_sum.tolist() == regions.nr_accesses.tolist()


@pytest.mark.parametrize(
    ("sample_us", "aggr_us", "nr", "age"),
    [
        # core-kunit.h damon_test_update_monitoring_result: from 10/1000 us with 15 accesses
        (100, 10000, 15, 2),
        (1, 1000, 150, 20),
        (1, 100, 15, 200),
    ],
)
def test_rescaling_keeps_rate_and_time(sample_us: int, aggr_us: int, nr: int, age: int) -> None:
    regions = one(last=15, age=20)
    regions.rescale(old_window=100, new_window=aggr_us // sample_us, old_aggr_us=1000, new_aggr_us=aggr_us)
    assert regions.last_nr_accesses.tolist() == [nr]
    assert regions.moving_sum.tolist() == [nr]
    assert regions.nr_accesses.tolist() == [0]
    assert regions.age.tolist() == [age]


def test_unanswered_samples_are_not_counted_as_idle() -> None:
    regions = one(last=3)
    for accessed, unknown in ((1, 0), (0, 1), (1, 0), (0, 1)):
        record(regions, np.array([bool(accessed)]), np.array([bool(unknown)]), window=4)
    regions.settle_unknown(4)
    assert regions.nr_accesses.tolist() == [4]  # 2 of the 2 that were answered


def test_a_region_without_any_answer_keeps_its_rate() -> None:
    regions = one(last=3)
    for _ in range(4):
        record(regions, np.array([False]), np.array([True]), window=4)
    regions.settle_unknown(4)
    assert regions.nr_accesses.tolist() == [3]


def test_reset_begins_a_new_aggregation() -> None:
    regions = one()
    record(regions, np.array([True]), window=4)
    regions.reset_aggregated()
    assert regions.last_nr_accesses.tolist() == [1]
    assert regions.nr_accesses.tolist() == [0]


@pytest.mark.parametrize("window", [20, 7, 3])
def test_the_moving_sum_of_each_region_follows_its_counts(window: int) -> None:
    """50 aggregations of 1,000 regions, with unknowns and splits: each region by itself, by the documented formula."""
    rng = np.random.default_rng(11)
    start = np.arange(1000, dtype=np.uint64) * np.uint64(4096)
    regions = Regions(start, start + np.uint64(4096))
    last, nr = np.zeros((2, 1000), np.int64)
    for aggregation in range(50):
        for sample in range(window):
            accessed = rng.random(1000) < rng.random()
            unknown = ~accessed & (rng.random(1000) < 0.1) & (aggregation % 3 == 0)
            record(regions, accessed, unknown, window=window)
            nr += accessed
            if sample == window // 2 and aggregation % 5 == 0:  # cut in the middle of an aggregation
                index = rng.permutation(1000).astype(np.intp)
                regions = regions.select(index, regions.start.copy(), regions.end.copy())
                last, nr = last[index], nr[index]
            assert regions.nr_accesses.tolist() == nr.tolist()
            left_bp = (window - sample - 1) * 10_000 // window
            assert regions.moving_sum.tolist() == [a + b * left_bp // 10_000 for a, b in zip(nr, last, strict=True)]
        regions.settle_unknown(window)
        nr = regions.nr_accesses.copy()
        assert regions.moving_sum.tolist() == nr.tolist()
        regions.reset_aggregated()
        last, nr = nr, np.zeros(1000, np.int64)
        assert regions.last_nr_accesses.tolist() == regions.moving_sum.tolist() == last.tolist()


def test_counts_may_lie_in_narrow_strided_memory_of_somebody_else() -> None:
    memory = np.zeros(3, [("start", np.uint64), ("nr", np.uint16), ("unknown", np.uint16), ("rest", np.uint32)])
    start = np.arange(3, dtype=np.uint64) * np.uint64(4096)
    regions = Regions(start, start + np.uint64(4096))
    regions.counts.accessed, regions.counts.unknown = memory["nr"], memory["unknown"]
    memory["nr"] = [3, 0, 1]
    memory["unknown"] = [0, 4, 2]
    regions.count_samples(4, 4)
    assert regions.moving_sum.tolist() == [3, 0, 1]
    halves = adjust.split(regions, 2, 1, np.random.default_rng(1))
    assert halves.counts.accessed.tolist() == [3, 3, 0, 0, 1, 1]
    assert not np.shares_memory(halves.counts.accessed, memory)
    regions.settle_unknown(4)
    assert memory["nr"].tolist() == [3, 0, 2]  # 1 of the 2 that were answered
    (merged,) = adjust.merge_all([regions], max_seen=20, sz_limit=2**40, max_nr_regions=3, window=20)
    assert merged.nr_accesses.tolist() == [3, 1]
    regions.reset_aggregated()
    assert memory["nr"].tolist() == memory["unknown"].tolist() == [0, 0, 0]


def test_how_long_regions_were_idle_is_told_by_address() -> None:
    regions = Regions(np.array([0, 8192, 20480], np.uint64), np.array([8192, 12288, 28672], np.uint64))
    regions.last_nr_accesses[:] = 0, 1, 0
    regions.age_ns[:] = 5, 6, 7
    asked = np.array([28672, 4096, 8192, 16384, 24576, 0], np.uint64)
    assert regions.idle_ns_at(asked).tolist() == [-1, 5, -1, -1, 7, 5]
    assert Regions.empty().idle_ns_at(asked[:2]).tolist() == [-1, -1]
