"""Specs for the kernel's special-purpose modules."""

from __future__ import annotations

import json

import pytest

from pydamon.errors import RequestError
from pydamon.spec import explain, from_builtins, to_builtins
from pydamon.spec.forms import scheme_files

YAML = """
modules:
  damon_reclaim:
    min_age: 2 min
    quota_ms: 10ms
    quota_sz: 128 MiB
    quota_reset_interval_ms: 1s
    wmarks_interval: 5s
    wmarks_high: 50%
    monitor_region_start: "0x1000"
    skip_anon: true
    min_nr_regions: 10
"""
EXACT = {  # the kernel's units (Documentation/admin-guide/mm/damon/reclaim.rst): us, ms, bytes, 1/1000
    "min_age": 120_000_000, "quota_ms": 10, "quota_sz": 128 << 20, "quota_reset_interval_ms": 1000,
    "wmarks_interval": 5_000_000, "wmarks_high": 500, "monitor_region_start": 0x1000, "skip_anon": True,
    "min_nr_regions": 10,
}  # fmt: skip


def test_what_people_write_is_turned_into_the_units_of_the_kernel() -> None:
    spec = scheme_files.load(YAML).spec
    assert spec is not None
    assert spec.modules == {"damon_reclaim": EXACT}
    assert spec.modules["damon_reclaim"]["skip_anon"] is True
    assert from_builtins(json.loads(json.dumps(to_builtins(spec)))) == spec
    assert explain(spec)[0].startswith("Let the kernel's module damon_reclaim run")
    assert "  skip_anon: yes" in explain(spec)


def test_a_spec_for_kdamonds_does_not_speak_of_modules() -> None:
    assert list(to_builtins(from_builtins({"kdamonds": [{"contexts": [{}]}]}))) == ["kdamonds"]


@pytest.mark.parametrize(
    ("modules", "where"),
    [
        ({"damon_x": {}}, "modules.damon_x"),
        ([], "modules"),
        ("damon_reclaim", "modules"),
        ({"damon_reclaim": 5}, "modules.damon_reclaim"),
        ({"damon_reclaim": {"min_age": "5"}}, "modules.damon_reclaim.min_age"),
        ({"damon_reclaim": {"min_age": 1.5}}, "modules.damon_reclaim.min_age"),
        ({"damon_reclaim": {"min_age": -1}}, "modules.damon_reclaim.min_age"),
        ({"damon_reclaim": {"min_age": 1 << 64}}, "modules.damon_reclaim.min_age"),
        ({"damon_reclaim": {"min_age": None}}, "modules.damon_reclaim.min_age"),
        ({"damon_reclaim": {"min_age": []}}, "modules.damon_reclaim.min_age"),
        ({"damon_reclaim": {"anything": "many"}}, "modules.damon_reclaim.anything"),
        ({"damon_reclaim": {}, "damon_stat": {}}, "modules"),
        ({}, "kdamonds"),
    ],
)
def test_what_is_wrong_is_named(modules: object, where: str) -> None:
    for read in (from_builtins, lambda data: scheme_files.load(json.dumps(data))):
        with pytest.raises(RequestError) as info:
            read({"modules": modules})
        assert info.value.where == where


def test_kdamonds_and_modules_exclude_each_other() -> None:
    with pytest.raises(RequestError, match="one or the other") as info:
        from_builtins({"kdamonds": [{"contexts": [{}]}], "modules": {"damon_stat": None}})
    assert info.value.where == "modules"
