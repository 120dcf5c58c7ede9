"""The budget of the refaults driver: what is taken per minute, by what came back."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.modules.refault_budget import Budget, next_budget

PAGE, MINUTE = 4096, 60 * 10**9
ALLOWED = 100.0 * PAGE


def test_it_doubles_at_most_and_falls_at_once() -> None:
    assert next_budget(ALLOWED, 0, ALLOWED, PAGE) == 2 * ALLOWED
    assert next_budget(ALLOWED, 99 * PAGE, ALLOWED, PAGE) == ALLOWED
    assert next_budget(64 * ALLOWED, 400 * PAGE, ALLOWED, PAGE) == ALLOWED / 4
    assert next_budget(ALLOWED / 4, 0, ALLOWED, PAGE) == ALLOWED / 2


def test_the_first_minute_takes_no_more_than_may_come_back() -> None:
    budget, taken = Budget(), 0
    for step in range(6):
        taken += int(budget.look(step * MINUTE // 6, taken, 0, ALLOWED, PAGE))
    assert taken == ALLOWED


def test_while_too_much_comes_back_nothing_is_taken() -> None:
    budget = Budget()
    assert budget.look(0, 0, 0, ALLOWED, PAGE) == ALLOWED
    assert budget.look(MINUTE // 6, 100 * PAGE, 101 * PAGE, ALLOWED, PAGE) == 0


def test_what_is_not_tried_is_not_confirmed() -> None:
    budget = Budget()
    for minute in range(20):
        assert budget.look(minute * MINUTE, 0, 0, ALLOWED, PAGE) == ALLOWED


def run(idle_s: np.ndarray, minutes: int) -> tuple[int, list[int]]:
    """Take pages of which each comes back after its time; what is away at the end, and what came back by minute."""
    budget, at, taken, back = Budget(), 0, 0, 0
    due = np.full(len(idle_s), -1.0)
    by_minute = []
    for minute in range(minutes):
        before = back
        for step in range(6):
            now_s = minute * 60 + step * 10
            home = (due >= 0) & (due <= now_s)
            back += int(home.sum()) * PAGE
            due[home] = -1
            left = int(budget.look(now_s * 10**9, taken, back, ALLOWED, PAGE)) // PAGE
            here = np.roll(np.flatnonzero(due < 0), -at)[:left]
            due[here] = now_s + idle_s[here]
            at, taken = at + left, taken + len(here) * PAGE
        by_minute.append((back - before) // PAGE)
    return int((due >= 0).sum()), by_minute


def test_all_that_is_idle_is_taken_soon() -> None:
    away, back = run(np.full(30_000, 1e9), 12)
    assert away == 30_000
    assert not any(back)


@pytest.mark.parametrize("idle_s", [5.0, 30.0, 60.0])
def test_of_memory_that_all_comes_back_no_more_than_may_does(idle_s: float) -> None:
    _, back = run(np.full(30_000, idle_s), 30)
    assert max(back) <= 2 * 100  # a minute may see what two allowed
    assert np.mean(back) <= 100


def test_of_zipf_the_mean_of_the_later_minutes_is_within_the_limit() -> None:
    idle_s = np.random.default_rng(1).permutation(np.arange(1, 30_001) * 0.5)
    _, back = run(idle_s, 30)
    assert np.mean(back[5:]) <= 150
