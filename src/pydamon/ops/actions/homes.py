"""Where migrated pages came from and what was advised, so that it can be undone when a scheme is stopped."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from pydamon.errors import MachineError
from pydamon.linux import madvise, move_pages
from pydamon.linux.move_pages import Nodes
from pydamon.linux.process import Process
from pydamon.ops.actions.pages import expand
from pydamon.ops.base import PAGE_SIZE, Addresses, Ranges
from pydamon.ops.round_trips import RoundTrips
from pydamon.spans import distinct, joined
from pydamon.spec import Scheme

MAX_RANGES = 1 << 17  # 4 MiB; of what is beyond, the way home is not known
_PAGE = np.uint64(PAGE_SIZE)


@dataclass(slots=True)
class Undone:
    """What undoing a scheme has brought back, in bytes; ``remarks`` say what could not be."""

    migrated_back: int = 0
    advice_reversed: int = 0
    remarks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Record:
    process: Process
    ranges: Ranges
    nodes: Nodes


class Homes:
    """Remembers nothing about pages unless ``remember``; what was advised it always remembers. Bounded by
    ``max_ranges`` ranges of pages in all."""

    def __init__(self, *, remember: bool = False, max_ranges: int = MAX_RANGES) -> None:
        self._remember = remember
        self._left = max_ranges
        self._moved: dict[Scheme, list[_Record]] = {}
        self._advised: dict[Scheme, list[_Record]] = {}
        self._opposite: dict[Scheme, int] = {}
        self.round_trips = RoundTrips()
        self.forgotten = 0  # bytes that were moved without a way home

    def remember(self, scheme: Scheme, process: Process, addresses: Addresses, nodes: Nodes) -> None:
        """Pages of a process at sorted ``addresses`` were moved away from ``nodes``."""
        if not self._remember or not len(addresses):
            return
        cut = (np.diff(addresses) != _PAGE) | (np.diff(nodes) != 0)
        first = np.concatenate([np.zeros(1, np.intp), np.flatnonzero(cut) + 1])
        last = np.append(first[1:], len(addresses)) - 1
        kept = min(len(first), self._left)
        self._left -= kept
        self.forgotten += int(len(addresses) - (last[kept - 1] + 1 if kept else 0)) * PAGE_SIZE
        ranges = np.stack([addresses[first], addresses[last] + _PAGE], axis=1)[:kept]
        if kept:
            self._moved.setdefault(scheme, []).append(_Record(process, ranges, nodes[first][:kept]))

    def moved(self, process: Process, addresses: Addresses, source: Nodes, dest: Nodes) -> None:
        """Pages of a process at sorted ``addresses`` were moved from one node to another each, just now."""
        now_ns, owner = time.monotonic_ns(), (process.pid, process.start_ticks)
        ways = source.astype(np.int64) << 32 | dest.astype(np.int64)
        for way in distinct(ways).tolist():
            pages = addresses[ways == way]
            spans = joined(np.stack([pages, pages + _PAGE], axis=1))
            self.round_trips.note(now_ns, owner, spans, way >> 32, way & 0xFFFFFFFF)

    def advised(self, scheme: Scheme, process: Process, ranges: Ranges, opposite: int) -> None:
        """An advice was accepted on these ranges that ``opposite`` undoes."""
        self._opposite[scheme] = opposite
        records = self._advised.setdefault(scheme, [])
        known = [record for record in records if record.process is process]
        if known:
            both = np.concatenate([known[0].ranges, ranges])
            known[0].ranges = np.unique(both, axis=0)[:MAX_RANGES]
        elif len(ranges):
            records.append(_Record(process, ranges, np.empty(0, np.int32)))

    def undo(self, scheme: Scheme) -> Undone:
        """Move pages back to the node that each first came from, and give the opposite of what was advised.

        What is once undone is forgotten. Raises MachineError if a permission was lost.
        """
        done = Undone()
        gone = 0
        for record in _by_process(self._moved.pop(scheme, [])):
            self._left += len(record.ranges)
            if _held(record.process):
                done.migrated_back += _move_back(record)
            elif record.process.pidfd < 0:
                gone += 1
        if gone:
            done.remarks.append(f"pages of {gone} processes that have left stay on their new nodes")
        if self.forgotten:
            done.remarks.append(f"{self.forgotten} bytes stay on their new nodes: where they came from was not kept")
            self.forgotten = 0
        for record in filter(lambda record: _held(record.process), self._advised.pop(scheme, [])):
            accepted = madvise.advise(record.process, record.ranges, self._opposite[scheme])
            done.advice_reversed += int((record.ranges[:, 1] - record.ranges[:, 0])[accepted].sum())
        if scheme.does.stays is not None:
            done.remarks.append(scheme.does.stays)
        return done


def _by_process(records: list[_Record]) -> list[_Record]:
    """One record per process, the oldest ranges first."""
    found: dict[int, list[_Record]] = {}
    for record in records:
        found.setdefault(id(record.process), []).append(record)
    return [
        _Record(
            some[0].process,
            np.concatenate([record.ranges for record in some]),
            np.concatenate([record.nodes for record in some]),
        )
        for some in found.values()
    ]


def _held(process: Process) -> bool:
    """Whether the process lives and is still held by its pidfd: one that was let go may be another by now."""
    return process.pidfd >= 0 and process.alive()


def _move_back(record: _Record) -> int:
    back = 0
    # In parts of at most some GiB, so that the addresses of all pages are never there at once. A page that was moved
    # more than once stands in several ranges; going over them from the newest to the oldest ends at its first home.
    pages = (record.ranges[:, 1] - record.ranges[:, 0]).astype(np.int64) // PAGE_SIZE
    part = np.cumsum(pages[::-1]) >> 18
    for number in np.unique(part):
        index = np.flatnonzero(part[::-1] == number)
        addresses = expand(record.ranges[index])
        homes = np.repeat(record.nodes[index], pages[index])
        # Within a part the oldest of a page's ranges decides.
        addresses, first = np.unique(addresses, return_index=True)
        homes = homes[first]
        now = move_pages.nodes_of(record.process, addresses)
        away = np.flatnonzero((now >= 0) & (now != homes))
        try:
            move_pages.move(record.process, addresses[away], homes[away])
        except MachineError:
            if record.process.alive():
                raise
        back += int(np.count_nonzero(move_pages.nodes_of(record.process, addresses[away]) == homes[away])) * PAGE_SIZE
    return back
