"""DAMOS filters that are decided per page (docs/algorithms.md 1.3, 2.14): the first that matches a page decides.

A page that none matches is treated as the opposite of what the last filter does. As in the kernel, a filter of type
young makes the pages that it finds young old again. Pages that are not in memory are not of any type but anon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from pydamon.errors import MachineError, located
from pydamon.linux import memcg, move_pages, page_flags, pagemap, pagemap_scan
from pydamon.linux.frames import Flags, Frames
from pydamon.linux.move_pages import Nodes
from pydamon.linux.page_flags import FrameFile
from pydamon.linux.pagemap import Pagemap
from pydamon.linux.word_files import Words
from pydamon.ops.actions.pages import Pages
from pydamon.ops.base import Addresses
from pydamon.spec.primitives import PRIMITIVES
from pydamon.spec.schemes import Filter

# Filters that ask for the page frame, so need to see frame numbers and /proc/kpageflags.
_BY_FRAME = frozenset({"active", "memcg", "hugepage_size", "unmapped"})
_BY_AGE = frozenset({"young", "pgidle_set", "pgidle_unset"})
YOUNG = Filter(filter_type="young")


@runtime_checkable
class Ages(Protocol):
    """What is needed of a primitive that can tell young pages (`BpfPrimitive`, `IdlePrimitive`, `IdleFrames`)."""

    def young(self, addresses: Addresses, heads: Frames) -> Flags:
        """Whether each page was accessed since its bit was last cleared; ``heads``: first frames of its folio."""
        ...

    def make_old(self, addresses: Addresses, heads: Frames) -> None:
        """Clear these pages' bits."""
        ...


class PageFilters:
    """Decides which pages pass, for all schemes of an operations set; opens what that needs when it is first needed.

    With ``dry_run`` no accessed bit is cleared.
    """

    def __init__(self, *, dry_run: bool = False) -> None:
        self._dry_run = dry_run
        self._files: dict[str, FrameFile] = {}
        self._inodes: dict[str, int] = {}
        self._closed = False

    def check(self, filters: Sequence[Filter], primitives: Sequence[object], *, virtual: bool) -> None:
        """Raise MachineError, naming the filter (``[0]``), if ``filters`` cannot be decided here.

        ``primitives`` are those that pages will be asked through (none if no target has joined yet).
        """
        for number, item in enumerate(filters):
            with located(f"[{number}]"):
                self._check_one(item, primitives, virtual)

    def _check_one(self, item: Filter, primitives: Sequence[object], virtual: bool) -> None:
        kind = item.filter_type
        try:
            if kind in _BY_FRAME and not (virtual and kind == "unmapped"):
                pagemap.probe()
                self.file(page_flags.FLAGS)
            if kind == "memcg":
                self.file(page_flags.CGROUPS)
                path_of_cgroup = item.memcg_path or ""
                self._inodes[path_of_cgroup] = memcg.inode(path_of_cgroup)
            if kind == "node":
                move_pages.require_node(item.nid or 0)
        except MachineError as error:
            raise MachineError(f"{kind} cannot be told here: {error}") from None
        if kind in _BY_AGE and not all(isinstance(primitive, Ages) for primitive in primitives):
            name = getattr(primitives[0], "name", "this primitive")
            *able, last = (row.name for row in PRIMITIVES if row.knows_ages)
            raise MachineError(
                f"{kind} cannot be told by {name}, which does not know single pages; it needs the primitive "
                f"{', '.join(able)} or {last} (see `pydamon doctor`)"
            )

    def decide(
        self,
        pages: Pages,
        filters: Sequence[Filter],
        ages: object,
        *,
        table: Pagemap | None,
        default: bool | None = None,
        known_flags: tuple[Frames, Words] | None = None,
        nodes: Callable[[Pages], Nodes] | None = None,
    ) -> Flags:
        """Which pages pass; shape (n,). Fills in ``pages.frame`` where it is needed, from ``table``.

        ``nodes`` tell the NUMA node of pages (below 0 where it is not known), for filters that ask for it.

        ``default`` is what becomes of pages that no filter matches, if not by the last of ``filters``. ``known_flags``
        are the first frames of the pages' folios and their flags, if they were read already.
        """
        passed = np.zeros(len(pages), np.bool_)
        undecided = np.ones(len(pages), np.bool_)
        heads: Frames | None = None
        flags: Words | None = None
        if known_flags is not None:
            heads, flags = known_flags
        for item in filters:
            index = np.flatnonzero(undecided)
            if not len(index):
                break
            if heads is None and item.filter_type in _BY_FRAME | _BY_AGE:
                heads, flags = self._heads(pages, table)
            if item.filter_type == "node":
                matched = _on_node(item, pages.take(index), nodes)
            else:
                matched = self._matches(item, pages.take(index), ages, *_some(heads, flags, index))
            hit = index[matched == item.matching]
            passed[hit] = item.allow
            undecided[hit] = False
        passed[undecided] = not filters[-1].allow if default is None else default
        return passed

    def _heads(self, pages: Pages, table: Pagemap | None) -> tuple[Frames, Words]:
        """First frames of the pages' folios and their flags; 0 for pages that are not in memory."""
        nothing = np.zeros(len(pages), np.uint64)
        if table is not None:
            here = np.flatnonzero(pages.resident)
            pages.frame[here] = pagemap.frames_of(table.entries(pages.address[here])[0])
        known = np.flatnonzero(pages.frame)
        if not len(known):
            return nothing, nothing
        try:
            file = self.file(page_flags.FLAGS)
        except MachineError:  # young may be told without; `check` has seen to the others
            return nothing, nothing
        heads, flags = nothing, nothing.copy()
        frames = pages.frame[known]
        heads[known], flags[known] = page_flags.folio_heads(file, frames, file.read(frames))
        return heads, flags

    def _matches(self, item: Filter, pages: Pages, ages: object, heads: Frames, flags: Words) -> Flags:
        kind = item.filter_type
        matched: Flags
        if kind == "anon":
            return (pages.resident | pages.has(pagemap_scan.SWAPPED)) & ~pages.has(pagemap_scan.FILE)
        here = pages.resident & (heads != 0)
        if kind == "active":
            matched = here & ((flags & page_flags.ACTIVE) != 0)
        elif kind == "unmapped":
            matched = here & ((flags & page_flags.MMAP) == 0)
        elif kind == "hugepage_size":
            assert item.hugepage_size is not None
            unique, first, inverse = np.unique(heads, return_index=True, return_inverse=True)
            size = page_flags.folio_bytes(self.file(page_flags.FLAGS), unique, flags[first])[inverse.reshape(-1)]
            low, high = item.hugepage_size.min, item.hugepage_size.max
            matched = here & (size >= np.uint64(low)) & (size <= np.uint64(high))
        elif kind == "memcg":
            mine = np.uint64(self._inode(item.memcg_path or ""))
            matched = here & (self.file(page_flags.CGROUPS).read(heads) == mine)
        else:
            matched = self._young(pages, ages, heads, look_only=kind != "young")
            if kind == "pgidle_set":
                matched = pages.resident & ~matched
        return matched

    def _young(self, pages: Pages, ages: object, heads: Frames, *, look_only: bool) -> Flags:
        if not isinstance(ages, Ages):
            raise MachineError("young pages cannot be told by this primitive", where="filter young")
        here = np.flatnonzero(pages.resident)
        young = np.zeros(len(pages), np.bool_)
        young[here] = ages.young(pages.address[here], heads[here])
        found = np.flatnonzero(young)
        if len(found) and not (self._dry_run or look_only):
            ages.make_old(pages.address[found], heads[found])
        return young

    def file(self, path: str) -> FrameFile:
        """One of the files of `page_flags`, opened once. Raises MachineError."""
        if path not in self._files:
            if self._closed:
                raise MachineError("the monitoring has ended", where=path)
            self._files[path] = FrameFile(path)
        return self._files[path]

    def _inode(self, path: str) -> int:
        if path not in self._inodes:
            self._inodes[path] = memcg.inode(path)
        return self._inodes[path]

    def close(self) -> None:
        """Release the files; for good."""
        self._closed = True
        for file in self._files.values():
            file.close()
        self._files.clear()


def _on_node(item: Filter, pages: Pages, nodes: Callable[[Pages], Nodes] | None) -> Flags:
    if nodes is None:
        raise MachineError("NUMA nodes of pages cannot be told here", where="filter node")
    matched: Flags = pages.resident & (nodes(pages) == item.nid)
    return matched


def _some(
    heads: Frames | None, flags: Words | None, index: np.ndarray[tuple[int], np.dtype[np.intp]]
) -> tuple[Frames, Words]:
    if heads is None or flags is None:
        nothing = np.zeros(len(index), np.uint64)
        return nothing, nothing
    return heads[index], flags[index]
