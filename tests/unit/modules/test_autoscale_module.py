"""`autoscale`: how much it takes, what of, when it compacts, and what it says of machines that lack something."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pydamon.errors import RequestError
from pydamon.linux.frames import Flags, Frames
from pydamon.linux.pagemap_scan import FILE, PRESENT
from pydamon.modules.autoscale import NAME, AutoscaleController
from pydamon.modules.base import Facts, Target
from pydamon.modules.controller import (
    ColdBytes,
    Compact,
    Decision,
    Observations,
    Pressure,
    ReclaimBytes,
    SetMinAge,
    SetQuota,
)
from pydamon.modules.demand import Demand
from pydamon.modules.registry import parse
from pydamon.ops.actions.filters import PageFilters
from pydamon.ops.actions.pages import Pages
from pydamon.ops.actions.physical import effective_filters
from pydamon.ops.base import Addresses

MIB = 1 << 20
SECOND = 1_000_000_000
CALM = Pressure(total_us=0)


def loop(text: str = NAME) -> AutoscaleController:
    (found,) = parse(text).controllers("physical")
    assert isinstance(found, AutoscaleController)
    return found


def seen(now_s: int = 0, *, used: int = 1000, resident: int = 900, cold: int = 500, **more: Any) -> Observations:
    """A machine, in MiB: what is used, and of what can be watched what is resident and cold."""
    values: dict[str, Any] = {"memory": CALM, "free_bytes": 0, "whole_free_bytes": 0}
    return Observations(
        now_ns=now_s * SECOND,
        current_bytes=used * MIB,
        resident_bytes=resident * MIB,
        cold=(ColdBytes(30_000_000, cold * MIB),),
        **values | more,
    )


def reclaimed(decisions: tuple[Decision, ...]) -> tuple[int, int | None] | None:
    """MiB that are asked for, and the swappiness."""
    found = [one for one in decisions if isinstance(one, ReclaimBytes)]
    return (found[0].bytes // MIB, found[0].swappiness) if found else None


def test_files_go_first_and_what_is_wanted_stays() -> None:
    """Wanted are 400 MiB and a tenth, so 460 are too much; the kernel is asked for a tenth of what is used."""
    decisions = loop().step(seen())
    assert decisions[0] == SetQuota(scheme=NAME, sz_bytes=460 * MIB)
    assert reclaimed(decisions) == (100, 0)


def test_when_files_bring_too_little_the_kernel_picks_once() -> None:
    one = loop()
    one.step(seen())
    assert reclaimed(one.step(seen(5, done_bytes=10 * MIB))) == (100, None)
    assert reclaimed(one.step(seen(10, done_bytes=110 * MIB))) == (100, 0)
    assert reclaimed(one.step(seen(15, done_bytes=210 * MIB))) == (100, 0)  # files have brought it
    full = {"swap_total_bytes": 100, "swap_free_bytes": 10}
    assert reclaimed(one.step(seen(20, done_bytes=210 * MIB, **full))) == (100, 0)  # no room for others


def test_nothing_is_taken_while_tasks_wait_or_nothing_is_known() -> None:
    waiting = seen(memory=Pressure(total_us=1, avg10_percent=0.1))
    assert loop().step(waiting) == ()
    over = seen(memory=Pressure(total_us=1, avg10_percent=0.05, avg60_percent=5.0))
    assert reclaimed(loop().step(over)) == (100, 0)  # that was when all was used again
    assert loop().step(seen(memory=None)) == ()
    assert loop().step(Observations(now_ns=0, memory=CALM, current_bytes=MIB)) == ()


def test_no_whole_blocks_are_old_enough_under_pressure_and_afterwards_they_are_again() -> None:
    """A quota of a page would have them looked at for nothing, and would say that they are slow."""
    one = loop()
    assert SetMinAge(scheme=NAME, min_age_us=30_000_000) in one.step(seen())
    (closed,) = one.step(seen(5, memory=Pressure(total_us=1, avg10_percent=5.0)))
    assert isinstance(closed, SetMinAge)
    assert closed.min_age_us > 10**12
    assert one.step(seen(10, memory=Pressure(total_us=1, avg10_percent=5.0))) == ()
    assert one.step(seen(15))[:2] == (
        SetQuota(scheme=NAME, sz_bytes=460 * MIB),
        SetMinAge(scheme=NAME, min_age_us=30_000_000),
    )


def test_until_memory_can_be_known_to_be_idle_nothing_is_taken_and_that_is_no_demand() -> None:
    one = loop()
    for second in range(10, 40, 10):
        assert one.step(seen(second, cold=0, snapshot_ns=second * SECOND)) == ()
    assert reclaimed(one.step(seen(40, snapshot_ns=40 * SECOND))) == (100, 0)  # at once
    numbered = loop("autoscale target=980MiB")
    assert reclaimed(numbered.step(seen(10, cold=0, snapshot_ns=10 * SECOND))) == (20, 0)  # no demand is asked for


def test_what_was_taken_since_the_last_snapshot_is_not_taken_again() -> None:
    """460 MiB are too much; memory is seen to be gone with the next snapshot."""
    one = loop()
    at = 100 * SECOND
    one.step(seen(100, cold=0, snapshot_ns=at - 60 * SECOND))
    one.step(seen(105, snapshot_ns=at))
    assert reclaimed(one.step(seen(110, snapshot_ns=at, done_bytes=200 * MIB, applied={NAME: 210 * MIB}))) == (50, 0)
    assert reclaimed(one.step(seen(115, snapshot_ns=at, done_bytes=250 * MIB, applied={NAME: 210 * MIB}))) is None
    gone = seen(120, resident=440, cold=40, snapshot_ns=at + SECOND, done_bytes=250 * MIB, applied={NAME: 210 * MIB})
    assert reclaimed(one.step(gone)) is None


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("autoscale target=980MiB", 20),
        ("autoscale target=2GiB", None),
        ("autoscale min=990MiB", 10),
        ("autoscale target=2GiB max=970MiB", 30),
        ("autoscale target=100MiB min=1GiB", None),
    ],
)
def test_targets_and_bounds(text: str, mib: int | None) -> None:
    found = reclaimed(loop(text).step(seen()))
    assert (None if found is None else found[0]) == mib


def test_the_target_is_a_goal_that_can_be_changed() -> None:
    one = loop()
    one.set_goal("target", 990 * MIB)
    assert reclaimed(one.step(seen())) == (10, 0)
    one.set_goal("target", 0)
    assert reclaimed(one.step(seen(5, done_bytes=10 * MIB))) == (100, 0)


def test_what_is_free_in_pieces_is_compacted_and_less_often_when_that_brings_nothing() -> None:
    one = loop("autoscale target=2GiB")
    compacted = []
    for second in range(0, 200, 5):
        decisions = one.step(seen(second, free_bytes=200 * MIB, whole_free_bytes=100 * MIB))
        compacted += [second for found in decisions if isinstance(found, Compact)]
    assert compacted[0] == 0
    gaps = [later - sooner for sooner, later in itertools.pairwise(compacted)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > 2 * gaps[0]
    assert loop("autoscale target=2GiB").step(seen(free_bytes=200 * MIB, whole_free_bytes=195 * MIB)) == ()
    off = loop("autoscale target=2GiB compact=off")
    assert off.step(seen(free_bytes=200 * MIB, whole_free_bytes=0)) == ()


def test_while_more_is_taken_compaction_waits_twenty_seconds() -> None:
    one = loop()
    compacted = []
    for second in range(0, 200, 5):
        decisions = one.step(seen(second, free_bytes=200 * MIB, whole_free_bytes=100 * MIB))
        assert reclaimed(decisions) is not None
        compacted += [second for found in decisions if isinstance(found, Compact)]
    assert compacted[0] == 20
    assert min(later - sooner for sooner, later in itertools.pairwise(compacted)) >= 20


def test_demand_follows_at_once_upwards_and_slowly_down() -> None:
    demand = Demand()
    assert demand.note(0, 100) == 100
    assert demand.note(SECOND, 200) == 200
    sixty = demand.note(61 * SECOND, 0)
    assert 0 < sixty < 45  # about 1/e of the slow average, which had hardly risen
    assert demand.note(600 * SECOND, 0) == 0


def test_the_scheme_takes_whole_blocks_and_is_closed_at_first() -> None:
    (scheme,) = parse(NAME).schemes("physical")
    assert (scheme.action, scheme.access_pattern.sz_bytes.min, scheme.quotas.sz_bytes) == ("pageout", 2 * MIB, 4096)
    assert effective_filters(scheme)[0] == scheme.filters  # pageout adds none of its own for young pages
    assert parse("autoscale files=only").schemes("physical")[0].needs_swap is False
    targets: tuple[Target, ...] = ("process", "cgroup")
    for target in targets:
        with pytest.raises(RequestError, match="the target is physical memory"):
            parse(NAME).schemes(target)


class NeverAsked:
    """Nobody is to ask it whether pages are young; those that were never asked about would all be."""

    def young(self, addresses: Addresses, heads: Frames) -> Flags:
        raise AssertionError("was asked")

    def make_old(self, addresses: Addresses, heads: Frames) -> None:
        raise AssertionError("was told")


@pytest.mark.parametrize(("files", "passed"), [("first", [True, True]), ("only", [False, True])])
def test_of_a_whole_block_no_page_is_asked_about(files: str, passed: list[bool]) -> None:
    (scheme,) = parse(f"autoscale files={files}").schemes("physical")
    filters, default = effective_filters(scheme)
    kind = np.array([PRESENT, PRESENT | FILE], np.uint8)  # an anonymous page, and one of a file
    at = np.arange(1, 3, dtype=np.uint64)
    pages = Pages(at << np.uint64(12), np.zeros(2, np.intp), np.zeros(2, np.intp), kind, at)
    found = PageFilters().decide(pages, filters, NeverAsked(), table=None, default=default, known_flags=(at, at))
    assert found.tolist() == passed


def test_before_linux_6_11_the_kernel_picks() -> None:
    old = parse(NAME).fitted(Facts(target="physical", kernel=(6, 1)))
    assert old.write() == "autoscale files=alike"
    assert parse(NAME).fitted(Facts(target="physical", kernel=(6, 12))).write() == NAME


@pytest.mark.parametrize(
    ("text", "facts", "words"),
    [
        (NAME, Facts(target="physical", swap_bytes=1), []),
        (NAME, Facts(target="physical", reporting_obstacle="there is no virtio balloon here"), ["no virtio balloon"]),
        (NAME, Facts(target="physical", psi=False), ["PSI"]),
        (NAME, Facts(target="physical", swap_bytes=0), ["zram is enough"]),
        ("autoscale files=only", Facts(target="physical", swap_bytes=0), []),
        (NAME, Facts(target="physical", compact_obstacle="not for you"), ["compact=off"]),
        ("autoscale compact=off", Facts(target="physical", compact_obstacle="not for you"), []),
        (NAME, Facts(target="physical", reclaim_obstacle="no"), ["only whole cold blocks"]),
        (NAME, Facts(target="physical", kernel=(6, 1)), ["files=alike"]),
    ],
)
def test_what_it_cannot_do_is_said(text: str, facts: Facts, words: list[str]) -> None:
    lines = parse(text).cannot(facts)
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert word in line


@pytest.mark.parametrize("text", ["autoscale target=0", "autoscale target=much", "autoscale files=never"])
def test_wrong_knobs_are_refused(text: str) -> None:
    with pytest.raises(RequestError):
        parse(text)
