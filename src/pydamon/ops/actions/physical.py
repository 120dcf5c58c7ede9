"""Actions of schemes on physical memory: page frames are acted on through the processes that map them.

User space cannot act on a frame as such. The reverse map says who maps it and where; before anything is done the
process's own pagemap is asked whether that is still so. A frame that several processes map is acted on through the one
with the lowest pid: that moves it to another node for all of them, but the kernel does not page out or deactivate a
shared page on one process's behalf, so it is not applied then. A frame that nobody maps (page cache, kernel memory) is
out of reach.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, RequestError, located
from pydamon.linux import page_flags, pagemap, pagemap_scan
from pydamon.linux.frames import Flags
from pydamon.linux.move_pages import Nodes
from pydamon.linux.pagemap import Pagemap
from pydamon.linux.process import Process, ProcessGone
from pydamon.linux.work_time import WorkTime
from pydamon.ops.actions import acting
from pydamon.ops.actions.acting import Subject
from pydamon.ops.actions.common import Actions
from pydamon.ops.actions.filters import YOUNG
from pydamon.ops.actions.pages import BATCH, MappingArrays, Pages, Segments, expand, sizes, survey
from pydamon.ops.actions.plan import Plan
from pydamon.ops.base import PAGE_SIZE, Addresses, Applied
from pydamon.ops.reverse_map import Owner, ReverseMap
from pydamon.plain import printable
from pydamon.spans import bytes_of_nodes, distinct
from pydamon.spec import Scheme
from pydamon.spec.actions import PHYSICAL
from pydamon.spec.schemes import Filter

U64 = NDArray[np.uint64]

_PAGE = np.uint64(PAGE_SIZE)
_SHIFT = np.uint64(12)
_NEAR = np.uint64(32 * PAGE_SIZE)  # pages of a process this close are looked at together
_MAX_PROCESSES = 1024  # that are held open


class Frames(Protocol):
    """What is needed of the operations set."""

    reverse_map: ReverseMap | None

    @property
    def primitives(self) -> Sequence[object]:
        """The one that answers for frames."""
        ...

    def node_spans(self) -> list[tuple[int, int, int]]:
        """(start, end, node) in bytes of memory."""
        ...


class PhysicalActions(Actions):
    """Applies schemes to page frames; see `Actions` for ``dry_run`` and ``remember_homes``.

    ``nobodys`` counts bytes that filters let pass but that no process maps. Without a reverse map of the operations
    set's own, one is built, and kept fresh for 5 % of the time.
    """

    def __init__(self, frames: Frames, *, dry_run: bool = False, remember_homes: bool = False) -> None:
        super().__init__(dry_run=dry_run, remember_homes=remember_homes)
        self.nobodys = 0
        self._frames = frames
        self._own_map: ReverseMap | None = None
        self._processes: dict[tuple[int, int], Process] = {}

    def check_scheme(self, scheme: Scheme) -> None:
        """Raise RequestError for an action that is none of physical memory, MachineError if the machine cannot."""
        if not scheme.does.physical:
            raise RequestError(
                f"{scheme.action!r} is no action on physical memory; there are {', '.join(PHYSICAL)}",
                where="action",
            )
        if scheme.does.migrates:
            acting.require_nodes(scheme)
        if scheme.does.acts:
            try:
                pagemap.probe()
                self._filters.file(page_flags.FLAGS)
                process = other_process()
                if process is not None:
                    try:
                        acting.require(scheme.action, process)
                    finally:
                        process.close()
            except MachineError as error:
                raise MachineError(str(error), where="action") from None
        with located("filters"):
            self._filters.check(scheme.filters, self._frames.primitives, virtual=False)

    def apply_scheme(self, target: int, scheme: Scheme, start: Addresses, end: Addresses, allowed: Flags) -> Applied:
        """Apply the scheme's action to the physical ranges [start, end), less what its page filters reject.

        What ``passed`` is: all of a region that no filter is for; else the pages on LRU lists that pass. As in the
        kernel, pageout leaves young pages alone unless the scheme has a filter for them (docs/algorithms.md 2.15).
        """
        work = WorkTime()
        order = np.argsort(start, kind="stable")
        start, end, allowed = start[order], end[order], allowed[order]
        filters, default = effective_filters(scheme)
        filtered = ~allowed if filters else np.zeros(len(start), np.bool_)
        passed = np.where(filtered, np.uint64(0), end - start)
        applied = np.zeros(len(start), np.uint64)
        acts = scheme.does.acts
        if acts or filtered.any():
            file = self._filters.file(page_flags.FLAGS)
            if acts:
                self._refresh()
            for pages, known_flags in _survey(file, start, end):
                through = self._pass(pages, known_flags, filters, default, filtered)
                passed += sizes(pages, through & filtered[pages.region], len(start))
                if acts:
                    applied += self._act(target, scheme, pages.take(through), end)
        back = np.argsort(order, kind="stable")
        acted = self._take_acted()
        return Applied(np.minimum(applied, passed)[back], passed[back], work.spent_ns(), acted)

    def _pass(
        self,
        pages: Pages,
        known_flags: tuple[U64, U64],
        filters: Sequence[Filter],
        default: bool,
        filtered: Flags,
    ) -> Flags:
        through = np.ones(len(pages), np.bool_)
        index = np.flatnonzero(filtered[pages.region])
        if len(index):
            some = (known_flags[0][index], known_flags[1][index])
            ages = self._frames.primitives[0]
            through[index] = self._filters.decide(
                pages.take(index), filters, ages, table=None, default=default, known_flags=some, nodes=self._nodes
            )
        return through

    def _nodes(self, pages: Pages) -> Nodes:
        """The node of each page frame; -1 where it is not told."""
        found = np.full(len(pages), -1, np.int32)
        for low, high, node in self._frames.node_spans():
            found[(pages.address >= np.uint64(low)) & (pages.address < np.uint64(high))] = node
        return found

    # -- acting through processes ---------------------------------------------------------------------------------

    def _map(self) -> ReverseMap:
        given = self._frames.reverse_map
        if given is not None:
            return given
        if self._own_map is None:
            self._own_map = ReverseMap()
        return self._own_map

    def _refresh(self) -> None:
        reverse_map = self._map()
        if reverse_map is self._own_map or not reverse_map.cost.refreshes:
            reverse_map.refresh_if_due()

    def _act(self, target: int, scheme: Scheme, chosen: Pages, end: Addresses) -> U64:
        applied = np.zeros(len(end), np.uint64)
        owner, address, _ = self._map().lookup(chosen.frame)
        self.nobodys += int(np.count_nonzero(owner < 0)) * PAGE_SIZE
        plan = Plan(scheme, target, []) if self.dry_run else None
        for number in distinct(owner[owner >= 0]).tolist():
            mine = owner == number
            who = self._map().owners[number]
            process = self._process(who)
            if process is None:
                continue
            if plan is not None:
                command = printable(who.command)
                plan.add_pages(chosen.take(mine), [f"{command} (pid {who.pid})"])
            applied += self._act_through(process, scheme, np.sort(address[mine]), chosen.frame, end)
        if plan is not None:
            self._keep(plan)
        return applied

    def _act_through(self, process: Process, scheme: Scheme, addresses: Addresses, frames: U64, end: Addresses) -> U64:
        """Act on those of a process's pages that are in the (sorted) ``frames`` now."""
        applied = np.zeros(len(end), np.uint64)
        try:
            layout = MappingArrays(process.mappings())
            table = Pagemap(process.pid)
        except (ProcessGone, MachineError):
            return applied
        try:
            subject = Subject(process, table, layout, len(end), self._homes)
            for pages in survey(table, _around(addresses, layout)):
                pages = _in_frames(pages, table, frames, end)
                if len(pages) and process.alive():
                    applied += acting.on_pages(subject, scheme, pages, dry_run=self.dry_run)
        finally:
            table.close()
        return applied

    def _process(self, who: Owner) -> Process | None:
        """The process that the reverse map has seen; None if it has ended."""
        key = (who.pid, who.start_ticks)
        process = self._processes.get(key)
        if process is not None and process.alive():
            return process
        if process is not None:
            self._processes.pop(key).close()
        try:
            process = Process(who.pid)
        except RequestError:
            return None
        if process.start_ticks != who.start_ticks:
            process.close()
            return None
        if len(self._processes) >= _MAX_PROCESSES:
            # Not closed: where its pages came from may be remembered by it. It is when nobody knows it any more.
            self._processes.pop(next(iter(self._processes)))
        self._processes[key] = process
        return process

    def node_bytes(self, target: int, start: Addresses, end: Addresses, nid: int) -> int:
        """Bytes of the ranges that are memory of the NUMA node ``nid``."""
        return bytes_of_nodes(self._frames.node_spans(), start, end, (nid,))

    def close(self) -> None:
        """Release files and processes; nothing is undone."""
        super().close()
        for process in self._processes.values():
            process.close()
        self._processes.clear()
        if self._own_map is not None:
            self._own_map.close()


def effective_filters(scheme: Scheme) -> tuple[tuple[Filter, ...], bool]:
    """The page filters of a scheme on physical memory, and whether a page that none matches passes.

    Pageout (`Action.spares_young`) has one more after the user's, unless that has one of its type: young pages are
    rejected. What becomes of unmatched pages is decided by the user's last filter.
    """
    filters = scheme.ops_filters
    default = not filters[-1].allow if filters else True
    if scheme.does.spares_young and not any(item.filter_type == "young" for item in filters):
        filters = (*filters, YOUNG)
    return filters, default


def _survey(file: page_flags.FrameFile, start: Addresses, end: Addresses) -> Iterator[tuple[Pages, tuple[U64, U64]]]:
    """The frames of sorted physical ranges that are on LRU lists, in batches; with their folios' heads and flags."""
    pending: list[tuple[int, int]] = []
    left = BATCH
    for low, high in zip(start.tolist(), end.tolist(), strict=True):
        while low < high:
            upper = min(high, low + left * PAGE_SIZE)
            pending.append((low, upper))
            left -= (upper - low) // PAGE_SIZE
            low = upper
            if left <= 0:
                yield _frames(file, pending, end)
                pending, left = [], BATCH
    if pending:
        yield _frames(file, pending, end)


def _frames(file: page_flags.FrameFile, ranges: list[tuple[int, int]], end: Addresses) -> tuple[Pages, tuple[U64, U64]]:
    address = expand(np.array(ranges, np.uint64).reshape(-1, 2))
    frame = address >> _SHIFT
    heads, flags = page_flags.folio_heads(file, frame, file.read(frame))
    listed = np.flatnonzero((flags & page_flags.LRU) != 0)
    address, frame, heads, flags = address[listed], frame[listed], heads[listed], flags[listed]
    kind = np.full(len(address), pagemap_scan.PRESENT, np.uint8)
    kind |= np.where((flags & page_flags.ANON) == 0, np.uint8(pagemap_scan.FILE), np.uint8(0))
    region = np.searchsorted(end, address, "right")
    return Pages(address, region, np.zeros(len(address), np.intp), kind, frame), (heads, flags)


def _around(addresses: Addresses, layout: MappingArrays) -> Segments:
    """Parts of mappings that hold the sorted addresses, those that lie close together as one."""
    mapping = layout.at(addresses)
    addresses, mapping = addresses[mapping >= 0], mapping[mapping >= 0]
    if not len(addresses):
        return Segments(np.empty((0, 2), np.uint64), np.empty(0, np.intp), np.empty(0, np.intp))
    cut = np.flatnonzero((np.diff(addresses) > _NEAR) | (np.diff(mapping) != 0))
    first = np.concatenate([np.zeros(1, np.intp), cut + 1])
    last = np.append(cut, len(addresses) - 1)
    ranges = np.stack([addresses[first], addresses[last] + _PAGE], axis=1)
    return Segments(ranges, np.zeros(len(first), np.intp), mapping[first])


def _in_frames(pages: Pages, table: Pagemap, frames: U64, end: Addresses) -> Pages:
    """Those of a process's pages that are in one of the (sorted) frames; their region is the frame's."""
    pages.frame = pagemap.frames_of(table.entries(pages.address)[0])
    at = np.minimum(np.searchsorted(frames, pages.frame), max(len(frames) - 1, 0))
    chosen = pages.take((frames[at] == pages.frame) & (pages.frame != 0))
    chosen.region = np.searchsorted(end, chosen.frame << _SHIFT, "right")
    return chosen


def other_process() -> Process | None:
    """A process that is not this one, to ask what may be done to others; None if there is none to be seen."""
    for pid in (os.getppid(), 1):
        if pid and pid != os.getpid():
            try:
                return Process(pid)
            except RequestError:
                continue
    return None
