"""`etmem`: its schemes, what it leaves, and the project files of openEuler's etmem."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.errors import RequestError
from pydamon.modules.base import Facts
from pydamon.modules.controller import Observations, SetQuota
from pydamon.modules.etmem import EtmemKnobs, LeaveController
from pydamon.modules.etmem_project import convert
from pydamon.modules.registry import MODULES, expand, parse
from pydamon.spec import to_builtins, validate
from pydamon.spec.forms.scheme_short import write_short

MIB = 1 << 20
SLIDE = """# as in etmem/conf
[project]
name=test
scan_type=page
loop=3
interval=2
sleep=1
sysmem_threshold=50

[engine]
name=slide
project=test

[task]
project=test
engine=slide
name=background_slide
type=pid
value=1234
T=2
swap_threshold=10g
dram_percent=40
"""
DAMON = """[project]
name=test
scan_type=region
sample_interval=1000
aggr_interval=200000
update_interval=3000000
min_nr_regions=20
max_nr_regions=2000
[engine]
name=damon
project=test
[task]
project=test
engine=damon
name=one
type=name
value=mysql
min_size=4096
max_acc=2
min_age=50
action=pageout
"""


def nobody(name: str) -> Sequence[int]:
    return ()


def two(name: str) -> Sequence[int]:
    return (7, 8) if name == "mysql" else ()


# -- the module -------------------------------------------------------------------------------------------------------


def test_by_regions_threshold_and_time_are_those_of_the_scheme() -> None:
    (scheme,) = parse("etmem T=3 min_age=10s sysmem_threshold=30% quota=off").schemes("process")
    assert write_short(scheme) == (
        "pageout size>=4K rate<=2samples age>=10s weights=0:0:1 watermarks=free:30%:30%:0%/5s name=etmem"
    )
    assert MODULES["etmem"].monitoring(parse("etmem").knobs) is None


def test_by_pages_each_page_is_a_region_that_is_asked_loop_times() -> None:
    use = parse("etmem scan=page loop=4 interval=500ms sleep=3s T=9")
    monitored = use.module.monitoring(use.knobs)
    assert monitored is not None
    intervals, regions = monitored
    assert (intervals.sample_us, intervals.aggr_us, regions.min) == (500_000, 2_000_000, 1_000_000)
    (scheme,) = use.schemes("process")
    assert scheme.apply_interval_us == 5_000_000
    assert str(scheme.access_pattern.nr_accesses.max) == "3 samples"  # one that was used each time is not cold


def test_hot_memory_is_put_into_huge_pages_first() -> None:
    hot, cold = parse("etmem huge=hot hot=80%").schemes("process")
    assert (hot.action, cold.action) == ("collapse", "pageout")
    assert hot.access_pattern.sz_bytes.min == 2 * MIB
    assert str(hot.access_pattern.nr_accesses.min) == "80 %"


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("etmem scan=page", "physical", "scan: pages are scanned of processes"),
        ("etmem scan=page interval=off", "process", "interval: must be above 0"),
        ("etmem T=0", "process", "etmem.T: is 0; it must be 1 to 360"),
        ("etmem loop=500", "process", "etmem.loop: is 500; it must be 1 to 120"),
    ],
)
def test_wrong_knobs_are_named(text: str, target: str, message: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse(text).schemes(target)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "facts", "words"),
    [
        ("etmem", Facts(swap_bytes=0), ["files=only"]),
        ("etmem scan=page T=5", Facts(), ["T=1 is as good"]),
        ("etmem scan=page", Facts(engine="kernel", knows_ages=False), ["scan=region", "scan=region"]),
        ("etmem sysmem_threshold=20%", Facts(free_permil=500), ["50% of memory is free now: it begins below 20%"]),
    ],
)
def test_what_it_cannot_do_is_said(text: str, facts: Facts, words: list[str]) -> None:
    lines = parse(text).cannot(facts)
    assert len(lines) == len(words)
    assert all(word in line for word, line in zip(words, lines, strict=True))


def sizes(loop: LeaveController, resident_mib: int | None) -> list[int | None]:
    resident = None if resident_mib is None else resident_mib * MIB
    decisions = loop.step(Observations(now_ns=1, resident_bytes=resident))
    return [decision.sz_bytes for decision in decisions if isinstance(decision, SetQuota)]


def test_a_share_of_the_most_that_was_resident_stays() -> None:
    """40 % of 1000 MiB: of 1000 600 may go, a quarter of that at a time; of 400 one page, the least that can be set."""
    loop = LeaveController(EtmemKnobs(dram_bp=4_000))
    assert sizes(loop, None) == []
    assert sizes(loop, 1000) == [150 * MIB]
    assert sizes(loop, 1000) == []
    assert sizes(loop, 500) == [25 * MIB]
    assert sizes(loop, 400) == [4096]
    assert sizes(loop, 100) == []


def test_the_larger_of_share_and_size_stays_and_the_quota_bounds_each_step() -> None:
    quota = parse("etmem quota=4MiB/1s").knobs.quota  # type: ignore[attr-defined]
    loop = LeaveController(EtmemKnobs(dram_bp=1_000, swap_threshold=900 * MIB, quota=quota))
    assert sizes(loop, 1000) == [20 * MIB]  # a step is 5 s
    assert sizes(loop, 940) == [10 * MIB]


def test_until_it_is_known_what_there_is_next_to_nothing_goes() -> None:
    (scheme,) = parse("etmem dram_percent=50%").schemes("process")
    assert (scheme.quotas.sz_bytes, scheme.quotas.reset_interval_ms) == (4096, 5_000)


# -- project files ----------------------------------------------------------------------------------------------------


def test_a_slide_project_is_the_module_with_its_options() -> None:
    made = convert(SLIDE, nobody)
    (text,) = made.spec.kdamonds[0].modules
    assert text == (
        "etmem scan=page loop=3 interval=2s sleep=1s sysmem_threshold=50% dram_percent=40% swap_threshold=10G T=2"
    )
    assert made.spec.context.pids == (1234,)
    assert made.spec.context.intervals.aggr_us == 6_000_000
    assert made.remarks == ()
    validate(expand(made.spec))


def test_a_slide_project_by_regions_has_their_intervals() -> None:
    text = SLIDE.replace("scan_type=page", "scan_type=region\nsample_interval=7000\naggr_interval=70000")
    made = convert(text, nobody)
    assert made.spec.context.intervals.sample_us == 7_000
    assert str(made.spec.kdamonds[0].modules[0]).startswith("etmem scan=region ")


def test_a_damon_project_is_its_scheme() -> None:
    made = convert(DAMON, two)
    context = made.spec.context
    assert context.pids == (7, 8)
    assert (context.intervals.sample_us, context.intervals.aggr_us, context.nr_regions.min) == (1_000, 200_000, 20)
    assert write_short(context.schemes[0]) == "pageout size>=4K rate<=2samples age>=50aggrs name=etmem-damon"
    assert made.spec.kdamonds[0].modules == ()
    validate(made.spec)
    assert to_builtins(made.spec)


def test_a_cslide_project_is_the_module_tier() -> None:
    text = SLIDE.replace("name=slide", "name=cslide\nnode_pair=2,0;3,1\nhot_threshold=1\nnode_mig_quota=1024")
    text = text.replace("engine=slide", "engine=cslide").replace("T=2\n", "vm_flags=ht\n")
    made = convert(text, nobody)
    (module,) = made.spec.kdamonds[0].modules
    assert module == "tier tiers=0>2+1>3 hot=33.3% cold_age=6s quota=1024MiB/6s"
    assert any("vm_flags: all memory" in line for line in made.remarks)
    parse(module)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("T=2", "T=x", "[task] T: is 'x'; it must be a whole number from 0 to 360"),
        ("T=2", "T=0", "[task] T: is 0: nothing would be cold"),
        ("T=2\n", "", "[task] T: is missing"),
        ("loop=3", "loop=0", "[project] loop: is '0'; it must be a whole number from 1 to 120"),
        ("type=pid", "type=pic", "[task] type: is 'pic'; it must be pid or name; did you mean pid?"),
        ("type=pid\nvalue=1234", "type=name\nvalue=gone", "[task] value: no process is called 'gone' now"),
        (
            "scan_type=page",
            "scan_type=pages",
            "[project] scan_type: is 'pages'; it must be page or region; did you mean page?",
        ),
        ("name=slide", "name=slid", "[engine] name: is 'slid'; slide, damon and cslide are read; did you mean slide?"),
        ("name=slide", "name=thirdparty", "[engine] name: is thirdparty, which loads a library"),
        ("project=test\nengine", "project=other\nengine", "[task] project: is 'other'; the project is 'test'"),
        ("[task]", "[tusk]", "[tusk] is none of [project], [engine] and [task]; did you mean task?"),
        ("[engine]\nname=slide\nproject=test\n", "", "has no [engine]"),
        ("[task]", "[project]", "[project] is there twice; write one file for each task"),
        ("loop=3", "loop=3\nloop=4", "[project] loop: is there twice"),
        ("# as in etmem/conf\n", "x=1\n", "line 1 stands in no section"),
        ("loop=3", "loop 3", "line 5 is neither KEY=VALUE nor [SECTION]"),
        ("swap_threshold=10g", "swap_threshold=ten", "[task] swap_threshold: 'TEN' is not a size"),
    ],
)
def test_errors_name_section_and_key(old: str, new: str, message: str) -> None:
    assert old in SLIDE
    with pytest.raises(RequestError) as raised:
        convert(SLIDE.replace(old, new, 1), nobody)
    assert str(raised.value).startswith(message)


def test_what_is_not_used_is_said() -> None:
    made = convert(SLIDE.replace("T=2", "T=2\nmax_threads=4\nswap_flag=yes").replace("loop=3", "loop=3\nfoo=1"), nobody)
    assert [line.split(":")[0] for line in made.remarks] == ["[task] swap_flag", "[task] max_threads", "[project] foo"]


@given(st.text(max_size=300))
def test_nonsense_is_an_error_of_the_request(text: str) -> None:
    with pytest.raises(RequestError):
        convert(text, nobody)


@given(st.sampled_from(SLIDE.splitlines()), st.text(max_size=30))
def test_one_wrong_line_is_an_error_or_a_valid_spec(line: str, text: str) -> None:
    try:
        made = convert(SLIDE.replace(line, text), nobody)
    except RequestError:
        return
    expand(made.spec)
