"""How accurate monitoring was, where the access pattern is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from pydamon.core.snapshot import Snapshot
from pydamon.workload.truth import Ranges, precision_recall, size_bytes


@dataclass(frozen=True, slots=True)
class PhaseScore:
    """Result for one stretch of time in which the same ranges were hot.

    ``wss_error``: median of |found - true| / true over the phase's snapshots, where the working set found is the size
    of the regions with at least one access. ``found_after``: number of the first snapshot of the phase whose working
    set contains 95 % of the hot bytes (1 is the first; None if none does). ``precision``/``recall``: medians over the
    second half of the phase, for the bytes in regions that were accessed in at least half of the samples.
    """

    hot_bytes: int
    snapshots: int
    wss_error: float
    found_after: int | None
    precision: float
    recall: float
    regions: float


def score_phases(
    snapshots: Iterable[Snapshot],
    hot: Callable[[int], Ranges],
    *,
    window: tuple[int, int] | None = None,
) -> list[PhaseScore]:
    """Score the snapshots of one target against ``hot(time_ns)``, the (n, 2) ranges that are hot at that time.

    Snapshots in which the pattern changes are left out. With ``window`` (start, end in bytes) only that part of the
    address space counts: the part of a real process whose pattern is known.
    """
    phases: list[tuple[Ranges, list[tuple[float, float, float, float, int]]]] = []
    for snapshot in snapshots:
        truth = hot(snapshot.start_ns)
        if not len(truth) or not np.array_equal(truth, hot(snapshot.end_ns - 1)):
            continue
        if not phases or not np.array_equal(phases[-1][0], truth):
            phases.append((truth, []))
        phases[-1][1].append(_score(snapshot, truth, window))
    return [_phase(truth, rows) for truth, rows in phases]


def _phase(truth: Ranges, rows: list[tuple[float, float, float, float, int]]) -> PhaseScore:
    errors, covered, precision, recall, regions = (np.array(column, float) for column in zip(*rows, strict=True))
    steady = len(rows) // 2
    found = np.flatnonzero(covered >= 0.95)
    return PhaseScore(
        hot_bytes=size_bytes(truth),
        snapshots=len(rows),
        wss_error=float(np.median(errors)),
        found_after=int(found[0]) + 1 if len(found) else None,
        precision=float(np.median(precision[steady:])),
        recall=float(np.median(recall[steady:])),
        regions=float(np.median(regions)),
    )


def _score(snapshot: Snapshot, truth: Ranges, window: tuple[int, int] | None) -> tuple[float, float, float, float, int]:
    start, end = snapshot.start, snapshot.end
    if window is not None:
        low, high = np.uint64(window[0]), np.uint64(window[1])
        start, end = np.clip(start, low, high), np.clip(end, low, high)
    regions = np.stack([start, end], axis=1)
    true_bytes = size_bytes(truth)
    working_set = regions[snapshot.nr_accesses >= 1]
    often = regions[snapshot.nr_accesses * 2 >= snapshot.max_nr_accesses]
    _, covered = precision_recall(working_set, truth)
    precision, recall = precision_recall(often, truth)
    return abs(size_bytes(working_set) - true_bytes) / true_bytes, covered, precision, recall, len(snapshot.start)
