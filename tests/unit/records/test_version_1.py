"""Records of format version 1 read as they always did, and become version 2 where they are made into others."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.report_helpers import report
from tests.unit.cli.rich_record import rich
from tests.unit.records.record_samples import START_NS, as_tuple, snapshot
from tests.unit.records.version_1 import version_1

from pydamon.cli import main
from pydamon.errors import RequestError
from pydamon.records.hits import probed_regions
from pydamon.records.reader import RecordReader
from pydamon.records.side_tables import TABLES

S = START_NS


def rows(path: Path, name: str) -> list[dict[str, object]]:
    with RecordReader(path) as reader:
        return list(reader.table_rows(name))


def test_the_same_record_of_either_version_reads_the_same(tmp_path: Path) -> None:
    old, new = version_1(tmp_path / "old", "rich"), rich(tmp_path / "new", seconds=1)
    with RecordReader(old) as before, RecordReader(new) as now:
        assert (before.info.version, now.info.version) == (1, 2)
        assert [as_tuple(s) for s in before.snapshots()] == [as_tuple(s) for s in now.snapshots()]
        assert before.optional == ()
        assert before.mappings_at(0, S) == now.mappings_at(0, S) != []
        names = {entry.name for entry in now.tables()}
        assert {entry.name for entry in before.tables()} == names
        for name in names:
            assert [piece.schema for piece in before.table(name)] == [piece.schema for piece in now.table(name)]
            assert list(before.table_rows(name)) == list(now.table_rows(name)) != []
        probed = [part for piece in before.table("probe_hits") for part in probed_regions(piece)]
        assert len(probed) == 10
        assert probed[0].hits.tolist() == [[20, 10, 0], [0, 20, 20]]
        assert before.warnings() == []


@pytest.mark.parametrize("verb", ["access", "wss", "regions", "footprint", "bandwidth", "cost", "schemes", "attrs"])
def test_reports_say_the_same_of_either_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.chdir(tmp_path)
    version_1(Path("r"), "rich")
    before = report(capsys, verb, "-i", "r")
    rich(Path("r"), seconds=1)
    assert before == report(capsys, verb, "-i", "r")
    assert before[0] == 0


def test_tables_whose_types_were_those_of_their_values(tmp_path: Path) -> None:
    path = version_1(tmp_path / "r", "tables")
    with RecordReader(path) as reader:
        assert [as_tuple(s) for s in reader.snapshots()] == [
            as_tuple(snapshot(n, [(0x1000, 0x3000, 20, 7 + n), (0x3000, 0x9000, 0, n)], target=n)) for n in range(3)
        ]
        assert [(t.target, t.pid, t.command) for t in reader.info.targets] == [
            (0, 7, "program0 --flag"),
            (1, 8, "program1 --flag"),
            (2, 102, "child 2"),
        ]
        assert [piece.to_pylist() for piece in reader.table("notes")] == [[{"text": "of another program"}]]
        assert all(piece.schema == TABLES["owners"].schema for piece in reader.table("owners"))
        assert reader.warnings() == []
    assert [(r["pid"], r["command"], r["mapping"]) for r in rows(path, "owners")] == [
        (9, "postgres", "[heap]"),
        (10, "redis", None),
    ]
    assert rows(path, "reverse_map") == [{"time_ns": S, "refreshes": 1, "total_ns": 1000, "pages": 3}]
    assert rows(path, "filter_passed") == [
        {"time_ns": S, "target": 0, "start": 0x1000, "end": 0x3000, "passed_bytes": 4096}
    ]


def test_targets_of_an_import(tmp_path: Path) -> None:
    with RecordReader(version_1(tmp_path / "r", "imported")) as reader:
        assert [(t.target, t.pid, t.command) for t in reader.info.targets] == [(0, None, "target_id=77")]
        assert reader.warnings() == []


def test_what_is_made_of_one_is_of_version_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, part = version_1(tmp_path / "old", "tables"), tmp_path / "part"
    assert main(["record", "cut", "-i", str(old), "-o", str(part)]) == 0
    with RecordReader(old) as before, RecordReader(part) as now:
        assert now.info.version == 2
        assert [as_tuple(s) for s in before.snapshots()] == [as_tuple(s) for s in now.snapshots()]
        kept = [entry.name for entry in before.tables() if entry.name != "targets"]
        assert [entry.name for entry in now.tables()] == kept
    assert rows(part, "owners") == rows(old, "owners")


def test_damage_to_one_is_found_as_it_was(tmp_path: Path) -> None:
    path = version_1(tmp_path / "r", "rich")
    data = path.read_bytes()
    for length in range(0, len(data), 701):
        path.write_bytes(data[:length])
        try:
            with RecordReader(path) as reader:
                assert len(list(reader.snapshots())) <= 10
                assert reader.truncated
        except RequestError as error:
            assert "\n" not in str(error)
