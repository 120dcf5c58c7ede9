"""Moves what an engine yields into a record, with what belongs to it: mappings, owners, costs, schemes, footprints."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

from pydamon.core.snapshot import Snapshot
from pydamon.errors import MachineError
from pydamon.linux import resctrl
from pydamon.linux.footprint import read_footprint
from pydamon.records import hits
from pydamon.records.rotating import RotatingWriter
from pydamon.records.scheme_tables import scheme_rows, tried_table
from pydamon.records.writer import RecordWriter
from pydamon.run.live import is_live
from pydamon.run.plans import take_plans
from pydamon.run.request import Request

if TYPE_CHECKING:  # imported where they are used: starting up counts against the bound on the CPU share
    from pydamon.ops.paddr import PaddrOps
    from pydamon.run.open import Engine

_SECOND_NS = 1_000_000_000
_MOST_FOOTPRINTS = 64

Writer = RecordWriter | RotatingWriter


def open_writer(request: Request, metadata: dict[str, Any]) -> Writer:
    """The file, or the series of files, that the request names."""
    if request.rotate is None:
        return RecordWriter(request.output, metadata=metadata)
    max_bytes, max_ns = request.rotate
    return RotatingWriter(request.output, metadata=metadata, max_bytes=max_bytes, max_ns=max_ns, keep=request.keep)


class Recorder:
    """Runs an engine, writes what it yields into a record (without a ``writer``: nowhere), and tells how it goes.

    ``say`` gets lines for the user, ``plan`` those of a dry run; ``every_second`` is called with the time in ns.
    """

    def __init__(
        self,
        writer: Writer | None,
        engine: Engine,
        *,
        say: Callable[[str], object],
        plan: Callable[[str], object] | None = None,
        planned_ranges: int = 1000,
        every_second: Callable[[int], object] | None = None,
    ) -> None:
        self.snapshots = 0
        self.began_ns = engine.clock.now_ns()
        self._writer = writer
        self._engine = engine
        self._say = say
        self._plan = plan
        self._planned_ranges = planned_ranges
        self._every_second = every_second
        self._due_ns = self.began_ns + _SECOND_NS
        self._owners_of = 0  # refreshes of the reverse map that are in the record
        self._noted_ns: int | None = None
        self._passes: dict[int, int] = {}  # of each scheme, that are in the record
        self._resctrl = _open_resctrl(engine) if writer is not None else None
        self._probed: list[hits.ProbedRegions] = []  # what is not in the record yet
        if isinstance(writer, RotatingWriter):
            writer.before_next = lambda: self._note_probes(writer)  # they belong to the part with their snapshots

    def run(self) -> None:
        """Until the engine ends; whatever was yielded is in the record, or an error is raised."""
        for snapshots in self._engine.monitor():
            now_ns = self._engine.clock.now_ns()
            self._note_changes(now_ns)
            self.snapshots += sum(bool(len(snapshot.start)) for snapshot in snapshots)
            due = now_ns >= self._due_ns
            if self._writer is not None:
                self._note_owners(self._writer, snapshots, now_ns)
                self._note_snapshots(self._writer, snapshots)
                if due:
                    self._note_rest(self._writer, now_ns)
                self._writer.tick(now_ns)
            if due:
                self._due_ns = now_ns + _SECOND_NS
                if self._every_second is not None:
                    self._every_second(now_ns)
        now_ns = self._engine.clock.now_ns()
        self._note_changes(now_ns)
        if self._writer is not None:
            self._note_cost(self._writer, now_ns)
            self._note_schemes(self._writer, now_ns)
            self._note_probes(self._writer)

    def _note_snapshots(self, writer: Writer, snapshots: list[Snapshot]) -> None:
        ops, attributes = self._engine.kdamond.ops, self._attributes()
        for snapshot in snapshots:
            writer.add_mappings(snapshot.start_ns, snapshot.target, ops.mappings(snapshot.target))
            writer.add_snapshot(snapshot)
            count = len(snapshot.probe_hits)
            if count and len(snapshot.start):
                # Just after the probes were changed their number may be another.
                names = attributes if len(attributes) == count else [f"probe {number}" for number in range(count)]
                self._probed.append(hits.of_snapshot(snapshot, names))

    def _attributes(self) -> list[str]:
        """What the probes are about."""
        if not self._engine.kdamond.probes:
            return []
        from pydamon.spec.probes import describe_probe

        return [describe_probe(probe) for probe in self._engine.kdamond.probes]

    def _note_rest(self, writer: Writer, now_ns: int) -> None:
        self._note_cost(writer, now_ns)
        self._note_schemes(writer, now_ns)
        self._note_probes(writer)
        self._note_footprints(writer, now_ns)
        self._note_resctrl(writer, now_ns)
        writer.forget_mappings_except(self._engine.kdamond.targets)

    def _note_changes(self, now_ns: int) -> None:
        """Who has joined since the last look goes into the record, what the user should know to the user."""
        kdamond = self._engine.kdamond
        if is_live(self._engine):
            joined = self._engine.ops.take_joined()
            if self._writer is not None:
                self._writer.add_rows("targets", [{"time_ns": now_ns, **row} for row in joined], time_ns=now_ns)
            for notice in self._engine.ops.take_notices():
                self._say(notice)
        if kdamond.damos is None:
            return
        while kdamond.damos.notices:
            self._say(kdamond.damos.notices.pop(0))
        if self._plan is not None:
            for line in take_plans(kdamond, self.began_ns, now_ns, most=self._planned_ranges):
                self._plan(line)

    def _note_owners(self, writer: Writer, snapshots: list[Snapshot], now_ns: int) -> None:
        """Whose memory the regions of physical memory are, each time that was looked up anew."""
        ops = self._engine.kdamond.ops
        if not snapshots or not is_paddr(ops) or ops.reverse_map is None:
            return
        if ops.reverse_map.cost.refreshes != self._owners_of:
            self._owners_of = ops.reverse_map.cost.refreshes
            rows = ops.owner_rows(snapshots[0].start, snapshots[0].end)
            writer.add_rows("owners", [{"time_ns": now_ns, **row} for row in rows], time_ns=now_ns)
            cost = ops.reverse_map.cost
            row = {"time_ns": now_ns, "refreshes": cost.refreshes, "total_ns": cost.total_ns, "pages": cost.pages}
            writer.add_rows("reverse_map", [row], time_ns=now_ns)

    def _note_footprints(self, writer: Writer, now_ns: int) -> None:
        """How large the processes are; of many only the first: it is a file each."""
        if not is_live(self._engine):
            return
        rows = []
        for target, pid in list(self._engine.ops.live_pids().items())[:_MOST_FOOTPRINTS]:
            size = read_footprint(pid)
            if size is not None:
                rows.append({"time_ns": now_ns, "target": target, **size})
        writer.add_rows("footprint", rows, time_ns=now_ns)

    def _note_resctrl(self, writer: Writer, now_ns: int) -> None:
        if self._resctrl is None or not is_live(self._engine):
            return
        rows = self._resctrl.rows(now_ns, self._engine.ops.live_pids())
        writer.add_rows("resctrl", rows, time_ns=now_ns)
        for notice in self._resctrl.notices:
            self._say(notice)
        self._resctrl.notices.clear()

    def _note_cost(self, writer: Writer, now_ns: int) -> None:
        if is_live(self._engine):
            row = {"time_ns": now_ns, "cpu_ns": time.process_time_ns()}
            cost = self._engine.cost()
            row |= {name: getattr(cost, name) for name in ("checks", "check_ns", "clears", "clear_ns", "disturb_ns")}
            writer.add_rows("cost", [row], time_ns=now_ns)

    def _note_probes(self, writer: Writer) -> None:
        """The hits of the snapshots since the last time, in one table: there are many snapshots in a second."""
        if self._probed:
            writer.add_table(hits.TABLE, hits.hits_table(self._probed), time_ns=self._probed[0].time_ns)
            self._probed.clear()

    def _note_schemes(self, writer: Writer, now_ns: int) -> None:
        """Each scheme's statistics since the start, and the regions of its last pass if that is a new one."""
        damos = self._engine.kdamond.damos
        if damos is None or not damos.states or self._noted_ns == now_ns:
            return
        self._noted_ns = now_ns
        for number, state in enumerate(damos.states):
            if self._passes.get(number) != state.stats.nr_snapshots:
                self._passes[number] = state.stats.nr_snapshots
                for tried in list(state.tried):
                    writer.add_table("tried_regions", tried_table(now_ns, number, tried), time_ns=now_ns)
        writer.add_rows("schemes", scheme_rows(now_ns, damos.states), time_ns=now_ns)


def _open_resctrl(engine: Engine) -> resctrl.Resctrl | None:
    """The reader of cache occupancy and bandwidth, where the machine has them and processes are monitored."""
    if not is_live(engine) or is_paddr(engine.ops):
        return None
    try:
        return resctrl.Resctrl()
    except MachineError:
        return None  # most machines have none; `doctor` says why


def is_paddr(ops: object) -> TypeGuard[PaddrOps]:
    """Whether physical memory is monitored."""
    return getattr(ops, "name", None) == "paddr"
