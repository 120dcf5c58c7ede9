"""The spec: read with units, validated by field, written back exactly, explained in words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.errors import RequestError
from pydamon.spec import explain, from_builtins, from_json, to_builtins


def request(**context: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"ops": "vaddr", "targets": [{"pid": 1234}]}
    return {"kdamonds": [{"contexts": [{**base, **context}]}]}


def test_defaults_are_damons_except_for_the_update_interval() -> None:
    # docs/algorithms.md 2.1: 5 ms, 100 ms, 10..1000; the kernel's 60 s update is 1 s here, as damo's
    context = from_builtins(request()).kdamonds[0].contexts[0]
    assert (context.intervals.sample_us, context.intervals.aggr_us) == (5000, 100_000)
    assert context.intervals.ops_update_us == 1_000_000
    assert (context.nr_regions.min, context.nr_regions.max) == (10, 1000)


def test_people_write_units_and_get_exact_values() -> None:
    spec = from_json(
        json.dumps(
            request(
                intervals={"sample_us": "5 ms", "aggr_us": "0.1 s", "ops_update_us": "1 s"},
                nr_regions={"min": "10", "max": "1,000"},
                targets=[{"pid": "12", "regions": [{"start": "0x1000", "end": "8K"}]}],
            )
        )
    )
    context = spec.kdamonds[0].contexts[0]
    assert (context.intervals.sample_us, context.intervals.aggr_us) == (5000, 100_000)
    assert context.nr_regions.max == 1000
    assert (context.targets[0].regions[0].start, context.targets[0].regions[0].end) == (4096, 8192)


def test_what_is_written_reads_back_equal() -> None:
    spec = from_builtins(request(targets=[{"pid": 7, "regions": [{"start": 4096, "end": 8192}]}]))
    assert from_builtins(json.loads(json.dumps(to_builtins(spec)))) == spec


@pytest.mark.parametrize(
    ("context", "where", "message"),
    [
        # core-kunit.h damon_test_set_attrs: min 1, max < min, aggregation below sampling are refused
        ({"nr_regions": {"min": 1}}, "nr_regions.min", "at least 3"),
        ({"nr_regions": {"min": 10, "max": 9}}, "nr_regions.max", "below the minimum"),
        ({"intervals": {"sample_us": 5000, "aggr_us": 4999}}, "intervals.sample_us", "longer than the aggregation"),
        ({"intervals": {"sample_us": 0}}, "intervals.sample_us", "at least 1us"),
        ({"intervals": {"sample_us": -5}}, "intervals.sample_us", "at least 1us"),
        ({"intervals": {"sample_us": "5"}}, "intervals.sample_us", "has no unit"),
        ({"intervals": {"smaple_us": 5}}, "intervals", "unknown field `smaple_us`"),
        ({"nr_regions": {"max": 10**12}}, "nr_regions.max", "the most is"),
        # The notes on DAMON of 2026-11-25, T21: with 3 a page would have 1,365 units, no power of two.
        (
            {"ops": "paddr", "targets": [{}], "addr_unit": 3},
            "addr_unit",
            "of which a page has 1365; that must be a power",
        ),
        ({"ops": "paddr", "targets": [{}], "addr_unit": 0}, "addr_unit", "is 0 bytes; it must be 1 to 1073741824"),
        ({"addr_unit": 8}, "addr_unit", "is 8; with vaddr it must be 1, as it is for physical memory"),
        ({"targets": [{"pid": 1, "obsolete": True}]}, "targets[0].obsolete", "is true for all targets; one at least"),
        (
            {"targets": [{"pid": 1}, {"pid": 2, "obsolete": True, "include_children": True}]},
            "targets[1].include_children",
            "must be the same",
        ),
        ({"pause": "yes"}, "pause", "Expected `bool`"),
        ({"ops": "vadr"}, "ops", "Invalid enum value"),
        ({"targets": [{"pid": 0}]}, "targets[0].pid", "vaddr needs the id"),
        ({"targets": [{"pid": 1, "regions": [{"start": 8192, "end": 4096}]}]}, "targets[0].regions[0]", "not a range"),
        (
            {"targets": [{"pid": 1, "regions": [{"start": 1, "end": 4096}]}]},
            "targets[0].regions[0]",
            "multiples of 4096",
        ),
        (
            {"targets": [{"pid": 1, "regions": [{"start": 4096, "end": 12288}, {"start": 8192, "end": 16384}]}]},
            "targets[0].regions[1]",
            "overlaps",
        ),
    ],
)
def test_mistakes_are_named_by_field(context: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        from_builtins(request(**context))
    assert str(caught.value.where).endswith(where)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("unit", "smallest"), [(1, 4096), (8, 4096), (4096, 4096), (8192, 8192), (5000, 8192)])
def test_units_of_addresses(unit: int, smallest: int) -> None:
    # T21's units that pass. Regions are whole pages here, so that the smallest has two for one unit of 5,000 bytes.
    spec = from_builtins(request(ops="paddr", targets=[{}], addr_unit=unit))
    assert spec.context.min_region == smallest


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kdamonds", "contexts", "targets", "pid", "intervals", "sample_us", "x"]), inner
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_hostile_input_is_refused_in_one_line(value: Any) -> None:
    try:
        from_builtins(value)
    except RequestError as error:
        assert error.exit_status == 2


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(RequestError):
        from_json("[" * 100_000)


def test_the_explanation_states_intervals_regions_and_the_bound() -> None:
    text = "\n".join(explain(from_builtins(request())))
    assert "process 1234" in text
    assert "Every 5 ms (sampling interval)" in text
    assert "Every 100 ms (aggregation interval)" in text
    assert "between 10 and 1000 regions" in text
    assert "at most 200,000 a second" in text
