"""The pages of a process that a page panel asks through `bpf`, beside the windows of the regions.

Both clear the same accessed bits. So what is cleared for the regions, or by an action, is noted here before that, and
what is cleared here is told to whoever has windows open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.frames import Flags
from pydamon.linux.word_files import Addresses
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN
from pydamon.primitives.bpf_answers import Levels, answer

BeforeClear = Callable[[NDArray[np.uint64], NDArray[np.uint64]], None]  # starts and lengths of ranges, in bytes

_NO_PAGES: Addresses = np.empty(0, np.uint64)


class PageTables(Protocol):
    """What reads a process's page tables, and clears accessed bits there (`BpfPrimitive`)."""

    def read_now(self, addresses: Addresses) -> tuple[NDArray[np.uint64], Levels, int, Flags]:
        """The entries of these pages, their levels, what tells the address space (0: gone), and which are young."""
        ...

    def open_alone(
        self, addresses: Addresses, entries: NDArray[np.uint64], levels: Levels, before: BeforeClear
    ) -> Flags:
        """Clear pages as they were read just now, telling ``before`` the ranges; which pages are usable."""
        ...


class PanelPages:
    """Windows on the pages of one process, from one `look` to the next; ``lost`` is told what is about to be cleared.

    All arrays are parallel to the addresses, which are sorted here.
    """

    def __init__(self, primitive: PageTables, lost: BeforeClear) -> None:
        self._primitive = primitive
        self._lost = lost
        self._given = self._addresses = _NO_PAGES
        self._order = np.empty(0, np.intp)
        self._at_start = np.empty(0, np.uint8)
        self._usable = self._noted = self._begun = np.empty(0, np.bool_)
        self._space = 0

    def look(self, addresses: Addresses) -> tuple[Flags, Flags]:
        """Which of these pages were accessed since the last look, and of which that is not known; shape (n,) each.

        Of pages that were not asked about then, the window begins now: neither is True.
        """
        self._keep(addresses)
        entries, levels, space, young = self._primitive.read_now(self._addresses)
        if space != self._space:  # another program was executed, or it is gone
            self._begun[:] = False
            self._space = space
        answers = answer(self._at_start, levels, young)
        answers[~self._usable] = UNKNOWN
        answers[self._noted] = ACCESSED
        answers[~self._begun] = NOT_ACCESSED if space else UNKNOWN
        self._usable = self._primitive.open_alone(self._addresses, entries, levels, self._lost)
        self._at_start = levels
        self._noted = np.zeros(len(levels), np.bool_)
        self._begun = np.full(len(levels), space != 0)
        accessed, unknown = np.empty(len(levels), np.bool_), np.empty(len(levels), np.bool_)
        accessed[self._order], unknown[self._order] = answers == ACCESSED, answers == UNKNOWN
        return accessed, unknown

    def before_clear(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
        """The accessed bits of these ranges (bytes) are about to be cleared."""
        self._note_young(self._inside(starts, lengths))

    def before_clear_all(self) -> None:
        """Those of all of the process are."""
        self._note_young(np.ones(len(self._addresses), np.bool_))

    def note(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
        """The pages in these ranges were accessed, and may be cleared by now."""
        self._noted |= self._inside(starts, lengths)

    def lose(self) -> None:
        """Nobody knows what has been cleared since the last look: the next one has no answer where it sees nothing."""
        self._usable[:] = False

    def _note_young(self, which: Flags) -> None:
        index = np.flatnonzero(which & ~self._noted)
        if len(index):
            self._noted[index[self._primitive.read_now(self._addresses[index])[3]]] = True

    def _inside(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> Flags:
        return inside(self._addresses, starts, lengths)

    def _keep(self, addresses: Addresses) -> None:
        """Go on with these pages: what is known of those that stay, stays."""
        if addresses is self._given:
            return
        order = np.argsort(addresses)
        pages = addresses[order]
        at = np.searchsorted(self._addresses, pages)
        at[at == len(self._addresses)] = 0
        stays = self._addresses[at] == pages if len(self._addresses) else np.zeros(len(pages), np.bool_)

        def kept(values: NDArray[Any]) -> NDArray[Any]:
            found: NDArray[Any] = np.zeros(len(pages), values.dtype)
            found[stays] = values[at[stays]]
            return found

        self._at_start = kept(self._at_start)
        self._usable, self._noted, self._begun = map(kept, (self._usable, self._noted, self._begun))
        self._given, self._addresses, self._order = addresses, pages, order


def inside(addresses: Addresses, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> Flags:
    """Which addresses, shape (n,), lie in one of the ranges (in any order, of bytes)."""
    if not len(starts):
        return np.zeros(len(addresses), np.bool_)
    order = np.argsort(starts)
    low, high = starts[order], (starts + lengths)[order]
    at = np.searchsorted(low, addresses, "right") - 1
    found: Flags = (at >= 0) & (addresses < high[at])
    return found
