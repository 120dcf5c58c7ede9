"""damo's files: what several of its versions write is read as they read it, and ours is what the newest reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pydamon.errors import RequestError
from pydamon.spec.forms.damo_write import damo_scheme, damo_spec
from pydamon.spec.forms.scheme_files import load, to_builtins
from pydamon.spec.forms.scheme_short import parse_short, write_short

# `damo args damon --ops paddr --regions 1048576-1073741824 --schemes …` of damo 3.4.3 wrote this.
DAMO_3_4_3 = """{"kdamonds": [{"refresh_ms": 0, "contexts": [{"ops": "paddr", "addr_unit": "1 B",
"targets": [{"pid": null, "obsolete": false, "regions": [{"start": "1,048,576", "end": "1,073,741,824"}]}],
"intervals": {"sample_us": "5 ms", "aggr_us": "100 ms", "ops_update_us": "1 s",
  "intervals_goal": {"access_bp": "0 %", "aggrs": "0", "min_sample_us": "0 ns", "max_sample_us": "0 ns"}},
"nr_regions": {"min": "10", "max": "1,000"}, "probes": [],
"sample_control": {"primitives_enabled": {"page_table": true, "page_fault": false}, "sample_filters": []},
"pause": false, "schemes": [{"action": "pageout", "dests": [],
  "access_pattern": {"sz_bytes": {"min": "4.000 KiB", "max": "max"}, "nr_accesses": {"min": "0 %", "max": "5 %"},
    "age": {"min": "1 m 30 s", "max": "max"}}, "apply_interval_us": "0 ns",
  "quotas": {"time_ms": "0 ns", "sz_bytes": "0 B", "reset_interval_ms": "max", "fail_charge_num": "0",
    "fail_charge_denom": "0", "goals": [], "goal_tuner": "consist", "effective_sz_bytes": "0 B",
    "weights": {"sz_permil": "0 %", "nr_accesses_permil": "0 %", "age_permil": "0 %"}},
  "watermarks": {"metric": "none", "interval_us": "0 ns", "high_permil": "0 %", "mid_permil": "0 %",
    "low_permil": "0 %"}, "filters": []}]}]}]}"""


def short(data: Any) -> str:
    return write_short(load(json.dumps(data)).schemes[0])


def scheme(**fields: Any) -> list[dict[str, Any]]:
    return [{"action": "stat", **fields}]


def pattern(**fields: Any) -> list[dict[str, Any]]:
    return scheme(access_pattern=fields)


def test_what_damo_3_4_writes_is_read_without_a_warning() -> None:
    loaded = load(DAMO_3_4_3)
    assert loaded.warnings == ()
    # damo's weights are 0, ours would be 1000
    assert [write_short(each) for each in loaded.schemes] == ["pageout size>=4K rate<=5% age>=90s weights=0:0:0"]
    assert loaded.spec is not None
    context = loaded.spec.kdamonds[0].contexts[0]
    assert (context.ops, context.targets[0].regions[0].end) == ("paddr", 1 << 30)
    assert (context.intervals.sample_us, context.intervals.intervals_goal, context.nr_regions.max) == (5000, None, 1000)


def test_what_we_write_for_damo_is_its_own_layout() -> None:
    # Checked with damo 3.4.3: `damo args damon FILE` reads what damo_spec gives for this, and writes it back equal but
    # for the forms of numbers.
    loaded = load(DAMO_3_4_3)
    assert loaded.spec is not None
    written = damo_spec(loaded.spec, pytest.fail)
    theirs = json.loads(DAMO_3_4_3)["kdamonds"][0]["contexts"][0]
    ours = written["kdamonds"][0]["contexts"][0]
    assert ours.keys() == theirs.keys() - {"sample_control"}
    assert ours["schemes"][0].keys() == theirs["schemes"][0].keys()
    for name in ("access_pattern", "quotas", "watermarks"):
        assert ours["schemes"][0][name].keys() == theirs["schemes"][0][name].keys()
    again = load(json.dumps(written))
    assert again.spec == loaded.spec


def test_units_that_damo_does_not_have_are_refused_or_converted() -> None:
    with pytest.raises(RequestError, match="damo has no rates per second"):
        damo_scheme(parse_short("stat rate>=20Hz"), "schemes[0]", pytest.fail)
    # 20 a second are 2 in 100 ms
    converted = damo_scheme(parse_short("stat rate>=20Hz"), "schemes[0]", pytest.fail, 100_000)
    assert converted["access_pattern"]["nr_accesses"] == {"min": "2 samples", "max": "max samples"}
    with pytest.raises(RequestError, match=r"schemes\[0\].watermarks.nid: damo has them for the whole machine only"):
        damo_scheme(parse_short("stat watermarks=free@1:50%:40%:20%"), "schemes[0]", pytest.fail)
    with pytest.raises(RequestError, match="in the same unit"):
        damo_scheme(parse_short("stat age=1s..20aggrs"), "schemes[0]", pytest.fail)
    said: list[str] = []
    damo_scheme(parse_short("stat snapshots=5 name=x"), "schemes[0]", said.append)
    assert said == [
        "schemes[0].max_nr_snapshots: damo reads it from its command line only",
        "schemes[0].name: damo ignores it",
    ]


def test_the_layout_of_damo_1_6() -> None:
    # names of fields as damo 1.6.0 writes them
    loaded = load(
        json.dumps(
            {
                "kdamonds": [
                    {
                        "state": "off",
                        "pid": "-1",
                        "name": "0",
                        "contexts": [
                            {
                                "name": "0",
                                "intervals": {"sample": "5 ms", "aggr": "100 ms", "ops_update": "1 s"},
                                "nr_regions": {"min_nr_regions": "10", "max_nr_regions": "1,000"},
                                "ops": "vaddr",
                                "targets": [{"name": "0", "pid": "42", "regions": []}],
                                "schemes": [
                                    {
                                        "name": "0",
                                        "action": "pageout",
                                        "access_pattern": {
                                            "min_sz_bytes": "4.000 KiB",
                                            "max_sz_bytes": "max",
                                            "min_nr_accesses": "0 %",
                                            "max_nr_accesses": "0 %",
                                            "min_age": "60 s",
                                            "max_age": "max",
                                        },
                                        "quotas": {
                                            "time_ms": 0,
                                            "sz_bytes": 0,
                                            "reset_interval_ms": 0,
                                            "weight_sz_permil": 0,
                                            "weight_nr_accesses_permil": 300,
                                            "weight_age_permil": 700,
                                        },
                                        "watermarks": {
                                            "metric": "none",
                                            "interval_us": 0,
                                            "high_permil": 0,
                                            "mid_permil": 0,
                                            "low_permil": 0,
                                        },
                                        "filters": [
                                            {"name": "0", "filter_type": "anon", "memcg_path": "", "matching": True}
                                        ],
                                    }
                                ],
                            }
                        ],
                    }
                ]
            }
        )
    )
    assert [write_short(each) for each in loaded.schemes] == [
        "pageout size>=4K rate=0% age>=1min weights=0:300:700 filter=reject:anon name=0"
    ]
    assert loaded.spec is not None
    assert loaded.spec.kdamonds[0].contexts[0].targets[0].pid == 42


def test_units_in_fields_of_their_own() -> None:
    # tests/schemes/prcl_damos.json of damo's repository in 2023
    old = {
        "sz_bytes": {"min": "min", "max": "max"},
        "nr_accesses_unit": "percent",
        "nr_accesses": {"min": "min", "max": "min"},
        "age_unit": "usec",
        "age": {"min": "1s", "max": "max"},
    }
    assert short(pattern(**old)) == "stat rate=0samples age>=1s"
    units = {"nr_accesses_unit": "samples", "nr_accesses": {"min": 5, "max": "max"}}
    assert short(pattern(**units, age_unit="aggr_intervals", age={"min": 3, "max": 9})) == (
        "stat rate>=5samples age=3aggrs..9aggrs"
    )


def test_numbers_as_damo_reads_them() -> None:
    ends = {"min": "1.465 GiB", "max": "5 GB"}
    # int(1.465 * 2**30) = 1573031772 and 5 * 2**30, as damo 3.4.3 reads it
    assert short(pattern(sz_bytes=ends)) == "stat size=1573031772B..5G"
    assert short(pattern(nr_accesses={"min": "3 samples", "max": "18,446,744,073,709,551,615 samples"})) == (
        "stat rate>=3samples"
    )
    assert short(pattern(age={"min": "3 aggr_intervals", "max": "max aggr_intervals"})) == "stat age>=3aggrs"
    assert short(pattern(age={"min": "1 d 3 h", "max": "18446744073709551615"})) == "stat age>=27h"
    assert short(scheme(apply_interval_us=1000000.0)) == "stat every=1s"
    quotas = {"time_ms": "10", "sz_bytes": "134217728", "reset_interval_ms": "1000"}
    assert short(scheme(quotas=quotas)) == "stat quota=10ms+128M/1s"


def test_bare_rates_and_ages_are_read_as_damo_does_and_said_to_be() -> None:
    loaded = load(json.dumps(pattern(nr_accesses={"min": 5, "max": "max"}, age={"min": "5000000", "max": "max"})))
    assert write_short(loaded.schemes[0]) == "stat rate>=5% age>=5s"
    assert loaded.warnings == (
        "schemes[0].access_pattern.nr_accesses.min: 5 has no unit and is read as 5 %, as damo does",
        "schemes[0].access_pattern.age.min: 5000000 has no unit and is read as 5000000 microseconds, as damo does",
    )


def test_filters_and_goals_of_several_versions() -> None:
    filters = [
        {"filter_type": "young", "matching": "yes", "filter_pass": True},  # filter_pass: 2.5; text: newer
        {"filter_type": "addr", "matching": True, "memcg_path": "", "address_range": {"start": "4,096", "end": "8K"}},
        {"filter_type": "hugepage_size", "matching": True, "allow": False, "hugepage_size": ["2.000 MiB", "max"]},
        {"filter_type": "target", "matching": True, "damon_target_idx": "1", "probe_hits_wsum_range": None},
    ]
    assert short(scheme(filters=filters)) == (
        "stat filter=allow:young filter=reject:addr=0x1000-0x2000 filter=reject:hugepage_size=2M..max "
        "filter=reject:target=1"
    )
    split = scheme(
        ops_filters=[{"filter_type": "anon"}], core_filters=[{"filter_type": "target", "damon_target_idx": 0}]
    )
    assert short(split) == "stat filter=reject:target=0 filter=reject:anon"
    # damo 2.2: target_value_bp of what is user_input now
    goals: list[dict[str, object]] = [{"target_value_bp": "100 %", "current_value_bp": "50 %"}]
    assert short(scheme(quotas={"goals": goals, "reset_interval_ms": "1 s"})) == "stat goal=user_input:10000,now=5000"
    goals = [
        {"metric": "node_mem_free_bp", "complement": False, "nid": "0", "target_value": "0.5 %", "memcg_path": None}
    ]
    assert short(scheme(quotas={"goals": goals})) == "stat goal=node_mem_free_bp@0:0.5%"


def test_results_in_the_file_are_left_out() -> None:
    data = scheme(stats={"nr_tried": 5, "max_nr_snapshots": "3"}, tried_regions=[], tried_bytes="0 B")
    assert short(data) == "stat snapshots=3"


def context(**fields: Any) -> dict[str, Any]:
    return {"kdamonds": [{"contexts": [{"ops": "vaddr", "targets": [], **fields}]}]}


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (context(probes=[{"filters": [], "weight": 1.5}]), "probes[0].weight"),
        (context(ops_attrs={"use_reports": True}), "ops_attrs.use_reports"),
        (context(ops_attrs={"cpus": "0-3"}), "ops_attrs"),
        (context(sample_control={"primitives_enabled": {"page_table": False}}),
         "sample_control.primitives_enabled.page_table"),
        (context(sample_control={"sample_filters": [{"filter_type": "write"}]}), "sample_control.sample_filters"),
        (context(pause="maybe"), "pause"),
        (context(targets=[{"pid": 1, "obsolete": 2, "regions": []}]), "targets[0].obsolete"),
        (context(schemes=scheme(quotas={"goals": [{"metric": "active_mem_bp", "complement": "so"}]})),
         "schemes[0].quotas.goals[0].complement"),
        (context(schemes=scheme(quotas={"goals": [
            {"metric": "user_input", "target_value": "1", "complement": "yes"}]})),
         "schemes[0].quotas.goals[0].complement"),
        (context(schemes=scheme(filters=[{"filter_type": "pgidle_set"}])), "schemes[0].filters[0].filter_type"),
    ],
)  # fmt: skip
def test_what_would_change_the_meaning_is_refused_by_name(data: dict[str, Any], where: str) -> None:
    with pytest.raises(RequestError) as caught:
        load(json.dumps(data))
    assert caught.value.where == f"kdamonds[0].contexts[0].{where}"


def test_what_a_context_has_beside_its_schemes_is_read_and_written() -> None:
    # As damo 3.4.3's to_kvpairs writes them (_damon.py).
    goals = [{"metric": "node_mem_used_bp", "complement": True, "nid": "0", "target_value": "5 %"}]
    data = context(pause=True, schemes=scheme(quotas={"goals": goals}))
    data["kdamonds"][0]["contexts"][0] |= {"targets": [{"pid": pid, "obsolete": pid == 2} for pid in (1, 2)]}
    data["kdamonds"][0]["refresh_ms"] = "1 s"
    loaded = load(json.dumps(data))
    assert not loaded.warnings
    assert loaded.spec is not None
    assert loaded.spec.kdamonds[0].refresh_ms == 1000
    assert loaded.spec.context.pause
    assert [target.obsolete for target in loaded.spec.context.targets] == [False, True]
    assert loaded.schemes[0].quotas.goals[0].complement
    again = load(json.dumps(damo_spec(loaded.spec, pytest.fail)))
    assert again.spec == loaded.spec


def test_addresses_in_units_are_bytes_here_and_units_for_damo() -> None:
    regions = [{"start": 4096, "end": 2**48 + 4096}]
    data = context(ops="paddr", addr_unit="8 KiB", targets=[{"regions": regions}])
    data["kdamonds"][0]["contexts"][0]["schemes"] = scheme(quotas={"sz_bytes": "16 KiB"})
    loaded = load(json.dumps(data))
    assert loaded.warnings == (
        "kdamonds[0].contexts[0].addr_unit: is read, but addresses and sizes are read as bytes all the same; damo has "
        "them in this unit",
    )
    assert loaded.spec is not None
    assert loaded.spec.context.addr_unit == 8192
    written = damo_spec(loaded.spec, pytest.fail)["kdamonds"][0]["contexts"][0]
    assert written["addr_unit"] == "8 KiB"
    # What a unit has a part of, belongs to the region: 2**48 + 4096 is in the unit 2**35.
    assert written["targets"][0]["regions"] == [{"start": "0", "end": str(2**35 + 1)}]
    assert written["schemes"][0]["quotas"]["sz_bytes"] == "2 B"


def test_what_changes_nothing_is_dropped_with_a_warning() -> None:
    data = context(record_request={"rfile_buf": 1, "rfile_path": "x"})
    assert len(load(json.dumps(data)).warnings) == 1
    both = scheme(action="migrate_hot", target_nid=0, dests=[{"id": "0", "weight": "1"}])
    assert load(json.dumps(both)).warnings == ("schemes[0].target_nid: is ignored: dests says where to",)
    endless = scheme(quotas={"sz_bytes": "1 GiB", "reset_interval_ms": "max"})
    assert "is read as 10,000,000 s" in load(json.dumps(endless)).warnings[0]


def test_our_own_layout_passes_unchanged() -> None:
    text = 'migrate_hot rate=2.5%..3Hz age>=3aggrs goal=user_input:5,name="a b" dests=0:7,1:3 snapshots=2 name=x'
    data = to_builtins(parse_short(text))
    assert short([data]) == text.replace("name=x", "name=x")


def read_from_files() -> dict[str, Any]:
    """A kdamond as damo 3.4.3 tells of one that runs: what stands in each of the kernel's files, also where it is 0."""
    ranges = {"memcg_path": "", "address_range": {"start": "0", "end": "0"}, "damon_target_idx": "0"}
    none = {"hugepage_size": None, "probe_hits_wsum_range": None}
    goal = {"metric": "some_mem_psi_us", "complement": False, "nid": "0", "memcg_path": "", "target_value": "10,000"}
    quotas = {"reset_interval_ms": "1 s", "goals": [goal], "goal_tuner": "consist\n", "effective_sz_bytes": "8 B"}
    anon = {"filter_type": "anon", "matching": True, "allow": True, **ranges, **none}
    huge = anon | {"filter_type": "hugepage_size", "hugepage_size": ["2.000 MiB", "1024.000 MiB"]}
    addresses = anon | {"filter_type": "addr", "address_range": {"start": "4,096", "end": "8,192"}}
    schemes = [
        {"action": "stat", "quotas": quotas, "filters": [anon, huge, addresses], "stats": {"max_nr_snapshots": "0"}}
    ]
    probe_filter = {"filter_type": "anon", "matching": True, "allow": True, "path": ""}
    probe = {"preps": [], "filters": [probe_filter | {"range_min": "0 B", "range_max": "0 B"}], "weight": 0}
    context = {"ops": "vaddr", "targets": [{"pid": 7}], "probes": [probe], "schemes": schemes}
    return {"state": "on", "pid": "20647", "refresh_ms": 0, "contexts": [context]}


def test_what_damo_tells_of_a_kdamond_that_runs_is_read() -> None:
    for data in ([read_from_files()], {"kdamonds": [read_from_files()]}):  # beside a record, and by report damon
        loaded = load(json.dumps(data))
        assert loaded.warnings == ()
        assert loaded.spec is not None
        (found,) = loaded.schemes
        assert write_short(found) == (
            "stat goal=some_mem_psi_us:10ms filter=allow:anon filter=allow:hugepage_size=2M..1G "
            "filter=allow:addr=0x1000-0x2000"
        )
        assert [[item.filter_type for item in probe.filters] for probe in loaded.spec.context.probes] == [["anon"]]


@pytest.mark.parametrize(
    ("kind", "change", "where"),
    [
        ("goals", {"nid": "1"}, "quotas.goals[0].nid"),
        ("goals", {"metric": []}, "quotas.goals[0].metric"),
        ("filters", {"address_range": {"start": "0", "end": "4096"}}, "filters[0].address_range"),
        ("filters", {"damon_target_idx": "1"}, "filters[0].damon_target_idx"),
        ("filters", {"hugepage_size": ["0 B", "1 B"]}, "filters[0].hugepage_size"),
    ],
)
def test_what_stands_in_files_of_other_kinds_is_refused(kind: str, change: dict[str, Any], where: str) -> None:
    data = read_from_files()
    found = data["contexts"][0]["schemes"][0]
    (found if kind == "filters" else found["quotas"])[kind][0] |= change
    with pytest.raises(RequestError) as error:
        load(json.dumps([data]))
    assert error.value.where == f"kdamonds[0].contexts[0].schemes[0].{where}"
