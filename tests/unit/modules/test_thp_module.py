"""`thp`: what its knobs make, how its threshold falls, and what it says of machines that lack something."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pydamon.errors import RequestError
from pydamon.library.build import make_spec
from pydamon.linux import thp as huge_pages
from pydamon.modules.base import Facts
from pydamon.modules.controller import Observations, SetMinRate
from pydamon.modules.registry import expand, fitted, parse
from pydamon.modules.threshold import ThresholdController, ThresholdRule, lowered
from pydamon.spec.forms.scheme_short import write_short

SECOND = 1_000_000_000


def test_the_hot_half_is_collapsed_and_the_cold_one_goes_back() -> None:
    hot, back = parse("thp").schemes("process")
    assert write_short(hot) == (
        "collapse size>=2M rate>=100% quota=10ms/1s weights=0:1:1 bloat=5% watermarks=free:100%:100%:5%/5s "
        "filter=reject:!anon name=thp"
    )
    assert (hot.quotas.bloat_bp, [one.filter_type for one in hot.filters]) == (500, ["anon"])
    assert (back.action, back.name, back.filters[0].filter_type) == ("pageout", "thp-back", "hugepage_size")


def test_what_is_off_is_not_there() -> None:
    (hot,) = parse("thp cold_min_age=off max_bloat=off hot_freq=25% huge=40%").schemes("cgroup")
    assert hot.quotas.bloat_bp == 0
    assert str(hot.access_pattern.nr_accesses.min) == "25 %"
    assert [(goal.metric, goal.target_value) for goal in hot.quotas.goals] == [("hugepage_mem_bp", 4_000)]
    assert parse("thp hot_freq=25%").controllers("process") == ()


@pytest.mark.parametrize("frequency", ["auto", "0.1%", "25%", "100%"])
def test_the_lowest_rate_is_written_as_it_was_said(frequency: str) -> None:
    assert f" hot_freq={frequency} " in parse(f"thp hot_freq={frequency}").write(all_knobs=True)


def test_physical_memory_has_no_huge_pages_to_make() -> None:
    with pytest.raises(RequestError, match="the target must be processes or a cgroup"):
        parse("thp").schemes("physical")


@pytest.mark.parametrize(
    ("samples", "after"), [(90, 80), (60, 50), (50, 45), (20, 15), (15, 14), (3, 2), (2, 1), (1, 1)]
)
def test_the_steps_are_those_of_the_kernels_draft(samples: int, after: int) -> None:
    assert lowered(samples) == after


def seen(now_s: int, *, reach: int = 20, hottest: int = 20, applied: int = 0, active: bool = True) -> Observations:
    return Observations(
        now_ns=now_s * SECOND,
        snapshot_ns=now_s * SECOND - 1,
        max_nr_accesses=reach,
        hottest_nr_accesses=hottest,
        applied={"thp": applied},
        active=active,
    )


def test_the_threshold_falls_from_what_can_be_reached_while_nothing_is_found() -> None:
    loop = ThresholdController(ThresholdRule(scheme="thp"))
    assert loop.step(Observations(now_ns=SECOND)) == ()  # nothing is known
    assert loop.step(seen(5)) == (SetMinRate(scheme="thp", samples=15),)
    assert loop.step(seen(10)) == (SetMinRate(scheme="thp", samples=14),)
    assert loop.step(seen(15, applied=1 << 21)) == ()
    assert loop.step(seen(20, applied=1 << 21)) == (SetMinRate(scheme="thp", samples=13),)
    assert loop.step(seen(25, applied=1 << 21, active=False)) == ()  # watermarks: that nothing is found says nothing
    for second in range(30, 150, 5):
        loop.step(seen(second, applied=1 << 21))
    assert loop.samples == 1


def test_what_no_region_reaches_is_passed_over() -> None:
    loop = ThresholdController(ThresholdRule(scheme="thp"))
    assert loop.step(seen(5, hottest=0)) == (SetMinRate(scheme="thp", samples=20),)  # nothing is used, or not known yet
    assert loop.step(seen(10, hottest=4)) == (SetMinRate(scheme="thp", samples=4),)


def test_the_threshold_waits_for_an_aggregation() -> None:
    loop = ThresholdController(ThresholdRule(scheme="thp"))
    loop.step(seen(5))
    same = Observations(now_ns=10 * SECOND, snapshot_ns=5 * SECOND - 1, max_nr_accesses=20)
    assert loop.step(same) == ()


def test_the_kernels_engine_gets_what_its_kernel_can_do() -> None:
    spec = make_spec(1, modules=["thp"])
    older = expand(fitted(spec, Facts(engine="kernel", kernel=(6, 12)))).context.schemes
    assert [(scheme.action, scheme.quotas.bloat_bp) for scheme in older] == [("hugepage", 0), ("nohugepage", 0)]
    newer = expand(fitted(spec, Facts(engine="kernel", kernel=(7, 2)))).context.schemes
    assert [(scheme.action, scheme.quotas.bloat_bp) for scheme in newer] == [("collapse", 0), ("pageout", 0)]
    assert fitted(spec, Facts(engine="user", kernel=(6, 12))) == spec


@pytest.mark.parametrize(
    ("text", "facts", "words"),
    [
        ("thp", Facts(swap_bytes=0, huge_pages="madvise"), ["cold_min_age=off leaves them"]),
        ("thp cold_min_age=off", Facts(swap_bytes=0, huge_pages="madvise"), []),
        ("thp", Facts(swap_bytes=1, huge_pages="absent"), ["no transparent huge pages"]),
        ("thp", Facts(swap_bytes=1, huge_pages="always"), ["for commands that it starts"]),
        ("thp", Facts(swap_bytes=1, huge_pages="always", launches=True), ["needs Linux 6.18"]),
        ("thp", Facts(swap_bytes=1, huge_pages="always", launches=True, only_advised=True), ["by this module alone"]),
        ("thp how=advise", Facts(swap_bytes=1, huge_pages="madvise"), ["how=collapse can be done"]),
        ("thp", Facts(engine="kernel", kernel=(6, 12), huge_pages="madvise"), ["engine user alone", "Linux 7.2"]),
        ("thp", Facts(engine="sim"), []),
    ],
)
def test_what_it_cannot_do_is_said(text: str, facts: Facts, words: list[str]) -> None:
    lines = parse(text).cannot(facts)
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert word in line


@pytest.mark.parametrize("text", ["thp hot_freq=0%", "thp hot_freq=101%", "thp max_bloat=101%", "thp how=khugepaged"])
def test_wrong_knobs_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse(text)


@pytest.mark.usefixtures("processes")
def test_a_command_gets_no_huge_pages_unasked_and_we_are_as_before() -> None:
    """PR_GET_THP_DISABLE tells 3 for "except where it was advised"; it is handed on to what is started meanwhile."""
    with huge_pages.only_advised() as able:
        within = told_by_a_child()
    assert within == ("3" if able else "0")
    assert told_by_a_child() == "0"
    assert huge_pages.can_be_only_advised() is able


def told_by_a_child() -> str:
    asked = "import ctypes; print(ctypes.CDLL(None).prctl(42, 0, 0, 0, 0))"
    return subprocess.run([sys.executable, "-c", asked], check=True, capture_output=True, text=True).stdout.strip()
