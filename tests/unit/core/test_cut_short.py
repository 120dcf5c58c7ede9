"""The aggregation that the end cuts short: its samples count for what they are, and ages go on."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core import cut_short
from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot
from pydamon.engines.sim import SimEngine
from pydamon.ops.base import PAGE_SIZE
from pydamon.spec import from_builtins
from pydamon.workload.model import parse

MS = 1_000_000
HALF_HOT = "a, 33554432\nb, 33554432\n\nsteady\n60000\na, 0, 4096, 1\n"


def regions_of(last: list[int], now: list[int], age: list[int]) -> Regions:
    """Regions of a page each."""
    start = np.arange(len(last), dtype=np.uint64) * np.uint64(PAGE_SIZE)
    regions = Regions(start, start + np.uint64(PAGE_SIZE))
    regions.last_nr_accesses[:] = last
    regions.counts.accessed[:] = now
    regions.age[:] = age
    regions.age_ns[:] = np.array(age) * 100 * MS
    return regions


def test_ages_go_on_in_the_units_of_the_short_aggregation() -> None:
    # idle, hot, accessed at another rate, accessed for the first time, not any more (it is not idle for so long)
    regions = regions_of([0, 20, 10, 0, 2], [0, 5, 5, 1, 0], [8, 8, 8, 8, 8])
    cut_short.settle(regions, 20, 5, 100_000, 25_000, 25 * MS)
    assert regions.age.tolist() == [33, 33, 33, 0, 0]
    assert regions.age_ns.tolist() == [825 * MS, 825 * MS, 825 * MS, 0, 0]


def test_what_nobody_answered_keeps_its_rate_and_stays_unknown() -> None:
    regions = regions_of([20, 20], [0, 2], [0, 0])
    regions.counts.unknown[:] = [4, 2]
    cut_short.settle(regions, 20, 4, 100_000, 20_000, 20 * MS)
    assert regions.nr_accesses.tolist() == [4, 4]
    assert regions.blind(4).tolist() == [True, False]


def ended_at(end_ms: float, *, goal: bool = False, faithful: bool = False) -> list[Snapshot]:
    tuned = {"access_bp": 400, "aggrs": 3, "min_sample_us": 5_000, "max_sample_us": 10_000_000}
    intervals = {"intervals_goal": tuned if goal else None}
    context = {"ops": "sim", "targets": [{}], "intervals": intervals, "faithful": faithful}
    engine = SimEngine(from_builtins({"kdamonds": [{"contexts": [context]}]}), parse(HALF_HOT, source="test"), seed=3)
    engine.end_ns = int(end_ms * MS)
    return [snapshot for (snapshot,) in engine.monitor()]


@pytest.mark.parametrize("goal", [False, True])
def test_it_is_a_snapshot_with_its_number_of_samples(goal: bool) -> None:
    *whole, last = ended_at(1_937, goal=goal)
    assert (last.end_ns, last.start_ns) == (1_937 * MS, whole[-1].end_ns)
    sampled_us = (last.end_ns - last.start_ns) // 1000
    assert 0 < last.max_nr_accesses < whole[-1].max_nr_accesses
    assert last.aggr_us == last.max_nr_accesses * last.sample_us
    assert sampled_us - last.sample_us < last.aggr_us <= sampled_us
    hot = last.nr_accesses == last.max_nr_accesses
    size = (last.end - last.start).astype(np.int64)
    assert size[hot].sum() == pytest.approx(32 << 20, rel=0.1)


def test_its_ages_stand_for_the_same_times() -> None:
    *_, before, last = ended_at(1_990)
    ages = last.column("age_ms")
    assert ages is not None
    assert ages.max() == before.column("age_ms").max() + 90  # type: ignore[union-attr]
    assert np.abs(last.age.astype(np.int64) * last.aggr_us / 1000 - ages).max() <= last.aggr_us / 1000 * 1.5


def test_nothing_is_left_over_where_an_aggregation_ends_with_it() -> None:
    assert [snapshot.max_nr_accesses for snapshot in ended_at(1_000)] == [20] * 10


def test_the_kernels_way_has_whole_aggregations_only() -> None:
    assert [snapshot.max_nr_accesses for snapshot in ended_at(1_937, faithful=True)] == [20] * 19
