"""The primitives `idle`, `bpf+idle` and `idle` over physical memory: pages asked through idle page tracking.

- `IdlePrimitive`: one process; a walk of its page tables (`PageTableWalk`) or its pagemap tells where its pages are,
  the idle bitmap whether they were accessed. Accesses of others to a shared page, and of a virtual machine that runs in
  the process, count. A page that nobody else maps is asked through its page-table entry, and costs no call of its own
  unless it has to be marked.
- with ``tables``: the walk also tells whether pages were accessed, and the bitmap only clears the bits of those that
  were. Much cheaper for cold memory (0.03 µs a page instead of 2 µs), precise to 4 KiB in folios that are not mapped
  as a huge page, and blind to accesses of others.
- `IdleFrames`: the whole machine; "addresses" are physical.

See `pydamon.linux.idle_bitmap` for what idle page tracking cannot tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import pagemap
from pydamon.linux.frames import Flags, Frames
from pydamon.linux.idle_bitmap import IDLE, LISTED, MARKED, OWN, UNLISTED, UNMARKABLE, YOUNG, FrameWatch, probe
from pydamon.linux.process import Process
from pydamon.linux.word_files import Addresses
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Answers, PrimitiveCost, Shared
from pydamon.primitives.clearing import Entries, Levels
from pydamon.primitives.idle_panel import IdlePanel, PanelFrames
from pydamon.primitives.page_tables import LEVEL_1G, LEVEL_2M, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN

if TYPE_CHECKING:  # needed only where BPF works
    from pydamon.primitives.bpf import PageTableWalk
    from pydamon.primitives.struct_pages import StructPages

__all__ = ["IdleFrames", "IdlePrimitive", "probe"]

_PAGE_SHIFT = np.uint64(12)
_IN_2M, _IN_1G = np.uint64((1 << 9) - 1), np.uint64((1 << 18) - 1)  # frames

# Share of the time inside marking calls that the target loses: the processor sets the bits anew, nothing is flushed.
# Taken from clear_refs, which does the same to the page tables (`pydamon.primitives.clearing`).
_MARK_DISTURBS = 0.2

BY_ENTRY = 3  # a state beside those of `FrameWatch`: not marked, for its only page-table entry shows no access


class Walk(Protocol):
    """What is needed of `PageTableWalk`."""

    def walk_space(self, pid: int, addresses: Addresses) -> tuple[Entries, Levels, int]:
        """Entry and level of each address, and a number that tells the address space (0: not known)."""
        ...

    def frames(self, entries: Entries) -> Frames:
        """The frame numbers in entries of mapped pages."""
        ...

    def accessed(self, entries: Entries) -> Flags:
        """Whether the accessed bit is set in each entry; shape (n,)."""
        ...

    def refresh(self) -> None:
        """Memory may have been added."""
        ...


class IdlePrimitive:
    """Watches one process through the idle bitmap (implements `Primitive`). Raises MachineError where it cannot work.

    ``walk`` finds the pages' frames; without it the process's pagemap is read. ``watch`` is shared with others if
    given, else opened, and closed with this. ``tables`` (needs ``walk``): see above.
    """

    def __init__(
        self,
        process: Process,
        walk: Walk | None = None,
        *,
        watch: FrameWatch | None = None,
        tables: bool = False,
    ) -> None:
        if tables and walk is None:
            raise ValueError("answers from the page tables need a walk of them")
        self.name = "bpf+idle" if tables else "idle"
        self.cost = PrimitiveCost()
        self._process = process
        self._tables = tables
        self._places: _Walked | _Mapped = _Mapped(process.pid) if walk is None else _Walked(process.pid, walk)
        self._owns_watch = watch is None
        try:
            self._watch = FrameWatch() if watch is None else watch
        except BaseException:
            self._places.close()
            raise
        # The window of observation: the pages, where each was at its start, which frame answers for it.
        self._addresses: Addresses = np.empty(0, np.uint64)
        self._levels: Levels = np.empty(0, np.uint8)
        self._frames: Frames = np.empty(0, np.uint64)
        self._heads: Frames = np.empty(0, np.uint64)
        self._usable: Flags = np.empty(0, np.bool_)
        self._by_entry: Flags = np.empty(0, np.bool_)  # the page-table entry answers, not the bitmap
        self._lost: Flags = np.empty(0, np.bool_)  # accessed, and marked for a panel since, or for regions
        self._space = 0
        self._walk = walk
        self._knows_heads = not tables  # else only those of frames that were marked
        self.panel: IdlePanel | None = None

    @property
    def addresses(self) -> Addresses:
        """The pages of the window."""
        return self._addresses

    @property
    def heads(self) -> Frames:
        """The frame that answers for each page of the window; 0 for one that is not there."""
        return self._heads

    def cleared_with(self, heads: Frames) -> NDArray[np.intp]:
        """Which pages of the window may lose their accessed bits when these frames are marked."""
        return np.flatnonzero(np.isin(self._heads, heads) if self._knows_heads else self._levels >= LEVEL_4K)

    def open_panel(self) -> IdlePanel:
        """A panel beside this, with a window of its own on pages of the same process."""
        frames = self._watch.panels
        if not isinstance(frames, PanelFrames):
            self._watch.panels = frames = PanelFrames()
        window = IdlePrimitive(self._process, self._walk, watch=self._watch, tables=self._tables)
        window.cost, window._knows_heads = self.cost, True
        self.panel = frames.open(window, self)
        return self.panel

    @property
    def trouble(self) -> str | None:
        """One line if the kernel refused to read or write the bitmap although it could be opened."""
        return self._watch.bitmap.trouble

    def prepare(self, addresses: Addresses) -> Flags:
        """Open a window of observation on the pages of ``addresses`` (bytes; uint64, shape (n,)); it replaces the last.

        Returns False for a page whose frame has no idle bit. A page that is not present is usable: it was accessed if
        it is there at the check.
        """
        self._addresses = np.array(addresses, np.uint64)
        self._space = 0
        self._lost = np.zeros(len(addresses), np.bool_)
        self._frames, self._levels, self._heads, self._by_entry, self._usable = self._open(self._addresses)
        return self._usable.copy()

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> Flags:
        """Exchange pages of the last `prepare`: those at ``index`` for ``addresses``, both of shape (k,).

        Returns whether each new page is usable; the others keep their window.
        """
        addresses = np.array(addresses, np.uint64)
        self._addresses[index], self._lost[index] = addresses, False
        opened = self._open(addresses)
        self._frames[index], self._levels[index], self._heads[index], self._by_entry[index], usable = opened
        self._usable[index] = usable
        return usable

    def absent(self) -> Flags:
        """Which pages were not mapped to memory when their window was opened; shape (n,)."""
        flags: Flags = self._levels == LEVEL_ABSENT
        return flags

    def check(self) -> Answers:
        """Whether each page was accessed since its window was opened: NOT_ACCESSED, ACCESSED or UNKNOWN; shape (n,).

        A page that is in another frame than before (it was moved, copied or swapped) is UNKNOWN, one that came into
        memory meanwhile ACCESSED. UNKNOWN for all if the process is gone or has executed another program. At most one
        system call for each page that the bitmap has to answer for, and one for 1,024 pages of a walk.
        """
        began = time.perf_counter_ns()
        answers, space = self._now(np.arange(len(self._addresses)))
        answers[self._lost] = ACCESSED
        # The pid meant this process during the look only if it is still alive after it.
        if space != self._space or not self._process.alive():
            answers[:] = UNKNOWN
        self.cost.checks += len(answers)
        self.cost.check_ns += time.perf_counter_ns() - began
        return answers

    def note(self, index: NDArray[np.intp]) -> None:
        """These pages of the window are about to be marked for somebody else: what was accessed is kept."""
        answers, space = self._now(index)
        if space == self._space:
            self._lost[index] |= answers == ACCESSED

    def _now(self, index: NDArray[np.intp]) -> tuple[Answers, int]:
        """What the window says of these pages at the moment, and which address space that is."""
        usable, at_start, by_entry = self._usable[index], self._levels[index], self._by_entry[index]
        here = usable & (at_start >= LEVEL_4K)
        answers: Answers = np.full(len(index), UNKNOWN, np.uint8)
        # The bits first: a page that is in its frame after that was there when its bit was read.
        asked = np.flatnonzero(here & ~by_entry)
        if len(asked):
            idle, known = self._watch.bitmap.read(self._heads[index[asked]])
            answers[asked] = np.where(known, np.where(idle, NOT_ACCESSED, ACCESSED), UNKNOWN)
        frames, levels, young, space = self._places.look(self._addresses[index])
        by_entry &= here
        answers[by_entry] = np.where(young[by_entry], ACCESSED, NOT_ACCESSED)
        answers[here & ((levels < LEVEL_4K) | (frames != self._frames[index]))] = UNKNOWN
        absent = usable & (at_start == LEVEL_ABSENT)
        answers[absent & (levels == LEVEL_ABSENT)] = NOT_ACCESSED
        answers[absent & (levels >= LEVEL_4K)] = ACCESSED
        return answers, space

    def young(self, addresses: Addresses, heads: Frames) -> Flags:
        """Whether each page was accessed since it was last marked; ``heads`` are the first frames of their folios."""
        if self._tables:
            return self._places.look(addresses)[2]
        return _not_idle(self._watch, heads)

    def make_old(self, addresses: Addresses, heads: Frames) -> None:
        """Mark the folios that begin at ``heads`` as idle; ends the window of observation."""
        self._watch.mark_heads(heads, np.ones(len(heads), np.bool_))

    def update(self) -> None:
        """The process may have executed another program, memory may have been added."""
        self._places.update()
        if self.panel is not None:
            self.panel.window.update()
        self._watch.refresh()

    def close(self) -> None:
        """Release what this opened; the process, a shared walk and a shared watch stay open."""
        if self.panel is not None:
            self.panel.close()
            self.panel = None
        self._places.close()
        if self._owns_watch:
            self._watch.close()

    def _open(self, addresses: Addresses) -> tuple[Frames, Levels, Frames, Flags, Flags]:
        """Mark the pages' frames as idle, unless their page-table entry answers and shows no access.

        Returns frames, levels, the frames that answer, whether the entry does instead, and which pages are usable. At
        most one call of its own for each page, to write to the bitmap; where frames can only be looked at through
        /proc/kpageflags, one more, and ten for one inside a folio.
        """
        began, cleared = time.perf_counter_ns(), self.cost.clear_ns
        frames, levels, young, space = self._places.look(addresses)
        if not self._space:
            self._space = space
        usable = levels != LEVEL_UNKNOWN
        heads = frames.copy()
        by_entry = np.full(len(frames), self._tables)
        marked = np.flatnonzero(levels >= LEVEL_4K if self._knows_heads else (levels >= LEVEL_4K) & young)
        if len(marked):
            marking = time.perf_counter_ns()
            heads[marked], kinds = self._watch.look(frames[marked])
            if self._knows_heads:
                own = by_entry[marked] | ((kinds & np.uint8(OWN)) != 0)
                by_entry[marked] = own
                needed = ~own | young[marked]
                marked, kinds = marked[needed], kinds[needed]
            states = self._watch.mark_heads(heads[marked], (kinds & np.uint8(LISTED)) != 0)
            usable[marked] = states == MARKED
            spent = time.perf_counter_ns() - marking
            self.cost.clears += int(np.count_nonzero(states == MARKED))
            self.cost.clear_ns += spent
            self.cost.disturb_ns += int(spent * _MARK_DISTURBS)
        self.cost.check_ns += time.perf_counter_ns() - began - (self.cost.clear_ns - cleared)
        return frames, levels, heads, by_entry, usable


def opener(shared: Shared) -> Callable[[Process], IdlePrimitive]:
    """What opens ``idle`` for one process. Raises MachineError."""
    from pydamon.primitives.bpf import walk_if_possible

    walk = walk_if_possible(shared)
    watch = shared.keep(FrameWatch(pages=_pages_if_possible(shared, walk)))
    return lambda process: IdlePrimitive(process, walk, watch=watch)


def opener_by_tables(shared: Shared) -> Callable[[Process], IdlePrimitive]:
    """What opens ``bpf+idle`` for one process. Raises MachineError."""
    from pydamon.primitives.bpf import PageTableWalk

    walk = shared.keep(PageTableWalk())
    watch = shared.keep(FrameWatch(pages=_pages_if_possible(shared, walk)))
    return lambda process: IdlePrimitive(process, walk, watch=watch, tables=True)


def _pages_if_possible(shared: Shared, walk: PageTableWalk | None) -> StructPages | None:
    """What looks at many frames in one call; None where the kernel does not let it."""
    from pydamon.primitives.struct_pages import StructPages

    try:
        return None if walk is None else shared.keep(StructPages(walk))
    except MachineError:
        return None


class IdleFrames:
    """Watches the machine's page frames (implements `Primitive`; addresses are physical, in bytes).

    As in the kernel's DAMON, a frame that is free or not on an LRU list counts as not accessed. Raises MachineError
    where it cannot work.
    """

    name = "idle"

    def __init__(self, watch: FrameWatch | None = None) -> None:
        self.cost = PrimitiveCost()
        self._shared = Shared()
        if watch is None:
            from pydamon.primitives.bpf import walk_if_possible

            try:
                pages = _pages_if_possible(self._shared, walk_if_possible(self._shared))
                watch = self._shared.keep(FrameWatch(pages=pages))
            except BaseException:
                self._shared.close()
                raise
        self._watch = watch
        self._frames: Frames = np.empty(0, np.uint64)
        self._heads: Frames = np.empty(0, np.uint64)
        self._states: NDArray[np.uint8] = np.empty(0, np.uint8)

    @property
    def trouble(self) -> str | None:
        """One line if the kernel refused to read or write the bitmap although it could be opened."""
        return self._watch.bitmap.trouble

    def prepare(self, addresses: Addresses) -> Flags:
        """Open a window of observation on the frames at ``addresses`` (bytes; uint64, shape (n,)).

        Returns False where the kernel knows no such frame or refuses.
        """
        self._frames = np.array(addresses, np.uint64) >> _PAGE_SHIFT
        self._heads, self._states = self._mark(self._frames)
        flags: Flags = self._states != UNMARKABLE
        return flags

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> Flags:
        """Exchange frames of the last `prepare`; returns their flags likewise."""
        frames = np.array(addresses, np.uint64) >> _PAGE_SHIFT
        self._frames[index] = frames
        self._heads[index], self._states[index] = self._mark(frames)
        flags: Flags = self._states[index] != UNMARKABLE
        return flags

    def check(self) -> Answers:
        """Whether each frame was accessed since: NOT_ACCESSED, ACCESSED or UNKNOWN; shape (n,).

        A bit that is off says "accessed" only if the frame is on an LRU list now: freeing a page takes its bit
        away, and a page that was allocated meanwhile begins without one. One system call for 1,024 frames, and one for
        each that is marked and to be asked through the bitmap; without BPF one more for each that is not idle.
        """
        began = time.perf_counter_ns()
        answers = self._by_flags() if self._watch.pages is None else self._by_look()
        self.cost.checks += len(answers)
        self.cost.check_ns += time.perf_counter_ns() - began
        return answers

    def _by_flags(self) -> Answers:
        """The bitmap first, for it is costly to look at frames: only those that are not idle any more."""
        answers: Answers = np.full(len(self._frames), NOT_ACCESSED, np.uint8)
        answers[self._states == UNMARKABLE] = UNKNOWN
        marked = np.flatnonzero(self._states == MARKED)
        idle, known = self._watch.bitmap.read(self._heads[marked])
        answers[marked[~known]] = UNKNOWN
        ask = np.sort(np.concatenate([marked[known & ~idle], np.flatnonzero(self._states == UNLISTED)]))
        if len(ask):
            _, listed = self._watch.locate(self._frames[ask])
            answers[ask[listed]] = ACCESSED
        return answers

    def _by_look(self) -> Answers:
        """Look at all frames first: the bitmap is read for those only that nothing else tells about."""
        heads, kinds = self._watch.look(self._frames)
        listed = (kinds & np.uint8(LISTED)) != 0
        young = (kinds & np.uint8(YOUNG)) != 0
        answers: Answers = np.full(len(self._frames), NOT_ACCESSED, np.uint8)
        marked = self._states == MARKED
        # What is not idle although it was marked was accessed, or it is another page by now; so is what was unlisted.
        idle = marked & (heads == self._heads) & ((kinds & np.uint8(IDLE)) != 0)
        answers[listed & ~idle] = ACCESSED
        answers[self._states == UNMARKABLE] = UNKNOWN
        own = (kinds & np.uint8(OWN)) != 0
        watched = (self._states == BY_ENTRY) | (idle & own)
        answers[watched] = np.where(young[watched], ACCESSED, NOT_ACCESSED)
        # Mapped by several by now, or freed: the entry that would tell is not known any more.
        answers[(self._states == BY_ENTRY) & listed & ~own] = UNKNOWN
        asked = np.flatnonzero(idle & listed & ~own)
        if len(asked):
            still, known = self._watch.bitmap.read(self._heads[asked])
            answers[asked] = np.where(known, np.where(still, NOT_ACCESSED, ACCESSED), UNKNOWN)
        return answers

    def young(self, addresses: Addresses, heads: Frames) -> Flags:
        """Whether each frame was accessed since it was last marked; ``heads`` are the first frames of their folios."""
        return _not_idle(self._watch, heads)

    def make_old(self, addresses: Addresses, heads: Frames) -> None:
        """Mark the folios that begin at ``heads`` as idle; ends the window of observation."""
        self._watch.bitmap.mark(heads)

    def update(self) -> None:
        """Memory may have been added."""
        self._watch.refresh()

    def close(self) -> None:
        """Release what this opened; a shared watch stays open."""
        self._shared.close()

    def _mark(self, frames: Frames) -> tuple[Frames, NDArray[np.uint8]]:
        """The frames that answer, and UNMARKABLE, UNLISTED, MARKED or BY_ENTRY. At most one call of its own for each
        frame, to write to the bitmap; without BPF one more, and ten for one inside a folio."""
        began = time.perf_counter_ns()
        heads, kinds = self._watch.look(frames)
        quiet = (kinds & np.uint8(OWN | YOUNG)) == OWN
        states = self._watch.mark_heads(heads, ((kinds & np.uint8(LISTED)) != 0) & ~quiet)
        states[quiet] = BY_ENTRY
        spent = time.perf_counter_ns() - began
        self.cost.clears += int(np.count_nonzero(states == MARKED))
        self.cost.clear_ns += spent
        self.cost.disturb_ns += int(spent * _MARK_DISTURBS)
        return heads, states


def _not_idle(watch: FrameWatch, heads: Frames) -> Flags:
    idle, known = watch.bitmap.read(heads)
    young: Flags = known & ~idle & (heads != 0)
    return young


class _Walked:
    """Where a process's pages are, by a walk of its page tables."""

    def __init__(self, pid: int, walk: Walk) -> None:
        self._pid = pid
        self._walk = walk
        self._saw_unknown = False

    def look(self, addresses: Addresses) -> tuple[Frames, Levels, Flags, int]:
        """Frame (of a huge page its first), level, accessed bit of each page, and which address space that was."""
        entries, levels, space = self._walk.walk_space(self._pid, addresses)
        if not levels.all():
            self._saw_unknown = True
        mapped = levels >= LEVEL_4K
        frames = np.where(mapped, self._walk.frames(entries), np.uint64(0))
        # Bit 12 of a large entry is no part of the address.
        if np.count_nonzero(levels > LEVEL_4K):
            frames[levels == LEVEL_2M] &= ~_IN_2M
            frames[levels == LEVEL_1G] &= ~_IN_1G
        young: Flags = mapped & self._walk.accessed(entries)
        return frames, levels, young, space

    def update(self) -> None:
        if self._saw_unknown:
            self._saw_unknown = False
            self._walk.refresh()

    def close(self) -> None:
        """The walk belongs to somebody else."""


class _Mapped:
    """Where a process's pages are, by its pagemap; it tells neither large pages nor accessed bits."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._pagemap: pagemap.Pagemap | None = pagemap.Pagemap(pid)

    def look(self, addresses: Addresses) -> tuple[Frames, Levels, Flags, int]:
        """Like `_Walked.look`. The address space is the one of the open file, which tells nothing after an exec."""
        count = len(addresses)
        nothing = np.zeros(count, np.bool_)
        if self._pagemap is None:
            return np.zeros(count, np.uint64), np.full(count, LEVEL_UNKNOWN, np.uint8), nothing, 0
        entries, known = self._pagemap.entries(addresses)
        frames = pagemap.frames_of(entries)
        levels = np.where(pagemap.is_present(entries), np.uint8(LEVEL_4K), np.uint8(LEVEL_ABSENT))
        # A frame number that is hidden (0) says nothing.
        levels[~known | ((levels == LEVEL_4K) & (frames == 0))] = LEVEL_UNKNOWN
        return frames, levels, nothing, 1

    def update(self) -> None:
        self.close()
        try:
            self._pagemap = pagemap.Pagemap(self._pid)
        except MachineError:  # it has ended, or may not be looked at any more; the operations set finds that out
            self._pagemap = None

    def close(self) -> None:
        if self._pagemap is not None:
            self._pagemap.close()
        self._pagemap = None
