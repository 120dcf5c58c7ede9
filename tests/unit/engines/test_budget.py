"""The overhead bound: what a simulated monitor spends under it, whatever a sample costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pydamon.engines.user.budget import MAX_SAMPLE_US, CpuBudget, fit_sample
from pydamon.spec import Intervals, IntervalsGoal, NrRegions

SECOND = 1_000_000_000
START_UP_NS = 300_000_000


def run(
    share: float,
    cost_ns: Callable[[int, int], int],
    seconds: float,
    wanted: Intervals | None = None,
    late: float = 0.0,
) -> tuple[float, Intervals, int]:
    """Monitor for that long, a sample costing ``cost_ns(time_ns, regions)``; the share spent, and the last settings.

    ``late`` is by what part of the sampling interval each sample comes too late.
    """
    wanted = wanted or Intervals()
    budget = CpuBudget(share, wanted, NrRegions(), began_ns=0, cpu_ns=START_UP_NS)
    now, cpu, samples, regions, intervals = 0, START_UP_NS, 0, 1000, wanted
    while now < seconds * SECOND:
        for _ in range(intervals.aggr_us // intervals.sample_us):
            cost = cost_ns(now, regions)
            now += int(intervals.sample_us * 1000 * (1 + late)) + cost
            cpu += cost
            samples += 1
        allowed = budget.update(now, cpu, samples, regions, intervals.sample_us)
        intervals, regions = fit_sample(intervals, allowed.sample_us, wanted), allowed.max_regions
    return cpu / now, intervals, regions


@pytest.mark.parametrize("share", [0.005, 0.01, 0.05])
@pytest.mark.parametrize("cost_us", [100, 500, 2000])
def test_two_minutes_end_at_the_bound_or_up_to_a_fifth_below(share: float, cost_us: int) -> None:
    spent, intervals, _ = run(share, lambda *_: cost_us * 1000, 120)
    # cheap samples at the wanted interval may cost less than the bound: 100 us every 5 ms are 2 %
    cheapest = cost_us / (5000 + cost_us) + START_UP_NS / SECOND / 120
    assert spent <= share
    assert spent >= 0.8 * min(share, cheapest)
    assert intervals.aggr_us == 20 * intervals.sample_us


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_where_others_take_the_cpu_it_is_used_up_all_the_same(share: float) -> None:
    spent, _, _ = run(share, lambda *_: 500_000, 120, late=0.4)
    assert 0.8 * share <= spent <= share


def test_intervals_are_never_shorter_than_wanted() -> None:
    wanted = Intervals(sample_us=50_000, aggr_us=1_000_000)
    _, intervals, regions = run(0.5, lambda *_: 10_000, 30, wanted)
    assert intervals == wanted
    assert regions == 1000


def test_a_change_of_the_cost_is_followed() -> None:
    spent, _, _ = run(0.02, lambda now, _: 300_000 if now < 60 * SECOND else 1_500_000, 180)
    assert 0.8 * 0.02 <= spent <= 0.02


def test_where_intervals_would_get_too_long_the_regions_get_fewer() -> None:
    # 20 us a region: a sample of 1000 regions costs 20 ms, and 0.5 % of a CPU allows one in 4 s
    spent, intervals, regions = run(0.005, lambda _, regions: regions * 20_000, 600)
    assert intervals.sample_us <= MAX_SAMPLE_US
    assert regions < 1000
    assert spent == pytest.approx(0.005, rel=0.1)  # an aggregation interval lasts 40 s by then: debts are paid slowly


def test_under_a_goal_the_tuner_decides_above_the_floor() -> None:
    wanted = Intervals(intervals_goal=IntervalsGoal())
    tuned = Intervals(sample_us=200_000, aggr_us=4_000_000, intervals_goal=IntervalsGoal(min_sample_us=40_000))
    assert fit_sample(tuned, 40_000, wanted) == tuned
    raised = fit_sample(wanted, 40_000, wanted)
    assert (raised.sample_us, raised.aggr_us) == (40_000, 800_000)
    assert raised.intervals_goal == IntervalsGoal(min_sample_us=40_000)


def test_where_the_floor_makes_aggregations_too_long_they_have_fewer_samples() -> None:
    wanted = Intervals(intervals_goal=IntervalsGoal())

    def window(floor_us: int, limit_us: int | None) -> int:
        fitting = fit_sample(wanted, floor_us, wanted, limit_us)
        assert fitting.sample_us == max(floor_us, 5_000)
        return fitting.aggr_us // fitting.sample_us

    assert window(100_000, None) == 20
    assert window(100_000, 2_000_000) == 20
    assert window(100_000, 1_999_999) == 10
    assert window(100_000, 999_999) == 5
    assert window(100_000, 1) == 5
    assert window(5_000, 1) == 20  # it is not the floor that makes them long


def test_with_more_time_aggregations_have_all_their_samples_again() -> None:
    wanted = Intervals(intervals_goal=IntervalsGoal())
    few = fit_sample(wanted, 100_000, wanted, 500_000)
    assert (few.aggr_us, fit_sample(few, 100_000, wanted, 2_000_000).aggr_us) == (500_000, 2_000_000)


def test_where_aggregations_are_long_mappings_are_looked_for_four_times_in_each() -> None:
    wanted = Intervals()  # 5 ms, 100 ms, 1 s
    assert fit_sample(wanted, 50_000, wanted).ops_update_us == 1_000_000
    assert fit_sample(wanted, 2_000_000, wanted).ops_update_us == 10_000_000


def test_what_starting_up_has_cost_makes_the_first_interval_longer() -> None:
    for share, least_us in ((0.005, 80_000), (0.05, 10_000)):
        budget = CpuBudget(share, Intervals(), NrRegions(), began_ns=0, cpu_ns=START_UP_NS)
        allowed = budget.update(0, START_UP_NS, 0, 1000, 5_000)
        assert least_us <= allowed.sample_us <= 80_000  # no leap of more than 16 times
        assert allowed.max_regions == 1000
