"""Moments into a record."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydamon.engines.on_core import panel_row
from pydamon.records.writer import RecordWriter
from pydamon.views.moments import Moment

Row = dict[str, Any]


class MomentWriter:
    """Adds moments, in the order of time, to an open record: each with all that is known of it."""

    def __init__(self, writer: RecordWriter, known: Collection[int] = ()) -> None:
        """``known`` targets are in the record's description."""
        self._writer = writer
        self._introduced = set(known)
        self._looks_ns: dict[int, int] = {}  # target → when its last look was
        self.snapshots = 0

    def add(self, moment: Moment) -> None:
        """The next moment. Raises as the writer does."""
        for known in moment.targets.values():
            snapshot = known.snapshot
            if known.target not in self._introduced:
                self._introduced.add(known.target)
                who = {"target": known.target, "pid": known.pid, "command": known.command or "", "start_ticks": None}
                self._writer.add_rows("targets", [{"time_ns": snapshot.start_ns, **who}])
            self._writer.add_mappings(snapshot.start_ns, snapshot.target, known.mapped.mappings)
            self._writer.add_snapshot(snapshot)
            self.snapshots += 1
        for table, rows in self._tables(moment).items():
            self._writer.add_rows(table, rows, time_ns=moment.time_ns)
        self._writer.tick(moment.time_ns)

    def _tables(self, moment: Moment) -> dict[str, list[Row]]:
        """The rows of side tables of a moment; of looks those that are not written yet."""
        tables: dict[str, list[Row]] = {"panel": [], "footprint": [], "schemes": [], "cost": []}
        for known in moment.targets.values():
            for look in known.looks:
                if look.time_ns > self._looks_ns.get(look.target, -1):
                    self._looks_ns[look.target] = look.time_ns
                    tables["panel"].append(panel_row(look))
            if known.footprint is not None:
                tables["footprint"].append({"time_ns": moment.time_ns, **known.footprint})
        tables["schemes"] += [{**row, "time_ns": moment.time_ns} for row in moment.schemes]
        if moment.cost is not None:
            tables["cost"].append({**moment.cost, "time_ns": moment.time_ns})
        return {name: rows for name, rows in tables.items() if rows}
