"""Totals of several targets from their page panels: the intervals hold the truth, and shared memory counts once."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.analysis.together import Together
from pydamon.core.panel import BOUNDS_S, PAGE_SIZE, Look, Once, drawn, shares

SECOND = 1_000_000_000
BASE = np.uint64(0x7000_0000_0000)
USED, IDLE = 0, BOUNDS_S.index(60)


def counted(places: int, pages: float, more: int = 0, more_pages: float = 0) -> np.ndarray:
    found = np.zeros(len(BOUNDS_S))
    found[places] += pages
    found[more] += more_pages
    return found


def sampled(pages: int, chance: float, seed: int) -> np.ndarray:
    """Numbers of the pages of a target that are drawn."""
    runs = np.array([[0, pages]], np.uint64) * np.uint64(PAGE_SIZE) + BASE
    return ((drawn(runs, chance, seed) - BASE) // np.uint64(PAGE_SIZE)).astype(np.int64)


def plain(target: int, pages: int, used: int, wanted: float, rng: np.random.Generator) -> Look:
    """Each page is drawn with one chance: the numbers of those that are drawn are binomial."""
    chance = min(wanted / pages, 1.0)
    hits, rest = int(rng.binomial(used, chance)), int(rng.binomial(pages - used, chance))
    nothing = np.zeros(len(BOUNDS_S), np.int64)
    return Look(
        100 * SECOND, target, pages * PAGE_SIZE, counted(USED, hits, IDLE, rest).astype(np.int64), nothing, nothing, 0
    )


FAMILIES = {
    "two": [(20_000, 6_000), (20_000, 14_000)],
    "one large, many small": [(60_000, 20_000), *[(1_500, 1_000)] * 12],
    "a hundred": [(800, 100 + 5 * at) for at in range(100)],
    "all used or none": [(20_000, 20_000), (15_000, 0), (15_000, 14_000)],
}


@pytest.mark.parametrize("name", list(FAMILIES))
def test_intervals_of_totals_hold_the_truth_in_95_of_100_cases(name: str) -> None:
    """2,000 fixed seeds; 94 to 96 % are two standard deviations of 0.49 %.

    Where most targets are used as a whole, or not at all, the interval is wider than it had to be.
    """
    family = FAMILIES[name]
    wanted = shares({target: pages for target, (pages, _) in enumerate(family)})
    truth = sum(used for _, used in family) * PAGE_SIZE
    resident = sum(pages for pages, _ in family) * PAGE_SIZE
    held, widths = 0, []
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        looks = {
            target: [plain(target, pages, used, wanted[target], rng)] for target, (pages, used) in enumerate(family)
        }
        together = Together(looks)
        together.first_ns = 0
        found = together.used(10)
        assert found is not None
        held += found.low_bytes <= truth <= found.high_bytes
        widths.append(found.half_width_bytes / resident)
    assert 0.94 <= held / 2000 <= (1 if name == "all used or none" else 0.962)
    assert np.mean(widths) <= 0.035


def sharing(seed: int, shared: int, alone: tuple[int, int]) -> dict[int, list[Look]]:
    """Two targets that map ``shared`` pages together, of which the first half is used by one of them, and own ones.

    Of its own pages the first target uses all, the second none.
    """
    found = {}
    for target, own in enumerate(alone):
        numbers = sampled(shared + own, 512 / (shared + own), 10 * seed + target)
        both = numbers < shared
        weight = np.where(both, 0.5, 1.0)
        used = np.where(both, numbers < shared // 2, target == 0)
        hits = (~both | (target == 1)) & used  # by this target itself: the shared half is used by the second
        idle = counted(USED, int(hits.sum()), IDLE, int((~hits).sum())).astype(np.int64)
        told = counted(USED, float(weight[used].sum()), IDLE, float(weight[~used].sum()))
        squares = float(np.square(weight).sum())
        nothing = np.zeros(len(BOUNDS_S))
        once = Once(len(numbers), float(weight.sum()), squares, told, nothing, squares)
        size, whole = (shared + own) * PAGE_SIZE, nothing.astype(np.int64)
        found[target] = [Look(100 * SECOND, target, size, idle, whole, whole, 0, once)]
    return found


def test_shared_memory_counts_once_with_an_error_that_holds() -> None:
    shared, alone = 20_000, (5_000, 15_000)
    held = {"resident": 0, "used": 0}
    for seed in range(2000):
        together = Together(sharing(seed, shared, alone))
        together.first_ns = 0
        assert together.once
        resident, used = together.resident(), together.used(10)
        assert used is not None
        held["resident"] += resident.low_bytes <= (shared + sum(alone)) * PAGE_SIZE <= resident.high_bytes
        held["used"] += used.low_bytes <= (shared // 2 + alone[0]) * PAGE_SIZE <= used.high_bytes
    assert 0.94 <= held["resident"] / 2000 <= 0.965
    assert 0.94 <= held["used"] / 2000 <= 0.965
    assert together.plain_bytes() == (2 * shared + sum(alone)) * PAGE_SIZE


def test_moments_at_which_nobody_knew_what_is_shared_are_left_out() -> None:
    looks = sharing(1, 20_000, (5_000, 15_000))
    for target, [look] in list(looks.items()):
        early = Look(look.time_ns - SECOND, target, look.resident_bytes, look.idle, look.unseen, look.ended, 0)
        looks[target] = [early, look]
    together = Together(looks)
    assert together.once
    assert together.time_ns.tolist() == [100 * SECOND]
    for mine in looks.values():
        mine[1].once = None
    assert not Together(looks).once
    assert Together(looks).resident().bytes == 60_000 * PAGE_SIZE


def test_a_window_longer_than_the_record_is_not_told() -> None:
    nothing = np.zeros(len(BOUNDS_S), np.int64)
    unseen = counted(BOUNDS_S.index(5), 500).astype(np.int64)
    looks = {
        target: [Look(at * SECOND, target, 2000 * PAGE_SIZE, nothing, unseen, nothing, 0) for at in (1, 6)]
        for target in range(2)
    }
    assert Together(looks).used(60) is None
    found = Together(looks).used(5)
    assert found is not None
    assert (found.bytes, found.low_bytes) == (0, 0)


def test_targets_of_which_no_page_was_drawn_count_as_the_others_do() -> None:
    """The chance is the same for all small ones: the pages of some stand for those of the rest."""
    nothing = np.zeros(len(BOUNDS_S), np.int64)
    idle = counted(USED, 5, IDLE, 5).astype(np.int64)
    looks = {
        target: [Look(100 * SECOND, target, 1000 * PAGE_SIZE, idle if target % 2 else nothing, nothing, nothing, 0)]
        for target in range(40)
    }
    together = Together(looks)
    together.first_ns = 0
    found = together.used(10)
    assert found is not None
    assert (found.bytes, together.resident().bytes) == (20_000 * PAGE_SIZE, 40_000 * PAGE_SIZE)
