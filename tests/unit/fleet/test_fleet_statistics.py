"""What is said of hosts as a sample, beside tables of Student's t and worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pydamon.fleet import statistics


@pytest.mark.parametrize(("df", "t"), [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)])
def test_quantiles_are_those_of_the_tables(df: float, t: float) -> None:
    """The two-sided 5 % points as printed in any table of Student's t."""
    assert statistics.t_quantile(df) == pytest.approx(t, abs=0.002)


def test_welch_by_hand() -> None:
    """1..5 less 2, 4, 6: means 3 and 4, variances 2.5 / 5 and 4 / 3; df = 1.8333² / (0.5² / 4 + 1.3333² / 2) = 3.53."""
    found = statistics.difference(np.arange(1.0, 6), np.array([2.0, 4, 6]))
    assert found.value == pytest.approx(-1)
    df = (0.5 + 4 / 3) ** 2 / (0.5**2 / 4 + (4 / 3) ** 2 / 2)
    assert (found.high - found.low) / 2 == pytest.approx(statistics.t_quantile(df) * math.sqrt(0.5 + 4 / 3))


def test_intervals_have_the_difference_in_95_of_100_cases() -> None:
    draw = np.random.default_rng(3)
    found = [statistics.difference(draw.normal(1, 2, 6), draw.normal(0, 5, 9)) for _ in range(2000)]
    inside = np.mean([one.low <= 1 <= one.high for one in found])
    assert 0.93 < inside < 0.97  # 4 standard deviations of 2,000 draws


def test_one_host_says_nothing_of_others() -> None:
    assert statistics.mean_of(np.array([3.0])) == (3.0, -math.inf, math.inf)
    assert statistics.difference(np.array([3.0]), np.array([1.0, 2.0])).high == math.inf


def test_a_robust_distance_does_not_see_the_outlier_itself() -> None:
    """Of 1..9 and 1000: the median is 5.5, the deviations' median 2.5."""
    z = statistics.robust_z(np.array([*range(1, 10), 1000.0]))
    assert z[-1] == pytest.approx((1000 - 5.5) / (1.4826 * 2.5))
    assert np.all(statistics.robust_z(np.ones(5)) == 0)


def test_of_what_most_have_none_of_the_one_that_has_it_is_far_off() -> None:
    """Nineteen times 0 and one 100: the mean absolute deviation is 5."""
    z = statistics.robust_z(np.array([0.0] * 19 + [100.0]))
    assert z[-1] == pytest.approx(100 / (1.2533 * 5))
    assert np.all(z[:-1] == 0)
