"""Schemes in the spec: read as the field's tools write them, validated by field, written back exactly."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pydamon.errors import RequestError
from pydamon.spec import Scheme, from_json, to_builtins
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AddressRange, Dest, Filter, Goal, Quotas, SizeRange, Weights

U64_MAX = 2**64 - 1


def text_of(*schemes: dict[str, Any], **context: Any) -> str:
    base: dict[str, Any] = {"ops": "vaddr", "targets": [{"pid": 1234}], "schemes": list(schemes)}
    return json.dumps({"kdamonds": [{"contexts": [{**base, **context}]}]})


def read(scheme: dict[str, Any], **context: Any) -> Scheme:
    return from_json(text_of(scheme, **context)).kdamonds[0].contexts[0].schemes[0]


# The scheme as `damo` writes it into its records and reads it from its files.
DAMO = {
    "action": "pageout",
    "access_pattern": {
        "sz_bytes": {"min": "4.000 KiB", "max": "max"},
        "nr_accesses": {"min": "0 %", "max": "5 %"},
        "age": {"min": "2 m", "max": "max"},
    },
    "apply_interval_us": "1 s",
    "quotas": {
        "time_ms": "10 ms",
        "sz_bytes": "128.000 MiB",
        "reset_interval_ms": "1 s",
        "goals": [{"metric": "some_mem_psi_us", "target_value": "10ms"}],
        "goal_tuner": "consist",
        "weights": {"sz_permil": "0 %", "nr_accesses_permil": "0 %", "age_permil": "0.1 %"},
    },
    "watermarks": {
        "metric": "free_mem_rate",
        "interval_us": "5 s",
        "high_permil": "50 %",
        "mid_permil": "40 %",
        "low_permil": "20 %",
    },
    "filters": [
        {"filter_type": "memcg", "matching": True, "allow": False, "memcg_path": "/latency"},
        {"filter_type": "addr", "matching": True, "address_range": {"start": "0x1000", "end": "8K"}},
        {"filter_type": "hugepage_size", "hugepage_size": {"min": "2 MiB", "max": "max"}},
        {"filter_type": "target", "damon_target_idx": "0"},
    ],
}


def test_a_scheme_with_units_is_read_exactly() -> None:
    scheme = read(DAMO)
    pattern = scheme.access_pattern
    assert pattern.sz_bytes == SizeRange(min=4096, max=U64_MAX)
    assert (pattern.nr_accesses.min, pattern.nr_accesses.max) == (Rate(0, "%"), Rate(5, "%"))
    assert (pattern.age.min, pattern.age.max) == (Age(120_000_000, "us"), Age(None, "aggrs"))
    assert scheme.apply_interval_us == 1_000_000
    assert scheme.quotas == Quotas(
        time_ms=10,
        sz_bytes=128 << 20,
        reset_interval_ms=1000,
        goals=(Goal(metric="some_mem_psi_us", target_value=10_000),),
        weights=Weights(sz_permil=0, nr_accesses_permil=0, age_permil=1),
    )
    marks = scheme.watermarks
    assert (marks.interval_us, marks.high_permil, marks.mid_permil, marks.low_permil) == (5_000_000, 500, 400, 200)
    assert scheme.filters == (
        Filter(filter_type="memcg", memcg_path="/latency"),
        Filter(filter_type="addr", address_range=AddressRange(start=0x1000, end=8192)),
        Filter(filter_type="hugepage_size", hugepage_size=SizeRange(min=2 << 20, max=U64_MAX)),
        Filter(filter_type="target", damon_target_idx=0),
    )


def test_core_filters_come_before_those_of_the_operations_set() -> None:
    scheme = read(DAMO)
    assert [item.filter_type for item in scheme.core_filters] == ["addr", "target"]
    assert [item.filter_type for item in scheme.ops_filters] == ["memcg", "hugepage_size"]


def test_what_is_written_reads_back_equal() -> None:
    spec = from_json(text_of(DAMO, {"action": "stat", "access_pattern": {"age": {"min": "3", "max": "1.5 ms"}}}))
    assert from_json(json.dumps(to_builtins(spec))) == spec


def test_no_quota_as_damo_writes_it() -> None:
    scheme = read(
        {
            "action": "stat",
            "apply_interval_us": "0 us",
            "quotas": {"time_ms": "0 ns", "sz_bytes": "0 B", "reset_interval_ms": "0 ns", "goals": []},
            "watermarks": {
                "metric": "none",
                "interval_us": "0 ns",
                "high_permil": "0 %",
                "mid_permil": "0 %",
                "low_permil": "0 %",
            },
        }
    )
    assert not scheme.quotas.limited


def test_defaults() -> None:
    scheme = read({"action": "stat"})
    pattern = scheme.access_pattern
    assert (pattern.sz_bytes, pattern.nr_accesses.max, pattern.age.max) == (
        SizeRange(min=0, max=U64_MAX),
        Rate(None, "samples"),
        Age(None, "aggrs"),
    )
    assert (scheme.apply_interval_us, scheme.max_nr_snapshots, scheme.filters) == (0, 0, ())
    assert scheme.watermarks.metric == "none"
    assert not scheme.quotas.limited


@pytest.mark.parametrize(
    "field", [{"time_ms": 1}, {"sz_bytes": 1}, {"goals": [{"metric": "user_input", "target_value": 1}]}]
)
def test_any_limit_is_a_quota(field: dict[str, Any]) -> None:
    assert read({"action": "stat", "quotas": field}).quotas.limited


def test_where_a_migration_goes() -> None:
    assert read({"action": "migrate_hot", "target_nid": 1}).destinations == (Dest(id=1, weight=1),)
    dests = [{"id": 0, "weight": "3"}, {"id": "1"}]
    assert read({"action": "migrate_cold", "dests": dests}).destinations == (Dest(id=0, weight=3), Dest(id=1, weight=1))
    assert read({"action": "stat"}).destinations == ()


def addr(start: Any, end: Any) -> dict[str, Any]:
    return {"filters": [{"filter_type": "addr", "address_range": {"start": start, "end": end}}]}


def goal(**fields: Any) -> dict[str, Any]:
    return {"quotas": {"goals": [{"target_value": 1, **fields}]}}


@pytest.mark.parametrize(
    ("fields", "where", "message"),
    [
        ({"action": "frobnicate"}, "action", "Invalid enum value"),
        ({"actoin": "stat"}, "", "unknown field `actoin`"),
        ({"access_pattern": {"sz_bytes": {"min": 2, "max": 1}}}, "access_pattern.sz_bytes.min", "above the maximum"),
        ({"access_pattern": {"sz_bytes": {"min": -1}}}, "access_pattern.sz_bytes.min", "0 to"),
        ({"access_pattern": {"sz_bytes": {"max": 2**64}}}, "access_pattern.sz_bytes.max", "0 to|int"),
        ({"access_pattern": {"sz_bytes": {"min": "5 lb"}}}, "access_pattern.sz_bytes.min", "no unit of size"),
        ({"access_pattern": {"nr_accesses": {"min": "5%", "max": "4%"}}}, "access_pattern.nr_accesses.min", "above"),
        ({"access_pattern": {"nr_accesses": {"min": "max", "max": "4%"}}}, "access_pattern.nr_accesses.min", "above"),
        ({"access_pattern": {"nr_accesses": {"max": "101%"}}}, "access_pattern.nr_accesses.max", "more than 100%"),
        ({"access_pattern": {"age": {"min": "2s", "max": "1s"}}}, "access_pattern.age.min", "above"),
        ({"access_pattern": {"age": {"min": -3}}}, "access_pattern.age.min", "below 0"),
        ({"apply_interval_us": -1}, "apply_interval_us", "0 to"),
        ({"apply_interval_us": "5"}, "apply_interval_us", "has no unit"),
        ({"max_nr_snapshots": -1}, "max_nr_snapshots", "0 to"),
        ({"quotas": {"time_ms": 1, "reset_interval_ms": 0}}, "quotas.reset_interval_ms", "needs the time"),
        ({"quotas": {"time_ms": -1}}, "quotas.time_ms", "0 to"),
        ({"quotas": {"fail_charge_num": 2, "fail_charge_denom": 1}}, "quotas.fail_charge_num", "at most one"),
        ({"quotas": {"fail_charge_num": 1}}, "quotas.fail_charge_num", "at most one"),
        ({"quotas": {"weights": {"age_permil": -1}}}, "quotas.weights.age_permil", "0 to"),
        ({"quotas": {"goal_tuner": "sometimes"}}, "quotas.goal_tuner", "Invalid enum value"),
        (goal(metric="user_input", target_value=0), "quotas.goals[0].target_value", "1 to"),
        (goal(metric="user_input", current_value=-1), "quotas.goals[0].current_value", "0 to"),
        (goal(metric="node_mem_used_bp"), "quotas.goals[0].nid", "is needed"),
        (goal(metric="node_mem_used_bp", nid=-1), "quotas.goals[0].nid", "0 to"),
        (goal(metric="user_input", nid=0), "quotas.goals[0].nid", "is for metrics of a node"),
        (goal(metric="node_memcg_used_bp", nid=0), "quotas.goals[0].memcg_path", "is needed"),
        (goal(metric="active_mem_bp", memcg_path="/"), "quotas.goals[0].memcg_path", "is for node_memcg"),
        (goal(metric="happiness"), "quotas.goals[0].metric", "Invalid enum value"),
        (
            {"quotas": {"goals": [{"metric": "user_input", "target_value": 1, "name": "a"}] * 2}},
            "quotas.goals[1].name",
            "name of a goal before",
        ),
        ({"watermarks": {"metric": "free_mem_rate", "interval_us": 0}}, "watermarks.interval_us", "1 to"),
        ({"watermarks": {"metric": "free_mem_rate", "high_permil": 1001}}, "watermarks.high_permil", "0 to 1000"),
        (
            {"watermarks": {"metric": "free_mem_rate", "high_permil": 100, "mid_permil": 200}},
            "watermarks.high_permil",
            "none may be below the next",
        ),
        (addr(8192, 4096), "filters[0].address_range", "not a range"),
        (addr(-1, 4096), "filters[0].address_range", "not a range"),
        (addr(4096, 4096), "filters[0].address_range", "not a range"),
        ({"filters": [{"filter_type": "addr"}]}, "filters[0].address_range", "is needed"),
        ({"filters": [{"filter_type": "anon", "memcg_path": "/"}]}, "filters[0].memcg_path", "does not go with"),
        ({"filters": [{"filter_type": "memcg"}]}, "filters[0].memcg_path", "is needed"),
        ({"filters": [{"filter_type": "target", "damon_target_idx": 1}]}, "filters[0].damon_target_idx", "0 to 0"),
        (
            {"filters": [{"filter_type": "hugepage_size", "hugepage_size": {"min": 2, "max": 1}}]},
            "filters[0].hugepage_size",
            "not a range",
        ),
        ({"filters": [{"filter_type": "young"}] * 1025}, "filters", "the most is 1024"),
        ({"action": "migrate_hot"}, "target_nid", "is needed"),
        ({"action": "migrate_hot", "target_nid": 1024}, "target_nid", "0 to 1023"),
        ({"action": "stat", "dests": [{"id": 0}]}, "dests", "is for migrate_hot"),
        ({"action": "migrate_hot", "dests": [{"id": 0, "weight": 0}]}, "dests", "no weight above 0"),
        ({"action": "migrate_hot", "target_nid": 0, "dests": [{"id": 0}]}, "target_nid", "goes with no dests"),
    ],
)
def test_mistakes_are_named_by_field(fields: dict[str, Any], where: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read({"action": "stat", **fields})
    place = "kdamonds[0].contexts[0].schemes[0]"
    assert caught.value.where == (f"{place}.{where}" if where else place)
    assert "\n" not in str(caught.value)


def test_too_many_schemes() -> None:
    with pytest.raises(RequestError, match="the most is 256"):
        from_json(text_of(*[{"action": "stat"}] * 257))


def test_reported_accesses_can_only_be_counted() -> None:
    context = {"ops": "reported", "targets": []}
    assert read({"action": "stat"}, **context).action == "stat"
    with pytest.raises(RequestError, match="cannot be done"):
        read({"action": "pageout"}, **context)


@pytest.mark.parametrize(
    "hostile", ["null", "[]", "5", '"x"', '{"min": {}}', '{"min": null}', '{"min": 1e400}', '{"min": [[]]}']
)
def test_nonsense_in_place_of_a_range_is_a_line(hostile: str) -> None:
    text = text_of({"action": "stat", "access_pattern": {"age": "HERE"}}).replace('"HERE"', hostile)
    with pytest.raises(RequestError):
        from_json(text)
