"""Reclaim by pressure: worked by hand from Senpai's rule (1 % above the floor, while PSI is below its bounds)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.modules.controller import Observations, Pressure, ReclaimBytes
from pydamon.modules.pressure import PressureController, PressureRule
from pydamon.modules.registry import parse

MIB = 1 << 20


def calm(**more: Any) -> Observations:
    quiet = Pressure(total_us=0)
    known: dict[str, Any] = {"now_ns": 0, "memory": quiet, "io": quiet, "current_bytes": 1000 * MIB}
    return Observations(**(known | more))


def decide(observed: Observations, **rule: Any) -> tuple[object, ...]:
    return PressureController(PressureRule(**rule)).step(observed)


def test_one_percent_is_asked_for_while_nobody_waits() -> None:
    assert decide(calm()) == (ReclaimBytes(bytes=10 * MIB),)


@pytest.mark.parametrize("resource", ["memory", "io"])
@pytest.mark.parametrize("over", [{"avg10_percent": 0.1}, {"avg60_percent": 0.1}])
def test_nothing_is_asked_for_at_the_bound_of_either_average(resource: str, over: dict[str, float]) -> None:
    assert decide(calm(**{resource: Pressure(total_us=0, **over)})) == ()
    below = dict.fromkeys(over, 0.09)
    assert decide(calm(**{resource: Pressure(total_us=0, **below)})) != ()


def test_what_is_not_known_is_no_reason_to_act() -> None:
    assert decide(calm(memory=None)) == ()
    assert decide(calm(current_bytes=None)) == ()
    assert decide(calm(io=None)) == (ReclaimBytes(bytes=10 * MIB),)  # a kernel that tells memory's only


def test_the_floor_and_what_the_kernel_never_takes_stay() -> None:
    assert decide(calm(floor_bytes=100 * MIB), floor_bytes=400 * MIB) == (ReclaimBytes(bytes=5 * MIB),)
    assert decide(calm(), floor_bytes=1000 * MIB) == ()


def test_full_swap_leaves_files() -> None:
    nearly = calm(swap_total_bytes=1000, swap_free_bytes=199)
    assert decide(nearly) == (ReclaimBytes(bytes=10 * MIB, swappiness=0),)
    assert decide(calm(swap_total_bytes=1000, swap_free_bytes=200)) == (ReclaimBytes(bytes=10 * MIB),)
    assert decide(calm(swap_total_bytes=0, swap_free_bytes=0)) == (ReclaimBytes(bytes=10 * MIB),)
    assert decide(calm(), files_only=True) == (ReclaimBytes(bytes=10 * MIB, swappiness=0),)


def test_what_is_allowed_in_all_is_not_passed() -> None:
    assert decide(calm(done_bytes=95 * MIB), most_bytes=100 * MIB) == (ReclaimBytes(bytes=5 * MIB),)
    assert decide(calm(done_bytes=100 * MIB), most_bytes=100 * MIB) == ()


@given(
    current=st.integers(0, 1 << 50),
    floor=st.integers(0, 1 << 50),
    probe=st.integers(0, 1000),
    worst=st.floats(0, 100, allow_nan=False),
)
def test_never_below_the_floor_never_above_the_bound(current: int, floor: int, probe: int, worst: float) -> None:
    seen = calm(current_bytes=current, memory=Pressure(total_us=0, avg10_percent=worst))
    for decision in PressureController(PressureRule(floor_bytes=floor, probe_permil=probe)).step(seen):
        assert isinstance(decision, ReclaimBytes)
        assert 0 < decision.bytes <= current - floor
        assert decision.bytes % 4096 == 0
        assert worst < 0.1


def test_knobs_reach_the_rule() -> None:
    text = "reclaim driver=pressure psi=0.5% io_psi=1% probe=2% interval=3s floor=10MiB most=1GiB files=only"
    (controller,) = parse(text).controllers("cgroup")
    assert isinstance(controller, PressureController)
    assert controller.rule == PressureRule(
        interval_us=3_000_000,
        memory_percent=0.5,
        io_percent=1.0,
        probe_permil=20,
        floor_bytes=10 * MIB,
        files_only=True,
        most_bytes=1 << 30,
    )
    assert not controller.needs_accesses
    assert parse(text).schemes("cgroup") == ()
    assert [scheme.name for scheme in parse("reclaim driver=age+pressure").schemes("cgroup")] == ["reclaim"]
    assert parse("reclaim").controllers("cgroup") == ()
