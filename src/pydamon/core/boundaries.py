"""Where mappings begin and end, for regions that shall not reach across: this is ours, the kernel's DAMON has it not.

What is mapped together is used together: a heap, a stack, a file. A region that straddles two mappings says something
about neither, and finding their boundary by random splits takes several aggregations. It is known, so regions are cut
there and not merged across it. Only boundaries of mappings that are large beside the whole count, so that the number of
regions remains what it was, about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from pydamon.core.regions import U64, Regions
from pydamon.spans import distinct

NO_BOUNDARIES: U64 = np.empty(0, np.uint64)
_SHARE = 8  # of the maximum number of regions: that many gaps may be left out, and mappings may be large


class Span(Protocol):
    """What is mapped somewhere: ``start`` and exclusive ``end`` in bytes."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


def most_gaps(max_nr_regions: int, nr_targets: int) -> int:
    """How many gaps between mappings may be left out of the targets' ranges, beside the two of each target.

    An eighth of the maximum number of regions, and less where the three ranges of each target leave little room.
    """
    return max(min(max_nr_regions // _SHARE, (max_nr_regions - 3 * nr_targets) // 2), 0)


def large_spans(total_bytes: int, max_nr_regions: int, min_region: int, nr_gaps: int = 0) -> int:
    """From which size in bytes on a mapping's boundaries count, if ``total_bytes`` are monitored.

    At most an eighth of the maximum number of regions is that large, less the ``nr_gaps`` that are left out; each has
    two boundaries.
    """
    return max(total_bytes // max(max_nr_regions // _SHARE - nr_gaps, 1), min_region)


def of_mappings(mappings: Sequence[Span], smallest: int, min_region: int) -> U64:
    """Both ends of each mapping, and of each gap between mappings, of at least ``smallest`` bytes.

    Shape (n,), sorted, multiples of ``min_region``.
    """
    if not mappings:
        return NO_BOUNDARIES
    ends = np.array([(m.start, m.end) for m in mappings], np.uint64).ravel()
    ends = distinct(ends - ends % np.uint64(min_region))
    large = np.diff(ends) >= np.uint64(smallest)
    chosen = np.zeros(len(ends), np.bool_)
    chosen[:-1] |= large
    chosen[1:] |= large
    result: U64 = ends[chosen]
    return result


def united(boundaries: U64, more: U64) -> U64:
    """Both together, sorted, each once; usually there are none more."""
    return distinct(np.concatenate([boundaries, more])) if len(more) else boundaries


def cut(regions: Regions, boundaries: U64) -> Regions:
    """Regions that begin anew at each boundary inside of one; the pieces keep its counters."""
    if not len(boundaries) or not len(regions):
        return regions
    row = np.searchsorted(regions.end, boundaries, "right")  # the region that ends after the boundary
    inside = row < len(regions)
    row, boundaries = row[inside], boundaries[inside]
    inside = regions.start[row] < boundaries
    row, boundaries = row[inside], boundaries[inside]
    if not len(row):
        return regions
    index = np.insert(np.arange(len(regions)), row + 1, row)
    start = np.insert(regions.start, row + 1, boundaries)
    end = np.insert(regions.end, row, boundaries)
    return regions.select(index, start, end)


class Boundaries:
    """Where the regions of each target are to end, as its mappings were when they were looked at last."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Sequence[Span], int, U64]] = {}

    def look(self, mapped: Mapping[int, Sequence[Span]], smallest: int, min_region: int) -> None:
        """``mapped`` is what each target has mapped now: the same object as before if nothing has changed."""
        known, self._known = self._known, {}
        for target, mappings in mapped.items():
            before = known.get(target)
            if before is None or before[0] is not mappings or before[1] != smallest:
                before = (mappings, smallest, of_mappings(mappings, smallest, min_region))
            self._known[target] = before

    def of(self, target: int) -> U64:
        """Those of a target, sorted."""
        return self._known[target][2]
