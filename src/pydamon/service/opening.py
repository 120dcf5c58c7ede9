"""From a request to an engine that is ready to monitor: what ``start`` does before it reports back."""

from __future__ import annotations

import dataclasses
import subprocess
import time
from collections.abc import Callable
from typing import Any

from pydamon.cli import recording
from pydamon.cli.launch import launch
from pydamon.cli.record import Request
from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Callbacks
from pydamon.engines.clock import MachineClock
from pydamon.engines.reported import ReportedEngine
from pydamon.engines.sim import SimEngine
from pydamon.engines.user import UserEngine
from pydamon.errors import RequestError
from pydamon.spec import Spec, to_builtins

Engine = UserEngine | SimEngine | ReportedEngine


@dataclasses.dataclass(slots=True)
class Opened:
    """An engine, and what is known about it: ``targets`` as rows of a record's table, ``about`` for people."""

    kind: str
    engine: Engine
    spec: Spec
    targets: list[dict[str, Any]]
    about: str
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None
    end_ns: int | None = None

    def close(self) -> None:
        """Give back what monitoring would have given back in the end, if it never began."""
        if isinstance(self.engine, ReportedEngine):
            self.engine.source.close()
        else:
            self.engine.ops.cleanup()


class PacedClock(VirtualClock):
    """Virtual time that passes as fast as the machine's: a simulation that can be watched and tuned while it runs."""

    def __init__(self, pace: MachineClock) -> None:
        super().__init__()
        self._pace = pace
        self._began_ns = pace.now_ns()

    def sleep_ns(self, duration_ns: int) -> bool:
        """Until the machine's clock has come as far; always for the whole virtual duration."""
        super().sleep_ns(duration_ns)
        ahead_ns = self._began_ns + self.now_ns() - self._pace.now_ns()
        if ahead_ns > 0:
            self._pace.sleep_ns(ahead_ns)
        return True


def open_engine(
    request: Request,
    spec: Spec,
    *,
    callbacks: Callbacks,
    wake_fd: int,
    launched: Callable[[subprocess.Popen[bytes]], object],
) -> Opened:
    """The engine for ``request``; raises PydamonError. ``launched`` is told of a command as soon as it runs."""
    if request.ops == "sim":
        opened = _open_sim(request, spec, callbacks, wake_fd)
    elif request.ops == "reported":
        opened = _open_reported(request, spec, callbacks)
    else:
        opened = _open_processes(request, spec, callbacks, wake_fd, launched)
    try:
        engine = opened.engine
        if opened.spec.kdamonds[0].contexts[0].schemes and engine.kdamond.damos is None:
            raise RequestError(f"cannot be applied by the {opened.kind} engine", where="schemes")
        opened.metadata |= {
            "targets": opened.targets,
            "spec": to_builtins(opened.spec),
            "ops": request.ops,
            "primitive": engine.choice.name,
            "primitive_reason": engine.choice.reason,
        }
    except BaseException:
        opened.close()
        raise
    return opened


def _open_processes(
    request: Request,
    spec: Spec,
    callbacks: Callbacks,
    wake_fd: int,
    launched: Callable[[subprocess.Popen[bytes]], object],
) -> Opened:
    child = None
    if request.launch is not None:
        child = launch(request.launch)
        launched(child)
        spec = recording._with_pid(spec, child.pid)
    clock = MachineClock(wake_fd=wake_fd)
    engine = UserEngine(
        spec,
        callbacks=callbacks,
        clock=clock,
        seed=request.seed,
        fit_intervals=request.fit_intervals,
        max_cpu=request.max_cpu,
        dry_run=request.dry_run,
        remember_homes=True,  # `stop --undo` may be asked for
    )
    targets = engine.ops.take_joined()
    about = f"monitoring {recording._who(request, targets)} through {engine.choice.name}: {engine.choice.reason}"
    opened = Opened("user", engine, spec, targets, about, child=child)
    opened.metadata["wall_offset_ns"] = time.time_ns() - time.monotonic_ns()
    if request.duration_ns is not None:
        opened.end_ns = clock.now_ns() + request.duration_ns
    return opened


def _open_sim(request: Request, spec: Spec, callbacks: Callbacks, wake_fd: int) -> Opened:
    from pydamon.workload.builtin import load

    if request.workload is None:
        raise RequestError("is needed with --ops sim, e.g. --workload stairs", where="--workload")
    clock = PacedClock(MachineClock(wake_fd=wake_fd))
    engine = SimEngine(
        spec, load(request.workload), mapping=request.mapping, callbacks=callbacks, seed=request.seed or 0, clock=clock
    )
    targets = [{"target": 0, "command": f"workload {request.workload}"}]
    opened = Opened("sim", engine, spec, targets, f"simulating the workload {request.workload} in real time")
    opened.metadata["clock"] = "virtual"
    opened.end_ns = request.duration_ns
    return opened


def _open_reported(request: Request, spec: Spec, callbacks: Callbacks) -> Opened:
    from pydamon.ops.reports import AccessFilter

    source = recording._open_source(request)
    accept = AccessFilter(cpus=request.cpus, threads=request.threads, nodes=request.nodes)
    engine = ReportedEngine(spec, source, callbacks=callbacks, seed=request.seed, accept=accept)
    engine.prime()  # a wrong input is refused before monitoring has begun
    about = f"reading {request.source}: {engine.choice.reason}"
    opened = Opened("reported", engine, spec, recording._reported_targets(request), about)
    opened.metadata["clock"] = "virtual"
    if request.duration_ns is not None:
        opened.end_ns = engine.clock.now_ns() + request.duration_ns
    return opened
