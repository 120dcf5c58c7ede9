"""Looks through a process's memory for what is resident, in steps, at a bounded share of the time.

Where a look through all of it finds nothing new, the next ones are left out, until its mappings or its size change.

Through PAGEMAP_SCAN (Linux 6.7: 3.5 ms per GiB resident, nothing for what is only reserved), else by reading
``pagemap`` (8 bytes a page). Both need what ptrace(2) calls PTRACE_MODE_READ: the same user, or root.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence

import numpy as np

from pydamon.linux.causes import cause
from pydamon.linux.footprint import resident_pages
from pydamon.linux.pagemap_scan import resident_part
from pydamon.linux.process import Mapping, Process
from pydamon.spans import NO_RUNS, U64, ResidentRuns, bytes_below, clipped, joined

PAGE_SIZE = 4096
UNKNOWN = np.uint64(np.iinfo(np.uint64).max)  # of a number of bytes
STEP_NS = 5_000_000  # the longest that one step takes, about
_SHARE = 500  # a step is made again after that many times what the last one took
_MOST_LEFT_OUT = 8  # looks that are left out at once where nothing changes
_CHANGED = 128  # a process whose size differs by this part of it has changed
_FIRST_SHARE = 10  # until all was looked at once: unknown memory is worth more than time
_MOST_RUNS = 1 << 22  # 64 MiB of them; more is left unknown
_FIRST_SPAN = 1 << 30  # mapped bytes in one call, to begin with
_CALL_NS = 1_000_000  # that a call should take
_READ_SPAN = 64 << 20  # bytes of address space whose entries are read at once
_PRESENT = np.uint64(1 << 63)
# What the kernel maps into each process, and does not count as resident.
_SPECIAL = frozenset(("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[uprobes]"))


class ResidentScan:
    """Keeps ``runs`` (`ResidentRuns`) of one process up to date, as far as the steps have come.

    ``obstacle`` says why nothing can be known (no permission, for example); None as long as it can. ``swept`` says that
    all has been looked at once. ``spent_ns`` is the CPU time that looking took.
    """

    def __init__(self, process: Process) -> None:
        self.runs = ResidentRuns()
        self.obstacle: str | None = None
        self.spent_ns = 0
        self._process = process
        self._fd = -1
        self._mappings: Sequence[Mapping] = ()
        self._spans: U64 = NO_RUNS
        self._before: U64 = np.zeros(1, np.uint64)
        self._cursor = 0
        self.swept = False
        self._seen: U64 | None = None  # the parts of the spans that were looked at; None: to be found again
        self._due_ns = self._wait_ns = 0
        self._calm = _Calm(process.pid)
        self._span = _FIRST_SPAN
        self._by_reading = False

    def follow(self, mappings: Sequence[Mapping]) -> None:
        """The process has these mappings now; the same sequence as before costs nothing."""
        if mappings is self._mappings:
            return
        self._mappings = mappings
        self._calm.over()
        self._seen = None
        self.runs.keep_only(self._spans)  # gaps were passed over, and something may be mapped there now
        spans = np.array([(m.start, m.end) for m in mappings if m.name not in _SPECIAL], np.uint64).reshape(-1, 2)
        self._spans = joined(spans[np.argsort(spans[:, 0], kind="stable")])
        sizes = self._spans[:, 1] - self._spans[:, 0]
        self._before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(sizes, dtype=np.uint64)])
        self.runs.keep_only(self._spans)
        seen = self.runs.seen_bytes(self._spans[:, 0], self._spans[:, 1])
        new = np.flatnonzero(seen < sizes)
        if len(new) and self.swept:  # what is new comes first
            self._cursor, self.swept = int(self._spans[new[0], 0]), False

    def resident_bytes(self, start: U64, end: U64) -> U64 | None:
        """The resident bytes of each range [start, end), shape (n,); None if nothing can be known.

        Of a range with mapped parts that were not looked at yet it is the largest number that there is.
        """
        if self.obstacle is not None:
            return None
        found = self.runs.resident_bytes(start, end)
        if not self.swept or self._partial():
            mapped = bytes_below(self._spans, end) - bytes_below(self._spans, start)
            seen = bytes_below(self._seen_spans(), end) - bytes_below(self._seen_spans(), start)
            found[seen < mapped] = UNKNOWN
        return found

    def _partial(self) -> bool:
        seen = self._seen_spans()
        return int((seen[:, 1] - seen[:, 0]).sum(dtype=np.uint64)) < int(self._before[-1])

    def _seen_spans(self) -> U64:
        if self._seen is None:
            self._seen = clipped(self.runs.seen, self._spans)
        return self._seen

    def step(self, *, now_ns: int | None = None) -> None:
        """Look on, for at most about `STEP_NS`, unless the last step was just now. Never raises."""
        began_ns = time.perf_counter_ns() if now_ns is None else now_ns
        if began_ns < self._due_ns or self.obstacle is not None or not len(self._spans):
            return
        if self._calm.leave_out():
            self._due_ns = began_ns + self._wait_ns
            return
        if not self._open():
            return
        try:
            self._sweep(began_ns)
        finally:
            self._close()

    def _sweep(self, began_ns: int) -> None:
        first = self._cursor
        wrapped = False
        spent_ns = lasted_ns = 0
        while lasted_ns < STEP_NS:
            low, high = self._next()
            if wrapped and low >= first:
                break
            # CPU time: a call that waits, for a CPU or for the target's lock on its memory, costs nobody anything.
            call_ns, cpu_ns = time.perf_counter_ns(), time.thread_time_ns()
            reached = self._look(low, high)
            if reached is None:
                return
            lasted_ns += time.perf_counter_ns() - call_ns
            call_ns = time.thread_time_ns() - cpu_ns
            spent_ns += call_ns
            if not self._by_reading and reached == high:
                self._span = max(min(self._span * _CALL_NS // max(call_ns, 1), 4 * self._span), 1 << 21)
            self._cursor = reached
            if reached >= int(self._spans[-1, 1]):
                self._cursor, wrapped, self.swept = 0, True, True
                if self._calm.swept(self.runs.runs) or first == 0:
                    break
        self.spent_ns += spent_ns
        self._wait_ns = (_SHARE if self.swept else _FIRST_SHARE) * spent_ns
        self._due_ns = began_ns + self._wait_ns

    def _open(self) -> bool:
        """Open the file: anew for each step, for it stays that of the old memory when another program is executed."""
        try:
            self._fd = os.open(f"/proc/{self._process.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if self._process.alive() and error.errno not in (errno.ENOENT, errno.ESRCH):  # it is just ending
                self.obstacle = f"/proc/{self._process.pid}/pagemap: {cause(error, 'run as its owner or as root')}"
            return False
        if not self._process.alive():  # another process may have got this pid
            self._close()
            return False
        return True

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1

    def _next(self) -> tuple[int, int]:
        """Where to look now: from the cursor on, over so many mapped bytes."""
        place = int(np.searchsorted(self._spans[:, 1], np.uint64(self._cursor), "right"))
        if place == len(self._spans):
            place, self._cursor = 0, 0
        low = max(self._cursor, int(self._spans[place, 0]))
        span = _READ_SPAN if self._by_reading else self._span
        if self._by_reading:  # there is nothing to read between mappings
            return low, min(low + span, int(self._spans[place, 1]))
        goal = int(self._before[place]) + low - int(self._spans[place, 0]) + span
        if goal >= int(self._before[-1]):
            return low, int(self._spans[-1, 1])
        last = int(np.searchsorted(self._before, np.uint64(goal), "right")) - 1
        high = int(self._spans[last, 0]) + goal - int(self._before[last])
        return low, high + -high % PAGE_SIZE

    def _look(self, low: int, high: int) -> int | None:
        """Look at [low, high); up to where that was done, None if it cannot be any more."""
        try:
            found, reached = self._read(low, high) if self._by_reading else resident_part(self._fd, low, high)
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL) and not self._by_reading:
                self._by_reading = True  # before Linux 6.7 (52526ca7fdb9)
                return low
            if error.errno != errno.ESRCH and self._process.alive():
                self.obstacle = f"what is resident cannot be told: {error.strerror}"
            return None
        if reached <= low:
            reached = high
        if len(self.runs) + len(found) > _MOST_RUNS:
            self.obstacle = f"more than {_MOST_RUNS:,} runs of pages: what is resident of the rest is unknown"
            return None
        # What the kernel maps lies between the spans.
        self.runs.note(low, reached, found if self._by_reading else clipped(found, self._spans))
        self._seen = None
        return reached

    def _read(self, low: int, high: int) -> tuple[U64, int]:
        """As PAGEMAP_SCAN does, from the entries; the zero page cannot be told from others there."""
        data = os.pread(self._fd, (high - low) // PAGE_SIZE * 8, low // PAGE_SIZE * 8)
        present = np.frombuffer(data[: len(data) // 8 * 8], np.uint64) & _PRESENT != 0
        edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]])))
        runs = edges.astype(np.uint64).reshape(-1, 2) * np.uint64(PAGE_SIZE) + np.uint64(low)
        return runs, low + len(present) * PAGE_SIZE


class _Calm:
    """How many looks are left out: twice as many each time that all was looked through and nothing was new."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._found: U64 | None = None
        self._in_row = self._left = 0
        self._pages = 0

    def swept(self, runs: U64) -> bool:
        """All was looked through, and these ``runs`` are there; whether looks are left out now."""
        if runs is not self._found:
            self.over()
            self._found = runs
            return False
        self._in_row = self._left = min(max(2 * self._in_row, 1), _MOST_LEFT_OUT)
        self._pages = resident_pages(self._pid)
        return True

    def over(self) -> None:
        """Something has changed."""
        self._in_row = self._left = 0

    def leave_out(self) -> bool:
        """Whether to leave out the look that is due: not where the size of the process has changed."""
        if not self._left:
            return False
        self._left -= 1
        if abs(resident_pages(self._pid) - self._pages) * _CHANGED > self._pages:
            self.over()
            return False
        return True
