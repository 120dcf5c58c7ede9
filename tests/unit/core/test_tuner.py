"""Intervals auto-tuning: the feedback loop's rules, and that it settles where the goal is met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pydamon.core import tuner
from pydamon.core.snapshot import Snapshot
from pydamon.engines.sim import SimEngine
from pydamon.spec import Intervals, IntervalsGoal, from_builtins
from pydamon.workload.model import parse

GOAL = IntervalsGoal()


class TestFeedLoop:
    # mm/damon/tests/core-kunit.h damon_test_feed_loop_next_input: last input 900000
    def test_below_the_goal_the_input_grows_and_above_it_shrinks(self) -> None:
        assert tuner.feed_loop(900_000, 200) > 900_000
        assert tuner.feed_loop(900_000, 250_000_000) < 900_000

    def test_the_step_depends_on_the_distance_to_the_goal(self) -> None:
        assert tuner.feed_loop(900_000, 200) > tuner.feed_loop(900_000, 2000)

    @pytest.mark.parametrize(
        ("score", "following"),
        # docs/algorithms.md 2.10: goal: unchanged; 0: twice; 5,000: half as much more; 15,000: half less; 20,000: floor
        [(10_000, 100_000), (0, 200_000), (5_000, 150_000), (15_000, 50_000), (19_999, 10_000), (20_000, 10_000)],
    )
    def test_worked_numbers(self, score: int, following: int) -> None:
        assert tuner.feed_loop(100_000, score) == following

    @pytest.mark.parametrize(
        ("score", "following"), [(200, 1_782_000), (2_000, 1_620_000), (25_000, 10_000), (0, 1_800_000)]
    )
    def test_worked_numbers_of_the_kernels_vector(self, score: int, following: int) -> None:
        # by the documented formula, from the last input of core-kunit.h, which has only the directions
        assert tuner.feed_loop(900_000, score) == following

    def test_it_saturates(self) -> None:
        assert tuner.feed_loop(2**64 - 1, 0) == 2**64 - 1


class TestTuned:
    def test_at_most_twice_and_at_least_half_a_step(self) -> None:
        intervals = Intervals(sample_us=100_000, aggr_us=2_000_000, intervals_goal=GOAL)
        assert tuner.tuned(intervals, GOAL, 0).sample_us == 200_000
        # the loop's floor is 1/10,000 of the input: 5000 + 1/2 of 1 = 5000, half
        assert tuner.tuned(intervals, GOAL, 10**9).sample_us == 50_000
        assert tuner.tuned(intervals, GOAL, 10_000).sample_us == 100_000

    def test_bounds_hold_and_the_ratio_stays(self) -> None:
        short = tuner.tuned(Intervals(intervals_goal=GOAL), GOAL, 10**9)
        assert (short.sample_us, short.aggr_us) == (5_000, 100_000)
        long = tuner.tuned(Intervals(sample_us=9_000_000, aggr_us=180_000_000, intervals_goal=GOAL), GOAL, 0)
        assert (long.sample_us, long.aggr_us) == (10_000_000, 200_000_000)
        assert long.intervals_goal == GOAL


def counted(start: list[int], end: list[int], nr_accesses: list[int], **more: Any) -> Snapshot:
    """A snapshot of 20 samples."""
    addresses = (np.array(start, np.uint64), np.array(end, np.uint64))
    counts = np.array(nr_accesses, np.uint32)
    return Snapshot(0, 0, 100_000_000, 5_000, 100_000, *addresses, counts, np.zeros(len(start), np.uint32), **more)


def test_the_score_is_the_share_of_observed_events_in_the_wanted_ones() -> None:
    found = counted([0, 100], [100, 1000], [20, 0])
    # 100 bytes in all 20 samples of 1000 bytes: 10 % of the possible events; 4 % are wanted: 2.5 times the goal
    assert tuner.access_score([found], 20, 400) == 25_000
    assert tuner.access_score([], 20, 400) == 0


def test_only_what_is_resident_weighs_in_the_score() -> None:
    # of the cold region nothing is there but 100 bytes: half of all events are seen, 12.5 times the goal
    found = counted([0, 100], [100, 1000], [20, 0], resident=np.array([100, 100], np.uint64))
    assert tuner.access_score([found], 20, 400) == 125_000


def test_what_is_unknown_is_not_counted_as_cold() -> None:
    not_looked_at = np.array([100, 2**64 - 1], np.uint64)
    hot_only = counted([0, 100], [100, 1000], [20, 0], resident=not_looked_at)
    assert tuner.access_score([hot_only], 20, 400) == 250_000
    blind = counted([0, 100], [100, 1000], [20, 0], unknown=np.array([0, 20], np.uint32))
    assert tuner.access_score([blind], 20, 400) == 250_000
    nothing = counted([0], [100], [0], unknown=np.array([20], np.uint32))
    assert tuner.access_score([nothing], 20, 400) is None


def simulate(goal: Mapping[str, object], accesses_per_s: int) -> list[int]:
    """Sampling intervals of the snapshots of 10 simulated minutes of random accesses to 64 MiB."""
    workload = parse("a, 67108864\n\nsteady\n600000\na, 1, 4096, 1\n", source="test")
    context = {"ops": "sim", "targets": [{}], "intervals": {"intervals_goal": goal}}
    spec = from_builtins({"kdamonds": [{"contexts": [context]}]})
    engine = SimEngine(spec, workload, accesses_per_s=accesses_per_s)
    engine.kdamond.end_ns = 120_000_000_000
    return [snapshot.sample_us for (snapshot,) in engine.monitor()]


def test_intervals_grow_until_a_rarely_accessed_target_meets_the_goal() -> None:
    goal = {"access_bp": "4 %", "aggrs": 3, "min_sample_us": "5 ms", "max_sample_us": "10 s"}
    samples = simulate(goal, 10_000)
    assert samples[:3] == [5_000] * 3
    # 16384 pages, 10,000 accesses a second: 4 % of the pages are accessed in 0.067 s
    assert 40_000 <= np.median(samples[len(samples) // 2 :]) <= 110_000


@pytest.mark.slow
def test_a_goal_of_zeros_is_off() -> None:
    zeros = {"access_bp": 0, "aggrs": 0, "min_sample_us": 0, "max_sample_us": 0}
    assert set(simulate(zeros, 10_000)) == {5_000}
