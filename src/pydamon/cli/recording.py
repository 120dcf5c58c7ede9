"""Run an engine and write what it yields into a record: the work behind ``pydamon record``."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec
import pyarrow as pa

from pydamon.cli.launch import describe_exit, end, launch
from pydamon.cli.record import Request
from pydamon.core.snapshot import Snapshot
from pydamon.engines.clock import MachineClock
from pydamon.engines.open_ops import choose_for
from pydamon.engines.user import UserEngine
from pydamon.errors import MachineError
from pydamon.ops.membership import read_stat
from pydamon.ops.sources.base import Source
from pydamon.primitives import resctrl
from pydamon.primitives.footprint import read_footprint
from pydamon.primitives.process import Process
from pydamon.records.rotating import RotatingWriter
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter, check_output
from pydamon.spec import Spec, to_builtins
from pydamon.spec.units import format_duration_ns, format_size

if TYPE_CHECKING:  # imported where they are used: starting up counts against --max-cpu
    from pydamon.engines.reported import ReportedEngine
    from pydamon.engines.sim import SimEngine
    from pydamon.ops.paddr import PaddrOps

_SECOND_NS = 1_000_000_000
_MOST_FOOTPRINTS = 64


def record(request: Request, spec: Spec) -> None:
    """Do what ``request`` asks for; diagnostics go to standard error. Raises PydamonError."""
    check_output(request.output)
    if request.ops == "sim":
        _record_simulated(request, spec)
        return
    if request.ops == "reported":
        _record_reported(request, spec)
        return
    with _Signals() as signals:
        child: subprocess.Popen[bytes] | None = None
        if request.launch is not None:
            # What the machine cannot do is said before anything is started.
            choose_for(spec.kdamonds[0].contexts[0])
            if request.resctrl:
                resctrl.probe()
            child = launch(request.launch)
            spec = _with_pid(spec, child.pid)
        try:
            _record_processes(request, spec, signals)
        finally:
            if child is not None:
                still_runs = child.poll() is None
                status = end(child)
                if still_runs:
                    _say("ended the command, which was still running")
                elif status != 0:
                    _say(f"the command {describe_exit(status)}")


def _record_simulated(request: Request, spec: Spec) -> None:
    from pydamon.engines.sim import SimEngine
    from pydamon.workload.builtin import load

    assert request.workload is not None
    engine = SimEngine(spec, load(request.workload), mapping=request.mapping, seed=request.seed or 0)
    engine.kdamond.end_ns = request.duration_ns
    metadata = build_metadata(
        targets=[{"target": 0, "command": f"workload {request.workload}"}],
        spec=to_builtins(spec),
        ops="sim",
        primitive=engine.choice.name,
        primitive_reason=engine.choice.reason,
        clock="virtual",
    )
    with _writer(request, metadata) as writer, _Signals() as signals:
        signals.on_stop = engine.kdamond.stop
        recorder = _Recorder(writer, engine)
        recorder.run()
    recorder.summarize(request, _end_reason(engine, signals))


def _record_reported(request: Request, spec: Spec) -> None:
    from pydamon.engines.reported import ReportedEngine
    from pydamon.ops.reports import AccessFilter

    source = _open_source(request)
    try:
        accept = AccessFilter(cpus=request.cpus, threads=request.threads, nodes=request.nodes)
        engine = ReportedEngine(spec, source, seed=request.seed, accept=accept)
        with _Signals() as signals:
            signals.on_stop = engine.kdamond.stop
            engine.prime()  # a wrong input is refused before the file exists
            metadata = build_metadata(
                targets=_reported_targets(request),
                spec=to_builtins(spec),
                ops="reported",
                primitive=engine.choice.name,
                primitive_reason=engine.choice.reason,
                clock="virtual",
            )
            _say(f"reading {request.source}: {engine.choice.reason}")
            if request.duration_ns is not None:
                engine.kdamond.end_ns = engine.clock.now_ns() + request.duration_ns
            with _writer(request, metadata) as writer:
                recorder = _Recorder(writer, engine)
                recorder.run()
    finally:
        source.close()
    recorder.summarize(request, _end_reason(engine, signals))
    for remark in engine.remarks():
        _say(remark)
    process = getattr(source, "process", None)
    if process is not None and request.launch is not None and engine.clock.ended and process.poll():
        _say(f"the command {describe_exit(process.returncode)}")


def _open_source(request: Request) -> Source:
    kind, _, path = (request.source or "").partition(":")
    if kind == "perf-script":
        from pydamon.ops.sources import perf_script

        return perf_script.open_script(path, pids=request.pids)
    if kind == "perf-mem":
        return _open_perf_mem(request)
    from pydamon.ops.sources import valgrind

    if kind == "lackey":
        return valgrind.open_trace(path)
    return valgrind.launch(request.launch or [], start=lambda command, fds: launch(command, pass_fds=fds))


def _open_perf_mem(request: Request) -> Source:
    from pydamon.ops.sources import perf_mem

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


def _record_processes(request: Request, spec: Spec, signals: _Signals) -> None:
    clock = MachineClock(wake_fd=signals.wake_fd)
    engine = UserEngine(
        spec,
        clock=clock,
        seed=request.seed,
        fit_intervals=request.fit_intervals,
        max_cpu=request.max_cpu,
    )
    groups = contextlib.ExitStack()  # of resctrl, that were made for this
    try:
        targets = engine.ops.take_joined()
        for target in targets if request.resctrl else ():
            groups.callback(_remove, resctrl.OwnGroup(target["pid"]))
        metadata = build_metadata(
            targets=targets,
            spec=to_builtins(spec),
            ops=request.ops,
            primitive=engine.choice.name,
            primitive_reason=engine.choice.reason,
            wall_offset_ns=time.time_ns() - time.monotonic_ns(),
        )
        writer = _writer(request, metadata)
    except BaseException:
        groups.close()
        engine.ops.cleanup()
        raise
    _say(f"monitoring {_who(request, targets)} through {engine.choice.name}: {engine.choice.reason}")
    if request.duration_ns is not None:
        engine.kdamond.end_ns = clock.now_ns() + request.duration_ns
    signals.on_stop = engine.kdamond.stop
    if signals.stopped:  # before there was something to stop
        engine.kdamond.stop()
    with groups, writer:
        recorder = _Recorder(writer, engine)
        recorder.run()
    for remark in engine.ops.remarks():
        _say(remark)
    recorder.summarize(request, _end_reason(engine, signals))


def _remove(group: resctrl.OwnGroup) -> None:
    try:
        group.close()
    except MachineError as error:  # what was recorded is no worse for it
        _say(str(error))


def _who(request: Request, targets: list[dict[str, Any]]) -> str:
    if request.ops == "paddr":
        return "physical memory"
    named = ", ".join(f"{target['pid']} ({target['command']})" for target in targets[:3])
    more = f" and {len(targets) - 3} more" if len(targets) > 3 else ""
    if request.cgroup is not None:
        return f"the cgroup {request.cgroup}, now {named or 'empty'}{more}"
    return named + more + (" and what they start" if request.include_children else "")


def _end_reason(engine: UserEngine | SimEngine | ReportedEngine, signals: _Signals) -> str:
    if signals.stopped:
        return "interrupted"
    if engine.kdamond.stop_requested:
        return "the time is over"
    if isinstance(engine, UserEngine) and engine.ops.lost and engine.ops.nr_targets == 1:
        return next(iter(engine.ops.lost.values()))
    return "the target ended" if engine.ops.nr_targets < 2 else "all targets ended"


class _Recorder:
    """Moves snapshots, mappings and costs from an engine into a record, and tells how it goes."""

    def __init__(self, writer: RecordWriter | RotatingWriter, engine: UserEngine | SimEngine | ReportedEngine) -> None:
        self._writer = writer
        self._engine = engine
        self._snapshots = 0
        self._began_ns = engine.clock.now_ns()
        self._cost_due_ns = self._began_ns + _SECOND_NS
        self._progress = sys.stderr.isatty()
        self._owners_of = 0  # refreshes of the reverse map that are in the record
        self._resctrl = _open_resctrl(engine)

    def run(self) -> None:
        """Until the engine ends; whatever was yielded is in the record, or an error is raised."""
        kdamond = self._engine.kdamond
        for snapshots in self._engine.monitor():
            now_ns = self._engine.clock.now_ns()
            if isinstance(self._engine, UserEngine):
                self._note_changes(self._engine, now_ns)
                self._note_owners(self._engine.ops, snapshots, now_ns)
            for snapshot in snapshots:
                self._writer.add_mappings(snapshot.start_ns, snapshot.target, kdamond.ops.mappings(snapshot.target))
                self._writer.add_snapshot(snapshot)
                self._snapshots += bool(len(snapshot.start))
            if now_ns >= self._cost_due_ns:
                self._cost_due_ns = now_ns + _SECOND_NS
                self._note_cost(now_ns)
                self._note_footprints(now_ns)
                self._note_resctrl(now_ns)
                self._writer.forget_mappings_except(kdamond.targets)
                if self._progress:
                    self._show_progress(now_ns, sum(map(len, kdamond.regions)))
            self._writer.tick(now_ns)
        if isinstance(self._engine, UserEngine):
            self._note_changes(self._engine, self._engine.clock.now_ns())
        self._note_cost(self._engine.clock.now_ns())

    def _note_changes(self, engine: UserEngine, now_ns: int) -> None:
        """Who has joined since the last look goes into the record, what the user should know to standard error."""
        joined = engine.ops.take_joined()
        self._writer.add_rows("targets", [{"time_ns": now_ns, **row} for row in joined], time_ns=now_ns)
        for notice in engine.ops.take_notices():
            if self._progress:
                print("\r\033[K", end="", file=sys.stderr)
            _say(notice)

    def _note_owners(self, ops: object, snapshots: list[Snapshot], now_ns: int) -> None:
        """Whose memory the regions of physical memory are, each time that was looked up anew."""
        if not snapshots or not _is_paddr(ops) or ops.reverse_map is None:
            return
        if ops.reverse_map.cost.refreshes != self._owners_of:
            self._owners_of = ops.reverse_map.cost.refreshes
            rows = ops.owner_rows(snapshots[0].start, snapshots[0].end)
            self._writer.add_rows("owners", [{"time_ns": now_ns, **row} for row in rows], time_ns=now_ns)
            cost = ops.reverse_map.cost
            row = {"time_ns": now_ns, "refreshes": cost.refreshes, "total_ns": cost.total_ns, "pages": cost.pages}
            self._writer.add_rows("reverse_map", [row], time_ns=now_ns)

    def _note_footprints(self, now_ns: int) -> None:
        """How large the processes are; of many only the first: it is a file each."""
        if not isinstance(self._engine, UserEngine):
            return
        rows = []
        for target, pid in list(self._engine.ops.live_pids().items())[:_MOST_FOOTPRINTS]:
            size = read_footprint(pid)
            if size is not None:
                rows.append({"time_ns": now_ns, "target": target, **size})
        self._writer.add_rows("footprint", rows, time_ns=now_ns)

    def _note_resctrl(self, now_ns: int) -> None:
        if self._resctrl is None or not isinstance(self._engine, UserEngine):
            return
        rows = self._resctrl.rows(now_ns, self._engine.ops.live_pids())
        if rows:
            self._writer.add_table(resctrl.TABLE, resctrl_table(rows), time_ns=now_ns)
        for notice in self._resctrl.notices:
            _say(notice)
        self._resctrl.notices.clear()

    def _note_cost(self, now_ns: int) -> None:
        if isinstance(self._engine, UserEngine):
            row = {"time_ns": now_ns, "cpu_ns": time.process_time_ns()}
            cost = self._engine.cost()
            row |= {name: getattr(cost, name) for name in ("checks", "check_ns", "clears", "clear_ns", "disturb_ns")}
            self._writer.add_rows("cost", [row], time_ns=now_ns)

    def _show_progress(self, now_ns: int, regions: int) -> None:
        elapsed = format_duration_ns(now_ns - self._began_ns)
        print(
            f"\r{elapsed}, {self._snapshots} snapshots, {regions} regions \033[K", end="", file=sys.stderr, flush=True
        )

    def summarize(self, request: Request, reason: str) -> None:
        """Say what is in the file and what it has cost."""
        if self._progress:
            print("\r\033[K", end="", file=sys.stderr)
        elapsed_ns = max(self._engine.clock.now_ns() - self._began_ns, 1)
        count = "1 snapshot" if self._snapshots == 1 else f"{self._snapshots} snapshots"
        size = format_size(self._writer.bytes_written)
        elapsed = format_duration_ns(elapsed_ns)
        _say(f"{reason} after {elapsed}: {count}, {size} in {self._writer.path}")
        intervals = self._engine.kdamond.intervals
        if not self._snapshots:
            aggr = format_duration_ns(intervals.aggr_us * 1000)
            _say(f"no snapshot was completed: one takes an aggregation interval ({aggr}) of a target with memory")
        if not isinstance(self._engine, UserEngine):
            _say(f"cost: {format_duration_ns(time.process_time_ns())} of CPU time, start-up included")
            return
        cost = self._engine.cost()
        cpu = time.process_time_ns() / _lifetime_ns()
        disturbed = cost.disturb_ns / elapsed_ns
        checks, clears = (count * 1e9 / elapsed_ns for count in (cost.checks, cost.clears))
        who = "what uses the memory" if _is_paddr(self._engine.ops) else "the target"
        _say(
            f"cost: {cpu:.1%} of a CPU (start-up included) for {checks:,.0f} checks and {clears:,.0f} clears a second, "
            f"every {format_duration_ns(intervals.sample_us * 1000)}; "
            f"{who} was disturbed for about {disturbed:.1%} of the time"
        )


def _lifetime_ns() -> int:
    """How long this process has lived, its start-up included."""
    own = read_stat(os.getpid())
    began_ns = own.start_ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK") if own is not None else 0
    return max(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began_ns, 1)


def _open_resctrl(engine: UserEngine | SimEngine | ReportedEngine) -> resctrl.Resctrl | None:
    """The reader of cache occupancy and bandwidth, where the machine has them and processes are monitored."""
    if not isinstance(engine, UserEngine) or _is_paddr(engine.ops):
        return None
    try:
        return resctrl.Resctrl()
    except MachineError:
        return None  # most machines have none; `doctor` says why


def _is_paddr(ops: object) -> TypeGuard[PaddrOps]:
    return getattr(ops, "name", None) == "paddr"


def resctrl_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of the side table ``resctrl`` with their types (a column may hold nothing)."""
    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in resctrl.COLUMNS.items()])
    return pa.Table.from_pylist(rows, schema=schema)


class _Signals:
    """SIGINT and SIGTERM (and SIGHUP) ask the recording to end; they also wake it from a sleep."""

    def __init__(self) -> None:
        self.stopped = False
        self.on_stop: Callable[[], None] = lambda: None
        self.wake_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old: dict[int, Any] = {}

    def _handle(self, _number: int, _frame: object) -> None:
        self.stopped = True
        self.on_stop()

    def __enter__(self) -> _Signals:
        self._old_wakeup = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What nohup or a shell's background job has set to be ignored stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self.wake_fd)
        os.close(self._write_fd)


def _writer(request: Request, metadata: dict[str, Any]) -> RecordWriter | RotatingWriter:
    if request.rotate is None:
        return RecordWriter(request.output, metadata=metadata)
    max_bytes, max_ns = request.rotate
    return RotatingWriter(request.output, metadata=metadata, max_bytes=max_bytes, max_ns=max_ns, keep=request.keep)


def _with_pid(spec: Spec, pid: int) -> Spec:
    """The spec with the launched command's process as its target."""
    (context,) = spec.kdamonds[0].contexts
    target = msgspec.structs.replace(context.targets[0], pid=pid)
    context = msgspec.structs.replace(context, targets=(target,))
    kdamond = msgspec.structs.replace(spec.kdamonds[0], contexts=(context,))
    return msgspec.structs.replace(spec, kdamonds=(kdamond,))


def _say(line: str) -> None:
    print(f"pydamon: {line}", file=sys.stderr, flush=True)
