"""Primitive ``soft-dirty``: which pages a process wrote to. Reads are not seen at all.

Writing 4 to ``/proc/PID/clear_refs`` write-protects all pages of the process; the first write to each sets its
soft-dirty bit anew, and only that write pays a page fault (about 1 µs). Needs CONFIG_MEM_SOFT_DIRTY and owning the
process, no root. Clearing walks the whole resident set, so it is done only when a page that is to be watched is dirty.
Format: the kernel's Documentation/admin-guide/mm/soft-dirty.rst.

What it cannot tell: with the pagemap, all of a mapping that was made or grew (a heap) since the last clear looks
written once; with a walk of the page tables it does not, but a page that is in swap is unknown. Whoever else uses
soft-dirty of the process (CRIU) loses its bits, and it takes ours: pages then look clean. The processor's own dirty bit
is not used: only writing a page back clears it, so for anonymous memory it is always set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import pagemap
from pydamon.linux.causes import cause
from pydamon.linux.clear_refs import tracks_soft_dirty
from pydamon.linux.frames import Flags
from pydamon.linux.process import Process
from pydamon.linux.word_files import Addresses
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers, PrimitiveCost, Shared
from pydamon.primitives.idle import Walk
from pydamon.primitives.page_tables import LEVEL_1G, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN

_DIRTY_ENTRY = np.uint64(1 << 11)  # _PAGE_SOFT_DIRTY in entries of x86-64's page tables, of large pages, too

# What a look says of a page.
_UNKNOWN, _ABSENT, _CLEAN, _DIRTY = 0, 1, 2, 3

# Share of the time inside clearing calls that the target loses to them: its page faults wait for the lock of its
# address space. The fault of each first write afterwards is not in it: how many there are is not known.
_CLEAR_DISTURBS = 0.2


class SoftDirtyPrimitive:
    """Watches the writes of one process (implements `Primitive`; ACCESSED means written).

    With ``walk`` bits are read from the page tables (root; 0.03 µs a page), else from the process's pagemap. Raises
    MachineError where it cannot work.
    """

    name = "soft-dirty"
    writes_only = True

    def __init__(self, process: Process, walk: Walk | None = None) -> None:
        probe()
        self.cost = PrimitiveCost()
        self._process = process
        self._walk = walk
        self._pagemap: pagemap.Pagemap | None = None
        self._clear_refs = -1
        self._addresses: Addresses = np.empty(0, np.uint64)
        self._states: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._cleared = False  # in this window
        self._space = 0
        self._open()

    def prepare(self, addresses: Addresses) -> Flags:
        """Open a window of observation on the pages of ``addresses`` (bytes; uint64, shape (n,)); it replaces the last.

        Returns False for a page that cannot be read. A page that is not present is usable.
        """
        self._addresses = np.array(addresses, np.uint64)
        self._cleared = False
        self._states, self._space = self._begin(self._addresses)
        flags: Flags = self._states != _UNKNOWN
        return flags

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> Flags:
        """Exchange pages of the last `prepare`; returns their flags likewise."""
        addresses = np.array(addresses, np.uint64)
        self._addresses[index] = addresses
        self._states[index], space = self._begin(addresses)
        self._space = self._space or space
        flags: Flags = self._states[index] != _UNKNOWN
        return flags

    def absent(self) -> Flags:
        """Which pages were neither in memory nor (seen through pagemap) in swap when their window began; shape (n,)."""
        flags: Flags = self._states == _ABSENT
        return flags

    def check(self) -> Answers:
        """Whether each page was written since: NOT_ACCESSED, ACCESSED (written) or UNKNOWN; shape (n,)."""
        began = time.perf_counter_ns()
        states, space = self._look(self._addresses)
        answers = _ANSWERS[self._states, states]
        if space != self._space or not self._process.alive():
            answers[:] = UNKNOWN
        self.cost.checks += len(answers)
        self.cost.check_ns += time.perf_counter_ns() - began
        return answers

    def update(self) -> None:
        """Open the files anew: after an exec the old ones show the address space that is gone."""
        self.close()
        try:
            self._open()
        except MachineError:  # it has ended, or may not be looked at any more; the operations set finds that out
            self.close()

    def close(self) -> None:
        """Release the files. Pages stay write-protected until they are written to."""
        if self._pagemap is not None:
            self._pagemap.close()
            self._pagemap = None
        if self._clear_refs >= 0:
            os.close(self._clear_refs)
            self._clear_refs = -1

    def _open(self) -> None:
        path = f"/proc/{self._process.pid}/clear_refs"
        try:
            self._clear_refs = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise MachineError(f"cannot be opened: {cause(error, 'run as its owner or as root')}", where=path) from None
        if self._walk is None:
            try:
                self._pagemap = pagemap.Pagemap(self._process.pid)
            except BaseException:
                self.close()
                raise

    def _begin(self, addresses: Addresses) -> tuple[NDArray[np.uint8], int]:
        """Clear if a page is dirty. Returns what each page is at the start of its window, and the address space."""
        began, cleared = time.perf_counter_ns(), self.cost.clear_ns
        states, space = self._look(addresses)
        dirty = states == _DIRTY
        if dirty.any():
            # One clear in a window: a page that is dirty after it was written in the meantime, which is to be told.
            self._cleared = self._cleared or self._clear()
            states[dirty] = _CLEAN if self._cleared else _UNKNOWN
        self.cost.check_ns += time.perf_counter_ns() - began - (self.cost.clear_ns - cleared)
        return states, space

    def _clear(self) -> bool:
        began = time.perf_counter_ns()
        try:
            os.write(self._clear_refs, b"4")
        except OSError:  # it has ended
            return False
        spent = time.perf_counter_ns() - began
        self._cleared = True
        self.cost.clears += 1
        self.cost.clear_ns += spent
        self.cost.disturb_ns += int(spent * _CLEAR_DISTURBS)
        return True

    def _look(self, addresses: Addresses) -> tuple[NDArray[np.uint8], int]:
        if self._walk is not None:
            entries, levels, space = self._walk.walk_space(self._process.pid, addresses)
            return _LEVEL_STATES[levels, ((entries & _DIRTY_ENTRY) != 0).astype(np.uint8)], space
        if self._pagemap is None:
            return np.full(len(addresses), _UNKNOWN, np.uint8), 0
        entries, known = self._pagemap.entries(addresses)
        here = pagemap.is_present(entries) | pagemap.is_swapped(entries)
        states = np.where(here, np.where(pagemap.is_soft_dirty(entries), _DIRTY, _CLEAN), _ABSENT)
        return np.where(known, states, _UNKNOWN).astype(np.uint8), 1


def probe() -> None:
    """Raise MachineError with the reason if this kernel does not track soft-dirty pages; changes nothing."""
    if not os.path.exists("/proc/self/pagemap"):
        raise MachineError("needs /proc and a kernel with CONFIG_PROC_PAGE_MONITOR", where="soft-dirty")
    if not tracks_soft_dirty():
        raise MachineError("this kernel does not track it; it needs CONFIG_MEM_SOFT_DIRTY", where="soft-dirty")


def opener(shared: Shared) -> Callable[[Process], SoftDirtyPrimitive]:
    """What opens it for one process."""
    from pydamon.primitives.bpf import walk_if_possible

    walk = walk_if_possible(shared)
    return lambda process: SoftDirtyPrimitive(process, walk)


def _level_states() -> NDArray[np.uint8]:
    states = np.full((LEVEL_1G + 1, 2), _UNKNOWN, np.uint8)
    states[LEVEL_ABSENT] = _ABSENT
    states[LEVEL_4K:, 0], states[LEVEL_4K:, 1] = _CLEAN, _DIRTY
    states[LEVEL_UNKNOWN] = _UNKNOWN
    return states


def _answers() -> Answers:
    """What a window says, by the page's state at its start and at its end."""
    answers = np.full((4, 4), NOT_ACCESSED, np.uint8)
    answers[:, _DIRTY] = ACCESSED
    answers[_CLEAN, _ABSENT] = UNKNOWN  # unmapped since (or, to a walk, swapped), and the bit is lost
    answers[_UNKNOWN] = answers[:, _UNKNOWN] = UNKNOWN
    return answers


_LEVEL_STATES = _level_states()
_ANSWERS = _answers()
