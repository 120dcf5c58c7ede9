"""The intervals of a trace: inferred from its times, and which snapshot is of which where they were tuned.

A trace says when the sampling interval changes (``damon_monitor_intervals_tune``); the number of samples in an
aggregation stays (docs/algorithms.md, the tuning of intervals).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_US = 100 * 366 * 86400 * 10**6
_MAX_US = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Tuning:
    """``events``: when (ns), and to what (µs) the sampling interval was changed; it may grow. ``samples`` in an
    aggregation."""

    events: list[tuple[int, int]]
    samples: int

    def sample_us(self, start_ns: NDArray[np.int64], end_ns: NDArray[np.int64], first: int) -> NDArray[np.int64]:
        """The sampling interval of each snapshot in µs, shape (n,); ``first`` before the first change."""
        return _at(self.events, start_ns, end_ns, first)

    def aggr_us(self, sample_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """The aggregation intervals that belong to these sampling intervals, in µs."""
        return np.minimum(sample_us * self.samples, _MOST_US)


def _at(
    events: Sequence[tuple[int, int]], start_ns: NDArray[np.int64], end_ns: NDArray[np.int64], first: int
) -> NDArray[np.int64]:
    """A snapshot is of the interval in its middle: the kernel tells of a change about when a snapshot ends, somewhat
    before or behind its lines."""
    times = np.array([time_ns for time_ns, _ in events], np.int64)
    values = np.array([first, *(sample_us for _, sample_us in events)], np.int64)
    middle = start_ns + (end_ns - start_ns) // 2
    found: NDArray[np.int64] = values[np.searchsorted(times, middle, side="right")]
    return found


def infer_tuning(
    events: list[tuple[int, int]], ends_ns: Mapping[int, Sequence[int]]
) -> tuple[Tuning | None, int | None]:
    """(how it was tuned, None if it was not or nothing shows it; the first aggregation interval, as `infer_aggr_us`).

    ``ends_ns`` are the ends of each target's snapshots.
    """
    if not events:
        return None, infer_aggr_us({target: list(ends) for target, ends in ends_ns.items()})
    before: dict[int, list[int]] = {}
    ratios: list[float] = []
    for target, told in ends_ns.items():
        ends = np.asarray(told, np.int64)
        if len(ends) < 2:
            continue
        sample_us = _at(events, ends[:-1], ends[1:], 0)
        untouched = int(np.argmax(sample_us > 0)) if sample_us.any() else len(sample_us)
        before[target] = list(told[: untouched + 1])
        steps = np.diff(ends)
        good = (sample_us > 0) & (steps > 0)
        ratios += (steps[good] / 1000 / sample_us[good]).tolist()
    aggr_us = infer_aggr_us(before)
    if not ratios:
        return None, aggr_us
    # As there: an interval takes a little longer than it was asked for.
    samples = max(int(np.median(ratios) * 1.01), 1)
    return Tuning(events, samples), aggr_us if aggr_us is not None else min(events[0][1] * samples, _MOST_US)


def infer_aggr_us(ends_ns: dict[int, list[int]]) -> int | None:
    """The aggregation interval that the distances between the ends of each target's snapshots show; None if none do.

    An interval takes a little longer than it was asked for: the median, rounded down to two digits (104.2 ms: 100).
    """
    steps = [step for ends in ends_ns.values() for step in np.diff(ends).tolist() if step > 0]
    if not steps:
        return None
    micros = max(int(np.median(steps)) * 101 // 100 // 1000, 1)
    unit = 10 ** max(len(str(micros)) - 2, 0)
    return min(micros // int(unit) * int(unit), _MAX_US)
