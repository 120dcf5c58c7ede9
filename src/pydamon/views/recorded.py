"""A record as a `History`: the moments that a store had while it was recorded, read when they are asked for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping as Dict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pydamon.analysis.panel import look_of
from pydamon.core.snapshot import Snapshot
from pydamon.linux.process import Mapping
from pydamon.records.joined import AnyReader
from pydamon.records.side_tables import each_row
from pydamon.run.found import SECOND_NS, Origin
from pydamon.spans import distinct, places_of_distinct
from pydamon.views.moments import LOOKS, Known, Mapped, Moment

_LATE = 3  # aggregations: a target of which nothing came for so long is gone
# How far back side tables are looked at: they tell once a second, or as seldom as the bound on the CPU share lets them.
_BACK_NS = (5 * SECOND_NS, 60 * SECOND_NS, 600 * SECOND_NS)
_MOST_MAPPED = 256  # targets whose mappings are kept


class _Beside(msgspec.Struct, frozen=True):
    """What there is beside snapshots, by target: rows of side tables, and when panels were first looked at."""

    looks: Dict[int, list[dict[str, Any]]]
    footprints: Dict[int, list[dict[str, Any]]]
    first_looks: Dict[int, int]


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
        self._late_ns = SECOND_NS
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
        # Rows are of a time before the one at which they were written, by an aggregation at most.
        self._late_ns = max(SECOND_NS, *(2 * (one.end_ns - one.start_ns) for one in near))
        for one in near:
            if time_ns - _LATE * (one.end_ns - one.start_ns) <= one.end_ns <= time_ns:
                found[one.target] = one
        beside = _Beside(
            looks=self._last("panel", time_ns, LOOKS),
            footprints=self._last("footprint", time_ns, 1),
            first_looks=self._first_looks,
        )
        costs, schemes = self._rows("cost", time_ns), self._rows("schemes", time_ns)
        return Moment(
            time_ns,
            self._origin,
            {target: self._known(one, beside) for target, one in sorted(found.items())},
            [row for row in schemes if row["time_ns"] == schemes[-1]["time_ns"]],
            costs[-1] if costs else None,
            None if self._range is None else self._range[0],
        )

    def _known(self, snapshot: Snapshot, beside: _Beside) -> Known:
        target = snapshot.target
        info = self._reader.info.target(target)
        looks = [look for row in beside.looks.get(target, ()) if (look := look_of(row)) is not None]
        return Known(
            target,
            snapshot,
            self._mapped_at(target, snapshot.end_ns),
            pid=info.pid,
            command=info.command,
            looks=tuple(looks),
            first_look_ns=beside.first_looks.get(target) if looks else None,
            footprint=next(iter(beside.footprints.get(target, ())), None),
        )

    @cached_property
    def _first_looks(self) -> dict[int, int]:
        """When the panel of each target was looked at first: a pass over that table."""
        found: dict[int, int] = {}
        for _, piece in self._reader.pieces("panel"):
            times_ns = piece["time_ns"].to_numpy()
            targets, firsts, _ = places_of_distinct(piece["target"].to_numpy())
            for target, first in zip(targets.tolist(), firsts.tolist(), strict=True):
                found.setdefault(target, int(times_ns[first]))
        return found

    def _near(self, name: str, time_ns: int) -> pa.Table | None:
        """The rows of a side table that are not later, and not much earlier; None if there are none."""
        for back_ns in _BACK_NS:
            within = (time_ns - back_ns, time_ns + self._late_ns)
            pieces = [piece for _, piece in self._reader.pieces(name, within)]
            kept = [piece.filter(pc.less_equal(piece["time_ns"], time_ns)) for piece in pieces]
            table = pa.concat_tables(kept) if kept else None
            if table is not None and table.num_rows:
                return table
        return None

    def _rows(self, name: str, time_ns: int) -> list[dict[str, Any]]:
        table = self._near(name, time_ns)
        return [] if table is None else list(each_row(table))

    def _last(self, name: str, time_ns: int, most: int) -> dict[int, list[dict[str, Any]]]:
        """Of each target the last ``most`` rows of a side table, the last one last."""
        table = self._near(name, time_ns)
        if table is None:
            return {}
        targets = table["target"].to_numpy()
        wanted = np.concatenate([np.flatnonzero(targets == target)[-most:] for target in distinct(targets)])
        found: dict[int, list[dict[str, Any]]] = {}
        for row in each_row(table.take(np.sort(wanted))):
            found.setdefault(row["target"], []).append(row)
        return found

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
