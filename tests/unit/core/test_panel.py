"""The page panel: who is drawn, what is known of each page, and that the intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.analysis.panel import Estimate, idle_for, share_interval, touched, used_within
from pydamon.analysis.panels import each_used
from pydamon.analysis.together import Together
from pydamon.core.panel import BOUNDS_S, PAGE_SIZE, Look, TargetPanel, at_least, drawn, hashes, shares

SECOND = 1_000_000_000
BASE = 0x7000_0000_0000


def runs(*spans: tuple[int, int]) -> np.ndarray:
    return np.array(spans, np.uint64).reshape(-1, 2) * np.uint64(PAGE_SIZE) + np.uint64(BASE)


def test_the_hash_is_splitmix64s() -> None:
    # The first outputs of SplitMix64 with the seed 1234567 (Java's SplittableRandom; Rosetta Code "Pseudo-random
    # numbers/Splitmix64"): the state grows by the golden ratio, and the finalizer is applied to it.
    state = np.array([1234567 + n * 0x9E3779B97F4A7C15 & (2**64 - 1) for n in range(5)], np.uint64)
    assert hashes(state, 1).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip


def test_pages_are_drawn_each_with_the_same_chance() -> None:
    found = drawn(runs((0, 30_000), (50_000, 50_001), (60_000, 130_000)), 0.01, seed=3)
    # 100,001 pages at 1 %: 1,000 with a standard deviation of 31.5; five of them
    assert 842 < len(found) < 1158
    pages = (found - np.uint64(BASE)) // np.uint64(PAGE_SIZE)
    assert (np.diff(pages.astype(np.int64)) > 0).all()
    assert not ((pages >= 30_000) & (pages < 60_000) & (pages != 50_000)).any()
    # a third of the pages is in the first run; 5 standard deviations of 300 of 1,000
    assert abs(np.count_nonzero(pages < 30_000) - 0.3 * len(found)) < 75


def test_a_lower_chance_draws_a_subset() -> None:
    area = runs((0, 50_000))
    assert set(drawn(area, 0.005, 7).tolist()) < set(drawn(area, 0.02, 7).tolist())
    assert len(drawn(area, 1.0, 7)) == 50_000
    assert len(drawn(area, 0.0, 7)) == 0


def test_targets_share_the_panel_by_their_sizes() -> None:
    assert shares({0: 1_000_000}) == {0: 1024}
    found = shares({0: 900_000, 1: 100_000, 2: 10, 3: 0})
    assert found[2] == 10
    assert 3 not in found
    assert found[1] >= 64
    assert found[0] > 5 * found[1]
    assert sum(found.values()) <= 1024
    assert found[0] + found[1] + found[2] > 1000


def test_many_targets_have_a_least_number_of_pages_whatever_that_makes_together() -> None:
    found = at_least({0: 1_000_000, **dict.fromkeys(range(1, 201), 700), 201: 5, 202: 0}, 4096, 32)
    # 1,000,000 of 1,140,005 pages, which counts as 1,179,648 (4 leading bits)
    assert found[0] == pytest.approx(4096 * 1_000_000 / 1_179_648)
    assert {found[target] for target in range(1, 201)} == {32}
    assert found[201] == 5
    assert 202 not in found
    assert at_least({}, 4096, 32) == {}


def test_the_numbers_of_pages_stay_while_little_changes() -> None:
    before, after = (at_least({0: 1_000_000, 1: more}, 4096, 32) for more in (100_000, 110_000))
    assert before[0] == after[0]


def test_many_looks_at_once_say_the_same_as_each_by_itself() -> None:
    rng = np.random.default_rng(4)
    looks = []
    for target in range(200):
        idle, unseen = (rng.integers(0, 20, len(BOUNDS_S)) * (rng.random(len(BOUNDS_S)) < 0.3) for _ in range(2))
        unseen[:15] *= target % 2
        resident = int(rng.choice([idle.sum() + unseen.sum(), 10_000])) * PAGE_SIZE
        looks.append(Look(SECOND, target, max(resident, PAGE_SIZE), idle, unseen, np.zeros_like(idle), 0))
    nothing = np.zeros(len(BOUNDS_S), np.int64)
    looks.append(Look(SECOND, 200, PAGE_SIZE, nothing, nothing, nothing, 3))
    told = 0
    for window_s in (1, 10, 60):
        for look, found in zip(looks, each_used(looks, window_s).tolist(), strict=True):
            alone = used_within([look], window_s)
            if alone is None:
                assert found[2] == -1
                assert (found[0] == -1) == (look.pages == 0)
            else:
                told += 1
                assert found == [alone.bytes, alone.low_bytes, alone.high_bytes]
    assert told > 100
    assert each_used([], 10).shape == (0, 3)


def test_the_total_does_not_pay_for_what_small_targets_have_at_least() -> None:
    """800 of 1,024 pages are drawn from all with one chance; the rest makes up for 64 of the largest."""
    one_large = shares({0: 1_000_000, **dict.fromkeys(range(1, 16), 1000)})
    assert one_large[0] > 0.97 * 800
    assert sorted(one_large.values())[-4:-1] == pytest.approx([64] * 3, abs=0.1)
    assert sum(one_large.values()) == pytest.approx(1024)
    many = shares(dict.fromkeys(range(500), 10_000))
    assert list(many.values()) == pytest.approx([64] * 3 + [1.7] * 497, abs=0.1)
    assert sum(many.values()) <= 1024


def test_the_same_pages_stay_while_memory_comes_and_goes() -> None:
    panel = TargetPanel(0, seed=1)
    panel.follow(runs((0, 4000)), 500, 0)
    before = set(panel.address.tolist())
    assert 400 < len(panel) < 600
    panel.follow(runs((0, 3000), (6000, 7100)), 500, SECOND, faulted=runs((6000, 7100)))
    now = dict(zip(panel.address.tolist(), panel.known.tolist(), strict=True))
    end = BASE + 3000 * PAGE_SIZE
    assert {address for address in before if address < end} == {address for address in now if address < end}
    # what was faulted in is known to have been accessed; of the others nothing is known yet
    assert all(known == (address >= end) for address, known in now.items())
    panel.follow(runs(), 500, 2 * SECOND)
    assert len(panel) == 0


def test_twice_as_much_memory_does_not_make_twice_the_panel() -> None:
    panel = TargetPanel(0, seed=1)
    for pages in (4000, 8000, 64_000, 1000):
        panel.follow(runs((0, pages)), 500, 0)
        assert 300 < len(panel) < 800


def test_idle_times_are_known_from_the_first_access_on() -> None:
    panel = TargetPanel(4, seed=1)
    panel.follow(runs((0, 3)), 3, 0)
    assert len(panel) == 3
    nothing = np.zeros(3, np.bool_)
    for second in range(1, 8):
        accessed = np.array([second == 2, second in (3, 7), False])
        panel.observe(accessed, nothing, second * SECOND)
    look = panel.look(3 * PAGE_SIZE, 8 * SECOND)
    assert (look.target, look.pages, look.unknown) == (4, 3, 0)
    assert {BOUNDS_S[place]: count for place, count in enumerate(look.idle.tolist()) if count} == {1: 1, 6: 1}
    assert {BOUNDS_S[place]: count for place, count in enumerate(look.unseen.tolist()) if count} == {8: 1}
    # from second 3 to second 7; when those before began is not known
    assert {BOUNDS_S[place]: count for place, count in enumerate(look.ended.tolist()) if count} == {4: 1}
    assert not panel.look(3 * PAGE_SIZE, 9 * SECOND).ended.any()


def test_accesses_are_told_by_how_long_their_regions_were_idle() -> None:
    """Of 8 pages, the first four in regions that are not idle, two each in such that were for 3 s and for 70 s."""
    idle_ns = np.repeat(np.array([-1, 3 * SECOND, 70 * SECOND]), [4, 2, 2])
    panel = TargetPanel(0, seed=1, idle_of_regions=lambda at: idle_ns[(at - np.uint64(BASE)) // np.uint64(PAGE_SIZE)])
    panel.follow(runs((0, 8)), 8, 0)
    nobody = np.zeros(8, np.bool_)
    panel.observe(nobody, nobody, 0)  # of what was accessed before it, nobody knows how long its region was idle
    panel.observe(~nobody, nobody, SECOND)
    panel.observe(np.arange(8) == 7, nobody, 2 * SECOND)
    panel.observe(nobody, nobody, 3 * SECOND)
    woken = panel.look(8 * PAGE_SIZE, 3 * SECOND).woken
    assert woken is not None
    assert {BOUNDS_S[place]: count for place, count in enumerate(woken.tolist()) if count} == {3: 2, 60: 3}
    again = panel.look(8 * PAGE_SIZE, 4 * SECOND).woken
    assert again is not None
    assert not again.any()  # told once
    assert TargetPanel(0, seed=1).look(0, 0).woken is None


def test_a_page_that_could_not_be_asked_is_neither_used_nor_idle() -> None:
    panel = TargetPanel(0, seed=1)
    panel.follow(runs((0, 2)), 2, 0)
    panel.observe(np.array([True, False]), np.array([False, True]), SECOND)
    look = panel.look(2 * PAGE_SIZE, SECOND)
    assert (look.pages, look.unknown) == (1, 1)


def test_a_window_longer_than_the_record_is_not_told() -> None:
    panel = TargetPanel(0, seed=1)
    panel.follow(runs((0, 1000)), 1000, 0)
    panel.observe(np.arange(1000) < 100, np.zeros(1000, np.bool_), SECOND)
    look = panel.look(1000 * PAGE_SIZE, 20 * SECOND)
    assert used_within([look], 60) is None
    exact = 100 * PAGE_SIZE
    assert used_within([look], 20) == Estimate(exact, exact, exact)  # the panel has all pages
    assert idle_for([look], 10) == Estimate(1000 * PAGE_SIZE, 1000 * PAGE_SIZE, 1000 * PAGE_SIZE)


def partly_asked(target: int, second: int, unknown: int) -> Look:
    """Of 100 pages 80 are used all the time; ``unknown`` of them had no answer."""
    idle, unseen, ended = np.zeros((3, len(BOUNDS_S)), np.int64)
    idle[0], unseen[BOUNDS_S.index(60)] = 80 - unknown, 20
    return Look(second * SECOND, target, 100 * PAGE_SIZE, idle, unseen, ended, unknown)


def test_looks_that_lack_the_answers_others_have_do_not_count() -> None:
    """What has no answer is no random part of the pages: here those that others map, which are all used."""
    looks = [partly_asked(0, 100, 2), partly_asked(0, 101, 70), partly_asked(0, 102, 70)]
    exact = 78 / 98 * 100 * PAGE_SIZE
    found, ever = used_within(looks, 1), touched(looks)
    assert found is not None
    assert ever is not None
    assert abs(found.bytes - exact) < PAGE_SIZE
    assert abs(ever.bytes - exact) < PAGE_SIZE
    worst = [partly_asked(0, at, 70) for at in (100, 101)]
    assert used_within(worst, 1) is not None  # where none is better they are what there is
    both = Together({target: [partly_asked(target, at, 70 * (at > 100)) for at in (100, 101)] for target in (0, 1)})
    both.first_ns = 0
    total, total_ever = both.used(1), both.touched()
    assert total is not None
    assert total_ever is not None
    assert total.bytes == total_ever.bytes == 160 * PAGE_SIZE


@pytest.mark.parametrize(("share", "wanted"), [(0.02, 1024), (0.1, 1024), (0.5, 1024), (0.3, 128), (0.5, 900)])
def test_intervals_hold_the_truth_in_95_of_100_cases(share: float, wanted: int) -> None:
    """2,000 fixed seeds: the number of misses is binomial; 94 to 96 % are two standard deviations of 0.49 %.

    The pattern is contiguous, as real ones are, which the hash does not know.
    """
    pages = 3000 if wanted == 900 else 20_000
    used = round(share * pages)
    held, widths = 0, []
    for seed in range(2000):
        asked = (drawn(runs((0, pages)), wanted / pages, seed) - np.uint64(BASE)) // np.uint64(PAGE_SIZE)
        low, high = share_interval(float(np.count_nonzero(asked < used)), len(asked), pages)
        held += low <= share <= high
        widths.append(high - low)
    assert 0.94 <= held / 2000 <= 0.965
    if (share, wanted) == (0.5, 1024):  # 2 × 1.96 × sqrt(0.25 / 1,024 × (1 − 1,024 / 20,000))
        assert np.mean(widths) == pytest.approx(0.0597, rel=0.03)


def test_the_error_shrinks_as_one_over_the_square_root() -> None:
    pages, used = 60_000, 18_000
    errors = []
    for wanted in (128, 512, 2048):
        found = []
        for seed in range(300):
            asked = (drawn(runs((0, pages)), wanted / pages, seed) - np.uint64(BASE)) // np.uint64(PAGE_SIZE)
            found.append(np.count_nonzero(asked < used) / len(asked) - used / pages)
        errors.append(float(np.sqrt(np.mean(np.square(found)))))
    # each a half of the one before; a root mean square of 300 has a standard error of 4 %
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.2)


def test_a_look_that_came_too_early_for_a_window_is_no_measure_of_the_others() -> None:
    """It had all answers, but of 100 pages it does not know yet how long 20 have been idle."""
    early = partly_asked(0, 100, 0)
    early.unseen[0], early.unseen[BOUNDS_S.index(60)] = 20, 0
    later = [partly_asked(0, at, 40) for at in (101, 102)]
    assert used_within([early, *later], 1) is not None
    sum_of_both = Together({target: [early if target == 0 else partly_asked(1, 100, 0), *later] for target in (0, 1)})
    sum_of_both.first_ns = 100 * SECOND
    assert sum_of_both.used(2) is not None
