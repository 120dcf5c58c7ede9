"""Where processes map the same memory: which page of one is which page of another.

Pages are the same if they are in the same frame. Where to look for it: at the same address (memory from before a fork),
or at the same place of the same file (shared memory and files; what was copied on a write is in another frame). What a
process has moved by mremap(2) since the fork is not found, and counts as its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.frames import Frames
from pydamon.linux.pagemap import Pagemap, frames_of
from pydamon.linux.process import Mapping, Process
from pydamon.ops.base import Addresses
from pydamon.spans import distinct

_PAGE_SHIFT = np.uint64(12)
_FILE_SHIFT = np.uint64(44)  # page numbers within a file are below
_MOST_FILES = 1 << 16  # that have numbers; of more all are numbered anew
_TRIED = 3  # mappings of one place of a file in one process: its segments may overlap by a page


class Processes(Protocol):
    """What is needed of the operations set."""

    processes: list[Process]

    def mappings(self, target: int) -> list[Mapping]:
        """What the process had mapped at the last update."""
        ...


class Sharing:
    """Answers `PanelOps.also_mapped` for the processes of ``ops``."""

    def __init__(self, ops: Processes) -> None:
        self._ops = ops
        self._layouts: dict[int, _Layout] = {}
        self._files: dict[tuple[int, str], int] = {}
        self._asked: tuple[Addresses, Frames, Addresses] | None = None

    def also_mapped(self, owner: NDArray[np.intp], addresses: Addresses, target: int) -> Addresses | None:
        """See `PanelOps.also_mapped`; None if this user sees no frame numbers."""
        if len(self._files) > _MOST_FILES:  # those of processes that have ended are among them
            self._files, self._asked = {}, None
            self._layouts.clear()
        if self._asked is None or self._asked[0] is not addresses:
            self._asked = addresses, *self._of_owners(owner, addresses)
        _, frames, places = self._asked
        if len(frames) and not frames.any():
            return None
        wanted = np.flatnonzero((owner != target) & (frames != 0))
        layout = self._layout(target)
        found = np.zeros(len(addresses), np.uint64)
        same = layout.has(addresses[wanted])
        rows, candidates = [wanted[same]], [addresses[wanted[same]]]
        of_file = wanted[places[wanted] != 0]
        for at, mapped in layout.places_of(places[of_file]):
            rows.append(of_file[at])
            candidates.append(mapped)
        row, where = np.concatenate(rows), np.concatenate(candidates)
        here = self._frames(target, where)
        right = (here == frames[row]) & (here != 0)
        found[row[right]] = where[right]
        return found

    def forget(self, target: int) -> None:
        """The target has ended."""
        self._layouts.pop(target, None)

    def _of_owners(self, owner: NDArray[np.intp], addresses: Addresses) -> tuple[Frames, Addresses]:
        """The frame of each page, and its place in a file (0: of none)."""
        frames, places = np.zeros(len(addresses), np.uint64), np.zeros(len(addresses), np.uint64)
        for target in distinct(owner).tolist():
            mine = owner == target
            frames[mine] = self._frames(target, addresses[mine])
            places[mine] = self._layout(target).in_files(addresses[mine])
        return frames, places

    def _frames(self, target: int, addresses: Addresses) -> Frames:
        """The frame of each page; 0 where there is none, or the process has ended."""
        nothing = np.zeros(len(addresses), np.uint64)
        if not len(addresses):
            return nothing
        process = self._ops.processes[target]
        try:
            pagemap = Pagemap(process.pid)
        except MachineError:
            return nothing
        try:
            if not process.alive():  # another process may have got this pid
                return nothing
            entries, known = pagemap.entries(addresses)
        finally:
            pagemap.close()
        return np.where(known, frames_of(entries), np.uint64(0))

    def _layout(self, target: int) -> _Layout:
        mappings = self._ops.mappings(target)
        layout = self._layouts.get(target)
        if layout is None or layout.mappings is not mappings:
            layout = _Layout(mappings, self._files)
            if mappings:  # one that has ended has none, and does not come back
                self._layouts[target] = layout
        return layout


class _Layout:
    """The mappings of a process as arrays. ``files`` gives each file (inode and name) a number from 1 on.

    A place in a file is one number: that of the file and of the page within it.
    """

    def __init__(self, mappings: Sequence[Mapping], files: dict[tuple[int, str], int]) -> None:
        self.mappings = mappings
        rows = [
            (m.start, m.end, m.offset, files.setdefault((m.inode, m.name), len(files) + 1) if m.inode else 0)
            for m in mappings
        ]
        table = np.array(rows, np.uint64).reshape(-1, 4)
        table = table[np.argsort(table[:, 0], kind="stable")]
        self._start, self._end = table[:, 0].copy(), table[:, 1].copy()
        place = np.where(table[:, 3] != 0, (table[:, 3] << _FILE_SHIFT) | (table[:, 2] >> _PAGE_SHIFT), np.uint64(0))
        self._place = place
        mapped = np.flatnonzero(place)
        self._by_place = mapped[np.argsort(place[mapped], kind="stable")]

    def has(self, addresses: Addresses) -> NDArray[np.bool_]:
        """Whether anything is mapped at each address; shape (n,)."""
        return self._mapping_at(addresses) >= 0

    def in_files(self, addresses: Addresses) -> Addresses:
        """The place in a file of each address; 0 where it is of none. Shape (n,)."""
        mapping = self._mapping_at(addresses)
        at = np.maximum(mapping, 0)
        if not len(self._start):
            return np.zeros(len(addresses), np.uint64)
        first = self._place[at]
        found: Addresses = first + ((addresses - self._start[at]) >> _PAGE_SHIFT)
        found[(mapping < 0) | (first == 0)] = 0
        return found

    def places_of(self, places: Addresses) -> list[tuple[NDArray[np.intp], Addresses]]:
        """Where these places in files are mapped: pairs of indices into ``places``, and addresses."""
        found = []
        firsts = self._place[self._by_place]
        at = np.searchsorted(firsts, places, "right") - 1
        for back in range(_TRIED):
            index = np.flatnonzero(at >= back)
            mapping = self._by_place[at[index] - back]
            address = self._start[mapping] + ((places[index] - self._place[mapping]) << _PAGE_SHIFT)
            inside = address < self._end[mapping]
            found.append((index[inside], address[inside]))
        return found

    def _mapping_at(self, addresses: Addresses) -> NDArray[np.intp]:
        """The mapping at each address, -1 for none."""
        at = np.searchsorted(self._start, addresses, "right") - 1
        if len(self._start):
            at[addresses >= self._end[np.maximum(at, 0)]] = -1
        return at
