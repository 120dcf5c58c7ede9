"""From a spec to an engine that is ready to monitor: the only way in, whoever asks for it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from pydamon.engines.base import Choice, Engine, Rows
from pydamon.engines.clock import MachineClock
from pydamon.errors import MachineError, RequestError
from pydamon.linux.process import Process
from pydamon.ops.membership import MAX_COMMAND
from pydamon.run.found import Origin
from pydamon.run.launch import launch
from pydamon.run.request import ENGINES, Request
from pydamon.run.signals import Waker
from pydamon.spec import Spec, to_builtins
from pydamon.spec.defaults import without_default_goal
from pydamon.spec.probes import attributes_only
from pydamon.spec.units import format_duration_ns

if TYPE_CHECKING:  # imported where they are used: starting up counts against the bound on the CPU share
    import subprocess

    from pydamon.core.callbacks import Callbacks
    from pydamon.engines.user.open_ops import Beside
    from pydamon.linux import resctrl
    from pydamon.linux.perf_event import Event
    from pydamon.ops.reported.reports import AccessFilter
    from pydamon.ops.reported.sources.base import Source

    Child = subprocess.Popen[bytes]

_VIRTUAL = ("sim", "reported")


class Opened(msgspec.Struct, eq=False):
    """An engine, and what is known about it.

    ``spec`` has a launched command's process in it. ``targets`` are rows of the side table ``targets``, ``about`` is
    for people, ``chosen`` is which engine it is and why that one. ``child`` is a command that was launched and is to be
    ended with the monitoring, ``traced`` one that its source runs. ``groups`` are to be closed in the end.
    """

    engine: Engine
    spec: Spec
    about: str
    chosen: Choice
    targets: Rows = msgspec.field(default_factory=list)
    child: Child | None = None
    traced: Child | None = None
    groups: contextlib.ExitStack = msgspec.field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        self.targets = self.engine.joined()

    def origin(self) -> Origin:
        """For those who see what is found."""
        ops, choice, chosen = self.spec.context.ops, self.engine.choice, self.chosen
        offset_ns = None if ops in _VIRTUAL else time.time_ns() - time.monotonic_ns()
        return Origin(self.engine.kind, chosen.reason, ops, choice.name, choice.reason, self.targets, offset_ns)

    def metadata(self) -> dict[str, Any]:
        """For `records.schema.build_metadata`."""
        ops, choice = self.spec.context.ops, self.engine.choice
        virtual = {"clock": "virtual"} if ops in _VIRTUAL else {}
        return {
            "targets": self.targets,
            "spec": to_builtins(self.spec),
            "ops": ops,
            "primitive": choice.name,
            "primitive_reason": choice.reason,
            **(virtual or {"wall_offset_ns": time.time_ns() - time.monotonic_ns()}),
        }


class _Opener(msgspec.Struct, eq=False):
    """What all ways of opening need. ``child`` is a command that was launched by now."""

    spec: Spec
    request: Request
    callbacks: Callbacks | None
    waker: Waker
    clock: MachineClock | None
    launched: Callable[[Child], object]
    say: Callable[[str], object]
    child: Child | None = None

    def machine_clock(self) -> MachineClock:
        """The one that was given, or one that can be woken."""
        return self.clock if self.clock is not None else MachineClock(wake_fd=self.waker.wake_fd)

    def launch(self) -> None:
        """Start the command, if there is one and it does not run yet; its process is the target then."""
        if self.request.launch is None or self.child is not None:
            return
        if self.request.launch_only_advised:
            from pydamon.linux.thp import only_advised

            with only_advised():
                self.child = launch(self.request.launch)
        else:
            self.child = launch(self.request.launch)
        self.launched(self.child)
        context = self.spec.context
        target = msgspec.structs.replace(context.targets[0], pid=self.child.pid)
        self.spec = self.spec.with_context(msgspec.structs.replace(context, targets=(target,)))


def open_engine(
    spec: Spec,
    request: Request,
    *,
    waker: Waker,
    callbacks: Callbacks | None = None,
    clock: MachineClock | None = None,
    launched: Callable[[Child], object] = lambda child: None,
    say: Callable[[str], object] = lambda line: None,
) -> Opened:
    """The engine for ``spec``; raises PydamonError, and nothing is left open then but a launched command.

    ``launched`` is told of a command as soon as it runs. What is to be said when all has ended goes to ``say``.
    ``clock`` is instead of the machine's own.
    """
    if not spec.kdamonds:
        raise RequestError("has none: a module of the kernel runs without anybody who watches", where="kdamonds")
    opener = _Opener(spec, request, callbacks, waker, clock, launched, say)
    engine = _which(spec, request)
    if engine == "sim":
        return _open_sim(opener)
    if engine == "reported":
        with waker.interruptible():
            return _open_reported(opener)
    return _open_live(opener, engine)


def _which(spec: Spec, request: Request) -> str:
    """``sim``, ``reported``, ``user``, ``kernel`` or ``auto``. Raises RequestError if the engine does not fit."""
    ops, wanted = spec.context.ops, request.engine
    natural = ops if ops in _VIRTUAL else "user"
    if wanted is None or (wanted == "auto" and natural != "user"):
        return natural
    if wanted not in ENGINES:
        raise RequestError(f"{wanted!r} is none; there are {', '.join(ENGINES)}", where="engine")
    if wanted != natural and not (natural == "user" and wanted in ("kernel", "auto")):
        raise RequestError(f"{wanted} does not run ops {ops}; {natural} does", where="engine")
    return wanted


# -- running processes, physical memory -------------------------------------------------------------------------------


def _open_live(opener: _Opener, engine: str) -> Opened:
    reason = ""
    if engine != "user":
        from pydamon.run.kernel import choose_engine

        # What the machine cannot do, or somebody else does, is said before anything is started.
        chosen = choose_engine(engine, without_default_goal(opener.spec), opener.request)
        reason = chosen.reason
        if chosen.name == "kernel":
            try:
                return _open_kernel(opener, reason)
            except (MachineError, RequestError) as error:
                if engine != "auto":
                    raise
                reason = f"not the kernel's DAMON: {error}"  # it has all that is needed here, but not for this spec
    return _open_user(opener, reason)


def _open_user(opener: _Opener, reason: str) -> Opened:
    from pydamon.engines.user.engine import UserEngine
    from pydamon.engines.user.open_ops import check_attributes, choose_for

    request = opener.request
    if request.launch is not None and opener.child is None:
        # What the machine cannot do is said before anything is started.
        choose_for(opener.spec.context)
        check_attributes(opener.spec.context)
        if request.resctrl:
            from pydamon.linux import resctrl

            resctrl.probe()
    if attributes_only(opener.spec.context.probes):
        opener.spec = without_default_goal(opener.spec)  # intervals are tuned by the accesses that are found
    beside = None if request.source is None else _beside(request)
    opener.launch()
    engine = UserEngine(
        opener.spec,
        callbacks=opener.callbacks,
        clock=opener.machine_clock(),
        seed=request.seed,
        max_cpu=request.max_cpu,
        usual_cpu=request.usual_cpu,
        dry_run=request.dry_run,
        remember_homes=request.remember_homes or request.undo,
        by_addresses=request.by_addresses,
        panel=_panel_size(request),
        beside=beside,
    )
    return _live(opener, engine, Choice("user", reason))


def _beside(request: Request) -> Beside:
    """Reports beside sampling: what cannot be had is said before a command is started."""
    from pydamon.engines.user.open_ops import Beside
    from pydamon.ops.reported.sources.perf_event import PerfEvent

    event = _event(str(request.source).partition(":")[2], request)
    PerfEvent(event, [os.getpid()]).close()
    return Beside(lambda pids: PerfEvent(event, pids), _accepted(request))


def _panel_size(request: Request) -> int:
    from pydamon.spec.defaults import PANEL_PAGES

    return PANEL_PAGES if request.panel is None else request.panel


def _open_kernel(opener: _Opener, reason: str) -> Opened:
    from pydamon.run.kernel import open_kernel_engine, refuse_only_user

    refuse_only_user(opener.request)
    opener.launch()
    spec = without_default_goal(opener.spec)
    engine = open_kernel_engine(spec, callbacks=opener.callbacks, clock=opener.machine_clock())
    if spec is not opener.spec:
        sample = format_duration_ns(spec.context.intervals.sample_us * 1000)
        opener.say(f"sampling every {sample}: the kernel's DAMON tunes its intervals only where that is asked for")
    if _panel_size(opener.request):
        opener.say("there is no page panel: the kernel's DAMON asks no single pages")
    opener.spec = spec
    return _live(opener, engine, Choice("kernel", reason))


def _live(opener: _Opener, engine: Engine, chosen: Choice) -> Opened:
    opened = Opened(engine, opener.spec, "", chosen, child=opener.child)
    try:
        if opener.request.resctrl:
            from pydamon.linux import resctrl

            for target in opened.targets:
                opened.groups.callback(_remove, resctrl.OwnGroup(target["pid"]), opener.say)
    except BaseException:
        opened.groups.close()
        engine.close()
        raise
    for target in opened.targets:
        if target["command"] == "?" and opener.request.launch is not None:  # it has ended already
            target["command"] = " ".join(opener.request.launch)[:MAX_COMMAND]
    choice = engine.choice
    opened.about = f"monitoring {_who(opened)} through {choice.name}: {choice.reason}"
    opened.about += f" ({chosen.reason})" if chosen.reason else ""
    _set_end(engine, opener.request)
    return opened


def _set_end(engine: Engine, request: Request) -> None:
    if request.duration_ns is not None:
        engine.end_ns = engine.clock.now_ns() + request.duration_ns


def _remove(group: resctrl.OwnGroup, say: Callable[[str], object]) -> None:
    try:
        group.close()
    except MachineError as error:  # what was recorded is no worse for it
        say(str(error))


def _who(opened: Opened) -> str:
    context, targets = opened.spec.context, opened.targets
    if context.ops == "paddr":
        return "physical memory"
    named = ", ".join(f"{target['pid']} ({target['command']})" for target in targets[:3])
    more = f" and {len(targets) - 3} more" if len(targets) > 3 else ""
    if context.match is not None:
        patterns = ", ".join((*context.match.names, *context.match.cgroups))
        return f"what matches {patterns}, now {named or 'nothing'}{more}"
    if context.cgroup is not None:
        return f"the cgroup {context.cgroup}, now {named or 'empty'}{more}"
    return named + more + (" and what they start" if context.include_children else "")


# -- simulations -------------------------------------------------------------------------------------------------------


def _open_sim(opener: _Opener) -> Opened:
    from pydamon.engines.clock import PacedClock
    from pydamon.engines.sim import SimEngine
    from pydamon.workload.builtin import load

    request, workload = opener.request, opener.request.workload
    if workload is None:
        raise RequestError("is needed with ops sim, e.g. stairs", where="workload")
    name = workload if isinstance(workload, str) else "of the program"
    if isinstance(workload, tuple):
        name = ", ".join(program.name for program in workload)
    engine = SimEngine(
        opener.spec,
        load(workload) if isinstance(workload, str) else workload,
        name=name,
        mapping=request.mapping,
        machine=request.machine,
        repeat=request.repeat,
        callbacks=opener.callbacks,
        seed=request.seed or 0,
        panel=_panel_size(request),
        clock=PacedClock(opener.machine_clock()) if request.real_time else None,
    )
    _set_end(engine, request)
    pace = " in real time" if request.real_time else ""
    return Opened(engine, opener.spec, f"simulating the workload {name}{pace}", Choice("sim", ""))


# -- reported accesses -------------------------------------------------------------------------------------------------


def _open_reported(opener: _Opener) -> Opened:
    from pydamon.engines.reported import ReportedEngine

    request, given = opener.request, opener.request.source
    if given is None:
        raise RequestError("is needed with ops reported", where="source")
    traced: list[Child] = []
    engine = ReportedEngine(
        opener.spec,
        _open_source(given, opener, traced) if isinstance(given, str) else given,
        name=" ".join(request.launch or ()) or str(given if isinstance(given, str) else given.name),
        callbacks=opener.callbacks,
        seed=request.seed,
        accept=_accepted(request),
    )
    if isinstance(given, str):
        engine.prime()  # a wrong input is refused before monitoring has begun, and before there is a file
    _set_end(engine, request)
    opened = Opened(engine, opener.spec, f"reading {given}: {engine.choice.reason}", Choice("reported", ""))
    opened.traced = traced[-1] if traced else None
    return opened


def _open_source(text: str, opener: _Opener, traced: list[Child]) -> Source:
    """Where accesses are reported from, as ``text`` names it; ``traced`` gets the command that it runs."""
    kind, _, path = text.partition(":")
    if kind == "perf-script":
        from pydamon.ops.reported.sources import perf_script

        return perf_script.open_script(path, pids=opener.spec.context.pids)
    if kind == "perf-mem":
        return _open_perf_mem(opener, traced)
    if kind == "perf-event":
        return _open_perf_event(path, opener, traced)
    from pydamon.ops.reported.sources import valgrind

    if kind == "lackey":
        return valgrind.open_trace(path)

    def start(command: list[str], pass_fds: Sequence[int]) -> Child:
        traced.append(launch(command, pass_fds=pass_fds))
        return traced[-1]

    return valgrind.launch(opener.request.launch or [], start=start)


def _accepted(request: Request) -> AccessFilter:
    """Which reports count."""
    from pydamon.ops.reported.reports import AccessFilter

    return AccessFilter(cpus=request.cpus, threads=request.threads, nodes=request.nodes, writes=request.writes or None)


def _event(text: str, request: Request) -> Event:
    """The event of that name; raises RequestError if it does not tell what is asked for."""
    from pydamon.linux import perf_pmu

    event = perf_pmu.event(text)
    if request.writes and not event.tells_writes:
        raise RequestError(f"{event.name} does not tell writes from reads", where="access")
    return event


def _open_perf_event(text: str, opener: _Opener, traced: list[Child]) -> Source:
    """What cannot be sampled is said before a command is started."""
    from pydamon.ops.reported.sources.perf_event import PerfEvent

    event = _event(text, opener.request)
    if opener.request.launch is None:
        return PerfEvent(event, opener.spec.context.pids)
    PerfEvent(event, [os.getpid()]).close()
    traced.append(launch(opener.request.launch))
    return PerfEvent(event, [traced[-1].pid])


def _open_perf_mem(opener: _Opener, traced: list[Child]) -> Source:
    from pydamon.ops.reported.sources import perf_mem

    if opener.request.launch is None:
        for pid in opener.spec.context.pids:
            Process(pid).close()  # raises RequestError if there is none
        return perf_mem.launch(None, pids=opener.spec.context.pids)

    def start(command: Sequence[str], stdout: int | None, stderr: int | None) -> Child:
        traced.append(launch(command, stdout=stdout, stderr=stderr))
        return traced[-1]

    return perf_mem.launch(opener.request.launch, start=start)
