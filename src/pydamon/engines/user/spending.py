"""What monitoring may cost: the bound on the CPU share that was asked for, the usual one, and what targets may lose.

Whichever of them asks for the longest sampling interval decides. The usual bound and that on the disturbance are floors
of intervals that tune themselves; one that was asked for also lengthens intervals that do not, and lowers the number of
regions where even that is not enough (`budget.CpuBudget`). Where accesses stay as they are, a third of the usual bound
is enough: intervals get longer then, within limits, and short again with the first change.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.core.kdamond import Kdamond
from pydamon.core.snapshot import max_nr_accesses
from pydamon.engines.clock import MachineClock
from pydamon.engines.user.budget import CpuBudget, fit_sample, tunes
from pydamon.engines.user.fit import DisturbanceFloor
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec import Context, Intervals, NrRegions

_LONG_ENOUGH_NS = 10_000_000_000  # of a share of it something can be said
_STEADY_SHARE = 1 / 3  # of the usual bound
# How far intervals are lengthened for that: so many times, but no aggregation beyond so long.
_STEADY_TIMES, _STEADY_US = 3, 2_000_000


@dataclass(frozen=True, slots=True)
class _SteadyBound:
    """The lower bound since accesses have been steady: counted from then, up to the interval ``most_us``."""

    budget: CpuBudget
    most_us: int


class Spending:
    """Keeps to what is allowed. ``max_cpu`` was asked for: start-up counts. ``usual_cpu`` is the bound where nothing
    was said: start-up does not count. ``walks_all``: a sample walks all memory of its target, which it disturbs.
    """

    def __init__(
        self, context: Context, clock: MachineClock, *, max_cpu: float | None, usual_cpu: float | None, walks_all: bool
    ) -> None:
        self._wanted = context.intervals
        self._nr_regions = context.nr_regions
        self._clock = clock
        self._bound: CpuBudget | None = None
        self._usual_cpu = usual_cpu
        self._usual: CpuBudget | None = None  # from the first aggregation on
        self._steady: _SteadyBound | None = None  # as long as accesses stay as they are
        self._floor = DisturbanceFloor() if walks_all else None
        if max_cpu is not None:
            self._begin(max_cpu, 0)

    def first(self) -> Intervals:
        """The intervals to begin with: what starting up has cost is a debt, and the first aggregation pays, too."""
        if self._bound is None:
            return self._wanted
        now_ns, cpu_ns = self._clock.now_ns(), self._clock.cpu_ns()
        allowed = self._bound.update(now_ns, cpu_ns, 0, self._nr_regions.max, self._wanted.sample_us)
        return fit_sample(self._wanted, allowed.sample_us, self._wanted)

    def change(self, wanted: Intervals, nr_regions: NrRegions) -> None:
        """The user asks for other intervals and bounds of the number of regions from now on; what was spent counts."""
        self._wanted, self._nr_regions = wanted, nr_regions
        for budget in (self._bound, self._usual):
            if budget is not None:
                budget.change(wanted, nr_regions)

    def bound(self, share: float) -> None:
        """Keep below this share of a CPU from now on."""
        self._begin(share, self._clock.cpu_ns())

    def fitted(self, kdamond: Kdamond, cost: PrimitiveCost, *, steady: bool = False) -> tuple[Intervals, NrRegions]:
        """What to go on with after an aggregation; ``cost`` is what the primitives have cost so far.

        ``steady``: accesses have been as they are for some time.
        """
        now_ns, cpu_ns, samples = self._clock.now_ns(), self._clock.cpu_ns(), kdamond.passed_samples
        intervals, nr_regions, floor_us = kdamond.intervals, kdamond.nr_regions, 0
        limit_us = kdamond.tuning.limit_us(now_ns if kdamond.end_ns is None else kdamond.end_ns)
        if self._bound is not None:
            allowed = self._bound.update(now_ns, cpu_ns, samples, nr_regions.max, intervals.sample_us)
            floor_us, nr_regions = allowed.sample_us, NrRegions(min=nr_regions.min, max=allowed.max_regions)
        tuned = tunes(self._wanted)
        if self._usual is not None:
            usual = self._usual.update(now_ns, cpu_ns, samples, nr_regions.max, intervals.sample_us)
            if tuned and self._bound is None:
                steady_us = self._steady_floor(now_ns, cpu_ns, kdamond, limit_us) if steady else 0
                floor_us = max(usual.sample_us, steady_us)
            if not steady:
                self._steady = None
        elif self._usual_cpu is not None:
            self._usual = self._from_now(self._usual_cpu, self._wanted, now_ns, cpu_ns, samples)
        if self._floor is not None and tuned:
            self._floor.update(cost, samples)
            floor_us = max(floor_us, self._floor.sample_us)
        if not floor_us:
            return intervals, nr_regions
        return fit_sample(intervals, floor_us, self._wanted, limit_us if kdamond.counts_memory else None), nr_regions

    def _steady_floor(self, now_ns: int, cpu_ns: int, kdamond: Kdamond, limit_us: int) -> int:
        """The shortest sampling interval where accesses stay as they are; an aggregation is to last ``limit_us``."""
        assert self._usual_cpu is not None
        intervals, samples = kdamond.intervals, kdamond.passed_samples
        if self._steady is None:
            budget = self._from_now(_STEADY_SHARE * self._usual_cpu, intervals, now_ns, cpu_ns, samples)
            window = max_nr_accesses(intervals.sample_us, intervals.aggr_us)
            longest_us = min(_STEADY_TIMES * intervals.aggr_us, _STEADY_US, limit_us)
            most_us = max(longest_us // window, intervals.sample_us)
            self._steady = _SteadyBound(budget, most_us)
            return 0
        found = self._steady.budget.update(now_ns, cpu_ns, samples, self._nr_regions.max, intervals.sample_us)
        return min(found.sample_us, self._steady.most_us)

    def remarks(self) -> list[str]:
        """What is to be said in the end: where nothing bounded the cost, and it was above what is usual."""
        if self._usual is None or self._bound is not None:
            return []
        elapsed_ns, spent_ns = self._usual.spent(self._clock.now_ns(), self._clock.cpu_ns())
        if elapsed_ns < _LONG_ENOUGH_NS or spent_ns <= self._usual.share * elapsed_ns:
            return []
        return [
            f"monitoring took {spent_ns / elapsed_ns:.1%} of a CPU, starting up left out; with a longer sampling "
            f"interval, or a bound on the share, it takes less"
        ]

    def _begin(self, share: float, cpu_from_ns: int) -> None:
        now_ns, spent_ns = self._clock.now_ns(), self._clock.cpu_ns() - cpu_from_ns
        self._bound = CpuBudget(
            share, self._wanted, self._nr_regions, began_ns=now_ns, cpu_ns=spent_ns, cpu_from_ns=cpu_from_ns
        )

    def _from_now(self, share: float, wanted: Intervals, now_ns: int, cpu_ns: int, samples: int) -> CpuBudget:
        return CpuBudget(share, wanted, self._nr_regions, began_ns=now_ns, cpu_from_ns=cpu_ns, samples_from=samples)
