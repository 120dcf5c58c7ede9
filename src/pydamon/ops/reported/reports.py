"""Reported accesses: whoever knows of accesses hands them in, from any thread; a monitor takes them out.

This is the user-space form of the kernel's planned ``damon_report_access()`` (what, how much of it, by which CPU and
thread, read or written, when; for us also whose it is, the node, and how often) and ``damon_add_folios()``, with the
opposite that was asked for at the same conference: memory that is known *not* to have been accessed. What is waiting to
be taken lies in a ring of NumPy columns: when it is full the oldest reports are dropped, and counted.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pydamon.errors import RequestError
from pydamon.ops.base import PAGE_SIZE, Addresses, Ranges

DEFAULT_CAPACITY = 1 << 20  # reports; 45 MB once all of it has been used
MAX_HOT_RANGES = 4096  # per target
ADDRESS_LIMIT = 2**64 - PAGE_SIZE  # the end of the last page of a 64-bit address space cannot be expressed
NOBODY = -1  # a CPU, node or thread that the source did not tell

WRITE = 1  # flags of a report
NOT_ACCESSED_RANGE = 2

_LOOSE = 4096  # single reports are moved into the ring in groups: one by one it would cost 2 us each
MAX_LOOSE = 1 << 16  # so many wait while somebody else holds the lock, 13 MB; what is reported beyond is dropped
_DTYPES: dict[str, type[np.generic]] = {
    "address": np.uint64,
    "size": np.uint64,
    "when_ns": np.int64,
    "nr_accesses": np.uint32,
    "cpu": np.int32,
    "node": np.int32,
    "thread": np.int32,
    "target": np.uint16,
    "flags": np.uint8,
}
_NAMES = tuple(_DTYPES)


@dataclass(frozen=True, slots=True)
class Reports:
    """Reports as columns, all of shape (n,); ``size`` in bytes, -1 for a cpu, node or thread that was not told."""

    address: NDArray[np.uint64]
    size: NDArray[np.uint64]
    when_ns: NDArray[np.int64]
    nr_accesses: NDArray[np.uint32]
    cpu: NDArray[np.int32]
    node: NDArray[np.int32]
    thread: NDArray[np.int32]
    target: NDArray[np.uint16]
    flags: NDArray[np.uint8]  # WRITE, NOT_ACCESSED_RANGE

    def __len__(self) -> int:
        return len(self.address)

    def select(self, which: NDArray[Any]) -> Reports:
        """The rows that a mask or an index picks."""
        return Reports(*(getattr(self, name)[which] for name in _NAMES))

    @staticmethod
    def joined(parts: Collection[Reports]) -> Reports:
        """All rows of ``parts``, in their order."""
        return Reports(*(np.concatenate([getattr(part, name) for part in parts]) for name in _NAMES))

    @staticmethod
    def empty() -> Reports:
        """No rows."""
        return Reports(*(np.empty(0, dtype) for dtype in _DTYPES.values()))


@dataclass(frozen=True, slots=True)
class AccessFilter:
    """Which accesses count: all of the given conditions hold; None is no condition.

    An access of which the source did not tell the CPU (thread, node) does not pass a condition on it. ``writes`` True
    lets only writes pass, False only reads.
    """

    cpus: frozenset[int] | None = None
    threads: frozenset[int] | None = None
    nodes: frozenset[int] | None = None
    writes: bool | None = None

    def passes(self, reports: Reports) -> NDArray[np.bool_] | None:
        """One flag per report; None if there is no condition at all."""
        result: NDArray[np.bool_] | None = None
        for wanted, column in ((self.cpus, reports.cpu), (self.threads, reports.thread), (self.nodes, reports.node)):
            if wanted is not None:
                found = np.isin(column, np.array(sorted(wanted), np.int64)) & (column != NOBODY)
                result = found if result is None else result & found
        if self.writes is not None:
            found = ((reports.flags & WRITE) != 0) == self.writes
            result = found if result is None else result & found
        return result


class AccessReports:
    """Where accesses are reported to, for targets 0 to ``nr_targets`` - 1: ``pydamon.AccessReports`` for library users.

    ``report`` says what is known of one access, or of one that surely was not made, by process or page frame;
    ``report_access`` and ``report_accesses`` say what was accessed, ``report_not_accessed`` what surely was not;
    ``add_hot`` names ranges that schemes shall prefer, whatever was monitored (``hot_ranges`` gives them back,
    ``clear_hot`` forgets them); ``end`` says that no more will come. Addresses and sizes are in bytes, times in ns.

    ``processes`` are the pids that the targets are, where these are processes. ``now_ns`` gives the time of a report
    that is made without one. All methods may be called from any thread; ``report``, ``report_access`` and
    ``report_not_accessed`` never wait for a lock, so that they, and they only, may be called from
    a signal handler, too. While others hold the lock, about ``MAX_LOOSE`` such reports wait; more are dropped.
    ``reported`` counts the reports, ``dropped`` those that were overwritten or dropped before anybody took them.
    """

    def __init__(
        self,
        nr_targets: int = 1,
        *,
        capacity: int = DEFAULT_CAPACITY,
        now_ns: Callable[[], int] = time.monotonic_ns,
        processes: Sequence[int] = (),
    ) -> None:
        if len(set(processes)) < len(processes):
            raise RequestError("names one twice", where="processes")
        nr_targets = len(processes) or nr_targets
        if not 1 <= nr_targets <= np.iinfo(np.uint16).max:
            raise RequestError(f"is {nr_targets}; it must be 1 to 65535", where="nr_targets")
        if not 1 <= capacity <= 1 << 30:
            raise RequestError(f"is {capacity} reports; it must be 1 to 2**30", where="capacity")
        self.nr_targets = nr_targets
        self._target_of = {pid: target for target, pid in enumerate(processes)}
        self.capacity = capacity
        self.now_ns = now_ns
        self._lock = threading.Lock()
        self._ring = {name: np.empty(capacity, dtype) for name, dtype in _DTYPES.items()}
        self._put = 0  # rows ever put into the ring, and up to which of them they were taken
        self._taken = 0
        self._loose: deque[tuple[int, ...]] = deque()
        self._refused = _Tally()
        self._dropped = 0  # of the ring
        self._dropped_told = 0
        self._hot: list[deque[tuple[int, int]]] = [deque(maxlen=MAX_HOT_RANGES) for _ in range(nr_targets)]
        self.hot_dropped = 0
        self._ended: set[int] = set()

    # -- for who knows of accesses ------------------------------------------------------------------------------

    def report(
        self,
        *,
        process: int | None = None,
        address: int | None = None,
        frame: int | None = None,
        size: int | None = None,
        nr_accesses: int = 1,
        cpu: int | None = None,
        node: int | None = None,
        thread: int | None = None,
        is_write: bool = False,
        accessed: bool = True,
        when_ns: int | None = None,
    ) -> None:
        """Say what is known of ``size`` bytes: those from an ``address`` (one byte) or a page ``frame`` (its page) on.

        ``process`` is one of ``processes``; it may be left out where there is one target, as with physical memory.
        ``accessed`` False: surely not, in the sampling interval of ``when_ns``. Raises RequestError.
        """
        target = 0 if process is None else self._target_of.get(process, self.nr_targets)
        if target == self.nr_targets or (process is None and target + 1 < self.nr_targets):
            known = ", ".join(map(str, self._target_of)) or "none"
            raise RequestError(f"is {process}; it must be one of those that were given ({known})", where="process")
        if (address is None) == (frame is None):
            raise RequestError("give either address or frame", where="address")
        if frame is not None:
            address, size = frame * PAGE_SIZE, size or PAGE_SIZE
        assert address is not None
        length = 1 if size is None else size
        if accessed:
            who = {"cpu": cpu, "node": node, "thread": thread}
            self.report_access(target, address, length, nr_accesses, **who, is_write=is_write, when_ns=when_ns)
        else:
            self.report_not_accessed(target, address, address + length, when_ns)

    def report_access(
        self,
        target: int,
        address: int,
        size: int,
        nr_accesses: int = 1,
        *,
        cpu: int | None = None,
        node: int | None = None,
        thread: int | None = None,
        is_write: bool = False,
        when_ns: int | None = None,
    ) -> None:
        """Say that [address, address + size) bytes of ``target`` were accessed ``nr_accesses`` times at ``when_ns``.

        Raises RequestError for a target that there is not or a range that is none.
        """
        self._check_range(target, address, size)
        if not 1 <= nr_accesses < 2**32:
            raise RequestError(f"is {nr_accesses}; it must be 1 to 2**32 - 1", where="nr_accesses")
        when = self._when(when_ns)
        who = (_who("cpu", cpu), _who("node", node), _who("thread", thread))
        self._add_loose((address, size, when, nr_accesses, *who, target, WRITE if is_write else 0))

    def report_not_accessed(self, target: int, start: int, end: int, when_ns: int | None = None) -> None:
        """Say that no byte of [start, end) was accessed in the sampling interval in which ``when_ns`` lies.

        An access reported for the same interval outweighs it. Raises RequestError as ``report_access``.
        """
        self._check_range(target, start, end - start)
        when = self._when(when_ns)
        self._add_loose((start, end - start, when, 1, NOBODY, NOBODY, NOBODY, target, NOT_ACCESSED_RANGE))

    def report_accesses(
        self,
        target: int,
        addresses: ArrayLike,
        sizes: ArrayLike,
        nr_accesses: ArrayLike = 1,
        *,
        cpus: ArrayLike | None = None,
        nodes: ArrayLike | None = None,
        threads: ArrayLike | None = None,
        is_write: ArrayLike = False,
        when_ns: ArrayLike | None = None,
    ) -> None:
        """Many reports at once: every argument but ``target`` is an array of shape (n,) or a single number.

        Raises RequestError, and takes over nothing, if one of them is not valid.
        """
        if not 0 <= target < self.nr_targets:
            raise RequestError(f"is {target}; there are {self.nr_targets}", where="target")
        address = _column("addresses", addresses, np.uint64)
        length = len(address) if address.ndim else 1
        size = _column("sizes", sizes, np.uint64)
        columns: dict[str, NDArray[Any]] = {
            "address": address,
            "size": size,
            "when_ns": _column("when_ns", self.now_ns() if when_ns is None else when_ns, np.int64),
            "nr_accesses": _column("nr_accesses", nr_accesses, np.uint32),
            "cpu": _column("cpus", NOBODY if cpus is None else cpus, np.int32),
            "node": _column("nodes", NOBODY if nodes is None else nodes, np.int32),
            "thread": _column("threads", NOBODY if threads is None else threads, np.int32),
            "target": np.asarray(target, np.uint16),
            "flags": np.asarray(is_write, np.bool_).view(np.uint8),  # True is WRITE
        }
        for name, column in columns.items():
            if column.ndim and column.shape != (length,):
                raise RequestError(f"has the shape {column.shape}; there are {length} addresses", where=name)
        if length == 0:
            return
        limit = np.uint64(ADDRESS_LIMIT)
        if columns["nr_accesses"].min() < 1:
            raise RequestError("is 0; it must be 1 to 2**32 - 1", where="nr_accesses")
        if size.min() < 1 or size.max() > limit or (address > limit - size).any():
            raise RequestError("a size is 0 or a range goes beyond the address space", where="sizes")
        with self._lock:
            self._absorb_loose()
            self._put_rows(columns, length)

    def add_hot(self, target: int, ranges: ArrayLike) -> None:
        """Ranges (n, 2) of ``target``, in bytes (end exclusive), that schemes shall treat with the highest priority.

        What a program knows better than any monitor: ``reports.add_hot(0, [(start, end)])``. They add up over calls
        until `clear_hot`, are no accesses (nothing is counted for them), and are widened to whole pages. At most
        ``MAX_HOT_RANGES`` are kept, the newest; ``hot_dropped`` counts the others. Raises RequestError.
        """
        pairs = np.asarray(ranges)
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise RequestError(f"has the shape {pairs.shape}; it must be (n, 2)", where="ranges")
        spans = [(int(start), int(end)) for start, end in pairs.tolist()]
        for start, end in spans:
            self._check_range(target, start, end - start)
        with self._lock:
            hot = self._hot[target]
            self.hot_dropped += max(len(hot) + len(spans) - MAX_HOT_RANGES, 0)
            hot.extend(spans)

    def clear_hot(self, target: int) -> None:
        """Forget the hot ranges of ``target``."""
        with self._lock:
            self._hot[target].clear()

    def end(self, target: int | None = None) -> None:
        """Nothing more will be reported of ``target`` (of any target): its monitoring ends."""
        with self._lock:
            self._ended |= set(range(self.nr_targets)) if target is None else {target}

    def note_lost(self, count: int) -> None:
        """So many accesses happened of which nothing else is known: they count as ``dropped``."""
        with self._lock:
            self._dropped += count

    # -- for who monitors ---------------------------------------------------------------------------------------

    def take(self) -> tuple[Reports, int]:
        """What was reported since the last call, and how many reports were dropped meanwhile.

        There is one such queue: only one monitor can take from it.
        """
        with self._lock:
            self._absorb_loose()
            begin, length = self._taken % self.capacity, self._put - self._taken
            first = min(length, self.capacity - begin)
            parts = []
            for ring in self._ring.values():
                head = ring[begin : begin + first]
                parts.append(head.copy() if first == length else np.concatenate([head, ring[: length - first]]))
            self._taken = self._put
            all_dropped = self._dropped + self._refused.read()
            dropped, self._dropped_told = all_dropped - self._dropped_told, all_dropped
        return Reports(*parts), dropped

    def hot_ranges(self, target: int) -> Ranges:
        """What ``add_hot`` was told: sorted, disjoint, page-aligned (outward); shape (n, 2) uint64."""
        with self._lock:
            spans = list(self._hot[target])
        if not spans:
            return np.empty((0, 2), np.uint64)
        ranges = np.array(spans, np.uint64)
        page = np.uint64(PAGE_SIZE)
        ranges[:, 0] -= ranges[:, 0] % page
        ranges[:, 1] += (page - ranges[:, 1] % page) % page
        return union(ranges)

    def ended(self, target: int) -> bool:
        """Whether ``end`` was called for it."""
        return target in self._ended

    @property
    def reported(self) -> int:
        """Reports so far."""
        with self._lock:
            return self._put + len(self._loose) + self._refused.read()

    @property
    def dropped(self) -> int:
        """Reports that nobody took before there was no more room for them."""
        with self._lock:
            return self._dropped + self._refused.read()

    # -- inside -------------------------------------------------------------------------------------------------

    def _check_range(self, target: int, address: int, size: int) -> None:
        if not 0 <= target < self.nr_targets:
            raise RequestError(f"is {target}; there are {self.nr_targets}", where="target")
        if size < 1 or address < 0 or address + size > ADDRESS_LIMIT:
            raise RequestError(f"{address:#x} and {size} bytes are not a range of addresses", where="address")

    def _when(self, when_ns: int | None) -> int:
        when = self.now_ns() if when_ns is None else when_ns
        if not -(2**63) <= when < 2**63:
            raise RequestError(f"is {when}; it must fit into 64 bits", where="when_ns")
        return when

    def _add_loose(self, row: tuple[int, ...]) -> None:
        loose = self._loose
        if len(loose) >= _LOOSE and self._lock.acquire(blocking=False):
            try:
                self._absorb_loose()
            finally:
                self._lock.release()
        # The lock may be held for long: by a thread that does not get the CPU, or below the signal handler we are in.
        if len(loose) < MAX_LOOSE:
            loose.append(row)  # one step, as is the next
        else:
            self._refused.add()

    def _absorb_loose(self) -> None:
        rows = [self._loose.popleft() for _ in range(len(self._loose))]
        if rows:
            # Not one array for all columns: addresses need all 64 bits, and -1 needs a sign.
            columns = zip(*rows, strict=True)
            arrays = {name: np.array(c, _DTYPES[name]) for name, c in zip(_NAMES, columns, strict=True)}
            self._put_rows(arrays, len(rows))

    def _put_rows(self, columns: dict[str, NDArray[Any]], length: int) -> None:
        capacity = self.capacity
        skip = max(length - capacity, 0)  # more at once than there is room: only the last ones stay
        kept = length - skip
        begin = (self._put + skip) % capacity
        first = min(kept, capacity - begin)
        for name, ring in self._ring.items():
            column = columns[name]
            if column.ndim:
                ring[begin : begin + first] = column[skip : skip + first]
                ring[: kept - first] = column[skip + first :]
            else:
                ring[begin : begin + first] = column
                ring[: kept - first] = column
        self._put += length
        oldest = self._put - capacity
        if oldest > self._taken:
            self._dropped += oldest - self._taken
            self._taken = oldest


class _Tally:
    """A count that any thread and any signal handler raises without a lock; whoever reads it holds one."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._reads = 0

    def add(self) -> None:
        """Count one: a single step, in which neither a thread nor a signal handler can come between."""
        next(self._numbers)

    def read(self) -> int:
        """How often ``add`` was called."""
        drawn = next(self._numbers) - self._reads  # each earlier look has drawn a number, too
        self._reads += 1
        return drawn


def union(ranges: Ranges) -> Ranges:
    """The same bytes as sorted, disjoint ranges that do not touch; input and result (n, 2) uint64."""
    if len(ranges) < 2:
        return ranges
    ordered = ranges[np.argsort(ranges[:, 0], kind="stable")]
    reach = np.maximum.accumulate(ordered[:, 1])
    first = np.concatenate([[True], ordered[1:, 0] > reach[:-1]])
    last = np.concatenate([first[1:], [True]])
    return np.stack([ordered[first, 0], reach[last]], axis=1)


def covered_below(ranges: Ranges, at: Addresses) -> NDArray[np.uint64]:
    """How many bytes of disjoint sorted ``ranges`` (n, 2) lie below each address of ``at`` (m,); shape (m,)."""
    if not len(ranges):
        return np.zeros(len(at), np.uint64)
    before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(ranges[:, 1] - ranges[:, 0], dtype=np.uint64)])
    index = np.searchsorted(ranges[:, 0], at, side="right")
    inside = np.minimum(at, ranges[np.maximum(index, 1) - 1, 1]) - ranges[np.maximum(index, 1) - 1, 0]
    result: NDArray[np.uint64] = np.where(index > 0, before[np.maximum(index, 1) - 1] + inside, np.uint64(0))
    return result


def _who(name: str, value: int | None) -> int:
    if value is None:
        return NOBODY
    if not 0 <= value < 2**31:
        raise RequestError(f"is {value}; it must be 0 to 2**31 - 1", where=name)
    return value


def _column(name: str, values: ArrayLike, dtype: type[np.generic]) -> NDArray[Any]:
    """``values`` as that type; raises RequestError where they do not fit into it."""
    array = np.asarray(values)
    if array.dtype == dtype:
        return array
    if array.size and array.dtype.kind not in "iub":
        raise RequestError(f"has the type {array.dtype}; it must be whole numbers", where=name)
    if array.size:
        bounds = np.iinfo(dtype)  # type: ignore[type-var]
        if int(array.min()) < bounds.min or int(array.max()) > bounds.max:
            raise RequestError(f"goes from {array.min()} to {array.max()}; too far for {np.dtype(dtype)}", where=name)
    return array.astype(dtype)
