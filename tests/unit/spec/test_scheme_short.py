"""The short form of a scheme: what its words mean, that it says all that a scheme can say, and its errors."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.spec.scheme_strategies import schemes

from pydamon.errors import RequestError
from pydamon.spec.forms.scheme_short import parse_short, write_short
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AddressRange, Dest, Filter, Goal, Quotas, Scheme, SizeRange, Watermarks, Weights


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemes())
def test_every_scheme_can_be_written_in_one_line_and_read_again(scheme: Scheme) -> None:
    text = write_short(scheme)
    assert parse_short(text) == scheme
    assert len(text.splitlines()) == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60) | st.text('pageout size>=4K rate=0%age.,:@!/"\\#', max_size=40))
def test_any_other_text_is_refused_in_one_way(text: str) -> None:
    for line in (text, f"pageout {text}"):
        try:
            parse_short(line)
        except RequestError as error:
            assert error.message


def test_watermarks_of_a_node() -> None:
    text = "stat watermarks=free@1:50%:40%:20%/7s"
    scheme = parse_short(text)
    assert (scheme.watermarks.nid, scheme.watermarks.interval_us, scheme.watermarks.mid_permil) == (1, 7_000_000, 400)
    assert write_short(scheme) == text


def test_the_example_of_the_documentation_means_what_it_says() -> None:
    scheme = parse_short(
        "pageout size>=4K rate=0% age>=60s every=1s quota=10ms+128MiB/2s weights=0:1:2 fail=1/1024 "
        "watermarks=free:50%:40%:20%/5s filter=!anon filter=allow:young"
    )
    pattern = scheme.access_pattern
    assert pattern.sz_bytes == SizeRange(min=4096)
    assert (pattern.nr_accesses.min, pattern.nr_accesses.max) == (Rate(0, "%"), Rate(0, "%"))
    assert pattern.age.min == Age(60_000_000, "us")
    assert scheme.apply_interval_us == 1_000_000
    assert scheme.quotas == Quotas(
        time_ms=10,
        sz_bytes=128 << 20,
        reset_interval_ms=2000,
        weights=Weights(sz_permil=0, nr_accesses_permil=1, age_permil=2),
        fail_charge_num=1,
        fail_charge_denom=1024,
    )
    assert scheme.watermarks == Watermarks(
        metric="free_mem_rate", interval_us=5_000_000, high_permil=500, mid_permil=400, low_permil=200
    )
    assert scheme.filters == (
        Filter(filter_type="anon", matching=False),
        Filter(filter_type="young", allow=True),
    )


def test_migrations_and_goals() -> None:
    scheme = parse_short(
        'migrate_hot rate=1..5% node=1 goal=node_memcg_used_bp@1@"/a b:c":99.7%,now=5%,name=used tuner=temporal '
        "goal=some_mem_psi_us:10ms snapshots=3  # a comment"
    )
    assert (scheme.access_pattern.nr_accesses.min, scheme.target_nid) == (Rate(1, "%"), 1)
    assert scheme.quotas.goals == (
        Goal(
            metric="node_memcg_used_bp", target_value=9970, current_value=500, nid=1, memcg_path="/a b:c", name="used"
        ),
        Goal(metric="some_mem_psi_us", target_value=10_000),
    )
    assert (scheme.quotas.goal_tuner, scheme.max_nr_snapshots) == ("temporal", 3)
    assert parse_short("migrate_cold dests=0:7,1:3,2").dests == (
        Dest(id=0, weight=7),
        Dest(id=1, weight=3),
        Dest(id=2, weight=1),
    )


def test_filters_with_arguments() -> None:
    scheme = parse_short(
        "stat filter=reject:memcg=/a/b filter=allow:addr=0x1000-0x8000 filter=target=2 filter=!hugepage_size=2M..max"
    )
    assert scheme.filters == (
        Filter(filter_type="memcg", memcg_path="/a/b"),
        Filter(filter_type="addr", allow=True, address_range=AddressRange(start=0x1000, end=0x8000)),
        Filter(filter_type="target", damon_target_idx=2),
        Filter(filter_type="hugepage_size", matching=False, hugepage_size=SizeRange(min=2 << 20)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pagout", "'pagout' is no action; did you mean pageout?"),
        ("frobnicate", "there are: willneed, cold, pageout"),
        ("stat watermark=free:1:1:1", "'watermark=free:1:1:1': there is no key 'watermark'; did you mean watermarks?"),
        ("stat size>4K", "'size>4K': write size>=4K: bounds are included"),
        ("stat size", "'size': needs a bound, like size>=4K"),
        ("stat rate=5", "'rate=5': '5' has no unit; write 5% of the samples, 5samples or 5Hz"),
        ("stat age>=60", "'age>=60': '60' has no unit; write 60s or 60aggrs"),
        ("stat age>=1s age>=2s", "'age>=2s': age was bounded before"),
        ("stat rate=500%", "more than 100%"),
        ("stat every=1s every=2s", "'every=2s': every was given before"),
        ("stat every=", "every needs a value"),
        ("stat quota=10m", "'10m' may be minutes or MiB; write 10min or 10M"),
        ("stat quota=1s+2s", "has two times"),
        ("stat quota=10", "'10' is neither a time nor a size"),
        ("stat goal=some_psi:10ms", "there is no metric 'some_psi'; did you mean some_mem_psi_us?"),
        ("stat goal=some_mem_psi_us", "needs a target"),
        ("stat filter=anonymous", "there is no filter 'anonymous'; did you mean anon?"),
        ("stat filter=memcg", "needs a value: memcg=/path"),
        ("stat filter=anon=1", "takes no value"),
        ("stat watermarks=50:40:20", "write it as free[@NODE]:HIGH:MID:LOW/INTERVAL"),
        ("stat watermarks=none@1:50%:40%:20%", "write it as free[@NODE]:HIGH:MID:LOW/INTERVAL"),
        ("stat watermarks=free@:50%:40%:20%", "'' is not a number"),
        ("stat watermarks=free@-1:50%:40%:20%", "'-1' is not a number"),
        ("stat tuner=temporary", "did you mean temporal?"),
        ('stat name="x', "a quotation mark is not closed"),
        ('stat name="\\q"', "is no quoted text"),
        ("", "is empty"),
        ("stat " + "x" * 70_000, "is longer than"),
        ("stat name=\0", "NUL"),
    ],
)
def test_errors_name_the_word_and_what_would_be_right(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_short(text)
    assert message in caught.value.message
    assert len(caught.value.message) < 300
