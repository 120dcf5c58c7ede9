"""What is out and how much of it comes back: the estimates of the refaults driver."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.modules.controller import ColdBytes, Observations
from pydamon.modules.refault_panel import PanelShares
from pydamon.modules.refault_stock import Stock

PAGE = 4096
WORST = 0.5  # a share per minute: memory that was idle for two minutes


def kept(hazard: float, steps: int, per_step: int = 1000, seed: int = 1) -> Stock:
    """A stock that was given so many pages every six seconds, of which that share comes back per minute."""
    rng, stock, out, taken, back = np.random.default_rng(seed), Stock(PAGE), 0, 0, 0
    for step in range(steps):
        came = int(rng.binomial(out, 1 - np.exp(-hazard * 0.1)))
        out, back, taken = out - came + per_step, back + came, taken + per_step
        stock.look(step * 0.1, taken * PAGE, back * PAGE, WORST)
    return stock


def test_at_first_what_is_taken_next_is_thought_to_come_back_as_it_does_at_the_worst() -> None:
    assert Stock(PAGE).marginal(WORST) == WORST
    assert Stock(PAGE).per_minute() == 0
    assert Stock(PAGE).surely_per_minute() == 0


def test_what_stays_out_is_trusted_so_far_and_no_further() -> None:
    assert kept(0.0, 30).marginal(WORST) == pytest.approx(WORST / 16)


@pytest.mark.parametrize("hazard", [0.2, 1.0])
def test_the_share_that_comes_back_is_learned(hazard: float) -> None:
    stock = kept(hazard, 40)
    assert stock.marginal(WORST) == pytest.approx(hazard, rel=0.25)


@pytest.mark.parametrize("hazard", [0.05, 0.2, 1.0])
def test_what_comes_back_per_minute_is_foretold(hazard: float) -> None:
    stock = kept(hazard, 40)
    out = 40_000 * PAGE if hazard == 0.05 else 1000 * PAGE / (1 - np.exp(-hazard * 0.1))
    expected = min(out, sum(1000 * PAGE * np.exp(-hazard * 0.1 * step) for step in range(40))) * hazard
    assert stock.per_minute() == pytest.approx(expected, rel=0.25)
    assert stock.per_minute(1.0) == pytest.approx(stock.per_minute() * np.exp(-hazard), rel=0.15)
    assert 0.5 * expected < stock.surely_per_minute() < 1.3 * expected


def test_older_memory_says_nothing_of_younger() -> None:
    """What was idle for ten minutes and stays out; then what was idle for two."""
    stock = Stock(PAGE)
    for step in range(20):
        stock.look(step * 0.1, step * 1000 * PAGE, 0, 0.1)
    assert stock.marginal(0.1) < 0.02
    assert stock.marginal(WORST) == WORST


def test_what_was_taken_last_is_found_out_soon() -> None:
    """20,000 pages stay out; of 500 taken every six seconds a half comes back per minute."""
    stock = kept(0.0, 20)
    taken, back, out = 20_000, 0, 0
    for step in range(5):
        came = round(out * 0.05)
        taken, back, out = taken + 500, back + came, out + 500 - came
        stock.look(2.0 + step * 0.1, taken * PAGE, back * PAGE, WORST)
    assert stock.marginal(WORST) > 4 * WORST / 16
    assert stock.per_minute() == pytest.approx(out * PAGE * 0.5, rel=0.5)


def test_many_tranches_are_kept_as_one() -> None:
    stock = kept(0.2, 400)
    assert stock.per_minute() == pytest.approx(kept(0.2, 100).per_minute(), rel=0.2)


def looks(returned: int, minutes: int = 10) -> PanelShares:
    panel = PanelShares()
    for at in range(minutes + 1):
        panel.look(
            Observations(
                now_ns=at * 60 * 10**9,
                resident_bytes=1024 * 40960,
                cold=(ColdBytes(60_000_000, 500 * 40960), ColdBytes(120_000_000, 400 * 40960)),
                returned=(ColdBytes(60_000_000, returned * 40960),),
            )
        )
    return panel


def test_without_a_panel_memory_is_used_again_within_its_age_at_the_worst() -> None:
    assert PanelShares().worst(120_000_000) == 0.5
    assert looks(10).worst(30_000_000) == 2.0


def test_a_panel_lowers_the_worst_by_what_it_saw_return_with_its_error() -> None:
    """Of 500 pages 2 a minute return, in 4.6 minutes that count: 4 x (9.2 + 2 x 3 + 2) / 2,300."""
    assert looks(2).worst(60_000_000) == pytest.approx(0.03, rel=0.2)
    assert looks(0).worst(60_000_000) < looks(2).worst(60_000_000) < looks(20).worst(60_000_000)
    assert looks(500).worst(60_000_000) == 1.0
    assert looks(2).worst(90_000_000) == looks(2).worst(60_000_000)
