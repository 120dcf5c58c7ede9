"""A recording as a field of access rates, which a simulated process plays again: what is accessed when, to the page.

The addresses are cells of equal size. A cell's rate is that of the region over its middle, from one snapshot to the
next: as many accesses of each page as checks have found in the time, which is what a random page of the region was
found to have. A page is accessed whenever the integral of its rate, begun at a place of its own, passes a whole number:
so all questions about one moment have the same answer, and what is accessed in a part of the time is a run of pages in
each cell. Where regions are idle a hazard by their age says how often single pages in them are accessed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.workload import intervals
from pydamon.workload.intervals import NOTHING, Spans
from pydamon.workload.layout import PAGE_SIZE
from pydamon.workload.truth import Schedule

Array = NDArray[Any]
Mask = NDArray[np.bool_]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Hazard = Callable[[F64], F64]  # accesses of a page a second, by the seconds that its region is idle

CELLS = 1 << 15
_KEPT = 64  # snapshots that are kept as they are, and as many older ones, of which fewer and fewer are left


class Piece:
    """One snapshot: when it begins (ns), its regions (bytes), and how often a page of each is accessed a second."""

    __slots__ = ("end", "rate", "start", "start_ns")

    def __init__(self, start_ns: int, start: Array, end: Array, rate: Array) -> None:
        self.start_ns = start_ns
        self.start, self.end = start.astype(np.int64, copy=False), end.astype(np.int64, copy=False)
        self.rate = rate.astype(np.float32, copy=False)

    def later(self, by_ns: int) -> Piece:
        """The same at another time."""
        return Piece(self.start_ns + by_ns, self.start, self.end, self.rate)


class RateField:
    """The accesses of one process as a recording has them, instead of a workload's patterns; an `Accesses`.

    ``memory``: the spans of addresses that are memory (bytes, whole pages, sorted, disjoint), in about as many cells as
    ``cells``. Time goes forward only; long ago rates are known as means over several snapshots.
    """

    def __init__(self, pieces: Iterable[Piece], memory: Spans, cells: int = CELLS) -> None:
        self._pieces = iter(pieces)
        self._next = next(self._pieces, None)
        size = int((memory[:, 1] - memory[:, 0]).sum())
        self._cell = max(-(-size // cells // PAGE_SIZE), 1) * PAGE_SIZE
        counts = -(-(memory[:, 1] - memory[:, 0]) // self._cell)
        owner, number = intervals.pieces(counts)
        self.start: I64 = memory[owner, 0] + number * self._cell
        self.end: I64 = np.minimum(self.start + self._cell, memory[owner, 1])
        self._pages = (self.end - self.start) // PAGE_SIZE
        middle = (self.start + self.end) // 2
        self._middle: I64 = middle
        # A place of its own for the first page of each cell, so that cells of one rate are not in step.
        self._first = np.random.default_rng(len(self.start)).random(len(self.start))
        nothing = np.zeros(len(self.start))
        # Times (ns), the integrals of the rates until then, and the rates since the last of these times.
        self._times, self._until, self._rate = [0], [nothing], nothing

    def accessed(self, addresses: NDArray[np.uint64], schedule: Schedule, start_ns: int, end_ns: int) -> Mask:
        """For each address: is its page accessed in [start_ns, end_ns)? What is no memory is not."""
        at = addresses.astype(np.int64)
        cell = np.searchsorted(self.start, at, "right") - 1
        there = (cell >= 0) & (at < self.end[cell])
        low, high = self._integrals(schedule, start_ns, end_ns)
        place = self._first[cell] + ((at - self.start[cell]) // PAGE_SIZE) / self._pages[cell]
        found: Mask = there & (np.floor(high[cell] + place) > np.floor(low[cell] + place))
        return found

    def accessed_in(self, addresses: NDArray[np.uint64], schedule: Schedule, windows: I64) -> Mask:
        """The same of pages of shape (k, n), each in the window of its row (ns, shape (k, 2))."""
        rows = zip(addresses, windows.tolist(), strict=True)
        return np.stack([self.accessed(row, schedule, start_ns, end_ns) for row, (start_ns, end_ns) in rows])

    def touched(self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int, max_pieces: int) -> Spans:
        """Which parts of ``spans`` (int64, shape (n, 2), sorted, disjoint) are accessed in [start_ns, end_ns)."""
        low, high = self._integrals(schedule, start_ns, end_ns)
        moved = high - low
        some = np.flatnonzero(moved > 0)
        if not len(some):
            return NOTHING
        # Page j is accessed if a whole number lies in (low, high] + first + j / pages.
        pages = self._pages[some]
        begin = -(low[some] + self._first[some])
        begin = (begin - np.floor(begin)) * pages  # where a page would be accessed just now
        whole = moved[some] >= 1
        first = np.where(whole, 0, np.ceil(begin - moved[some] * pages)).astype(np.int64)
        behind = np.where(whole, pages, np.ceil(begin)).astype(np.int64)
        start = self.start[some]
        inside = np.stack([np.clip(first, 0, pages), np.clip(behind, 0, pages)], axis=1)
        around = np.stack([np.clip(first + pages, 0, pages), np.where(first < 0, pages, 0)], axis=1)
        found = np.concatenate([inside * PAGE_SIZE + start[:, None], around * PAGE_SIZE + start[:, None]])
        return intervals.intersection(spans, intervals.union(found))

    def accesses(self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int) -> F64:
        """How many accesses each of ``spans`` gets in [start_ns, end_ns): as many as checks have found."""
        low, high = self._integrals(schedule, start_ns, end_ns)
        owner, cell, part = intervals.meetings(spans, np.stack([self.start, self.end], axis=1))
        found = np.zeros(len(spans))
        found += np.bincount(owner, (part[:, 1] - part[:, 0]) / PAGE_SIZE * (high - low)[cell], len(spans))
        return found

    def _integrals(self, schedule: Schedule, start_ns: int, end_ns: int) -> tuple[F64, F64]:
        if schedule.end_ns is not None:  # afterwards nothing is accessed
            start_ns, end_ns = min(start_ns, schedule.end_ns), min(end_ns, schedule.end_ns)
        start_ns, end_ns = start_ns - schedule.start_ns, end_ns - schedule.start_ns
        while self._next is not None and self._next.start_ns <= end_ns:
            self._advance(self._next)
            self._next = next(self._pieces, None)
        return self._integral(start_ns), self._integral(end_ns)

    def _integral(self, time_ns: int) -> F64:
        at = bisect_right(self._times, time_ns) - 1
        if at < 0:
            return self._until[0]
        since_ns, until = self._times[at], self._until[at]
        if at == len(self._times) - 1:
            return until + self._rate * ((time_ns - since_ns) / 1e9)
        return until + (self._until[at + 1] - until) * ((time_ns - since_ns) / (self._times[at + 1] - since_ns))

    def _advance(self, piece: Piece) -> None:
        until = self._integral(piece.start_ns)
        region = np.searchsorted(piece.start, self._middle, "right") - 1
        inside = (region >= 0) & (self._middle < piece.end[region])
        self._rate = np.where(inside, piece.rate[region], 0.0).astype(np.float64)
        if piece.start_ns <= self._times[-1]:
            return
        self._times.append(piece.start_ns)
        self._until.append(until)
        if len(self._times) > 2 * _KEPT:  # every second one of the older half goes, but for the first
            del self._times[1:_KEPT:2]
            del self._until[1:_KEPT:2]


def memory_of(spans: Spans) -> Spans:
    """Spans of any order as whole pages, sorted and disjoint."""
    return intervals.union(np.stack([spans[:, 0] // PAGE_SIZE, -(-spans[:, 1] // PAGE_SIZE)], axis=1)) * PAGE_SIZE
