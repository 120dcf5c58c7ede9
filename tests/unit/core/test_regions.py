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
    regions.nr_accesses_bp = np.array([last * 10000])
    regions.age[:] = age
    return regions


def record(regions: Regions, accessed: Any, unknown: Any = 0, *, window: int) -> None:
    """One sample, as a sampler and the loop count it."""
    regions.counts.accessed += accessed
    regions.counts.unknown += unknown
    regions.count_samples(1, window)


def test_moving_sum_gives_the_kernels_vector() -> None:
    # mm/damon/tests/core-kunit.h damon_test_moving_sum: start 50000, window 10, input 1,0,1,0,0,0,1,0,0,0
    regions = one(last=5)
    sums = []
    for accessed in (1, 0, 1, 0, 0, 0, 1, 0, 0, 0):
        record(regions, np.array([bool(accessed)]), window=10)
        sums.append(int(regions.nr_accesses_bp[0]))
    assert sums == [55000, 50000, 55000, 50000, 45000, 40000, 45000, 40000, 35000, 30000]


def test_moving_sum_is_the_count_at_the_end_of_an_aggregation() -> None:
    rng = np.random.default_rng(5)
    regions = one(last=7)
    for answer in rng.random(20) < 0.5:
        record(regions, np.array([answer]), window=20)
    assert regions.nr_accesses_bp[0] == regions.nr_accesses[0] * 10000


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
    assert regions.nr_accesses_bp.tolist() == [nr * 10000]
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
def test_the_moving_sum_is_what_one_step_per_sample_gives(window: int) -> None:
    """50 aggregations of 20 samples of 1,000 regions: with unknowns, splits, and sums that are set by merging."""
    rng = np.random.default_rng(11)
    start = np.arange(1000, dtype=np.uint64) * np.uint64(4096)
    regions = Regions(start, start + np.uint64(4096))
    last, nr, moving_sum = np.zeros((3, 1000), np.int64)
    for aggregation in range(50):
        for sample in range(20):
            accessed = rng.random(1000) < rng.random()
            unknown = ~accessed & (rng.random(1000) < 0.1) & (aggregation % 3 == 0)
            record(regions, accessed, unknown, window=window)
            nr += accessed
            moving_sum += accessed * 10_000 - last * 10_000 // window  # the kernel's step
            if sample == 12 and aggregation % 5 == 0:  # cut in the middle of an aggregation
                index = rng.permutation(1000).astype(np.intp)
                regions = regions.select(index, regions.start.copy(), regions.end.copy())
                last, nr, moving_sum = last[index], nr[index], moving_sum[index]
            assert regions.nr_accesses.tolist() == nr.tolist()
            assert regions.nr_accesses_bp.tolist() == moving_sum.tolist()
        if aggregation % 4 == 0:
            regions.settle_unknown(window)
            if aggregation % 3 == 0:  # all of that target's sums, if some answer is missing
                nr = regions.nr_accesses.copy()
                moving_sum = nr * 10_000
            assert regions.nr_accesses_bp.tolist() == moving_sum.tolist()
        regions.reset_aggregated()
        last, nr = nr.copy(), np.zeros(1000, np.int64)
        assert regions.last_nr_accesses.tolist() == last.tolist()


def test_counts_may_lie_in_narrow_strided_memory_of_somebody_else() -> None:
    memory = np.zeros(3, [("start", np.uint64), ("nr", np.uint16), ("unknown", np.uint16), ("rest", np.uint32)])
    start = np.arange(3, dtype=np.uint64) * np.uint64(4096)
    regions = Regions(start, start + np.uint64(4096))
    regions.counts.accessed, regions.counts.unknown = memory["nr"], memory["unknown"]
    memory["nr"] = [3, 0, 1]
    memory["unknown"] = [0, 4, 2]
    regions.count_samples(4, 4)
    assert regions.nr_accesses_bp.tolist() == [30_000, 0, 10_000]
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
