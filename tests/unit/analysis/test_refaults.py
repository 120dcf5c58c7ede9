"""What would come back of what is paged out: the panel's estimate beside the truth of pages with known periods."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pydamon.analysis.refaults import WORKING_SET_S, expected, foretold, lowest_age_s, returned_bytes, shares_of_bins
from pydamon.core.panel import BOUNDS_S, PAGE_SIZE, Look, TargetPanel
from pydamon.modules.registry import parse

SECOND = 1_000_000_000
MIB = 1 << 20
BASE = 0x7000_0000_0000
# Pages by how often they are used, in s (0: never): as many of each.
PERIODS_S = np.repeat(np.array([1, 8, 45, 90, 0]), 4_000)


def panel_looks(seed: int, pages: float = 1024, lasting_s: int = 600) -> list[Look]:
    """One look per second at a panel of pages that are used every so often, each at a time of its own."""
    phase = np.random.default_rng(seed).integers(0, np.maximum(PERIODS_S, 1))
    runs = np.array([[BASE, BASE + len(PERIODS_S) * PAGE_SIZE]], np.uint64)
    panel = TargetPanel(0, seed)
    panel.follow(runs, pages, 0)
    mine = ((panel.address - np.uint64(BASE)) // np.uint64(PAGE_SIZE)).astype(np.int64)
    looks = []
    for now_s in range(1, lasting_s + 1):
        accessed = (PERIODS_S[mine] > 0) & (now_s % np.maximum(PERIODS_S[mine], 1) == phase[mine])
        panel.observe(accessed, np.zeros(len(mine), np.bool_), now_s * SECOND)
        looks.append(panel.look(len(PERIODS_S) * PAGE_SIZE, now_s * SECOND))
    return looks


def true_rate(age_s: int) -> float:
    """Bytes per minute of pages whose period is at least so long."""
    back = PERIODS_S[age_s <= PERIODS_S]
    return float((60 / back).sum()) * PAGE_SIZE


def test_the_interval_holds_the_truth() -> None:
    """Of 40 seeds at four ages at least 140 of 160: 95 % less four standard deviations; the mean is within 4 %."""
    held, found = 0, []
    for seed in range(40):
        looks = {0: panel_looks(seed, lasting_s=300)}
        for age_s in (2, 8, 20, 60):
            one, truth = expected(looks, age_s), true_rate(age_s)
            assert one is not None
            held += one.per_minute.low_bytes <= truth <= one.per_minute.high_bytes
            found.append(one.per_minute.bytes / truth)
    assert held >= 140
    assert np.reshape(found, (40, 4)).mean(axis=0) == pytest.approx(1, rel=0.04)


def test_an_interval_is_no_wider_than_it_has_to_be() -> None:
    """12,000 of 20,000 pages return, about 614 of 1,024: ± 1.96 / sqrt(614) = 7.9 %, times sqrt(95 %) of the rest."""
    found = expected({0: panel_looks(7)}, 8)
    assert found is not None
    assert found.per_minute.half_width_bytes / found.per_minute.bytes < 0.2


def test_a_panel_of_all_pages_has_no_error() -> None:
    found = expected({0: panel_looks(1, pages=len(PERIODS_S), lasting_s=120)}, 20)
    assert found is not None
    assert found.per_minute.half_width_bytes <= 1


def test_nothing_is_said_of_what_was_not_seen() -> None:
    looks = {0: panel_looks(1, lasting_s=20)}
    assert expected(looks, 30) is None
    assert lowest_age_s(looks, 0) is None
    (line,) = foretold(looks, parse("reclaim min_age=30s").schemes("process")[0])
    assert "not looked at for longer than the age of 30 s" in line


def test_no_return_seen_has_an_upper_bound() -> None:
    """95 % score interval of a count of 0: 3.84 pages of 20,000/1,024 each, in 600 − 120 s."""
    found = expected({0: panel_looks(3)}, 120)
    assert found is not None
    assert found.per_minute.bytes == found.per_minute.low_bytes == 0
    assert found.per_minute.high_bytes == pytest.approx(3.84 * 20_000 * PAGE_SIZE / 1024 / 8, rel=0.1)


def test_the_working_set_is_that_of_two_minutes() -> None:
    found = expected({0: panel_looks(5)}, 20)
    assert found is not None
    assert found.window_s == WORKING_SET_S
    assert found.working_set is not None
    used = 16_000 * PAGE_SIZE
    assert found.working_set.low_bytes <= used <= found.working_set.high_bytes
    assert found.share_bp == pytest.approx(true_rate(20) / used * 10_000, rel=0.15)


def test_the_lowest_age_is_above_the_longest_period() -> None:
    looks = {0: panel_looks(2)}
    assert lowest_age_s(looks, 20) == 100
    assert lowest_age_s(looks, 1_000_000) == 1


def test_targets_add_up() -> None:
    one, two = panel_looks(1), panel_looks(2)
    for look in two:
        look.target = 1
    each = [expected({0: looks}, 20) for looks in (one, two)]
    both = expected({0: one, 1: two}, 20)
    assert both is not None
    sizes = [found.per_minute for found in each if found is not None]
    assert both.per_minute.bytes == pytest.approx(sum(size.bytes for size in sizes), abs=2)
    widths = [size.bytes - size.low_bytes for size in sizes]
    assert both.per_minute.bytes - both.per_minute.low_bytes == pytest.approx(math.hypot(*widths), abs=3)


def test_returned_bytes_are_sums_from_the_oldest_down() -> None:
    """Worked: 2 pages after 1 s and 3 after 60 s, each for 1 MiB."""
    nothing = np.zeros(len(BOUNDS_S), np.int64)
    idle, ended = nothing.copy(), nothing.copy()
    idle[0], ended[1], ended[BOUNDS_S.index(60)] = 100, 2, 3
    found = returned_bytes([Look(SECOND, 0, 100 * MIB, idle, nothing, ended, 0)])
    assert found[:3].tolist() == [5 * MIB, 5 * MIB, 3 * MIB]
    assert found[BOUNDS_S.index(60) : BOUNDS_S.index(60) + 2].tolist() == [3 * MIB, 0]


def test_an_age_within_a_bin_counts_a_part_of_it() -> None:
    """12 to 15 s: of 14 s a third is longer."""
    found = shares_of_bins(14)
    at = BOUNDS_S.index(12)
    assert found[at - 1] == 0
    assert found[at] == pytest.approx(1 / 3)
    assert found[at + 1] == found[-1] == 1


def test_a_thrashing_policy_is_named_with_a_better_one() -> None:
    looks = {0: panel_looks(2)}
    rate, thrash = foretold(looks, parse("reclaim min_age=5s quota=off").schemes("process")[0])
    assert rate.startswith("about ")
    assert " a minute would come back ± " in rate
    assert thrash.startswith("it would thrash: at least ")
    assert thrash.endswith("; min_age=1 min 40 s keeps below it")
    assert len(foretold(looks, parse("reclaim min_age=2min").schemes("process")[0])) == 1
    assert foretold(looks, parse("lru_sort").schemes("process")[0]) == []


def test_a_quota_bounds_what_can_come_back() -> None:
    scheme = parse("reclaim min_age=5s quota=1MiB/1s").schemes("process")[0]
    assert foretold({0: panel_looks(2)}, scheme)[0].startswith("about 60.0 MiB a minute")
