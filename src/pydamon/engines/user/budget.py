"""The overhead bound as a number: the CPU share that monitoring may take.

A controller around the sampling interval. It knows what the process has spent so far and what a sample costs, and
chooses the interval with which the share since the beginning comes to lie just below the bound: what was spent too much
at the start (imports, setting up) is saved later. Intervals are lengthened in proportion; where that would make them
longer than ``MAX_SAMPLE_US``, the maximum number of regions is lowered instead.
"""

from __future__ import annotations

import msgspec

from pydamon.core.snapshot import max_nr_accesses
from pydamon.spec import Intervals, NrRegions

MAX_SAMPLE_US = 2_000_000
_AIM = 0.92  # of the bound: room for what varies from sample to sample
_HORIZON_NS = 30_000_000_000  # over which a debt is paid back
_LEAST = 0.1  # of the aim that sampling keeps while a debt is paid back
_SMOOTHING = 0.5
_STEP = 16  # the most by which the interval changes at once
_UNCHANGED = 0.05  # smaller changes of the interval are not worth one
_FEWEST = 5  # samples per aggregation, where it would last too long otherwise


class Affordable(msgspec.Struct, frozen=True):
    """What the budget allows."""

    sample_us: int
    max_regions: int


class CpuBudget:
    """Keeps the CPU time below ``share`` (0 < share) of the elapsed time, both counted from ``began_ns``.

    ``wanted`` and ``nr_regions`` are what the user asked for: never exceeded in frequency or number. ``cpu_ns`` is the
    CPU time spent before sampling began; it counts. CPU time and samples that `update` is told are counted from
    ``cpu_from_ns`` and ``samples_from`` on.
    """

    def __init__(
        self,
        share: float,
        wanted: Intervals,
        nr_regions: NrRegions,
        *,
        began_ns: int,
        cpu_ns: int = 0,
        cpu_from_ns: int = 0,
        samples_from: int = 0,
    ) -> None:
        self.share = share
        self._cpu_from_ns, self._samples_from = cpu_from_ns, samples_from
        self._wanted = wanted
        self._bounds = nr_regions
        self._began_ns = began_ns
        self._last = (cpu_ns, 0)  # CPU ns and samples at the last update: what came before is no sample's cost
        self._sample_us = wanted.sample_us
        self._last_ns = began_ns
        self._per_sample_ns: float | None = None
        self._late_ns = 0.0  # what a sample takes beside its interval: its own work, and waiting for a CPU

    def change(self, wanted: Intervals, nr_regions: NrRegions) -> None:
        """The user asks for other attributes from now on; what was spent so far counts."""
        self._wanted, self._bounds = wanted, nr_regions

    def spent(self, now_ns: int, cpu_ns: int) -> tuple[int, int]:
        """The time since it began, and the CPU time that counts."""
        return now_ns - self._began_ns, cpu_ns - self._cpu_from_ns

    def update(self, now_ns: int, cpu_ns: int, samples: int, regions_max: int, sample_us: int) -> Affordable:
        """What can be afforded from now on.

        ``cpu_ns`` is the CPU time spent so far, ``samples`` the number of samples so far, ``regions_max`` the present
        maximum number of regions, ``sample_us`` the sampling interval since the last update.
        """
        elapsed_ns, cpu_ns = self.spent(now_ns, cpu_ns)
        samples -= self._samples_from
        if samples > self._last[1]:
            more = samples - self._last[1]
            cost = (cpu_ns - self._last[0]) / more
            late_ns = max((now_ns - self._last_ns) / more - sample_us * 1000, 0.0)
            old = self._per_sample_ns
            self._per_sample_ns = cost if old is None else old + _SMOOTHING * (cost - old)
            self._late_ns += late_ns if old is None else _SMOOTHING * (late_ns - self._late_ns)
            self._last, self._last_ns = (cpu_ns, samples), now_ns
        per_sample_ns = self._per_sample_ns or 500_000.0
        aim = self.share * _AIM
        debt_ns = cpu_ns - aim * elapsed_ns
        rate = min(max(aim - debt_ns / _HORIZON_NS, _LEAST * aim), self.share)
        # The sampling interval is what the loop sleeps; its own work and waiting for a CPU come on top. A pause
        # (watermarks, SIGSTOP) is no such thing, so this takes half of the time at most.
        whole_ns = per_sample_ns / rate
        sample_us = int((whole_ns - min(self._late_ns, whole_ns / 2)) / 1000)
        # An aggregation interval may last long: do not leap to where one measurement points.
        sample_us = min(max(sample_us, self._sample_us // _STEP), self._sample_us * _STEP)
        max_regions = self._bounds.max
        if sample_us > MAX_SAMPLE_US:
            max_regions = max(regions_max * MAX_SAMPLE_US // sample_us, self._bounds.min)
            sample_us = MAX_SAMPLE_US
        self._sample_us = max(sample_us, self._wanted.sample_us)
        return Affordable(self._sample_us, max_regions)


def fit_sample(intervals: Intervals, floor_us: int, wanted: Intervals, limit_us: int | None = None) -> Intervals:
    """``intervals`` changed so that the sampling interval is what the user ``wanted``, but ``floor_us`` at least.

    The ratio to the aggregation interval stays, unless ``floor_us`` makes an aggregation longer than ``limit_us``: then
    it has fewer samples, down to 5. Under a goal the tuner goes on deciding, from ``floor_us`` upwards. Intervals that
    would hardly change are returned as they are.
    """
    goal, window = wanted.intervals_goal, max_nr_accesses(wanted.sample_us, wanted.aggr_us)
    if tunes(wanted) and goal is not None:
        lowest = min(max(goal.min_sample_us, floor_us), goal.max_sample_us)
        while limit_us is not None and lowest > goal.min_sample_us and lowest * window > limit_us and window > _FEWEST:
            window = max(window // 2, _FEWEST)
        assert intervals.intervals_goal is not None
        long_enough = intervals.sample_us >= lowest * (1 - _UNCHANGED)
        same = window == max_nr_accesses(intervals.sample_us, intervals.aggr_us)
        if _alike(lowest, intervals.intervals_goal.min_sample_us) and long_enough and same:
            return intervals
        goal = msgspec.structs.replace(goal, min_sample_us=lowest)
        sample_us = max(intervals.sample_us, lowest)
    else:
        sample_us = max(wanted.sample_us, floor_us)
        if _alike(sample_us, intervals.sample_us):
            return intervals
    return Intervals(
        sample_us=sample_us,
        aggr_us=sample_us * window,
        # Looking for mappings costs more than a sample: four times per aggregation is enough where those are long.
        ops_update_us=max(wanted.ops_update_us, sample_us * max(window // 4, 1)),
        intervals_goal=goal,
    )


def tunes(intervals: Intervals) -> bool:
    """Whether there is a goal by which the intervals are tuned."""
    return intervals.intervals_goal is not None and intervals.intervals_goal.access_bp > 0


def _alike(one_us: int, other_us: int) -> bool:
    return abs(one_us - other_us) <= _UNCHANGED * other_us
