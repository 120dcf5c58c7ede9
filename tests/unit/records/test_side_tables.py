"""Side tables: written with the types that they are declared with, held to them when read; others are opaque."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.unit.records.record_samples import START_NS, mapping, metadata, snapshot

from pydamon.cli import main
from pydamon.core.scheme_state import SchemeState, SchemeStats, Tried
from pydamon.records.framing import BadMessage
from pydamon.records.reader import RecordReader
from pydamon.records.scheme_tables import scheme_rows, tried_table
from pydamon.records.side_tables import TABLES, conform, from_rows
from pydamon.records.writer import RecordWriter
from pydamon.spec import from_builtins

FOOTPRINT = {"time_ns": 5, "target": 0, "virtual_bytes": 3, "resident_bytes": 2, "swap_bytes": 1}


def written(path: Path, name: str, *tables: pa.Table) -> Path:
    """A record with these pieces as they are."""
    with RecordWriter(path, metadata=metadata(1)) as writer:
        writer.add_snapshot(snapshot(0, [(0, 4096, 1, 0)]))
        for table in tables:
            writer.add_opaque(name, table)
    return path


@pytest.mark.parametrize(
    ("name", "row", "error"),
    [
        ("colours", {"time_ns": 5}, KeyError),
        ("footprint", FOOTPRINT | {"colour": 1}, KeyError),
        ("footprint", {"time_ns": 5, "target": 0}, pa.ArrowInvalid),
        ("footprint", FOOTPRINT | {"resident_bytes": None}, pa.ArrowInvalid),
        ("footprint", FOOTPRINT | {"swap_bytes": "1"}, pa.ArrowException),
    ],
)
def test_what_is_not_declared_is_not_written(tmp_path: Path, name: str, row: Any, error: type[Exception]) -> None:
    with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer, pytest.raises(error):
        writer.add_rows(name, [row])
    with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer, pytest.raises((KeyError, BadMessage)):
        writer.add_table("colours" if name == "colours" else "maps", pa.Table.from_pylist([row]))


def test_types_do_not_depend_on_values() -> None:
    nothing = {"time_ns": 5, "target": 0, "group": "/", "domain": 1}
    assert from_rows("resctrl", [nothing]).schema == from_rows("resctrl", [nothing | {"mbm_total_bytes": 7}]).schema
    assert from_rows("resctrl", [nothing]).to_pylist()[0]["llc_occupancy_bytes"] is None


def test_names_that_are_no_text_become_some(tmp_path: Path) -> None:
    """A program, and a file, may be called by any bytes; Python has them as surrogates."""
    with RecordWriter(tmp_path / "r", metadata=metadata(1)) as writer:
        row = {"time_ns": 5, "target": 1, "pid": 7, "command": "a\udcffb", "start_ticks": 1}
        writer.add_rows("targets", [row])
        writer.add_mappings(START_NS, 0, [mapping(0, 4096, "/tmp/n\udcff")])
    with RecordReader(tmp_path / "r") as reader:
        assert reader.info.target(1).command == "a?b"
        assert reader.mappings_at(0, START_NS)[0].name == "/tmp/n?"


@pytest.mark.parametrize(
    "changes",
    [
        {"time_ns": None},
        {"target": "0"},
        {"target": -1},
        {"target": 2**32},
        {"swap_bytes": 1.5},
        {"swap_bytes": True},
        {"resident_bytes": [1]},
    ],
)
def test_what_cannot_have_the_declared_types_is_left_out_and_counted_once(tmp_path: Path, changes: Any) -> None:
    strange = pa.Table.from_pylist([FOOTPRINT | changes])
    path = written(tmp_path / "r", "footprint", strange, pa.Table.from_pylist([FOOTPRINT | {"more": 1}]))
    with RecordReader(path) as reader:
        assert list(reader.table_rows("footprint")) == [FOOTPRINT]
        assert list(reader.table_rows("footprint")) == [FOOTPRINT]
        assert reader.warnings() == [f"{path}: 1 damaged side table left out"]


def test_a_piece_of_too_many_rows_is_refused_before_it_becomes_objects(tmp_path: Path) -> None:
    few = TABLES["footprint"].most_rows
    columns = {name: np.zeros(few + 1, np.uint8) for name in FOOTPRINT}
    with pytest.raises(BadMessage, match="rows"):
        conform("footprint", pa.table(columns))
    assert conform("footprint", pa.table(columns).slice(1)).num_rows == few


def test_columns_that_stand_twice_are_refused() -> None:
    twice = pa.Table.from_arrays([pa.array([1])] * 6, names=[*FOOTPRINT, "target"])
    with pytest.raises(BadMessage):
        conform("footprint", twice)


def test_tables_of_others_are_listed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "r", "notes", pa.table({"time_ns": [7], "target": ["x"], "text": ["hello"]}))
    assert main(["report", "info", "-i", str(path)]) == 0
    assert "table notes: 1 piece" in capsys.readouterr().out
    for verb in ("cut", "merge"):
        arguments = ["-i", str(path)] if verb == "cut" else [str(path)]
        assert main(["record", verb, *arguments, "-o", str(tmp_path / verb)]) == 0
        with RecordReader(tmp_path / verb) as reader:
            found = [row for piece in reader.table("notes") for row in piece.to_pylist()]
            assert found == [{"time_ns": 7, "target": "x", "text": "hello"}]


def test_what_schemes_did_and_tried() -> None:
    spec = from_builtins({"kdamonds": [{"contexts": [{"ops": "paddr", "schemes": [{"action": "stat"}]}]}]})
    state = SchemeState(spec.kdamonds[0].contexts[0].schemes[0])
    state.stats.sz_tried = 2**64 - 1
    (row,) = from_rows("schemes", scheme_rows(9, [state])).to_pylist()
    assert (row["scheme"], row["action"], row["sz_tried"], row["time_ns"]) == (0, "stat", 2**64 - 1, 9)
    assert {field.name for field in fields(SchemeStats)} < row.keys()
    u64, i64 = np.array([4096], np.uint64), np.array([3], np.int64)
    (tried,) = tried_table(9, 1, Tried(2, u64, u64 * 2, i64, i64, u64, u64)).to_pylist()
    assert (tried["scheme"], tried["target"], tried["start"], tried["end"], tried["age"]) == (1, 2, 4096, 8192, 3)
