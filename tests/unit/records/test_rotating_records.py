"""Recordings in parts, and reading the parts as one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from tests.unit.records.record_samples import AGGR_NS, START_NS, as_tuple, mapping, metadata, snapshot, write

from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError, RequestError
from pydamon.records.joined import JoinedRecords, open_record
from pydamon.records.reader import RecordReader
from pydamon.records.rotating import RotatingWriter, part_name
from pydamon.records.walk import walk

REGIONS = [(0x1000 * i, 0x1000 * (i + 1), i % 20, i) for i in range(1, 200)]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _rotated(count: int, **limits: Any) -> list[Snapshot]:
    """So many snapshots written in parts ``run.*.damon``, with mappings and costs."""
    snapshots = [snapshot(number, REGIONS) for number in range(count)]
    looked_up = {"refreshes": 1, "total_ns": 5, "pages": 1}
    with RotatingWriter("run.damon", metadata=metadata(7), **limits) as writer:
        writer.add_mappings(START_NS, 0, [mapping(0x1000, 0x9000, "[heap]")])
        for one in snapshots:
            writer.add_snapshot(one)
            writer.add_rows("reverse_map", [{"time_ns": one.end_ns, **looked_up}], time_ns=one.end_ns)
            writer.tick(one.end_ns)
    return snapshots


def test_names_of_parts() -> None:
    assert [part_name("run.damon", number) for number in (1, 12345)] == ["run.0001.damon", "run.12345.damon"]
    assert part_name("/a.b/run", 1) == "/a.b/run.0001"


def test_a_new_part_after_so_much_time() -> None:
    """25 snapshots of 100 ms in parts of a second: 10, 10 and 5."""
    snapshots = _rotated(25, max_ns=10**9)
    parts = sorted(os.listdir())
    assert parts == ["run.0001.damon", "run.0002.damon", "run.0003.damon"]
    held = []
    for part in parts:
        with RecordReader(part) as reader:
            assert not reader.truncated
            held.append([as_tuple(one) for one in reader.snapshots()])
    assert [len(part) for part in held] == [10, 10, 5]
    assert [one for part in held for one in part] == [as_tuple(one) for one in snapshots]


def test_a_new_part_after_so_many_bytes() -> None:
    """What is not yet flushed (a second at most) does not count."""
    _rotated(100, max_bytes=8_000)
    sizes = [Path(part).stat().st_size for part in sorted(os.listdir())]
    assert len(sizes) > 2
    assert all(size >= 8_000 for size in sizes[:-1])
    with open_record("run.*.damon") as reader:
        assert sum(1 for _ in reader.snapshots()) == 100


def test_only_the_last_parts_are_kept() -> None:
    _rotated(45, max_ns=10**9, keep=2)
    assert sorted(os.listdir()) == ["run.0004.damon", "run.0005.damon"]
    with open_record("run.*.damon") as reader:
        assert reader.time_range() == (START_NS + 30 * AGGR_NS, START_NS + 45 * AGGR_NS)


def test_a_part_that_somebody_took_away_does_no_harm() -> None:
    with RotatingWriter("run.damon", metadata=metadata(7), max_ns=AGGR_NS, keep=1) as writer:
        writer.add_snapshot(snapshot(0, REGIONS))
        os.unlink("run.0001.damon")
        writer.add_snapshot(snapshot(1, REGIONS))
    assert os.listdir() == ["run.0002.damon"]


def test_every_part_has_the_mappings_and_the_targets_that_live() -> None:
    joined = {"target": 1, "pid": 8, "command": "child", "start_ticks": 9}
    with RotatingWriter("run.damon", metadata=metadata(7), max_ns=AGGR_NS) as writer:
        writer.add_mappings(START_NS, 0, [mapping(0x1000, 0x9000, "[heap]")])
        writer.add_snapshot(snapshot(0, REGIONS))
        writer.add_rows("targets", [{"time_ns": START_NS, **joined}], time_ns=START_NS)
        writer.add_mappings(START_NS, 1, [mapping(0x1000, 0x9000, "[stack]")])
        writer.add_snapshot(snapshot(1, REGIONS))
        writer.forget_except([0])
        writer.add_snapshot(snapshot(2, REGIONS))
        assert writer.path == "run.0003.damon"
        total = writer.bytes_written
    assert total < sum(Path(part).stat().st_size for part in os.listdir())  # the end mark, the last flush
    for number, names, targets in ((2, ["[stack]"], [(0, 7), (1, 8)]), (3, [], [(0, 7)])):
        with RecordReader(part_name("run.damon", number)) as reader:
            assert [(t.target, t.pid) for t in reader.info.targets] == targets
            assert [one.name for one in reader.mappings_at(0, START_NS)] == ["[heap]"]
            assert [one.name for one in reader.mappings_at(1, START_NS)] == names
    with open_record("run.*.damon") as whole:
        assert [(t.target, t.pid) for t in whole.info.targets] == [(0, 7), (1, 8)]


def test_joined_parts_read_like_one_record() -> None:
    snapshots = _rotated(25, max_ns=10**9)
    write(Path("whole"), snapshots, pids=(7,), maps=[mapping(0x1000, 0x9000, "[heap]")])
    with open_record("run.*.damon") as joined, RecordReader("whole") as whole:
        assert isinstance(joined, JoinedRecords)
        assert [as_tuple(one) for one in joined.snapshots()] == [as_tuple(one) for one in whole.snapshots()]
        assert joined.rows == whole.rows
        assert joined.time_range() == whole.time_range()
        last, expected = joined.last_snapshots(), whole.last_snapshots()
        assert {k: as_tuple(v) for k, v in last.items()} == {k: as_tuple(v) for k, v in expected.items()}
        assert joined.mappings_at(0, START_NS + 10**9) == whole.mappings_at(0, START_NS)
        assert len(joined.mapping_times(0)) == 3
        assert [piece.num_rows for piece in joined.table("reverse_map")] == [1] * 25
        assert (joined.truncated, joined.left_out_bytes, joined.warnings()) == (False, 0, [])
        sampled = sum(len(batch.start) for batch in joined.batches(sample_rows=600))
        assert 600 <= sampled <= 5 * 600


def test_parts_are_in_the_order_of_time_whatever_their_names() -> None:
    for name, number in (("x.a", 1), ("x.b", 0), ("x.c", 2)):
        write(Path(name), [snapshot(number, [(0, 4096, number, 0)])])
    write(Path("x.empty"), [])
    with open_record("x.*") as joined:
        assert [int(one.nr_accesses[0]) for one in joined.snapshots()] == [0, 1, 2]
        assert joined.last_snapshots()[0].nr_accesses[0] == 2


def test_a_pattern_that_matches_one_file_is_that_file() -> None:
    write(Path("x.a"), [snapshot(0, [(0, 4096, 1, 0)])])
    with open_record("x.*") as reader:
        assert isinstance(reader, RecordReader)
    with pytest.raises(RequestError, match=r"^y\.\*: matches no file$"):
        open_record("y.*")


def test_a_file_whose_name_looks_like_a_pattern_is_a_file() -> None:
    write(Path("run[1].damon"), [snapshot(0, [(0, 4096, 1, 0)])])
    write(Path("run1.damon"), [snapshot(0, [(0, 4096, 2, 0)])])
    with open_record("run[1].damon") as reader:
        assert next(reader.snapshots()).nr_accesses[0] == 1


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"pids": (8,)}, "x.b: its target 0 is another process; join different recordings with: pydamon record merge"),
        ({"clock": "virtual"}, "x.b: is of another recording than the files before it"),
        ({"wall_offset_ns": 5}, "x.b: is of another recording than the files before it"),
    ],
)
def test_different_recordings_are_not_joined(other: dict[str, Any], message: str) -> None:
    from pydamon.records.writer import RecordWriter

    write(Path("x.a"), [snapshot(0, [(0, 4096, 1, 0)])], pids=(7,))
    about = metadata(*other.pop("pids", (7,)), **other)
    with RecordWriter("x.b", metadata=about) as writer:
        writer.add_snapshot(snapshot(1, [(0, 4096, 1, 0)]))
    with pytest.raises(RequestError) as error:
        open_record("x.*")
    assert str(error.value) == message


def test_damaged_parts_are_read_as_far_as_possible() -> None:
    _rotated(25, max_ns=10**9)
    os.truncate("run.0002.damon", Path("run.0002.damon").stat().st_size - 20)
    with open_record("run.*.damon") as joined:
        assert sum(1 for _ in joined.snapshots()) >= 15
        assert joined.truncated
        (line,) = joined.warnings()
        assert line.startswith("run.0002.damon: was not closed")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_part_that_cannot_be_read_is_left_out_and_said(number: int) -> None:
    """Cut anywhere within its description, empty, or something else: the other 15 or 20 snapshots are read."""
    _rotated(25, max_ns=10**9)
    part = Path(part_name("run.damon", number))
    whole = part.read_bytes()
    begin = walk(lambda offset, length: whole[offset : offset + length], len(whole), 0).frames[0].end
    rest = {1: 15, 2: 15, 3: 20}[number]
    flipped = bytearray(whole)
    flipped[8] ^= 0xFF
    for content in (b"", b"nothing of ours", b"\xff\xff\xff\xff" * 50, bytes(begin), bytes(flipped)):
        part.write_bytes(content)
        _check_left_out(part, rest)
    for length in [*range(1, begin, 41), begin - 1]:
        part.write_bytes(whole[:length])
        _check_left_out(part, rest)


def _check_left_out(part: Path, rest: int) -> None:
    with open_record("run.*.damon") as joined:
        assert sum(1 for _ in joined.snapshots()) == rest
        (line,) = joined.warnings()
        assert line.startswith(f"{part}: ")
        assert line.endswith("; this part was left out")


def test_a_part_whose_description_is_damaged_is_read() -> None:
    """Another pid in it is no other process: the checksum tells."""
    _rotated(25, max_ns=10**9)
    for number in (1, 2, 3):
        part = Path(part_name("run.damon", number))
        whole = part.read_bytes()
        part.write_bytes(whole.replace(b'"pid":7', b'"pid":8', 1))
        with open_record("run.*.damon") as joined:
            assert sum(1 for _ in joined.snapshots()) == 25
            assert joined.info.target(0).pid == 7
            assert joined.warnings() == [
                f"{part}: its description is damaged: what it says of targets and spec may be wrong"
            ]
        part.write_bytes(whole)


def test_parts_none_of_which_can_be_read_are_refused() -> None:
    for name in ("run.1", "run.2"):
        Path(name).touch()
    with pytest.raises(RequestError, match=r"^run\.1: is empty"):
        open_record("run.*")


class Disk:
    """Writes of recordings go to it, and to the file below; it may be full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        self._write = os.write
        monkeypatch.setattr("pydamon.records.writer.os.write", self._take)

    def _take(self, fd: int, data: memoryview) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._write(fd, data)


def test_a_full_disk_makes_a_pause_that_is_said_and_is_over_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, said = Disk(monkeypatch), list[str]()
    with RotatingWriter("run.damon", metadata=metadata(7), say=said.append) as writer:
        writer.add_mappings(START_NS, 0, [mapping(0x1000, 0x9000, "[heap]")])
        for number in range(600):  # a minute
            disk.full = 100 <= number < 300
            one = snapshot(number, REGIONS)
            writer.add_snapshot(one)
            writer.add_rows("targets", [{"time_ns": one.end_ns, "target": number % 3, "pid": 7, "command": "x"}])
            writer.tick(one.end_ns)
    assert said == [
        "recording pauses: run.0001.damon: cannot write to the record: the disk is full; "
        f"its first {Path('run.0001.damon').stat().st_size} bytes are kept",
        "recording goes on in run.0002.damon",
    ]
    with RecordReader("run.0001.damon") as before, RecordReader("run.0002.damon") as after:
        kept = [one.end_ns for one in before.snapshots()]
        later = [one.start_ns for one in after.snapshots()]
        assert after.info.targets[0].pid == 7
        assert [found.name for found in after.mappings_at(0, later[-1])] == ["[heap]"]
    assert (kept[-1] - START_NS) // AGGR_NS == pytest.approx(100, abs=15)
    assert (later[0] - START_NS) // AGGR_NS == pytest.approx(400, abs=101)  # tried after 10 s, and 20 s later
    assert sorted(os.listdir()) == ["run.0001.damon", "run.0002.damon"]


def test_without_pauses_a_full_disk_ends_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    with RotatingWriter("run.damon", metadata=metadata(7)) as writer:
        writer.add_snapshot(snapshot(0, REGIONS))
        disk.full = True
        with pytest.raises(PydamonError, match="the disk is full"):
            writer.add_snapshot(snapshot(20, REGIONS))
