"""A commit is one value, checked completely before anything changes, and the loop takes it between two iterations."""

from __future__ import annotations

import sys
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.unit.core.fake_acting import BASE, MIB, FakeActing

from pydamon.core.callbacks import Callbacks, Loop
from pydamon.core.damos import Damos
from pydamon.core.kdamond import Kdamond
from pydamon.errors import RequestError
from pydamon.spec import Context, Intervals, NrRegions, Probe, Scheme, Target

SLOW = Intervals(sample_us=5_000, aggr_us=5_000)  # one iteration is one aggregation
FAST = Intervals(sample_us=1_000, aggr_us=1_000)


def kdamond(**context: Any) -> Kdamond:
    ops = FakeActing()
    ops.ranges = [np.array([[BASE, BASE + 96 * MIB]], np.uint64)]
    given: dict[str, Any] = {"ops": "sim", "intervals": SLOW, "faithful": True} | context
    return Kdamond(
        ops=ops,
        context=Context(**given),
        clock=ops.clock,
        rng=np.random.default_rng(3),
        make_damos=lambda: Damos(ops=ops, clock=ops.clock),
    )


def functions(*owners: Any) -> set[CodeType]:
    return {value.__code__ for owner in owners for value in vars(owner).values() if hasattr(value, "__code__")}


def commit_between_iterations(k: Kdamond, loop: Any, context: Context) -> None:
    """Commit, with an iteration of the loop before each line of it during which the loop is not locked out."""
    traced = functions(Kdamond, Damos)

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code not in traced:
            return None
        locked = k._lock.locked() or (k.damos is not None and k.damos._lock.locked())
        if event == "line" and not locked:
            next(loop)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        k.commit(context)
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("first", [(), (Scheme(action="stat"),)], ids=["without-schemes", "with-schemes"])
def test_no_iteration_runs_with_new_schemes_beside_old_intervals(first: tuple[Scheme, ...]) -> None:
    seen: list[tuple[int, list[str]]] = []

    def sampled(k: Loop) -> None:
        assert isinstance(k, Kdamond)
        states = k.damos.states if k.damos is not None else []
        seen.append((k.intervals.sample_us, [state.scheme.action for state in states]))

    k = kdamond(schemes=first)
    k.callbacks = Callbacks(after_sampling=sampled)
    loop = k.monitor()
    next(loop)
    commit_between_iterations(k, loop, replace(k.context, intervals=FAST, schemes=(Scheme(action="cold"),)))
    before_taken = len(seen)
    assert before_taken > 5
    next(loop)
    old = (5_000, [scheme.action for scheme in first])
    assert seen == [old] * before_taken + [(1_000, ["cold"])]
    loop.close()


def test_a_commit_is_pending_until_the_loop_takes_it_and_the_next_one_starts_from_it() -> None:
    k = kdamond()
    loop = k.monitor()
    next(loop)
    running = k.context
    k.commit(replace(k.asked, schemes=(Scheme(action="stat"),)))
    k.commit(replace(k.asked, intervals=FAST))
    assert k.commit_pending
    assert (k.context, k.damos) == (running, None)
    next(loop)
    assert not k.commit_pending
    assert k.context is k.asked
    assert k.context == replace(running, intervals=FAST, schemes=(Scheme(action="stat"),))
    assert k.damos is not None
    assert [state.scheme.action for state in k.damos.states] == ["stat"]
    loop.close()


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"ops": "paddr"}, "ops"),
        ({"targets": (Target(pid=1),)}, "targets"),
        ({"nr_regions": NrRegions(min=1)}, "nr_regions.min"),
        ({"schemes": (Scheme(action="stat", apply_interval_us=-1),)}, "schemes[0].apply_interval_us"),
        ({"schemes": (Scheme(action="stat"), Scheme(action="cold"))}, "schemes[1].action"),  # by the operations set
        ({"probes": (Probe(),)}, "probes"),
    ],
)
def test_a_refused_commit_names_the_field_and_changes_nothing(changes: dict[str, Any], where: str) -> None:
    k = kdamond(schemes=(Scheme(action="stat"),))
    k.ops.refused = {"cold"}  # type: ignore[attr-defined]
    loop = k.monitor()
    next(loop)
    before, states = k.context, list(k.damos.states) if k.damos is not None else None
    with pytest.raises(RequestError) as caught:
        k.commit(replace(k.context, **({"intervals": FAST} | changes)))
    assert caught.value.where == where
    assert not k.commit_pending
    next(loop)
    assert k.context is before
    assert k.damos is not None
    assert k.damos.states == states
    loop.close()


def test_schemes_that_stay_are_left_alone_and_those_committed_again_are_tried_again() -> None:
    k = kdamond(schemes=(Scheme(action="stat"),))
    k.ops.fails = {"stat": 0}  # type: ignore[attr-defined]
    loop = k.monitor()
    next(loop)
    next(loop)
    assert k.damos is not None
    assert k.damos.states[0].failed is not None
    k.ops.fails = {}  # type: ignore[attr-defined]
    k.commit(replace(k.context, intervals=FAST))
    next(loop)
    next(loop)
    assert k.damos.states[0].failed is not None
    k.commit(replace(k.context, schemes=(Scheme(action="stat"),)))
    next(loop)
    assert k.damos.states[0].failed is None
    loop.close()


def test_how_it_samples_stays() -> None:
    k = kdamond(primitive="bpf")
    loop = k.monitor()
    next(loop)
    k.commit(replace(k.context, primitive="idle", faithful=False))
    next(loop)
    assert (k.context.primitive, k.context.faithful) == ("bpf", True)
    loop.close()


def test_a_commit_after_each_aggregation_does_not_put_off_the_look_at_mappings() -> None:
    wanted = Intervals(sample_us=5_000, aggr_us=100_000, ops_update_us=1_000_000)
    k = kdamond(intervals=wanted)
    updates = []
    look = k.ops.update

    def update() -> Any:
        updates.append(k.clock.now_ns() // 1_000_000)
        return look()

    k.ops.update = update  # type: ignore[method-assign]
    for number, _ in enumerate(k.monitor()):
        # As a bound on the CPU share does: the interval is a little another each time.
        k.commit(
            replace(
                k.context, intervals=replace(wanted, sample_us=5_000 + number % 2, aggr_us=100_000 + 20 * (number % 2))
            )
        )
        if number == 100:
            break
    assert 9 <= sum(time_ms > 1_000 for time_ms in updates) <= 11
    assert max(np.diff(updates)) <= 1_200
