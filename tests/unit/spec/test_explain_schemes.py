"""Schemes in plain words: whole texts, one for each field at least."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from tests.unit.spec.scheme_strategies import schemes

from pydamon.spec.forms.scheme_short import parse_short
from pydamon.spec.schemes import Scheme
from pydamon.spec.words.explain import explain_schemes


def explained(*texts: str, aggr_us: int | None = None) -> list[str]:
    return explain_schemes([parse_short(text) for text in texts], aggr_us)


def test_a_policy_with_everything() -> None:
    text = (
        "pageout size>=4K rate=0% age>=60s quota=10ms+128M/1s watermarks=free:50%:40%:20%/5s filter=reject:target=1 "
        "filter=!anon filter=allow:young fail=1/1024 snapshots=10 name=cold"
    )
    assert explained(text, aggr_us=100_000) == [
        "Scheme 0 (cold): every 100 ms (aggregation interval), memory that was not accessed for 60 s or more, in "
        "regions of 4 KiB or more, is paged out.",
        "  At most 10 ms of work and 128 MiB per 1 s, coldest first (access rate and age count the same).",
        "  A byte for which it failed costs 1/1024 of one for which it succeeded.",
        "  Begins when less than 40 % of memory is free; pauses while more than 50 % or less than 20 % is free; looks "
        "every 5 s.",
        "  Of regions, the first of these filters that is about one decides:",
        "    Target 1: left out.",
        "    All else is up to the filters of pages.",
        "  Of pages, the first of these filters that is about one decides:",
        "    Memory of files: left out.",
        "    Pages accessed since the last look: taken.",
        "    All else is left out.",
        "  Ends after 10 snapshots (each target of a whole pass is one); monitoring goes on.",
    ]


def test_goals_and_destinations() -> None:
    assert explained(
        "migrate_hot rate>=5% age<=10aggrs every=1s quota=/2s weights=0:1000:0 goal=node_mem_used_bp@0:99.7% "
        "dests=0:7,1:3",
        "migrate_cold rate<=2Hz node=1 tuner=temporal goal=some_mem_psi_us:10ms "
        "goal=user_input:10000,now=500,name=mine",
    ) == [
        "Scheme 0: every 1 s, memory that was accessed in 5 % or more of the samples, so for at most 10 aggregation "
        "intervals is moved to the NUMA nodes: 70 % to 0, 30 % to 1 (migrate_hot).",
        "  How much is tried is tuned every 2 s, hottest first (by access rate only): more while below, less when "
        "above, until the used share of NUMA node 0 is 99.7 %.",
        "Scheme 1: at each aggregation interval, at least every 1 s, memory that was accessed at most 2 times a second "
        "is moved to NUMA node 1 (migrate_cold).",
        "  How much is tried is tuned every 1 s, coldest first (access rate and age count the same): all or nothing, "
        "until one of these holds:",
        "    the time per reset interval in which some task waited for memory (PSI) is 10 ms.",
        "    the value that the user gives (mine) is 10,000 (now 500).",
    ]


@pytest.mark.parametrize(
    ("text", "aggr_us", "faithful", "when"),
    [
        ("pageout quota=1M/1s", 10_000_000, False, "every 1 s (window of its quota)"),
        ("pageout quota=1M/1s", 10_000_000, True, "every 10 s (aggregation interval)"),
        ("pageout quota=1M/1s", 100_000, False, "every 100 ms (aggregation interval)"),
        ("pageout quota=1M/1s every=5s", 10_000_000, False, "every 5 s"),
        ("pageout", 10_000_000, False, "every 10 s (aggregation interval)"),
        ("pageout quota=1M/1s", None, True, "at each aggregation interval"),
    ],
)
def test_how_often_it_is_applied(text: str, aggr_us: int | None, faithful: bool, when: str) -> None:
    assert explain_schemes([parse_short(text)], aggr_us, faithful=faithful)[0].startswith(f"Scheme 0: {when}, memory")


def test_patterns() -> None:
    assert explained("stat", "stat age=1s..2h size=4K..2M", "cold rate=3samples..5samples", "collapse size<=1G") == [
        "Scheme 0: at each aggregation interval, memory however much it is accessed is counted and left alone (stat).",
        "Scheme 1: at each aggregation interval, memory whose access rate has been about the same for 1 s to 2 h, in "
        "regions of 4 KiB to 2 MiB, is counted and left alone (stat).",
        "Scheme 2: at each aggregation interval, memory that was accessed in 3 to 5 of the samples in an aggregation "
        "interval is made the first to go when memory gets short (cold).",
        "  All of it, whatever that costs: there is no quota.",
        "Scheme 3: at each aggregation interval, memory however much it is accessed, in regions of at most 1 GiB, is "
        "put into huge pages (collapse).",
        "  All of it, whatever that costs: there is no quota.",
    ]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemes())
def test_every_scheme_can_be_explained(scheme: Scheme) -> None:
    lines = explain_schemes([scheme])
    assert lines[0].startswith("Scheme 0")
    assert all(line.startswith("  ") for line in lines[1:])
    assert "None" not in "".join(lines) or "None" in repr(scheme.name) + repr(scheme.filters) + repr(scheme.quotas)
