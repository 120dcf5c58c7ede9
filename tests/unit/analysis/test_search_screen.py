"""What is foretold of policies with quotas, against pages that are really taken one by one; the frontier of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from pydamon.analysis.search import steps as stepwise
from pydamon.analysis.search.frontier import VERIFIED, Candidate, Verified, choose, frontier, nearest, to_verify
from pydamon.analysis.search.limits import Judge, parse_limit
from pydamon.analysis.search.screen import Burden, Foretold, foretell
from pydamon.analysis.search.takes import Takes
from pydamon.analysis.whatif.ages import AgesAccumulator, thresholds_s
from pydamon.analysis.whatif.answers import Answers, answers
from pydamon.core.panel import BOUNDS_S, PAGE_SIZE, Look, bins_of
from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch
from pydamon.spec.costs import Costs

SECOND_NS = 1_000_000_000
SECONDS, SPLIT = 600, 420
PAGES = np.array([400, 300, 300, 400, 600])  # in use, swept every 12 s, 45 s and 150 s, never used
SWEEPS = (1, 12, 45, 150)


def accesses() -> Iterator[NDArray[np.bool_]]:
    """Of each second, which pages are accessed."""
    groups = np.repeat(np.arange(len(PAGES)), PAGES)
    place = np.concatenate([np.arange(count) / count for count in PAGES])
    for second in range(SECONDS):
        found = np.zeros(PAGES.sum(), np.bool_)
        for group, period in enumerate(SWEEPS):
            low, high = (second + place) / period, (second + 1 + place) / period
            found |= (groups == group) & (np.floor(high) > np.floor(low))
        yield found


def looks() -> list[Look]:
    """A panel that has all of the pages, looked at each second."""
    pages = int(PAGES.sum())
    since, known = np.zeros(pages, np.int64), np.zeros(pages, np.bool_)
    empty = np.zeros(len(BOUNDS_S), np.int64)
    found = [Look(0, 0, pages * PAGE_SIZE, empty, np.bincount(bins_of(since), minlength=len(BOUNDS_S)), empty, 0)]
    for second, accessed in enumerate(accesses(), 1):
        now = second * SECOND_NS
        ended = np.bincount(bins_of(now - since[accessed & known]), minlength=len(BOUNDS_S))
        since[accessed] = now
        known |= accessed
        bins = bins_of(now - since)
        idle, unseen = (np.bincount(bins[which], minlength=len(BOUNDS_S)) for which in (known, ~known))
        found.append(Look(now, 0, pages * PAGE_SIZE, idle, unseen, ended, 0))
    return found


def pages_taken(takes: Takes, part: tuple[int, int]) -> tuple[float, float]:
    """(bytes out, the mean; bytes a minute that come back), page by page: what is idle is taken, the oldest first."""
    idle = np.zeros(PAGES.sum(), np.int64)
    out = np.zeros(PAGES.sum(), np.bool_)
    saved, back, left, began = 0, 0, 0.0, -1
    for second, accessed in enumerate(accesses(), 1):
        idle = np.where(accessed, 0, idle + 1)
        inside = part[0] < second <= part[1]
        back += int((out & accessed).sum()) * inside
        out &= ~accessed
        if int((second - 1) // takes.window_s) > began:
            began, left = int((second - 1) // takes.window_s), takes.most_bytes / PAGE_SIZE
        ready = np.flatnonzero((idle >= takes.age_s) & ~out)
        taken = ready[np.argsort(-idle[ready], kind="stable")][: int(min(left, len(ready)))]
        out[taken] = True
        left -= len(taken)
        saved += int(out.sum()) * inside
    seconds = part[1] - part[0]
    return saved * PAGE_SIZE / seconds, back * PAGE_SIZE * 60 / seconds


@pytest.fixture(scope="module", name="seen")
def seen_fixture() -> tuple[stepwise.Steps, Answers, Answers]:
    """The steps, and the what-ifs of both parts: regions as large as the patterns, with the panel's hits."""
    panel = looks()
    batch = RegionBatch.of(snapshots())
    parts: list[Answers] = []
    for start, end in ((0, SPLIT), (SPLIT, SECONDS)):
        span = start * SECOND_NS, end * SECOND_NS
        accumulator = AgesAccumulator(thresholds_s(1.0, float(end)), span, 0)
        accumulator.add(batch.select((batch.start_ns >= span[0]) & (batch.start_ns < span[1])))
        inside = [look for look in panel if span[0] <= look.time_ns <= span[1]]
        parts.append(answers(accumulator.finish(), {0: inside}))
    whole = (0, SECONDS * SECOND_NS)
    tuned, rest = parts
    return stepwise.of_panel(panel, whole, SPLIT * SECOND_NS), tuned, rest


def snapshots() -> Iterator[Snapshot]:
    """Regions of one page: exact."""
    idle = np.zeros(PAGES.sum(), np.int64)
    start = np.arange(PAGES.sum(), dtype=np.uint64) * np.uint64(PAGE_SIZE)
    for second, accessed in enumerate(accesses()):
        idle = np.where(accessed, 0, idle + 1)
        yield Snapshot(
            target=0,
            start_ns=second * SECOND_NS,
            end_ns=(second + 1) * SECOND_NS,
            sample_us=1_000_000,
            aggr_us=1_000_000,
            start=start,
            end=start + np.uint64(PAGE_SIZE),
            nr_accesses=accessed.astype(np.uint32),
            age=idle.astype(np.uint32),
        )


@pytest.mark.parametrize("age_s", [5.0, 20.0, 60.0])
@pytest.mark.parametrize(("pages", "window_s"), [(1.0, 1.0), (2.0, 1.0), (5.0, 1.0), (20.0, 1.0), (100.0, 20.0)])
def test_a_quota_bounds_what_is_out_as_with_single_pages(
    seen: tuple[stepwise.Steps, Answers, Answers], age_s: float, pages: float, window_s: float
) -> None:
    """The share of what no quota does: while all is of one age, at the beginning, within a sixth; then within 0.07.

    (What a bin of idle times holds is alike, and so is what a quota takes of it.)
    """
    takes, free = Takes(age_s, pages * PAGE_SIZE, window_s), Takes(age_s, np.inf, 1.0)
    limited, unlimited = foretell(*seen, [takes, free])
    for part, mine, usual, error in (
        ((int(age_s), SPLIT), limited.tuned, unlimited.tuned, 0.17),
        ((SPLIT, SECONDS), limited.rest, unlimited.rest, 0.07),
    ):
        (saved, back), (most, most_back) = pages_taken(takes, part), pages_taken(free, part)
        assert mine.saved / usual.saved == pytest.approx(saved / most, abs=error)
        assert mine.back / usual.back == pytest.approx(back / most_back, abs=0.14)


def test_more_of_a_quota_saves_more_up_to_none_at_all(seen: tuple[stepwise.Steps, Answers, Answers]) -> None:
    _, tuned, _ = seen
    quotas = [PAGE_SIZE * 2.0**power for power in range(-2, 12)]
    found = foretell(*seen, [*(Takes(10.0, one, 1.0) for one in quotas), Takes(10.0, np.inf, 1.0)])
    for less, more in itertools.pairwise(found):
        assert less.tuned.saved <= more.tuned.saved * (1 + 1e-9)
        assert less.tuned.back <= more.tuned.back * (1 + 1e-9)
    row = next(row for row in tuned.rows if row.age_s == 10.0)
    assert (found[-1].tuned.saved, found[-1].tuned.back) == (row.saved, row.refaults)
    assert found[-2].tuned.saved == pytest.approx(row.saved, rel=1e-6)


def test_regions_alone_give_steps_that_add_up(seen: tuple[stepwise.Steps, Answers, Answers]) -> None:
    """Regions of one page each are as good as a panel of all pages: the same idle bytes in each step."""
    panel = seen[0]
    whole = (0, SECONDS * SECOND_NS)
    batch = RegionBatch.of(snapshots())
    bounds = np.array(BOUNDS_S[1:], np.float64)
    found = stepwise.of_regions([batch], bounds, whole, SPLIT * SECOND_NS, SECONDS)
    assert len(found.ends_s) == SECONDS
    assert found.tuned == pytest.approx(panel.tuned, abs=1)
    old = slice(10, None)  # a region is as old as its snapshots, a page as its last access
    assert found.idle[-1, old].sum() == pytest.approx(panel.idle[-1, 1:][old].sum(), rel=0.05)
    assert found.ended[:, old].sum() == pytest.approx(panel.ended[:, 1:][:, old].sum(), rel=0.1)


@pytest.mark.parametrize("left", [60, 100])
def test_pages_that_leave_the_panel_have_not_come_back(left: int) -> None:
    """Fewer pages that were never seen used are returns only where there are not fewer in all."""
    none, first = np.zeros(len(BOUNDS_S), np.int64), np.eye(1, len(BOUNDS_S), dtype=np.int64)[0]
    before = Look(1 * SECOND_NS, 0, 100 * PAGE_SIZE, none, 100 * first, none, 0)
    after = Look(2 * SECOND_NS, 0, left * PAGE_SIZE, (left - 60) * first, 60 * first, none, 0)
    found = stepwise.of_panel([before, after], (0, 2 * SECOND_NS), SECOND_NS)
    assert found.ended.sum() == (40 * PAGE_SIZE if left == 100 else 0)


def candidate(saved: float, back: float, name: str = "") -> Candidate:
    """One of which the same is foretold in both parts; MiB, and MiB a minute."""
    burden = Burden(saved * 2**20, back * 2**20, back * 2**20)
    return Candidate(name or f"{saved}", (round(saved * 10), round(back * 10)), 10.0, Foretold(burden, burden))


JUDGE = Judge((parse_limit("refaults=1MiB/s"),), Costs(), 2.0**30)  # 60 MiB a minute


def played(one: Candidate, times: float = 1.0) -> Verified:
    """It costs so many times what was foretold."""
    told = one.foretold.tuned
    did = Burden(told.saved, told.back * times, told.out * times)
    return Verified(one, did, did)


def test_nothing_on_a_frontier_saves_less_for_more() -> None:
    rng = np.random.default_rng(1)
    some = [candidate(*rng.uniform(1, 100, 2).tolist()) for _ in range(200)]
    front = frontier(some, JUDGE)
    for low, high in itertools.pairwise(front):
        assert low.foretold.tuned.saved < high.foretold.tuned.saved
        assert low.foretold.tuned.back < high.foretold.tuned.back
    for one in some:
        as_cheap = [other for other in front if other.foretold.tuned.back <= one.foretold.tuned.back]
        assert max(other.foretold.tuned.saved for other in as_cheap) * 1.001 >= one.foretold.tuned.saved


def test_those_around_the_limit_are_played_and_then_those_between() -> None:
    """What is foretold is too low by half: the first that keeps within costs half of the limit as foretold."""
    front = [candidate(100.0 + back, float(back)) for back in range(5, 120, 5)]
    first = to_verify(front, JUDGE)
    assert 3 <= len(first) <= VERIFIED
    backs = [one.foretold.tuned.back / 2**20 for one in first]
    assert 60.0 in backs
    assert min(backs) < 30 < max(backs)
    done = [played(one, 2.0) for one in first]
    best = choose(done, JUDGE)
    assert best is not None
    more = to_verify(front, JUDGE, done)
    assert more
    for one in more:
        assert best.candidate.foretold.tuned.back < one.foretold.tuned.back < 60 * 2**20
    best = choose([*done, *(played(one, 2.0) for one in more)], JUDGE)
    assert best is not None
    assert best.candidate.foretold.tuned.back / 2**20 == pytest.approx(30, abs=5)


def test_where_the_most_that_can_be_saved_is_within_nothing_more_is_played() -> None:
    front = [candidate(100.0 + 20 * back, float(back)) for back in (1, 2, 3)]
    done = [played(one) for one in to_verify(front, JUDGE)]
    assert to_verify(front, JUDGE, done) == []


def test_a_limit_that_nothing_reaches_has_a_nearest() -> None:
    front = [candidate(100.0 + back, float(back)) for back in (100, 200, 300)]
    done = [played(one) for one in to_verify(front, JUDGE)]
    assert choose(done, JUDGE) is None
    assert nearest(done, JUDGE).candidate is front[0]
