"""Optional columns in records: written, read, joined, edited and exported; absent where they are absent, never 0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc
from tests.unit.cli.report_helpers import report
from tests.unit.records.format_samples import damo_object, damo_record, put, some
from tests.unit.records.record_samples import AGGR_NS, START_NS, as_tuple, metadata, snapshot

from pydamon.cli import main
from pydamon.core import columns
from pydamon.core.columns import Column
from pydamon.core.snapshot import Snapshot
from pydamon.library.tables import to_arrow, to_numpy
from pydamon.records.batch import RegionBatch
from pydamon.records.formats.export import export
from pydamon.records.joined import JoinedRecords, open_record
from pydamon.records.reader import RecordReader
from pydamon.records.writer import RecordWriter

REGIONS = [(0x1000, 0x3000, 20, 7), (0x3000, 0x9000, 0, 2)]
NAME = "sz_filter_passed"
UNKNOWN = 2**64 - 1


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_passed(number: int, passed: list[int], *, target: int = 0) -> Snapshot:
    return snapshot(number, REGIONS, target=target).replace(sz_filter_passed=np.array(passed, np.uint64))


SOME = [with_passed(0, [8192, 0]), snapshot(1, REGIONS), with_passed(2, [UNKNOWN, 4096])]
PASSED = [[8192, 0], None, [UNKNOWN, 4096]]


def record(path: str, snapshots: list[Snapshot], optional: tuple[str, ...] = (NAME,), pid: int = 7) -> str:
    about = metadata(pid)
    about["targets"][0]["start_ticks"] = 5
    with RecordWriter(path, metadata=about, optional=optional) as writer:
        for one in snapshots:
            writer.add_snapshot(one)
    return path


def passed(path: str) -> list[list[int] | None]:
    """The column of each snapshot; None where it is absent."""
    with open_record(path) as reader:
        found = [one.column(NAME) for one in reader.snapshots()]
    return [None if values is None else values.tolist() for values in found]


def test_it_comes_back_and_is_absent_where_it_was() -> None:
    record("r", SOME)
    assert passed("r") == PASSED
    with RecordReader("r") as reader:
        assert reader.optional == (NAME,)
        assert [as_tuple(s) for s in reader.snapshots()] == [as_tuple(s) for s in SOME]
        last = reader.last_snapshots()[0].column(NAME)
        assert last is not None
        assert last.tolist() == [UNKNOWN, 4096]
        assert [batch.column(NAME) for batch in reader.batches(columns=("age",))] == [None]
        (batch,) = reader.batches(columns=(NAME,))
        assert batch.age.tolist() == [0] * 6
        assert batch.columns[NAME].tolist() == [8192, 0, UNKNOWN, UNKNOWN, UNKNOWN, 4096]
        assert reader.warnings() == []


def test_other_programs_see_null() -> None:
    with pa.OSFile(record("r", SOME)) as file, ipc.open_stream(file) as stream:
        table = stream.read_all()
    assert table[NAME].to_pylist() == [8192, 0, None, None, None, 4096]


def test_a_record_without_it_says_so() -> None:
    record("r", SOME, optional=())
    assert passed("r") == [None] * 3
    with RecordReader("r") as reader:
        assert reader.optional == ()
        assert reader.warnings() == []


def test_what_pydamon_does_not_measure_is_in_no_recording() -> None:
    with RecordWriter("r", metadata=metadata(7)) as writer:
        writer.add_snapshot(SOME[0])
    assert passed("r") == [None]


def test_batches_are_written_with_it() -> None:
    with RecordWriter("r", metadata=metadata(7), optional=(NAME,)) as writer:
        writer.add_batch(RegionBatch.of(SOME))
    assert passed("r") == PASSED


def test_of_another_type_it_is_damage() -> None:
    record("r", SOME)
    with pa.OSFile("r") as file, ipc.open_stream(file) as stream:
        schema = stream.schema
    with ipc.new_stream("other", schema.set(schema.get_field_index(NAME), pa.field(NAME, pa.float64()))):
        pass
    assert report_error("other") == f"other: is damaged: its column {NAME!r} is not of type uint64"


def report_error(path: str) -> str:
    with pytest.raises(Exception, match="damaged") as caught:
        RecordReader(path)
    return str(caught.value)


def test_parts_with_and_without_it_read_as_one() -> None:
    record("a.damon", SOME[:1])
    record("b.damon", SOME[1:2], optional=())
    with open_record("*.damon") as reader:
        assert isinstance(reader, JoinedRecords)
        assert reader.optional == (NAME,)
    assert passed("*.damon") == PASSED[:2]


def test_cut_shares_it_and_merge_keeps_it() -> None:
    record("r", SOME)
    assert main(["record", "cut", "-i", "r", "-o", "part", "--address", "0x2000-0x5000"]) == 0
    assert passed("part") == [[4096, 0], None, [UNKNOWN, 1365]]  # half of 8192; 2 of 6 pages of 4096, rounded down
    record("with", SOME[:1])
    record("without", [snapshot(1, REGIONS)], optional=())
    assert main(["record", "merge", "without", "with", "-o", "all"]) == 0
    assert passed("all") == [[8192, 0], None]
    with RecordReader("all") as reader:
        assert reader.optional == (NAME,)


def test_aggregate_combines_it_by_its_rule() -> None:
    """The mean over time, of what is known."""
    record("r", [with_passed(0, [8192, 0]), with_passed(1, [4096, UNKNOWN]), snapshot(2, REGIONS)])
    assert main(["record", "aggregate", "-i", "r", "-o", "coarse", "--factor", "3"]) == 0
    assert passed("coarse") == [[6144, 0]]
    record("r", [snapshot(number, REGIONS) for number in range(3)])
    assert main(["record", "aggregate", "-i", "r", "-o", "coarse", "--factor", "3"]) == 0
    assert passed("coarse") == [None]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_exports_have_it_and_are_read_with_it(kind: str) -> None:
    record("r", SOME)
    with open_record("r") as reader, open("out", "wb") as file:
        export(reader, file, kind)
    assert passed("out") == PASSED
    with open_record("out") as again, open_record("r") as reader:
        assert [as_tuple(s) for s in again.snapshots()] == [as_tuple(s) for s in reader.snapshots()]
        assert again.optional == (NAME,)


def test_damo_gets_back_what_it_told() -> None:
    about = damo_object(some(2))
    for region, told in zip(about["snapshots"][0]["regions"], ["8.000 KiB", "0 B", "?"], strict=True):
        region[NAME] = told
    put(Path("theirs"), damo_record(about))
    assert passed("theirs") == [[8192, 0, UNKNOWN], None]
    with open_record("theirs") as reader, open("ours", "wb") as file:
        export(reader, file, "damo")
    assert passed("ours") == [[8192, 0, 0], None]  # it has no word for what is not known


def test_several_targets_of_damo_are_put_in_order_with_it() -> None:
    objects = [damo_object(some(2), target_id=number) for number in (0, 1)]
    objects[1]["snapshots"][1]["regions"][0][NAME] = "4096"
    put(Path("theirs"), damo_record(*objects))
    with open_record("theirs") as reader:
        found = {(one.target, one.end_ns): one.column(NAME) for one in reader.snapshots()}
    assert {key: values.tolist() for key, values in found.items() if values is not None} == {
        (1, 5_200_000_000): [4096, 0, 0]
    }


def test_reports_of_regions_show_it(capsys: pytest.CaptureFixture[str]) -> None:
    record("r", SOME)
    status, out, _ = report(capsys, "regions", "-i", "r", "--json")
    found = [[region.get(NAME, "absent") for region in json.loads(line)["regions"]] for line in out.splitlines()]
    assert (status, found) == (0, [[8192, 0], ["absent"] * 2, [None, 4096]])
    lines = report(capsys, "regions", "-i", "r")[1].splitlines()
    assert lines[1].endswith(f"age 7  {NAME} 8.0 KiB")
    assert lines[4].endswith("age 7")
    assert lines[7].endswith(f"{NAME} ?")


def test_one_snapshot_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines = report(capsys, "access", "-i", record("r", SOME))[1].splitlines()
    assert [line.split()[-2:] for line in lines[3:]] == [["age", "passed"], ["ms", "?"], ["4.0", "KiB"]]
    status, out, _ = report(capsys, "access", "-i", "r", "--json")
    assert (status, [region[NAME] for region in json.loads(out)["regions"]]) == (0, [None, 4096])


def test_the_library_has_no_number_for_what_is_not_known() -> None:
    with open_record(record("r", SOME)) as reader:
        found = to_numpy(reader)[NAME]
        assert np.isnan(found).tolist() == [False, False, True, True, True, False]
        assert found[[0, 1, 5]].tolist() == [8192.0, 0.0, 4096.0]
        assert to_arrow(reader)[NAME].to_pylist() == [8192, 0, None, None, None, 4096]
    assert to_numpy(SOME[0])[NAME].dtype == np.uint64
    assert NAME not in to_numpy(SOME[1])


def test_a_new_column_needs_its_row_and_somebody_who_measures_it(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Column("idle_ms", np.uint32, "ms", "since the last access", "mean", "last", optional=True)
    monkeypatch.setattr(columns, "PER_REGION", (*columns.PER_REGION, row))
    with RecordWriter("r", metadata=metadata(7)) as writer:
        writer.add_snapshot(snapshot(0, REGIONS).replace(idle_ms=np.array([3, 2**32 - 1], np.uint32)))
        writer.add_snapshot(snapshot(1, REGIONS).replace(idle_ms=np.array([5, 7], np.uint32)))
    with RecordReader("r") as reader:
        assert reader.optional[-1] == "idle_ms"
        assert [one.columns["idle_ms"].tolist() for one in reader.snapshots()] == [[3, 2**32 - 1], [5, 7]]
    assert main(["record", "aggregate", "-i", "r", "-o", "coarse", "--factor", "2"]) == 0
    with RecordReader("coarse") as reader:
        (one,) = reader.snapshots()
    assert one.columns["idle_ms"].tolist() == [5, 7]
    assert (one.start_ns, one.end_ns) == (START_NS, START_NS + 2 * AGGR_NS)
