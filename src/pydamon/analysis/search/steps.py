"""How much memory was idle for how long, and how much of it was used again, step by step over a recording."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.refaults import Seen
from pydamon.analysis.whatif.ages import AgesAccumulator
from pydamon.core.panel import BOUNDS_S, Look, bins_of
from pydamon.records.batch import RegionBatch

F64 = NDArray[np.float64]

MOST = 1200  # steps


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """``idle``: bytes in each bin of idle times at the end of each step; ``ended``: bytes whose idle time ended in it.

    Both of shape (steps, bins); the bins begin at ``bounds_s`` (ascending) and end at the next. ``ends_s``: when the
    steps end, after the beginning; all are as long. The first ``tuned`` of them are those that settings are chosen by.
    """

    bounds_s: F64
    ends_s: F64
    idle: F64
    ended: F64
    tuned: int

    @property
    def step_s(self) -> float:
        """How long one is."""
        return float(self.ends_s[0])


def of_panel(looks: Sequence[Look], span_ns: tuple[int, int], tuned_ns: int) -> Steps:
    """What the looks at a panel tell; ``tuned_ns`` is when the tuned part ends."""
    bounds = np.array(BOUNDS_S, np.float64)
    seen = Seen(looks)
    times_ns = np.array([look.time_ns for look in seen.looks], np.int64)
    ends_ns, number, tuned = _grid(times_ns, span_ns, tuned_ns, len(times_ns))
    held, back = (counts * seen.page_bytes[:, None] for counts in (seen.idle, seen.ended))
    # Pages that were never seen used before, and were now: idle since the panel began.
    back[np.arange(len(times_ns)), bins_of(times_ns - times_ns[:1])] += seen.first * seen.page_bytes
    ended = np.zeros((len(ends_ns), len(bounds)))
    np.add.at(ended, number, back)
    return Steps(bounds, (ends_ns - span_ns[0]) / 1e9, _latest(held, number, len(ends_ns)), ended, tuned)


def of_regions(
    batches: Iterable[RegionBatch], thresholds: F64, span_ns: tuple[int, int], tuned_ns: int, snapshots: int
) -> Steps:
    """What regions tell, which miss single pages; all snapshots are of one target. ``snapshots``: about how many."""
    accumulator = AgesAccumulator(thresholds, span_ns, span_ns[0])
    ends_ns, _, tuned = _grid(np.zeros(0, np.int64), span_ns, tuned_ns, snapshots)
    idle, ended = np.zeros((2, len(ends_ns), len(thresholds)))
    for batch in batches:
        number = _number(batch.start_ns, ends_ns)
        for at in np.unique(number).tolist():
            before = accumulator.sums()
            accumulator.add(batch.select(number == at))
            cold, back = (now - then for now, then in zip(accumulator.sums(), before, strict=True))
            idle[at] += cold
            ended[at] += back
    lasts = np.diff(ends_ns, prepend=span_ns[0])[:, None]
    seen = idle.any(axis=1)
    idle = _latest((idle / lasts)[seen], np.flatnonzero(seen), len(ends_ns))
    return Steps(thresholds, (ends_ns - span_ns[0]) / 1e9, idle, ended, tuned)


def _grid(
    times_ns: NDArray[np.int64], span_ns: tuple[int, int], tuned_ns: int, most: int
) -> tuple[NDArray[np.int64], NDArray[np.intp], int]:
    """When the steps end, in which of them each time lies, and how many of them end with the tuned part."""
    count = max(min(most, MOST), 2)
    share = (tuned_ns - span_ns[0]) / max(span_ns[1] - span_ns[0], 1)
    tuned = min(max(round(count * share), 1), count - 1)
    ends = np.linspace(*span_ns, count + 1)[1:].astype(np.int64)
    return ends, _number(times_ns, ends), tuned


def _number(times_ns: NDArray[np.int64], ends_ns: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.minimum(np.searchsorted(ends_ns, times_ns, "left"), len(ends_ns) - 1)


def _latest(rows: F64, number: NDArray[np.intp], count: int) -> F64:
    """Of each step the last row that lies in it or before it; before the first nothing was idle."""
    at = np.searchsorted(number, np.arange(count), "right") - 1
    found: F64 = np.where((at >= 0)[:, None], rows[np.maximum(at, 0)], 0.0) if len(rows) else np.zeros((count, 0))
    return found
