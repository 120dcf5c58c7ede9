"""Ages by the clock, where samples come later than was asked for: in virtual time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.unit.core.fake_acting import FakeActing, FakeMetrics
from tests.unit.core.fake_schemes import pattern, row

from pydamon.core.clock import VirtualClock
from pydamon.core.damos import Damos
from pydamon.core.kdamond import Kdamond
from pydamon.spec import Context, Intervals, NrRegions, Scheme
from pydamon.spec.schemes import Watermarks

SECOND = 1_000_000_000


class Slow(VirtualClock):
    """So busy that each sleep takes ten times, each sample five times as long: half of a wait is given up."""

    def sleep_ns(self, duration_ns: int) -> bool:
        return super().sleep_ns(10 * duration_ns)


class Memory(FakeActing):
    """All of it is resident."""

    def resident_bytes(self, target: int, start: Any, end: Any) -> Any:
        return end - start


def monitored(*schemes: Scheme, faithful: bool = False, seconds: int = 100) -> tuple[Kdamond, Memory, list[Any]]:
    """Memory that is never accessed, sampled every 5 ms by what was asked for; and the snapshots."""
    clock = Slow()
    ops = Memory(clock=clock)
    damos = Damos(ops=ops, clock=clock)
    context = Context(ops="sim", intervals=Intervals(), nr_regions=NrRegions(), schemes=schemes, faithful=faithful)
    loop = Kdamond(ops=ops, context=context, clock=clock, damos=damos, rng=np.random.default_rng(1))
    loop.end_ns = seconds * SECOND
    return loop, ops, [snapshot for snapshots in loop.monitor() for snapshot in snapshots]


def test_the_age_is_what_the_clock_says() -> None:
    _, _, snapshots = monitored(seconds=61)
    at = next(snapshot for snapshot in snapshots if snapshot.end_ns >= 60 * SECOND)
    assert at.column("age_ms").tolist() == [at.end_ns // 1_000_000] * len(at.start)
    assert int(at.age.max()) * at.aggr_us / 1_000_000 == pytest.approx(12, abs=1)  # what the intervals would say


@pytest.mark.parametrize(("age", "seconds"), [("60s", 60), ("600", 300)])
def test_a_time_is_compared_with_the_clock_and_a_number_of_aggregations_with_the_count(age: str, seconds: int) -> None:
    wanted = Scheme(action="stat", access_pattern=pattern(age=(age, "max")))
    _, ops, _ = monitored(wanted, seconds=320)
    assert ops.calls[0].now_ns / SECOND == pytest.approx(seconds, abs=1)


def test_an_upper_bound_means_the_clock_too() -> None:
    wanted = Scheme(action="stat", access_pattern=pattern(age=("0s", "10s")))
    _, ops, _ = monitored(wanted, seconds=30)
    assert ops.calls[-1].now_ns / SECOND == pytest.approx(10, abs=1)


def test_faithful_ages_are_counted() -> None:
    wanted = Scheme(action="stat", access_pattern=pattern(age=("6s", "max")))
    _, ops, snapshots = monitored(wanted, faithful=True, seconds=40)
    assert ops.calls[0].now_ns / SECOND == pytest.approx(30, abs=1)  # 60 aggregations of 100 ms, which took 500
    assert snapshots[-1].column("age_ms") is None


def test_a_bound_of_many_hours_is_one() -> None:
    loop, ops, _ = monitored(Scheme(action="stat", access_pattern=pattern(age=("3h", "max"))), seconds=5)
    assert loop.damos is not None
    assert not ops.calls
    loop.damos.by_clock = True
    regions = row(2)
    regions.age_ns[:] = [2 * 3600 * SECOND, 3 * 3600 * SECOND]
    loop.damos.states[0].next_apply = 0
    loop.damos.apply(1, loop.intervals, [0], [regions])
    assert ops.spans() == [(0, int(regions.start[1]), int(regions.end[1]))]


def test_what_was_acted_on_begins_anew() -> None:
    wanted = Scheme(action="pageout", access_pattern=pattern(age=("6s", "max")))
    _, ops, _ = monitored(wanted, seconds=20)
    times = sorted({call.now_ns for call in ops.calls})
    assert np.diff(times).min() >= 6 * SECOND - SECOND // 2


def test_pauses_by_watermarks_are_left_out() -> None:
    clock = Slow()
    ops, metrics = Memory(clock=clock), FakeMetrics()
    marks = Watermarks(metric="free_mem_rate", interval_us=1_000_000, high_permil=900, mid_permil=800, low_permil=100)
    loop = Kdamond(
        ops=ops,
        context=Context(ops="sim", schemes=(Scheme(action="stat", watermarks=marks),)),
        clock=clock,
        damos=Damos(ops=ops, clock=clock, metrics=metrics),
        rng=np.random.default_rng(1),
    )
    metrics.free = 950  # so much is free that nothing is done
    loop.end_ns = 60 * SECOND
    ages = []
    sleep = clock.sleep_ns

    def until_half(duration_ns: int) -> bool:
        done = sleep(duration_ns)
        metrics.free = 950 if clock.now_ns() < 30 * SECOND else 500
        return done

    clock.sleep_ns = until_half  # type: ignore[method-assign]
    for snapshots in loop.monitor():
        ages += [int(snapshot.column("age_ms").max()) for snapshot in snapshots]  # type: ignore[union-attr]
    assert 24_000 <= max(ages) <= 31_000
