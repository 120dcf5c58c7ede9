"""The moving sum on demand, and counts under other intervals, by the numbers of the kernel's own unit tests."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core.moving import left_bp, moving_sum, rescaled


def of_one(counted: int, last: int, left: int) -> int:
    return int(moving_sum(np.array([counted]), np.array([last], np.uint16), left)[0])


@pytest.mark.parametrize(
    ("counted", "last", "left", "expected"),
    # mm/damon/tests/core-kunit.h of 7.3, the moving sum of nr_accesses
    [(0, 49, 10_000, 49), (3, 10, 7_000, 10), (3, 10, 5_000, 8), (32, 100, 1_000, 42), (42, 49, 0, 42)],
)
def test_kernel_vector(counted: int, last: int, left: int, expected: int) -> None:
    assert of_one(counted, last, left) == expected


@pytest.mark.parametrize(
    ("passed", "counted", "last", "expected"),
    # as above, with the samples that have passed of 10
    [(0, 5, 3, 3), (0, 0, 7, 7), (5, 3, 10, 8), (8, 3, 10, 5), (10, 42, 49, 42)],
)
def test_kernel_vector_by_samples(passed: int, counted: int, last: int, expected: int) -> None:
    assert of_one(counted, last, left_bp(passed, 10)) == expected


def test_it_is_rounded_once() -> None:
    # One of three samples, none accessed: 0 + 3 * 6666 / 10000. (A sum that loses 3333/10000 of 3 is 2 there.)
    assert left_bp(1, 3) == 6_666
    assert of_one(0, 3, left_bp(1, 3)) == 1


def test_more_samples_than_an_aggregation_has_leave_nothing_of_the_last() -> None:
    assert left_bp(12, 10) == 0
    assert left_bp(0, 0) == 10_000  # an aggregation of no sample counts as one of one


def test_the_result_is_not_the_last_count_itself() -> None:
    last = np.array([3, 4])
    found = moving_sum(np.zeros(2, np.int64), last, 10_000)
    found[:] = 9
    assert last.tolist() == [3, 4]


def test_hits_of_probes_are_summed_row_by_row() -> None:
    hits, last = np.array([[3, 0], [1, 2]]), np.array([[16, 4], [0, 8]])
    assert moving_sum(hits, last, left_bp(5, 20)).tolist() == [[15, 3], [1, 8]]


@pytest.mark.parametrize(
    ("count", "old", "new", "expected"),
    [
        # core-kunit.h damon_test_update_monitoring_result: 10/1000 us to 100/10000 and 1/1000 us
        (15, 100, 100, 15),
        (15, 100, 1000, 150),
        # by the documented formula: 7 * 10000 / 20 = 3500; 3500 * 10 / 10000 = 3.5
        (7, 20, 10, 3),
        (1, 3, 3, 0),  # 3333 * 3 / 10000: it rounds down also where nothing changes
    ],
)
def test_counts_under_other_intervals(count: int, old: int, new: int, expected: int) -> None:
    assert rescaled(np.array([count], np.uint8), old, new).tolist() == [expected]
