"""Intervals auto-tuning: long enough to see something, short enough to tell differences (docs/algorithms.md 2.9, 2.10).

The goal is a share of observed access events among the possible ones. Too few events: the intervals get longer, at most
twice as long a step; too many: shorter, at most half. The ratio of aggregation to sampling interval stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot, max_nr_accesses
from pydamon.spec import Intervals, IntervalsGoal

_GOAL = 10_000
_MINIMUM = 10_000
_MAXIMUM = 2**64 - 1


def feed_loop(last: int, score: int) -> int:
    """The next input of the feedback loop after ``last`` gave ``score``, where 10,000 is the goal (2.10).

    A lower score gives a larger input (at most twice), a higher one a smaller; from 20,000 on the minimum of 10,000.
    """
    if score == _GOAL:
        return last
    if score >= 2 * _GOAL:
        return _MINIMUM
    step = last * abs(_GOAL - score) // _GOAL
    return min(last + step, _MAXIMUM) if score < _GOAL else max(last - step, _MINIMUM)


def access_score(snapshots: Sequence[Snapshot], window: int, access_bp: int) -> int | None:
    """Observed access events in 1/10,000 of the wanted ones; an event is a byte of a region in a sample (2.9).

    Where a snapshot says what is resident, only that has bytes. What is not known, of which memory is there or whether
    it was accessed in the ``window`` samples, is not counted as cold but left out; None if that leaves nothing.
    """
    known = [(weights, s) for s in snapshots if len(s.start) for weights in (_weights(s, window),)]
    total = sum(int(weights.sum(dtype=np.uint64)) for weights, _ in known)
    if known and not total:
        return None
    events = sum(int((weights.astype(object) * s.nr_accesses).sum()) for weights, s in known)
    return events * 10_000 // max(total * window * access_bp // 10_000, 1)


def _weights(snapshot: Snapshot, window: int) -> NDArray[np.uint64]:
    """The bytes of each region that are known to count."""
    weights, unknown = snapshot.known_memory, snapshot.column("unknown")
    return weights if unknown is None else np.where(unknown >= window, 0, weights)


def tuned(intervals: Intervals, goal: IntervalsGoal, score: int) -> Intervals:
    """The intervals to go on with after ``score``."""
    factor_bp = feed_loop(100_000_000, score) // 10_000
    if factor_bp <= 10_000:
        factor_bp = 5_000 + factor_bp // 2
    window = max_nr_accesses(intervals.sample_us, intervals.aggr_us)
    sample_us = min(max(intervals.sample_us * factor_bp // 10_000, goal.min_sample_us), goal.max_sample_us)
    return Intervals(
        sample_us=sample_us,
        aggr_us=sample_us * window,
        ops_update_us=intervals.ops_update_us,
        intervals_goal=intervals.intervals_goal,
    )


def limited(new: Intervals, old: Intervals, limit_us: int) -> Intervals:
    """``new``, but longer than ``old`` only as far as an aggregation does not last longer than ``limit_us``."""
    if new.aggr_us <= max(old.aggr_us, limit_us):
        return new
    window = max_nr_accesses(new.sample_us, new.aggr_us)
    sample_us = max(old.sample_us, limit_us // window)
    return msgspec.structs.replace(new, sample_us=sample_us, aggr_us=sample_us * window)


def rescale_age(targets: Sequence[Regions], old_aggr_us: int, new_aggr_us: int) -> None:
    """Ages count aggregations: keep the time that they stand for (2.7)."""
    for regions in targets:
        regions.age[:] = np.minimum(regions.age * old_aggr_us // new_aggr_us, 2**32 - 1)
