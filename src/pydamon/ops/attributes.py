"""Whether sampled pages have the attributes that probes ask for (docs/algorithms.md 1.2: data attributes monitoring).

As in the kernel only memory that is there has attributes: a page that is absent, in swap, or of a driver has none.
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
from pydamon.ops.actions.filters import PageFilters
from pydamon.ops.actions.pages import Pages
from pydamon.ops.base import Addresses, Hits
from pydamon.spec import Probe

Kinds = NDArray[np.uint8]


class Attributes:
    """Answers probes for page frames; opens what that needs when it is first needed."""

    def __init__(self) -> None:
        self._filters = PageFilters()

    def check(self, probes: Sequence[Probe], *, virtual: bool) -> None:
        """Raise MachineError, naming the filter (``[0].filters[1]``), if an attribute cannot be told here."""
        for number, probe in enumerate(probes):
            with located(f"[{number}].filters"):
                self._filters.check(probe.filters, (), virtual=virtual)
        if not virtual:
            self._filters.file(page_flags.FLAGS)

    def of_frames(self, addresses: Addresses, frames: Frames, probes: Sequence[Probe]) -> Hits:
        """Which pages have which attribute; 0 is no frame. ``addresses`` are what the pages are known by."""
        file = self._filters.file(page_flags.FLAGS)
        known = np.flatnonzero(frames)
        heads, flags = np.zeros(len(frames), np.uint64), np.zeros(len(frames), np.uint64)
        heads[known], flags[known] = page_flags.folio_heads(file, frames[known], file.read(frames[known]))
        anon = (flags & page_flags.ANON) != 0
        # A page that was just made waits for its place on an LRU list; what is mapped as anonymous is there anyway.
        there = (flags & page_flags.LRU) != 0
        there |= anon
        return self._decide(addresses, frames, there, anon, probes, (heads, flags))

    def _decide(
        self,
        addresses: Addresses,
        frames: Frames,
        there: NDArray[np.bool_],
        anon: NDArray[np.bool_],
        probes: Sequence[Probe],
        known_flags: tuple[Frames, Words] | None,
    ) -> Hits:
        kind: Kinds = np.where(there, np.uint8(pagemap_scan.PRESENT), np.uint8(0))
        kind |= np.where(there & ~anon, np.uint8(pagemap_scan.FILE), np.uint8(0))
        nowhere = np.zeros(len(addresses), np.intp)
        pages = Pages(addresses, nowhere, nowhere, kind, frames)
        hits = np.zeros((len(probes), len(addresses)), np.bool_)
        for number, probe in enumerate(probes):
            hits[number] = there
            if probe.filters:
                hits[number] &= self._filters.decide(pages, probe.filters, None, table=None, known_flags=known_flags)
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

    def of_process(self, target: int, process: Process, addresses: Addresses, probes: Sequence[Probe]) -> Hits:
        """Which pages of a target's process have which attribute; shape (probes, n). None has any once it has ended.

        Users that do not see page frames take the zero page for anonymous memory.
        """
        table = self._table(target, process)
        if table is None:
            return np.zeros((len(probes), len(addresses)), np.bool_)
        entries, known = table.entries(addresses)
        there = known & pagemap.is_present(entries)
        frames = np.where(there, pagemap.frames_of(entries), np.uint64(0))
        if self._sees_frames:
            return self.of_frames(addresses, frames, probes)
        anon = there & ~pagemap.is_file(entries)
        return self._decide(addresses, frames, there, anon, probes, None)

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
