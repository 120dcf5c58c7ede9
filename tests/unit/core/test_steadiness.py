"""Whether accesses go on as they were: snapshots whose counts are drawn as sampling draws them."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core.snapshot import Snapshot
from pydamon.core.steadiness import STEADY, Steadiness

MIB = 1 << 20
SAMPLES = 20
Hot = dict[tuple[int, int], float]  # MiB from, to: share of samples with an access


def snapshot(
    rng: np.random.Generator, hot: Hot, size: int = 100, *, target: int = 0, sample_us: int = 5000
) -> Snapshot:
    """Of ``size`` MiB, in regions that are cut anew each time."""
    edges = np.unique(np.concatenate([[0, size], rng.integers(1, size, 20), [edge for pair in hot for edge in pair]]))
    start, end = edges[:-1], edges[1:]
    share = np.zeros(len(start))
    for (low, high), rate in hot.items():
        share[(start >= low) & (end <= high)] = rate
    return Snapshot(
        target, 0, 1, sample_us, SAMPLES * sample_us,
        start=start.astype(np.uint64) * MIB, end=end.astype(np.uint64) * MIB,
        nr_accesses=rng.binomial(SAMPLES, share).astype(np.uint32), age=np.zeros(len(start), np.uint32),
    )  # fmt: skip


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("width", [5, 20, 80])
def test_the_chance_of_sampling_is_no_change(rate: float, width: int) -> None:
    for seed in range(10):
        rng, steadiness = np.random.default_rng(seed), Steadiness()
        for _ in range(2 * STEADY):
            steadiness.look([snapshot(rng, {(10, 10 + width): rate})])
        assert steadiness.steady, seed


@pytest.mark.parametrize("rate", [0.5, 0.75, 1.0])
def test_a_hot_set_that_moves_is_one_at_once(rate: float) -> None:
    for seed in range(10):
        rng, steadiness = np.random.default_rng(seed), Steadiness()
        for _ in range(2 * STEADY):
            steadiness.look([snapshot(rng, {(10, 20): rate})])
        steadiness.look([snapshot(rng, {(50, 60): rate})])
        assert steadiness.aggregations == 0, seed
        for _ in range(STEADY):
            assert not steadiness.steady
            steadiness.look([snapshot(rng, {(50, 60): rate})])
        assert steadiness.steady


@pytest.mark.parametrize(
    ("before", "after"), [({}, {(10, 30): 1.0}), ({(10, 30): 1.0}, {}), ({(0, 9): 1.0}, {(0, 90): 1.0})]
)
def test_so_is_one_that_comes_goes_or_grows(before: Hot, after: Hot) -> None:
    rng, steadiness = np.random.default_rng(1), Steadiness()
    for _ in range(2 * STEADY):
        steadiness.look([snapshot(rng, before)])
    assert steadiness.steady
    steadiness.look([snapshot(rng, after)])
    assert steadiness.aggregations == 0


def test_another_sampling_interval_says_nothing() -> None:
    """With one that is three times as long, three times as many samples find an access."""
    rng, steadiness = np.random.default_rng(1), Steadiness()
    for _ in range(STEADY):
        steadiness.look([snapshot(rng, {(10, 90): 0.2})])
    assert steadiness.aggregations == STEADY - 1
    steadiness.look([snapshot(rng, {(10, 90): 0.6}, sample_us=15_000)])
    assert steadiness.aggregations == STEADY - 1
    steadiness.look([snapshot(rng, {(10, 90): 0.6}, sample_us=15_000)])
    assert steadiness.steady


def test_targets_that_come_or_go_are_a_change() -> None:
    rng, steadiness = np.random.default_rng(1), Steadiness()
    both = [{(0, 50): 1.0}, {(20, 30): 0.5}]
    for _ in range(STEADY + 1):
        steadiness.look([snapshot(rng, hot, target=target) for target, hot in enumerate(both)])
    assert steadiness.steady
    steadiness.look([snapshot(rng, both[0])])
    assert steadiness.aggregations == 0


def test_what_is_not_in_memory_does_not_count() -> None:
    """A large mapping with little in it would make every change a small one."""
    rng, steadiness = np.random.default_rng(1), Steadiness()

    def sparse(hot: Hot) -> Snapshot:
        found = snapshot(rng, hot, size=10_000)
        far = found.start >= 100 * MIB
        return found.replace(resident=np.where(far, 0, found.end - found.start).astype(np.uint64))

    for _ in range(STEADY + 1):
        steadiness.look([sparse({(0, 50): 1.0})])
    assert steadiness.steady
    steadiness.look([sparse({(50, 100): 1.0})])
    assert steadiness.aggregations == 0


def test_nothing_mapped_is_steady_too() -> None:
    steadiness = Steadiness()
    nothing = np.empty(0, np.uint64)
    empty = Snapshot(0, 0, 1, 5000, 100_000, start=nothing, end=nothing, nr_accesses=nothing.astype(np.uint32),
                     age=nothing.astype(np.uint32))  # fmt: skip
    for _ in range(STEADY + 1):
        steadiness.look([empty])
    assert steadiness.steady


def test_nobody_to_look_at_is_steady_until_somebody_comes() -> None:
    steadiness = Steadiness()
    for _ in range(STEADY + 1):
        steadiness.look([])
    assert steadiness.steady
    steadiness.look([snapshot(np.random.default_rng(1), {(0, 50): 1.0})])
    assert steadiness.aggregations == 0
