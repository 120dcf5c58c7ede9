"""A record as a `History`: the moments that a store had while it was recorded, read when they are asked for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from typing import Any

from pydamon.analysis.panel import look_of
from pydamon.core.panel import Look
from pydamon.core.snapshot import Snapshot
from pydamon.linux.process import Mapping
from pydamon.records.joined import AnyReader
from pydamon.run.found import Origin
from pydamon.views.store import LOOKS, Known, Mapped, Moment

_LATE = 3  # aggregations: a target of which nothing came for so long is gone
_MOST_MAPPED = 256  # targets whose mappings are kept


class Recorded:
    """What the open record ``reader`` tells; it stays open as long as this is asked. In one thread."""

    def __init__(self, reader: AnyReader) -> None:
        self._reader = reader
        self._range = reader.time_range()
        info = reader.info
        self._origin = Origin(
            engine=None,
            engine_reason=None,
            ops=info.ops,
            primitive=info.primitive,
            primitive_reason=info.primitive_reason,
            targets=[],
            wall_offset_ns=info.wall_offset_ns,
        )
        self._looks: dict[int, list[Look]] = {}
        for row in reader.table_rows("panel"):
            if (look := look_of(row)) is not None:
                self._looks.setdefault(look.target, []).append(look)
        self._footprints: dict[int, list[Dict[str, Any]]] = {}
        for row in reader.table_rows("footprint"):
            self._footprints.setdefault(row["target"], []).append(row)
        self._costs = list(reader.table_rows("cost"))
        self._schemes = list(reader.table_rows("schemes"))
        self._mapped: dict[tuple[int, int], Mapped] = {}
        self._mapping_times: dict[int, list[int]] = {}

    def latest(self) -> Moment | None:
        """See `History`."""
        return None if self._range is None else self.at(self._range[1])

    def span(self) -> tuple[int, int] | None:
        """The end of the first snapshot, and that of the last one."""
        if self._range is None:
            return None
        first = self._reader.snapshots_around(self._range[0])
        return (min(one.end_ns for one in first), self._range[1]) if first else self._range

    def at(self, time_ns: int) -> Moment | None:
        """See `History`."""
        near = self._reader.snapshots_around(time_ns)
        ends = sorted({one.end_ns for one in near})
        if not ends:
            return None
        return self._moment(ends[max(bisect_right(ends, time_ns) - 1, 0)], near)

    def step(self, moment: Moment, by: int) -> Moment | None:
        """See `History`."""
        time_ns = moment.time_ns
        near = self._reader.snapshots_around(time_ns)
        for _ in range(abs(by)):
            ends = sorted({one.end_ns for one in near})
            later, earlier = bisect_right(ends, time_ns), bisect_left(ends, time_ns) - 1
            place = later if by > 0 else earlier
            if not 0 <= place < len(ends):
                break
            time_ns = ends[place]
            near = self._reader.snapshots_around(time_ns)
        return self._moment(time_ns, near) if near else None

    def _moment(self, time_ns: int, near: Sequence[Snapshot]) -> Moment:
        found: dict[int, Snapshot] = {}
        for one in near:
            if time_ns - _LATE * (one.end_ns - one.start_ns) <= one.end_ns <= time_ns:
                found[one.target] = one
        cost = _last(self._costs, time_ns)
        schemes = _last(self._schemes, time_ns)
        return Moment(
            time_ns,
            self._origin,
            {target: self._known(one) for target, one in sorted(found.items())},
            [] if schemes is None else [row for row in self._schemes if row["time_ns"] == schemes["time_ns"]],
            cost,
            None if self._range is None else self._range[0],
        )

    def _known(self, snapshot: Snapshot) -> Known:
        target, time_ns = snapshot.target, snapshot.end_ns
        info = self._reader.info.target(target)
        looks = self._looks.get(target, [])
        until = bisect_right(looks, time_ns, key=lambda look: look.time_ns)
        return Known(
            target,
            snapshot,
            self._mapped_at(target, time_ns),
            pid=info.pid,
            command=info.command,
            looks=tuple(looks[max(until - LOOKS, 0) : until]),
            first_look_ns=looks[0].time_ns if looks else None,
            footprint=_last(self._footprints.get(target, ()), time_ns),
        )

    def _mapped_at(self, target: int, time_ns: int) -> Mapped:
        """The target's mappings of that time; the same object as long as they are the same."""
        if target not in self._mapping_times:
            self._mapping_times[target] = sorted(self._reader.mapping_times(target))
        times = self._mapping_times[target]
        key = (target, bisect_right(times, time_ns))
        if key not in self._mapped:
            mappings: list[Mapping] = self._reader.mappings_at(target, time_ns) if times else []
            while len(self._mapped) >= _MOST_MAPPED:
                del self._mapped[next(iter(self._mapped))]
            self._mapped[key] = Mapped(mappings)
        return self._mapped[key]


def _last(rows: Sequence[Dict[str, Any]], time_ns: int) -> Dict[str, Any] | None:
    """The last row (in the order of time) that is not later."""
    place = bisect_right(rows, time_ns, key=lambda row: row["time_ns"])
    return rows[place - 1] if place else None
