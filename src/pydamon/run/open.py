"""From a request to an engine that is ready to monitor; the same for ``record`` and ``start``."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Callbacks
from pydamon.engines.clock import MachineClock
from pydamon.engines.user.engine import UserEngine
from pydamon.engines.user.open_ops import check_attributes, choose_for
from pydamon.errors import MachineError, RequestError
from pydamon.linux import resctrl
from pydamon.linux.process import Process
from pydamon.run.launch import launch
from pydamon.run.request import Request
from pydamon.run.signals import Signals
from pydamon.spec import Spec, to_builtins

if TYPE_CHECKING:  # imported where they are used: starting up counts against the bound on the CPU share
    from pydamon.engines.kernel.engine import KernelEngine
    from pydamon.engines.reported import ReportedEngine
    from pydamon.engines.sim import SimEngine
    from pydamon.ops.reported.sources.base import Source
    from pydamon.run.kernel import OnlyUser

    Engine = UserEngine | SimEngine | ReportedEngine | KernelEngine


@dataclasses.dataclass(slots=True)
class Opened:
    """An engine, and what is known about it.

    ``targets`` are rows of a record's table, ``about`` is for people, ``metadata`` for `records.schema.build_metadata`.
    ``end_ns`` is when it is to end, by its clock.
    """

    kind: str
    engine: Engine
    spec: Spec
    targets: list[dict[str, Any]]
    about: str
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None
    end_ns: int | None = None
    groups: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    def close(self) -> None:
        """Give back what monitoring would have given back in the end, if it never began."""
        self.groups.close()
        source = getattr(self.engine, "source", None)
        if source is not None:
            source.close()
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
    signals: Signals,
    launched: Callable[[subprocess.Popen[bytes]], object],
    callbacks: Callbacks | None = None,
    say: Callable[[str], object] = lambda line: None,
    real_time: bool = False,
    remember_homes: bool = False,
) -> Opened:
    """The engine for ``request``; raises PydamonError, and nothing is left open then but a launched command.

    ``launched`` is told of a command as soon as it runs. With ``real_time`` a simulation takes as long as what it
    simulates; with ``remember_homes`` what schemes do can be taken back. What is to be said when all has ended goes to
    ``say``.
    """
    callbacks = callbacks if callbacks is not None else Callbacks()
    if request.ops == "sim":
        opened = _open_sim(request, spec, callbacks, signals.wake_fd if real_time else None)
    elif request.ops == "reported":
        with signals.interruptible():
            opened = _open_reported(request, spec, callbacks)
    else:
        opened = _open_live(request, spec, callbacks, signals.wake_fd, launched, say, remember_homes)
    opened.metadata |= {
        "targets": opened.targets,
        "spec": to_builtins(opened.spec),
        "ops": request.ops,
        "primitive": opened.engine.choice.name,
        "primitive_reason": opened.engine.choice.reason,
    }
    return opened


# -- running processes, physical memory -------------------------------------------------------------------------------


def _open_live(
    request: Request,
    spec: Spec,
    callbacks: Callbacks,
    wake_fd: int,
    launched: Callable[[subprocess.Popen[bytes]], object],
    say: Callable[[str], object],
    remember_homes: bool,
) -> Opened:
    child: subprocess.Popen[bytes] | None = None
    reason = ""
    if request.engine != "user":
        from pydamon.run.kernel import choose_engine

        # What the machine cannot do, or somebody else does, is said before anything is started.
        chosen = choose_engine(request.engine, spec, _only_user(request))
        reason = chosen.reason
        if chosen.name == "kernel":

            def launched_first(process: subprocess.Popen[bytes]) -> None:
                nonlocal child
                child = process
                launched(process)

            try:
                return _open_kernel(request, spec, callbacks, wake_fd, launched_first, reason)
            except (MachineError, RequestError) as error:
                if request.engine != "auto":
                    raise
                reason = f"not the kernel's DAMON: {error}"  # it has all that is needed here, but not for this spec
    if child is not None:
        spec = _with_pid(spec, child.pid)
    elif request.launch is not None:
        # What the machine cannot do is said before anything is started.
        choose_for(spec.kdamonds[0].contexts[0])
        check_attributes(spec.kdamonds[0].contexts[0])
        if request.resctrl:
            resctrl.probe()
        child = launch(request.launch)
        launched(child)
        spec = _with_pid(spec, child.pid)
    clock = MachineClock(wake_fd=wake_fd)
    engine = UserEngine(
        spec,
        callbacks=callbacks,
        clock=clock,
        seed=request.seed,
        fit_intervals=request.fit_intervals,
        max_cpu=request.max_cpu,
        dry_run=request.dry_run,
        remember_homes=remember_homes,
    )
    opened = Opened("user", engine, spec, [], "", child=child)
    try:
        opened.targets = engine.ops.take_joined()
        for target in opened.targets if request.resctrl else ():
            opened.groups.callback(_remove, resctrl.OwnGroup(target["pid"]), say)
    except BaseException:
        opened.close()
        raise
    _tell(opened, request, clock, reason)
    return opened


def _only_user(request: Request) -> OnlyUser:
    from pydamon.run.kernel import OnlyUser

    return OnlyUser(request.dry_run, request.undo, request.max_cpu, request.resctrl)


def _open_kernel(
    request: Request,
    spec: Spec,
    callbacks: Callbacks,
    wake_fd: int,
    launched: Callable[[subprocess.Popen[bytes]], object],
    reason: str,
) -> Opened:
    from pydamon.run.kernel import open_kernel_engine

    _only_user(request).refuse()
    child = None
    if request.launch is not None:
        child = launch(request.launch)
        launched(child)
        spec = _with_pid(spec, child.pid)
    clock = MachineClock(wake_fd=wake_fd)
    engine = open_kernel_engine(spec, callbacks=callbacks, clock=clock)
    opened = Opened("kernel", engine, spec, engine.ops.take_joined(), "", child=child)
    _tell(opened, request, clock, reason)
    return opened


def _tell(opened: Opened, request: Request, clock: MachineClock, reason: str) -> None:
    """What is known of an engine that monitors this machine; ``reason`` is why it is this engine."""
    choice = opened.engine.choice
    opened.about = f"monitoring {_who(request, opened.targets)} through {choice.name}: {choice.reason}"
    opened.about += f" ({reason})" if reason else ""
    opened.metadata["wall_offset_ns"] = time.time_ns() - time.monotonic_ns()
    if request.duration_ns is not None:
        opened.end_ns = clock.now_ns() + request.duration_ns


def _remove(group: resctrl.OwnGroup, say: Callable[[str], object]) -> None:
    try:
        group.close()
    except MachineError as error:  # what was recorded is no worse for it
        say(str(error))


def _who(request: Request, targets: list[dict[str, Any]]) -> str:
    if request.ops == "paddr":
        return "physical memory"
    named = ", ".join(f"{target['pid']} ({target['command']})" for target in targets[:3])
    more = f" and {len(targets) - 3} more" if len(targets) > 3 else ""
    if request.cgroup is not None:
        return f"the cgroup {request.cgroup}, now {named or 'empty'}{more}"
    return named + more + (" and what they start" if request.include_children else "")


def _with_pid(spec: Spec, pid: int) -> Spec:
    """The spec with the launched command's process as its target."""
    (context,) = spec.kdamonds[0].contexts
    target = msgspec.structs.replace(context.targets[0], pid=pid)
    context = msgspec.structs.replace(context, targets=(target,))
    kdamond = msgspec.structs.replace(spec.kdamonds[0], contexts=(context,))
    return msgspec.structs.replace(spec, kdamonds=(kdamond,))


# -- simulations -------------------------------------------------------------------------------------------------------


def _open_sim(request: Request, spec: Spec, callbacks: Callbacks, wake_fd: int | None) -> Opened:
    from pydamon.engines.sim import SimEngine
    from pydamon.workload.builtin import load

    if request.workload is None:
        raise RequestError("is needed with ops sim, e.g. stairs", where="workload")
    clock = VirtualClock() if wake_fd is None else PacedClock(MachineClock(wake_fd=wake_fd))
    engine = SimEngine(
        spec, load(request.workload), mapping=request.mapping, callbacks=callbacks, seed=request.seed or 0, clock=clock
    )
    targets = [{"target": 0, "command": f"workload {request.workload}"}]
    pace = "" if wake_fd is None else " in real time"
    opened = Opened("sim", engine, spec, targets, f"simulating the workload {request.workload}{pace}")
    opened.metadata["clock"] = "virtual"
    opened.end_ns = request.duration_ns
    return opened


# -- reported accesses -------------------------------------------------------------------------------------------------


def _open_reported(request: Request, spec: Spec, callbacks: Callbacks) -> Opened:
    from pydamon.engines.reported import ReportedEngine
    from pydamon.ops.reported.reports import AccessFilter

    source = open_source(request)
    accept = AccessFilter(cpus=request.cpus, threads=request.threads, nodes=request.nodes)
    engine = ReportedEngine(spec, source, callbacks=callbacks, seed=request.seed, accept=accept)
    engine.prime()  # a wrong input is refused before monitoring has begun, and before there is a file
    about = f"reading {request.source}: {engine.choice.reason}"
    opened = Opened("reported", engine, spec, _reported_targets(request), about)
    opened.metadata["clock"] = "virtual"
    if request.duration_ns is not None:
        opened.end_ns = engine.clock.now_ns() + request.duration_ns
    return opened


def open_source(request: Request) -> Source:
    """Where accesses are reported from, as ``request.source`` names it. Raises PydamonError."""
    kind, _, path = (request.source or "").partition(":")
    if kind == "perf-script":
        from pydamon.ops.reported.sources import perf_script

        return perf_script.open_script(path, pids=request.pids)
    if kind == "perf-mem":
        return _open_perf_mem(request)
    from pydamon.ops.reported.sources import valgrind

    if kind == "lackey":
        return valgrind.open_trace(path)
    return valgrind.launch(request.launch or [], start=lambda command, fds: launch(command, pass_fds=fds))


def _open_perf_mem(request: Request) -> Source:
    from pydamon.ops.reported.sources import perf_mem

    if request.launch is None:
        for pid in request.pids:
            Process(pid).close()  # raises RequestError if there is none
        return perf_mem.launch(None, pids=request.pids)

    def start(command: Sequence[str], stdout: int | None, stderr: int | None) -> subprocess.Popen[bytes]:
        return launch(command, stdout=stdout, stderr=stderr)

    return perf_mem.launch(request.launch, start=start)


def _reported_targets(request: Request) -> list[dict[str, Any]]:
    if request.pids:
        return [{"target": number, "pid": pid} for number, pid in enumerate(request.pids)]
    return [{"target": 0, "command": " ".join(request.launch or [request.source or "?"])}]
