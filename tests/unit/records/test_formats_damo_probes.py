"""Hits of probes in records of damo: imported beside the regions, with what the probes are about if that is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.records.format_samples import Made, damo_object, damo_record, put, read_with_warnings, some

from pydamon.records.formats.export import export
from pydamon.records.hits import ProbedRegions, probed_regions
from pydamon.records.joined import open_record

# As damo 3.4.3 writes them.
PROBES = [
    {"preps": [], "filters": [{"filter_type": "anon", "matching": True, "allow": True, "path": None}], "weight": 0},
    {
        "preps": [{"prep_action": "set_pgidle"}],
        "filters": [{"filter_type": "memcg", "matching": True, "allow": False, "path": "/a", "range_min": None}],
        "weight": 100,
    },
]


def kdamonds(probes: Any) -> list[dict[str, Any]]:
    return [{"contexts": [{"ops": "vaddr", "intervals": {"sample_us": "5 ms", "aggr_us": "100 ms"}, "probes": probes}]}]


def with_hits(made: list[Made], **changes: Any) -> dict[str, Any]:
    """Each region has hits of two probes: its place in the snapshot, and 20."""
    about = damo_object(made) | changes
    for snapshot in about["snapshots"]:
        for place, region in enumerate(snapshot["regions"]):
            region["probe_hits"] = [place, "20"]
    return about


def found(path: Path) -> list[ProbedRegions]:
    with open_record(str(path)) as reader:
        return [part for piece in reader.table("probe_hits") for part in probed_regions(piece)]


def test_hits_come_with_what_the_probes_are_about(tmp_path: Path) -> None:
    path = put(tmp_path / "r", damo_record(with_hits(some(3))))
    (tmp_path / "r.kdamonds").write_text(json.dumps(kdamonds(PROBES)))
    parts = found(path)
    assert [part.hits.tolist() for part in parts] == [[[0, 1, 2], [20, 20, 20]]] * 3
    assert {(part.attributes, part.weights) for part in parts} == {(("anon", "not memcg /a"), (0, 100))}
    with open_record(str(path)) as reader:
        assert [part.time_ns for part in parts] == [one.end_ns for one in reader.snapshots()]
        assert [part.start.tolist() for part in parts] == [one.start.tolist() for one in reader.snapshots()]


def test_a_container_says_it_itself(tmp_path: Path) -> None:
    held = {"damon_records": {"kdamonds": kdamonds(PROBES), "record_list": [with_hits(some(2))]}}
    assert found(put(tmp_path / "r", json.dumps(held)))[0].attributes == ("anon", "not memcg /a")


@pytest.mark.parametrize(
    "beside",
    [
        None,
        "",
        "[" * 100_000,
        "{}",
        "[]",
        json.dumps(kdamonds(None)),
        json.dumps(kdamonds(PROBES[:1])),  # of another record
        json.dumps(kdamonds([{"weight": -(10**400)}, {}])),
        json.dumps(kdamonds([{"weight": 2**32}, {}])),
        json.dumps(kdamonds([{"filters": [{"filter_type": "warm"}]}, {}])),
    ],
)
def test_without_it_probes_are_numbered(tmp_path: Path, beside: str | None) -> None:
    path = put(tmp_path / "r", damo_record(with_hits(some(1))))
    if beside is not None:
        (tmp_path / "r.kdamonds").write_text(beside)
    (part,) = found(path)
    assert (part.attributes, part.weights) == (("probe 0", "probe 1"), (0, 0))


@pytest.mark.parametrize("number", [-1, 2**64, 10**30, "x", [], {"": 0}, 1])
def test_a_context_that_is_not_there_has_no_probes(tmp_path: Path, number: object) -> None:
    path = put(tmp_path / "r", damo_record(with_hits(some(1), kdamond_idx=number)))
    (tmp_path / "r.kdamonds").write_text(json.dumps(kdamonds(PROBES)))
    assert found(path)[0].attributes == ("probe 0", "probe 1")


@pytest.mark.parametrize(
    "hits", [[21, 0], [-1, 0], [2**70, 0], ["x", 0], [None, 0], [[], 0], [1], [1] * 5, "11", {}, 7]
)
def test_hits_that_cannot_be_are_left_out_and_counted(tmp_path: Path, hits: object) -> None:
    about = with_hits(some(2))
    about["snapshots"][1]["regions"][1]["probe_hits"] = hits
    path = put(tmp_path / "r", damo_record(about))
    regions, warnings = read_with_warnings(path)
    assert len({row[1] for row in regions}) == 2
    assert [line for line in warnings if "hits of probes in 1 snapshot left out" in line]
    assert len(found(path)) == 1


def test_objects_one_after_the_other_are_put_in_order_with_their_hits(tmp_path: Path) -> None:
    one, other = with_hits(some(3)), with_hits(some(3, target=7, first_ns=5_150_000_000, regions=2))
    parts = found(put(tmp_path / "r", damo_record(one, other)))
    assert [part.target for part in parts] == [0, 1, 0, 1, 0, 1]
    assert [part.hits.shape for part in parts] == [(2, 3), (2, 2)] * 3
    assert sorted(part.time_ns for part in parts) == [part.time_ns for part in parts]


def test_hits_go_to_damo_and_come_back(tmp_path: Path) -> None:
    path = put(tmp_path / "r", damo_record(with_hits(some(3))))
    with open_record(str(path)) as reader, open(tmp_path / "back", "wb") as file:
        export(reader, file, "damo")
    assert [part.hits.tolist() for part in found(tmp_path / "back")] == [part.hits.tolist() for part in found(path)]
