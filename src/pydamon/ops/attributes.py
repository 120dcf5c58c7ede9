"""Whether sampled pages have the attributes that probes ask for (docs/algorithms.md 1.2: data attributes monitoring).

Only memory that is there has attributes: a page that is absent, in swap, or of a driver has none, as in the kernel. In
physical memory the kernel lets filters decide about free memory, too, which is of no type (``faithful``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, located
from pydamon.linux import page_flags, pagemap, pagemap_scan
from pydamon.linux.frames import Frames
from pydamon.linux.pagemap import Pagemap
from pydamon.linux.process import Process
from pydamon.linux.word_files import Words
from pydamon.ops.actions.filters import Ages, PageFilters
from pydamon.ops.actions.pages import Pages
from pydamon.ops.base import Addresses, Hits
from pydamon.spec import Probe
from pydamon.spec.primitives import PRIMITIVES
from pydamon.spec.probes import event_of

Kinds = NDArray[np.uint8]


class Attributes:
    """Answers probes for page frames; opens what that needs when it is first needed."""

    def __init__(self) -> None:
        self._filters = PageFilters()

    def check(self, probes: Sequence[Probe], primitives: Sequence[object], *, virtual: bool) -> None:
        """Raise MachineError, naming the filter (``[0].filters[1]``), if an attribute cannot be told here.

        ``primitives`` are those that pages will be asked through (none if no target has joined yet).
        """
        for number, probe in enumerate(probes):
            if event_of(probe) is not None:
                continue  # of the region, not of a page
            with located(f"[{number}].filters"):
                self._filters.check(probe.filters, primitives, virtual=virtual)
            if probe.preps and not all(isinstance(primitive, Ages) for primitive in primitives):
                name = getattr(primitives[0], "name", "this primitive")
                able = " or ".join(row.name for row in PRIMITIVES if row.knows_ages)
                raise MachineError(
                    f"cannot be done by {name}, which does not know single pages; it needs the primitive {able}",
                    where=f"[{number}].preps",
                )
        if not virtual:
            self._filters.file(page_flags.FLAGS)

    def prepare_frames(self, addresses: Addresses, frames: Frames, ages: object) -> None:
        """Mark the pages as not accessed; 0 is no frame. ``ages`` can do it."""
        if isinstance(ages, Ages):
            heads, flags = self._folios(frames)
            here = np.flatnonzero((flags & (page_flags.LRU | page_flags.ANON)) != 0)
            ages.make_old(addresses[here], heads[here])

    def of_frames(
        self, addresses: Addresses, frames: Frames, probes: Sequence[Probe], ages: object, *, faithful: bool = False
    ) -> Hits:
        """Which pages have which attribute; 0 is no frame. ``addresses`` are what the pages are known by, ``ages`` what
        tells whether they were accessed."""
        heads, flags = self._folios(frames)
        anon = (flags & page_flags.ANON) != 0
        # A page that was just made waits for its place on an LRU list; what is mapped as anonymous is there anyway.
        there = (flags & page_flags.LRU) != 0
        there |= anon
        return self._decide(addresses, frames, there, anon, probes, ages, (heads, flags), of_all=faithful)

    def _folios(self, frames: Frames) -> tuple[Frames, Words]:
        """First frames of the pages' folios, and their flags; both 0 where there is none."""
        file = self._filters.file(page_flags.FLAGS)
        known = np.flatnonzero(frames)
        heads, flags = np.zeros(len(frames), np.uint64), np.zeros(len(frames), np.uint64)
        heads[known], flags[known] = page_flags.folio_heads(file, frames[known], file.read(frames[known]))
        return heads, flags

    def _decide(
        self,
        addresses: Addresses,
        frames: Frames,
        there: NDArray[np.bool_],
        anon: NDArray[np.bool_],
        probes: Sequence[Probe],
        ages: object,
        known_flags: tuple[Frames, Words] | None,
        *,
        of_all: bool = False,
    ) -> Hits:
        """``of_all``: filters decide about what is not there, too."""
        kind: Kinds = np.where(there, np.uint8(pagemap_scan.PRESENT), np.uint8(0))
        kind |= np.where(there & ~anon, np.uint8(pagemap_scan.FILE), np.uint8(0))
        nowhere = np.zeros(len(addresses), np.intp)
        pages = Pages(addresses, nowhere, nowhere, kind, frames)
        hits = np.zeros((len(probes), len(addresses)), np.bool_)
        for number, probe in enumerate(probes):
            hits[number] = there | of_all
            if probe.filters:
                hits[number] &= self._filters.decide(pages, probe.filters, ages, table=None, known_flags=known_flags)
        return hits

    def close(self) -> None:
        """Release files."""
        self._filters.close()


class VirtualAttributes(Attributes):
    """Answers probes for addresses of processes."""

    def __init__(self) -> None:
        super().__init__()
        self._tables: dict[int, Pagemap] = {}
        self._sees_frames = _can(pagemap.probe) and _can(lambda: self._filters.file(page_flags.FLAGS))

    def prepare_process(self, target: int, process: Process, addresses: Addresses, ages: object) -> None:
        """Mark those of these pages that are there as not accessed."""
        found = self._entries(target, process, addresses)
        if found is None or not isinstance(ages, Ages):
            return
        there, entries = found
        if self._sees_frames:
            frames = np.where(there, pagemap.frames_of(entries), np.uint64(0))
            self.prepare_frames(addresses, frames, ages)
        else:
            ages.make_old(addresses[there], np.zeros(np.count_nonzero(there), np.uint64))

    def of_process(
        self, target: int, process: Process, addresses: Addresses, probes: Sequence[Probe], ages: object
    ) -> Hits:
        """Which pages of a target's process have which attribute; shape (probes, n). None has any once it has ended.

        ``ages`` tells whether they were accessed. Users that do not see page frames take the zero page for anonymous
        memory.
        """
        found = self._entries(target, process, addresses)
        if found is None:
            return np.zeros((len(probes), len(addresses)), np.bool_)
        there, entries = found
        frames = np.where(there, pagemap.frames_of(entries), np.uint64(0))
        if self._sees_frames:
            return self.of_frames(addresses, frames, probes, ages)
        anon = there & ~pagemap.is_file(entries)
        return self._decide(addresses, frames, there, anon, probes, ages, None)

    def _entries(self, target: int, process: Process, addresses: Addresses) -> tuple[NDArray[np.bool_], Words] | None:
        """Which of the pages are there, and their entries; None once the process has ended."""
        table = self._table(target, process)
        if table is None:
            return None
        entries, known = table.entries(addresses)
        return known & pagemap.is_present(entries), entries

    def _table(self, target: int, process: Process) -> Pagemap | None:
        if target not in self._tables:
            try:
                table = Pagemap(process.pid)
            except MachineError:  # it has ended
                return None
            if not process.alive():  # the pid may be another's by now
                table.close()
                return None
            self._tables[target] = table
        return self._tables[target]

    def forget(self, target: int) -> None:
        """Look the process up anew when it is next asked: it may have executed another program, or have ended."""
        table = self._tables.pop(target, None)
        if table is not None:
            table.close()

    def close(self) -> None:
        """Release files."""
        super().close()
        for target in list(self._tables):
            self.forget(target)


def _can(look: Callable[[], object]) -> bool:
    try:
        look()
    except MachineError:
        return False
    return True
