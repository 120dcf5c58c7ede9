"""What is no error in a scheme but can have no effect is said; what is meant is not remarked on."""

from __future__ import annotations

import pytest

from pydamon.spec import Intervals
from pydamon.spec.forms.scheme_short import parse_short
from pydamon.spec.words.hints import hints, same_names


def said(text: str, ops: str = "vaddr", intervals: Intervals | None = None) -> list[str]:
    return hints(parse_short(text), "s", ops=ops, intervals=intervals)


@pytest.mark.parametrize(
    "text",
    [
        "pageout size>=4K rate=0% age>=60s quota=10ms+128M/1s watermarks=free:50%:40%:20%/5s filter=!anon "
        "filter=allow:young",
        "migrate_cold rate=0% node=1 goal=node_mem_free_bp@0:0.5% filter=young",
        "migrate_hot rate>=1samples node=0 goal=node_mem_used_bp@0:99.7% filter=allow:young",
        "pageout quota=128M/1s",  # the coldest first
        "cold rate<=50% age>=1s",
        "collapse rate>=90% age>=1s",
        "stat age=100ms filter=anon filter=young filter=memcg=/a filter=memcg=/b",
        "stat filter=addr=0x1000-0x3000 filter=allow:addr=0x2000-0x4000",
        "stat filter=probe_hits_wsum=0..9 filter=allow:probe_hits_wsum=5..max",
    ],
)  # fmt: skip
def test_sensible_policies_pass_without_a_word(text: str) -> None:
    assert said(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # 100 ms are one aggregation: nothing is 110 to 190 ms old
        ("stat age=110ms..190ms", "s.access_pattern.age: no whole number of aggregations is 110000 us to 190000 us"),
        ("stat rate=6%..9%", "s.access_pattern.nr_accesses: no whole number of samples is 6 % to 9 %"),  # 1.2 to 1.8
        ("stat rate>=300Hz", "s.access_pattern.nr_accesses.min: 300 Hz is 30 samples, more than the 20 that there are"),
        ("stat size<=4095B", "s.access_pattern.sz_bytes.max: no region is smaller than a page"),
        ("pageout age>=60s", "s.access_pattern.nr_accesses: pageout of memory that is accessed all the time, too"),
        ("pageout rate>=90% quota=1G", "s.access_pattern.nr_accesses: pageout of memory that is accessed all the time"),
        ("willneed rate=0%", "s.access_pattern.nr_accesses: willneed of memory that is not accessed at all"),
        ("stat quota=4095B", "s.quotas.sz_bytes: 4095 bytes are less than a page"),
        ("stat quota=1s/500ms", "s.quotas.time_ms: is longer than the reset interval"),
        ("stat tuner=temporal", "s.quotas.goal_tuner: temporal has nothing to tune"),
        ("stat goal=active_mem_bp:101%", "s.quotas.goals[0].target_value: is above 100 %, which active_mem_bp never"),
        ("stat watermarks=free:50%:20%:20%", "s.watermarks: never activate"),
        ("hugepage rate>=5%", "s.action: hugepage cannot be given to other processes by most kernels; use collapse"),
        ("stat filter=unmapped", "s.filters[0]: never matches: with vaddr, all pages are mapped"),
        ("stat filter=anon filter=allow:anon", "s.filters[1]: never decides: filters[0] has decided before it"),
        ("stat filter=anon filter=allow:!anon filter=young",
         "s.filters[2]: never decides: filters[0] or filters[1] has decided before it"),
        ("stat filter=addr=0x1000-0x9000 filter=allow:addr=0x2000-0x3000", "s.filters[1]: never decides: filters[0]"),
        ("stat filter=!hugepage_size=2M..4M filter=allow:!hugepage_size=1M..max", "s.filters[1]: never decides"),
        ("stat filter=probe_hits_wsum=0..9 filter=allow:probe_hits_wsum=3..5", "s.filters[1]: never decides"),
        # the core's filters come first, whatever the order is
        ("stat filter=anon filter=allow:target=0 filter=!target=0",
         "s.filters[0]: never decides: filters[1] or filters[2] has decided before it"),
    ],
)  # fmt: skip
def test_what_cannot_have_its_effect_is_said(text: str, expected: str) -> None:
    (line,) = said(text)
    assert line.startswith(expected)


def test_ranges_are_judged_at_the_intervals_that_are_used() -> None:
    assert said("stat age=110ms..190ms", intervals=Intervals(aggr_us=50_000)) == []
    assert said("stat rate>=300Hz", intervals=Intervals(sample_us=1000)) == []
    assert said("hugepage rate>=5%", ops="sim") == []
    assert said("stat filter=unmapped", ops="paddr") == []


def test_two_schemes_of_one_name() -> None:
    schemes = [parse_short("stat name=a"), parse_short("cold"), parse_short("cold name=a")]
    assert same_names(schemes, ["line 1", "line 2", "line 3"]) == ["line 3: 'a' is the name of a scheme before it, too"]
