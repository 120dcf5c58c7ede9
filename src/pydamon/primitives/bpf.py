"""The `bpf` primitive: the accessed bits of a process's page-table entries, read by a BPF program.

Reading costs 0.02 µs a page; clearing is what costs (`pydamon.primitives.clearing`), so a page is cleared only if
the walk shows its bit set. Needs x86-64 or arm64 (`page_tables`), BTF, Linux 6.4 and root.

What it cannot tell: pages that the kernel maps around a page fault are born with the bit set; a huge page has one bit
for its 2 MiB; accesses of the kernel through other mappings (write(2) of page cache, DMA) set none.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import bpf_syscall
from pydamon.linux.causes import cause
from pydamon.linux.cpu import first_cpu
from pydamon.linux.frames import Flags, Frames
from pydamon.linux.process import Process
from pydamon.linux.texts import read_text
from pydamon.linux.word_files import Addresses
from pydamon.primitives import bpf_program as program
from pydamon.primitives import kept_facts, page_tables
from pydamon.primitives.base import ACCESSED, UNKNOWN, Answers, PrimitiveCost, Shared
from pydamon.primitives.bpf_answers import answer
from pydamon.primitives.bpf_panel import BeforeClear, PanelPages, inside
from pydamon.primitives.clearing import WHOLE, Clearer, Entries, Levels
from pydamon.primitives.kernel_reader import KernelReader
from pydamon.primitives.page_tables import LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN

_PAGE = 4096
_GIB = 1 << 30
_INITIAL_PID_NAMESPACE = "pid:[4026531836]"  # PROC_PID_INIT_INO
_CALIBRATION_PAGES = 16
_LINES = re.MULTILINE | re.DOTALL
_PAGEMAP_FRAME = np.uint64((1 << 55) - 1)


class PageTableWalk:
    """Reads page-table entries of any process. One serves the whole machine; it may be used from several threads.

    Set up in about 60 ms. Raises MachineError where it cannot work, with the reason and what would enable it.
    """

    def __init__(self) -> None:
        self.users = 0  # primitives that are open with it
        cpuinfo = _first_cpu()
        self.tables = page_tables.of_this_machine(cpuinfo)
        facts = kept_facts.of_this_kernel()[0]
        if not facts.by_namespace and os.readlink("/proc/self/ns/pid") != _INITIAL_PID_NAMESPACE:
            raise bpf_syscall.unusable(
                "inside a pid namespace (container) it needs the kfunc bpf_task_from_vpid of Linux 6.14; run it outside"
            )
        self._address_bits = page_tables.physical_address_bits(self.tables, cpuinfo)
        # Set bits above the physical address (memory encryption, protection keys, no-execute) are no part of it.
        self._frame_mask = np.uint64((1 << self._address_bits) - _PAGE)
        self._lock = threading.Lock()
        self._loaded = loaded = bpf_syscall.Loaded(
            program.VALUE_SIZE, lambda map_fd: program.page_table_walk(facts, self.tables, map_fd)
        )
        try:
            memory, self._run = loaded.memory, loaded.run
            self._words = np.frombuffer(memory, np.uint32, program.ADDRESSES_AT // 4)
            self._longs = np.frombuffer(memory, np.uint64, program.ADDRESSES_AT // 8)
            self._addresses = np.frombuffer(memory, np.uint64, program.BATCH, program.ADDRESSES_AT)
            self._entries = np.frombuffer(memory, np.uint64, program.BATCH, program.ENTRIES_AT)
            self._levels = np.frombuffer(memory, np.uint8, program.BATCH, program.LEVELS_AT)
            self._longs[program.MASK_AT // 8] = self._frame_mask
            self.refresh()
            self.direct_map_base = self._calibrate()
        except BaseException:
            self.close()
            raise

    def walk(self, pid: int, addresses: Addresses) -> tuple[Entries, Levels]:
        """The page-table entry of each address (bytes; uint64, shape (n,)) in that process.

        ``pid`` is a process id in this process's pid namespace. Returns the entries as the processor sees them (0 where
        there is none) and a LEVEL_ constant of `bpf_program` for each: LEVEL_UNKNOWN for all if there is no such
        process, if it has no address space, or exchanged it during the walk.
        """
        entries, levels, _ = self.walk_space(pid, addresses)
        return entries, levels

    def walk_space(self, pid: int, addresses: Addresses) -> tuple[Entries, Levels, int]:
        """Like `walk`; and a number that tells the address space, 0 if that is not known. exec changes it."""
        count = len(addresses)
        entries, levels = np.empty(count, np.uint64), np.empty(count, np.uint8)
        words, space = self._words, 0
        with self._lock:
            words[program.PID_AT // 4] = pid
            for begin in range(0, count, program.BATCH):
                size = min(program.BATCH, count - begin)
                words[program.COUNT_AT // 4] = size
                self._addresses[:size] = addresses[begin : begin + size]
                self._run()
                found = int(self._longs[program.PGD_AT // 8])
                if words[program.STATUS_AT // 4] != program.STATUS_OK or found != (space or found):
                    entries[:], levels[:] = 0, LEVEL_UNKNOWN
                    return entries, levels, 0
                space = found
                entries[begin : begin + size] = self._entries[:size]
                levels[begin : begin + size] = self._levels[:size]
        return entries, levels, space

    def frames(self, entries: Entries) -> Frames:
        """The page frame number in each entry of a mapped page; shape (n,)."""
        return self.tables.frames_of(entries, self._frame_mask)

    def accessed(self, entries: Entries) -> Flags:
        """Whether the accessed bit is set in each entry; shape (n,)."""
        return self.tables.accessed_of(entries)

    def refresh(self) -> None:
        """Read anew where physical memory ends: memory may have been added."""
        end = _end_of_memory() or 1 << self._address_bits
        self._longs[program.LIMIT_AT // 8] = end

    def memory_facts(self) -> tuple[int, int, int]:
        """Where the kernel maps physical address 0, the bits of an entry that are one, and where memory ends."""
        return self.direct_map_base, int(self._frame_mask), int(self._longs[program.LIMIT_AT // 8])

    def close(self) -> None:
        """Unload the program and release the map; no walk is possible any more."""
        with self._lock:
            # The memory can be released only when no array looks at it.
            self._words = np.empty(0, np.uint32)
            self._longs = self._addresses = self._entries = np.empty(0, np.uint64)
            self._levels = np.empty(0, np.uint8)
            self._loaded.close()

    def _calibrate(self) -> int:
        """Find at which virtual address the kernel maps physical address 0, and set it.

        It is a multiple of 1 GiB at or below the top table: the one with which the walk of our own pages finds the
        frames that our own pagemap shows; where it shows none (that takes CAP_SYS_ADMIN), frames that hold what we
        have written into these pages.
        """
        with own_pages(_CALIBRATION_PAGES) as start:
            addresses = np.arange(_CALIBRATION_PAGES, dtype=np.uint64) * np.uint64(_PAGE) + np.uint64(start)
            for _ in range(2):  # the kernel may move a page between the two looks at it
                frames = own_frames(start, _CALIBRATION_PAGES)
                if frames is None:
                    base = self._base_by_content(addresses, start)
                else:
                    base = self._base_for(addresses, _shows(frames))
                if base is not None:
                    return base
        raise bpf_syscall.unusable("the walk of this process's own pages does not find the frames that they are in")

    def _base_by_content(self, addresses: Addresses, start: int) -> int | None:
        words = np.frombuffer(os.urandom(8 * len(addresses)), np.uint64)
        for index, word in enumerate(words.tolist()):
            ctypes.c_uint64.from_address(start + index * _PAGE).value = word
        with contextlib.closing(KernelReader(kept_facts.of_this_kernel()[0])) as reader:

            def agrees(base: int, frames: Frames) -> bool:
                try:
                    return bool(reader.read([base + frame * _PAGE for frame in frames.tolist()]) == words.tolist())
                except LookupError:
                    return False

            return self._base_for(addresses, agrees)

    def _base_for(self, addresses: Addresses, agrees: Callable[[int, Frames], bool]) -> int | None:
        """The base with which the walk of our own ``addresses`` gives the right frames; None if there is none."""
        pid = os.getpid()
        top_table = self.walk_space(pid, addresses)[2]
        highest = top_table & -_GIB
        lowest = highest - int(self._longs[program.LIMIT_AT // 8]) if top_table else highest
        for base in range(highest, lowest, -_GIB):
            self._longs[program.BASE_AT // 8] = base
            entries, levels = self.walk(pid, addresses)
            if (levels == LEVEL_4K).all() and agrees(base, self.frames(entries)):
                return base
        return None


class BpfPrimitive:
    """Asks one process's page tables whether pages were accessed (implements `Primitive`).

    ``walk`` is shared with others if given, else one is set up, and closed with this. Raises MachineError where it
    cannot work.
    """

    name = "bpf"

    def __init__(self, process: Process, walk: PageTableWalk | None = None) -> None:
        self.cost = PrimitiveCost()
        self.process = process
        self._owns_walk = walk is None
        self.walk = walk = PageTableWalk() if walk is None else walk
        walk.users += 1
        self.clearer = Clearer(process, self._walk_process, walk.frames, self.cost, together=lambda: walk.users)
        self._saw_unknown = False
        # The window of observation: the pages, the level each had at its start, whether it says something.
        self._addresses: Addresses = np.empty(0, np.uint64)
        self._at_start: Levels = np.empty(0, np.uint8)
        self._usable: Flags = np.empty(0, np.bool_)
        self._lost: Flags = np.empty(0, np.bool_)  # accessed, and cleared for the panel since
        self._space = 0
        self.panel: PanelPages | None = None

    def watch_panel(self, pages: PanelPages) -> None:
        """Tell ``pages`` from now on what is cleared of this process."""
        self.panel = self.clearer.panel = pages

    def begin(self) -> None:
        """Clear all accessed bits once, if that is quick: old ones would make every page's first sample costly."""
        self.clearer.begin()

    def prepare(self, addresses: Addresses) -> Flags:
        """Open a window of observation on the pages of ``addresses`` (bytes; uint64, shape (n,)); it replaces the last.

        Returns False for a page that `check` could say nothing about: its accessed bit cannot be cleared (hugetlb and
        device memory, the zero page, pages shared with other processes more often than clearing them is worth) or
        cannot be read. A page that is not present is usable: it was accessed if it is there at the check.
        """
        self._addresses = np.array(addresses, np.uint64)
        self._lost = np.zeros(len(addresses), np.bool_)
        self._space = 0
        self._at_start, self._usable = self.open_windows(self._addresses, len(self._addresses))
        return self._usable.copy()

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> Flags:
        """Exchange pages of the last `prepare`: those at ``index`` for ``addresses``, both of shape (k,).

        Returns whether each new page is usable; the others keep their window.
        """
        addresses = np.array(addresses, np.uint64)
        self._addresses[index], self._lost[index] = addresses, False
        self._at_start[index], usable = self.open_windows(addresses, len(self._addresses))
        self._usable[index] = usable
        return usable

    def absent(self) -> Flags:
        """Which pages were not mapped to memory when their window was opened; shape (n,)."""
        flags: Flags = self._at_start == LEVEL_ABSENT
        return flags

    def check(self) -> Answers:
        """Whether each page was accessed since its window was opened: NOT_ACCESSED, ACCESSED or UNKNOWN; shape (n,).

        UNKNOWN for all if the process is gone or has executed another program.
        """
        began = time.perf_counter_ns()
        entries, levels, space = self._read(self._addresses)
        self.cost.checks += len(self._addresses)
        answers = answer(self._at_start, levels, self.walk.accessed(entries).view(np.uint8))
        answers[~self._usable] = UNKNOWN
        answers[self._lost] = ACCESSED
        # The pid meant this process during the walk only if it is still alive after it.
        if space != self._space or not self.process.alive():
            answers[:] = UNKNOWN
        self.cost.check_ns += time.perf_counter_ns() - began
        return answers

    def young(self, addresses: Addresses, heads: Frames) -> Flags:
        """Whether each page shows its accessed bit now, outside of any window; ``heads`` are not needed."""
        entries, levels, _ = self._read(addresses)
        return self._is_young(entries, levels)

    def make_old(self, addresses: Addresses, heads: Frames) -> None:
        """Clear the accessed bits of these pages where that is possible; ends the window of observation."""
        self.open_windows(addresses, len(self._addresses))

    def update(self) -> None:
        """The process's mappings may have changed."""
        self.clearer.update()
        if self._saw_unknown:
            self._saw_unknown = False
            self.walk.refresh()

    def close(self) -> None:
        """Release what this opened; the process and a shared walk stay open."""
        self.clearer.close()
        self.panel = None
        self.walk.users -= 1
        if self._owns_walk:
            self.walk.close()

    def open_windows(self, addresses: Addresses, total: int) -> tuple[Levels, Flags]:
        """Clear the accessed bits of pages that show it, of ``total`` that are watched.

        Returns their levels after that, and which are usable.
        """
        began, cleared = time.perf_counter_ns(), self.cost.clear_ns
        entries, levels, space = self._read(addresses)
        if not self._space:
            self._space = space
        usable = levels != LEVEL_UNKNOWN
        young = np.flatnonzero(self._is_young(entries, levels))
        if len(young):
            done = self.clearer.clear(addresses[young], entries[young], levels[young])
            stuck = young[self._settle(addresses, levels, young, done)]
            if len(stuck) and not (done == WHOLE).any() and self.clearer.clear_stuck(len(stuck), total):
                before = len(stuck)
                stuck = stuck[self._settle(addresses, levels, stuck, np.full(before, WHOLE, np.uint8))]
                self.clearer.stuck_helped(before - len(stuck), before)
            usable[stuck] = False
            usable &= levels != LEVEL_UNKNOWN
        self.cost.check_ns += time.perf_counter_ns() - began - (self.cost.clear_ns - cleared)
        return levels, usable

    def read_now(self, addresses: Addresses) -> tuple[Entries, Levels, int, Flags]:
        """The entries of these pages, their levels, what tells the address space (0: gone), and which are young."""
        entries, levels, space = self._read(addresses)
        if space and not self.process.alive():  # the pid may have meant another process by then
            space, levels = 0, np.full(len(levels), LEVEL_UNKNOWN, np.uint8)
        return entries, levels, space, self._is_young(entries, levels)

    def open_alone(self, addresses: Addresses, entries: Entries, levels: Levels, before: BeforeClear) -> Flags:
        """Clear pages as they were read just now, never all of the process; sets their ``levels``.

        ``before`` is told the ranges that are cleared, which may be larger. Returns which pages are usable.
        """
        began, cleared = time.perf_counter_ns(), self.cost.clear_ns
        usable: Flags = levels != LEVEL_UNKNOWN
        young = np.flatnonzero(self._is_young(entries, levels))
        if len(young):
            done = self.clearer.clear_alone(addresses[young], entries[young], levels[young], before)
            usable[young[self._settle(addresses, levels, young, done)]] = False
            usable &= levels != LEVEL_UNKNOWN
        self.cost.checks += len(addresses)
        self.cost.check_ns += time.perf_counter_ns() - began - (self.cost.clear_ns - cleared)
        return usable

    def note_lost(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> None:
        """These ranges are about to be cleared for somebody else: what was accessed in an open window is kept."""
        index = np.flatnonzero(inside(self._addresses, starts, lengths) & self._usable & ~self._lost)
        if len(index):
            young = self.read_now(self._addresses[index])[3]
            self._lost[index[young]] = True

    def _settle(self, addresses: Addresses, levels: Levels, pages: NDArray[np.intp], done: NDArray[np.uint8]) -> Flags:
        """Walk ``pages`` again after a clear; sets their ``levels``. Returns which of them are stuck.

        A page that shows its bit again is stuck, unless it is of a kind that the clear surely reached: then the process
        accessed it in the meantime.
        """
        entries, levels[pages], _ = self._read(addresses[pages])
        again = np.flatnonzero(self._is_young(entries, levels[pages]))
        stuck = np.zeros(len(pages), np.bool_)
        if len(again):
            stuck[again] = ~self.clearer.certain(entries[again], levels[pages[again]], done[again])
        return stuck

    def _read(self, addresses: Addresses) -> tuple[Entries, Levels, int]:
        entries, levels, space = self.walk.walk_space(self.process.pid, addresses)
        if not levels.all():
            self._saw_unknown = True
        return entries, levels, space

    def _is_young(self, entries: Entries, levels: Levels) -> Flags:
        young: Flags = (levels >= LEVEL_4K) & self.walk.accessed(entries)
        return young

    def _walk_process(self, addresses: Addresses) -> tuple[Entries, Levels]:
        entries, levels, _ = self._read(addresses)
        return entries, levels


def probe() -> None:
    """Raise MachineError with the reason if this primitive does not work here. Takes 60 ms, leaves nothing behind."""
    PageTableWalk().close()


def opener(shared: Shared) -> Callable[[Process], BpfPrimitive]:
    """What opens it for one process; one program serves all processes. Raises MachineError."""
    walk = shared.keep(PageTableWalk())

    shared.tables = walk

    def open_one(process: Process) -> BpfPrimitive:
        primitive = BpfPrimitive(process, walk)
        if shared.clears_first:
            primitive.begin()
        return primitive

    return open_one


def walk_if_possible(shared: Shared) -> PageTableWalk | None:
    """A walk that is shared, for those that go faster with one; None where none can be opened."""
    try:
        return shared.keep(PageTableWalk())
    except MachineError:
        return None


def _first_cpu() -> str:
    try:
        return first_cpu()
    except OSError as error:
        raise bpf_syscall.unusable(f"cannot read /proc/cpuinfo: {cause(error, missing='mount /proc')}") from None


def _end_of_memory() -> int:
    """Where physical memory ends, in bytes; 0 if neither /proc/iomem (to root) nor /proc/zoneinfo tells."""
    ends, spans = [], []
    with contextlib.suppress(OSError):
        ends = re.findall(r"^ *[0-9a-f]+-([0-9a-f]+) : System RAM", read_text("/proc/iomem"), re.MULTILINE)
    end = max((int(text, 16) for text in ends), default=0)
    if end:
        return end + 1
    with contextlib.suppress(OSError):
        spans = re.findall(r"^ +spanned +(\d+)$.*?^ +start_pfn: +(\d+)$", read_text("/proc/zoneinfo"), _LINES)
    return max(((int(first) + int(pages)) * _PAGE for pages, first in spans if int(pages)), default=0)


def _shows(frames: Frames) -> Callable[[int, Frames], bool]:
    return lambda base, found: np.array_equal(found, frames)


@contextlib.contextmanager
def own_pages(count: int) -> Iterator[int]:
    """Fresh anonymous memory of this process, ``count`` pages that are there; yields their address."""
    with mmap.mmap(-1, count * _PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        with contextlib.suppress(OSError):  # a kernel without huge pages knows no such advice
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        for page in range(count):
            memory[page * _PAGE] = 1
        view = ctypes.c_char.from_buffer(memory)
        start = ctypes.addressof(view)
        del view  # or the memory cannot be closed
        yield start


def own_frames(start: int, count: int) -> Frames | None:
    """The frame numbers of this process's pages from address ``start``; None if its pagemap does not show them to us.

    Raises MachineError if there is none.
    """
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        why = cause(error, missing="it needs a kernel with CONFIG_PROC_PAGE_MONITOR")
        raise bpf_syscall.unusable(f"cannot read /proc/self/pagemap: {why}") from None
    try:
        frames = np.frombuffer(os.pread(fd, 8 * count, start // _PAGE * 8), np.uint64) & _PAGEMAP_FRAME
    finally:
        os.close(fd)
    return frames if len(frames) == count and frames.all() else None
