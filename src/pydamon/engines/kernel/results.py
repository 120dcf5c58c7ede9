"""What the kernel's DAMON has found, as snapshots: from its trace events, or from schemes' tried regions.

The events are complete: one per region and aggregation. Tried regions are looked at now and then, four small files a
region; they need no tracefs.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.core.scheme_state import Tried
from pydamon.core.snapshot import Snapshot, max_nr_accesses
from pydamon.linux.damon_sysfs import Tree
from pydamon.linux.damon_trace import AGGREGATED, OF_SCHEMES, TUNED, Events, TraceInstance
from pydamon.spec import Intervals
from pydamon.spec.damon_files import files_in
from pydamon.spec.probes import MAX_PROBES
from pydamon.spec.statistics import STATISTICS

_SETTLED_NS = 20_000_000  # the events of one aggregation follow each other in much less
_REGION = "schemes/*/tried_regions/*"
# What the kernel tells in units of addresses: of regions, of schemes' events, and statistics.
IN_UNITS = frozenset(
    {"start", "end", "sz_filter_passed", "esz", *(n for n, row in STATISTICS.items() if row.unit == "bytes")}
)


@dataclass(frozen=True, slots=True)
class InForce:
    """The intervals from a time on (ns); ``restarts``: an aggregation began anew then."""

    since_ns: int
    sample_us: int
    aggr_us: int
    restarts: bool = False


class IntervalsLog:
    """Which intervals were in force when; safe from any thread."""

    def __init__(self, began_ns: int, intervals: Intervals) -> None:
        self._log = deque([InForce(began_ns, intervals.sample_us, intervals.aggr_us, True)])
        self._lock = threading.Lock()

    def change(self, at_ns: int, sample_us: int, aggr_us: int, *, restarts: bool) -> None:
        """From now on others."""
        with self._lock:
            if at_ns < self._log[-1].since_ns:
                return
            self._log.append(InForce(at_ns, sample_us, aggr_us, restarts))

    def latest(self) -> InForce:
        """Those in force now."""
        with self._lock:
            return self._log[-1]

    def during(self, start_ns: int, end_ns: int) -> InForce:
        """Those of an aggregation that began at ``start_ns``; what is older is forgotten.

        Intervals that the kernel has tuned hold from the next aggregation on, those of a commit at once.
        """
        with self._lock:
            at = 0
            for index, entry in enumerate(self._log):
                # The tuner acts just before the results are handed out that belong to the intervals before.
                if entry.since_ns <= (end_ns if entry.restarts else start_ns):
                    at = index
            for _ in range(at):
                self._log.popleft()
            return self._log[0]


@dataclass(frozen=True, slots=True)
class SchemeEvent:
    """A trace event of a scheme: its name, and its fields as the kernel calls them."""

    time_ns: int
    name: str
    values: dict[str, int]


class TraceResults:
    """Snapshots from ``damon_aggregated`` events of one kdamond; ``incomplete`` counts those that lacked regions.

    ``running`` says which targets the kernel has (their numbers, in its order) since when (ns); it may grow. ``unit``
    is how many bytes an address or a size stands for.
    """

    def __init__(
        self,
        instance: TraceInstance,
        kdamond_pid: int,
        running: Sequence[tuple[int, tuple[int, ...]]],
        log: IntervalsLog,
        *,
        unit: int = 1,
    ) -> None:
        self.incomplete = 0
        self._instance = instance
        self._pid = kdamond_pid
        self._running = running
        self._unit = unit
        self._log = log
        self._left: Events | None = None
        self._open: list[Snapshot] = []  # of an aggregation whose other targets may follow
        self._last_end_ns: dict[int, int] = {}
        self._of_schemes: list[SchemeEvent] = []

    @property
    def lost(self) -> int:
        """Events that were overwritten before they were read."""
        return self._instance.lost

    def take(self, now_ns: int, *, final: bool = False) -> list[list[Snapshot]]:
        """What was aggregated since the last call: for each aggregation one snapshot per target."""
        events = self._instance.take()
        if TUNED in events and len(events[TUNED]):
            self._note_tuned(events[TUNED])
        for name in OF_SCHEMES:
            if name in events:
                self._note_scheme_events(name, events[name])
        groups: list[list[Snapshot]] = []
        for snapshot in self._snapshots(self._ours(events[AGGREGATED])):
            if self._open and snapshot.target <= self._open[-1].target:
                groups.append(self._open)
                self._open = []
            self._open.append(snapshot)
        if self._open and (
            final or self._open[-1].target == self._running[-1][1][-1] or now_ns - self._open[-1].end_ns > _SETTLED_NS
        ):
            groups.append(self._open)
            self._open = []
        return groups

    def take_scheme_events(self, until_ns: int | None = None) -> list[SchemeEvent]:
        """Events of schemes that were seen by now, up to that time, in the order of time; each once."""
        self._of_schemes.sort(key=lambda event: event.time_ns)
        count = len(self._of_schemes)
        if until_ns is not None:
            count = sum(event.time_ns <= until_ns for event in self._of_schemes)
        found, self._of_schemes = self._of_schemes[:count], self._of_schemes[count:]
        return found

    def _note_scheme_events(self, name: str, events: Events) -> None:
        ours = np.flatnonzero(events.rows["common_pid"] == self._pid)
        fields = [field for field in events.rows.dtype.names or () if not field.startswith("common_")]
        for place in ours.tolist():  # they are only asked for where each becomes a line of text
            row = events.rows[place]
            values = in_bytes({field: int(row[field]) for field in fields}, self._unit)
            self._of_schemes.append(SchemeEvent(int(events.time_ns[place]), name, values))

    def _note_tuned(self, events: Events) -> None:
        before = self._log.latest()
        window = max_nr_accesses(before.sample_us, before.aggr_us)
        ours = events.rows["common_pid"] == self._pid
        for time_ns, sample_us in zip(
            events.time_ns[ours].tolist(), events.rows["sample_us"][ours].tolist(), strict=True
        ):
            self._log.change(time_ns, sample_us, sample_us * window, restarts=False)

    def _ours(self, events: Events) -> Events:
        ours = events.rows["common_pid"] == self._pid
        events = Events(events.time_ns[ours], events.cpu[ours], events.rows[ours])
        if self._left is not None and len(self._left):
            events = Events(
                np.concatenate([self._left.time_ns, events.time_ns]),
                np.concatenate([self._left.cpu, events.cpu]),
                np.concatenate([self._left.rows, events.rows]),
            )
        self._left = None
        return events

    def _snapshots(self, events: Events) -> list[Snapshot]:
        """Whole snapshots: as many events of one target as each of them says; the rest is kept for the next call."""
        rows = events.rows
        target, count = rows["target_id"].astype(np.int64), rows["nr_regions"].astype(np.int64)
        start, end = rows["start"].astype(np.uint64), rows["end"].astype(np.uint64)
        # A new snapshot begins at each event that does not continue the one before.
        fresh = np.ones(len(rows) + 1, bool)
        fresh[1:-1] = (target[1:] != target[:-1]) | (count[1:] != count[:-1]) | (start[1:] < end[:-1])
        firsts = np.flatnonzero(fresh)
        found = []
        for first, behind in zip(firsts[:-1].tolist(), firsts[1:].tolist(), strict=True):
            if behind - first != count[first]:
                if behind == len(rows) and behind - first < count[first]:
                    self._left = Events(events.time_ns[first:], events.cpu[first:], rows[first:])
                else:
                    self.incomplete += 1
                continue
            number = self._number(int(target[first]), int(events.time_ns[behind - 1]))
            if number is not None:
                found.append(self._snapshot(number, events, slice(first, behind)))
        return found

    def _number(self, place: int, time_ns: int) -> int | None:
        """Which target was the kernel's ``place``-th then."""
        running = next(targets for since_ns, targets in reversed(self._running) if since_ns <= time_ns or not since_ns)
        return running[place] if place < len(running) else None

    def _snapshot(self, target: int, events: Events, part: slice) -> Snapshot:
        rows, end_ns = events.rows[part], int(events.time_ns[part][-1])
        start_ns = self._last_end_ns.get(target, 0)
        in_force = self._log.during(start_ns, end_ns)
        if in_force.restarts:
            start_ns = max(start_ns, in_force.since_ns)
        self._last_end_ns[target] = end_ns
        return _snapshot(
            target, min(start_ns, end_ns), end_ns, in_force, rows["start"].astype(np.uint64) * np.uint64(self._unit),
            rows["end"].astype(np.uint64) * np.uint64(self._unit), rows["nr_accesses"],
            # Kernels before 5.16 have no ages.
            rows["age"] if "age" in (rows.dtype.names or ()) else np.zeros(len(rows), np.uint32),
        )  # fmt: skip


def _snapshot(
    target: int,
    start_ns: int,
    end_ns: int,
    in_force: InForce,
    start: NDArray[np.uint64],
    end: NDArray[np.uint64],
    nr_accesses: NDArray[np.uint32],
    age: NDArray[np.uint32],
) -> Snapshot:
    # Just after a change of the intervals a count may be above what the new ones allow.
    most = np.uint32(min(max_nr_accesses(in_force.sample_us, in_force.aggr_us), 2**32 - 1))
    return Snapshot(
        target=target,
        start_ns=start_ns,
        end_ns=end_ns,
        sample_us=in_force.sample_us,
        aggr_us=in_force.aggr_us,
        start=start.astype(np.uint64),
        end=end.astype(np.uint64),
        nr_accesses=np.minimum(nr_accesses.astype(np.uint32), most),
        age=age.astype(np.uint32),
    )


def in_bytes(values: dict[str, int], unit: int) -> dict[str, int]:
    """What the kernel tells, in bytes."""
    return {name: value * unit if name in IN_UNITS else value for name, value in values.items()}


def hits_of(probe: int) -> str:
    """The file, below a tried region, of the hits of a probe; also what `read_tried` calls that column."""
    return f"probes/{probe}/hits"


def read_tried(tree: Tree, scheme: str, nr_probes: int = 0) -> dict[str, NDArray[np.uint64]]:
    """The tried regions of a scheme's directory as parallel arrays, in the order in which they were tried.

    Raises OSError or ValueError if they are being changed meanwhile. Before Linux 6.14 nothing is said about what the
    filters let pass: that is then all of it.
    """
    here = f"{scheme}/tried_regions"
    numbers = sorted(int(name) for name in tree.list(here) if name.isdigit())
    first = f"{here}/{numbers[0]}" if numbers else here
    columns = [file.name for file in files_in(_REGION) if file.since is None or tree.exists(f"{first}/{file.name}")]
    columns += map(hits_of, range(nr_probes))
    table = [[int(tree.read(f"{here}/{number}/{column}")) for column in columns] for number in numbers]
    array = np.array(table, np.uint64).reshape(len(numbers), len(columns))
    found = {column: array[:, place] for place, column in enumerate(columns)}
    found.setdefault("sz_filter_passed", found["end"] - found["start"])
    return found


def tried_snapshot(
    regions: dict[str, NDArray[np.uint64]], target: int, start_ns: int, end_ns: int, in_force: InForce
) -> Snapshot:
    """The snapshot that the tried regions of a scheme for everything of one target are."""
    snapshot = _snapshot(
        target, start_ns, end_ns, in_force, regions["start"], regions["end"],
        regions["nr_accesses"].astype(np.uint32), regions["age"].astype(np.uint32),
    )  # fmt: skip
    hits = [regions[hits_of(probe)].astype(np.uint32) for probe in range(MAX_PROBES) if hits_of(probe) in regions]
    if not hits:
        return snapshot
    samples = np.full(len(snapshot.start), snapshot.max_nr_accesses, np.uint32)  # the kernel does not tell
    return snapshot.replace(probe_hits=np.minimum(np.stack(hits), samples), probe_samples=samples)


def tried_by_target(regions: dict[str, NDArray[np.uint64]], running: Sequence[int]) -> list[Tried]:
    """Tried regions, told apart by target: they come in the order of targets, each in the order of addresses.

    ``running`` are the numbers of the targets that the kernel has, in its order.

    The kernel does not say whose they are; where one begins below the end of the one before, the next target begins.
    """
    start, end = regions["start"], regions["end"]
    if not len(start):
        return []
    number = np.zeros(len(start), np.int64)
    number[1:] = np.cumsum(start[1:] < end[:-1])
    number = np.minimum(number, len(running) - 1)
    found = []
    for place in np.unique(number).tolist():
        of = number == place
        found.append(
            Tried(
                target=running[place],
                start=start[of],
                end=end[of],
                nr_accesses=regions["nr_accesses"][of].astype(np.int64),
                age=regions["age"][of].astype(np.int64),
                sz_applied=np.zeros(int(of.sum()), np.uint64),  # the kernel does not say of which region
                sz_filter_passed=regions["sz_filter_passed"][of],
            )
        )
    return found
