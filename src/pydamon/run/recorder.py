"""Moves what an engine yields into a record, with what belongs to it: mappings, owners, costs, schemes, footprints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydamon.engines.base import Engine, Rows
from pydamon.errors import MachineError
from pydamon.linux.mounts import mounts
from pydamon.records import hits
from pydamon.records.rotating import RotatingWriter
from pydamon.records.writer import RecordWriter
from pydamon.run.found import Found, Origin
from pydamon.run.request import Request

if TYPE_CHECKING:  # imported where there is something to tell: starting up counts against the bound on the CPU share
    from pydamon.linux import resctrl

Writer = RecordWriter | RotatingWriter


def open_writer(
    output: str,
    request: Request,
    metadata: dict[str, Any],
    stopped: Callable[[], bool],
    say: Callable[[str], object],
) -> Writer:
    """The file ``output``, or the series of files, as the request says; ``stopped`` as `RecordWriter`.

    ``say`` hears of pauses, where those are wanted.
    """
    if request.rotate is None:
        return RecordWriter(output, metadata=metadata, keep_old=not request.force, stopped=stopped)
    max_bytes, max_ns = request.rotate
    bounds: dict[str, Any] = {"max_bytes": max_bytes, "max_ns": max_ns, "keep": request.keep}
    if request.pause:
        bounds["say"] = say
    return RotatingWriter(output, metadata=metadata, keep_old=not request.force, **bounds)


class Recorder:
    """Writes what was found into a record, with what only a record has; ``say`` gets lines for the user."""

    def __init__(self, writer: Writer, engine: Engine, *, say: Callable[[str], object]) -> None:
        self._writer = writer
        self._engine = engine
        self._say = say
        self._passes: dict[int, int] = {}  # of each scheme, that are in the record
        self._resctrl = _open_resctrl(engine)
        self._probed: list[hits.ProbedRegions] = []  # what is not in the record yet
        if isinstance(writer, RotatingWriter):
            writer.before_next = self._note_probes  # they belong to the part with their snapshots

    def begin(self, origin: Origin) -> None:
        """The record's metadata have it."""

    def note(self, found: Found) -> None:
        """What was found in one aggregation."""
        tables = dict(found.tables)
        of_schemes = tables.pop("schemes", [])
        self._note_rows(found.time_ns, tables)
        self._note_snapshots(found)
        if of_schemes:
            self._note_tried(found.time_ns)
            self._note_rows(found.time_ns, {"schemes": of_schemes})
        if found.second:
            self._note_probes()
        if found.end:
            return
        if found.second:
            self._note_resctrl(found.time_ns)
            self._writer.forget_except({*(snapshot.target for snapshot in found.snapshots), *self._engine.living()})
        self._writer.tick(found.time_ns)

    def _note_rows(self, now_ns: int, tables: dict[str, Rows]) -> None:
        for name, rows in tables.items():
            self._writer.add_rows(name, [{"time_ns": now_ns, **row} for row in rows], time_ns=now_ns)

    def _note_snapshots(self, found: Found) -> None:
        attributes = self._attributes()
        for snapshot in found.snapshots:
            self._writer.add_mappings(snapshot.start_ns, snapshot.target, found.mapped[snapshot.target])
            self._writer.add_snapshot(snapshot)
            count = len(snapshot.probe_hits)
            if count and len(snapshot.start):
                # Just after the probes were changed their number may be another.
                names = attributes if len(attributes) == count else [f"probe {number}" for number in range(count)]
                self._probed.append(hits.of_snapshot(snapshot, names))

    def _attributes(self) -> list[str]:
        """What the probes are about."""
        probes = self._engine.context.probes
        if not probes:
            return []
        from pydamon.spec.probes import describe_probe

        return [describe_probe(probe) for probe in probes]

    def _note_resctrl(self, now_ns: int) -> None:
        if self._resctrl is None:
            return
        pids = {target: pid for target, pid in self._engine.living().items() if pid is not None}
        self._note_rows(now_ns, {"resctrl": self._resctrl.rows(now_ns, pids)})
        for notice in self._resctrl.notices:
            self._say(notice)
        self._resctrl.notices.clear()

    def _note_probes(self) -> None:
        """The hits of the snapshots since the last time, in one table: there are many snapshots in a second."""
        if self._probed:
            self._writer.add_table(hits.TABLE, hits.hits_table(self._probed), time_ns=self._probed[0].time_ns)
            self._probed.clear()

    def _note_tried(self, now_ns: int) -> None:
        """The regions of each scheme's last pass if that is a new one."""
        from pydamon.records.scheme_tables import tried_table

        for number, state in enumerate(self._engine.schemes()):
            if self._passes.get(number) != state.passes:
                self._passes[number] = state.passes
                for tried in list(state.tried):
                    self._writer.add_table("tried_regions", tried_table(now_ns, number, tried), time_ns=now_ns)


def _open_resctrl(engine: Engine) -> resctrl.Resctrl | None:
    """The reader of cache occupancy and bandwidth, where the machine has them and processes are monitored."""
    if engine.context.ops not in ("vaddr", "fvaddr") or not mounts("resctrl"):
        return None  # most machines have none; `doctor` says why
    from pydamon.linux import resctrl

    try:
        return resctrl.Resctrl()
    except MachineError:
        return None
