"""DAMOS filters that the core decides, per region: address ranges, targets, probe hits (docs/algorithms.md 1.3, 2.14).

The first filter that matches a region decides: out, or in (``allow``). One that no filter matches is treated as the
opposite of what the last filter does. What a filter lets in explicitly is not asked about by the operations set's
filters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core.regions import I64, U64, Regions
from pydamon.core.weighed_hits import weighed
from pydamon.spans import distinct
from pydamon.spec.schemes import Filter, Scheme
from pydamon.spec.units import U64_MAX

Mask = NDArray[np.bool_]


def cut(regions: Regions, points: U64) -> Regions:
    """The regions, split at those of the addresses ``points`` (sorted, unique) that are inside one."""
    place = np.searchsorted(regions.end, points, "right")
    inside = place < len(regions)
    inside[inside] = regions.start[place[inside]] < points[inside]
    place, points = place[inside], points[inside]
    if not len(points):
        return regions
    index = np.insert(np.arange(len(regions), dtype=np.intp), place + 1, place)
    return regions.select(index, np.insert(regions.start, place + 1, points), np.insert(regions.end, place, points))


def cut_at_filters(regions: Regions, eligible: Mask, scheme: Scheme, min_region: int) -> Regions:
    """The regions, with the ``eligible`` ones split at the bounds of the scheme's address filters (`aligned`)."""
    points: list[int] = []
    for item in scheme.core_filters:
        if item.address_range is not None:
            points += aligned(item, min_region)
    if not points or not eligible.any():
        return regions
    bounds = distinct(np.array([point for point in points if point <= U64_MAX], np.uint64))
    place = np.searchsorted(regions.end, bounds, "right")
    wanted = place < len(regions)
    wanted[wanted] = eligible[place[wanted]]
    return cut(regions, bounds[wanted])


def aligned(item: Filter, min_region: int) -> tuple[int, int]:
    """The range of an address filter in whole smallest regions; (0, 0) if there is none. ``end`` may be 2**64.

    A smallest region that is only partly in the range is not acted on: it belongs to a range that is rejected, and not
    to one that is let in. (The kernel rounds both ends down.)
    """
    assert item.address_range is not None
    start, end = item.address_range.start, item.address_range.end
    if item.matching == item.allow:  # what is in the range is what is let in
        start, end = -(-start // min_region) * min_region, end // min_region * min_region
    else:
        start, end = start // min_region * min_region, -(-end // min_region) * min_region
    return (start, end) if start < end else (0, 0)


def decide(
    regions: Regions, target: int, scheme: Scheme, min_region: int, weights: I64 | None = None
) -> tuple[Mask, Mask]:
    """Two masks over regions that do not straddle filter bounds: those in, and those let in explicitly.

    ``weights`` are those of probes; None if none has any.
    """
    n = len(regions)
    passed = np.zeros(n, np.bool_)
    allowed = np.zeros(n, np.bool_)
    undecided = np.ones(n, np.bool_)
    for item in scheme.core_filters:
        hit = undecided & (_matches(regions, target, item, min_region, weights) == item.matching)
        if item.allow:
            passed |= hit
            allowed |= hit
        undecided &= ~hit
    if not rejects_unmatched(scheme):
        passed |= undecided
    return passed, allowed


def rejects_unmatched(scheme: Scheme) -> bool:
    """Whether a region that no filter of the core matches is out. With filters of the ops they have the last word."""
    if scheme.ops_filters:
        return False
    return opposite_of_last(scheme.core_filters)


def opposite_of_last(filters: Sequence[Filter]) -> bool:
    """Whether memory that none of ``filters`` matches is rejected: if the last one allows."""
    return bool(filters) and filters[-1].allow


def _matches(regions: Regions, target: int, item: Filter, min_region: int, weights: I64 | None) -> Mask:
    if item.probe_hits_wsum is not None:
        sums = np.zeros(len(regions), np.int64) if weights is None else weighed(regions.moving_hits, weights)
        wanted, most = item.probe_hits_wsum, np.iinfo(np.int64).max
        between: Mask = (sums >= min(wanted.min, most)) & (sums <= min(wanted.max, most))
        return between
    if item.filter_type == "target":
        return np.full(len(regions), target == item.damon_target_idx)
    start, end = aligned(item, min_region)
    result: Mask = (regions.start >= np.uint64(min(start, U64_MAX))) & (regions.end <= np.uint64(min(end, U64_MAX)))
    return result
