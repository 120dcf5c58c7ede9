"""Which pages of an address space were ever touched, as intervals."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.base import PAGE_SIZE, Addresses, Ranges
from pydamon.ops.reported.reports import union
from pydamon.spans import distinct

MAX_INTERVALS = 4096  # 64 KiB; beyond it the smallest gaps are closed: what matters is the largest

_CACHE = 1 << 16
_SHIFT = np.uint64(12)
_NO_PAGE = np.uint64(2**64 - 1)


class TouchedPages:
    """Grows only: what was unmapped again is still there. ``intervals`` is a new array whenever it has changed."""

    def __init__(self) -> None:
        self.intervals: Ranges = np.empty((0, 2), np.uint64)  # sorted, disjoint, page-aligned, in bytes
        # A direct-mapped cache of page numbers that are in the intervals: nearly all accesses go to few pages.
        self._cache: NDArray[np.uint64] = np.full(_CACHE, _NO_PAGE, np.uint64)

    def add(self, first: Addresses, last: Addresses | None = None) -> None:
        """Pages with the numbers ``first`` to ``last`` (inclusive, default the same); uint64, shape (n,)."""
        single = last is None
        if last is None:
            slot = (first & np.uint64(_CACHE - 1)).astype(np.intp)
            new = self._cache[slot] != first
            if not new.any():
                return
            first = last = first[new]
            self._cache[slot[new]] = first
        known = self.intervals
        # Those that were only pushed out of the cache are in the intervals already.
        if len(known):
            index = np.searchsorted(known[:, 0], first << _SHIFT, side="right")
            outside = (index == 0) | (known[np.maximum(index, 1) - 1, 1] < (last + np.uint64(1)) << _SHIFT)
            first, last = first[outside], last[outside]
        if single:
            first = last = distinct(first)
        if len(first):
            more = np.stack([first << _SHIFT, (last + np.uint64(1)) << _SHIFT], axis=1)
            self.intervals = _bounded(union(np.concatenate([known, more])), MAX_INTERVALS)

    def coarse(self, most: int) -> Ranges:
        """The intervals with the smallest gaps closed until at most ``most`` are left."""
        return _bounded(self.intervals, most)


def _bounded(intervals: Ranges, most: int) -> Ranges:
    if len(intervals) <= most:
        return intervals
    gaps = intervals[1:, 0] - intervals[:-1, 1]
    # Half as many, so that it is not done again for each new page; the lower of equal gaps stays.
    kept = np.sort(np.argsort(np.iinfo(np.uint64).max - gaps, kind="stable")[: max(most // 2, 1) - 1])
    lower = np.concatenate([intervals[:1, 0], intervals[kept + 1, 0]])
    upper = np.concatenate([intervals[kept, 1], intervals[-1:, 1]])
    return np.stack([lower, upper], axis=1)


def page_of(addresses: Addresses) -> Addresses:
    """Page numbers of addresses in bytes."""
    return addresses >> _SHIFT


assert 1 << int(_SHIFT) == PAGE_SIZE
