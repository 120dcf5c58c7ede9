"""The figures of benchmarks that compare windows of time."""

from __future__ import annotations

import pytest
from benchmarks.spinner import of_the_median


@pytest.mark.parametrize(("count", "rank"), [(6, 1), (8, 1), (10, 2), (12, 3), (15, 4), (20, 6), (25, 8), (50, 18)])
def test_the_bounds_of_a_median_are_those_of_the_tables_of_the_sign_test(count: int, rank: int) -> None:
    """Ranks of the usual table of nonparametric 95 % intervals of a median (e.g. Conover, table A3)."""
    values = [float(value) for value in range(count, 0, -1)]
    assert of_the_median(values) == (rank, count + 1 - rank)


def test_of_few_windows_the_bounds_are_the_ends() -> None:
    assert of_the_median([3.0, 1.0, 2.0]) == (1.0, 3.0)
