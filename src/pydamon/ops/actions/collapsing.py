"""Huge pages by MADV_COLLAPSE: which blocks of 2 MiB can be, which come first, what they add, why the kernel refuses.

A block of which a part is not in memory is filled up when it is collapsed: that is what huge pages cost. So those come
first that miss least, as long as all that was added stays below a share of what is resident; and under such a bound
none of which most is missing, which would use it up for little.
"""

from __future__ import annotations

import errno
import os
from collections import Counter

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.linux import madvise, pagemap_scan
from pydamon.linux.footprint import read_footprint
from pydamon.linux.frames import Flags
from pydamon.linux.pagemap import Pagemap
from pydamon.linux.process import Process
from pydamon.ops.actions.pages import HUGE_PAGE, MappingArrays, Pages, Segments, survey
from pydamon.ops.base import PAGE_SIZE, Addresses
from pydamon.spans import distinct, places_of_distinct
from pydamon.spec.units import exact_bp, format_size

Blocks = NDArray[np.uint64]  # numbers of blocks: addresses / 2 MiB

_MASK = np.uint64(HUGE_PAGE - 1)
_SHIFT = np.uint64(21)
_MOST_PROCESSES = 4096
# madvise(2), MADV_COLLAPSE: what its errors mean.
_REASONS = {
    errno.ENOMEM: "no 2 MiB of memory in one piece, or not mapped whole",
    errno.EBUSY: "the cgroup has no room for it",
    errno.EAGAIN: "a page is used by somebody else just now",
    errno.EINVAL: "memory of this kind cannot be",
}


class Collapsed:
    """What was collapsed so far: bytes that were made huge, that this added, and that were refused, by error.

    ``left_bytes``: what was left alone since it would have added too much, in the last application that left any.
    """

    def __init__(self) -> None:
        self.made_bytes = self.left_bytes = self.bound_bp = 0
        self.refused: Counter[int] = Counter()
        self._added: dict[tuple[int, int], dict[int, int]] = {}  # bytes by process and block

    def added_bytes(self, process: Process) -> int:
        """What was added to this process and, as far as is known, is there."""
        return sum(self._added.get((process.pid, process.start_ticks), {}).values())

    def note(self, process: Process, blocks: Blocks, added: NDArray[np.int64]) -> None:
        """That these blocks are huge now."""
        if len(self._added) >= _MOST_PROCESSES:
            del self._added[next(iter(self._added))]
        mine = self._added.setdefault((process.pid, process.start_ticks), {})
        mine.update((block, more) for block, more in zip(blocks.tolist(), added.tolist(), strict=True) if more)
        self.made_bytes += len(blocks) * HUGE_PAGE

    def split(self, process: Process, blocks: Blocks) -> None:
        """That these blocks are not huge (any more): what was added to them may be gone, or is not ours."""
        mine = self._added.get((process.pid, process.start_ticks))
        if mine:
            for block in blocks.tolist():
                mine.pop(block, None)

    def remarks(self) -> list[str]:
        """What to say at the end, of collapsing: lines."""
        if not (self.made_bytes or self.refused or self.left_bytes):
            return []
        added = sum(sum(blocks.values()) for blocks in self._added.values())
        text = f"collapse: {format_size(self.made_bytes)} were made huge, which has added {format_size(added)}"
        lines = [text]
        if self.left_bytes:
            bound = exact_bp(self.bound_bp)
            lines.append(
                f"collapse: {format_size(self.left_bytes)} were left, which would add too much (bloat {bound})"
            )
        for number, count in self.refused.most_common():
            lines.append(f"collapse: {format_size(count * HUGE_PAGE)} were refused: {reason(number)}")
        return lines


class Outcome(msgspec.Struct, frozen=True, eq=False):
    """What one call has brought about: bytes of each region that are huge now, and in all what it added and what the
    kernel refused."""

    applied: NDArray[np.uint64]
    added: int = 0
    refused: int = 0


def reason(number: int) -> str:
    """An error of MADV_COLLAPSE for people."""
    known = _REASONS.get(number)
    return f"{errno.errorcode.get(number, number)} ({known or os.strerror(number)})"


def whole_blocks(pages: Pages, rejected: Addresses, start: Addresses, end: Addresses, layout: MappingArrays) -> Flags:
    """Which pages are in 2 MiB that may be collapsed: all of it in one region and one mapping, none rejected."""
    block = pages.address & ~_MASK
    inside = (block >= start[pages.region]) & (block + np.uint64(HUGE_PAGE) <= end[pages.region])
    inside &= (block >= layout.start[pages.mapping]) & (block + np.uint64(HUGE_PAGE) <= layout.end[pages.mapping])
    inside &= ~np.isin(block, rejected & ~_MASK)
    return inside


def collapse(
    process: Process, table: Pagemap, pages: Pages, regions: int, *, bound_bp: int, so_far: Collapsed, dry_run: bool
) -> Outcome:
    """Collapse the blocks of ``pages`` (resident ones of whole blocks) that are not huge; each that is then counts.

    ``bound_bp``: what all that is in ``so_far`` may add, in 1/10,000 of what is resident else; 0 is no bound.
    """
    applied = np.zeros(regions, np.uint64)
    block = pages.address >> _SHIFT
    huge_before = distinct(block[pages.has(pagemap_scan.HUGE)])
    blocks, first, place = places_of_distinct(block)
    count = np.bincount(place, minlength=len(blocks))
    new = ~np.isin(blocks, huge_before)
    blocks, region = blocks[new], pages.region[first[new]]
    added = HUGE_PAGE - count[new] * PAGE_SIZE
    so_far.split(process, blocks)
    chosen = _first(process, added, bound_bp, so_far)
    blocks, region, added = blocks[chosen], region[chosen], added[chosen]
    if not len(blocks):
        return Outcome(applied)
    done, refused = np.ones(len(blocks), np.bool_), 0
    if not dry_run:
        done, refused = _ask(process, table, blocks, so_far)
        so_far.note(process, blocks[done], added[done])
    np.add.at(applied, region[done], np.uint64(HUGE_PAGE))
    return Outcome(applied, int(added[done].sum()), refused)


def _first(process: Process, added: NDArray[np.int64], bound_bp: int, so_far: Collapsed) -> NDArray[np.intp]:
    """The blocks that the bound has room for, in order: those that add least come first."""
    everything = np.arange(len(added))
    if not bound_bp or not added.any():
        return everything
    before = so_far.added_bytes(process)
    resident = (read_footprint(process.pid) or {}).get("resident_bytes", 0)
    room = (resident - before) * bound_bp // 10_000 - before
    order = np.argsort(added, kind="stable")
    fits = (np.cumsum(added[order]) <= room) & (added[order] <= HUGE_PAGE // 2)
    fitting = order[fits | (added[order] == 0)]
    so_far.bound_bp = bound_bp
    if len(fitting) < len(added):
        so_far.left_bytes = (len(added) - len(fitting)) * HUGE_PAGE
    return np.sort(fitting)


def _ask(process: Process, table: Pagemap, blocks: Blocks, so_far: Collapsed) -> tuple[Flags, int]:
    """Have the kernel do it; which are huge now, and how many bytes it has refused.

    Blocks side by side are asked for at once: with each call the kernel has all CPUs give up the pages that they hold.
    """
    owner = np.cumsum(np.diff(blocks, prepend=blocks[:1]) > 1, dtype=np.intp)
    first = places_of_distinct(owner)[1]
    ranges = np.stack([blocks[first], blocks[np.append(first[1:], len(blocks)) - 1] + np.uint64(1)], axis=1) << _SHIFT
    errors = np.zeros(len(ranges), np.int32)
    madvise.advise(process, ranges, madvise.MADV_COLLAPSE, errors=errors)
    nothing = np.zeros(len(ranges), np.intp)
    huge = [
        distinct(found.address[found.has(pagemap_scan.HUGE)] >> _SHIFT)
        for found in survey(table, Segments(ranges, nothing, nothing))
    ]
    if not huge or not process.alive():
        return np.zeros(len(blocks), np.bool_), 0
    done = np.isin(blocks, np.concatenate(huge))
    numbers = errors[owner][~done]
    so_far.refused.update(numbers[numbers > 0].tolist())
    return done, int(np.count_nonzero(numbers)) * HUGE_PAGE
