"""Parquet, CSV and JSON lines: what is exported is read again; what is damaged is refused or counted."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.unit.records.format_samples import put, read, read_with_warnings
from tests.unit.records.record_samples import START_NS, as_tuple, snapshot, write

from pydamon.errors import PydamonError
from pydamon.records.formats.export import export
from pydamon.records.joined import open_record

REGIONS = [(0x1000, 0x3000, 20, 7), (0x3000, 0x9000, 0, 2)]
KINDS = ["parquet", "csv", "jsonl"]


def exported(tmp_path: Path, kind: str) -> Path:
    """Three snapshots of two targets in that format."""
    snapshots = [snapshot(0, REGIONS), snapshot(0, REGIONS[1:], target=1), snapshot(1, REGIONS[:1])]
    write(tmp_path / "r.damon", snapshots, pids=(7, 8))
    path = tmp_path / kind
    with open_record(str(tmp_path / "r.damon")) as reader, path.open("wb") as file:
        export(reader, file, kind)
    return path


def all_of(path: Path) -> list[object]:
    with open_record(str(path)) as reader:
        return [as_tuple(one) for one in reader.snapshots()]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_exported_is_read_again(tmp_path: Path, kind: str) -> None:
    path = exported(tmp_path, kind)
    assert all_of(path) == all_of(tmp_path / "r.damon")
    assert len(all_of(path)) == 3


def test_parquet_keeps_the_description(tmp_path: Path) -> None:
    with open_record(str(exported(tmp_path, "parquet"))) as reader:
        assert [(t.target, t.pid, t.command) for t in reader.info.targets] == [
            (0, 7, "program0 --flag"),
            (1, 8, "program1 --flag"),
        ]
        assert (reader.info.ops, reader.info.primitive) == ("vaddr", "bpf")


def test_csv_is_what_a_spreadsheet_reads(tmp_path: Path) -> None:
    assert exported(tmp_path, "csv").read_text().splitlines()[:2] == [
        "target,start_ns,end_ns,sample_us,aggr_us,start,end,nr_accesses,age,resident,unknown,age_ms",
        f"0,{START_NS},{START_NS + 10**8},5000,100000,4096,12288,20,7,,,",
    ]


def test_json_lines_are_one_object_per_region(tmp_path: Path) -> None:
    assert exported(tmp_path, "jsonl").read_text().splitlines()[0] == (
        f'{{"target":0,"start_ns":{START_NS},"end_ns":{START_NS + 10**8},"sample_us":5000,"aggr_us":100000,'
        '"start":4096,"end":12288,"nr_accesses":20,"age":7}'
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_packed_text_is_found_by_its_content(tmp_path: Path, kind: str) -> None:
    path = exported(tmp_path, kind)
    assert all_of(put(tmp_path / "x", gzip.compress(path.read_bytes()))) == all_of(path)


def test_parquet_of_others_with_columns_in_another_order_and_without_age(tmp_path: Path) -> None:
    table = pq.read_table(exported(tmp_path, "parquet"))
    table = table.select([name for name in reversed(table.column_names) if name != "age"]).replace_schema_metadata(None)
    table = table.set_column(table.column_names.index("start"), "start", table["start"].cast(pa.int64()))
    pq.write_table(table, tmp_path / "x")
    assert [one[3] for one in read(tmp_path / "x")] == [
        [(0x1000, 0x3000, 20, 0), (0x3000, 0x9000, 0, 0)],
        [(0x3000, 0x9000, 0, 0)],
        [(0x1000, 0x3000, 20, 0)],
    ]


def test_rows_without_values_are_counted(tmp_path: Path) -> None:
    path = exported(tmp_path, "csv")
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace(",2", ",")
    found, warnings = read_with_warnings(put(tmp_path / "x", "\n".join([*lines, "1,2,3"]) + "\n"))
    assert [len(one[3]) for one in found] == [1, 1, 1]
    assert warnings == ["2 rows without usable values left out"]


def test_json_lines_that_cannot_be_understood_are_counted(tmp_path: Path) -> None:
    path = exported(tmp_path, "jsonl")
    lines = path.read_text().splitlines()
    extra = [lines[0].replace('"start":4096', '"start":-1'), lines[0].replace("20", "99999999999"), "{", "nonsense"]
    found, warnings = read_with_warnings(put(tmp_path / "x", "\n".join([lines[0], *extra, *lines[1:]])))
    assert len(found) == 3
    assert warnings == ["4 rows without usable values left out"]


@pytest.mark.parametrize("kind", KINDS)
def test_cut_anywhere_is_an_error_or_what_came_before(tmp_path: Path, kind: str) -> None:
    path = exported(tmp_path, kind)
    data, whole = path.read_bytes(), all_of(path)
    for size in range(0, len(data), 1 + len(data) // 60):
        try:
            found = all_of(put(tmp_path / "x", data[:size]))
        except PydamonError as error:
            assert "\n" not in str(error)
        else:
            assert found[:-1] == whole[: len(found)][:-1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"target,start_ns,end_ns,sample_us,aggr_us,start,end,nr_accesses,age\n", "holds no snapshot"),
        (b"target,start_ns,end_ns,sample_us,aggr_us,start,end,nr_accesses\n0,1,2,3,4,x,6,7\n", "is not CSV of regions"),
        (
            b"target,start_ns,end_ns,sample_us,aggr_us,start,end,nr_accesses\n0,1,nan,3,4,1,6,7\n",
            "1 row without usable values left out",
        ),
        (b'{"start_ns": 1}\n', "holds no snapshot: 1 row without usable values left out"),
        (b"PAR1" + b"x" * 1000, "is not Parquet of regions, or damaged"),
        (b"PAR1", "is not Parquet of regions, or damaged"),
    ],
)
def test_what_is_no_table_of_regions(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(PydamonError) as caught:
        read(put(tmp_path / "x", content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parquet_of_something_else(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x")
    with pytest.raises(PydamonError, match="is Parquet, but has no column 'target'"):
        read(tmp_path / "x")
