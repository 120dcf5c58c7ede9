"""What `AccessModel.accessed` says, for many windows at once: an aggregation's samples in a few calls of NumPy. Pure.

The windows that lie within one run of a phase are answered together. What a pattern does in a window (nothing, all of
its region, a run of it, some of it by chance) is found out once per pattern and window, not per page.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.workload.draws import draw, numbers
from pydamon.workload.layout import PAGE_SIZE
from pydamon.workload.truth import Segment, positions_of_page

I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

_NONE, _ALL, _RUN, _BY_CHANCE = range(4)
_PAGE_SHIFT = np.int64(PAGE_SIZE.bit_length() - 1)
_MOST_MADE = 1 << 62  # accesses; beyond that a pattern needs Python's integers


class Group(Protocol):
    """Patterns of a phase, at most one per region, as parallel arrays; see `closed_form.Group`."""

    region: I64
    random: Mask
    stride_bytes: I64
    size_bytes: I64
    positions: I64
    all_pages: Mask
    shares: list[int]
    share_of: I64
    nr_regions: int

    def made(self, share: int, accesses_per_s: int, since_phase_ns: int) -> int:
        """How many accesses a pattern of that share has made before that time."""
        ...


class Pages(NamedTuple):
    """Pages that are asked about: addresses (shape (k, n), int64), each in the window of its row.

    ``region`` (same shape) is the workload's region of each, -1 where nothing is mapped. ``column`` (shape (n,)) is
    that of a whole column: what is asked about in one are pages of one region of the monitoring, mostly within one of
    the workload. Of the columns ``mixed`` it is not.
    """

    addresses: I64
    region: I64
    column: I64
    mixed: NDArray[np.intp]


def pages_of(addresses: I64, start: I64, end: I64) -> Pages:
    """The pages at ``addresses`` in the regions [start, end)."""
    lowest, highest = addresses.min(0), addresses.max(0)
    column = np.searchsorted(start, lowest, "right") - 1
    region = np.broadcast_to(column, addresses.shape).copy()
    mixed = np.flatnonzero((column < 0) | (highest >= end[column]))
    if len(mixed):
        some = addresses[:, mixed]
        found = np.searchsorted(start, some, "right") - 1
        region[:, mixed] = np.where((found >= 0) & (some < end[found]), found, -1)
    return Pages(addresses, region, column, mixed)


def touched(
    group: Group, pages: Pages, start: I64, segments: list[Segment], accesses_per_s: int, keys: list[int]
) -> Mask | None:
    """For each page: does the group's pattern of its region (which begin at ``start``) touch it in its window?

    Each window is one segment of the same phase, that occurs once; ``keys`` are what `draws.key_of` makes of it. None
    if that cannot be told in 64 bits.
    """
    runs = _runs(group, segments, accesses_per_s)
    if runs is None:
        return None
    count, at = runs
    patterns = np.full(group.nr_regions + 1, len(group.region), np.int64)  # by region; the last stands for no pattern
    patterns[group.region] = np.arange(len(group.region))
    kinds = _kinds(group, count)
    found = kinds.take(patterns[pages.column], 1)
    if len(pages.mixed):
        found[:, pages.mixed] = kinds[np.arange(len(segments))[:, np.newaxis], patterns[pages.region[:, pages.mixed]]]
    result: Mask = found == _ALL
    flat, regions, addresses = result.ravel(), pages.region.ravel(), pages.addresses.ravel()
    found = found.ravel()
    for kind in (_RUN, _BY_CHANCE):
        some = np.flatnonzero(found == kind)
        if len(some):
            region = regions[some]
            page, pattern = (addresses[some] - start[region]) >> _PAGE_SHIFT, patterns[region]
            row = some // len(pages.column)
            if kind == _RUN:
                flat[some] = in_run(group, pattern, page, count[row, pattern], at[row, pattern])
            else:
                key = np.array(keys, np.uint64)[row]
                flat[some] = _by_chance(group, pattern, page, row, count, draw(numbers(region, page), key))
    return result


def _kinds(group: Group, count: I64) -> NDArray[np.int8]:
    """What each pattern does in each window; shape (windows, patterns + 1), the last of which does nothing."""
    kinds = np.full((len(count), len(group.region) + 1), _NONE, np.int8)
    known = kinds[:, :-1]
    known[:] = np.where((count >= group.positions) & group.all_pages, np.int8(_ALL), np.int8(_RUN))
    known[:, group.random] = _BY_CHANCE
    known[count == 0] = _NONE
    return kinds


def _by_chance(group: Group, pattern: I64, page: I64, row: I64, count: I64, drawn: NDArray[np.float64]) -> Mask:
    """Which pages are touched at random. How likely that is is found out once per pattern and window."""
    whole = _at_least_once(count, np.minimum(group.size_bytes, PAGE_SIZE) / group.size_bytes)
    probability = whole[row, pattern]
    short = np.flatnonzero((page + 1) << _PAGE_SHIFT > group.size_bytes[pattern])  # a last page that is no whole one
    if len(short):
        at = pattern[short]
        probability[short] = chances(group, at, page[short], count[row[short], at])
    result: Mask = drawn < probability
    return result


def in_run(group: Group, pattern: I64, page: I64, count: I64, at: I64) -> Mask:
    """For each page: is one of its positions among ``count`` consecutive ones of its pattern, from ``at`` on?"""
    positions = group.positions[pattern]
    first, beyond = positions_of_page(page, group.stride_bytes[pattern], positions)
    # The run begins inside the page, or it reaches the page's first position, going around if need be.
    inside = ((first <= at) & (at < beyond)) | ((first - at) % positions < count)
    result: Mask = inside & (first < beyond) & (count > 0)
    return result


def chances(group: Group, pattern: I64, page: I64, count: I64) -> NDArray[np.float64]:
    """For each page: how likely ``count`` random accesses of its pattern touch it."""
    size_bytes = group.size_bytes[pattern]
    return _at_least_once(count, np.minimum(size_bytes - page * PAGE_SIZE, PAGE_SIZE) / size_bytes)


def _at_least_once(count: I64, share: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):  # a region of one page: log(0), and 0 times that
        result: NDArray[np.float64] = -np.expm1(count * np.log1p(-share))
    return result


def _runs(group: Group, segments: list[Segment], accesses_per_s: int) -> tuple[I64, I64] | None:
    """How many accesses each pattern makes in each window, and the position of the first; shape (windows, patterns)."""
    bounds = sorted({segment.from_ns for segment in segments} | {segment.to_ns for segment in segments})
    made = [[group.made(share, accesses_per_s, bound_ns) for share in group.shares] for bound_ns in bounds]
    if max(max(row) for row in made) >= _MOST_MADE:
        return None
    table, place = np.array(made, np.int64), {bound_ns: at for at, bound_ns in enumerate(bounds)}
    before = table[[place[segment.from_ns] for segment in segments]]
    until = table[[place[segment.to_ns] for segment in segments]]
    return (until - before).take(group.share_of, 1), before.take(group.share_of, 1) % group.positions
