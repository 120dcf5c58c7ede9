"""What is said of hosts as a sample: robust distances, and intervals of confidence by Student's t."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

# Times the median (or the mean) absolute deviation is the standard deviation of a normal distribution.
_MEDIAN, _MEAN = 1.4826, 1.2533
_STEPS = 4_000


class Interval(NamedTuple):
    """An estimate and its 95 % interval."""

    value: float
    low: float
    high: float


def robust_z(values: F64) -> F64:
    """How many standard deviations each is from the median, by the median absolute deviation.

    Where that is 0, since most are equal (of what seldom happens: 0), by the mean absolute deviation.
    """
    middle = np.median(values)
    off = np.abs(values - middle)
    spread = _MEDIAN * float(np.median(off)) or _MEAN * float(off.mean())
    if spread <= 0:
        return np.zeros(len(values))
    found: F64 = (values - middle) / spread
    return found


def t_quantile(df: float) -> float:
    """The two-sided 95 % point of Student's t with ``df`` degrees of freedom (1 or more), to four digits."""
    if df > 1e4:
        return 1.9600
    # t = sqrt(df) tan(x): the density in x is proportional to cos(x)^(df - 1), on a bounded interval.
    angles = np.linspace(0, math.pi / 2, _STEPS)
    density = np.cos(angles) ** (df - 1)
    reached = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    at = float(np.interp(0.95 * reached[-1], reached, angles))
    return math.sqrt(df) * math.tan(at)


def mean_of(values: F64) -> Interval:
    """The mean, with its interval; the interval of fewer than two values is infinite."""
    if len(values) < 2:
        value = float(values.mean()) if len(values) else math.nan
        return Interval(value, -math.inf, math.inf)
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    return _around(float(values.mean()), error, len(values) - 1)


def difference(first: F64, second: F64) -> Interval:
    """Mean of the first less that of the second, samples of different hosts: Welch's interval."""
    if len(first) < 2 or len(second) < 2:
        value = float(first.mean() - second.mean()) if len(first) and len(second) else math.nan
        return Interval(value, -math.inf, math.inf)
    parts = [float(one.var(ddof=1)) / len(one) for one in (first, second)]
    both = sum(parts)
    below = sum(part**2 / (len(one) - 1) for part, one in zip(parts, (first, second), strict=True))
    df = both**2 / below if below > 0 else math.inf
    return _around(float(first.mean() - second.mean()), math.sqrt(both), df)


def _around(value: float, error: float, df: float) -> Interval:
    half = error * t_quantile(df)
    return Interval(value, value - half, value + half)
