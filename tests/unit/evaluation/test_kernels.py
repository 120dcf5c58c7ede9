"""The kernels of the evaluation compute what they are named for: each result is held against a second way."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from benchmarks.evaluation.kernels import KERNELS, bit_reversed, slot_of
from numpy.typing import NDArray

KIB = 1 << 10


def first_results(name: str, size: int, count: int = 1) -> list[NDArray[Any]]:
    """Copies of what a kernel yields first."""
    results: list[NDArray[Any]] = []
    pieces = KERNELS[name](size, np.random.default_rng(7))
    while len(results) < count:
        found = next(pieces)
        if found is not None:
            results.append(found.copy())
    return results


@pytest.mark.parametrize("size", [64 * KIB, 4096 * KIB], ids=["one block", "several blocks"])
def test_fft_agrees_with_numpy(size: int) -> None:
    count, draws = size // 16, np.random.default_rng(7)
    start = draws.standard_normal(min(count, 1 << 16))
    expected = np.fft.fft(np.resize(start, count))
    (found,) = first_results("fft", size)
    assert np.allclose(found[bit_reversed(count)], expected, atol=1e-6)


def test_lu_factors_multiply_to_the_matrix() -> None:
    n = 384
    (found,) = first_results("lu", n * n * 8)
    lower, upper = np.tril(found, -1) + np.eye(n), np.triu(found)
    draws = np.random.default_rng(7).random((128, n))
    expected = np.concatenate([np.roll(draws, at, axis=1) for at in range(0, n, 128)]) + n * np.eye(n)
    assert np.allclose(lower @ upper, expected)


def test_stencil_is_the_mean_of_four_neighbours() -> None:
    before, after = first_results("stencil", 16 * 40 * 40, 2)
    for row in range(1, 39):
        for column in range(1, 39):
            around = (
                before[row - 1, column] + before[row + 1, column] + before[row, column - 1] + before[row, column + 1]
            )
            assert after[row, column] == pytest.approx(around / 4)
    assert after[1].any()
    assert (after[0] == before[0]).all()


@pytest.mark.parametrize("size", [8 * 1000, 8 * 200_000], ids=["one chunk", "several chunks"])
def test_radix_sorts(size: int) -> None:
    (found,) = first_results("radix", size)
    count, draws = size // 8, np.random.default_rng(7)
    made = [draws.integers(0, 1 << 32, min(1 << 16, count - at), np.uint32) for at in range(0, count, 1 << 16)]
    assert found.tolist() == sorted(np.concatenate(made).tolist())


def test_mining_visits_all_that_lie_above_nodes_of_the_item() -> None:
    (found,) = first_results("mining", 64 * 5000)
    parents, items, visits = found.T.tolist()
    expected: Counter[int] = Counter()
    for node in range(1, len(parents)):
        if items[node] == 0:
            while node:
                node = parents[node]
                expected[node] += 1
    assert {node: seen for node, seen in enumerate(visits) if seen} == expected
    assert expected[0] > 5


def test_graph_ranks_are_those_of_the_power_method() -> None:
    size, degree = 400 * 80, 16
    found = first_results("graph", size, 3)
    count = len(found[0])
    sources = (count * np.random.default_rng(7).random((count, degree)) ** 3).astype(int)
    edges = np.zeros((count, count))
    np.add.at(edges, (np.repeat(np.arange(count), degree), sources.ravel()), 1)
    out = np.maximum(edges.sum(axis=0), 1)
    rank = np.full(count, 1 / count)
    for turn in found:
        rank = 0.15 / count + 0.85 * (edges / out) @ rank
        assert np.allclose(turn, rank)


def test_boosting_sums_all_gradients_and_then_of_fewer_rows() -> None:
    sums = first_results("boosting", 32 * 1000, 7)
    draws = np.random.default_rng(7)
    draws.integers(0, 256, (28, 1000), np.uint8)
    total = draws.standard_normal(1000).astype(np.float32).sum(dtype=np.float64)
    assert np.allclose(sums[0].sum(axis=1), total)
    assert np.allclose(sums[6], sums[0])  # the next tree
    for deeper in sums[1:6]:
        assert np.allclose(deeper.sum(axis=1), deeper[0].sum())
        assert not np.allclose(deeper[0].sum(), total)


def test_aggregation_counts_each_key_in_a_slot_of_its_own() -> None:
    (table,) = first_results("aggregation", 16 << 10)
    draws = np.random.default_rng(7)
    expected = Counter(np.concatenate([(1024 * draws.random(1 << 16) ** 8).astype(int) for _ in range(64)]).tolist())
    assert {key: count for key, count in table.tolist() if count} == expected
    assert len(np.unique(slot_of(np.arange(1024), 10))) == 1024


def test_clustering_never_costs_more_after_a_turn() -> None:
    costs = [float(turn[0, -1]) for turn in first_results("clustering", 128 * 3000, 6)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


def test_pricing_is_that_of_black_and_scholes() -> None:
    prices = np.array(first_results("pricing", 4096 * 4, 20))
    up = (0.05 + 0.02) / 0.2
    normal = [0.5 * (1 + math.erf(d / math.sqrt(2))) for d in (up, up - 0.2)]
    expected = 100 * normal[0] - 100 * math.exp(-0.05) * normal[1]
    assert abs(prices[:, 0].mean() - expected) < 3 * prices[0, 1] / math.sqrt(20)


def test_each_kernel_uses_about_the_memory_that_is_asked_for() -> None:
    for name, kernel in KERNELS.items():
        tracemalloc.start()
        pieces = kernel(4 << 20, np.random.default_rng(1))
        next(pieces)
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert (2 << 20) < held < (9 << 20), name
