"""How much memory came back after it had been idle, for each idle time: counted since the start, by target.

Of a target with a page panel each page that was accessed counts, by how long it had been idle, for as many bytes as it
stands for. Else regions tell, looked at every 10 s: what was idle then and has been accessed since. Of regions nobody
knows the error, and what was idle for less than twice that is seen only in part.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import unaccessed_s
from pydamon.core.panel import BOUNDS_S, Look, bins_of
from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch

F64 = NDArray[np.float64]
EVERY_NS = 10_000_000_000  # between two looks at regions


class Returned:
    """Of all targets: bytes since the start by the bins of `BOUNDS_S`; a page may stand for parts of a byte."""

    def __init__(self) -> None:
        self._bytes: dict[int, F64] = {}
        self._idle: dict[int, tuple[int, F64, F64, F64]] = {}  # when, and start, end and idle time of regions

    def of(self, target: int) -> F64 | None:
        """By how long it had been idle; None: nothing was looked at twice yet. The array is not changed any more."""
        return self._bytes.get(target)

    def note_look(self, look: Look, pages: int) -> None:
        """A look at its panel, of so many pages: once a second for each target, in the thread that monitors."""
        if pages:
            more: F64 = np.multiply(look.ended, look.resident_bytes / pages)
            self._add(look.target, more)

    def note_regions(self, snapshot: Snapshot) -> None:
        """The regions of a target without a panel, at each aggregation."""
        before = self._idle.get(snapshot.target)
        if before is not None and snapshot.end_ns - before[0] < EVERY_NS:
            return
        batch = RegionBatch.of([snapshot])
        start, end = (array.astype(np.float64) for array in (snapshot.start, snapshot.end))
        idle_s = unaccessed_s(batch)
        self._idle[snapshot.target] = (snapshot.end_ns, start, end, idle_s)
        if before is None:
            return
        then_ns, old_start, old_end, old_idle_s = before
        accessed = np.where(idle_s < (snapshot.end_ns - then_ns) / 1e9, batch.memory.astype(np.float64), 0.0)
        returned = np.where(old_idle_s < 0, 0.0, _within(old_start, old_end, start, end, accessed))
        bins = bins_of((old_idle_s * 1e9).astype(np.int64))
        self._add(snapshot.target, np.bincount(bins, returned, len(BOUNDS_S)).astype(np.float64, copy=False))

    def only(self, living: Collection[int]) -> None:
        """No other targets live."""
        for kept in (self._bytes, self._idle):
            for target in kept.keys() - living:
                del kept[target]

    def _add(self, target: int, more: F64) -> None:
        before = self._bytes.get(target)
        self._bytes[target] = more if before is None else before + more  # a new array: others hold the old one


def after(returned: F64, windows_s: Sequence[int]) -> list[int]:
    """Bytes that came back after at least each of these idle times, which are bounds of panels'.

    Each bin is rounded, not their sums: so what comes back meanwhile, the difference of two of these, falls with the
    idle time as well. Of sums that are rounded it may rise by a byte, which readers of shipped rows do not believe.
    """
    sums = np.cumsum(np.rint(returned).astype(np.int64)[::-1])[::-1]
    found: list[int] = sums[[BOUNDS_S.index(window_s) for window_s in windows_s]].tolist()
    return found


def _within(start: F64, end: F64, from_: F64, to: F64, amount: F64) -> F64:
    """How much of the ``amount`` in [from_, to) lies in each [start, end); both sorted and disjoint."""
    if not len(from_):
        return np.zeros(len(start))
    edges = np.column_stack([from_, to]).ravel()
    sums = np.concatenate([[0.0], np.cumsum(amount)])
    below = np.column_stack([sums[:-1], sums[1:]]).ravel()
    found: F64 = np.interp(end, edges, below) - np.interp(start, edges, below)
    return found
