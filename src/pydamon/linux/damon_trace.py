"""DAMON's trace events, read straight from tracefs: an instance of our own, its binary per-CPU buffers, NumPy rows.

No tracing tool runs, and nobody else's tracing is touched: an instance has its own buffers, clock and enabled events.
The ring buffer's page format is described by tracefs itself (``events/header_page``, ``events/header_event``), each
event's by its ``format`` file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.damon_sysfs import Tree

SYSTEM = "damon"
AGGREGATED = "damon_aggregated"
TUNED = "damon_monitor_intervals_tune"
BEFORE_APPLY = "damos_before_apply"
ESZ = "damos_esz"
STAT = "damos_stat_after_apply_interval"
OF_SCHEMES = (BEFORE_APPLY, ESZ, STAT)

Rows = NDArray[np.void]
Part = tuple[NDArray[np.intp], NDArray[np.uint8]]  # places in a page's times, bytes of each event

_FIELD = re.compile(r"field:([^;]*?)(\w+)(\[[^;]*\])?;\s*offset:(\d+);\s*size:(\d+);\s*signed:([01]);")
# Entry headers: 5 bits of type or length (in words), 27 bits of time; see events/header_event.
_PADDING, _TIME_EXTEND, _TIME_STAMP = 29, 30, 31
_DELTA_BITS = 27
_STAMP_BITS = 59  # an absolute time stamp has no more; the rest is that of the time before
# The upper bits of a page's "commit" say that events were lost before it, and whether their number follows the data.
_COMMIT_MASK = (1 << 20) - 1
_MISSED, _MISSED_STORED = 1 << 31, 1 << 30
_PAGE_HEADER = 16


@dataclass(frozen=True, slots=True)
class EventFormat:
    """One event's number and the layout of its rows (a NumPy type with the fields' names)."""

    number: int
    dtype: np.dtype[np.void]


def parse_format(text: str) -> EventFormat:
    """Parse an event's ``format`` file; only fields that are integers. Raises ValueError if it is not one."""
    number = re.search(r"^ID:\s*(\d+)", text, re.MULTILINE)
    fields = [
        (match[2], f"{'i' if match[6] == '1' else 'u'}{match[5]}", int(match[4]))
        for match in _FIELD.finditer(text)
        if match[3] is None and int(match[5]) in (1, 2, 4, 8)
    ]
    if number is None or not fields:
        raise ValueError("not the format of an event")
    names, formats, offsets = zip(*fields, strict=True)
    dtype = np.dtype({"names": list(names), "formats": list(formats), "offsets": list(offsets)})
    return EventFormat(int(number[1]), dtype)


@dataclass(slots=True)
class Page:
    """The events of one page: ``times`` in ns of the trace clock and, per event number, rows with their places."""

    times: NDArray[np.int64]
    rows: dict[int, Part]  # by the event's number
    lost: int  # events lost before this page; -1: some, nobody knows how many


def parse_page(data: bytes) -> Page:
    """Take a page of a ring buffer apart. Raises ValueError if it is not one.

    Events of the same size that follow each other are taken as one array: a page of DAMON's events is a few steps.
    """
    if len(data) < _PAGE_HEADER:
        raise ValueError("shorter than a page's header")
    now = int.from_bytes(data[:8], "little")
    commit = int.from_bytes(data[8:16], "little")
    used = commit & _COMMIT_MASK
    if _PAGE_HEADER + used > len(data):
        raise ValueError("says that it holds more than it does")
    lost = 0
    if commit & _MISSED:
        stored = data[_PAGE_HEADER + used : _PAGE_HEADER + used + 8]
        lost = int.from_bytes(stored, "little") if commit & _MISSED_STORED and len(stored) == 8 else -1
    payload = np.frombuffer(data, np.uint8, used, _PAGE_HEADER)
    times: list[NDArray[np.int64]] = []
    found: dict[int, list[Part]] = {}
    at = count = 0
    while at + 4 <= used:
        header = int.from_bytes(payload[at : at + 4], "little")
        kind, delta = header & 31, header >> 5
        if kind in (_TIME_EXTEND, _TIME_STAMP):
            if at + 8 > used:
                raise ValueError("ends within a time stamp")
            delta += int.from_bytes(payload[at + 4 : at + 8], "little") << _DELTA_BITS
            now = now + delta if kind == _TIME_EXTEND else (now >> _STAMP_BITS << _STAMP_BITS) | delta
            at += 8
            continue
        if kind == _PADDING and delta == 0:
            break  # nothing follows
        if kind in (0, _PADDING):
            if at + 8 > used:
                raise ValueError("ends within an event")
            size = int.from_bytes(payload[at + 4 : at + 8], "little")
            size = 4 + (size + 3) // 4 * 4
            if size < 8 or at + size > used:
                raise ValueError("has an event that is longer than the page")
            now += delta
            if kind == 0:
                times.append(np.array([now], np.int64))
                _note(found, payload[at + 8 : at + size].reshape(1, -1), count)
                count += 1
            at += size
            continue
        size = 4 + 4 * kind
        if at + size > used:
            raise ValueError("has an event that is longer than the page")
        block = payload[at : at + (used - at) // size * size].reshape(-1, size)
        headers = block[:, :4].copy().view("<u4")[:, 0]
        others = np.flatnonzero(headers & 31 != kind)
        run = int(others[0]) if len(others) else len(block)
        stamps = now + np.cumsum(headers[:run] >> 5, dtype=np.int64)
        times.append(stamps)
        _note(found, block[:run, 4:], count)
        now = int(stamps[-1])
        count += run
        at += run * size
    return Page(
        np.concatenate(times) if times else np.empty(0, np.int64),
        {number: _joined(parts) for number, parts in found.items()},
        lost,
    )


def _note(found: dict[int, list[Part]], block: NDArray[np.uint8], at: int) -> None:
    if block.shape[1] < 2:
        return
    numbers = block[:, :2].copy().view("<u2")[:, 0]
    for number in np.unique(numbers).tolist():
        (places,) = np.nonzero(numbers == number)
        found.setdefault(number, []).append((places + at, block[places]))


def _joined(parts: list[Part]) -> Part:
    """The events of one number; those of another size than the first ones are no such events."""
    width = parts[0][1].shape[1]
    parts = [part for part in parts if part[1].shape[1] == width]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


@dataclass(slots=True)
class Events:
    """Events of one kind in the order of time: ``time_ns`` (int64), ``cpu``, and their fields as rows."""

    time_ns: NDArray[np.int64]
    cpu: NDArray[np.int32]
    rows: Rows

    def __len__(self) -> int:
        return len(self.time_ns)


class TraceInstance:
    """A tracing instance of our own with some of DAMON's events enabled, timed by CLOCK_MONOTONIC.

    ``lost`` counts events that were overwritten before they were read, ``damaged`` pages that made no sense.
    Raises MachineError if the kernel has no such events, or not for this user; nothing is left behind then.
    """

    def __init__(
        self, name: str, *, root: str = "/sys/kernel/tracing", events: Sequence[str], buffer_kib: int = 512
    ) -> None:
        self.name = name
        self.events: list[str] = []  # those of the wanted ones that this kernel has
        self.lost = self.damaged = 0
        self._tree = Tree(f"{root}/instances/{name}")
        self._formats: dict[str, EventFormat] = {}
        self._fds: dict[int, int] = {}
        probe(root)
        try:
            os.mkdir(self._tree.root, 0o700)
        except OSError as error:
            raise MachineError(f"cannot be made: {error.strerror}", where=self._tree.root) from None
        try:
            self._set_up(events, buffer_kib)
        except BaseException:
            self.close()
            raise

    def _set_up(self, events: Sequence[str], buffer_kib: int) -> None:
        tree = self._tree
        try:
            tree.write("trace_clock", "mono")
            tree.write("buffer_size_kb", buffer_kib)
            for name in tree.list("per_cpu"):
                path = tree.path(f"per_cpu/{name}/trace_pipe_raw")
                self._fds[int(name.removeprefix("cpu"))] = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise MachineError(f"cannot be set up: {error.strerror}", where=str(error.filename or tree.root)) from None
        self.enable(events)
        self._page_bytes = 1024 * max(tree.read_int("buffer_subbuf_size_kb", 4), 4)

    def enable(self, events: Sequence[str]) -> list[str]:
        """Trace these, too; returns those that this kernel has. Raises MachineError."""
        tree, found = self._tree, []
        try:
            for event in events:
                if tree.exists(f"events/{SYSTEM}/{event}") and event not in self._formats:
                    self._formats[event] = parse_format(tree.read(f"events/{SYSTEM}/{event}/format"))
                    tree.write(f"events/{SYSTEM}/{event}/enable", 1)
                    self.events.append(event)
                    found.append(event)
        except OSError as error:
            raise MachineError(f"cannot be set up: {error.strerror}", where=str(error.filename or tree.root)) from None
        except ValueError as error:
            raise MachineError(f"is not as documented: {error}", where=tree.root) from None
        return found

    def take(self) -> dict[str, Events]:
        """What has happened since the last call, by the event's name; events of all CPUs in the order of time."""
        pages: dict[int, list[Page]] = {cpu: self._read(cpu, fd) for cpu, fd in self._fds.items()}
        return {name: self._collect(pages, self._formats[name]) for name in self.events}

    def _read(self, cpu: int, fd: int) -> list[Page]:
        pages: list[Page] = []
        while True:
            try:
                data = os.read(fd, self._page_bytes)
            except OSError as error:
                # EAGAIN: nothing more; ENODEV and the like: the CPU has gone.
                if error.errno == errno.EINTR:
                    continue
                return pages
            if not data:
                return pages
            try:
                page = parse_page(data)
            except ValueError:
                self.damaged += 1
                continue
            self.lost += max(page.lost, 0) or -min(page.lost, 0)
            pages.append(page)

    @staticmethod
    def _collect(pages: dict[int, list[Page]], layout: EventFormat) -> Events:
        times, cpus, rows = [], [], []
        for cpu, of_cpu in pages.items():
            for page in of_cpu:
                places, block = page.rows.get(layout.number, (None, None))
                if places is None or block is None or block.shape[1] < layout.dtype.itemsize:
                    continue
                times.append(page.times[places])
                cpus.append(np.full(len(places), cpu, np.int32))
                rows.append(np.ascontiguousarray(block[:, : layout.dtype.itemsize]).view(layout.dtype)[:, 0])
        if not times:
            return Events(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, layout.dtype))
        time_ns = np.concatenate(times)
        order = np.argsort(time_ns, kind="stable")
        return Events(time_ns[order], np.concatenate(cpus)[order], np.concatenate(rows)[order])

    def close(self) -> None:
        """Remove the instance with all that is in it; best effort, for it must not hide another error."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        remove_instance(self._tree.root)


def remove_instance(path: str) -> None:
    """Turn off and remove a tracing instance of ours; one that is gone already is no error."""
    with contextlib.suppress(OSError):
        Tree(path).write("events/enable", 0)
    with contextlib.suppress(OSError):
        os.rmdir(path)


def probe(root: str = "/sys/kernel/tracing") -> None:
    """Raise MachineError if DAMON's results cannot be traced here."""
    try:
        os.listdir(f"{root}/events/{SYSTEM}/{AGGREGATED}")
    except PermissionError:
        raise MachineError("needs root", where=root) from None
    except OSError:
        why = "has no event damon_aggregated" if os.path.isdir(f"{root}/events") else "is not mounted"
        raise MachineError(why, where=f"tracefs at {root}") from None
