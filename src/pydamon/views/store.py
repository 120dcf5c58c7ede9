"""What is monitored, kept once: the latest of each target, and a bounded history of it to go back to.

    store = Store()
    run = Run(spec, request, observers=[store])     # who monitors by itself
    moment = store.latest()                         # a Moment; None as long as nothing was found
    moment = store.at(time_ns)                      # as it was then; step(moment, -1) is the one before
    view = live(moment)                             # views/live.py: typed fields, as JSON, in metrics, on a screen

A record is looked at the same way: ``Recorded(reader)`` (``views/recorded.py``) has `latest`, `at`, `step` and `span`,
too: both are a `History`. A `Moment` is never changed, and making one copies nothing; what follows from it is worked
out by whoever asks, when he asks. One thread fills a store, any may ask it.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import msgspec

from pydamon.analysis.panel import look_of
from pydamon.analysis.summary import Layout
from pydamon.core.panel import Look
from pydamon.core.snapshot import Snapshot
from pydamon.linux.containers import Container
from pydamon.linux.process import Mapping
from pydamon.run.found import SECOND_NS, Found, Origin

MOST_BYTES = 16 << 20
LOOKS = 3  # at a panel: an early one is left out for short windows (`analysis.panel.in_time`)
_HEAD_BYTES = 2000  # of what a moment keeps of a target beside its regions, about


class Mapped:
    """The mappings of a target, with what is worked out of them once."""

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        self.mappings = mappings

    @cached_property
    def layout(self) -> Layout:
        """As `analysis.summary.holdings` takes them."""
        return Layout(self.mappings)


class Known(msgspec.Struct, eq=False):
    """What was known of one target at one time.

    ``looks`` are the last ones at its page panel (none: it has none, or none yet), the first of all was at
    ``first_look_ns``; ``footprint`` is a row of that side table, None where it is not told.
    """

    target: int
    snapshot: Snapshot
    mapped: Mapped
    pid: int | None = None
    command: str | None = None
    place: Container | None = None
    looks: tuple[Look, ...] = ()
    first_look_ns: int | None = None
    footprint: Dict[str, Any] | None = None


class Moment(msgspec.Struct, frozen=True, eq=False):
    """What was known at ``time_ns`` (the time of snapshots) of the targets that lived, by their numbers.

    ``schemes`` and ``cost`` are the last rows of these side tables; ``began_ns`` is when monitoring began.
    """

    time_ns: int
    origin: Origin
    targets: Dict[int, Known]
    schemes: Sequence[Dict[str, Any]] = ()
    cost: Dict[str, Any] | None = None
    began_ns: int | None = None

    @property
    def size(self) -> int:
        """About how many bytes it holds on to."""
        return sum(
            sum(array.nbytes for array in known.snapshot.columns.values()) + _HEAD_BYTES
            for known in self.targets.values()
        )


class History(Protocol):
    """Moments in the order of time."""

    def latest(self) -> Moment | None:
        """The last one there is; None if there is none."""
        ...

    def at(self, time_ns: int) -> Moment | None:
        """As it was known at that time: the last moment that is not later, else the first; None if there is none."""
        ...

    def step(self, moment: Moment, by: int) -> Moment | None:
        """The moment so many steps later (negative: earlier), or the outermost there is; None if there is none."""
        ...

    def span(self) -> tuple[int, int] | None:
        """The times of the first and the last moment, in ns."""
        ...


class Store:
    """A `History` of what runs: an observer of a `Run` (`run.found.Observer`).

    The latest moment is always there; beside it one for each ``every_ns`` is kept, the oldest dropped as soon as all
    hold ``most_bytes``.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES, every_ns: int = SECOND_NS) -> None:
        self._most_bytes = most_bytes
        self._every_ns = every_ns
        self._lock = threading.Lock()  # of the history
        self._history: deque[tuple[Moment, int]] = deque()
        self._held = 0
        self._latest: Moment | None = None
        self._origin: Origin | None = None
        self._who: dict[int, Dict[str, Any]] = {}
        self._places: dict[int, Container] = {}
        self._mapped: dict[int, Mapped] = {}
        self._looks: dict[int, tuple[Look, ...]] = {}
        self._first_looks: dict[int, int] = {}
        self._footprints: dict[int, Dict[str, Any]] = {}
        self._schemes: Sequence[Dict[str, Any]] = ()
        self._cost: Dict[str, Any] | None = None
        self._began_ns: int | None = None

    # -- filling it ---------------------------------------------------------------------------------------------------

    def begin(self, origin: Origin) -> None:
        """Who finds what comes."""
        self._origin = origin
        self._who = {row["target"]: row for row in origin.targets}

    def note(self, found: Found) -> None:
        """What was found in one aggregation."""
        self._note_tables(found.tables)
        self._places |= found.places
        if found.end or self._origin is None:
            return
        if self._began_ns is None:
            self._began_ns = min((one.start_ns for one in found.snapshots), default=found.time_ns)
        known = {one.target: self._known(one, found.mapped[one.target]) for one in found.snapshots if len(one.start)}
        if found.second:
            self._forget_except(known)
        time_ns = max((one.end_ns for one in found.snapshots), default=found.time_ns)
        self._keep(Moment(time_ns, self._origin, known, self._schemes, self._cost, self._began_ns))

    def _note_tables(self, tables: Dict[str, Sequence[Dict[str, Any]]]) -> None:
        for row in tables.get("targets", ()):
            self._who[row["target"]] = row
        for row in tables.get("panel", ()):
            if (look := look_of(row)) is not None:
                self._looks[look.target] = (*self._looks.get(look.target, ())[1 - LOOKS :], look)
                self._first_looks.setdefault(look.target, look.time_ns)
        self._footprints |= {row["target"]: row for row in tables.get("footprint", ())}
        self._schemes = tables.get("schemes", self._schemes)
        for row in tables.get("cost", ()):
            self._cost = row

    def _known(self, snapshot: Snapshot, mappings: list[Mapping]) -> Known:
        target = snapshot.target
        mapped = self._mapped.get(target)
        if mapped is None or mapped.mappings is not mappings:
            mapped = self._mapped[target] = Mapped(mappings)
        who = self._who.get(target, {})
        return Known(
            target,
            snapshot,
            mapped,
            pid=who.get("pid"),
            command=who.get("command"),
            place=self._places.get(target),
            looks=self._looks.get(target, ()),
            first_look_ns=self._first_looks.get(target),
            footprint=self._footprints.get(target),
        )

    def _forget_except(self, living: Dict[int, Known]) -> None:
        """A number stands for one process for ever: what is kept of those that are gone would only grow."""
        held: tuple[dict[int, Any], ...] = (self._mapped, self._looks, self._first_looks, self._footprints)
        for kept in (*held, self._places, self._who):
            for target in kept.keys() - living.keys():
                if target < max(living, default=0):  # one that has just joined has no snapshot yet
                    del kept[target]

    def _keep(self, moment: Moment) -> None:
        with self._lock:
            self._latest = moment
            if self._history and moment.time_ns - self._history[-1][0].time_ns < self._every_ns:
                return
            size = moment.size
            self._history.append((moment, size))
            self._held += size
            while self._held > self._most_bytes and len(self._history) > 1:
                self._held -= self._history.popleft()[1]

    # -- asking it ----------------------------------------------------------------------------------------------------

    def latest(self) -> Moment | None:
        """See `History`."""
        return self._latest

    def at(self, time_ns: int) -> Moment | None:
        """See `History`."""
        moments = self._moments()
        place = bisect_right(moments, time_ns, key=lambda moment: moment.time_ns)
        return moments[max(place - 1, 0)] if moments else None

    def step(self, moment: Moment, by: int) -> Moment | None:
        """See `History`."""
        moments = self._moments()
        if not moments:
            return None
        place = bisect_right(moments, moment.time_ns, key=lambda one: one.time_ns) - 1
        return moments[min(max(place + by, 0), len(moments) - 1)]

    def span(self) -> tuple[int, int] | None:
        """See `History`."""
        moments = self._moments()
        return (moments[0].time_ns, moments[-1].time_ns) if moments else None

    def _moments(self) -> list[Moment]:
        with self._lock:
            moments = [moment for moment, _ in self._history]
            if self._latest is not None and moments[-1] is not self._latest:
                moments.append(self._latest)
        return moments
