"""Run an engine and write what it yields into a record: the work behind ``pydamon record``."""

from __future__ import annotations

import os
import sys
import time

import pydamon.run.recorder  # noqa: F401 - needed in any case, and cheaper now (`lean`)
from pydamon import messages
from pydamon.cli.options import OF_REMEDY
from pydamon.cli.render.screen import echo
from pydamon.engines.base import Engine
from pydamon.ops.membership import read_stat
from pydamon.run.launch import Ended, describe_exit
from pydamon.run.request import Request
from pydamon.run.run import Run
from pydamon.run.signals import Signals
from pydamon.spec import Spec
from pydamon.spec.actions import NO_SWAP
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.spec.words.late import REMEDY, late_words


def record(request: Request, spec: Spec) -> int:
    """Do what ``request`` asks for; diagnostics go to standard error. Raises PydamonError.

    Returns the exit status of a launched command that has ended by itself, else 0.
    """
    progress = _Progress()
    with (
        Signals() as signals,
        Run(
            spec,
            request,
            waker=signals,
            say=progress.say,
            plan=_plan if request.dry_run else None,
            every_second=progress.show,
            command_ended=_say_end,
        ) as run,
    ):
        if run.engine.kind != "sim":  # that is over at once
            _say(run.about)
        progress.run = run
        run.run()
        progress.clear()
        _summarize(run, request)
        for line in run.undone or ():
            _say(f"undo: {line}")
        fate = run.traced_fate()
        if fate is not None:
            _say(f"the command {fate}")
    return run.exit_status()


def _say_end(ended: Ended) -> None:
    if ended.still_ran:
        _say("ended the command, which was still running")
    elif ended.status != 0:
        _say(f"the command {describe_exit(ended.status)}")


class _Progress:
    """A line on a terminal that tells how it goes, and makes way for whatever else is said."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self._shown = messages.on_terminal()

    def show(self, now_ns: int) -> None:
        """Once a second."""
        if self._shown and self.run is not None:
            elapsed = format_duration_ns(now_ns - self.run.began_ns)
            regions = sum(map(len, self.run.engine.kdamond.regions))
            messages.draw(f"\r{elapsed}, {self.run.snapshots} snapshots, {regions} regions \033[K")

    def clear(self) -> None:
        """Nothing of it stays."""
        if self._shown:
            messages.draw("\r\033[K")

    def say(self, line: str) -> None:
        """A line that stays."""
        self.clear()
        _say(line)


def _summarize(run: Run, request: Request) -> None:
    """Say what is in the file and what it has cost."""
    engine = run.engine
    elapsed_ns = max(engine.clock.now_ns() - run.began_ns, 1)
    assert run.writer is not None
    count = "1 snapshot" if run.snapshots == 1 else f"{run.snapshots} snapshots"
    size = format_size(run.writer.bytes_written)
    elapsed = format_duration_ns(elapsed_ns)
    _say(f"{run.reason()} after {elapsed}: {count}, {size} in {run.writer.path}")
    if not run.snapshots:
        waits = [state.scheme.watermarks.metric != "none" and not state.active for state in engine.schemes()]
        if waits and all(waits):
            _say("no snapshot was completed: monitoring waits until the watermarks let a scheme act")
        else:
            _say(f"no snapshot was completed: one takes {_least(engine)} of a target with memory at least")
    _summarize_schemes(engine, dry_run=request.dry_run)
    _summarize_cost(engine, elapsed_ns)


def _least(engine: Engine) -> str:
    """How long the shortest aggregation is: the end cuts one short, but for the kernel and where its way is wanted."""
    intervals, whole = engine.context.intervals, engine.context.faithful or engine.kind == "kernel"
    name, least_us = ("an aggregation", intervals.aggr_us) if whole else ("a sampling", intervals.sample_us)
    return f"{name} interval ({format_duration_ns(least_us * 1000)})"


def _summarize_cost(engine: Engine, elapsed_ns: int) -> None:
    cost, context = engine.cost(), engine.context
    if cost is None:
        _say(f"cost: {format_duration_ns(time.process_time_ns())} of CPU time, start-up included")
        return
    cpu = time.process_time_ns() / _lifetime_ns()
    sample = format_duration_ns(context.intervals.sample_us * 1000)
    if cost.kdamond_ns is not None:
        _say(
            f"cost: {cpu:.1%} of a CPU (start-up included), and {cost.kdamond_ns / elapsed_ns:.1%} in the kernel's "
            f"kdamond, sampling every {sample}"
        )
        return
    checks, clears = (count * 1e9 / elapsed_ns for count in (cost.checks, cost.clears))
    who = "what uses the memory" if context.ops == "paddr" else "the target"
    _say(
        f"cost: {cpu:.1%} of a CPU (start-up included) for {checks:,.0f} checks and {clears:,.0f} clears a second, "
        f"every {sample}; {who} was disturbed for about {cost.disturb_ns / elapsed_ns:.1%} of the time"
    )
    late = late_words(cost.samples or 0, cost.asked_ns or 0, cost.sampled_ns or 0)
    if late is not None:
        _say(f"{late}; {REMEDY} ({OF_REMEDY})")


def _summarize_schemes(engine: Engine, *, dry_run: bool) -> None:
    """What each scheme has tried and done."""
    for number, state in enumerate(engine.schemes()):
        stats = state.stats
        did = "would have been applied to" if dry_run else "was applied to"
        tried, applied = format_size(stats.sz_tried), format_size(stats.sz_applied)
        used = f", its quota was used up {stats.qt_exceeds} times" if stats.qt_exceeds else ""
        who = f"scheme {state.scheme.name or number} ({state.scheme.action})"
        if not state.scheme.does.acts:
            passes = "1 pass" if state.passes == 1 else f"{state.passes:,} passes"
            _say(f"{who}: counted {stats.nr_tried:,} regions, {tried}, in {passes}{used}")
            continue
        why = f"; {NO_SWAP}" if state.scheme.needs_swap and engine.swap_bytes() == 0 else ""
        _say(f"{who}: {did} {applied} of {tried} tried{used}{why}")


def _lifetime_ns() -> int:
    """How long this process has lived, its start-up included."""
    own = read_stat(os.getpid())
    began_ns = own.start_ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK") if own is not None else 0
    return max(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began_ns, 1)


def _plan(line: str) -> None:
    echo(line)
    sys.stdout.flush()


def _say(line: str) -> None:
    messages.say(line)
