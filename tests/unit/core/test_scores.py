"""Scores: worked numbers of the formulas in DAMON's design, and a literal model of them, region by region."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.core.scores import hot_scores, lowest_score, scores
from pydamon.spec.schemes import Weights

BOTH = Weights(nr_accesses_permil=1000, age_permil=1000)


def hot(nr: int, age: int, weights: Weights = BOTH, window: int = 20, aggr_us: int = 100_000) -> int:
    result = hot_scores(np.array([nr]), np.array([age]), weights, window=window, aggr_us=aggr_us)
    return int(result[0])


@pytest.mark.parametrize(
    ("nr", "age", "expected"),
    [
        (20, 0, 74),  # freq 100; age 0 s: (0 + 32) * 100 / 64 = 50; (100 + 50) / 2 = 75; 75 * 99 / 100
        (0, 1200, 18),  # freq 0; 120 s has 7 bits: (-7 + 32) * 100 / 64 = 39; 39 / 2 = 19; 19 * 99 / 100
        (10, 100, 52),  # freq 50; 10 s has 4 bits: 36 * 100 / 64 = 56; (50 + 56) / 2 = 53; 53 * 99 / 100
        (0, 0, 24),  # freq 0; 50 / 2 = 25
        (20, 2**32 - 1, 96),  # 429,496,729 s has 29 bits: 61 * 100 / 64 = 95; (100 + 95) / 2 = 97; 97 * 99 / 100
    ],
)
def test_worked_numbers(nr: int, age: int, expected: int) -> None:
    assert hot(nr, age) == expected


def test_the_longer_hot_the_hotter_and_the_longer_cold_the_colder() -> None:
    ages = [0, 10, 20, 40, 80, 160, 1000, 10_000, 10**6]
    hottest, coldest = [hot(20, age) for age in ages], [hot(0, age) for age in ages]
    assert hottest == sorted(hottest)
    assert coldest == sorted(coldest, reverse=True)
    assert min(len(set(hottest)), len(set(coldest))) > 5


def test_age_counts_up_to_32_bits_of_seconds() -> None:
    only_age = Weights(nr_accesses_permil=0, age_permil=1)
    # 2**31 s has 32 bits, more does not count: (32 + 32) * 100 / 64 = 100 -> 99; not accessed: 0
    for seconds in (2**31, 2**32, 2**40):
        assert hot(20, seconds, only_age, aggr_us=1_000_000) == 99
        assert hot(0, seconds, only_age, aggr_us=1_000_000) == 0


def test_weights_of_zero_make_all_alike() -> None:
    none = Weights(nr_accesses_permil=0, age_permil=0)
    assert {hot(nr, age, none) for nr in (0, 5, 20) for age in (0, 50, 5000)} == {0}


def test_one_weight_of_zero_leaves_the_other() -> None:
    assert hot(10, 5000, Weights(nr_accesses_permil=7, age_permil=0)) == 49  # freq 50 * 99 / 100
    assert hot(10, 100, Weights(nr_accesses_permil=0, age_permil=7)) == 55  # age 56 * 99 / 100


def test_the_weight_of_the_size_is_not_used() -> None:
    assert hot(10, 100, Weights(sz_permil=1000)) == hot(10, 100, Weights(sz_permil=0))


def test_actions_for_cold_memory_prefer_what_is_not_hot() -> None:
    values = np.array([0, 18, 99])
    for action in ("pageout", "cold", "lru_deprio", "migrate_cold"):
        assert scores(action, values).tolist() == [99, 81, 0]
    for action in ("lru_prio", "migrate_hot", "hugepage", "collapse", "willneed"):
        assert scores(action, values).tolist() == [0, 18, 99]
    for action in ("stat", "nohugepage"):
        assert scores(action, values).tolist() == [99, 99, 99]


def literal(nr: int, age: int, w_freq: int, w_age: int, window: int, aggr_us: int) -> int:
    """2.12 of the algorithms, as it is written there."""
    freq = nr * 100 // window
    log, seconds = 0, age * aggr_us // 1_000_000
    while seconds and log < 32:
        log, seconds = log + 1, seconds // 2
    if freq == 0:
        log = -log
    age_sub = (log + 32) * 100 // 64
    hotness = w_freq * freq + w_age * age_sub
    if w_freq + w_age:
        hotness //= w_freq + w_age
    return min(max(hotness * 99 // 100, 0), 99)


@given(
    st.integers(1, 10_000).flatmap(lambda window: st.tuples(st.just(window), st.integers(0, window))),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 1000, 100_000, 10**6, 2 * 10**9]),
)
def test_scores_are_those_of_the_formula(
    rate: tuple[int, int], age: int, w_freq: int, w_age: int, aggr_us: int
) -> None:
    window, nr = rate
    weights = Weights(nr_accesses_permil=w_freq, age_permil=w_age)
    assert hot(nr, age, weights, window, aggr_us) == literal(nr, age, w_freq, w_age, window, aggr_us)


def lowest(pairs: list[tuple[int, int]], wanted: int) -> int:
    values, sizes = zip(*pairs, strict=True) if pairs else ((), ())
    return lowest_score(np.array(values, np.int64), np.array(sizes, np.uint64), wanted)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(1, 90), (100, 90), (101, 50), (300, 50), (301, 7), (10_000, 0)],  # 100 at 90, 200 at 50, 400 at 7
)
def test_the_lowest_score_has_enough_bytes_at_or_above_it(wanted: int, expected: int) -> None:
    assert lowest([(7, 400), (90, 60), (50, 200), (90, 40)], wanted) == expected


def test_nothing_eligible_has_score_zero() -> None:
    assert lowest([], 4096) == 0


def test_sizes_are_added_up_exactly_beyond_53_bits() -> None:
    # As float64 the sum 2**53 + 1 is 2**53: one byte short.
    assert lowest([(99, 2**53), (99, 1), (10, 2**60)], 2**53 + 1) == 99
    assert lowest([(99, 2**63), (10, 2**62)], 2**63 + 2**62) == 10
