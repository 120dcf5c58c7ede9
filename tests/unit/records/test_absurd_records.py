"""A small record that claims as much as the format lets it costs little memory and time in every report."""

from __future__ import annotations

import ast
from pathlib import Path

import pyarrow as pa
import pytest
from tests.helpers.command import measure
from tests.unit.records.absurd_records import BYTES, INDICES, write_absurd

from pydamon.errors import RequestError
from pydamon.records.allowance import Allowance, TooMuch
from pydamon.records.reader import RecordReader
from pydamon.records.side_tables import TABLES

SOURCE = Path(__file__).parents[3] / "src/pydamon"
# What such a report may take, with a wide margin: it is some 200 MiB and 2 s of CPU time, start-up included. (It was
# gigabytes and minutes.)
_MOST_BYTES = 900 << 20
_MOST_CPU_S = 40

LONG = [
    name
    for name, table in TABLES.items()
    if any(pa.types.is_string(field.type) or pa.types.is_list(field.type) for field in table.schema)
]
RECORDS = [
    *(("index", name) for name in INDICES),
    *(("rows", name) for name in TABLES),
    *(("values", name) for name in LONG),
]
# Those that read each table, and those that go through all regions.
REPORTS = {
    "maps": ("summary", "heatmap"),
    "footprint": ("footprint",),
    "cost": ("cost",),
    "panel": ("wss --over window",),
    "schemes": ("schemes",),
    "tried_regions": ("schemes --tried",),
    "probe_hits": ("attrs",),
    "resctrl": ("bandwidth",),
    "owners": ("access",),
    "long": ("heatmap --json",),
}


@pytest.mark.slow
@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(("kind", "name"), RECORDS)
def test_reports_stay_small(tmp_path: Path, kind: str, name: str) -> None:
    path = write_absurd(tmp_path / "r", kind, name)
    assert path.stat().st_size < 20 * BYTES
    for report in REPORTS.get(name, ("wss", "heatmap")):
        done = measure("report", *report.split(), "-i", str(path), most_cpu_s=_MOST_CPU_S)
        assert done.status in (0, 1, 2), (report, done)
        assert done.most_bytes < _MOST_BYTES, report
        assert "internal error" not in done.stderr
        assert done.stderr.count("\n") <= 3


def test_more_targets_than_the_file_can_describe_are_refused(tmp_path: Path) -> None:
    path = write_absurd(tmp_path / "r", "index", "many targets")
    with RecordReader(path) as reader, pytest.raises(RequestError, match="targets, which is absurd for its size"):
        list(reader.batches())


def test_tables_that_become_too_much_are_left_out_and_said(tmp_path: Path) -> None:
    path = write_absurd(tmp_path / "r", "rows", "cost")
    with RecordReader(path) as reader:
        rows = sum(1 for _ in reader.table_rows("cost"))
        assert 0 < rows < path.stat().st_size + (1 << 16)
        (line,) = reader.warnings()
        assert line.endswith("left out: unpacked, absurdly large for this file")
        assert sum(1 for _ in reader.table_rows("cost")) == rows
        assert reader.warnings() == [line]


def test_a_piece_counts_once() -> None:
    left = Allowance(0)
    for _ in range(3):
        left.take(8, 1 << 26, 1)
    with pytest.raises(TooMuch):
        left.take(16, 1, 1)
    left.take(24, 0, (1 << 16) - 1)
    with pytest.raises(TooMuch):
        left.take(32, 0, 1)


def test_what_a_file_brings_does_not_become_objects_all_at_once() -> None:
    """`to_pylist` and the like stand nowhere; rows become objects in one place, few at a time."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in (
                "to_pylist",
                "to_pydict",
                "to_pandas",
                "to_struct_array",
            ):
                found.add((str(path.relative_to(SOURCE)), node.attr))
    assert found == {("records/side_tables.py", "to_pydict")}
