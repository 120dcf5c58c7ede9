"""A kdamond that runs in the background: monitors in the main thread, answers the control socket's requests."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from pydamon import messages
from pydamon.core.callbacks import Callbacks, Loop
from pydamon.core.scheme_state import user_goals
from pydamon.errors import RequestError
from pydamon.run.launch import Ended, describe_exit
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.run.signals import Signals
from pydamon.service import protocol
from pydamon.service.log import Log
from pydamon.service.server import ControlServer
from pydamon.service.tuning import tuned
from pydamon.spec import Context, Spec
from pydamon.spec import to_builtins as spec_to_builtins
from pydamon.spec.units import format_duration_ns
from pydamon.views import kdamond as kdamond_view
from pydamon.views import status
from pydamon.views.store import Store

if TYPE_CHECKING:
    from pydamon.views.live import Live
    from pydamon.views.moments import Moment

_PASSED_REGIONS = 8192
_PLANNED_RANGES = 5  # of one application of a dry run, in the log


class Session:
    """One kdamond with its engine, its record and its control socket.

    `run` opens the engine (raising PydamonError as ``pydamon record`` would), calls ``ready`` as soon as it monitors,
    and returns in the end what there is to tell about it. ``began_ns`` (CLOCK_MONOTONIC) is when the process began;
    ``metrics`` is where metrics go (`service.metrics.parse`), if they are to.
    """

    def __init__(
        self, request: Request, spec: Spec, *, name: str, log: Log, began_ns: int, metrics: str | None = None
    ) -> None:
        self.name = name
        self.store = Store()
        # A simulation is there to be watched; `stop` may ask for undoing.
        self._request = msgspec.structs.replace(request, real_time=True, remember_homes=True)
        self._spec = spec
        self._log = log
        self._metrics = metrics
        self._told: tuple[Moment, Live] | None = None
        self._run: Run
        self._signals = Signals()
        self._began_ns = began_ns
        self._began_wall_ns = time.time_ns() - (time.monotonic_ns() - began_ns)
        self._snapshots = 0
        self._commands: dict[int, str] = {}
        self._stop_asked = False
        self._child_pid: int | None = None
        self._child_fate: str | None = None
        self._opening = True
        self._said_first: list[str] = []  # before it monitored

    # -- the main thread ------------------------------------------------------------------------------------------

    def run(self, server: ControlServer, ready: Any) -> dict[str, Any]:
        """Monitor until the end. ``ready`` is called with what is monitored; raises PydamonError or OSError."""
        callbacks = Callbacks(
            before_start=lambda _: self._begin(server, ready),
            after_aggregation=self._note,
        )
        with self._signals as signals, self._published():
            with Run(
                self._spec,
                self._request,
                waker=signals,
                callbacks=callbacks,
                say=self._say,
                plan=self._say if self._request.dry_run else None,
                planned_ranges=_PLANNED_RANGES,
                command_ended=self._note_end,
                observers=[self.store],
            ) as run:
                self._run, self._spec = run, run.spec
                self._opening = False
                self._child_pid = None if run.child is None else run.child.pid
                self._say(run.about)
                run.run()
            return self._report("stopped" if self._stop_asked else run.reason())

    @contextlib.contextmanager
    def _published(self) -> Iterator[None]:
        """Tell metrics, if that is wanted. Raises RequestError or MachineError if it cannot be."""
        if self._metrics is None:
            yield
            return
        from pydamon.service.metrics import publish, reach

        with publish(self._metrics, self.views) as where:
            self._say(f"metrics: {where}{reach(self._metrics)}")
            yield

    def _begin(self, server: ControlServer, ready: Any) -> None:
        if self._run.engine.stop_requested:
            return
        server.start()
        try:
            remark = self._run.remark()
            ready(self._run.about, self._said_first + ([] if remark is None else [remark]))
        except BrokenPipeError:  # who started us is gone, and does not know that we run
            self._say("the start was interrupted")
            self._run.stop()

    def _note(self, loop: Loop) -> None:
        self._snapshots += any(len(snapshot.start) for snapshot in loop.snapshots)

    def _note_end(self, ended: Ended) -> None:
        self._child_fate = "ended, as it was still running" if ended.still_ran else describe_exit(ended.status)
        self._say(f"the command: {self._child_fate}")

    def _report(self, reason: str) -> dict[str, Any]:
        told = status.Ended(
            **self._describe(), state="ended", reason=reason, command_fate=self._child_fate, undone=self._run.undone
        )
        self._say(f"{reason} after {format_duration_ns(told.uptime_ns)}: {self._snapshots} snapshots")
        return status.to_builtins(told)

    def _say(self, line: str) -> None:
        if self._opening:
            self._said_first.append(line)
        messages.say(line)

    # -- the control socket's thread ------------------------------------------------------------------------------

    def handle(self, request: protocol.AnyRequest) -> dict[str, Any] | None:
        """Answer a request; None if the answer comes in the end. Raises PydamonError, and changes nothing then."""
        if isinstance(request, protocol.Status):
            return self.status()
        if isinstance(request, protocol.Live):
            return self.live(request)
        if isinstance(request, protocol.Moments):
            return self.moments(request)
        if isinstance(request, protocol.Hits):
            return self.hits()
        if isinstance(request, protocol.Tune):
            return self.tune(request)
        if isinstance(request, protocol.SetGoal):
            self._run.set_goal(request.name, request.value)
            return {"goal": request.name, "current_value": request.value}
        if isinstance(request, protocol.Reload):
            raise RequestError("is a kdamond, which has no file; a service has (pydamon service)", where=self.name)
        self._run.undo_asked |= request.undo
        self._stop_asked = True
        self._signals.stop()
        return None

    def end(self) -> None:
        """As SIGTERM would: whoever has started it is gone."""
        self._say("who supervised it is gone")
        self._signals.stop()

    def status(self) -> dict[str, Any]:
        """All there is to know, in integers and with units in the names."""
        engine = self._run.engine
        state = "stopping" if engine.stop_requested else "running"
        targets = kdamond_view.live_targets(engine, self._run.targets, self._commands)
        told = status.Running(**self._describe(), state=state, targets=targets, notices=self._log.last())
        return status.to_builtins(told)

    def live(self, request: protocol.Live) -> dict[str, Any]:
        """The view of a moment (null: there is none yet), and the times of the first and the last one there is."""
        from pydamon.views.live import by_clock, live

        store = self.store
        moment = store.latest() if request.at_ns is None else store.at(request.at_ns)
        if moment is not None and request.step:
            moment = store.step(moment, request.step)
        view = None if moment is None else by_clock(live(moment, mappings=request.mappings), _clock_offset_ns())
        return {"name": self.name, "live": msgspec.to_builtins(view), "span_ns": store.span()}

    def moments(self, request: protocol.Moments) -> dict[str, Any]:
        """The next moments, up to so many regions that the answer is short: it holds up the monitoring."""
        from pydamon.views.passing import passed

        store = self.store
        if request.after_ns is None:
            latest = store.latest()
            moment = None if latest is None else store.step(latest, -request.back)
        else:
            moment = store.after(request.after_ns)
        found, regions = [], 0
        while moment is not None and regions < _PASSED_REGIONS:
            regions += sum(len(known.snapshot.start) for known in moment.targets.values())
            found.append(msgspec.to_builtins(passed(moment)))
            moment = store.after(moment.time_ns)
        about = self._run.metadata() if request.after_ns is None else None
        return {"name": self.name, "pid": os.getpid(), "about": about, "moments": found}

    def hits(self) -> dict[str, Any]:
        """What probes have hit in the last snapshots, by target."""
        from pydamon.views.hits import of_moment

        probes = self._run.engine.context.probes
        found = of_moment(self.store.latest(), probes)
        return {"name": self.name, "probes": len(probes), "targets": [msgspec.to_builtins(one) for one in found]}

    def views(self) -> list[tuple[str, Live]]:
        """What metrics are made of: the view of the latest moment, the same object as long as there is no other."""
        from pydamon.views.live import by_clock, live

        moment = self.store.latest()
        if moment is None:
            return []
        if self._told is None or self._told[0] is not moment:
            self._told = (moment, by_clock(live(moment, mappings=()), _clock_offset_ns()))
        return [(self.name, self._told[1])]

    def _describe(self) -> dict[str, Any]:
        """The fields of a `Kdamond` but its state."""
        engine = self._run.engine
        uptime_ns = time.monotonic_ns() - self._began_ns
        return {
            "name": self.name,
            "pid": os.getpid(),
            "started_unix_ns": self._began_wall_ns,
            "uptime_ns": uptime_ns,
            "engine": engine.kind,
            "ops": engine.context.ops,
            "primitive": engine.choice.name,
            "primitive_reason": engine.choice.reason,
            "about": self._run.about,
            "record": self._request.output or None,
            "command_pid": self._child_pid,
            **kdamond_view.parameters(engine.context),
            "commit_pending": engine.commit_pending,
            "paused": engine.context.pause,
            "regions": sum(map(len, list(engine.kdamond.regions))),
            "snapshots": self._snapshots,
            "dry_run": self._request.dry_run,
            "schemes": kdamond_view.schemes(engine),
            "acts": kdamond_view.acts(self._run.acts()),
            "modules": kdamond_view.modules(self._spec, self._run.numbers),
            "cost": kdamond_view.cost(engine, uptime_ns),
            "spec": spec_to_builtins(self._spec),
        }

    def tune(self, wanted: protocol.Tune) -> dict[str, Any]:
        """Change parameters, all or nothing; raises RequestError or MachineError."""
        engine, asked = self._run.engine, self._spec.context
        present = engine.asked
        new = tuned(wanted, present, asked, primitive=engine.choice.name, nr_targets=engine.nr_targets)
        if new.schemes is present.schemes:
            own = self._run.controller_goals()
            for name, value in wanted.goal_values.items():
                if name not in own:
                    user_goals(engine.schemes(), name, value)  # says what there is
        if wanted.max_cpu is not None:
            engine.bound_cpu(wanted.max_cpu)
        if wanted != protocol.Tune(goal_values=wanted.goal_values, max_cpu=wanted.max_cpu):
            self._run.commit(new)
            # What the user has asked for by now; intervals that were left alone may have been tuned since.
            intervals = asked.intervals if new.intervals == present.intervals else new.intervals
            context = msgspec.structs.replace(
                asked,
                intervals=intervals,
                nr_regions=new.nr_regions,
                schemes=new.schemes,
                probes=new.probes,
                pause=new.pause,
                targets=new.targets,
            )
            self._spec = self._spec.with_context(context)
            self._say(f"tuned: {_in_words(new, present)}")
        with contextlib.suppress(RequestError):  # of schemes that are to come: the values stand in them
            for name, value in wanted.goal_values.items():
                self._run.set_goal(name, value)
        self._run.wake()
        return {
            "intervals": msgspec.to_builtins(new.intervals),
            "nr_regions": msgspec.to_builtins(new.nr_regions),
            "nr_schemes": len(self._spec.context.schemes),
            "pause": new.pause,
        }


def _clock_offset_ns() -> int:
    """What the machine's clock is ahead of that of snapshots."""
    return time.time_ns() - time.monotonic_ns()


def _in_words(new: Context, before: Context) -> str:
    intervals, nr_regions = new.intervals, new.nr_regions
    times = (intervals.sample_us, intervals.aggr_us, intervals.ops_update_us)
    sample, aggr, update = (format_duration_ns(value * 1000) for value in times)
    text = f"sample {sample}, aggregate {aggr}, update {update}, {nr_regions.min} to {nr_regions.max} regions"
    text += "" if new.schemes is before.schemes else f", {len(new.schemes)} schemes"
    text += "" if new.probes == before.probes else f", {len(new.probes)} probes"
    return f"{text}, paused" if new.pause else text
