"""Regions that follow weighted sums of the hits of probes. Numbers are the worked examples of the kernel's formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.unit.core.test_kdamond import BASE, MIB
from tests.unit.core.test_probes_core import TWO, ProbingOps, kdamond

from pydamon.core import adjust, filters, weighed_hits
from pydamon.core.callbacks import Callbacks, Loop
from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.ops.sim.ops import SimOps
from pydamon.spec import Context, NrRegions, Probe, Scheme
from pydamon.spec.model import Intervals, IntervalsGoal
from pydamon.spec.probes import parse_probe
from pydamon.spec.schemes import Filter, SumRange
from pydamon.workload import model

PAGE = 4096
WEIGHTS = np.array([100, 1], np.int64)


def regions(hits: list[list[int]], last: list[list[int]]) -> Regions:
    """One region of 10 pages for each row of hits, one behind the other."""
    start = np.arange(len(hits), dtype=np.uint64) * np.uint64(10 * PAGE)
    found = Regions(start, start + np.uint64(10 * PAGE))
    found.counts.set_nr_probes(2)
    found.counts.hits[:] = np.array(hits).T
    found.counts.last_hits[:] = np.array(last).T
    return found


def test_regions_are_merged_by_weighted_sums() -> None:
    # Weights 100 and 1, 20 samples: sums 2000 and 1805, before 1800 and 1805; the threshold is 2000 / 10.
    both = regions([[20, 0], [18, 5]], [[18, 0], [18, 5]])
    assert [level.tolist() for level in weighed_hits.levels(both, WEIGHTS)] == [[2000, 1805], [1800, 1805]]
    (merged,) = adjust.merge_all(
        [both], max_seen=weighed_hits.highest([both], WEIGHTS), sz_limit=1 << 40, max_nr_regions=100, window=20,
        weights=WEIGHTS,
    )  # fmt: skip
    assert merged.end.tolist() == [20 * PAGE]
    assert merged.probe_hits.T.tolist() == [[19, 2]]
    assert merged.counts.last_hits.T.tolist() == [[18, 0]]  # of the left one
    assert merged.age.tolist() == [1]
    assert weighed_hits.weighed(merged.counts.hits, WEIGHTS).tolist() == [1902]


def test_regions_whose_sums_differ_by_more_stay_apart() -> None:
    apart = regions([[20, 0], [10, 20]], [[20, 0], [20, 20]])  # 2000 and 1020
    (left,) = adjust.merge_all(
        [apart], max_seen=2000, sz_limit=1 << 40, max_nr_regions=100, window=20, weights=WEIGHTS
    )  # fmt: skip
    assert left.probe_hits.T.tolist() == [[20, 0], [10, 20]]
    assert left.age.tolist() == [1, 0]  # 1020 was 2020


def test_a_run_is_compared_by_its_mean_and_ends_at_the_largest_size() -> None:
    # By hand, threshold 200: 2000 and 1900 make (19, 50) = 1950; 1750 is within 200 of that, not of 2000.
    row = regions([[20, 0], [19, 0], [17, 50], [17, 50]], [[0, 0]] * 4)
    merged = adjust.merge(row, 200, 30 * PAGE, weights=WEIGHTS)
    assert merged.start.tolist() == [0, 30 * PAGE]
    # (20 + 19) / 2 = 19, then (19 * 2 + 17) / 3 = 18; (0 + 0) / 2, then 50 / 3 = 16.
    assert merged.probe_hits.T.tolist() == [[18, 16], [17, 50]]


@pytest.mark.parametrize(
    ("hits", "last", "age"),
    [
        ([3, 0], [1, 0], 6),  # within the threshold
        ([4, 0], [1, 0], 0),  # 300 is not
        ([0, 1], [0, 0], 0),  # from nothing to something
        ([0, 0], [0, 1], 0),
        ([0, 0], [0, 0], 6),
    ],
)
def test_a_region_grows_old_while_its_sum_stays(hits: list[int], last: list[int], age: int) -> None:
    one = regions([hits], [last])
    one.age[:] = 5
    adjust.update_age(one, 200, weights=WEIGHTS)
    assert one.age.tolist() == [age]


def test_the_last_hits_go_with_the_pieces_and_are_rescaled() -> None:
    one = regions([[7, 3], [1, 1]], [[3, 7], [1, 1]])
    pieces = adjust.split(one, 2, PAGE, np.random.default_rng(3))
    assert len(pieces) == 4
    assert pieces.counts.last_hits.T.tolist() == [[3, 7], [3, 7], [1, 1], [1, 1]]
    one.reset_aggregated()
    assert one.counts.last_hits.T.tolist() == [[7, 3], [1, 1]]
    one.counts.hits += 1
    # 7 of 20 samples, 3 of 20; of 10 then: 3500 bp -> 3, 1500 bp -> 1, 500 bp -> 0. What was begun starts over.
    one.rescale(old_window=20, new_window=10, old_aggr_us=100_000, new_aggr_us=100_000)
    assert one.counts.last_hits.T.tolist() == [[3, 1], [0, 0]]
    assert not one.probe_hits.any()


def test_hits_in_the_middle_of_an_aggregation_are_a_moving_sum() -> None:
    # 20 samples, 5 passed: of the last 16 hits 7500 bp are left, so 3 + 12 of the first probe.
    one = regions([[3, 0]], [[16, 0]])
    one.count_samples(5, 20)
    assert one.moving_hits.T.tolist() == [[15, 0]]
    assert weighed_hits.weighed(one.moving_hits, WEIGHTS).tolist() == [1500]


@pytest.mark.parametrize(("low", "high", "matches"), [(1500, 2000, True), (1501, 2000, False), (0, 1500, True)])
def test_a_filter_of_sums_goes_by_the_moving_sum(low: int, high: int, matches: bool) -> None:
    one = regions([[3, 0]], [[16, 0]])
    one.count_samples(5, 20)
    item = Filter(filter_type="probe_hits_wsum", allow=True, probe_hits_wsum=SumRange(min=low, max=high))
    scheme = Scheme(action="stat", filters=(item,))
    passed, allowed = filters.decide(one, 0, scheme, PAGE, WEIGHTS)
    assert passed.tolist() == allowed.tolist() == [matches]
    assert filters.decide(one, 0, scheme, PAGE, None)[0].tolist() == [low == 0]  # nothing is weighed


WEIGHED = (Probe(filters=TWO[0].filters, weight=100), Probe(filters=TWO[1].filters, weight=1))


def test_with_weights_accesses_are_not_looked_for() -> None:
    edge = BASE + 40 * MIB
    ops = ProbingOps([(BASE, BASE + 100 * MIB)], edge, hot=lambda addresses: np.ones(len(addresses), np.uint8))
    monitored = kdamond(ops, probes=WEIGHED)
    for number, (snapshot,) in enumerate(monitored.monitor()):
        assert not snapshot.nr_accesses.any()
        assert (snapshot.probe_samples == 20).all()
        if number == 30:
            monitored.stop()
            # Regions follow the edge: those on its two sides count 2000 and 20.
            apart = snapshot.start[snapshot.probe_hits[0] < 10].min()
            assert abs(int(apart) - edge) < 2 * MIB
            assert snapshot.age.max() > 20
    assert not {"prepare", "check"} & set(ops.calls)


def test_weights_can_be_given_and_taken_while_it_runs() -> None:
    ops = ProbingOps([(BASE, BASE + 100 * MIB)], BASE, hot=lambda addresses: np.ones(len(addresses), np.uint8))
    found = []

    def after(k: Loop) -> bool:
        assert isinstance(k, Kdamond)
        found.append((int(k.snapshots[0].nr_accesses.max()), int(k.snapshots[0].probe_hits[1].max())))
        if len(found) == 2:
            k.commit(replace(k.context, probes=WEIGHED))
        elif len(found) == 4:
            k.commit(replace(k.context, probes=TWO))
        return len(found) == 6

    kdamond(ops, callbacks=Callbacks(after_aggregation=after)).run()
    assert found == [(20, 20), (20, 20), (0, 20), (0, 20), (20, 20), (20, 20)]


@pytest.mark.parametrize("faithful", [False, True])
def test_intervals_are_tuned_by_accesses_that_nobody_looks_for_in_the_kernel_only(faithful: bool) -> None:
    goal = IntervalsGoal(aggrs=1, min_sample_us=5_000, max_sample_us=1_000_000)
    intervals = Intervals(sample_us=5_000, aggr_us=100_000, intervals_goal=goal)
    context = Context(ops="sim", probes=WEIGHED, faithful=faithful, intervals=intervals)
    monitored = Kdamond(ops=ProbingOps([(BASE, BASE + MIB)], BASE), context=context, clock=VirtualClock())
    for number, _ in enumerate(monitored.monitor()):
        if number == 5:
            monitored.stop()
    assert (monitored.intervals.sample_us > 5_000) == faithful


ONE_HOT = "a, 2 MiB\nb, 1 MiB\n\nfirst\n2000\na, 0, 4096, 1\n\nthen\n2000\nb, 0, 4096, 1\n"


def simulated(probes: tuple[Probe, ...]) -> list[list[tuple[int, int, int, int]]]:
    """Start, end, level and age of each region at the end of each aggregation, by the same dice."""
    workload = model.parse(ONE_HOT, source="x")
    clock = VirtualClock()
    intervals = Intervals(sample_us=5_000, aggr_us=100_000, ops_update_us=1_000_000)
    context = Context(
        ops="sim", probes=probes, faithful=True, intervals=intervals, nr_regions=NrRegions(min=10, max=100)
    )
    ops: Any = SimOps(workload, clock, seed=4, repeat=0)
    monitored = Kdamond(ops=ops, context=context, clock=clock, rng=np.random.default_rng(7))
    found = []
    for (snapshot,) in monitored.monitor():
        level = snapshot.probe_hits[0] if probes else snapshot.nr_accesses
        columns = (column.tolist() for column in (snapshot.start, snapshot.end, level, snapshot.age))
        found.append(list(zip(*columns, strict=True)))
        if len(found) == 60:
            monitored.stop()
    return found


def test_the_attribute_of_being_accessed_gives_what_monitoring_accesses_gives() -> None:
    by_accesses = simulated(())
    by_hits = simulated((parse_probe("set_pgidle pgidle_unset weight=1"),))
    assert {level for snapshot in by_accesses for *_, level, _ in snapshot} >= {0, 20}
    assert by_hits == by_accesses
