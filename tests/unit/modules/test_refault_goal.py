"""The refaults driver against memory of which it is known exactly how much of what was taken comes back."""

from __future__ import annotations

import numpy as np
import pytest
from tests.helpers.paged_memory import Memory, Minute, Rates, driven, zipf

CHANGE_S = 480
LIKE_A_FILE = zipf(16_384, 49_152, 200)  # what the evaluation on this machine has: 192 MiB, of which 64 are used


def shuffled(rates: Rates, together: int = 1) -> Rates:
    """The same in an order that has nothing to do with how often they are used, so many pages beside each other."""
    pieces = rates.reshape(-1, together)
    order = np.random.default_rng(5).permutation(len(pieces))
    return np.ascontiguousarray(pieces[order].reshape(-1))


def share(minutes: list[Minute]) -> float:
    """What came back by what may, in the mean."""
    return sum(minute.back for minute in minutes) / sum(minute.allowed for minute in minutes)


@pytest.mark.parametrize(
    "rates",
    [shuffled(LIKE_A_FILE), shuffled(LIKE_A_FILE, 512), zipf(49_152, 49_152, 2000)],
    ids=["pages in any order", "pieces of 2 MiB in any order", "all of it is used"],
)
def test_in_the_last_five_of_ten_minutes_as_much_comes_back_as_may(rates: Rates) -> None:
    assert 1 / 1.5 <= share(driven(Memory(rates), 10)[5:]) <= 1.5


def test_where_only_each_fifth_window_is_used_it_is_reached_too() -> None:
    """As on a slow machine: then more is taken per window, and not younger memory."""

    class Slow(Memory):
        windows = 0

        def _take(self) -> None:
            self.windows += 1
            if self.windows % 5 == 0:
                super()._take()

    minutes = driven(Slow(shuffled(LIKE_A_FILE)), 10)
    assert 1 / 1.5 <= share(minutes[5:]) <= 1.5
    assert minutes[9].min_age_s > 120


def test_what_is_never_used_is_taken_though_some_of_the_rest_comes_back() -> None:
    """In the order of their use: after what is idle by chance only comes what was never used."""
    minutes = driven(Memory(LIKE_A_FILE), 14)
    assert minutes[13].out_mib > 20
    assert share(minutes[5:]) <= 1


def test_it_does_not_grow_far_beyond_the_limit_where_what_is_taken_gets_worse() -> None:
    """First what is never used, so that no evidence warns of the rest, which is as old."""
    minutes = driven(Memory(np.ascontiguousarray(LIKE_A_FILE[::-1])), 20)
    assert minutes[9].out_mib > 10
    began = next(number for number, minute in enumerate(minutes) if minute.back)
    limit = float(np.mean([minute.allowed for minute in minutes[:began]][-3:]))
    assert max(minute.expected for minute in minutes) <= 3 * limit


def test_after_all_is_used_four_times_as_often_it_is_soon_within_the_limit() -> None:
    rates = shuffled(LIKE_A_FILE)

    def change(memory: Memory, now_s: int) -> None:
        if now_s == CHANGE_S:
            memory.rates = rates * 4

    minutes = driven(Memory(rates), 14, each_second=change)
    assert max(minute.back / minute.allowed for minute in minutes[8:]) <= 3
    assert share(minutes[9:]) <= 1.5


def test_where_what_was_taken_is_used_at_once_nothing_more_is_taken() -> None:
    """It comes back within a minute, which cannot be helped; then what is out stays within the limit."""
    rates = np.where(np.arange(49_152) < 4096, 0.5, 0.0)

    def change(memory: Memory, now_s: int) -> None:
        if now_s == CHANGE_S:
            memory.rates = np.roll(rates, len(rates) // 2)

    minutes = driven(Memory(rates), 14, each_second=change)
    assert minutes[7].out_mib > 30
    assert minutes[8].back > 10 * minutes[8].allowed
    assert share(minutes[9:]) <= 1
    assert minutes[8].out_mib <= minutes[7].out_mib
