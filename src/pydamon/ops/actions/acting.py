"""What the actions of schemes do to pages of one process, and what of it has come about: measured, never assumed.

Every function returns the bytes of each region for which the action was brought about, uint64, shape (regions,).
That a process ends or unmaps memory meanwhile is no error: what cannot be found afterwards was not applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, located
from pydamon.linux import madvise, move_pages, pagemap_scan, remote_read
from pydamon.linux.frames import Flags
from pydamon.linux.move_pages import Nodes
from pydamon.linux.page_cache import MappedFile
from pydamon.linux.pagemap import Pagemap
from pydamon.linux.process import Process
from pydamon.linux.swap import swap_free_bytes
from pydamon.linux.texts import read_lines
from pydamon.ops.actions.collapsing import Collapsed, collapse
from pydamon.ops.actions.homes import Homes
from pydamon.ops.actions.pages import (
    HUGE_PAGE,
    MappingArrays,
    Pages,
    Segments,
    present_now,
    runs,
    sizes,
    survey,
)
from pydamon.ops.base import PAGE_SIZE, Addresses
from pydamon.spans import distinct
from pydamon.spec import Scheme
from pydamon.spec.actions import ACTIONS
from pydamon.spec.schemes import Dest

U64 = NDArray[np.uint64]

_HUGE_MASK = np.uint64(HUGE_PAGE - 1)
_READ_AHEAD = 128 << 10  # of a file the kernel reads no more than this ahead for one range (the usual read_ahead_kb)


@dataclass(slots=True)
class Subject:
    """One process as an application of a scheme finds it."""

    process: Process
    table: Pagemap
    layout: MappingArrays
    regions: int
    homes: Homes
    collapsed: Collapsed = field(default_factory=Collapsed)
    added: int = 0  # bytes that collapsing has added in this application, and that the kernel refused
    refused: int = 0


OnPages = Callable[[Subject, Scheme, Pages, bool], U64]
OnRanges = Callable[[Subject, Scheme, Segments, bool], U64]


@dataclass(frozen=True, slots=True)
class Doing:
    """How an action is done: ``on`` pages or addresses, and what raises MachineError where a process cannot be told.

    The last argument of ``on_pages`` and ``on_ranges`` is whether it is a dry run.
    """

    require: Callable[[Process], None]
    on_pages: OnPages | None = None
    on_ranges: OnRanges | None = None  # it is about addresses, whether there are pages or not
    swapped: bool = False  # pages in swap are asked about, too
    blocks: bool = False  # it is for whole blocks of 2 MiB only (`whole_blocks`)


def on_pages(subject: Subject, scheme: Scheme, pages: Pages, *, dry_run: bool) -> U64:
    """Apply an action that is about pages to ``pages``, all those of a batch that may be acted on."""
    act = DOINGS[scheme.action].on_pages
    assert act is not None
    return act(subject, scheme, pages.take(pages.resident), dry_run)


def _advise_pages(advice: int) -> OnPages:
    """Advise; what the kernel accepts counts as done."""

    def act(subject: Subject, _: Scheme, pages: Pages, dry_run: bool) -> U64:
        chosen = np.ones(len(pages), np.bool_)
        if not dry_run and len(pages):
            ranges, mapping, owner = runs(pages)
            chosen = madvise.advise(subject.process, ranges, advice, mapping)[owner]
        return sizes(pages, chosen, subject.regions)

    return act


def _page_out(subject: Subject, _scheme: Scheme, pages: Pages, dry_run: bool) -> U64:
    if len(pages) and subject.layout.shared.any() and swap_free_bytes() == 0:
        # The kernel would unmap them, find no room in swap, and keep them.
        pages = pages.take(~subject.layout.shared[pages.mapping])
    chosen = np.ones(len(pages), np.bool_)
    if not dry_run and len(pages):
        ranges, mapping, _ = runs(pages)
        madvise.advise(subject.process, ranges, madvise.MADV_PAGEOUT, mapping)
        present, known, _ = present_now(subject.table, pages.address)
        chosen = known & ~present & _lives(subject)
    return sizes(pages, chosen, subject.regions)


def _lives(subject: Subject) -> bool:
    """Memory of a process that has ended was not paged out."""
    return subject.process.alive()


def _prioritize(subject: Subject, _scheme: Scheme, pages: Pages, dry_run: bool) -> U64:
    first, owner = _units(pages)
    read = np.ones(len(first), np.bool_)
    if not dry_run:
        read = remote_read.mark_accessed(subject.process, pages.address[first])
    return sizes(pages, read[owner], subject.regions)


def _units(pages: Pages) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The first page of each huge page, and all other pages; and for each page the number of its unit."""
    if not len(pages):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    huge = pages.has(pagemap_scan.HUGE)
    key = np.where(huge, pages.address & ~_HUGE_MASK, pages.address)
    new = np.concatenate([np.ones(1, np.bool_), (key[1:] != key[:-1]) | ~huge[1:]])
    return np.flatnonzero(new), np.cumsum(new) - 1


# -- migration ----------------------------------------------------------------------------------------------------


def destinations(layout: MappingArrays, pages: Pages, dests: tuple[Dest, ...]) -> Nodes:
    """The node that each page is to go to; shape (n,).

    Weighted interleave, as the kernel does it: by the page's offset in the file of its mapping (or its address, for
    anonymous memory), in huge pages if it is part of one, modulo the sum of the weights.
    """
    weights = np.array([dest.weight for dest in dests], np.uint64)
    order = np.where(pages.has(pagemap_scan.HUGE), np.uint64(9), np.uint64(0))
    at = pages.mapping
    offset = (layout.first_page[at] >> order) + ((pages.address - layout.start[at]) >> (order + np.uint64(12)))
    place = np.searchsorted(np.cumsum(weights), offset % weights.sum(), "right")
    nodes: Nodes = np.array([dest.id for dest in dests], np.int32)[place]
    return nodes


def _migrate(subject: Subject, scheme: Scheme, pages: Pages, dry_run: bool) -> U64:
    if not len(pages):
        return np.zeros(subject.regions, np.uint64)
    wanted = destinations(subject.layout, pages, scheme.destinations)
    before = nodes_of(subject.process, pages)
    away = np.flatnonzero((before >= 0) & (before != wanted))
    pages, wanted, before = pages.take(away), wanted[away], before[away]
    arrived = np.ones(len(pages), np.bool_)
    if not dry_run and len(pages):
        first, _ = _units(pages)
        move_pages.move(subject.process, pages.address[first], wanted[first])
        arrived = nodes_of(subject.process, pages) == wanted
        subject.homes.moved(subject.process, pages.address[arrived], before[arrived], wanted[arrived])
        subject.homes.remember(scheme, subject.process, pages.address[arrived], before[arrived])
    return sizes(pages, arrived, subject.regions)


def nodes_of(process: Process, pages: Pages) -> Nodes:
    """The node of each page in memory, below 0 of others; of a huge page one is asked."""
    first, owner = _units(pages)
    return move_pages.nodes_of(process, pages.address[first])[owner]


def node_bytes(process: Process, pages: Pages, nid: int) -> int:
    """Bytes of the pages that are in memory of that node."""
    resident = pages.take(pages.resident)
    return int(np.count_nonzero(nodes_of(process, resident) == nid)) * PAGE_SIZE


# -- huge pages ---------------------------------------------------------------------------------------------------


def _collapse(subject: Subject, scheme: Scheme, pages: Pages, dry_run: bool) -> U64:
    """``pages`` are those of whole blocks; each that is mapped by a huge page and was not counts as 2 MiB."""
    done = collapse(
        subject.process,
        subject.table,
        pages,
        subject.regions,
        bound_bp=scheme.quotas.bloat_bp,
        so_far=subject.collapsed,
        dry_run=dry_run,
    )
    subject.added += done.added
    subject.refused += done.refused
    return done.applied


# -- advice on addresses ------------------------------------------------------------------------------------------


def on_ranges(subject: Subject, scheme: Scheme, wanted: Segments, *, dry_run: bool) -> U64:
    """Apply an action that is about addresses to all of the segments."""
    act = DOINGS[scheme.action].on_ranges
    assert act is not None
    return act(subject, scheme, wanted, dry_run)


def _advise_ranges(advice: int, *, opposite: int) -> OnRanges:
    """Advise; what the kernel accepts counts as done. The opposite undoes it."""

    def act(subject: Subject, scheme: Scheme, wanted: Segments, dry_run: bool) -> U64:
        accepted = np.ones(len(wanted.ranges), np.bool_)
        if not dry_run:
            accepted = madvise.advise(subject.process, wanted.ranges, advice, wanted.mapping)
            subject.homes.advised(scheme, subject.process, wanted.ranges[accepted], opposite)
        applied = np.zeros(subject.regions, np.uint64)
        size = wanted.ranges[:, 1] - wanted.ranges[:, 0]
        np.add.at(applied, wanted.region[accepted], size[accepted])
        return applied

    return act


def _read_in(subject: Subject, _scheme: Scheme, wanted: Segments, dry_run: bool) -> U64:
    """Have pages read in, from swap and from files.

    The kernel does not map them: it puts them into the swap cache and the page cache, and returns while it still reads.
    Counted is by how much those have grown: of a file by cachestat of its range; of swap by the machine's SwapCached,
    in which others have a part, so no more than the pages asked for that were in swap; and pages that got mapped.
    """
    applied = np.zeros(subject.regions, np.uint64)
    swapped = np.zeros(subject.regions, np.uint64)
    addresses: list[Addresses] = []
    region: list[NDArray[np.intp]] = []
    for pages in survey(subject.table, wanted):
        away = pages.take(pages.has(pagemap_scan.SWAPPED))
        swapped += sizes(away, np.ones(len(away), np.bool_), subject.regions)
        addresses.append(away.address)
        region.append(away.region)
    files = {at: MappedFile(subject.process.pid, subject.layout.mappings[at]) for at in distinct(wanted.mapping)}
    try:
        before = _cached(files, wanted)
        size = wanted.ranges[:, 1] - wanted.ranges[:, 0]
        if dry_run:
            missing = np.where(before >= 0, size.astype(np.int64) - before, 0)
            np.add.at(applied, wanted.region, missing.astype(np.uint64))
            return applied + swapped
        cache_before = _swap_cached()
        in_file = np.array([bool(subject.layout.mappings[at].inode) for at in wanted.mapping.tolist()], np.bool_)
        pieces, owner = _pieces(wanted, in_file)
        madvise.advise(subject.process, pieces, madvise.MADV_WILLNEED, wanted.mapping[owner])
        after = _cached(files, wanted)
        grown = np.where((before >= 0) & (after > before), after - before, 0)
        np.add.at(applied, wanted.region, grown.astype(np.uint64))
        from_swap = max(_swap_cached() - cache_before, 0)
    finally:
        for file in files.values():
            file.close()
    if addresses:
        present, _, _ = present_now(subject.table, np.concatenate(addresses))
        mapped = np.bincount(np.concatenate(region)[present], minlength=subject.regions).astype(np.uint64)
        applied += mapped * np.uint64(PAGE_SIZE)
        swapped -= mapped * np.uint64(PAGE_SIZE)
    # In the order in which the kernel went over the regions.
    reached = np.minimum(np.cumsum(swapped), np.uint64(from_swap))
    return applied + np.diff(reached, prepend=np.uint64(0))


def _pieces(wanted: Segments, in_file: Flags) -> tuple[U64, NDArray[np.intp]]:
    """Ranges that the kernel reads in as a whole: of a file it takes only the beginning of a large one."""
    size = wanted.ranges[:, 1] - wanted.ranges[:, 0]
    step = np.where(in_file, np.uint64(_READ_AHEAD), np.maximum(size, np.uint64(1)))
    count = (-(-size.astype(np.int64) // step.astype(np.int64))).astype(np.intp)
    owner = np.repeat(np.arange(len(size)), count)
    offset = (np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)).astype(np.uint64)
    low = wanted.ranges[owner, 0] + offset * step[owner]
    return np.stack([low, np.minimum(low + step[owner], wanted.ranges[owner, 1])], axis=1), owner


def _cached(files: dict[int, MappedFile], wanted: Segments) -> NDArray[np.int64]:
    """Bytes of each segment that the page cache holds; -1 where it is not told."""
    told = [
        files[at].cached(low, high)
        for at, (low, high) in zip(wanted.mapping.tolist(), wanted.ranges.tolist(), strict=True)
    ]
    return np.array([-1 if amount is None else amount for amount in told], np.int64)


def _swap_cached() -> int:
    """Bytes in the machine's swap cache."""
    try:
        for line in read_lines("/proc/meminfo"):
            if line.startswith("SwapCached:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return 0


# -- what is needed -----------------------------------------------------------------------------------------------


def require(action: str, process: Process) -> None:
    """Raise MachineError if this user cannot do ``action`` to that process on this kernel; changes nothing."""
    row = ACTIONS[action]
    if not row.acts:
        return
    try:
        DOINGS[action].require(process)
    except MachineError:
        if not row.own_process:
            raise
        madvise.require(process, madvise.MADV_COLD)  # if not even that: it is the permission
        raise MachineError(
            f"{action} cannot be given to another process on this kernel (process_madvise refuses it); only the "
            f"process itself can{f'; {row.instead}' if row.instead else ''}"
        ) from None


def _permitted(advice: int) -> Callable[[Process], None]:
    return partial(madvise.require, advice=advice)


def _require_collapse(process: Process) -> None:
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        raise MachineError("this kernel has no transparent huge pages; it needs CONFIG_TRANSPARENT_HUGEPAGE")
    madvise.require(process, madvise.MADV_COLLAPSE)


def require_nodes(scheme: Scheme) -> None:
    """Raise MachineError if a destination is no NUMA node with memory."""
    for dest in scheme.destinations:
        with located("dests" if scheme.dests else "target_nid"):
            move_pages.require_node(dest.id)


# How each action is done, by its name in `pydamon.spec.actions`. lru_deprio has no advice of its own: COLD deactivates,
# as that does.
DOINGS: dict[str, Doing] = {
    "willneed": Doing(_permitted(madvise.MADV_WILLNEED), on_ranges=_read_in, swapped=True),
    "cold": Doing(_permitted(madvise.MADV_COLD), _advise_pages(madvise.MADV_COLD)),
    "pageout": Doing(_permitted(madvise.MADV_PAGEOUT), _page_out),
    "hugepage": Doing(
        _permitted(madvise.MADV_HUGEPAGE),
        on_ranges=_advise_ranges(madvise.MADV_HUGEPAGE, opposite=madvise.MADV_NOHUGEPAGE),
    ),
    "nohugepage": Doing(
        _permitted(madvise.MADV_NOHUGEPAGE),
        on_ranges=_advise_ranges(madvise.MADV_NOHUGEPAGE, opposite=madvise.MADV_HUGEPAGE),
    ),
    "collapse": Doing(_require_collapse, _collapse, blocks=True),
    "lru_prio": Doing(remote_read.require, _prioritize),
    "lru_deprio": Doing(_permitted(madvise.MADV_COLD), _advise_pages(madvise.MADV_COLD)),
    "migrate_hot": Doing(move_pages.require, _migrate),
    "migrate_cold": Doing(move_pages.require, _migrate),
}
