"""What monitoring may cost where nothing was said, and from when on something was: simulated spending."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import msgspec
import pytest

from pydamon.core.tuning import Tuning
from pydamon.engines.user.spending import Spending
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec import Context, Intervals, IntervalsGoal, NrRegions, Target

SECOND = 1_000_000_000
COST_NS = 400_000  # of a sample: 8 % of a CPU at 5 ms
TUNED = Intervals(intervals_goal=IntervalsGoal())
FIXED = Intervals()


@dataclass
class Clock:
    """Time, and what was spent of it."""

    now: int = 5 * SECOND
    cpu: int = SECOND // 3  # starting up

    def now_ns(self) -> int:
        return self.now

    def cpu_ns(self) -> int:
        return self.cpu


@dataclass
class Loop:
    """What `Spending` looks at."""

    intervals: Intervals
    nr_regions: NrRegions = field(default_factory=NrRegions)
    passed_samples: int = 0
    tuning: Tuning = field(default_factory=Tuning)
    end_ns: int | None = None
    counts_memory: bool = False


class Recording:
    """Samples that cost ``COST_NS`` each, at the intervals that are allowed."""

    def __init__(self, intervals: Intervals, **bounds: Any) -> None:
        self.clock = Clock()
        context = Context(targets=(Target(pid=1),), intervals=intervals)
        bounds = {"max_cpu": None, "usual_cpu": None, "walks_all": False} | bounds
        self.spending = Spending(context, cast(Any, self.clock), **bounds)
        self.loop = Loop(self.spending.first())
        self.loop.end_ns = 3600 * SECOND
        self.cost_ns = COST_NS

    def run(self, seconds: int, *, steady: bool = False) -> float:
        """Go on for that long; the CPU share meanwhile."""
        began, spent = self.clock.now, self.clock.cpu
        while self.clock.now < began + seconds * SECOND:
            self.clock.now += 20 * (self.loop.intervals.sample_us * 1000)
            self.clock.cpu += 20 * self.cost_ns
            self.loop.passed_samples += 20
            found = self.spending.fitted(cast(Any, self.loop), PrimitiveCost(), steady=steady)
            self.loop.intervals, self.loop.nr_regions = found
        return (self.clock.cpu - spent) / (self.clock.now - began)


def test_intervals_that_tune_themselves_keep_to_what_is_usual() -> None:
    recording = Recording(TUNED, usual_cpu=0.03)
    assert recording.run(30) < 0.04
    assert 0.02 < recording.run(60) <= 0.03
    assert recording.spending.remarks() == []
    assert recording.loop.nr_regions == NrRegions()


def test_an_interval_that_was_said_stays_and_what_it_cost_is_said() -> None:
    recording = Recording(FIXED, usual_cpu=0.03)
    assert recording.run(60) == pytest.approx(0.08)
    assert recording.loop.intervals == FIXED
    (remark,) = recording.spending.remarks()
    assert remark.startswith("monitoring took 8.0% of a CPU")


def test_starting_up_is_left_out_of_what_is_usual() -> None:
    recording = Recording(msgspec.structs.replace(FIXED, sample_us=20_000, aggr_us=400_000), usual_cpu=0.03)
    recording.clock.cpu += 5 * SECOND
    recording.run(60)
    assert recording.spending.remarks() == []


def test_nothing_bounds_it_where_nothing_is_usual() -> None:
    recording = Recording(TUNED)
    assert recording.run(60) == pytest.approx(0.08)
    assert recording.spending.remarks() == []


def test_a_bound_may_be_said_later_and_counts_from_then_on() -> None:
    recording = Recording(FIXED)
    recording.run(60)
    recording.spending.bound(0.01)
    recording.run(60)  # paying back nothing: what was spent before does not count
    assert 0.008 < recording.run(60) <= 0.01


def test_where_accesses_stay_as_they_are_a_third_is_enough() -> None:
    recording = Recording(TUNED, usual_cpu=0.03)
    recording.run(30)
    assert recording.run(30) > 0.02
    recording.run(10, steady=True)
    assert 0.008 < recording.run(60, steady=True) <= 0.01
    before = recording.loop.intervals.intervals_goal
    assert before is not None
    recording.run(10)  # a change: the tuning may go as far down as before
    after = recording.loop.intervals.intervals_goal
    assert after is not None
    assert after.min_sample_us < before.min_sample_us / 2
    assert recording.spending.remarks() == []


def test_steady_accesses_lengthen_intervals_so_far_and_no_further() -> None:
    """What does not depend on the interval would lengthen it for ever."""
    recording = Recording(TUNED, usual_cpu=0.03)
    recording.run(60)
    sample_us = recording.loop.intervals.sample_us
    recording.cost_ns *= 20
    recording.loop.end_ns = recording.clock.now + 1000 * SECOND
    recording.run(3, steady=True)
    assert sample_us < recording.loop.intervals.sample_us
    recording = Recording(TUNED, usual_cpu=1.0)
    recording.cost_ns *= 20
    recording.run(10)
    sample_us = recording.loop.intervals.sample_us
    recording.run(30, steady=True)
    assert recording.loop.intervals.sample_us == 3 * sample_us
    recording = Recording(msgspec.structs.replace(TUNED, sample_us=50_000, aggr_us=1_000_000), usual_cpu=1.0)
    recording.cost_ns *= 200
    recording.run(30, steady=True)
    assert recording.loop.intervals.aggr_us == 2_000_000


def test_steady_accesses_change_nothing_where_an_interval_or_a_bound_was_said() -> None:
    recording = Recording(FIXED, usual_cpu=0.03)
    assert recording.run(60, steady=True) == pytest.approx(0.08)
    assert recording.loop.intervals == FIXED
    bounded, same = (Recording(TUNED, usual_cpu=0.03, max_cpu=0.02) for _ in range(2))
    assert bounded.run(60, steady=True) == same.run(60)
