"""A context that pauses: nothing is sampled, nothing is lost, and only what goes by the wall clock goes on; and targets
that a commit takes out. In virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.unit.core.fake_acting import BASE, MIB, FakeActing, FakeMetrics
from tests.unit.core.test_kdamond import ScriptedOps, hot_between

from pydamon.core.callbacks import Callbacks
from pydamon.core.clock import VirtualClock
from pydamon.core.damos import Damos
from pydamon.core.kdamond import Kdamond
from pydamon.errors import RequestError
from pydamon.spec import Context, Intervals, Scheme, Target
from pydamon.spec.schemes import Quotas, Watermarks

HOUR_NS = 3600 * 10**9
SAMPLE_NS = 5_000_000


class PlannedClock(VirtualClock):
    """Virtual time at which things happen: ``plan`` are times and what to do then."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: list[tuple[int, Callable[[], object]]] = []

    def sleep_ns(self, duration_ns: int) -> bool:
        whole = super().sleep_ns(duration_ns)
        while self.plan and self.plan[0][0] <= self.now_ns():
            self.plan.pop(0)[1]()
        return whole


def paused(scripted: Any, *, faithful: bool = True, callbacks: Callbacks | None = None, **context: Any) -> Kdamond:
    """5 ms and 100 ms: 20 samples are an aggregation."""
    given: dict[str, Any] = {"ops": "sim", "faithful": faithful, "intervals": Intervals()} | context
    return Kdamond(
        ops=scripted,
        context=Context(**given),
        clock=PlannedClock(),
        callbacks=callbacks or Callbacks(),
        rng=np.random.default_rng(2),
    )


def commit(kdamond: Kdamond, **changes: Any) -> None:
    kdamond.commit(replace(kdamond.asked, **changes))


def plan(kdamond: Kdamond, *events: tuple[int, dict[str, Any]]) -> None:
    clock = kdamond.clock
    assert isinstance(clock, PlannedClock)
    for at_ns, changes in events:
        clock.plan.append((at_ns, lambda changes=changes: commit(kdamond, **changes)))  # type: ignore[misc]


@pytest.mark.parametrize("faithful", [True, False])
def test_an_aggregation_goes_on_where_a_pause_has_cut_it(faithful: bool) -> None:
    # The notes on DAMON of 2026-11-25, T19: paused after sample 7 of 20 for an hour, the next aggregation ends 13
    # samples after the resume, and ages have grown by 1, not by 3,600 s.
    ops = ScriptedOps([(BASE, BASE + 16 * MIB)], hot_between(BASE, BASE + 16 * MIB))
    kdamond = paused(ops, faithful=faithful)
    seen: list[tuple[int, int, int, int]] = []
    plan(kdamond, (27 * SAMPLE_NS, {"pause": True}), (27 * SAMPLE_NS + HOUR_NS, {"pause": False}))
    for (snapshot,) in kdamond.monitor():
        age_ns = int(kdamond.regions[0].age_ns.max())
        seen.append((kdamond.clock.now_ns(), kdamond.passed_samples, int(snapshot.age.max()), age_ns))
        assert snapshot.nr_accesses.tolist() == [20] * len(snapshot.start)
        assert snapshot.end_ns - snapshot.start_ns == 100_000_000
        if len(seen) == 3:
            kdamond.stop()
    first, second, third = seen
    assert [first[1], second[1], third[1]] == [20, 40, 60]
    # Rests are a tenth of a second long; a commit wakes the machine's clock, not this one.
    assert 0 <= second[0] - (40 * SAMPLE_NS + HOUR_NS) < 100_000_000
    assert third[0] - second[0] == 100_000_000
    assert (second[2] - first[2], third[2] - second[2]) == (1, 1)
    if not faithful:
        assert (second[3] - first[3], third[3] - second[3]) == (100_000_000, 100_000_000)
    assert ops.calls.count("check") == 60


def test_one_that_starts_paused_takes_one_sample_first() -> None:
    # As the notes on DAMON of 2026-11-25 say of the kernel's, section 4.
    ops = ScriptedOps([(BASE, BASE + MIB)])
    kdamond = paused(ops, pause=True)
    kdamond.end_ns = HOUR_NS
    assert list(kdamond.monitor()) == []
    assert ops.calls.count("check") == 1
    assert kdamond.clock.now_ns() == HOUR_NS
    assert kdamond.stop_requested


def test_a_pause_ends_with_the_targets() -> None:
    ops = ScriptedOps([(BASE, BASE + MIB)])
    kdamond = paused(ops, pause=True)
    clock = kdamond.clock
    assert isinstance(clock, PlannedClock)
    clock.plan.append((HOUR_NS, lambda: setattr(ops, "valid", False)))
    assert list(kdamond.monitor()) == []
    assert 0 <= clock.now_ns() - HOUR_NS <= 100_000_000
    assert not kdamond.stop_requested


def acting(*schemes: Scheme) -> tuple[Kdamond, PlannedClock, FakeActing, FakeMetrics]:
    ops, metrics, clock = FakeActing(), FakeMetrics(), PlannedClock()
    ops.ranges = [np.array([[BASE, BASE + 16 * MIB]], np.uint64)]
    ops.clock = clock
    kdamond = Kdamond(
        ops=ops,
        context=Context(ops="sim", faithful=True, schemes=schemes),
        clock=clock,
        rng=np.random.default_rng(2),
        make_damos=lambda: Damos(ops=ops, clock=clock, metrics=metrics),
    )
    return kdamond, clock, ops, metrics


def test_quotas_and_watermarks_go_by_the_wall_clock_in_a_pause() -> None:
    # The same section: sample counter, ages and next applications stand still, quota windows and watermarks do not.
    quotas = Quotas(sz_bytes=MIB, reset_interval_ms=1_000_000)
    marks = Watermarks(metric="free_mem_rate", interval_us=5_000_000, high_permil=1000, mid_permil=900, low_permil=1)
    kdamond, clock, _, metrics = acting(Scheme(action="pageout", quotas=quotas, watermarks=marks))
    metrics.free = 500
    looks: list[int] = []
    measure = metrics.free_mem_permil

    def look() -> int:
        looks.append(clock.now_ns())
        return measure()

    metrics.free_mem_permil = look  # type: ignore[method-assign]
    applied: list[tuple[int, int]] = []
    plan(kdamond, (250_000_000, {"pause": True}), (250_000_000 + HOUR_NS, {"pause": False}))
    for _ in kdamond.monitor():
        assert kdamond.damos is not None
        applied.append((kdamond.passed_samples, kdamond.damos.states[0].stats.sz_applied))
        if kdamond.passed_samples >= 100:
            kdamond.stop()
    # One window before the pause, one after it: a MiB of each.
    assert [size // MIB for _, size in applied] == [0, 1, 1, 2, 2]
    in_the_pause = [at for at in looks if 250_000_000 < at < 250_000_000 + HOUR_NS]
    assert len(in_the_pause) >= 3600 // 6  # every 5 s, and up to a tenth of a second later


def test_a_commit_in_a_pause_takes_effect_in_it() -> None:
    kdamond, clock, _, _ = acting()
    kdamond.end_ns = 4 * HOUR_NS
    states: list[int] = []
    plan(kdamond, (10 * SAMPLE_NS, {"pause": True}), (HOUR_NS, {"schemes": (Scheme(action="stat"),)}))
    clock.plan.append((2 * HOUR_NS, lambda: states.append(len(kdamond.context.schemes))))
    clock.plan.append((2 * HOUR_NS, lambda: states.append(kdamond.passed_samples)))
    assert list(kdamond.monitor()) == []
    assert states == [1, 10]


class TestObsoleteTargets:
    PIDS = tuple(Target(pid=pid) for pid in (10, 11, 12))

    def kdamond(self) -> Kdamond:
        ops = ScriptedOps([(BASE, BASE + 16 * MIB)], nr_targets=3)
        return paused(ops, ops="vaddr", targets=self.PIDS, intervals=Intervals(sample_us=5000, aggr_us=5000))

    def without(self, *numbers: int) -> tuple[Target, ...]:
        return tuple(replace(each, obsolete=number in numbers) for number, each in enumerate(self.PIDS))

    def test_it_is_taken_out_and_the_others_keep_their_numbers_and_regions(self) -> None:
        # The notes on DAMON of 2026-11-25, T20, as far as a spec has it: of [A, B, C] there remain [A, C].
        kdamond = self.kdamond()
        loop = kdamond.monitor()
        for _ in range(3):
            before = next(loop)
        assert [snapshot.target for snapshot in before] == [0, 1, 2]
        commit(kdamond, targets=self.without(1))
        kept = kdamond.regions[2]
        ages = kept.age.max()
        after = next(loop)
        assert [snapshot.target for snapshot in after] == [0, 2]
        assert after[1].age.max() == ages + 1
        commit(kdamond, targets=self.without(1))  # again: nothing more
        assert [snapshot.target for snapshot in next(loop)] == [0, 2]
        commit(kdamond, targets=self.without(0, 1))
        assert [snapshot.target for snapshot in next(loop)] == [2]

    @pytest.mark.parametrize(
        ("targets", "message"),
        [
            (PIDS[:2], "targets: cannot be changed while it is monitored; one that is not wanted: obsolete"),
            (
                tuple(replace(each, obsolete=True) for each in PIDS),
                "targets[0].obsolete: is true for all targets; one at least must stay",
            ),
            (PIDS, "targets[1].obsolete: must stay true: the target has been taken out, and its regions are gone"),
        ],
    )
    def test_what_cannot_be_is_refused(self, targets: tuple[Target, ...], message: str) -> None:
        kdamond = self.kdamond()
        next(kdamond.monitor())
        commit(kdamond, targets=self.without(1))
        with pytest.raises(RequestError) as caught:
            commit(kdamond, targets=targets)
        assert str(caught.value) == message


def test_the_unit_of_addresses_stays() -> None:
    kdamond = paused(ScriptedOps([(BASE, BASE + MIB)]), ops="paddr")
    with pytest.raises(RequestError, match=r"^addr_unit: cannot be changed while it is monitored$"):
        commit(kdamond, addr_unit=8)
