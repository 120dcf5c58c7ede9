"""The sampling seam: what the core asks a sampler for, what ends a batch, and that one of many samples fits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.unit.ops.many_samples import ManySampler

from pydamon.core.callbacks import Callbacks
from pydamon.core.clock import VirtualClock
from pydamon.core.damos import Damos
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.ops.base import BatchEnd
from pydamon.ops.pace import Pace
from pydamon.ops.sim.ops import BASE_ADDRESS, SimOps
from pydamon.spec import Context, Intervals, NrRegions, Probe, Scheme
from pydamon.spec.schemes import AddressRange, Filter, Watermarks
from pydamon.workload import model

MS = 1_000_000
MIB = 1 << 20
SEED = 5

# The first process ends after 1.33 s, in the middle of a sample and of an aggregation.
SHORT = "a, 6 MiB\nb, 6 MiB\n\nfirst\n600\na, 0, 4096, 1\n\nsecond\n733\nb, 0, 8192, 1\n"
LONG = "c, 8 MiB\nd, 16 MiB\n\nfirst\n900\nd, 0, 4096, 1\n\nsecond\n1700\nc, 1, 8192, 1\n"


class Course(VirtualClock):
    """Virtual time in which things happen: at ``ns`` the first of ``events`` is called. ``wakes``: when it is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, Callable[[], object]]] = []
        self.wakes: list[int] = []

    def sleep_ns(self, duration_ns: int) -> bool:
        until_ns = self.now_ns() + duration_ns
        while self.events and self.events[0][0] <= until_ns:
            self.events.pop(0)[1]()
        if self.wakes and self.wakes[0] <= until_ns:
            super().sleep_ns(max(self.wakes.pop(0) - self.now_ns(), 0))
            return False
        return super().sleep_ns(duration_ns)


class Never:
    """Nothing ends the samples, or what a test says."""

    end_ns: int | None = None

    def interrupted(self) -> bool:
        return False


def kdamond(sampler: str = "page", *workloads: str, **context: Any) -> tuple[Kdamond, Any, Course]:
    clock = Course()
    ops = SimOps([model.parse(text, source="test") for text in workloads or (LONG,)], clock, seed=SEED)
    if sampler == "many":
        ops.sampler = ManySampler(ops, SEED)  # type: ignore[assignment]
    k = Kdamond(
        ops=ops,
        context=Context(ops="sim", **context),
        clock=clock,
        rng=np.random.default_rng(2),
        make_damos=lambda: Damos(ops, clock, ops),
    )
    return k, ops.sampler, clock


def plain(snapshot: Any) -> list[Any]:
    arrays = ("start", "end", "nr_accesses", "age", "probe_hits", "probe_samples")
    return [snapshot.target, snapshot.start_ns, snapshot.end_ns, snapshot.sample_us] + [
        getattr(snapshot, name).tolist() for name in arrays
    ]


def cutting(low: int, high: int) -> Scheme:
    """Applied every 7 samples to an address range: regions are cut at its ends, mostly in mid-aggregation."""
    inside = AddressRange(start=BASE_ADDRESS + low, end=BASE_ADDRESS + high)
    reject = Filter(filter_type="addr", address_range=inside, matching=False)
    return Scheme(action="stat", apply_interval_us=35_000, filters=(reject,))


def monitored(sampler: str) -> tuple[list[Any], dict[str, Any]]:
    """All that comes of a run of two targets with commits in mid-batch, cuts in mid-aggregation and a woken sleep."""
    k, used, clock = kdamond(sampler, SHORT, LONG, schemes=(cutting(MIB + 4096, 3 * MIB),), probes=(Probe(),))
    faster = Intervals(sample_us=2_000, aggr_us=60_000, ops_update_us=250_000)
    clock.events = [
        (437 * MS + 1, lambda: k.commit(replace(k.asked, nr_regions=NrRegions(min=10, max=60)))),
        (811 * MS + 1, lambda: k.commit(replace(k.asked, intervals=faster, schemes=(cutting(5 * MIB, 7 * MIB),)))),
        (1_700 * MS + 1, lambda: k.commit(replace(k.asked, probes=()))),
    ]
    clock.wakes = [523 * MS, 523 * MS + 5, 1_901 * MS]
    cuts: list[int] = []
    sizes: list[int] = []
    assert k.damos is not None

    def passed(_: int) -> None:
        now = sum(map(len, k.regions))
        if k.passed_samples < k._next_aggregation and now > sizes[-1]:
            cuts.append(k.passed_samples)

    k.damos.on_pass = passed
    k.damos.on_apply = lambda *_: None
    original = used.sample

    def sample(targets: Any, regions: Any, *rest: Any) -> Any:
        sizes.append(sum(map(len, regions)))
        return original(targets, regions, *rest)

    used.sample = sample
    found = [[plain(snapshot) for snapshot in snapshots] for snapshots in k.monitor()]
    stats = [state.stats for state in k.damos.states]
    return found, {"sampler": used, "cuts": cuts, "stats": stats, "passed": k.passed_samples}


def test_a_sampler_of_many_samples_counts_what_the_one_of_pages_counts() -> None:
    expected, by_page = monitored("page")
    found, by_many = monitored("many")
    assert found == expected
    assert by_many["stats"] == by_page["stats"]
    assert by_many["stats"][0].nr_tried > 50
    assert (by_many["passed"], by_many["cuts"]) == (by_page["passed"], by_page["cuts"])
    # All that was to happen has happened: both targets, then one; cuts in mid-aggregation; batches that ended early.
    assert {len(snapshots) for snapshots in found} == {1, 2}
    assert len(by_many["cuts"]) > 10
    ends = {why: (n, done) for n, done, why in by_many["sampler"].batches if done > 0}
    assert set(ends) == {BatchEnd.DONE, BatchEnd.INTERRUPTED, BatchEnd.WOKEN, BatchEnd.TARGET_ENDED}
    assert all(done < n for why, (n, done) in ends.items() if why is not BatchEnd.DONE)
    assert any(row[6] != row[8] for snapshots in found for row in snapshots)
    # Loaded after changes only: far more batches than that.
    assert by_many["sampler"].loads < len(by_many["sampler"].batches)


SECOND_OF_MS = Intervals(sample_us=1_000, aggr_us=1_000_000, ops_update_us=1_000_000)


@pytest.mark.parametrize("sampler", ["page", "many"])
def test_a_commit_takes_effect_at_the_next_sample_although_a_thousand_were_asked_for(sampler: str) -> None:
    k, _, clock = kdamond(sampler, intervals=SECOND_OF_MS)
    fewer = Intervals(sample_us=10_000, aggr_us=100_000, ops_update_us=1_000_000)
    clock.events = [(10 * MS + 1, lambda: k.commit(replace(k.asked, intervals=fewer)))]
    first = next(iter(k.monitor()))[0]
    # 11 samples of 1 ms, the commit, and 10 of 10 ms from there.
    assert (k.passed_samples, first.start_ns, first.end_ns) == (21, 11 * MS, 111 * MS)


@pytest.mark.parametrize("sampler", ["page", "many"])
def test_a_stop_takes_effect_at_the_next_sample_although_a_thousand_were_asked_for(sampler: str) -> None:
    k, _, clock = kdamond(sampler, intervals=SECOND_OF_MS)
    clock.events = [(10 * MS + 1, k.stop)]
    ((found, *_),) = k.monitor()  # what was sampled until then
    assert (found.max_nr_accesses, found.end_ns) == (11, 11 * MS)
    assert (k.passed_samples, clock.now_ns()) == (11, 11 * MS)


@pytest.mark.parametrize("sampler", ["page", "many"])
def test_the_end_of_all_time_ends_a_batch_and_the_sample_that_it_cuts_short_is_none(sampler: str) -> None:
    k, _, clock = kdamond(sampler, intervals=SECOND_OF_MS)
    k.end_ns = 5 * MS + 300
    ((found, *_),) = k.monitor()
    assert (found.max_nr_accesses, found.aggr_us) == (5, 5_000)
    assert (k.passed_samples, clock.now_ns()) == (5, 5 * MS + 300)


@pytest.mark.parametrize("sampler", ["page", "many"])
def test_watermarks_are_looked_at_in_the_middle_of_a_batch(sampler: str) -> None:
    free = Watermarks(metric="free_mem_rate", interval_us=50_000, high_permil=1000, mid_permil=1000, low_permil=0)
    k, _, clock = kdamond(sampler, intervals=SECOND_OF_MS, schemes=(Scheme(action="stat", watermarks=free),))
    looks: list[int] = []
    assert k.damos is not None
    assert k.damos.metrics is not None

    def look() -> int:
        looks.append(clock.now_ns() // MS)
        return 500

    k.damos.metrics.free_mem_permil = look  # type: ignore[method-assign]
    next(iter(k.monitor()))
    assert looks == list(range(0, 1000, 50))


def direct(sampler: str, *workloads: str) -> tuple[Any, SimOps, list[Regions], Course]:
    k, used, clock = kdamond(sampler, *workloads)
    ops = k.ops
    assert isinstance(ops, SimOps)
    regions = [Regions(ranges[:, 0], ranges[:, 1]) for ranges in ops.init()]
    return used, ops, regions, clock


@pytest.mark.parametrize("sampler", ["page", "many"])
def test_an_ended_target_ends_the_batch_and_one_that_had_ended_before_does_not(sampler: str) -> None:
    used, _, regions, clock = direct(sampler, SHORT, LONG)
    pace = Pace(clock, Never(), sample_ns=5 * MS)
    counts = [r.counts for r in regions]
    # The process ends after 1333 ms: that is within the 267th sample, which has no answer of it.
    assert used.sample([0, 1], regions, counts, 1000, pace) == (267, BatchEnd.TARGET_ENDED)
    assert [r.counts.unknown.tolist() for r in regions] == [[1], [0]]
    assert used.sample([0, 1], regions, counts, 10, pace) == (10, BatchEnd.DONE)
    assert [r.counts.unknown.tolist() for r in regions] == [[11], [0]]


@pytest.mark.parametrize("sampler", ["page", "many"])
def test_a_sleep_that_is_cut_short_is_no_sample(sampler: str) -> None:
    used, _, regions, clock = direct(sampler)
    clock.wakes = [22 * MS]
    pace = Pace(clock, Never(), sample_ns=5 * MS)
    assert used.sample([0], regions, [regions[0].counts], 1000, pace) == (4, BatchEnd.WOKEN)
    assert used.sample([], [], [], 3, pace) == (3, BatchEnd.DONE)


def asked_for(k: Kdamond, sampler: Any, aggregations: int) -> list[int]:
    """How many samples the core asks for each time."""
    asked: list[int] = []
    original = sampler.sample

    def sample(targets: Any, regions: Any, counts: Any, n: int, pace: Any) -> Any:
        asked.append(n)
        return original(targets, regions, counts, n, pace)

    sampler.sample = sample
    for _ in zip(range(aggregations), k.monitor(), strict=False):
        pass
    return asked


def test_the_core_asks_for_all_samples_until_it_has_something_to_do() -> None:
    k, sampler, _ = kdamond()
    assert asked_for(k, sampler, 3) == [20, 20, 20]
    k, sampler, _ = kdamond(schemes=(Scheme(action="stat", apply_interval_us=35_000),))
    assert asked_for(k, sampler, 3) == [7, 7, 6, 1, 7, 7, 5, 2, 7, 7, 4]
    k, sampler, _ = kdamond(intervals=Intervals(ops_update_us=150_000))
    # Looks for mappings soon after the start, after as long again, and then at the update interval of 30 samples.
    assert asked_for(k, sampler, 5) == [20, 20, 10, 10, 20, 20]
    k, sampler, _ = kdamond()
    k.callbacks = Callbacks(after_sampling=lambda _: None)
    assert asked_for(k, sampler, 2) == [1] * 40


def test_mappings_are_looked_at_a_little_early_rather_than_just_after_the_regions_were_loaded() -> None:
    k, sampler, _ = kdamond(intervals=Intervals(ops_update_us=120_000))
    assert asked_for(k, sampler, 5) == [20, 20, 20, 20, 20]
    k, sampler, _ = kdamond(intervals=Intervals(ops_update_us=120_000), faithful=True)
    assert asked_for(k, sampler, 5) == [20, 20, 4, 16, 8, 12, 12, 8]
