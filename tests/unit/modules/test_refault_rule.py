"""The refaults driver: the first minimum age by what a panel saw, then the loop that goes by what really comes back."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from pydamon.errors import RequestError
from pydamon.modules.controller import (
    ColdBytes,
    Observations,
    SetMinAge,
    SetQuota,
)
from pydamon.modules.pressure import PressureController
from pydamon.modules.refaults import (
    RefaultController,
    RefaultRule,
    lowest_age_us,
    percentile_of,
    working_set_bytes,
)
from pydamon.modules.registry import parse

SECOND, MINUTE = 10**9, 60 * 10**9
GIB = 1 << 30
RULE = RefaultRule(scheme="reclaim")


def look(
    at_s: float, returned: tuple[ColdBytes, ...] = (), back_bytes: int | None = 0, working_set: int = GIB
) -> Observations:
    return Observations(
        now_ns=round(at_s * SECOND),
        resident_bytes=2 * working_set,
        cold=(ColdBytes(120_000_000, working_set),),
        returned=returned,
        back_bytes=back_bytes,
    )


def stepped(controller: RefaultController, looks: list[Observations]) -> list[int]:
    """The minimum ages that are decided, in us."""
    decisions = [decision for one in looks for decision in controller.step(one)]
    assert all(isinstance(one, SetMinAge) and one.scheme == "reclaim" for one in decisions)
    return [one.min_age_us for one in decisions if isinstance(one, SetMinAge)]


def test_the_lowest_age_is_the_first_that_keeps_the_limit() -> None:
    """Software-defined far memory: of each age what came back; 0.2 % of 1 GiB are 2.05 MiB."""
    told = [ColdBytes(1, 30 << 20), ColdBytes(60, 3 << 20), ColdBytes(100, 2 << 20), ColdBytes(120, 0)]
    assert lowest_age_us(told, GIB * 0.002) == 100
    assert lowest_age_us(told, 0) == 120
    assert lowest_age_us(told[:1], 0) is None
    assert lowest_age_us([], 1) is None


@pytest.mark.parametrize(("percent", "value"), [(98, 98), (50, 50), (100, 100), (1, 1), (0, 1)])
def test_percentiles_are_of_the_nearest_rank(percent: int, value: int) -> None:
    assert percentile_of(range(1, 101), percent) == value
    assert percentile_of([7], percent) == 7


def test_the_working_set_is_all_but_what_was_idle_for_two_minutes() -> None:
    assert working_set_bytes(look(0)) == GIB
    young = Observations(now_ns=0, resident_bytes=10, working_set_bytes=4, cold=(ColdBytes(60_000_000, 3),))
    assert working_set_bytes(young) == 4
    assert working_set_bytes(Observations(now_ns=0)) is None


def test_the_first_age_is_the_highest_of_what_the_minutes_say() -> None:
    """First minute 30 s, second 10 s: the last is lower than the 98th percentile of both, which is 30 s."""
    busy = (ColdBytes(10_000_000, 5 << 20), ColdBytes(30_000_000, 1 << 20))
    calm = (ColdBytes(10_000_000, 1 << 20), ColdBytes(30_000_000, 0))
    controller = RefaultController(RULE)
    first = [look(at) for at in range(0, 60, 10)] + [look(60, busy)]
    assert stepped(controller, first) == []
    assert controller.min_age_us == RULE.first_us
    second = [look(at) for at in range(70, 120, 10)] + [look(120, calm)]
    assert stepped(controller, second) == [30_000_000]


def test_nothing_is_taken_until_it_has_watched() -> None:
    """Memory is idle for no longer than it was watched; without a panel the age is then the one that was given."""
    controller = RefaultController(msgspec.structs.replace(RULE, first_us=30_000_000))
    looks = [look(at, back_bytes=None) for at in range(0, 150, 10)]
    assert stepped(controller, looks[:12]) == [120_000_000]
    assert stepped(controller, looks[12:]) == [30_000_000]


def test_without_a_panel_and_without_counters_nothing_is_decided() -> None:
    controller = RefaultController(RULE)
    assert stepped(controller, [look(at, back_bytes=None) for at in range(0, 600, 10)]) == []
    assert stepped(RefaultController(RULE), [Observations(now_ns=at * SECOND) for at in range(0, 600, 10)]) == []


def test_too_much_that_comes_back_raises_the_age_and_nothing_lowers_it() -> None:
    controller = RefaultController(RULE)
    stepped(controller, [look(at) for at in range(0, 150, 10)])
    before = controller.min_age_us
    raised = stepped(controller, [look(150 + at, back_bytes=at << 20) for at in range(0, 100, 10)])
    assert raised == sorted(raised)
    assert raised[-1] > before
    lowered = stepped(controller, [look(250 + at, back_bytes=90 << 20) for at in range(100, 2000, 10)])
    assert lowered == sorted(lowered, reverse=True)
    assert lowered[-1] < before


def test_the_age_falls_only_once_a_minute_was_counted() -> None:
    """What was taken just now has had no time to come back."""
    controller = RefaultController(RULE)
    ages = []
    for at in range(0, 200, 10):
        controller.step(look(at))
        ages.append(controller.min_age_us)
    assert set(ages[:18]) == {120_000_000}  # counted from the end of the watch at 120 s on
    assert ages[18] < 120_000_000
    assert ages[19] < ages[18]


def test_an_age_is_no_higher_than_what_was_watched_and_no_lower_than_the_least() -> None:
    controller = RefaultController(RULE)
    ages = stepped(controller, [look(at, back_bytes=at * GIB) for at in range(0, 300, 10)])
    assert ages[-1] == 290_000_000
    calm = RefaultController(RULE)
    stepped(calm, [look(at) for at in range(0, 20_000, 10)])
    assert calm.min_age_us == RULE.least_us


def test_one_page_is_no_alarm() -> None:
    """0.2 % of 1 GiB a minute are 524 pages; one within ten seconds are not six a minute of them all."""
    controller = RefaultController(RULE)
    stepped(controller, [look(at) for at in range(0, 130, 10)])
    before = controller.min_age_us
    stepped(controller, [look(130, back_bytes=4096)])
    assert controller.min_age_us <= before


def test_while_watermarks_keep_it_from_acting_nothing_is_learned() -> None:
    controller = RefaultController(RULE)
    stepped(controller, [look(at) for at in range(0, 200, 10)])
    before = controller.min_age_us
    resting = [msgspec.structs.replace(look(at), active=False) for at in range(200, 900, 10)]
    assert stepped(controller, resting) == []
    assert controller.min_age_us == before


def test_reclaim_has_it_as_a_driver() -> None:
    use = parse("reclaim driver=refaults refaults=0.5% min_age=30s")
    assert use.write() == "reclaim min_age=30s driver=refaults refaults=0.5%"
    assert use.words()[0].startswith("By refaults: ")
    assert " 0.5% of the working set " in use.words()[0]
    (loop,) = use.controllers("process")
    assert isinstance(loop, RefaultController)
    assert (loop.rule.scheme, loop.rule.limit_bp, loop.min_age_us) == ("reclaim", 50, 120_000_000)
    assert [scheme.name for scheme in use.schemes("process")] == ["reclaim"]
    both = parse("reclaim driver=refaults+pressure")
    assert [type(loop) for loop in both.controllers("cgroup")] == [RefaultController, PressureController]
    assert [type(loop) for loop in both.controllers("process")] == [RefaultController]
    with pytest.raises(RequestError, match=r"reclaim\.refaults: '0%'.* must be 0.01% to 100%"):
        parse("reclaim refaults=0%")
    with pytest.raises(RequestError, match="has no percent sign"):
        parse("reclaim refaults=20")


def test_the_rest_after_a_suspend_is_one_step() -> None:
    controller = RefaultController(RULE)
    stepped(controller, [look(at) for at in range(0, 200, 10)])
    before = controller.min_age_us
    stepped(controller, [look(100_000, back_bytes=1 << 20)])
    assert 0.9 * before <= controller.min_age_us <= before


def test_what_is_taken_is_bounded_by_what_may_come_back() -> None:
    """0.2 % of 1 GiB a minute of memory that at the worst comes back within its age of two minutes: twice that."""
    controller = RefaultController(RULE)
    allowed = GIB * 20 // 10_000
    watch = [msgspec.structs.replace(look(at), applied={"reclaim": 0}) for at in range(0, 120, 5)]
    assert stepped(controller, watch) == [24 * 3600 * 1_000_000]
    first, age = controller.step(msgspec.structs.replace(look(120), applied={"reclaim": 0}))
    assert first == SetQuota(scheme="reclaim", sz_bytes=2 * allowed // 60)
    assert age == SetMinAge(scheme="reclaim", min_age_us=120_000_000)
    back = msgspec.structs.replace(look(125, back_bytes=allowed), applied={"reclaim": 2 * allowed})
    (rest,) = controller.step(back)
    assert rest == SetMinAge(scheme="reclaim", min_age_us=24 * 3600 * 1_000_000)
    assert controller.min_age_us == 120_000_000


def test_the_oldest_goes_first_and_younger_while_not_enough_is_taken() -> None:
    """Half of what is cold was idle for ten minutes; the scheme takes what it is told, or nothing of it."""
    controller = RefaultController(RULE)
    cold = (ColdBytes(120_000_000, GIB), ColdBytes(600_000_000, GIB // 2))
    ages, taken = [], 0
    for at in range(0, 600, 5):
        seen = msgspec.structs.replace(look(at), cold=cold, applied={"reclaim": taken})
        for decision in controller.step(seen):
            if isinstance(decision, SetMinAge):
                ages.append(decision.min_age_us // 1_000_000)
        taken += (64 << 20) if at < 300 else 0
    assert ages[1] == 600
    lower = ages[2:]
    assert lower == sorted(lower, reverse=True)
    assert lower[-1] < 200


class Zipf:
    """Pages of which the n-th is used 1/n as often as the first, at random; those idle for the minimum age are away."""

    def __init__(self, seed: int, pages: int, uses_per_s: float, power: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.rate = 1 / np.arange(1, pages + 1) ** power
        self.rate *= uses_per_s / self.rate.sum()
        self.last, self.next = np.zeros(pages), self.rng.exponential(1 / self.rate)
        self.away = np.zeros(pages, np.bool_)
        self.panel = self.rng.random(pages) < 1024 / pages
        self.back = 0

    def second(self, now_s: int, min_age_s: float) -> np.ndarray:
        """How long the pages of the panel had been idle that were used in it."""
        self.away |= now_s - 1 - self.last > min_age_s
        used = np.flatnonzero(self.next <= now_s)
        idle = self.next[used] - self.last[used]
        self.back += int(np.count_nonzero(self.away[used] | (idle > min_age_s)))
        seen = idle[self.panel[used] & ~self.away[used]]
        self.away[used], self.last[used] = False, now_s
        self.next[used] = now_s + self.rng.exponential(1 / self.rate[used])
        return seen

    def look(self, now_s: int, idle: np.ndarray) -> Observations:
        """What is there now; ``idle``: how long the panel's pages had been that were used since the look before."""
        here = int(np.count_nonzero(~self.away)) * 4096
        cold = int(np.count_nonzero(~self.away & (now_s - self.last > 120))) * 4096
        each = here // max(int(np.count_nonzero(self.panel & ~self.away)), 1)
        returned = [
            ColdBytes(age_s * 1_000_000, int(np.count_nonzero(idle >= age_s)) * each)
            for age_s in (10, 20, 30, 60, 90, 120)
        ]
        return Observations(
            now_ns=now_s * SECOND,
            resident_bytes=here,
            cold=(ColdBytes(120_000_000, cold),),
            returned=tuple(returned),
            back_bytes=self.back * 4096,
        )


@pytest.mark.parametrize(("power", "uses_per_s"), [(0.8, 20_000), (1.0, 200_000), (1.2, 100_000)])
def test_what_comes_back_is_about_what_may(power: float, uses_per_s: float) -> None:
    """A zipf client over 10 minutes: in the mean of the last 5 within x 1.5 of the limit."""
    pages = Zipf(1, 100_000, uses_per_s, power)
    controller = RefaultController(RULE)
    idle: list[np.ndarray] = []
    at_five, share = 0, 0.0
    for now_s in range(1, 601):
        idle.append(pages.second(now_s, controller.min_age_us / 1e6))
        if now_s % 10 == 0:
            seen = pages.look(now_s, np.concatenate(idle))
            controller.step(seen)
            idle = []
            at_five = pages.back if now_s == 300 else at_five
            share = (pages.back - at_five) * 4096 / 5 / (working_set_bytes(seen) or 1) * 10_000
    assert 20 / 1.5 <= share <= 20 * 1.5
