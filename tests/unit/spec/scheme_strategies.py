"""Hypothesis strategies of valid schemes."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from pydamon.errors import RequestError
from pydamon.spec.actions import ACTIONS
from pydamon.spec.forms.scheme_short import FILTERS
from pydamon.spec.metrics import METRICS
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import (
    AccessPattern,
    AddressRange,
    AgeRange,
    Dest,
    Filter,
    Goal,
    Quotas,
    RateRange,
    Scheme,
    SizeRange,
    SumRange,
    Watermarks,
    Weights,
    validate_scheme,
)
from pydamon.spec.units import U64_MAX

# Whatever UTF-8 can hold but NUL.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
sizes = st.one_of(st.integers(0, U64_MAX), st.sampled_from([0, 4096, 2 << 20, U64_MAX]))
counts = st.integers(0, 2**32 - 1)
permil = st.integers(0, 1000)


def rates(unit: str) -> st.SearchStrategy[Rate]:
    numbers = st.decimals(0, 100, places=2).map(lambda number: f"{number} {unit}")
    return st.one_of(numbers.map(Rate.parse), st.just(Rate.parse("max")))


def ages(unit: str) -> st.SearchStrategy[Age]:
    numbers = st.integers(0, 10**8).map(lambda number: f"{number} {unit}")
    return st.one_of(numbers.map(Age.parse), st.just(Age.parse("max")))


def ordered(low: Any, high: Any) -> Any:
    if low.value is None:
        low = type(low)(0, high.unit)
    if high.value == 0:
        low = type(low)(0, low.unit)
    if high.value is not None and low.unit == high.unit and low.value > high.value:
        low, high = high, low
    return {"min": low, "max": high}


rate_ranges = st.tuples(st.sampled_from(["samples", "%", "Hz"]), st.sampled_from(["samples", "%", "Hz"])).flatmap(
    lambda units: st.builds(ordered, rates(units[0]), rates(units[1])).map(lambda ends: RateRange(**ends))
)
age_ranges = st.tuples(
    st.sampled_from(["aggrs", "us", "ms", "s", "ns"]), st.sampled_from(["aggrs", "us", "min"])
).flatmap(lambda units: st.builds(ordered, ages(units[0]), ages(units[1])).map(lambda ends: AgeRange(**ends)))
sum_ranges = st.tuples(sizes, sizes).map(lambda ends: SumRange(min=min(ends), max=max(ends)))
size_ranges = st.tuples(sizes, sizes).map(lambda ends: SizeRange(min=min(ends), max=max(ends)))


@st.composite
def goals(draw: st.DrawFn) -> Goal:
    metric = draw(st.sampled_from(list(METRICS)))
    return Goal(
        metric=metric,  # type: ignore[arg-type]
        target_value=draw(st.integers(1, U64_MAX)),
        current_value=draw(st.one_of(st.just(0), sizes)),
        nid=draw(st.integers(0, 1023)) if metric.startswith("node_") else None,
        memcg_path=draw(texts) if metric.startswith("node_memcg_") else None,
    )


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    kind = draw(st.sampled_from(FILTERS))
    start = draw(st.integers(0, U64_MAX - 1))
    fields: dict[str, dict[str, Any]] = {
        "memcg": {"memcg_path": draw(texts)},
        "addr": {"address_range": AddressRange(start=start, end=draw(st.integers(start + 1, U64_MAX)))},
        "target": {"damon_target_idx": draw(st.integers(0, 1000))},
        "hugepage_size": {"hugepage_size": draw(size_ranges)},
        "node": {"nid": draw(st.integers(0, 1023))},
        "probe_hits_wsum": {"probe_hits_wsum": draw(sum_ranges)},
    }
    more = fields.get(kind, {})
    return Filter(filter_type=kind, matching=draw(st.booleans()), allow=draw(st.booleans()), **more)  # type: ignore[arg-type]


@st.composite
def schemes(draw: st.DrawFn) -> Scheme:
    action = draw(st.sampled_from(list(ACTIONS)))
    migration: dict[str, Any] = {}
    if action.startswith("migrate_"):
        dests = draw(st.lists(st.builds(Dest, id=st.integers(0, 1023), weight=st.integers(1, 2**32 - 1)), max_size=3))
        migration = {"dests": tuple(dests)} if dests else {"target_nid": draw(st.integers(0, 1023))}
    high, mid, low = sorted(draw(st.tuples(permil, permil, permil)), reverse=True)
    num, denom = sorted(draw(st.tuples(counts, counts)))
    quotas = Quotas(
        time_ms=draw(st.integers(0, 10**10)),
        sz_bytes=draw(sizes),
        reset_interval_ms=draw(st.integers(1, 10**10)),
        goals=tuple(draw(st.lists(goals(), max_size=3))),
        goal_tuner=draw(st.sampled_from(["consist", "temporal"])),
        fail_charge_num=num,
        fail_charge_denom=denom,
        bloat_bp=draw(st.integers(0, 10_000)) if action == "collapse" else 0,
        weights=Weights(sz_permil=draw(counts), nr_accesses_permil=draw(counts), age_permil=draw(counts)),
    )
    marks = Watermarks(
        metric="free_mem_rate",
        interval_us=draw(st.integers(1, 10**13)),
        high_permil=high,
        mid_permil=mid,
        low_permil=low,
    )
    scheme = Scheme(
        action=action,  # type: ignore[arg-type]
        access_pattern=AccessPattern(sz_bytes=draw(size_ranges), nr_accesses=draw(rate_ranges), age=draw(age_ranges)),
        apply_interval_us=draw(st.integers(0, 10**13)),
        quotas=draw(st.sampled_from([Quotas(), quotas])),
        watermarks=draw(st.sampled_from([Watermarks(), marks])),
        filters=tuple(draw(st.lists(filters(), max_size=4))),
        max_nr_snapshots=draw(st.one_of(st.just(0), sizes)),
        name=draw(st.none() | texts),
        **migration,
    )
    try:
        validate_scheme(scheme, ops="sim")
    except RequestError as error:  # the strategy is wrong then, not what it tests
        raise AssertionError(error) from error
    return scheme
