"""The ``user`` engine: our core, in this process, over what the machine offers user space."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from pydamon.core.kdamond import Callbacks, Kdamond
from pydamon.core.snapshot import Snapshot
from pydamon.engines.budget import CpuBudget, fit_sample
from pydamon.engines.choose import Choice, choose
from pydamon.engines.clock import MachineClock
from pydamon.engines.fit import CostMeter, affordable
from pydamon.errors import MachineError, RequestError
from pydamon.ops.base import Ranges
from pydamon.ops.membership import Membership, Pids
from pydamon.ops.vaddr import NO_RANGES
from pydamon.ops.vaddr_group import VaddrGroupOps
from pydamon.primitives.base import Primitive, PrimitiveCost
from pydamon.primitives.process import Process
from pydamon.spec import Context, NrRegions, Spec, Target, validate

if TYPE_CHECKING:
    from pydamon.primitives.bpf import PageTableWalk


def only_context(spec: Spec, ops: str) -> Context:
    """The one context of ``spec``; raises RequestError if there are several, or one of another ops."""
    validate(spec)
    if len(spec.kdamonds) != 1:
        raise RequestError(f"has {len(spec.kdamonds)} entries; this engine runs one at a time", where="kdamonds")
    context = spec.kdamonds[0].contexts[0]
    if context.ops != ops:
        raise RequestError(f"is {context.ops!r}; this engine runs {ops!r}", where="kdamonds[0].contexts[0].ops")
    if not context.targets:
        raise RequestError("must have at least one target", where="kdamonds[0].contexts[0].targets")
    return context


class UserEngine:
    """Runs a vaddr spec on live processes.

    Raises RequestError for a process that does not exist, MachineError if it may not be monitored or the primitive
    cannot be used. With ``fit_intervals`` the intervals follow the cost of a primitive that walks all memory
    (``smaps``); with ``max_cpu`` (a share of one CPU, e.g. 0.01) the whole process's CPU time is kept below that.

    Monitored is ``group`` (taken over, and closed in the end) if given, instead of the processes that the spec names.
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
    ) -> None:
        context = only_context(spec, "vaddr")
        self.clock = clock if clock is not None else MachineClock()
        if group is None:
            group = Pids([target.pid or 0 for target in context.targets])
        try:
            self.choice: Choice = choose(context.primitive)
            rng = np.random.default_rng(seed)
            self.ops = VaddrGroupOps(
                group,
                _opener(self.choice),
                initial=[_ranges(target) for target in context.targets],
                rng=rng,
                # Each takes three regions at least; beyond, the maximum would not bound the overhead.
                max_live=max(context.nr_regions.max // 3, 1),
            )
        except BaseException:
            group.close()
            raise
        # Those that join later come and go all the time: their ends should not cut samples short.
        self.clock.watch_ends(process.pidfd for process in group.roots)
        self._wanted = context.intervals
        self._budget: CpuBudget | None = None
        self._meter: CostMeter | None = None
        if max_cpu is not None:
            now_ns, cpu_ns = self.clock.now_ns(), time.process_time_ns()
            self._budget = CpuBudget(max_cpu, context.intervals, context.nr_regions, began_ns=now_ns, cpu_ns=cpu_ns)
        elif fit_intervals and self.choice.name in ("smaps", "soft-dirty"):
            self._meter = CostMeter()
        self.kdamond = Kdamond(
            ops=self.ops,
            intervals=context.intervals,
            nr_regions=context.nr_regions,
            clock=self.clock,
            callbacks=callbacks if callbacks is not None else Callbacks(),
            rng=rng,
        )

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Monitor; yields one snapshot per target after each aggregation, until stopped or all targets ended."""
        for snapshots in self.kdamond.monitor():
            yield snapshots
            if self._meter is not None:
                self._fit(self._meter)
            if self._budget is not None:
                self._stay_below(self._budget)

    def _fit(self, meter: CostMeter) -> None:
        intervals = self.kdamond.intervals
        fitting = affordable(intervals, *meter.since_last(self.cost(), self.kdamond.passed_samples))
        if fitting != intervals:
            self.kdamond.commit(fitting, self.kdamond.nr_regions)

    def _stay_below(self, budget: CpuBudget) -> None:
        kdamond = self.kdamond
        spent_ns = time.process_time_ns()
        allowed = budget.update(self.clock.now_ns(), spent_ns, kdamond.passed_samples, kdamond.nr_regions.max)
        intervals = fit_sample(kdamond.intervals, allowed.sample_us, self._wanted)
        nr_regions = NrRegions(min=kdamond.nr_regions.min, max=allowed.max_regions)
        if (intervals, nr_regions) != (kdamond.intervals, kdamond.nr_regions):
            kdamond.commit(intervals, nr_regions)

    def cost(self) -> PrimitiveCost:
        """What the primitives of all targets have cost so far."""
        return self.ops.cost()


def _ranges(target: Target) -> Ranges:
    if not target.regions:
        return NO_RANGES
    return np.array([(region.start, region.end) for region in target.regions], np.uint64)


def _opener(choice: Choice) -> Callable[[Process], Primitive]:
    if choice.name == "bpf":
        from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk

        walk = PageTableWalk()  # one program serves all processes

        def open_bpf(process: Process) -> Primitive:
            primitive = BpfPrimitive(process, walk)
            primitive.begin()
            return primitive

        return open_bpf
    if choice.name in ("idle", "bpf+idle"):
        from pydamon.primitives.idle import IdlePrimitive
        from pydamon.primitives.idle_bitmap import FrameWatch

        walk_or_none, watch = _walk(required=choice.name == "bpf+idle"), FrameWatch()
        tables = choice.name == "bpf+idle"
        return lambda process: IdlePrimitive(process, walk_or_none, watch=watch, tables=tables)
    if choice.name == "soft-dirty":
        from pydamon.primitives.soft_dirty import SoftDirtyPrimitive

        walk_or_none = _walk(required=False)
        return lambda process: SoftDirtyPrimitive(process, walk_or_none)
    from pydamon.primitives.smaps import SmapsPrimitive

    return SmapsPrimitive


def _walk(*, required: bool) -> PageTableWalk | None:
    """A page-table walk; None where there cannot be one, unless it is required."""
    from pydamon.primitives.bpf import PageTableWalk

    try:
        return PageTableWalk()
    except MachineError:
        if required:
            raise
        return None
