"""Intervals that a primitive can afford.

A primitive whose check walks the whole resident set cannot be asked every 5 ms: where the user leaves the intervals
open, they follow what a check was measured to cost, so that checking takes about a tenth of the time.
"""

from __future__ import annotations

from pydamon.primitives.base import PrimitiveCost
from pydamon.spec import Intervals

_SHARE = 10  # a check may take 1/10 of the sampling interval
_SAMPLES = 10  # per aggregation, or 5 where it would take longer than a second
_STEPS_US = [step * 10**power for power in range(3, 7) for step in (1, 2, 5)]


def affordable(intervals: Intervals, spent_ns: int, samples: int) -> Intervals:
    """Intervals for a primitive that took ``spent_ns`` for ``samples`` checks; the given ones if they still fit.

    The sampling interval is one of 5, 10, 20, 50, … ms up to 5 s. To avoid going back and forth it is shortened only
    if the cost has fallen to less than a third of what the interval is meant for.
    """
    wanted_us = spent_ns * _SHARE // max(samples, 1) // 1000
    if intervals.sample_us // 5 <= wanted_us <= intervals.sample_us:
        return intervals
    sample_us = next((s for s in _STEPS_US if s >= max(wanted_us, 5000)), _STEPS_US[-1])
    if sample_us == intervals.sample_us:
        return intervals
    aggr_us = max(min(sample_us * _SAMPLES, 1_000_000), sample_us * _SAMPLES // 2, 100_000)
    return Intervals(sample_us=sample_us, aggr_us=aggr_us, ops_update_us=max(intervals.ops_update_us, sample_us))


class CostMeter:
    """How much of a primitive's time has been spent since the last look."""

    def __init__(self) -> None:
        self._spent_ns = 0
        self._samples = 0

    def since_last(self, cost: PrimitiveCost, samples: int) -> tuple[int, int]:
        """Nanoseconds inside the primitive's calls and number of samples since the previous call."""
        spent_ns = cost.check_ns + cost.clear_ns
        result = (spent_ns - self._spent_ns, samples - self._samples)
        self._spent_ns, self._samples = spent_ns, samples
        return result
