"""From region lines of a trace to snapshots: which lines belong together, and what interval they are about.

A snapshot of a target is ``nr_regions`` consecutive lines of it, addresses ascending. Its time is that of its first
line, as in damo; each line of a real trace is a few microseconds after the one before. The interval begins where the
target's snapshot before it ended; for the first one its length is taken from the second.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pydamon.core.columns import Array
from pydamon.errors import RequestError
from pydamon.records.decode import Rows
from pydamon.records.formats.trace_intervals import Tuning
from pydamon.records.formats.trace_lines import NO_LINES, NO_REGION, Lines

MAX_TARGETS = 4096
# Lines of one snapshot are printed in one go; where addresses go back after a longer pause, lines were lost.
_PAUSE_NS = 1_000_000


@dataclass(slots=True)
class SnapshotBuilder:
    """Groups lines into snapshots, in blocks; what may go on in the next block is held back.

    ``targets`` are the ids of the targets in the order of their numbers. ``incomplete`` counts snapshots that have
    not as many lines as they say, ``incomplete_lines`` their lines: they are left out. ``leaps`` counts snapshots
    whose time is far from those before and after them, which are left out as well. ``end_marks``: when the snapshot
    after a target's only one would have ended, where the text tells.
    """

    sample_us: int
    aggr_us: int
    path: str
    targets: list[int] = field(default_factory=list)
    end_marks: dict[int, int] = field(default_factory=dict)
    tuning: Tuning | None = None
    incomplete: int = 0
    incomplete_lines: int = 0
    leaps: int = 0
    _numbers: dict[int, int] = field(default_factory=dict)
    _newest_ns: dict[int, int] = field(default_factory=dict)
    _held: Lines = NO_LINES

    def add(self, lines: Lines, *, last: bool) -> Rows | None:
        """The snapshots that are whole by now; None if there is none. Raises RequestError for too many targets."""
        if len(self._held):
            lines = Lines.join([self._held, lines])
            self._held = NO_LINES
        if not len(lines):
            return None
        firsts, whole, held = self._snapshots(lines, last)
        if held < len(lines):
            self._held = lines.pick(slice(held, None))
            lines = lines.pick(slice(0, held))
        return self._rows(lines, firsts, whole) if len(firsts) else None

    def _snapshots(self, lines: Lines, last: bool) -> tuple[NDArray[np.intp], NDArray[np.bool_], int]:
        """(first line of each snapshot, which snapshots are whole, from which line on all is held back)."""
        target, nr_regions, start, time_ns = lines.target, lines.nr_regions, lines.start, lines.time_ns
        another = (target[1:] != target[:-1]) | (nr_regions[1:] != nr_regions[:-1])
        cuts = np.flatnonzero(another | (start[1:] <= start[:-1])) + 1
        firsts = np.concatenate([[0], cuts])
        counts = np.diff(np.append(firsts, len(lines)))
        wanted = nr_regions[firsts]
        if (counts[:-1] == wanted[:-1]).all() and (counts[-1] == wanted[-1] or (counts[-1] < wanted[-1] and not last)):
            held = len(lines) if counts[-1] == wanted[-1] else int(firsts[-1])
            firsts = firsts[firsts < held]
            return firsts, np.ones(len(firsts), np.bool_), held
        # Rare: lines are lost, damaged or doubled. Go from snapshot to snapshot.
        found: list[int] = []
        whole: list[bool] = []
        pauses = time_ns[1:] - time_ns[:-1] > _PAUSE_NS
        stops = np.append(np.flatnonzero(another | (pauses & (start[1:] <= start[:-1]))) + 1, len(lines))
        at = 0
        for stop in stops.tolist():
            while at < stop:
                count = int(nr_regions[at])
                if at + count > stop:
                    if stop == len(lines) and not last:
                        return np.array(found, np.intp), np.array(whole, np.bool_), at
                    count = stop - at
                    self.incomplete += 1
                    self.incomplete_lines += count
                found.append(at)
                whole.append(count == nr_regions[at])
                at += count
        return np.array(found, np.intp), np.array(whole, np.bool_), len(lines)

    def _number(self, target: int) -> int:
        if target not in self._numbers:
            if len(self.targets) >= MAX_TARGETS:
                raise RequestError(f"has more than {MAX_TARGETS} targets", where=self.path)
            self._numbers[target] = len(self.targets)
            self.targets.append(target)
        return self._numbers[target]

    def _rows(self, lines: Lines, firsts: NDArray[np.intp], whole: NDArray[np.bool_]) -> Rows | None:
        """The snapshots that are whole; of the others the time counts: an interval ended then, too."""
        counts = np.diff(np.append(firsts, len(lines)))
        end_ns = lines.time_ns[firsts]
        ids = lines.target[firsts]
        distinct, first_places, inverse = np.unique(ids, return_index=True, return_inverse=True)
        numbers = np.zeros(len(distinct), np.int64)
        for place in np.argsort(first_places).tolist():
            numbers[place] = self._number(int(distinct[place]))
        target = numbers[inverse]
        start_ns, likely = self._starts(target, end_ns)
        # The end mark of damo's text tells a time, and no more.
        real = (lines.nr_accesses[firsts] != NO_REGION) | (lines.start[firsts] != 0) | (counts != 1)
        self.leaps += int((real & whole & ~likely).sum())
        keep = real & whole & likely
        self.end_marks |= dict(zip(target[~real].tolist(), end_ns[~real].tolist(), strict=True))
        sample_us, aggr_us = np.full(len(counts), self.sample_us), np.full(len(counts), self.aggr_us)
        if self.tuning is not None:
            sample_us = self.tuning.sample_us(start_ns, end_ns, self.sample_us)
            aggr_us = np.where(sample_us == self.sample_us, self.aggr_us, self.tuning.aggr_us(sample_us))
        index = np.column_stack([counts, target, start_ns, end_ns, sample_us, aggr_us])
        if not keep.all():
            lines = lines.pick(np.repeat(keep, counts))
            index = index[keep]
        if not len(index):
            return None
        columns: dict[str, Array] = {
            "start": lines.start,
            "end": lines.end,
            "nr_accesses": lines.nr_accesses,
            "age": lines.age,
        }
        return Rows(index, columns)

    def _starts(
        self, target: NDArray[np.int64], end_ns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """(when each snapshot began, which of them are at a time that can be)."""
        start_ns = np.zeros(len(end_ns), np.int64)
        likely = np.ones(len(end_ns), np.bool_)
        for number in np.unique(target).tolist():
            places = np.flatnonzero(target == number)
            ends = end_ns[places]
            newest = self._newest_ns.get(number)
            good = _without_leaps(ends, newest)
            likely[places[~good]] = False
            places, ends = places[good], ends[good]
            if not len(ends):
                continue
            if newest is None:
                length = int(ends[1] - ends[0]) if len(ends) > 1 and ends[1] > ends[0] else self.aggr_us * 1000
                newest = max(int(ends[0]) - length, 0)
            start_ns[places] = np.append(newest, np.maximum.accumulate(ends)[:-1])
            self._newest_ns[number] = max(int(ends.max()), newest)
        return start_ns, likely


def _without_leaps(ends: NDArray[np.int64], newest: int | None) -> NDArray[np.bool_]:
    """Which times stay if single ones that leap ahead of their successors are left out.

    One damaged time must not make all that follow look late. What is itself late is left to the check of the order.
    """
    good = np.ones(len(ends), np.bool_)
    before = np.append(ends[0] if newest is None else newest, ends[:-1])
    for place in np.flatnonzero(ends[1:] < ends[:-1]).tolist():
        if ends[place + 1] >= before[place] and (place or newest is not None):
            good[place] = False
    return good
