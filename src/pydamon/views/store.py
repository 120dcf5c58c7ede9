"""What is monitored, kept once: the latest of each target, and a bounded history of it to go back to.

    store = Store()
    run = Run(spec, request, observers=[store])     # who monitors by itself
    moment = store.latest()                         # a Moment; None as long as nothing was found
    moment = store.at(time_ns)                      # as it was then; step(moment, -1) is the one before
    view = live(moment)                             # views/live.py: typed fields, as JSON, in metrics, on a screen

A record is looked at the same way: ``Recorded(reader)`` (``views/recorded.py``) has `latest`, `at`, `step` and `span`,
too: both are a `History`. A `Moment` is never changed, and making one copies nothing; what follows from it is worked
out by whoever asks, when he asks. The history is packed into memory that is there from the start: a process that
monitors is as large after a week as after a minute. One thread fills a store, any may ask it.
"""

from __future__ import annotations

import pickle
import threading
import zlib
from bisect import bisect_right
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from typing import Any

from pydamon.analysis.panel import look_of
from pydamon.core.panel import Look
from pydamon.core.snapshot import Snapshot
from pydamon.linux.containers import Container
from pydamon.linux.process import Mapping
from pydamon.run.found import SECOND_NS, Found, Origin
from pydamon.views.block import Block
from pydamon.views.moments import LOOKS, Known, Mapped, Moment
from pydamon.views.packing import packed, unpacked
from pydamon.views.returned import Returned

MOST_BYTES = 6 << 20  # as packed: hours of one process, a moment a second
_MAPPED_SHARE = 4  # beside it at most this part of it for what was mapped
_FASTEST = 1  # level of compression


class Store:
    """A `History` of what runs: an observer of a `Run` (`run.found.Observer`).

    The latest moment is always there; beside it one for each ``every_ns`` is kept in ``most_bytes``, the oldest dropped
    where a new one needs the room.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES, every_ns: int = SECOND_NS) -> None:
        self._every_ns = every_ns
        self._lock = threading.Lock()  # of the history
        self._history = Block(most_bytes)
        self._layouts = _Layouts(most_bytes // _MAPPED_SHARE)
        self._latest: Moment | None = None
        self._origin: Origin | None = None
        self._who: dict[int, Dict[str, Any]] = {}
        self._places: dict[int, Container] = {}
        self._mapped: dict[int, Mapped] = {}
        self._looks: dict[int, tuple[Look, ...]] = {}
        self._first_looks: dict[int, int] = {}
        self._footprints: dict[int, Dict[str, Any]] = {}
        self._returned = Returned()
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
                self._returned.note_look(look, row["pages"])
        self._footprints |= {row["target"]: row for row in tables.get("footprint", ())}
        self._schemes = tables.get("schemes", self._schemes)
        for row in tables.get("cost", ()):
            self._cost = row

    def _known(self, snapshot: Snapshot, mappings: list[Mapping]) -> Known:
        target = snapshot.target
        if target not in self._looks:
            self._returned.note_regions(snapshot)
        mapped = self._mapped.get(target)
        if mapped is None or (mapped.mappings is not mappings and mapped.mappings != mappings):
            mapped = self._mapped[target] = Mapped(mappings)
        mapped.mappings = mappings  # it is read anew all the time, and mostly the same
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
            returned=self._returned.of(target),
        )

    def _forget_except(self, living: Dict[int, Known]) -> None:
        """A number stands for one process for ever: what is kept of those that are gone would only grow."""
        held: tuple[dict[int, Any], ...] = (self._mapped, self._looks, self._first_looks, self._footprints)
        self._returned.only(living)
        for kept in (*held, self._places, self._who):
            for target in kept.keys() - living.keys():
                if target < max(living, default=0):  # one that has just joined has no snapshot yet
                    del kept[target]

    def _keep(self, moment: Moment) -> None:
        with self._lock:
            self._latest = moment
            history = self._history
            if len(history) and moment.time_ns - history.time_ns(len(history) - 1) < self._every_ns:
                return
            layouts = self._layouts
            history.add(moment.time_ns, packed(moment, lambda known: layouts.key_of(known, moment.time_ns)))
            layouts.only(moment.targets, moment.time_ns)
            while len(history) > 1 and history.time_ns(0) < layouts.lost_ns:
                history.drop()

    # -- asking it ----------------------------------------------------------------------------------------------------

    def latest(self) -> Moment | None:
        """See `History`."""
        return self._latest

    def at(self, time_ns: int) -> Moment | None:
        """See `History`."""
        with self._lock:
            return self._moment(max(self._place(time_ns), 0))

    def step(self, moment: Moment, by: int) -> Moment | None:
        """See `History`."""
        with self._lock:
            return self._moment(min(max(self._place(moment.time_ns) + by, 0), self._count() - 1))

    def after(self, time_ns: int) -> Moment | None:
        """The first moment that is later; None if there is none."""
        with self._lock:
            place = self._place(time_ns) + 1
            return self._moment(place) if place < self._count() else None

    def span(self) -> tuple[int, int] | None:
        """See `History`."""
        with self._lock:
            count = self._count()
            return (self._time_ns(0), self._time_ns(count - 1)) if count else None

    # With the lock: moments by their places. The latest is the last of them, kept or not.

    def _count(self) -> int:
        kept, latest = len(self._history), self._latest
        is_kept = latest is None or (kept > 0 and self._history.time_ns(kept - 1) == latest.time_ns)
        return kept if is_kept else kept + 1

    def _time_ns(self, place: int) -> int:
        if place < len(self._history):
            return self._history.time_ns(place)
        assert self._latest is not None
        return self._latest.time_ns

    def _place(self, time_ns: int) -> int:
        return bisect_right(range(self._count()), time_ns, key=self._time_ns) - 1

    def _moment(self, place: int) -> Moment | None:
        latest, count = self._latest, self._count()
        if latest is None or place == count - 1:
            return latest
        return unpacked(self._history.piece(place), latest.origin, self._layouts.mapped)


class _Layouts:
    """What targets have mapped, or had when a moment that is kept was the latest: each list once, by a number.

    Lists that are not mapped any more are packed into memory that is there from the start, too: pieces that stay for
    long among others that do not would keep whole pages. ``lost_ns``: those that were mapped before are not all there.
    """

    def __init__(self, most_bytes: int) -> None:
        self.lost_ns = -1
        self._next = 0
        self._numbers: dict[int, int] = {}  # of what each target has mapped now
        self._now: dict[int, Mapped] = {}  # that, by its number
        self._before = Block(most_bytes)  # the others, with the time since when they are not mapped any more

    def key_of(self, known: Known, now_ns: int) -> int:
        """The number for what the target has mapped now."""
        key = self._numbers.get(known.target, -1)
        if self._now.get(key) is not known.mapped:
            self._put_away(key, now_ns)
            key = self._numbers[known.target] = self._next
            self._now[key] = known.mapped
            self._next += 1
        return key

    def only(self, living: Dict[int, Known], now_ns: int) -> None:
        """No other targets live."""
        for target in self._numbers.keys() - living.keys():
            self._put_away(self._numbers.pop(target), now_ns)

    def _put_away(self, key: int, now_ns: int) -> None:
        mapped = self._now.pop(key, None)
        if mapped is not None:
            # Pickled, as the moments are: names are any bytes, which other formats of text refuse.
            data = zlib.compress(pickle.dumps(list(mapped.mappings), pickle.HIGHEST_PROTOCOL), _FASTEST)
            self.lost_ns = max(self.lost_ns, self._before.add(now_ns, data, key))

    def mapped(self, key: int) -> Mapped:
        """What a number stands for."""
        now = self._now.get(key)
        return Mapped(pickle.loads(zlib.decompress(self._before.of(key)))) if now is None else now
