"""How many regions are split in a round, as many times as there are rounds: the documented examples of 7.3."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.core.adjusting import Adjusting
from pydamon.core.regions import Regions
from pydamon.spec import NrRegions


def equal(n: int, size: int = 100) -> Regions:
    bounds = np.arange(n + 1, dtype=np.uint64) * np.uint64(size)
    return Regions(bounds[:-1], bounds[1:])


def after_one_round(n: int, maximum: int, state: Adjusting | None = None) -> int:
    state = state or Adjusting(1, np.random.default_rng(3))
    (split,) = state.split([equal(n)], maximum)
    return len(split)


@pytest.mark.parametrize(
    ("n", "maximum", "expected"),
    [
        # step = maximum // (maximum - n); every step-th region is split in two (algorithms.md 2.5)
        (760, 1500, 1140),  # step 2; core-kunit.h: 760 regions of 100 become more than 760 and at most 1500
        (1140, 1500, 1425),  # step 4
        (501, 1000, 752),  # step 2 from the first: 251
        (900, 1000, 990),  # step 10
        (1000, 1000, 1000),
        (1001, 1000, 1001),
    ],
)
def test_above_half_of_the_maximum_some_are_split(n: int, maximum: int, expected: int) -> None:
    assert after_one_round(n, maximum) == expected


def test_the_turn_goes_on_with_each_round() -> None:
    state = Adjusting(1, np.random.default_rng(3))
    # step 20: of 1,425 regions each offset below 5 has 72, each other one 71
    assert [after_one_round(1425, 1500, state) - 1425 for _ in range(40)] == [*[72] * 5, *[71] * 15] * 2


def test_one_below_the_maximum_splits_one_region_in_each_round_but_one() -> None:
    state = Adjusting(1, np.random.default_rng(3))
    # step 1000 of 999 regions: none has the number 999
    split = [after_one_round(999, 1000, state) - 999 for _ in range(1000)]
    assert split == [1] * 999 + [0]


def test_rounds_below_half_of_the_maximum_or_at_it_spend_no_turn() -> None:
    state = Adjusting(1, np.random.default_rng(3))
    after_one_round(400, 1000, state)
    after_one_round(500, 1000, state)
    after_one_round(1000, 1000, state)
    (split,) = state.split([equal(900)], 1000)
    assert split.size[0] < 100  # number 0 is the first


def test_a_round_without_splits_counts_as_the_last_one() -> None:
    # Three pieces only if the last round began with as many regions, whatever it did.
    state = Adjusting(1, np.random.default_rng(3))
    assert after_one_round(100, 100, state) == 100
    assert 200 < after_one_round(100, 1000, state) <= 300
    assert after_one_round(90, 1000, state) == 180


@given(st.integers(2, 300), st.data())
def test_the_maximum_is_never_exceeded(maximum: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(maximum // 2 + 1, maximum))
    state = Adjusting(1, np.random.default_rng(3))
    for _ in range(data.draw(st.integers(1, 20))):
        assert n <= after_one_round(n, maximum, state) <= maximum


def test_sizes_are_limited_exactly_or_roughly() -> None:
    state = Adjusting(4096, np.random.default_rng(3))
    regions = equal(1, 1003 * 4096)
    exactly = state.limit_sizes([regions], NrRegions(min=10, max=1000), exactly=True)
    assert (exactly[0].size // np.uint64(4096)).tolist() == [101] * 9 + [94]
    assert state.sz_limit == 101 * 4096
    roughly = state.limit_sizes([regions], NrRegions(min=10, max=1000), exactly=False)
    assert (roughly[0].size // np.uint64(4096)).tolist() == [111] * 8 + [115]


@pytest.mark.parametrize("exactly", [True, False])
def test_the_maximum_goes_before_the_minimum(exactly: bool) -> None:
    state = Adjusting(4096, np.random.default_rng(3))
    full = Regions(np.array([0, 4096 * 900], np.uint64), np.array([4096 * 900, 4096 * 1003], np.uint64))
    assert len(state.limit_sizes([full], NrRegions(min=10, max=8), exactly=exactly)[0]) == 2
