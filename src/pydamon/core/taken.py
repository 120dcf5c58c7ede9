"""What a dry run of one scheme has "taken": left out of the scheme until it is accessed again, and counted once.

Nothing has happened to that memory, so it looks as it did: without this a dry run would find the same bytes in each
pass, and say that it had been applied to more than there is.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.core import filters
from pydamon.core.regions import U64, Regions
from pydamon.ops.base import Applied
from pydamon.spans import NO_RUNS, clipped, coarser, distinct, joined, union, without
from pydamon.spans import bytes_below as below

_MOST_LEFT_OUT = 1 << 14  # spans of all targets: of more, the largest
_MOST_COUNTED = 1 << 17  # spans of all targets: of more, those with the smallest gaps between them become one
Spans = dict[int, U64]  # by target; sorted and disjoint


class Taken:
    """Spans of addresses by target. ``hot``: the action is for memory in use, so it is left out while it is in use."""

    def __init__(self, *, hot: bool) -> None:
        self._hot = hot
        self._left_out: Spans = {}
        self._now: Spans = {}  # taken in the middle of the aggregation that goes on: some of its accesses came before
        self._counted: Spans = {}

    def look(self, targets: list[int], regions: list[Regions], window: int) -> None:
        """An aggregation of ``window`` samples is over, its counts are in ``regions``: what is accessed again is back.

        What was taken in the middle of this aggregation is judged by the next one. Nobody asks about targets that have
        ended any more.
        """
        for place, target in enumerate(targets):
            if target in self._left_out:
                back = _spans(regions[place], self._is_back(regions[place], window))
                self._left_out[target] = without(self._left_out[target], back)
        for target, spans in self._now.items():
            self._left_out[target] = union(self._left_out.get(target, NO_RUNS), spans)
        self._now = {}
        living = set(targets)
        self._left_out = _bounded({target: spans for target, spans in self._left_out.items() if target in living})
        self._counted = {target: spans for target, spans in self._counted.items() if target in living}

    def _is_back(self, regions: Regions, window: int) -> NDArray[np.bool_]:
        if self._hot:
            unused: NDArray[np.bool_] = (regions.nr_accesses == 0) & (regions.counts.unknown < window)
            return unused
        return regions.nr_accesses > 0

    def cut_out(self, target: int, regions: Regions, matching: NDArray[np.bool_]) -> tuple[Regions, NDArray[np.bool_]]:
        """The regions of a target, cut where what is left out begins and ends, and which of ``matching`` remain."""
        spans = union(self._left_out.get(target, NO_RUNS), self._now.get(target, NO_RUNS))
        if not len(spans) or not matching.any():
            return regions, matching
        pieces = filters.cut(regions, distinct(spans.ravel()))
        matching = matching[np.searchsorted(regions.end, pieces.start, "right")]
        return pieces, matching & (below(spans, pieces.end) == below(spans, pieces.start))

    def take(self, target: int, start: U64, end: U64, done: Applied, *, whole: bool) -> U64:
        """These regions (sorted) were acted on; how many bytes of each for the first time, shape (n,).

        ``whole``: an aggregation has just ended, so all accesses of the next one come later. Without `Applied.acted`
        all of a region counts as acted on. Never more than is true, where less is told apart than there is to tell.
        """
        spans = _between(start, end, done.applied > 0)
        held = self._left_out if whole else self._now
        held[target] = union(held.get(target, NO_RUNS), spans)
        counted = self._counted.get(target, NO_RUNS)
        acted = spans if done.acted is None else clipped(done.acted, spans)
        new = without(acted, counted)
        self._counted[target] = union(counted, new)
        if sum(map(len, self._counted.values())) > _MOST_COUNTED:
            largest = max(self._counted, key=lambda of: len(self._counted[of]))
            self._counted[largest] = coarser(self._counted[largest], max(len(self._counted[largest]) // 2, 1))
        first: U64 = np.minimum(below(new, end) - below(new, start), done.applied)
        return first


def _spans(regions: Regions, mask: NDArray[np.bool_]) -> U64:
    return _between(regions.start, regions.end, mask)


def _between(start: U64, end: U64, mask: NDArray[np.bool_]) -> U64:
    return joined(np.stack([start[mask], end[mask]], axis=1))


def _bounded(spans: Spans) -> Spans:
    """The largest spans of all targets, as many as may be left out."""
    sizes = np.concatenate([each[:, 1] - each[:, 0] for each in spans.values()] or [np.empty(0, np.uint64)])
    if len(sizes) <= _MOST_LEFT_OUT:
        return spans
    kept = np.zeros(len(sizes), np.bool_)
    kept[np.argpartition(sizes, -_MOST_LEFT_OUT)[-_MOST_LEFT_OUT:]] = True  # of spans of one size any
    parts = np.split(kept, np.cumsum([len(each) for each in spans.values()])[:-1])
    return {target: each[part] for (target, each), part in zip(spans.items(), parts, strict=True)}
