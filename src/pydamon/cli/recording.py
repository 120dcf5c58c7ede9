"""Run an engine and write what it yields into a record: the work behind ``pydamon record``."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from pydamon.core.kdamond import Callbacks, Kdamond
from pydamon.ops.membership import read_stat
from pydamon.records.schema import build_metadata
from pydamon.records.writer import check_output
from pydamon.run.ending import end_reason
from pydamon.run.launch import describe_exit, end
from pydamon.run.live import is_kernel, is_live
from pydamon.run.open import open_engine
from pydamon.run.recorder import Recorder, Writer, is_paddr, open_writer
from pydamon.run.request import Request
from pydamon.run.signals import Signals
from pydamon.spec import Spec
from pydamon.spec.units import format_duration_ns, format_size

if TYPE_CHECKING:
    from pydamon.run.open import Engine


def record(request: Request, spec: Spec) -> None:
    """Do what ``request`` asks for; diagnostics go to standard error. Raises PydamonError."""
    check_output(request.output)
    children: list[subprocess.Popen[bytes]] = []
    with Signals() as signals:
        try:
            _record(request, spec, signals, children)
        finally:
            for child in children:
                still_runs = child.poll() is None
                status = end(child)
                if still_runs:
                    _say("ended the command, which was still running")
                elif status != 0:
                    _say(f"the command {describe_exit(status)}")


def _record(request: Request, spec: Spec, signals: Signals, children: list[subprocess.Popen[bytes]]) -> None:
    undone: list[str] = []

    def before_end(kdamond: Kdamond) -> None:
        if request.undo:
            from pydamon.run.undo import undo

            undone.extend(undo(kdamond, spec.kdamonds[0].contexts[0].schemes))

    opened = open_engine(
        request,
        spec,
        signals=signals,
        launched=children.append,
        callbacks=Callbacks(before_terminate=before_end),
        say=_say,
        remember_homes=request.undo,
    )
    engine = opened.engine
    try:
        writer = open_writer(request, build_metadata(**opened.metadata))
    except BaseException:
        opened.close()
        raise
    if opened.kind != "sim":  # that is over at once
        _say(opened.about)
    engine.kdamond.end_ns = opened.end_ns
    signals.on_stop = engine.kdamond.stop
    if signals.stopped:  # before there was something to stop
        engine.kdamond.stop()
    progress = _Progress(engine)
    with opened.groups, writer:
        recorder = Recorder(
            writer,
            engine,
            say=progress.say,
            plan=_plan if request.dry_run else None,
            every_second=progress.show,
        )
        progress.recorder = recorder
        recorder.run()
    progress.clear()
    for line in engine.ops.remarks() if is_live(engine) else ():
        _say(line)
    _summarize(recorder, writer, engine, end_reason(engine, signals))
    for line in undone:
        _say(f"undo: {line}")
    if opened.kind == "reported":
        for line in engine.remarks():  # type: ignore[union-attr]
            _say(line)
        process = getattr(engine.source, "process", None)  # type: ignore[union-attr]
        if process is not None and request.launch is not None and engine.clock.ended and process.poll():  # type: ignore[union-attr]
            _say(f"the command {describe_exit(process.returncode)}")


class _Progress:
    """A line on a terminal that tells how it goes, and makes way for whatever else is said."""

    def __init__(self, engine: Engine) -> None:
        self.recorder: Recorder | None = None
        self._engine = engine
        self._shown = sys.stderr.isatty()

    def show(self, now_ns: int) -> None:
        """Once a second."""
        if self._shown and self.recorder is not None:
            elapsed = format_duration_ns(now_ns - self.recorder.began_ns)
            regions = sum(map(len, self._engine.kdamond.regions))
            line = f"\r{elapsed}, {self.recorder.snapshots} snapshots, {regions} regions \033[K"
            print(line, end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Nothing of it stays."""
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr)

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        _say(line)


def _summarize(recorder: Recorder, writer: Writer, engine: Engine, reason: str) -> None:
    """Say what is in the file and what it has cost."""
    elapsed_ns = max(engine.clock.now_ns() - recorder.began_ns, 1)
    count = "1 snapshot" if recorder.snapshots == 1 else f"{recorder.snapshots} snapshots"
    size = format_size(writer.bytes_written)
    elapsed = format_duration_ns(elapsed_ns)
    _say(f"{reason} after {elapsed}: {count}, {size} in {writer.path}")
    intervals = engine.kdamond.intervals
    if not recorder.snapshots:
        aggr = format_duration_ns(intervals.aggr_us * 1000)
        _say(f"no snapshot was completed: one takes an aggregation interval ({aggr}) of a target with memory")
    _summarize_schemes(engine.kdamond)
    if is_kernel(engine):
        kernel_ns = engine.cost().check_ns
        _say(
            f"cost: {time.process_time_ns() / _lifetime_ns():.1%} of a CPU (start-up included), and "
            f"{kernel_ns / elapsed_ns:.1%} in the kernel's kdamond, sampling every "
            f"{format_duration_ns(intervals.sample_us * 1000)}"
        )
        return
    if not is_live(engine):
        _say(f"cost: {format_duration_ns(time.process_time_ns())} of CPU time, start-up included")
        return
    cost = engine.cost()
    cpu = time.process_time_ns() / _lifetime_ns()
    disturbed = cost.disturb_ns / elapsed_ns
    checks, clears = (count * 1e9 / elapsed_ns for count in (cost.checks, cost.clears))
    who = "what uses the memory" if is_paddr(engine.ops) else "the target"
    _say(
        f"cost: {cpu:.1%} of a CPU (start-up included) for {checks:,.0f} checks and {clears:,.0f} clears a second, "
        f"every {format_duration_ns(intervals.sample_us * 1000)}; "
        f"{who} was disturbed for about {disturbed:.1%} of the time"
    )


def _summarize_schemes(kdamond: Kdamond) -> None:
    """What each scheme has tried and done."""
    for number, state in enumerate(kdamond.damos.states if kdamond.damos is not None else []):
        stats = state.stats
        did = "would have been applied to" if getattr(kdamond.ops, "dry_run", False) else "was applied to"
        tried, applied = format_size(stats.sz_tried), format_size(stats.sz_applied)
        used = f", its quota was used up {stats.qt_exceeds} times" if stats.qt_exceeds else ""
        who = f"scheme {state.scheme.name or number} ({state.scheme.action})"
        if not state.scheme.does.acts:
            passes = "1 pass" if stats.nr_snapshots == 1 else f"{stats.nr_snapshots:,} passes"
            _say(f"{who}: counted {stats.nr_tried:,} regions, {tried}, in {passes}{used}")
            continue
        _say(f"{who}: {did} {applied} of {tried} tried{used}")


def _lifetime_ns() -> int:
    """How long this process has lived, its start-up included."""
    own = read_stat(os.getpid())
    began_ns = own.start_ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK") if own is not None else 0
    return max(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began_ns, 1)


def _plan(line: str) -> None:
    print(line, flush=True)


def _say(line: str) -> None:
    print(f"pydamon: {line}", file=sys.stderr, flush=True)
