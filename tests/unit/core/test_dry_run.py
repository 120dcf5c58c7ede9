"""Dry runs: nothing of them is to be seen in what is monitored, and what was "taken" is counted once."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core.fake_acting import BASE, MIB, PAGE, Bench, make_regions, spans_of

from pydamon.core import taken
from pydamon.core.clock import VirtualClock
from pydamon.core.damos import Damos
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot
from pydamon.core.taken import Taken
from pydamon.ops.base import Applied
from pydamon.ops.sim import actions
from pydamon.ops.sim.ops import BASE_ADDRESS as SIM
from pydamon.ops.sim.ops import SimOps
from pydamon.spans import clipped
from pydamon.spec import Context, Intervals, NrRegions, Scheme
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AccessPattern, AddressRange, AgeRange, Filter, Quotas, RateRange, Watermarks
from pydamon.workload.builtin import load

IDLE = AccessPattern(nr_accesses=RateRange(max=Rate(0, "samples")), age=AgeRange(min=Age(3, "aggrs")))


class DryOps(SimOps):
    """The simulated machine, on a copy of which schemes are applied; ``pages`` are those that were acted on."""

    pages: set[tuple[int, int]]
    calls = 0

    def apply_scheme(self, target: int, scheme: Scheme, start: Any, end: Any, allowed: Any) -> Applied:
        self.calls += 1
        trial = copy.deepcopy(self.machine)
        before = trial.targets[target].extents
        there = before.spans(before.resident).astype(np.uint64)
        done = actions.apply_scheme(trial, target, scheme, start, end, allowed)
        inside = clipped(there, np.stack([start, end], axis=1))
        for low, high in inside.tolist():
            self.pages |= {(target, page) for page in range(low, high, PAGE)}
        return Applied(done.applied, done.passed, done.spent_ns, inside)


def simulated(*schemes: Scheme, dry_run: bool = True, aggregations: int = 120) -> tuple[list[Snapshot], Kdamond, Any]:
    clock = VirtualClock()
    ops = DryOps(load("zigzag"), clock, seed=5, repeat=0, accesses_per_s=300)
    ops.pages = set()
    loop = Kdamond(
        ops=ops,
        context=Context(
            ops="sim",
            intervals=Intervals(sample_us=5_000, aggr_us=100_000),
            nr_regions=NrRegions(min=10, max=300),
            schemes=schemes,
        ),
        clock=clock,
        rng=np.random.default_rng(7),
        make_damos=lambda: Damos(ops, clock, ops, dry_run=dry_run),
    )
    found: list[Snapshot] = []
    for snapshots in loop.monitor():
        found += snapshots
        if len(found) >= aggregations:
            break
    return found, loop, ops


def differing(left: list[Snapshot], right: list[Snapshot]) -> list[int]:
    """The numbers of snapshots that are not the same in all that they say."""
    pairs = enumerate(zip(left, right, strict=True))
    names = ("start", "end", "nr_accesses", "age", "age_ms", "resident", "unknown")

    def told(snapshot: Snapshot, name: str) -> Any:
        values = getattr(snapshot, name) if hasattr(snapshot, name) else snapshot.column(name)
        return None if values is None else values.tolist()

    return [
        number
        for number, (one, other) in pairs
        if one.end_ns != other.end_ns or any(told(one, n) != told(other, n) for n in names)
    ]


QUOTA = Quotas(sz_bytes=3 * MIB, reset_interval_ms=250)
ODD = Filter("addr", allow=True, address_range=AddressRange(SIM + PAGE, SIM + 9 * MIB))
ASLEEP = Watermarks(metric="free_mem_rate", interval_us=100_000, high_permil=2, mid_permil=1, low_permil=0)


@pytest.mark.parametrize(
    "schemes",
    [
        [Scheme(action="pageout", access_pattern=IDLE)],
        [Scheme(action="pageout", access_pattern=IDLE, quotas=QUOTA), Scheme(action="lru_prio", quotas=QUOTA)],
        [Scheme(action="cold", access_pattern=IDLE, apply_interval_us=35_000)],
        [Scheme(action="stat")],
        [Scheme(action="pageout", access_pattern=IDLE, watermarks=ASLEEP)],
        [Scheme(action="pageout", access_pattern=IDLE, filters=(ODD,))],
    ],
    ids=["pageout", "quotas", "apply interval", "stat", "watermarks", "filter"],
)
def test_what_is_monitored_is_that_of_a_run_without_schemes(schemes: list[Scheme]) -> None:
    without, _, _ = simulated()
    dry, _, _ = simulated(*schemes)
    assert differing(dry, without) == []


def test_that_comparison_sees_what_schemes_change() -> None:
    without, _, _ = simulated()
    wet, _, _ = simulated(Scheme(action="pageout", access_pattern=IDLE), dry_run=False)
    assert len(differing(wet, without)) > 50


@pytest.mark.parametrize("quotas", [Quotas(), QUOTA])
def test_sums_are_of_distinct_bytes(quotas: Quotas) -> None:
    _, loop, ops = simulated(Scheme(action="pageout", access_pattern=IDLE, quotas=quotas), aggregations=300)
    assert loop.damos is not None
    stats = loop.damos.states[0].stats
    assert stats.sz_applied == len(ops.pages) * PAGE > 0
    assert stats.sz_tried >= stats.sz_applied
    assert stats.nr_tried >= stats.nr_applied > 0


# -- by hand ----------------------------------------------------------------------------------------------------------


def dry_bench(*spans: tuple[int, int], scheme: Scheme | None = None, quotas: Quotas | None = None) -> Bench:
    regions = [make_regions(list(spans), age=10)]
    bench = Bench(scheme or Scheme(action="pageout", quotas=quotas or Quotas()), regions=regions)
    bench.damos.dry_run = True
    bench.damos.start((bench.state.scheme,), bench.intervals)
    return bench


def aggregate(bench: Bench, nr: Any = 0) -> list[tuple[int, int, int]]:
    """One aggregation with these counts, and one look at the schemes."""
    bench.regions[0].nr_accesses[:] = nr
    bench.damos.aggregated(bench.passed + 20, bench.targets, bench.regions, 20)
    return bench.step()


def test_what_was_taken_is_left_out_until_it_is_accessed_again() -> None:
    a, b, c = (BASE, BASE + MIB), (BASE + MIB, BASE + 3 * MIB), (BASE + 4 * MIB, BASE + 5 * MIB)
    bench = dry_bench(a, b, c)
    assert [span[1:] for span in aggregate(bench)] == [a, b, c]
    assert aggregate(bench) == []
    assert [span[1:] for span in aggregate(bench, [0, 1, 0])] == [b]  # it is there again
    assert aggregate(bench) == []
    stats = bench.state.stats
    assert (stats.sz_applied, stats.sz_tried, stats.nr_applied, stats.nr_tried) == (4 * MIB, 6 * MIB, 3, 4)
    assert bench.regions[0].age.tolist() == [10, 10, 10]


def test_other_regions_than_before_are_left_out_as_far_as_they_were_taken() -> None:
    bench = dry_bench((BASE, BASE + MIB))
    aggregate(bench)
    bench.regions = [make_regions([(BASE - MIB, BASE + 512 * 1024), (BASE + 512 * 1024, BASE + 2 * MIB)], age=10)]
    assert [span[1:] for span in aggregate(bench)] == [(BASE - MIB, BASE), (BASE + MIB, BASE + 2 * MIB)]
    assert spans_of(bench.regions[0]) == [(BASE - MIB, BASE + 512 * 1024), (BASE + 512 * 1024, BASE + 2 * MIB)]


def test_a_quota_comes_to_all_of_memory_in_turn_and_is_charged_again_for_what_came_back() -> None:
    span = (BASE, BASE + 4 * MIB)
    bench = dry_bench(span, quotas=Quotas(sz_bytes=MIB, reset_interval_ms=100))
    starts = [aggregate(bench)[0][1] for _ in range(4)]
    assert starts == [BASE + n * MIB for n in range(4)]
    assert aggregate(bench) == []
    assert len(aggregate(bench, 3)) == 1
    assert bench.state.quota.total_charged_bytes == 5 * MIB
    assert bench.state.stats.sz_applied == 4 * MIB


def test_what_is_taken_in_the_middle_of_an_aggregation_is_not_back_by_what_came_before() -> None:
    bench = dry_bench((BASE, BASE + MIB), scheme=Scheme(action="pageout", apply_interval_us=50_000))
    bench.regions[0].nr_accesses[:] = 2
    assert len(bench.step(10)) == 1
    assert aggregate(bench, 2) == []
    assert len(aggregate(bench, 2)) == 1


def test_hot_memory_is_left_out_while_it_is_in_use() -> None:
    bench = dry_bench((BASE, BASE + MIB), scheme=Scheme(action="lru_prio"))
    assert len(aggregate(bench, 5)) == 1
    assert aggregate(bench, 5) == []
    assert len(aggregate(bench, 0)) == 1


def test_what_nothing_worked_out_in_was_not_taken() -> None:
    bench = dry_bench((BASE, BASE + MIB))
    bench.ops.share = lambda start, end: 0
    assert len(aggregate(bench)) == len(aggregate(bench)) == 1
    assert bench.state.stats.sz_applied == 0


pieces = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(pieces, st.sets(st.integers(0, 60)), st.booleans()), max_size=8))
def test_bytes_are_counted_as_sets_of_pages_would(steps: list[tuple[list[tuple[int, int]], set[int], bool]]) -> None:
    """Against sets: each page of a region that is there counts once, and is left out until its region is accessed."""
    mine, seen, out = Taken(hot=False), set[int](), set[int]()
    for wanted, there, accessed in steps:
        cuts = sorted({0, 60} | {at for at, _ in wanted} | {min(at + size, 60) for at, size in wanted})
        spans = [(low * PAGE, high * PAGE) for low, high in itertools.pairwise(cuts)]
        regions = make_regions(spans)
        if accessed:
            regions.nr_accesses[0] = 1
            out -= set(range(cuts[0], cuts[1]))
        mine.look([0], [regions], 20)
        left, which = mine.cut_out(0, regions, np.ones(len(regions), np.bool_))
        pages = {p for s, e in np.array(spans_of(left))[which].tolist() for p in range(s // PAGE, e // PAGE)}
        assert pages == set(range(60)) - out
        start, end = left.start[which], left.end[which]
        acted = np.array([(p * PAGE, (p + 1) * PAGE) for p in sorted(there)], np.uint64).reshape(-1, 2)
        sizes = [len(there & set(range(s // PAGE, e // PAGE))) * PAGE for s, e in zip(start, end, strict=True)]
        done = Applied(np.array(sizes, np.uint64), end - start, acted=acted)
        new = mine.take(0, start, end, done, whole=True)
        assert int(new.sum()) == len((pages & there) - seen) * PAGE
        seen |= pages & there
        for s, e, size in zip(start, end, sizes, strict=True):
            out |= set(range(int(s) // PAGE, int(e) // PAGE)) if size else set()


def test_what_is_kept_is_bounded_and_never_counts_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken, "_MOST_LEFT_OUT", 10)
    monkeypatch.setattr(taken, "_MOST_COUNTED", 20)
    mine, rng, total = Taken(hot=False), np.random.default_rng(1), 0
    for _ in range(50):
        at = np.unique(rng.integers(0, 1000, 30)).astype(np.uint64) * np.uint64(2 * PAGE)
        mine.look([0], [Regions(at, at + np.uint64(PAGE))], 20)
        size = np.full(len(at), PAGE, np.uint64)
        total += int(mine.take(0, at, at + np.uint64(PAGE), Applied(size, size), whole=True).sum())
    mine.look([0], [Regions.empty()], 20)
    assert len(mine._left_out[0]) == 10  # all are of one size
    assert len(mine._counted[0]) <= 20
    assert 20 * PAGE < total <= 1000 * PAGE
    mine.look([1], [Regions.empty()], 20)  # target 0 has ended
    assert mine._left_out == mine._counted == {}
