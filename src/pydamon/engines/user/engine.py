"""The ``user`` engine: our core, in this process, over what the machine offers user space."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pydamon.core.kdamond import Callbacks, Kdamond
from pydamon.core.snapshot import Snapshot
from pydamon.engines.clock import MachineClock
from pydamon.engines.user.budget import CpuBudget, fit_sample
from pydamon.engines.user.choose import Choice
from pydamon.engines.user.fit import CostMeter, affordable
from pydamon.engines.user.open_ops import LIVE_OPS, choose_for, open_ops
from pydamon.errors import RequestError, located
from pydamon.ops.membership import Membership
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec import ONLY_CONTEXT, Context, NrRegions, Spec, validate

if TYPE_CHECKING:
    from pydamon.core.damos import Damos


def only_context(spec: Spec, *ops: str) -> Context:
    """The one context of ``spec``; raises RequestError if there are several, or one of other ``ops``."""
    validate(spec)
    if len(spec.kdamonds) != 1:
        raise RequestError(f"has {len(spec.kdamonds)} entries; this engine runs one at a time", where="kdamonds")
    context = spec.context
    if context.ops not in ops:
        known = ", ".join(ops)
        raise RequestError(f"is {context.ops!r}; this engine runs {known}", where=f"{ONLY_CONTEXT}.ops")
    if not context.targets:
        raise RequestError("must have at least one target", where=f"{ONLY_CONTEXT}.targets")
    return context


class UserEngine:
    """Runs a vaddr, fvaddr or paddr spec on this machine.

    Raises RequestError for a process that does not exist, MachineError if it may not be monitored or the primitive
    cannot be used. With ``fit_intervals`` the intervals follow the cost of a primitive that walks all memory
    (``smaps``); with ``max_cpu`` (a share of one CPU, e.g. 0.01) the whole process's CPU time is kept below that.
    With ``dry_run`` schemes find out what they would do, and do nothing; with ``remember_homes`` it is remembered where
    migrated pages came from, so that ``ops.actions.undo`` brings them back.
    Unless the spec is ``faithful``, processes are sampled by what the machine tells for free: regions end where large
    mappings end (`core.boundaries`), and resident pages are preferred to absent ones (`ops.residency`).
    With vaddr, ``group`` (taken over, and closed in the end) replaces the processes that the spec names.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        callbacks: Callbacks | None = None,
        clock: MachineClock | None = None,
        seed: int | None = None,
        fit_intervals: bool = False,
        max_cpu: float | None = None,
        group: Membership | None = None,
        dry_run: bool = False,
        remember_homes: bool = False,
    ) -> None:
        context = only_context(spec, *LIVE_OPS)
        self.clock = clock if clock is not None else MachineClock()
        self.choice: Choice = choose_for(context)
        rng = np.random.default_rng(seed)
        self.ops, watched = open_ops(context, self.choice, rng, group)
        self.ops.dry_run = dry_run
        self.ops.remember_homes = remember_homes
        self.ops.faithful = faithful = context.faithful or context.ops == "paddr"
        try:
            self.clock.watch_ends(process.pidfd for process in watched)
        except BaseException:
            self.ops.cleanup()
            raise
        self._wanted = intervals = context.intervals
        self._budget: CpuBudget | None = None
        self._meter: CostMeter | None = None
        self._commit_lock = threading.Lock()
        if max_cpu is not None:
            now_ns, cpu_ns = self.clock.now_ns(), time.process_time_ns()
            self._budget = CpuBudget(max_cpu, intervals, context.nr_regions, began_ns=now_ns, cpu_ns=cpu_ns)
            # What starting up has cost is a debt: the first aggregation pays, too.
            first = self._budget.update(now_ns, cpu_ns, 0, context.nr_regions.max, intervals.sample_us)
            intervals = fit_sample(intervals, first.sample_us, intervals)
        elif fit_intervals and self.choice.name in ("smaps", "soft-dirty"):
            self._meter = CostMeter()
        try:
            if context.probes:
                with located(f"{ONLY_CONTEXT}.probes"):
                    self.ops.check_probes(context.probes)
            self.kdamond = Kdamond(
                ops=self.ops,
                context=msgspec.structs.replace(context, intervals=intervals, faithful=faithful),
                clock=self.clock,
                callbacks=callbacks if callbacks is not None else Callbacks(),
                rng=rng,
                make_damos=self._damos,
            )
            if context.schemes and self.kdamond.damos is not None:
                with located(ONLY_CONTEXT):
                    self.kdamond.damos.check(context.schemes)
        except BaseException:
            self.ops.cleanup()
            raise

    def _damos(self) -> Damos:
        # Only where there are schemes: starting up counts against the bound on the overhead.
        from pydamon.core.damos import Damos
        from pydamon.linux.metrics import MachineMetrics

        return Damos(self.ops, self.clock, MachineMetrics())

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Monitor; yields one snapshot per target after each aggregation, until stopped or all targets ended."""
        for snapshots in self.kdamond.monitor():
            yield snapshots
            with self._commit_lock:
                if self.kdamond.commit_pending:
                    continue  # what the user has just asked for comes first
                if self._meter is not None:
                    self._fit(self._meter)
                if self._budget is not None:
                    self._stay_below(self._budget)

    def commit(self, context: Context) -> None:
        """`Kdamond.commit` for a user: the bound on the CPU share keeps to what is asked for now.

        Intervals that are the present ones leave it to the engine how they go on. Safe from any thread.
        """
        with self._commit_lock:
            before = self.kdamond.intervals
            self.kdamond.commit(context)
            if context.intervals != before:
                self._wanted, self._meter = context.intervals, None
            if self._budget is not None:
                self._budget.change(self._wanted, context.nr_regions)

    def _fit(self, meter: CostMeter) -> None:
        intervals = self.kdamond.intervals
        fitting = affordable(intervals, *meter.since_last(self.cost(), self.kdamond.passed_samples))
        if fitting != intervals:
            self.kdamond.commit(msgspec.structs.replace(self.kdamond.context, intervals=fitting))

    def _stay_below(self, budget: CpuBudget) -> None:
        kdamond = self.kdamond
        spent_ns = time.process_time_ns()
        allowed = budget.update(
            self.clock.now_ns(),
            spent_ns,
            kdamond.passed_samples,
            kdamond.nr_regions.max,
            kdamond.intervals.sample_us,
        )
        intervals = fit_sample(kdamond.intervals, allowed.sample_us, self._wanted)
        nr_regions = NrRegions(min=kdamond.nr_regions.min, max=allowed.max_regions)
        if (intervals, nr_regions) != (kdamond.intervals, kdamond.nr_regions):
            kdamond.commit(msgspec.structs.replace(kdamond.context, intervals=intervals, nr_regions=nr_regions))

    def cost(self) -> PrimitiveCost:
        """What the primitives of all targets have cost so far."""
        return self.ops.cost()
