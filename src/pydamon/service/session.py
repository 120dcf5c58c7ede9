"""A kdamond that runs in the background: monitors in the main thread, answers the control socket's requests."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

import msgspec

from pydamon.core.kdamond import Callbacks, Kdamond
from pydamon.errors import RequestError
from pydamon.records.schema import build_metadata
from pydamon.records.writer import check_output
from pydamon.run import account
from pydamon.run.ending import end_reason
from pydamon.run.launch import describe_exit, end
from pydamon.run.live import is_live
from pydamon.run.open import Opened, open_engine
from pydamon.run.recorder import Recorder, Writer, open_writer
from pydamon.run.request import Request
from pydamon.run.signals import Signals
from pydamon.run.undo import undo
from pydamon.service import protocol
from pydamon.service.log import Log
from pydamon.service.server import ControlServer
from pydamon.service.tuning import Parameters, tuned
from pydamon.spec import Scheme, Spec, to_builtins
from pydamon.spec.units import format_duration_ns

_MAX_REMEMBERED = 10_000  # schemes that may be undone
_PLANNED_RANGES = 5  # of one application of a dry run, in the log


class Session:
    """One kdamond with its engine, its record and its control socket.

    `run` opens the engine (raising PydamonError as ``pydamon record`` would), calls ``ready`` as soon as it monitors,
    and returns in the end what there is to tell about it. ``began_ns`` (CLOCK_MONOTONIC) is when the process began.
    """

    def __init__(self, request: Request, spec: Spec, *, name: str, log: Log, began_ns: int) -> None:
        self.name = name
        self._request = request
        self._spec = spec
        self._log = log
        self._output = request.output or None
        self._opened: Opened
        self._signals = Signals()
        self._began_ns = began_ns
        self._began_wall_ns = time.time_ns() - (time.monotonic_ns() - began_ns)
        self._snapshots = 0
        self._committed: Parameters | None = None
        self._commands: dict[int, str] = {}
        self._stop_asked = self._undo_asked = False
        self._undone: list[str] | None = None
        self._schemes: dict[Scheme, None] = {}  # all there were, in order
        self._child: Any = None
        self._child_fate: str | None = None

    # -- the main thread ------------------------------------------------------------------------------------------

    def run(self, server: ControlServer, ready: Any) -> dict[str, Any]:
        """Monitor until the end. ``ready`` is called with what is monitored; raises PydamonError or OSError."""
        if self._output is not None:
            check_output(self._output)
        with self._signals as signals:
            try:
                self._opened = opened = open_engine(
                    self._request,
                    self._spec,
                    callbacks=Callbacks(
                        before_start=lambda _: self._begin(server, ready),
                        after_aggregation=self._note,
                        before_terminate=self._before_end,
                    ),
                    signals=signals,
                    launched=self._note_child,
                    say=self._say,
                    real_time=True,
                    remember_homes=True,  # undoing may be asked for at the end
                )
                self._spec = opened.spec
                self._schemes |= dict.fromkeys(opened.spec.kdamonds[0].contexts[0].schemes)
                self._monitor(opened)
            finally:
                self._end_child()
            return self._report(self._end_reason())

    def _note_child(self, child: Any) -> None:
        self._child = child

    def _monitor(self, opened: Opened) -> None:
        engine = opened.engine
        try:
            writer = self._open_record(opened)
        except BaseException:
            opened.close()
            raise
        engine.kdamond.end_ns = opened.end_ns
        self._signals.on_stop = engine.kdamond.stop
        if self._signals.stopped:
            engine.kdamond.stop()
        self._say(opened.about)
        recorder = Recorder(
            writer,
            engine,
            say=self._say,
            plan=self._say if self._request.dry_run else None,
            planned_ranges=_PLANNED_RANGES,
        )
        with opened.groups, writer or contextlib.nullcontext():
            recorder.run()
        remarks = engine.ops.remarks() if is_live(engine) else getattr(engine, "remarks", list)()
        for remark in remarks:
            self._say(remark)

    def _open_record(self, opened: Opened) -> Writer | None:
        if self._output is None:
            return None
        return open_writer(self._request, build_metadata(**opened.metadata))

    def _begin(self, server: ControlServer, ready: Any) -> None:
        if self._opened.engine.kdamond.stop_requested:
            return
        server.start()
        try:
            ready(self._opened.about)
        except BrokenPipeError:  # who started us is gone, and does not know that we run
            self._say("the start was interrupted")
            self._opened.engine.kdamond.stop()

    def _note(self, kdamond: Kdamond) -> None:
        self._snapshots += any(len(snapshot.start) for snapshot in kdamond.snapshots)

    def _before_end(self, kdamond: Kdamond) -> None:
        """Undo while the operations set still has what it needs for that."""
        if self._undo_asked or self._request.undo:
            self._undone = undo(kdamond, self._schemes)

    def _end_child(self) -> None:
        if self._child is None:
            return
        still_runs = self._child.poll() is None
        status = end(self._child)
        self._child_fate = "ended, as it was still running" if still_runs else describe_exit(status)
        self._say(f"the command: {self._child_fate}")

    def _end_reason(self) -> str:
        if self._stop_asked:
            return "stopped"
        return end_reason(self._opened.engine, self._signals)

    def _report(self, reason: str) -> dict[str, Any]:
        report = self._describe() | {
            "state": "ended",
            "reason": reason,
            "command_fate": self._child_fate,
            "undone": self._undone,
        }
        elapsed = format_duration_ns(report["uptime_ns"])
        self._say(f"{reason} after {elapsed}: {self._snapshots} snapshots")
        return report

    def _say(self, line: str) -> None:
        print(f"pydamon: {line}", file=sys.stderr, flush=True)

    # -- the control socket's thread ------------------------------------------------------------------------------

    def handle(self, request: protocol.AnyRequest) -> dict[str, Any] | None:
        """Answer a request; None if the answer comes in the end. Raises PydamonError, and changes nothing then."""
        if isinstance(request, protocol.Status):
            return self.status()
        if isinstance(request, protocol.Tune):
            return self.tune(request)
        if isinstance(request, protocol.SetGoal):
            self._set_goals({request.name: request.value})
            return {"goal": request.name, "current_value": request.value}
        self._undo_asked |= request.undo
        self._stop_asked = True
        self._signals.stop()
        return None

    def status(self) -> dict[str, Any]:
        """All there is to know, in integers and with units in the names."""
        state = "stopping" if self._opened.engine.kdamond.stop_requested else "running"
        targets = account.live_targets(self._opened.engine, self._opened.targets, self._commands)
        return self._describe() | {"state": state, "targets": targets, "notices": self._log.last()}

    def _describe(self) -> dict[str, Any]:
        opened, kdamond = self._opened, self._opened.engine.kdamond
        uptime_ns = time.monotonic_ns() - self._began_ns
        return {
            "name": self.name,
            "pid": os.getpid(),
            "started_unix_ns": self._began_wall_ns,
            "uptime_ns": uptime_ns,
            "engine": opened.kind,
            "ops": self._request.ops,
            "primitive": opened.engine.choice.name,
            "primitive_reason": opened.engine.choice.reason,
            "about": opened.about,
            "record": self._output,
            "command_pid": None if self._child is None else self._child.pid,
            **account.parameters(kdamond),
            "commit_pending": kdamond.commit_pending,
            "regions": sum(map(len, list(kdamond.regions))),
            "snapshots": self._snapshots,
            "dry_run": account.dry_run(opened.engine),
            "schemes": account.schemes(kdamond),
            "cost": account.cost(opened.engine, uptime_ns),
            "spec": to_builtins(self._spec),
        }

    def tune(self, wanted: protocol.Tune) -> dict[str, Any]:
        """Change parameters, all or nothing; raises RequestError or MachineError."""
        engine = self._opened.engine
        kdamond = engine.kdamond
        present = Parameters(kdamond.intervals, kdamond.nr_regions)
        if self._committed is not None and kdamond.commit_pending:
            present = self._committed
        context = self._spec.kdamonds[0].contexts[0]
        new = tuned(wanted, present, context, primitive=engine.choice.name, nr_targets=engine.ops.nr_targets)
        if new.schemes is None and wanted.goal_values:
            self._check_goals(wanted.goal_values)
        if wanted != protocol.Tune(goal_values=wanted.goal_values):
            commit = engine.commit if is_live(engine) else kdamond.commit
            changed = msgspec.structs.replace(kdamond.asked, intervals=new.intervals, nr_regions=new.nr_regions)
            commit(changed if new.schemes is None else msgspec.structs.replace(changed, schemes=new.schemes))
            self._committed = new
            self._remember(new, asked_intervals=new.intervals != present.intervals)
            self._say(f"tuned: {_in_words(new)}")
        with contextlib.suppress(RequestError):  # of schemes that are to come: the values stand in them
            self._set_goals(wanted.goal_values)
        self._signals.wake()
        return {
            "intervals": msgspec.to_builtins(new.intervals),
            "nr_regions": msgspec.to_builtins(new.nr_regions),
            "nr_schemes": len(self._spec.kdamonds[0].contexts[0].schemes),
        }

    def _remember(self, new: Parameters, *, asked_intervals: bool) -> None:
        """What the user has asked for by now."""
        self._schemes |= dict.fromkeys(new.schemes or ())
        while len(self._schemes) > _MAX_REMEMBERED:
            del self._schemes[next(iter(self._schemes))]
        context = self._spec.kdamonds[0].contexts[0]
        context = msgspec.structs.replace(
            context,
            intervals=new.intervals if asked_intervals else context.intervals,
            nr_regions=new.nr_regions,
            schemes=context.schemes if new.schemes is None else new.schemes,
        )
        kdamond = msgspec.structs.replace(self._spec.kdamonds[0], contexts=(context,))
        self._spec = msgspec.structs.replace(self._spec, kdamonds=(kdamond,))

    def _check_goals(self, values: dict[str, int]) -> None:
        damos = self._opened.engine.kdamond.damos
        known = set()
        for s, state in enumerate(damos.states if damos is not None else []):
            for g, goal in enumerate(state.goals):
                if goal.goal.metric == "user_input":
                    known |= {goal.goal.name, f"{s}.{g}"}
        for name, value in values.items():
            if name not in known:
                self._set_goals({name: value})  # says what there is

    def _set_goals(self, values: dict[str, int]) -> None:
        damos = self._opened.engine.kdamond.damos
        for name, value in values.items():
            if damos is None:
                raise RequestError("there is no such goal; there are no schemes", where=f"goal {name}")
            damos.set_goal(name, value)


def _in_words(parameters: Parameters) -> str:
    intervals, nr_regions = parameters.intervals, parameters.nr_regions
    times = (intervals.sample_us, intervals.aggr_us, intervals.ops_update_us)
    sample, aggr, update = (format_duration_ns(value * 1000) for value in times)
    text = f"sample {sample}, aggregate {aggr}, update {update}, {nr_regions.min} to {nr_regions.max} regions"
    return text if parameters.schemes is None else f"{text}, {len(parameters.schemes)} schemes"
