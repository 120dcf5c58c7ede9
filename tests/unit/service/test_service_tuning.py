"""What a change makes of the parameters; expected intervals follow from the ratio that docs/start.md states."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace

from pydamon.errors import RequestError
from pydamon.service.protocol import Tune
from pydamon.service.tuning import tuned
from pydamon.spec import Context, Intervals, IntervalsGoal, NrRegions, Target
from pydamon.spec.defaults import DefaultGoal
from pydamon.spec.probes import parse_probe

PRESENT = ASKED = Context(
    targets=(Target(pid=7),),
    intervals=Intervals(sample_us=5_000, aggr_us=100_000, ops_update_us=1_000_000),
    nr_regions=NrRegions(min=10, max=1000),
)
GOAL = {"metric": "user_input", "target_value": 100, "name": "rps"}
SCHEME = {"action": "stat", "quotas": {"goals": [GOAL]}}


def change(present: Context = PRESENT, asked: Context = ASKED, **wanted: Any) -> Context:
    return tuned(Tune(**wanted), present, asked, primitive="smaps", nr_targets=1)


def test_one_of_two_intervals_keeps_their_ratio() -> None:
    assert change(sample_us=10_000).intervals.aggr_us == 200_000
    assert change(aggr_us=400_000).intervals.sample_us == 20_000
    assert change(sample_us=10_000, aggr_us=50_000).intervals == Intervals(
        sample_us=10_000, aggr_us=50_000, ops_update_us=1_000_000
    )


def test_what_is_not_given_stays_also_where_it_was_tuned_meanwhile() -> None:
    present = replace(
        PRESENT,
        intervals=Intervals(sample_us=80_000, aggr_us=1_600_000, intervals_goal=IntervalsGoal()),
        nr_regions=NrRegions(max=300),
    )
    result = change(present, max_regions=500)
    assert result.intervals == present.intervals
    assert result.nr_regions == NrRegions(min=10, max=500)
    assert result.schemes is present.schemes


def test_a_bound_that_was_lowered_for_the_cost_is_not_taken_for_what_the_user_wants() -> None:
    present = replace(PRESENT, nr_regions=NrRegions(min=10, max=50))
    assert change(present, sample_us=10_000).nr_regions == ASKED.nr_regions


def test_tuning_of_the_intervals_is_switched_on_and_off() -> None:
    auto = change(intervals="auto")
    assert auto.intervals.intervals_goal == IntervalsGoal()
    asked = Context(targets=ASKED.targets, intervals=auto.intervals)
    assert change(auto, asked, intervals="fixed").intervals.intervals_goal is None
    assert change(auto, asked, sample_us=10_000).intervals.intervals_goal == IntervalsGoal()


def test_intervals_that_are_said_end_a_tuning_that_nobody_asked_for() -> None:
    unsaid = Intervals(sample_us=40_000, aggr_us=800_000, intervals_goal=DefaultGoal())
    running = replace(PRESENT, intervals=unsaid)
    assert change(running, running, sample_us=10_000).intervals == Intervals(sample_us=10_000, aggr_us=200_000)
    assert change(running, running, intervals="auto").intervals.intervals_goal == IntervalsGoal()
    assert change(running, running, intervals="fixed").intervals.intervals_goal is None
    assert change(running, running, update_us=2_000_000).intervals == replace(unsaid, ops_update_us=2_000_000)


def test_probes_are_replaced_by_those_that_are_given() -> None:
    anon = parse_probe("anon")
    running = replace(PRESENT, probes=(anon,))
    assert change(running, running, sample_us=10_000).probes == (anon,)
    assert change(running, running, probes=[]).probes == ()
    huge = parse_probe("set_pgidle hugepage_size=2M..1G weight=7")
    assert change(running, running, probes=[to_builtins(huge)]).probes == (huge,)
    context = {"targets": [{"pid": 7}], "probes": [to_builtins(huge)]}
    assert change(running, running, spec={"kdamonds": [{"contexts": [context]}]}).probes == (huge,)
    del context["probes"]
    assert change(running, running, spec={"kdamonds": [{"contexts": [context]}]}).probes == (anon,)


def test_intervals_are_not_tuned_where_accesses_are_not_looked_for() -> None:
    running = replace(PRESENT, intervals=replace(PRESENT.intervals, intervals_goal=DefaultGoal()))
    wanted = [to_builtins(parse_probe("anon weight=1"))]
    assert change(running, running, probes=wanted).intervals == PRESENT.intervals
    with pytest.raises(RequestError) as caught:
        change(running, running, probes=wanted, intervals="auto")
    assert caught.value.where == "intervals.intervals_goal"
    with pytest.raises(RequestError) as caught:
        change(probes=wanted, sample_us=1_000, aggr_us=256_000)
    assert caught.value.where == "probes[0].weight"


@pytest.mark.parametrize(
    ("wanted", "where"),
    [
        ({"sample_us": 0}, "intervals.sample_us"),
        ({"sample_us": 200_000, "aggr_us": 100_000}, "intervals.sample_us"),
        ({"update_us": -1}, "intervals.ops_update_us"),
        ({"min_regions": 2}, "nr_regions.min"),
        ({"max_regions": 5}, "nr_regions.max"),
        ({"schemes": [{"action": "explode"}]}, "schemes[0].action"),
        ({"schemes": [SCHEME, 7]}, "schemes[1]"),
        ({"probes": [{"weight": -1}]}, "probes[0].weight"),
        ({"probes": [{}, {"filters": [{"filter_type": "warm"}]}]}, "probes[1].filters[0].filter_type"),
        ({"probes": [{}] * 5}, "probes"),
        ({"schemes": [{"action": "stat"}] * 257}, "schemes"),
        ({"schemes": [{"action": "stat", "access_pattern": {"sz_bytes": {"min": 2, "max": 1}}}]},
         "schemes[0].access_pattern.sz_bytes.min"),
        ({"schemes": [SCHEME], "goal_values": {"x": 1}}, "goal x"),
        ({"goal_values": {"rps": -1}}, "goal rps"),
        ({"spec": {}}, "kdamonds"),
        ({"spec": {"kdamonds": []}}, "kdamonds"),
        ({"spec": {"kdamonds": [{"contexts": [{}]}]}, "sample_us": 10_000}, "spec"),
        ({"spec": {"kdamonds": [{"contexts": [{"ops": "sim"}]}]}}, "kdamonds[0].contexts[0].ops"),
        ({"spec": {"kdamonds": [{"contexts": [{"primitive": "idle"}]}]}}, "kdamonds[0].contexts[0].primitive"),
        ({"spec": {"kdamonds": [{"contexts": [{"targets": [{"pid": 8}]}]}]}}, "kdamonds[0].contexts[0].targets"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(wanted: dict[str, Any], where: str) -> None:
    with pytest.raises(RequestError) as caught:
        change(**wanted)
    assert caught.value.where == where


def test_a_spec_replaces_parameters_and_schemes() -> None:
    context = {"intervals": {"sample_us": "10ms", "aggr_us": "1s"}, "primitive": "smaps", "schemes": [SCHEME]}
    result = change(spec={"kdamonds": [{"contexts": [context]}]}, goal_values={"rps": 40})
    assert (result.intervals.sample_us, result.intervals.aggr_us) == (10_000, 1_000_000)
    assert result.schemes is not None
    assert result.schemes[0].quotas.goals[0].current_value == 40


def test_goals_of_new_schemes_are_found_by_their_place_too() -> None:
    nameless = {"metric": "user_input", "target_value": 100}
    scheme = {"action": "stat", "quotas": {"goals": [GOAL, nameless]}}
    result = change(schemes=[scheme], goal_values={"0.1": 9})
    assert result.schemes is not None
    assert [goal.current_value for goal in result.schemes[0].quotas.goals] == [0, 9]


def test_a_spec_brings_the_schemes_of_its_modules() -> None:
    spec = {"kdamonds": [{"contexts": [{"targets": [{"pid": 7}]}], "modules": ["reclaim min_age=5s"]}]}
    (scheme,) = change(spec=spec).schemes
    assert (scheme.name, str(scheme.access_pattern.age.min)) == ("reclaim", "5 s")
