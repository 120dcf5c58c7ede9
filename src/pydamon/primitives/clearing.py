"""How the accessed bits of another process's page-table entries are cleared, at the lowest cost.

Two ways, with what was measured on a 2-CPU virtual machine, Linux 6.18:

- process_madvise(MADV_COLD) of single pages: 1 to 3 µs a page, 10 to 50 µs if the process runs on another CPU just
  then, since the processor's cached translation is dropped there. It skips pages that several processes map or that are
  not on an LRU list (yet: those faulted in last on another CPU), refuses mappings that are locked, hugetlb or
  PFN-mapped, and moves the page to the inactive list.
- `clear_refs` of the whole process: 26 ms per GiB resident, whatever was asked for. It skips hugetlb, PFN-mapped and
  zero pages only. On kernels that track soft-dirty it drops no cached translation, so accesses to pages that stay in
  the TLB go unseen for a while (as with the kernel's own DAMON): of a loop over 64 pages, half were missed after 20 ms.
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from bisect import bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, PydamonError
from pydamon.linux import clear_refs
from pydamon.linux.footprint import resident_pages
from pydamon.linux.frames import Flags, FrameInfo, Frames, is_large, is_ordinary, on_lru
from pydamon.linux.process import Process
from pydamon.linux.word_files import Addresses
from pydamon.primitives.base import PrimitiveCost
from pydamon.primitives.bpf_panel import BeforeClear, PanelPages
from pydamon.primitives.page_tables import LEVEL_1G, LEVEL_2M, LEVEL_4K, LEVEL_UNKNOWN
from pydamon.spans import places_of_distinct

Entries = NDArray[np.uint64]
Levels = NDArray[np.uint8]

# What `Clearer.clear` did for a page.
NOT_CLEARED = 0  # or not surely
ADVISED = 1  # MADV_COLD went over it; it skips pages that are mapped elsewhere, too
WHOLE = 2  # clear_refs went over it

_PAGE = 4096
_HUGE = 2 << 20

_SYS_PROCESS_MADVISE = 440
_MADV_COLD = 20
_IOV_MAX = 1024
_IOVEC = np.dtype([("base", np.uint64), ("length", np.uint64)])

_SECOND = 1_000_000_000
_FIRST_NS_PER_BYTE = 26e6 / (1 << 30)  # clear_refs, until it was measured here
_FIRST_NS_PER_RANGE = 5000.0  # MADV_COLD, likewise
_WHOLE_FIXED_NS = 20_000.0
_MISSING_ADVANTAGE = 4.0  # clear_refs must be this much cheaper to be preferred where it misses accesses
_PROBE_EVERY_NS = 10 * _SECOND  # while clear_refs is preferred: measure MADV_COLD on a few ranges
_PROBE_RANGES = 16
_FORGET_NS = 60 * _SECOND  # a measurement of clear_refs this old makes room for the first estimate
_BEGIN_NS = 150_000_000  # the longest clear_refs of a whole process to begin with
_STUCK_SHARE = 0.01  # of wall time, for clear_refs on behalf of pages that MADV_COLD cannot clear
_FULLY_STUCK = 2  # that share is for a process half of which is stuck; less for one with fewer such pages
_LONG_NS = 5_000_000
_MAX_BACKOFF = 64.0
_REMEMBER_NS = 5 * _SECOND  # how long a mapping that refused MADV_COLD is not tried again
_REREAD_NS = _SECOND // 20  # mappings are read anew no sooner than this, nor than 100 times what reading took

# Share of the time inside clearing calls that the target loses: by how much the rate of a busy loop per CPU second
# drops in a process on the other CPU. MADV_COLD: 0.35 to 0.65 (interrupts that drop cached translations, filling them
# again). clear_refs: 0.01 to 0.3 for hot sets of 1 to 32 MiB (the processor sets the bits anew); page faults wait for
# its lock.
_ADVISE_DISTURBS = 0.5
_WHOLE_DISTURBS = 0.2

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_int,
    ctypes.c_uint,
)


class Estimate:
    """A moving average of measured nanoseconds per unit; the longer it was not renewed, the more a new one weighs."""

    def __init__(self, first: float) -> None:
        self.value = first
        self.at = time.perf_counter_ns()

    def add(self, sample: float) -> None:
        """Take a measurement in. One far above the estimate (the thread was preempted) counts for 8 times it."""
        now = time.perf_counter_ns()
        weight = min(1.0, 1 / 8 + (now - self.at) / _PROBE_EVERY_NS)
        self.value += weight * (min(sample, 8 * self.value) - self.value)
        self.at = now


class Clearer:
    """Clears accessed bits of one process and keeps account of what that costs.

    ``walk`` walks that process's page tables (addresses -> entries, levels); ``frames_of`` takes the frame numbers out
    of entries. ``cost`` is added to. ``together`` tells how many processes are monitored together with this one.
    """

    def __init__(
        self,
        process: Process,
        walk: Callable[[Addresses], tuple[Entries, Levels]],
        frames_of: Callable[[Entries], Frames],
        cost: PrimitiveCost,
        together: Callable[[], int] = lambda: 1,
    ) -> None:
        self.per_range = Estimate(_FIRST_NS_PER_RANGE)
        self.per_byte = Estimate(_FIRST_NS_PER_BYTE)
        self.stuck_share = _STUCK_SHARE
        self.panel: PanelPages | None = None  # is told what is cleared
        self._process = process
        self._walk = walk
        self._frames_of = frames_of
        self._cost = cost
        self._together = together
        self._info = FrameInfo()
        self._may_advise = True
        # Opened now, while the pid is known to be this process's: the descriptor never means another one.
        try:
            self._whole_fd = os.open(f"/proc/{process.pid}/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:  # no permission, or it has ended
            self._whole_fd = -1
        self._resident: int | None = None
        self._stuck_cleared = 0, 0.0  # when clear_refs was last used for stuck pages, and what it counts for, in ns
        self._backoff = 1.0
        self._mappings: tuple[list[int], list[int]] = ([], [])  # starts and ends, as last read
        self._reread_from = self._forget_from = 0
        self._refused = np.empty((0, 2), np.uint64)  # mappings that refuse MADV_COLD, sorted

    def clear(self, addresses: Addresses, entries: Entries, levels: Levels) -> NDArray[np.uint8]:
        """Clear the accessed bits of these pages in the cheaper way.

        All arrays have shape (n,); entries and levels are of mapped pages, as the walk read them just now. Returns
        NOT_CLEARED, ADVISED or WHOLE for each page. Others may be cleared with them: the rest of a page's folio, or all
        of the process. Raises MachineError if this user may clear in neither way.
        """
        count = len(addresses)
        whole = self._whole_is_cheaper(count - int(np.count_nonzero(self._in_refused(addresses))))
        if whole:
            due = time.perf_counter_ns() - self.per_range.at > _PROBE_EVERY_NS
            count = _PROBE_RANGES if due else 0
        if self._may_advise and count:
            starts, lengths, index, listed = self._ranges(addresses[:count], entries[:count], levels[:count])
            accepted = np.append(self._advise(starts, lengths), False)
            if self._may_advise and not whole:
                # An index of -1 (no range) finds the False that was appended.
                return np.where(accepted[index] & listed, np.uint8(ADVISED), np.uint8(NOT_CLEARED))
        done = self._clear_whole()
        if not self._may_advise and self._whole_fd < 0 and self._process.alive():
            raise MachineError(
                f"no permission to clear accessed bits of process {self._process.pid}; "
                "run as root, or as its owner, or with CAP_SYS_NICE and CAP_SYS_PTRACE",
                where="bpf",
            )
        return np.full(len(addresses), WHOLE if done else NOT_CLEARED, np.uint8)

    def clear_alone(
        self, addresses: Addresses, entries: Entries, levels: Levels, before: BeforeClear
    ) -> NDArray[np.uint8]:
        """As `clear`, but never all of the process; ``before`` is told the ranges. NOT_CLEARED or ADVISED for each."""
        starts, lengths, index, listed = self._ranges(addresses, entries, levels)
        before(starts, lengths)
        if not self._may_advise:
            return np.full(len(addresses), NOT_CLEARED, np.uint8)
        accepted = np.append(self._advise(starts, lengths), False)
        return np.where(accepted[index] & listed, np.uint8(ADVISED), np.uint8(NOT_CLEARED))

    def begin(self) -> None:
        """Clear all of the process once, if that takes no more than 0.15 s (about 6 GiB).

        Pages keep the bit from when they were first touched. Without this, each would be cleared on its own when it is
        first sampled: the larger the process, the longer that goes on. A larger process is not made to wait for it.
        """
        if self.per_byte.value * self._resident_bytes() <= _BEGIN_NS:
            self._clear_whole()

    def clear_stuck(self, stuck: int, total: int) -> bool:
        """Go over the whole process because ``stuck`` of ``total`` pages resist MADV_COLD; whether it was done.

        Not done before `stuck_due_ns`.
        """
        due_ns = self.stuck_due_ns(stuck, total)
        began = time.perf_counter_ns()
        if due_ns is None or began < due_ns or not self._clear_whole():
            return False
        ended = time.perf_counter_ns()
        # Where it takes long, the stuck pages are shared ones, a small part of such a process: half as often.
        weight = self._backoff * (2 if ended - began > _LONG_NS else 1)
        self._stuck_cleared = ended, (ended - began) * weight
        return True

    def stuck_due_ns(self, stuck: int, total: int) -> int | None:
        """From when on `clear_stuck` may do something, by time.perf_counter_ns(); None where it does not: under 2 %.

        It takes no more than `stuck_share` of wall time for one process, or twice that for all that are monitored
        together; half of that where it takes long; and the less, the fewer pages there are that need it.
        """
        if stuck * 50 < total:
            return None
        ended, counted = self._stuck_cleared
        share = self.stuck_share / max(1.0, self._together() / 2) * min(1.0, _FULLY_STUCK * stuck / max(total, 1))
        return ended + int(counted / share)

    def stuck_helped(self, freed: int, stuck: int) -> None:
        """Tell how many of the ``stuck`` pages the last `clear_stuck` helped: if hardly any, it is done less often."""
        self._backoff = 1.0 if freed * 10 >= stuck else min(2 * self._backoff, _MAX_BACKOFF)

    def advise(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> Flags:
        """MADV_COLD these ranges, which need not be looked at before; which were accepted, shape (n,)."""
        return self._advise(starts, lengths)

    @property
    def may_advise(self) -> bool:
        """False once the kernel has said that it, or this user, may not advise the process."""
        return self._may_advise

    @property
    def refused(self) -> NDArray[np.uint64]:
        """Mappings that are known to refuse MADV_COLD: start and end in bytes, sorted; shape (n, 2)."""
        return self._refused

    def within_mappings(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> Flags:
        """Whether each range lies within one mapping, as far as the mappings are known; shape (n,)."""
        inside = np.zeros(len(starts), np.bool_)
        for at, (start, length) in enumerate(zip(starts.tolist(), lengths.tolist(), strict=True)):
            mapping = self._mapping_of(start)
            inside[at] = mapping is not None and start + length <= mapping[1]
        return inside

    def certain(self, entries: Entries, levels: Levels, done: NDArray[np.uint8]) -> Flags:
        """For pages that show their bit after a clear: whether it was surely cleared, so that they were accessed since.

        Shape (n,) each; ``done`` is what `clear` returned. The other pages are stuck: their bit says nothing.
        """
        frames = self._frames_of(entries)
        flags = self._info.flags(frames)
        certain: Flags = is_ordinary(flags) & (done != NOT_CLEARED)
        large = is_large(flags)
        # MADV_COLD skips folios that are mapped elsewhere as well, in whole or in part.
        for at in np.flatnonzero(certain & (done == ADVISED)).tolist():
            first, count = int(frames[at]), 1
            if levels[at] == LEVEL_2M:
                count = _HUGE // _PAGE
                first &= -count
            elif large[at]:
                first, count = self._info.folio(first)
            certain[at] = self._info.mapped_once(first, count)
        return certain

    def update(self) -> None:
        """The process's mappings or its resident size may have changed."""
        self._resident = None
        if time.perf_counter_ns() >= self._forget_from:
            self._mappings = [], []
            self._refused = self._refused[:0]

    def close(self) -> None:
        """Release the file descriptors, and who this belongs to: a ring of objects is garbage that stays for long."""
        self._walk, self.panel = _walk_nothing, None
        self._info.close()
        if self._whole_fd >= 0:
            os.close(self._whole_fd)
            self._whole_fd = -1

    def _ranges(
        self, addresses: Addresses, entries: Entries, levels: Levels
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.intp], Flags]:
        """Ranges to advise (starts, lengths); for each page the index of its range or -1, and if an LRU list has it."""
        size = np.where(levels == LEVEL_2M, np.uint64(_HUGE), np.uint64(_PAGE))
        start = addresses & ~(size - np.uint64(1))
        possible = (levels < LEVEL_1G) & ~self._in_refused(addresses)
        frames = self._frames_of(entries)
        flags = self._info.flags(frames)
        listed = on_lru(flags)
        large = np.flatnonzero(possible & (levels == LEVEL_4K) & is_large(flags))
        if len(large):
            self._widen(large, frames[large], start, size, possible)
        elif possible.all() and not (levels == LEVEL_2M).any():  # the usual case: single pages
            return start, size, np.arange(len(start)), listed
        chosen = np.flatnonzero(possible)
        starts, first, inverse = places_of_distinct(start[chosen])
        index = np.full(len(addresses), -1, np.intp)
        index[chosen] = inverse
        return starts, size[chosen][first], index, listed

    def _widen(
        self,
        pages: NDArray[np.intp],
        frames: Frames,
        start: NDArray[np.uint64],
        size: NDArray[np.uint64],
        possible: Flags,
    ) -> None:
        """Widen the ranges of ``pages`` to their folios: advice on a part of a folio would split it.

        Where that cannot be avoided the page becomes impossible: if the folio is not mapped as a whole and in order,
        or reaches out of the mapping or out of the 2 MiB of one page table, where the kernel takes it for a part.
        """
        folios = np.array(self._folios(frames.tolist()), np.uint64)
        start[pages] -= (frames - folios[:, 0]) * np.uint64(_PAGE)
        size[pages] = folios[:, 1] * np.uint64(_PAGE)
        begin, at, inverse = places_of_distinct(start[pages])
        span, first, count = size[pages][at], folios[at, 0], folios[at, 1].astype(np.intp)
        # Walk all pages of all folios at once: each must be mapped where its place in the folio says.
        before = np.cumsum(count) - count
        offset = (np.arange(count.sum()) - np.repeat(before, count)).astype(np.uint64)
        entries, levels = self._walk(np.repeat(begin, count) + offset * np.uint64(_PAGE))
        mapped = (levels == LEVEL_4K) & (self._frames_of(entries) == np.repeat(first, count) + offset)
        whole = np.logical_and.reduceat(mapped, before)
        whole &= begin // np.uint64(_HUGE) == (begin + span - np.uint64(1)) // np.uint64(_HUGE)
        for folio in np.flatnonzero(whole).tolist():
            mapping = self._mapping_of(int(begin[folio]))
            whole[folio] = mapping is not None and int(begin[folio] + span[folio]) <= mapping[1]
        possible[pages] = whole[inverse]

    def _folios(self, frames: list[int]) -> list[tuple[int, int]]:
        """The folio of each frame. Neighbours are often of one folio: it is looked up once."""
        folios: list[tuple[int, int]] = []
        first = count = 0
        for frame in frames:
            if not first <= frame < first + count:
                first, count = self._info.folio(frame)
            folios.append((first, count))
        return folios

    def _advise(self, starts: NDArray[np.uint64], lengths: NDArray[np.uint64]) -> Flags:
        """MADV_COLD each range; whether it was accepted. What is refused is left out, and its mapping remembered."""
        if self.panel is not None:
            self.panel.before_clear(starts, lengths)
        accepted = np.zeros(len(starts), np.bool_)
        todo = np.arange(len(starts))
        began = time.perf_counter_ns()
        while len(todo):
            part = todo[:_IOV_MAX]
            vectors = np.empty(len(part), _IOVEC)
            vectors["base"], vectors["length"] = starts[part], lengths[part]
            advised = _syscall(_SYS_PROCESS_MADVISE, self._process.pidfd, vectors.ctypes.data, len(part), _MADV_COLD, 0)
            if advised <= 0:  # the first range was refused
                todo = self._behind_refused(todo, starts, ctypes.get_errno())
                continue
            good = int(np.searchsorted(np.cumsum(lengths[part]), advised, side="right"))
            accepted[part[:good]] = True
            todo = todo[good:]
        spent = time.perf_counter_ns() - began
        pages = int(np.count_nonzero(accepted))
        if pages:
            self.per_range.add(spent / len(starts))
        self._account(pages, spent, _ADVISE_DISTURBS)
        return accepted

    def _behind_refused(self, todo: NDArray[np.intp], starts: NDArray[np.uint64], number: int) -> NDArray[np.intp]:
        """What is left to advise after the first of ``todo`` was refused with that errno."""
        if number in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            self._may_advise = False
            return todo[:0]
        if number == errno.ESRCH:  # it is exiting
            return todo[:0]
        if number == errno.EINVAL and self._remember_mapping(int(starts[todo[0]])):
            return todo[~self._in_refused(starts[todo])]
        return todo[1:]  # ENOMEM: unmapped by now

    def _remember_mapping(self, address: int) -> bool:
        """Remember that the mapping at ``address`` refuses advice; False if there is none that is known."""
        mapping = self._mapping_of(address)
        if mapping is None:
            return False
        refused = np.vstack((self._refused, np.array([mapping], np.uint64)))
        self._refused = refused[np.argsort(refused[:, 0])]
        return True

    def _mapping_of(self, address: int) -> tuple[int, int] | None:
        """Start and end of the mapping that holds ``address``; None if there is none, or it is too new."""
        for _ in range(2):
            starts, ends = self._mappings
            at = bisect_right(starts, address) - 1
            if at >= 0 and address < ends[at]:
                return starts[at], ends[at]
            began = time.perf_counter_ns()
            if began < self._reread_from:
                break
            try:
                mappings = self._process.mappings()
            except PydamonError:
                mappings = []
            self._mappings = [m.start for m in mappings], [m.end for m in mappings]
            now = time.perf_counter_ns()
            self._reread_from = now + max(_REREAD_NS, 100 * (now - began))
            self._forget_from = now + max(_REMEMBER_NS, 100 * (now - began))
        return None

    def _in_refused(self, addresses: Addresses) -> Flags:
        if not len(self._refused):
            return np.zeros(len(addresses), np.bool_)
        at = np.searchsorted(self._refused[:, 0], addresses, side="right") - 1
        inside: Flags = (at >= 0) & (addresses < self._refused[at, 1])
        return inside

    def _whole_is_cheaper(self, ranges: int) -> bool:
        if self._whole_fd < 0 or not ranges:
            return False
        if time.perf_counter_ns() - self.per_byte.at > _FORGET_NS:
            self.per_byte = Estimate(_FIRST_NS_PER_BYTE)
        whole = _WHOLE_FIXED_NS + self.per_byte.value * self._resident_bytes()
        if clear_refs.tracks_soft_dirty():
            whole *= _MISSING_ADVANTAGE
        return whole < ranges * self.per_range.value

    def _clear_whole(self) -> bool:
        """Use clear_refs. Whether it went over the process; not if it is gone or that is not permitted."""
        if self._whole_fd < 0:
            return False
        if self.panel is not None:
            self.panel.before_clear_all()
        began = time.perf_counter_ns()
        try:
            clear_refs.clear(self._whole_fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # that one is about the soft-dirty flush, after the bits were cleared
                return False
        spent = time.perf_counter_ns() - began
        self.per_byte.add(max(0.0, spent - _WHOLE_FIXED_NS) / max(1, self._resident_bytes()))
        self._account(1, spent, _WHOLE_DISTURBS)
        return True

    def _resident_bytes(self) -> int:
        if self._resident is None:
            self._resident = resident_pages(self._process.pid) * _PAGE or None
        return self._resident or 0

    def _account(self, clears: int, spent_ns: int, disturbs: float) -> None:
        self._cost.clears += clears
        self._cost.clear_ns += spent_ns
        self._cost.disturb_ns += int(spent_ns * disturbs)


def _walk_nothing(addresses: Addresses) -> tuple[Entries, Levels]:
    """What is known of pages once all is closed."""
    return np.zeros(len(addresses), np.uint64), np.full(len(addresses), LEVEL_UNKNOWN, np.uint8)
