"""Counters of regions: moving sum, unanswered samples, rescaling."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core.regions import Regions


def one(last: int = 0, age: int = 0) -> Regions:
    regions = Regions(np.array([0], np.uint64), np.array([4096], np.uint64))
    regions.last_nr_accesses[:] = last
    regions.nr_accesses_bp[:] = last * 10000
    regions.age[:] = age
    return regions


def test_moving_sum_gives_the_kernels_vector() -> None:
    # mm/damon/tests/core-kunit.h damon_test_moving_sum: start 50000, window 10, input 1,0,1,0,0,0,1,0,0,0
    regions = one(last=5)
    sums = []
    for accessed in (1, 0, 1, 0, 0, 0, 1, 0, 0, 0):
        regions.record_answers(np.array([bool(accessed)]), None, 10)
        sums.append(int(regions.nr_accesses_bp[0]))
    assert sums == [55000, 50000, 55000, 50000, 45000, 40000, 45000, 40000, 35000, 30000]


def test_moving_sum_is_the_count_at_the_end_of_an_aggregation() -> None:
    rng = np.random.default_rng(5)
    regions = one(last=7)
    for answer in rng.random(20) < 0.5:
        regions.record_answers(np.array([answer]), None, 20)
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
        regions.record_answers(np.array([bool(accessed)]), np.array([bool(unknown)]), 4)
    regions.settle_unknown(4)
    assert regions.nr_accesses.tolist() == [4]  # 2 of the 2 that were answered


def test_a_region_without_any_answer_keeps_its_rate() -> None:
    regions = one(last=3)
    for _ in range(4):
        regions.record_answers(np.array([False]), np.array([True]), 4)
    regions.settle_unknown(4)
    assert regions.nr_accesses.tolist() == [3]


def test_reset_begins_a_new_aggregation() -> None:
    regions = one()
    regions.record_answers(np.array([True]), None, 4)
    regions.reset_aggregated()
    assert regions.last_nr_accesses.tolist() == [1]
    assert regions.nr_accesses.tolist() == [0]
