"""What the reader yields from sound records, and from files that other programs wrote."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc
from tests.unit.records.record_samples import START_NS, Region, as_tuple, metadata, snapshot, write

import pydamon.records.reader as reader_module
from pydamon.core.snapshot import Snapshot
from pydamon.errors import RequestError
from pydamon.records.reader import RecordReader
from pydamon.records.schema import encode_metadata, region_schema
from pydamon.records.writer import RecordWriter

REGIONS = [(0x1000, 0x3000, 20, 7), (0x3000, 0x9000, 0, 2)]


@st.composite
def _snapshots(draw: st.DrawFn) -> list[Snapshot]:
    found = []
    for number in range(draw(st.integers(0, 12))):
        bounds = sorted(draw(st.sets(st.integers(0, 2**64 - 1), min_size=2, max_size=9)))
        regions: list[Region] = [
            (start, end, draw(st.integers(0, 20)), draw(st.integers(0, 2**32 - 1)))
            for start, end in pairwise(bounds)
            if draw(st.booleans())
        ]
        if regions:
            found.append(snapshot(number // 2, regions, target=draw(st.integers(0, 2))))
    # Two snapshots of one target and time would be one snapshot.
    return list({(s.target, s.start_ns): s for s in found}.values())


@settings(max_examples=60, deadline=None)
@given(snapshots=_snapshots(), flush_each=st.booleans(), chunk=st.sampled_from([1, 5, 1 << 17]))
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, snapshots: list[Snapshot], flush_each: bool, chunk: int
) -> None:
    path = write(tmp_path_factory.mktemp("r") / "r", snapshots, pids=(5, 6, 7), flush_each=flush_each)
    with pytest.MonkeyPatch.context() as patch, RecordReader(path) as reader:
        patch.setattr(reader_module, "_CHUNK_ROWS", chunk)
        expected = [as_tuple(s) for s in snapshots]
        assert [as_tuple(s) for s in reader.snapshots()] == expected
        assert [as_tuple(s) for s in reader.snapshots(target=1)] == [e for e in expected if e[0] == 1]
        last = {e[0]: e for e in expected}
        assert {t: as_tuple(s) for t, s in reader.last_snapshots().items()} == last
        times = (min(e[1] for e in expected), max(e[2] for e in expected)) if expected else None
        assert reader.time_range() == times
        assert reader.warnings() == []


def test_the_description_comes_back(tmp_path: Path) -> None:
    with RecordReader(write(tmp_path / "r", [], pids=(7, 8))) as reader:
        info = reader.info
        assert [(t.target, t.pid, t.command) for t in info.targets] == [
            (0, 7, "program0 --flag"),
            (1, 8, "program1 --flag"),
        ]
        assert (info.ops, info.primitive, info.clock) == ("vaddr", "bpf", "monotonic")
        assert info.machine["page_bytes"] == os.sysconf("SC_PAGE_SIZE")
        assert info.target(9).pid is None


def joined(number: int, **more: Any) -> dict[str, Any]:
    return {"time_ns": 5, "target": number, "pid": 100 + number, "command": f"child {number}", "start_ticks": 7} | more


def test_targets_that_joined_are_described(tmp_path: Path) -> None:
    with RecordWriter(tmp_path / "r", metadata=metadata(7)) as writer:
        writer.add_rows("targets", [joined(1), joined(2)], time_ns=5)
        writer.add_snapshot(snapshot(0, REGIONS, target=2))
        writer.add_rows("targets", [joined(3)], time_ns=6)
    with RecordReader(tmp_path / "r") as reader:
        assert [t.target for t in reader.info.targets] == [0, 1, 2, 3]
        assert reader.info.target(0).pid == 7
        found = reader.info.target(3)
        assert (found.pid, found.command, found.start_ticks) == (103, "child 3", 7)
        assert reader.warnings() == []


@pytest.mark.parametrize(
    "rows",
    [
        [{"target": 1, "pid": 5}],
        [joined(1, pid=None)],
        [joined(1, pid="5")],
        [joined(1, command=None)],
        [joined(1, target=-1)],
        [joined(1, start_ticks=True)],
    ],
)
def test_a_table_of_targets_of_another_form_is_left_out(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with RecordWriter(tmp_path / "r", metadata=metadata(7)) as writer:
        writer.add_opaque("targets", pa.Table.from_pylist(rows))
        writer.add_rows("targets", [joined(2)])
    with RecordReader(tmp_path / "r") as reader:
        assert [t.target for t in reader.info.targets] == [0, 2]
        assert len(reader.warnings()) == 1


def test_without_ages_the_rest_is_the_same(tmp_path: Path) -> None:
    with RecordReader(write(tmp_path / "r", [snapshot(n, REGIONS) for n in range(3)])) as reader:
        (batch,) = reader.batches(columns=())
    assert batch.age.tolist() == [0] * 6
    assert batch.nr_accesses.tolist() == [20, 0] * 3


def test_a_sample_is_spread_over_the_record_and_fair_to_targets(tmp_path: Path) -> None:
    snapshots = [snapshot(n, REGIONS, target=t) for n in range(400) for t in range(2)]
    with RecordReader(write(tmp_path / "r", snapshots, pids=(1, 2))) as reader:
        batches = list(reader.batches(sample_rows=200))
    picked = np.concatenate([batch.target for batch in batches])
    times = np.concatenate([batch.start_ns for batch in batches])
    assert 40 <= len(picked) <= 160
    assert 0.3 < picked.mean() < 0.7
    assert times.min() == START_NS
    assert times.max() > START_NS + 0.95 * 400 * 100_000_000


def test_the_last_snapshot_of_a_target_that_ended_early_is_found(tmp_path: Path) -> None:
    snapshots = [snapshot(0, REGIONS, target=1), *(snapshot(n, REGIONS) for n in range(1, 50))]
    with RecordReader(write(tmp_path / "r", snapshots, pids=(1, 2, 3), flush_each=True)) as reader:
        last = reader.last_snapshots()
    assert {t: s.start_ns for t, s in last.items()} == {0: snapshots[-1].start_ns, 1: START_NS}


def _rewrite(path: Path, columns: dict[str, Any], *, compression: str | None = None) -> Path:
    """A record as another Arrow writer would write it: no index, other batches, perhaps no compression."""
    schema = region_schema(encode_metadata(metadata(1)))
    table = pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema=schema)
    with ipc.new_stream(str(path), schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=3)
    return path


def _columns(snapshots: list[Snapshot]) -> dict[str, list[int]]:
    rows = [(s, *row) for s in snapshots for row in as_tuple(s)[5]]
    return {
        "target": [r[0].target for r in rows],
        "start_ns": [r[0].start_ns for r in rows],
        "end_ns": [r[0].end_ns for r in rows],
        "sample_us": [r[0].sample_us for r in rows],
        "aggr_us": [r[0].aggr_us for r in rows],
        "start": [r[1] for r in rows],
        "end": [r[2] for r in rows],
        "nr_accesses": [r[3] for r in rows],
        "age": [r[4] for r in rows],
    }


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_record_rewritten_by_another_program_reads_the_same(tmp_path: Path, compression: str | None) -> None:
    snapshots = [snapshot(n, REGIONS, target=n % 2) for n in range(7)]
    path = _rewrite(tmp_path / "r", _columns(snapshots), compression=compression)
    with RecordReader(path) as reader:
        assert [as_tuple(s) for s in reader.snapshots()] == [as_tuple(s) for s in snapshots]
        assert as_tuple(reader.last_snapshots()[1]) == as_tuple(snapshots[5])
        assert reader.warnings() == []


@pytest.mark.parametrize(
    ("row", "changes", "regions_left", "warning"),
    [
        (1, {"end": 0x2FFF}, 3, "1 impossible region left out"),
        (1, {"start": 0x2000}, 3, "1 impossible region left out"),
        (0, {"nr_accesses": 21}, 3, "1 impossible region left out"),
        (2, {"end": 2**64 - 1}, 3, "1 impossible region left out"),
        (3, {"start": 0x9000}, 3, "1 impossible region left out"),
        (0, {"aggr_us": 2**63}, 2, "1 snapshot out of time order left out"),
        (0, {"start_ns": -5}, 3, "1 snapshot out of time order left out"),
        (3, {"start_ns": START_NS + 5, "end_ns": START_NS + 4}, 3, "1 snapshot out of time order left out"),
        (3, {"end_ns": START_NS + 1, "start_ns": START_NS}, 3, "1 snapshot out of time order left out"),
    ],
)
def test_impossible_values_are_left_out_and_counted(
    tmp_path: Path, row: int, changes: dict[str, int], regions_left: int, warning: str
) -> None:
    columns = _columns([snapshot(0, REGIONS), snapshot(1, REGIONS)])
    for name, value in changes.items():
        columns[name][row] = value
    with RecordReader(_rewrite(tmp_path / "r", columns)) as reader:
        assert sum(len(batch.start) for batch in reader.batches()) == regions_left
        (line,) = reader.warnings()
    assert line.startswith(f"{tmp_path / 'r'}: {warning}")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.remove(8), "is damaged: it has no column 'age'"),
        (lambda s: s.set(5, pa.field("start", pa.int64())), "is damaged: its column 'start' is not of type uint64"),
        (lambda s: s.append(pa.field("age", pa.uint32())), "is damaged: it has no column 'age'"),
        (lambda s: s.append(pa.field("x", pa.string())), "is damaged: its column 'x' is not a number"),
        (lambda s: s.remove_metadata(), "is an Arrow stream, but not a pydamon record"),
        (lambda s: s.with_metadata({"pydamon": "{"}), "its description is damaged"),
        (lambda s: s.with_metadata({"pydamon": "[" * 100_000}), "its description is damaged"),
        (lambda s: s.with_metadata({"pydamon": '{"version":1,"targets":7}'}), "its description is damaged"),
        (lambda s: s.with_metadata({"pydamon": '{"version":9}'}), "is a record of format version 9; this pydamon"),
    ],
)
def test_foreign_and_damaged_schemas_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "r"
    with ipc.new_stream(str(path), change(region_schema(encode_metadata(metadata(1))))):
        pass
    with pytest.raises(RequestError) as caught:
        RecordReader(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_columns_that_a_later_version_adds_are_ignored(tmp_path: Path) -> None:
    schema = region_schema(encode_metadata(metadata(1))).append(pa.field("filter_passed_bytes", pa.uint64()))
    path = tmp_path / "r"
    one = snapshot(0, REGIONS)
    columns = {**_columns([one]), "filter_passed_bytes": [5, 6]}
    with ipc.new_stream(str(path), schema) as writer:
        writer.write_batch(pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema))
    with RecordReader(path) as reader:
        assert [as_tuple(s) for s in reader.snapshots()] == [as_tuple(one)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: None, "there is no such file; name a record with -i FILE"),
        (lambda p: p.touch(), "is empty; it is not a pydamon record"),
        (lambda p: p.mkdir(), "is a directory, not a pydamon record"),
        (lambda p: os.mkfifo(p), "is not a regular file, not a pydamon record"),
        (lambda p: p.write_text("hello\n" * 100), "is not a pydamon record"),
        (lambda p: p.write_bytes(b"\xff\xff\xff\xff\x00\x00\x00\x00"), "is not a pydamon record"),
        (lambda p: p.write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f" * 9), "is not a pydamon record"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "r"
    make(path)
    with pytest.raises(RequestError) as caught:
        RecordReader(path)
    assert str(caught.value) == f"{path}: {message}"
