"""The monitoring loop: order of steps, callbacks, ends, online changes; on a scripted operations set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from pydamon.core.callbacks import Callbacks, Loop
from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Kdamond
from pydamon.errors import RequestError
from pydamon.ops.sampling import StepSampler
from pydamon.spec import Context, Intervals, NrRegions

MIB = 1 << 20
BASE = 0x7F00_0000_0000


class ScriptedOps(StepSampler):
    """Answers by a function of the sampled address; writes down what was called."""

    name = "scripted"

    def __init__(self, ranges: list[tuple[int, int]], hot: Any = None, nr_targets: int = 1) -> None:
        self.nr_targets = nr_targets
        self.ranges = np.array(ranges, np.uint64).reshape(-1, 2)
        self.hot = hot or (lambda addresses: np.zeros(len(addresses), np.uint8))
        self.calls: list[str] = []
        self.valid = True
        self.rng = np.random.default_rng(1)
        self._addresses: list[Any] = [None] * nr_targets

    @property
    def sampler(self) -> Any:
        return self

    def init(self) -> list[Any]:
        self.calls.append("init")
        return [self.ranges] * self.nr_targets

    def update(self) -> list[Any]:
        self.calls.append("update")
        return [self.ranges] * self.nr_targets

    def prepare_access_checks(self, target: int, start: Any, end: Any) -> None:
        from pydamon.ops.base import sample_addresses

        self.calls.append("prepare")
        self._addresses[target] = sample_addresses(start, end, self.rng)

    def check_accesses(self, target: int) -> Any:
        self.calls.append("check")
        return self.hot(self._addresses[target])

    def reset_aggregated(self) -> None:
        self.calls.append("reset")

    def target_valid(self, target: int) -> bool:
        return self.valid

    def may_grow(self) -> bool:
        return False

    def mappings(self, target: int) -> list[Any]:
        return []

    def resident_bytes(self, target: int, start: Any, end: Any) -> Any:
        return None

    def cleanup(self) -> None:
        self.calls.append("cleanup")


def hot_between(low: int, high: int) -> Any:
    return lambda a: ((a >= np.uint64(low)) & (a < np.uint64(high))).astype(np.uint8)


def kdamond(ops: Any, callbacks: Callbacks | None = None, **attrs: Any) -> Kdamond:
    return Kdamond(
        ops=ops,
        context=Context(
            ops="sim",
            intervals=Intervals(**{k: v for k, v in attrs.items() if k.endswith("_us")}),
            nr_regions=NrRegions(**{k: v for k, v in attrs.items() if k in ("min", "max")}),
            faithful=True,
        ),
        clock=VirtualClock(),
        callbacks=callbacks or Callbacks(),
        rng=np.random.default_rng(2),
    )


def test_steps_follow_the_order_of_the_design() -> None:
    calls: list[str] = []
    ops = ScriptedOps([(BASE, BASE + MIB)])
    ops.calls = calls

    def note(name: str) -> Any:
        def callback(k: Kdamond) -> bool:
            calls.append(name)
            return name == "after_aggregation"

        return callback

    names = ("before_start", "after_sampling", "after_aggregation", "before_terminate")
    k = kdamond(ops, Callbacks(*(note(name) for name in names)), sample_us=5000, aggr_us=10_000, ops_update_us=10_000)
    k.run()
    assert calls == [
        *("init", "before_start"),
        *("prepare", "check", "after_sampling"),
        *("prepare", "check", "after_sampling", "after_aggregation", "reset", "update"),
        *("before_terminate", "cleanup"),
    ]


@pytest.mark.parametrize("name", ["before_start", "after_sampling", "after_aggregation"])
def test_a_callback_that_says_stop_ends_after_the_current_iteration(name: str) -> None:
    ops = ScriptedOps([(BASE, BASE + MIB)])
    k = kdamond(ops, Callbacks(**{name: lambda _: True}), sample_us=5000, aggr_us=5000)
    k.run()
    assert ops.calls.count("check") == (0 if name == "before_start" else 1)
    assert ops.calls.count("reset") == (0 if name == "before_start" else 1)  # the iteration was completed
    assert ops.calls[-1] == "cleanup"


def test_ends_when_no_target_is_valid() -> None:
    ops = ScriptedOps([(BASE, BASE + MIB)])
    ops.valid = False
    kdamond(ops).run()
    assert ops.calls == ["init", "cleanup"]


def test_cleans_up_when_a_callback_fails() -> None:
    ops = ScriptedOps([(BASE, BASE + MIB)])

    def fail(_: Loop) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        kdamond(ops, Callbacks(after_aggregation=fail)).run()
    assert ops.calls[-1] == "cleanup"


def test_abandoning_the_iterator_cleans_up() -> None:
    ops = ScriptedOps([(BASE, BASE + MIB)])
    snapshots = kdamond(ops).monitor()
    next(snapshots)
    snapshots.close()
    assert ops.calls[-1] == "cleanup"


def test_finds_the_hot_range_to_the_page() -> None:
    # 100 MiB, of which [30, 40) MiB is always accessed: the answer is known.
    low, high = BASE + 30 * MIB, BASE + 40 * MIB
    k = kdamond(ScriptedOps([(BASE, BASE + 100 * MIB)], hot_between(low, high)))
    sizes = []
    for count, (snapshot,) in enumerate(k.monitor()):
        hot = snapshot.nr_accesses >= 1
        sizes.append(int((snapshot.end - snapshot.start)[hot].sum()))
        if count == 60:
            k.stop()
    assert abs(np.median(sizes[20:]) - 10 * MIB) < 0.02 * 10 * MIB
    assert snapshot.max_nr_accesses == 20


def test_number_of_regions_stays_within_its_bounds() -> None:
    rng = np.random.default_rng(7)
    ops = ScriptedOps([(BASE, BASE + 400 * MIB)], lambda a: (rng.random(len(a)) < 0.5).astype(np.uint8))
    k = kdamond(ops, min=10, max=60)
    seen = []

    def after_sampling(k: Loop) -> bool:
        seen.append(len(k.regions[0]))
        return k.passed_samples == 1000

    k.callbacks.after_sampling = after_sampling
    k.run()
    assert min(seen) >= 10
    assert max(seen) <= 60


@pytest.mark.parametrize(("low", "high"), [(900, 1000), (10, 12), (3, 3)])
def test_close_bounds_hold_through_updates_and_changing_ranges(low: int, high: int) -> None:
    rng = np.random.default_rng(7)
    ops = ScriptedOps([(BASE, BASE + 500 * MIB + 12288)], lambda a: (rng.random(len(a)) < 0.5).astype(np.uint8))
    k = kdamond(ops, min=low, max=high, ops_update_us=50_000)
    seen = []
    for count, _ in enumerate(k.monitor()):
        seen.append(len(k.regions[0]))
        ops.ranges = np.array([(BASE + count * 4096, BASE + (500 + 7 * count) * MIB)], np.uint64)
        if count == 40:
            break
    assert max(seen) <= high
    assert min(seen) >= low * 2 // 3


def test_constant_access_keeps_few_regions() -> None:
    k = kdamond(ScriptedOps([(BASE, BASE + 400 * MIB)]), max=1000)
    counts = [len(s.start) for (s,), _ in zip(k.monitor(), range(30), strict=False)]
    # nothing to tell apart: merged to pieces of total/min, 10 of them, plus what a split cut off and could not merge
    assert max(counts[5:]) <= 20


def test_age_grows_while_nothing_changes_and_starts_over_on_a_change() -> None:
    switch = [False]
    ops = ScriptedOps([(BASE, BASE + MIB)], lambda a: np.full(len(a), switch[0], np.uint8))
    k = kdamond(ops)
    ages = []
    for count, (snapshot,) in enumerate(k.monitor()):
        ages.append(int(snapshot.age.max()))
        switch[0] = count >= 9
        if count == 14:
            break
    assert ages[:10] == list(range(1, 11))
    assert ages[10] == 0
    assert ages[14] == 4


def test_snapshots_tile_the_time() -> None:
    k = kdamond(ScriptedOps([(BASE, BASE + MIB)]))
    times = [(s.start_ns, s.end_ns) for (s,), _ in zip(k.monitor(), range(5), strict=False)]
    assert times == [(i * 100_000_000, (i + 1) * 100_000_000) for i in range(5)]


def test_updates_come_soon_after_the_start_and_then_at_the_update_interval() -> None:
    ops = ScriptedOps([(BASE, BASE + MIB)])
    k = kdamond(ops, ops_update_us=1_000_000)
    at: list[int] = []
    original = ops.update

    def update() -> Any:
        at.append(k.passed_samples * 5)
        return original()

    ops.update = update  # type: ignore[method-assign]
    for _, _ in zip(k.monitor(), range(40), strict=False):
        pass
    assert at == [100, 300, 700, 1500, 2500, 3500]  # milliseconds


def test_new_ranges_are_monitored_and_gone_ones_dropped() -> None:
    ops = ScriptedOps([(BASE, BASE + 8 * MIB)])
    k = kdamond(ops)
    for count, (snapshot,) in enumerate(k.monitor()):
        if count == 3:
            ops.ranges = np.array([(BASE + 4 * MIB, BASE + 12 * MIB)], np.uint64)
        if count == 20:
            break
    assert int(snapshot.start[0]) == BASE + 4 * MIB
    assert int(snapshot.end[-1]) == BASE + 12 * MIB


def test_commit_changes_the_intervals_and_keeps_regions_and_rates() -> None:
    low, high = BASE, BASE + 2 * MIB
    k = kdamond(ScriptedOps([(BASE, BASE + 32 * MIB)], hot_between(low, high)))
    results = []
    for count, (snapshot,) in enumerate(k.monitor()):
        results.append(snapshot)
        if count == 20:
            k.commit(replace(k.context, intervals=Intervals(sample_us=10_000, aggr_us=100_000)))
        if count == 25:
            break
    before, after = results[20], results[21]
    assert (before.sample_us, after.sample_us) == (5_000, 10_000)
    assert (before.max_nr_accesses, after.max_nr_accesses) == (20, 10)
    assert int(after.nr_accesses.max()) == 10
    assert int(after.age.max()) == int(before.age.max()) + 1  # still the same pattern: the age goes on
    assert after.end_ns - after.start_ns == 100_000_000


def test_commit_refuses_nonsense_and_changes_nothing() -> None:
    k = kdamond(ScriptedOps([(BASE, BASE + MIB)]))
    with pytest.raises(RequestError, match="sampling interval"):
        k.commit(replace(k.context, intervals=Intervals(sample_us=2_000_000, aggr_us=100_000)))
    for _, _ in zip(k.monitor(), range(2), strict=False):
        assert k.intervals == Intervals()


def test_lowering_the_maximum_merges_at_the_next_aggregation() -> None:
    ops = ScriptedOps([(BASE, BASE + 400 * MIB)], lambda a: ((a >> np.uint64(21)) % np.uint64(2)).astype(np.uint8))
    k = kdamond(ops)
    for count, (snapshot,) in enumerate(k.monitor()):
        if count == 20:
            assert len(snapshot.start) > 50
            k.commit(replace(k.context, nr_regions=NrRegions(min=10, max=50)))
        if count == 22:
            break
    assert len(snapshot.start) <= 50


def test_two_targets_are_kept_apart() -> None:
    ops = ScriptedOps([(BASE, BASE + 4 * MIB)], nr_targets=2)
    k = kdamond(ops)
    snapshots = next(k.monitor())
    assert [s.target for s in snapshots] == [0, 1]


def test_no_ranges_yet_means_empty_snapshots_not_an_error() -> None:
    ops = ScriptedOps([])
    snapshots = next(kdamond(ops).monitor())
    assert len(snapshots[0].start) == 0


def test_ends_at_its_end_time_without_counting_a_sample_that_was_cut_short() -> None:
    ops = ScriptedOps([(BASE, BASE + MIB)])
    k = kdamond(ops, sample_us=5000, aggr_us=10_000)
    k.end_ns = 23_000_000
    assert [s.end_ns for (s,) in k.monitor()] == [10_000_000, 20_000_000]
    assert k.passed_samples == 4
    assert k.clock.now_ns() == 23_000_000
    assert k.stop_requested


def test_a_sample_whose_sleep_was_interrupted_is_not_counted() -> None:
    ops = ScriptedOps([(BASE, BASE + MIB)])
    k = kdamond(ops, sample_us=5000, aggr_us=5000)
    sleep, interrupts = k.clock.sleep_ns, iter([False, True, False, True])

    def sleep_ns(duration_ns: int) -> bool:
        full = next(interrupts)
        return sleep(duration_ns if full else 1000) and full

    k.clock.sleep_ns = sleep_ns  # type: ignore[method-assign]
    assert len(list(zip(range(2), k.monitor(), strict=False))) == 2
    assert ops.calls.count("check") == 2


class SlowOps(ScriptedOps):
    """Checking takes ``work_ns`` of the clock's time; notes for how long accesses were watched."""

    def __init__(self, clock: VirtualClock, work_ns: int) -> None:
        super().__init__([(BASE, BASE + MIB)])
        self.clock, self.work_ns = clock, work_ns
        self.prepared_ns = 0
        self.watched_ns: list[int] = []

    def prepare_access_checks(self, target: int, start: Any, end: Any) -> None:
        super().prepare_access_checks(target, start, end)
        self.clock.sleep_ns(self.work_ns)
        self.prepared_ns = self.clock.now_ns()

    def check_accesses(self, target: int) -> Any:
        self.watched_ns.append(self.clock.now_ns() - self.prepared_ns)
        return super().check_accesses(target)


@pytest.mark.parametrize(
    ("work_ms", "aggregation_ms", "watched_ms"),
    [(0, 100, 5), (1, 100, 4), (2.5, 100, 2.5), (10, 250, 2.5)],  # beyond half of the interval it cannot be kept
)
def test_what_a_check_takes_does_not_make_the_aggregation_interval_longer(
    work_ms: float, aggregation_ms: float, watched_ms: float
) -> None:
    k = kdamond(None, sample_us=5000, aggr_us=100_000)
    assert isinstance(k.clock, VirtualClock)
    k.ops = ops = SlowOps(k.clock, int(work_ms * 1e6))
    k.end_ns = 2 * 10**9
    times = [(snapshot.end_ns - snapshot.start_ns) / 1e6 for (snapshot,) in k.monitor()]
    assert times
    assert set(times) == {aggregation_ms}
    assert set(ops.watched_ns) == {int(watched_ms * 1e6)}


def test_a_long_pause_is_not_caught_up_by_haste() -> None:
    k = kdamond(None, sample_us=5000, aggr_us=100_000)
    assert isinstance(k.clock, VirtualClock)
    k.ops = ops = SlowOps(k.clock, 0)
    k.end_ns = 10**9
    for count, _ in enumerate(k.monitor()):
        if count == 2:
            k.clock.sleep_ns(300_000_000)  # whoever is called takes its time
    assert sorted(set(ops.watched_ns)) == [2_500_000, 5_000_000]
    assert ops.watched_ns.count(2_500_000) == 1


class GrowingOps(ScriptedOps):
    """Each update, from a script: how many targets there are, and which of them live."""

    def __init__(self, script: list[tuple[int, set[int]]], grows: bool = True, hot: Any = None) -> None:
        nr_targets, self.live = script[0]
        super().__init__([(BASE, BASE + 4 * MIB)], hot, nr_targets)
        self.script = script[1:]
        self.grows = grows
        self.asked: list[int] = []

    def update(self) -> list[Any]:
        if self.script:
            self.nr_targets, self.live = self.script.pop(0)
            self._addresses += [None] * (self.nr_targets - len(self._addresses))
        return [self.ranges if target in self.live else None for target in range(self.nr_targets)]

    def prepare_access_checks(self, target: int, start: Any, end: Any) -> None:
        self.asked.append(target)
        super().prepare_access_checks(target, start, end)

    def target_valid(self, target: int) -> bool:
        return target in self.live

    def may_grow(self) -> bool:
        return self.grows and bool(self.script)


class TestTargetsThatComeAndGo:
    def test_who_joins_gets_regions_and_who_ended_is_not_asked_any_more(self) -> None:
        ops = GrowingOps([(1, {0}), (3, {0, 1, 2}), (4, {1, 3}), (4, {3})], hot=hot_between(BASE, BASE + 4 * MIB))
        k = kdamond(ops, sample_us=10_000, aggr_us=50_000, ops_update_us=50_000)
        seen = []
        for snapshots in k.monitor():
            seen.append({s.target: int(s.nr_accesses.max()) for s in snapshots})
            if len(seen) == 5:
                break
        assert seen == [{0: 5}, {0: 5, 1: 5, 2: 5}, {1: 5, 3: 5}, {3: 5}, {3: 5}]
        assert set(ops.asked[-10:]) == {3}
        assert k.targets == [3]
        assert len(k.regions) == 1

    def test_without_any_target_it_goes_on_while_some_may_come(self) -> None:
        ops = GrowingOps([(0, set()), (0, set()), (1, {0}), (1, set()), (2, {1}), (2, set())])
        k = kdamond(ops, sample_us=10_000, aggr_us=50_000, ops_update_us=50_000)
        assert [[s.target for s in snapshots] for snapshots in k.monitor()] == [[], [], [0], [], [1]]
        assert not k.stop_requested
        assert ops.calls[-1] == "cleanup"

    def test_the_samples_before_a_target_joined_are_unknown_not_unaccessed(self) -> None:
        ops = GrowingOps([(1, {0}), (1, {0}), (2, {0, 1})], hot=hot_between(BASE, BASE + 4 * MIB))
        # updates after 4 and 8 samples: the second, with 2 samples left of the aggregation, brings the new target
        k = kdamond(ops, sample_us=10_000, aggr_us=100_000, ops_update_us=40_000)
        steps = [snapshots for snapshots, _ in zip(k.monitor(), range(2), strict=False)]
        assert [{s.target: int(s.nr_accesses.min()) for s in step} for step in steps] == [{0: 10, 1: 10}] * 2

    def test_one_that_ended_within_an_aggregation_is_not_in_its_snapshots(self) -> None:
        ops = GrowingOps([(2, {0, 1})], grows=False)

        def end_one(k: Loop) -> None:
            if k.passed_samples == 7:
                ops.live.discard(0)

        k = kdamond(ops, callbacks=Callbacks(after_sampling=end_one))
        assert [s.target for s in next(k.monitor())] == [1]

    def test_the_last_target_keeps_its_regions_until_the_loop_ends(self) -> None:
        ops = GrowingOps([(1, {0})], grows=False)
        k = kdamond(ops, sample_us=10_000, aggr_us=10_000)
        k.callbacks.after_sampling = lambda k: ops.live.clear()
        assert [[s.target for s in snapshots] for snapshots in k.monitor()] == [[0]]


class HalfThere(ScriptedOps):
    """Of each region half is in memory; of the first it is not known yet."""

    def resident_bytes(self, target: int, start: Any, end: Any) -> Any:
        found = (end - start) // np.uint64(2)
        found[0] = np.iinfo(np.uint64).max
        return found


@pytest.mark.parametrize(("faithful", "by_addresses"), [(False, False), (True, False), (False, True)])
def test_snapshots_say_how_much_of_each_region_is_resident(faithful: bool, by_addresses: bool) -> None:
    loop = kdamond(HalfThere([(BASE, BASE + MIB)]), sample_us=1000, aggr_us=10_000)
    context = replace(loop.context, faithful=faithful)
    loop = Kdamond(ops=loop.ops, context=context, clock=VirtualClock(), by_addresses=by_addresses)
    [snapshot] = next(loop.monitor())
    resident = snapshot.column("resident")
    if faithful or by_addresses:
        assert resident is None
    else:
        assert resident is not None
        assert resident.dtype == np.uint64
        assert resident.tolist() == [2**64 - 1, *((snapshot.end - snapshot.start) // 2)[1:].tolist()]


def test_a_set_that_cannot_tell_what_is_resident_has_no_column() -> None:
    context = kdamond(ScriptedOps([(BASE, BASE + MIB)]), sample_us=1000, aggr_us=10_000).context
    loop = Kdamond(
        ops=ScriptedOps([(BASE, BASE + MIB)]), context=replace(context, faithful=False), clock=VirtualClock()
    )
    [snapshot] = next(loop.monitor())
    assert snapshot.column("resident") is None


class WithGap(ScriptedOps):
    """A process whose two mappings lie far apart in its one range, until that gap is left out."""

    gaps_left_out = 0

    def __init__(self) -> None:
        super().__init__([(BASE, BASE + 64 * MIB)])
        self.asked: list[int] = []

    def leave_out_gaps(self, most: int) -> None:
        self.asked.append(most)

    def split(self) -> None:
        self.ranges = np.array([[BASE, BASE + 8 * MIB], [BASE + 56 * MIB, BASE + 64 * MIB]], np.uint64)
        self.gaps_left_out = 1


def test_a_gap_that_is_left_out_is_not_monitored_and_ages_survive() -> None:
    ops = WithGap()
    context = kdamond(ops, sample_us=1000, aggr_us=10_000, ops_update_us=50_000, max=80).context
    loop = Kdamond(ops=ops, context=replace(context, faithful=False), clock=VirtualClock())
    ages = []
    for number, [snapshot] in enumerate(loop.monitor()):
        if number == 20:
            ops.split()
        ages.append(int(snapshot.age.min()))
        if number == 40:
            break
    size = int((snapshot.end - snapshot.start).sum())
    assert size == 16 * MIB
    assert ages == list(range(1, 42))
    assert ops.asked[0] == 10


def test_the_kernels_way_leaves_no_gap_out() -> None:
    for changes in ({"faithful": True}, {"faithful": False, "by_addresses": True}):
        ops = WithGap()
        context = kdamond(ops, sample_us=1000, aggr_us=10_000, ops_update_us=10_000).context
        loop = Kdamond(
            ops=ops,
            context=replace(context, faithful=changes["faithful"]),
            clock=VirtualClock(),
            by_addresses=changes.get("by_addresses", False),
        )
        for number, _ in enumerate(loop.monitor()):
            if number == 5:
                break
        assert ops.asked == []


@pytest.mark.parametrize(
    ("at", "last", "counted", "moving_sum"),
    [
        # 7 of M = 20 become 3 of M = 10 (documented formula: 7 * 10000 / 20 = 3500), at the end of an aggregation ...
        (20, 3, 1, 1 + 3 * 9_000 // 10_000),
        # ... and the last ones in the middle of the next, of which nothing is kept
        (25, 3, 1, 1 + 3 * 9_000 // 10_000),
        # In the middle of the first there was none before.
        (6, 0, 1, 1),
    ],
)
def test_new_intervals_rescale_the_last_counts_and_begin_a_new_aggregation(
    at: int, last: int, counted: int, moving_sum: int
) -> None:
    seen: list[tuple[list[int], list[int], list[int], list[int]]] = []
    k: Kdamond

    def sampled(loop: Loop) -> bool:
        (regions,) = loop.regions
        columns = regions.last_nr_accesses, regions.nr_accesses, regions.moving_sum, regions.age
        if loop.passed_samples == at:
            k.commit(replace(k.context, intervals=Intervals(sample_us=10_000, aggr_us=100_000)))
        if loop.passed_samples == at + 1:
            seen.append(tuple(sorted(set(column.tolist())) for column in columns))  # type: ignore[arg-type]
        return bool(seen)

    # Accessed are the samples 1 to 7 and all after 20.
    ops = ScriptedOps([(BASE, BASE + MIB)])
    ops.hot = lambda a: np.full(
        len(a), k.passed_samples < 7 or k.passed_samples >= 20 or k.passed_samples == at, np.uint8
    )
    k = kdamond(ops, Callbacks(after_sampling=sampled), sample_us=5_000, aggr_us=100_000)
    k.run()
    assert seen == [([last], [counted], [moving_sum], [0])]
