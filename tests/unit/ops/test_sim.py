"""The simulated operations set through the calls that the core makes."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core.clock import VirtualClock
from pydamon.errors import RequestError
from pydamon.ops.base import Addresses, OperationsSet
from pydamon.ops.sim.ops import BASE_ADDRESS, SimOps
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN
from pydamon.workload import builtin, model

MS = 1_000_000
S = 1000 * MS


def regions_of(ops: SimOps, target: int = 0) -> tuple[Addresses, Addresses]:
    mappings = ops.mappings(target)
    start = np.array([mapping.start for mapping in mappings], dtype=np.uint64)
    end = np.array([mapping.end for mapping in mappings], dtype=np.uint64)
    return start, end


def ask(ops: SimOps, clock: VirtualClock, target: int = 0) -> list[int]:
    ops.sampler.prepare_access_checks(target, *regions_of(ops, target))
    clock.sleep_ns(5 * MS)
    answers: list[int] = ops.sampler.check_accesses(target).tolist()
    return answers


def test_stairs() -> None:
    clock = VirtualClock(123 * S)
    ops = SimOps(builtin.load("stairs"), clock)
    contract: OperationsSet = ops
    ranges = contract.init()
    assert [mapping.name for mapping in ops.mappings(0)] == [f"[anon:s{i}]" for i in range(10)]
    assert ops.mappings(0) is ops.mappings(0)
    assert ops.pid(0) is None
    # One range from the first mapping to the last: ten of 10 MiB and nine gaps of 64 KiB.
    assert ranges[0].dtype == np.uint64
    assert ranges[0].tolist() == [[BASE_ADDRESS, BASE_ADDRESS + 100 * (1 << 20) + 9 * (1 << 16)]]

    assert ask(ops, clock) == [ACCESSED] * 10  # warm-up
    clock.sleep_ns(S - 5 * MS)
    for step in range(10):
        for _ in range(5):
            assert ask(ops, clock) == [ACCESSED if i == step else NOT_ACCESSED for i in range(10)]
        assert ops.target_valid(0)
        clock.sleep_ns(5 * S - 25 * MS)
    assert not ops.target_valid(0)
    assert ops.update() == [None]
    assert ask(ops, clock) == [UNKNOWN] * 10
    ops.reset_aggregated()
    ops.cleanup()


def test_the_last_snapshot_of_a_process_that_has_ended_says_what_was_resident() -> None:
    clock = VirtualClock()
    ops = SimOps(builtin.load("stairs"), clock)
    start, end = regions_of(ops)
    ops.init()
    for _ in range(2):
        clock.sleep_ns(60 * S)  # it ends after 51 s
        ops.reset_aggregated()
        assert ops.resident_bytes(0, start, end).tolist() == [10 << 20] * 10


def test_a_window_over_a_change_of_phases_holds_both() -> None:
    clock = VirtualClock()
    ops = SimOps(builtin.load("zigzag"), clock)
    ops.init()
    clock.sleep_ns(6 * S - 2 * MS)  # 1 s of warm-up, 5 s of "a"
    assert ask(ops, clock) == [ACCESSED, ACCESSED]


def test_gaps_are_not_accessed() -> None:
    clock = VirtualClock()
    ops = SimOps(builtin.load("stairs"), clock)
    ops.init()
    first, second = ops.mappings(0)[:2]
    ops.sampler.prepare_access_checks(0, np.array([first.end], np.uint64), np.array([second.start], np.uint64))
    clock.sleep_ns(5 * MS)
    assert ops.sampler.check_accesses(0).tolist() == [NOT_ACCESSED]


def test_one_mapping() -> None:
    ops = SimOps(builtin.load("stairs"), VirtualClock(), mapping="one")
    assert ops.init()[0].tolist() == [[BASE_ADDRESS, BASE_ADDRESS + 100 * (1 << 20)]]
    assert [mapping.name for mapping in ops.mappings(0)] == ["[anon:workload]"]


def test_targets_are_independent() -> None:
    clock = VirtualClock()
    short = model.parse("x, 4096\n\np\n10\nx, 0, 1, 1\n", source="x")
    ops = SimOps([short, builtin.load("zigzag")], clock)
    assert [len(ranges) for ranges in ops.init()] == [1, 1]
    for target in range(2):
        ops.sampler.prepare_access_checks(target, *regions_of(ops, target))
    clock.sleep_ns(5 * MS)
    assert ops.sampler.check_accesses(0).tolist() == [ACCESSED]
    assert len(ops.sampler.check_accesses(1)) == 2
    clock.sleep_ns(5 * MS)
    assert (ops.target_valid(0), ops.target_valid(1)) == (False, True)
    update = ops.update()
    assert update[0] is None
    assert update[1] is not None


def test_repeat_and_time_scale() -> None:
    clock = VirtualClock()
    ops = SimOps(builtin.load("zigzag"), clock, repeat=0, time_scale=0.1)
    ops.init()
    clock.sleep_ns(51 * S)  # ten turns of 5.1 s: at the beginning of the eleventh
    assert ask(ops, clock) == [ACCESSED, ACCESSED]
    clock.sleep_ns(95 * MS)
    assert ask(ops, clock) == [ACCESSED, NOT_ACCESSED]


def test_equal_seeds_give_equal_answers() -> None:
    def answers(seed: int) -> list[list[int]]:
        clock = VirtualClock()
        ops = SimOps(builtin.load("random"), clock, seed=seed, accesses_per_s=3_000_000)
        ops.init()
        clock.sleep_ns(2 * S)
        middle = ops.mappings(0)[1]
        edges = np.linspace(middle.start, middle.end, 101, dtype=np.uint64) & ~np.uint64(4095)
        result = []
        for _ in range(3):
            ops.sampler.prepare_access_checks(0, edges[:-1], edges[1:])
            clock.sleep_ns(5 * MS)
            result.append(ops.sampler.check_accesses(0).tolist())
        return result

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)


def test_a_terabyte() -> None:
    clock = VirtualClock()
    workload = model.parse("a, 1 TiB\nb, 1 TiB\n\np\n10000\na, 0, 4096, 1\n", source="x")
    ops = SimOps(workload, clock, mapping="one")
    (span,) = ops.init()[0]
    edges = np.linspace(span[0], span[1], 1001, dtype=np.uint64) & ~np.uint64(4095)
    clock.sleep_ns(S)
    ops.sampler.prepare_access_checks(0, edges[:-1], edges[1:])
    clock.sleep_ns(3 * S)
    # 150 million accesses of a pass of 268,435,456, from 50 million on: regions 93.1 to 372.5 of the 500 of "a".
    hot = np.flatnonzero(ops.sampler.check_accesses(0) == ACCESSED)
    assert (hot[0], hot[-1], len(hot)) in {(first, last, last - first + 1) for first in (93, 94) for last in (371, 372)}
    assert ops.truths[0].hot_bytes(clock.now_ns()) == 1 << 40


def test_nothing_asked_nothing_answered() -> None:
    ops = SimOps(builtin.load("stairs"), VirtualClock())
    ops.init()
    assert ops.sampler.check_accesses(0).tolist() == []
    nothing = np.empty(0, np.uint64)
    ops.sampler.prepare_access_checks(0, nothing, nothing)
    assert ops.sampler.check_accesses(0).tolist() == []


@pytest.mark.parametrize("options", [{"accesses_per_s": 0}, {"repeat": -1}, {"time_scale": 0.0}, {"mapping": "two"}])
def test_nonsense_options(options: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        SimOps(builtin.load("stairs"), VirtualClock(), **options)  # type: ignore[arg-type]
