"""What an operations set needs of a primitive: one process's pages, asked whether they were accessed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.linux.process import Process
from pydamon.linux.word_files import Addresses

NOT_ACCESSED = 0
ACCESSED = 1
UNKNOWN = 2  # the question could not be answered; never to be read as "not accessed"

Answers = NDArray[np.uint8]  # NOT_ACCESSED, ACCESSED or UNKNOWN per address


class PrimitiveCost(msgspec.Struct):
    """What asking has cost so far. ``disturb_ns`` estimates the time that the target lost to it."""

    checks: int = 0  # addresses asked about
    check_ns: int = 0  # time inside calls that read
    clears: int = 0  # pages (or whole-process clears) that were cleared
    clear_ns: int = 0  # time inside calls that clear
    disturb_ns: int = 0

    def add(self, cost: PrimitiveCost) -> None:
        """Add another's to it."""
        self.checks += cost.checks
        self.check_ns += cost.check_ns
        self.clears += cost.clears
        self.clear_ns += cost.clear_ns
        self.disturb_ns += cost.disturb_ns


class Primitive(Protocol):
    """Watches one process. ``prepare`` opens a window of observation on pages, ``check`` closes it.

    One that knows for free which of the pages were surely not in memory when their window was opened has a method
    ``absent()``, which returns a flag per page of the last ``prepare`` (with what ``replace`` put in).
    """

    name: str
    cost: PrimitiveCost

    def prepare(self, addresses: Addresses) -> NDArray[np.bool_]:
        """Mark the pages of ``addresses`` (uint64, bytes) as not accessed.

        Returns one flag per address: False where the page could not be marked, so that a later check would say
        nothing; the caller may then offer another page.
        """
        ...

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> NDArray[np.bool_]:
        """Watch other pages instead of those at ``index`` of the last ``prepare``; returns their flags likewise."""
        ...

    def check(self) -> Answers:
        """Whether each page of the last ``prepare`` (with what ``replace`` put in) was accessed since.

        UNKNOWN where the page could not be marked or looked at.
        """
        ...

    def update(self) -> None:
        """The process's mappings may have changed (called at the update interval)."""
        ...

    def close(self) -> None:
        """Give back file descriptors and kernel objects."""
        ...


class _Closable(Protocol):
    def close(self) -> None: ...


_Kept = TypeVar("_Kept", bound=_Closable)


class Shared:
    """What the primitives of several processes share; it is closed in the end.

    ``resident_only``: what is asked about is memory that is there, where a primitive can tell the difference.
    ``clears_first``: all accessed bits of a process may be cleared when it is opened, if that makes sampling cheaper.
    ``tables`` is what the openers have put there that a sampler of whole samples needs (`registry.sampler`).
    """

    def __init__(self, *, resident_only: bool = False, clears_first: bool = True) -> None:
        self.resident_only = resident_only
        self.clears_first = clears_first
        self.tables: Any = None
        self._kept: list[_Closable] = []

    def keep(self, thing: _Kept) -> _Kept:
        """Have ``thing`` closed in the end; returns it."""
        self._kept.append(thing)
        return thing

    def close(self) -> None:
        """Release what is shared, the last first; the primitives must be closed already."""
        while self._kept:
            self._kept.pop().close()


Opener = Callable[[Process], Primitive]
