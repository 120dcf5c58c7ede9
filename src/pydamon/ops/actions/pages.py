"""The pages of one process that regions consist of: which exist, where, and of what kind; in batches."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pydamon.linux import pagemap_scan
from pydamon.linux.frames import Flags, Frames
from pydamon.linux.mapping_names import is_shared_memory
from pydamon.linux.pagemap import Pagemap, PagemapEntries, is_file, is_present, is_swapped
from pydamon.linux.process import Mapping
from pydamon.ops.base import PAGE_SIZE, Addresses, Ranges
from pydamon.spans import distinct

HUGE_PAGE = 2 << 20
BATCH = 1 << 18  # pages at a time: about 20 MiB of arrays
_PAGE = np.uint64(PAGE_SIZE)
_SHIFT = np.uint64(12)

Index = NDArray[np.intp]
Kinds = NDArray[np.uint8]


class MappingArrays:
    """A process's mappings as arrays."""

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        # The vsyscall page stands in the file for every process but belongs to no address space.
        self.mappings = [m for m in mappings if m.name != "[vsyscall]"]
        self.start = np.array([m.start for m in self.mappings], np.uint64)
        self.end = np.array([m.end for m in self.mappings], np.uint64)
        # Page number in its file of a mapping's first page; of anonymous memory by address, as the kernel counts it.
        offsets = [(m.offset if m.inode else m.start) >> 12 for m in self.mappings]
        self.first_page = np.array(offsets, np.uint64)

    @cached_property
    def shared(self) -> Flags:
        """Which are shared memory (`is_shared_memory`)."""
        return np.array([is_shared_memory(m) for m in self.mappings], np.bool_)

    def at(self, addresses: Addresses) -> Index:
        """The mapping that each address is in; -1 if there is none."""
        index = np.searchsorted(self.end, addresses, "right")
        inside = index < len(self.end)
        inside[inside] = self.start[index[inside]] <= addresses[inside]
        return np.where(inside, index, -1)


@dataclass(slots=True)
class Segments:
    """Parts of regions that lie in one mapping each: ranges (n, 2), and the indices of their region and mapping."""

    ranges: Ranges
    region: Index
    mapping: Index

    def take(self, index: NDArray[np.bool_] | Index) -> Segments:
        """Some of them."""
        return Segments(self.ranges[index], self.region[index], self.mapping[index])


def segments(start: Addresses, end: Addresses, layout: MappingArrays) -> Segments:
    """What of the regions [start, end) is mapped. Both regions and mappings are sorted and disjoint."""
    points = distinct(np.concatenate([start, end, layout.start, layout.end]))
    low = points[:-1]
    region = np.searchsorted(end, low, "right")
    inside = region < len(end)
    inside[inside] = start[region[inside]] <= low[inside]
    mapping = layout.at(low)
    index = np.flatnonzero(inside & (mapping >= 0))
    return Segments(np.stack([low[index], points[index + 1]], axis=1), region[index], mapping[index])


@dataclass(slots=True)
class Pages:
    """Pages in parallel arrays of shape (n,), sorted by address.

    ``kind`` has the categories of `pagemap_scan`, ``frame`` is 0 where it is not known.
    """

    address: Addresses
    region: Index
    mapping: Index
    kind: Kinds
    frame: Frames

    def __len__(self) -> int:
        return len(self.address)

    def take(self, index: NDArray[np.bool_] | Index) -> Pages:
        """Some of them."""
        return Pages(self.address[index], self.region[index], self.mapping[index], self.kind[index], self.frame[index])

    def has(self, kind: int) -> Flags:
        """Which are of that category."""
        found: Flags = (self.kind & np.uint8(kind)) != 0
        return found

    @property
    def resident(self) -> Flags:
        """Which are memory of their own: in memory, and not the zero page that all share."""
        return self.has(pagemap_scan.PRESENT) & ~self.has(pagemap_scan.ZERO_PAGE)


def survey(pagemap: Pagemap, wanted: Segments, *, batch: int = BATCH) -> Iterator[Pages]:
    """The pages of the segments that are in memory or in swap, in batches that do not cut a huge page.

    Nothing more comes if the process has ended.
    """
    for first, last in _joined(wanted.ranges).tolist():
        at = first
        while at < last:
            ranges, at_next = _scan(pagemap, at, last, batch)
            if at_next <= at:
                return
            whole = at_next & -HUGE_PAGE
            if at_next < last and whole > at:  # begin the next batch with a whole huge page
                at_next = whole
                ranges = ranges[ranges[:, 0] < np.uint64(whole)]
                ranges[:, 1] = np.minimum(ranges[:, 1], np.uint64(whole))
            if len(ranges):
                yield _pages(ranges, wanted)
            at = at_next


def _joined(ranges: Ranges) -> Ranges:
    """Sorted ranges, those that touch as one."""
    if not len(ranges):
        return ranges
    apart = np.flatnonzero(ranges[1:, 0] != ranges[:-1, 1])
    first = np.concatenate([np.zeros(1, np.intp), apart + 1])
    return np.stack([ranges[first, 0], ranges[np.append(apart, len(ranges) - 1), 1]], axis=1)


def _scan(pagemap: Pagemap, start: int, end: int, most: int) -> tuple[NDArray[np.uint64], int]:
    try:
        return pagemap_scan.populated(pagemap.fileno(), start, end, most)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            return np.empty((0, 3), np.uint64), start
    # Before Linux 6.7: from the entries; they do not tell huge pages.
    end = min(end, start + most * PAGE_SIZE)
    entries = pagemap.span(start, end)
    kinds = np.where(is_present(entries), np.uint64(pagemap_scan.PRESENT), np.uint64(0))
    kinds |= np.where(is_swapped(entries), np.uint64(pagemap_scan.SWAPPED), np.uint64(0))
    kinds |= np.where((kinds != 0) & is_file(entries), np.uint64(pagemap_scan.FILE), np.uint64(0))
    index = np.flatnonzero(kinds)
    low = np.uint64(start) + index.astype(np.uint64) * _PAGE
    return np.stack([low, low + _PAGE, kinds[index]], axis=1), start + len(entries) * PAGE_SIZE


def _pages(ranges: NDArray[np.uint64], wanted: Segments) -> Pages:
    count = ((ranges[:, 1] - ranges[:, 0]) >> _SHIFT).astype(np.intp)
    address = expand(ranges[:, :2])
    segment = np.searchsorted(wanted.ranges[:, 1], address, "right")
    return Pages(
        address,
        wanted.region[segment],
        wanted.mapping[segment],
        np.repeat(ranges[:, 2].astype(np.uint8), count),
        np.zeros(len(address), np.uint64),
    )


def expand(ranges: Ranges) -> Addresses:
    """The address of each page in the ranges, (n, 2) page-aligned bytes."""
    count = ((ranges[:, 1] - ranges[:, 0]) >> _SHIFT).astype(np.intp)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    addresses: Addresses = np.repeat(ranges[:, 0], count) + offset.astype(np.uint64) * _PAGE
    return addresses


def runs(pages: Pages) -> tuple[Ranges, Index, Index]:
    """Consecutive pages of one mapping as ranges (k, 2); the mapping of each range; the range of each page, (n,)."""
    if not len(pages):
        return np.empty((0, 2), np.uint64), np.empty(0, np.intp), np.empty(0, np.intp)
    cut = (np.diff(pages.address) != _PAGE) | (np.diff(pages.mapping) != 0)
    owner = np.concatenate([np.zeros(1, np.intp), np.cumsum(cut)])
    first = np.concatenate([np.zeros(1, np.intp), np.flatnonzero(cut) + 1])
    last = np.append(first[1:], len(pages)) - 1
    ranges = np.stack([pages.address[first], pages.address[last] + _PAGE], axis=1)
    return ranges, pages.mapping[first], owner


def sizes(pages: Pages, chosen: NDArray[np.bool_], regions: int) -> NDArray[np.uint64]:
    """Bytes of the chosen pages in each of ``regions`` regions."""
    return np.bincount(pages.region[chosen], minlength=regions).astype(np.uint64) * _PAGE


def present_now(pagemap: Pagemap, addresses: Addresses) -> tuple[Flags, Flags, PagemapEntries]:
    """Which pages are in memory by now, whether that could be told, and their entries."""
    entries, known = pagemap.entries(addresses)
    return is_present(entries), known, entries
