"""Records of a process with thousands of children: nothing that grows with those that have ended."""

from __future__ import annotations

from pathlib import Path

from tests.unit.records.record_samples import START_NS, mapping, metadata

from pydamon.records.reader import RecordReader
from pydamon.records.rotating import RotatingWriter
from pydamon.records.schema import RecordInfo, decode_metadata, encode_metadata
from pydamon.records.writer import RecordWriter

MAPS = [mapping(0x1000, 0x5000, "[heap]")]


def described(count: int) -> RecordInfo:
    return decode_metadata(encode_metadata(metadata(*range(1, count + 1))), "x")


def test_each_of_ten_thousand_targets_is_found_by_its_number() -> None:
    info = described(10_000)
    assert [info.target(number).pid for number in (0, 1, 9_999)] == [1, 2, 10_000]
    assert info.target(10_000).pid is None
    assert info.target(10_000).target == 10_000


def test_of_two_descriptions_of_one_number_the_first_counts() -> None:
    described_twice = metadata(7, 8)
    described_twice["targets"][1]["target"] = 0
    assert decode_metadata(encode_metadata(described_twice), "x").target(0).pid == 7


def test_the_writer_forgets_the_mappings_of_targets_that_ended(tmp_path: Path) -> None:
    path = tmp_path / "run.damon"
    with RecordWriter(path, metadata=metadata(1)) as writer:
        for target in range(1000):
            writer.add_mappings(START_NS + target, target, MAPS)
            writer.forget_except([0, target])
            assert len(writer._last_mappings) <= 2
        writer.add_mappings(START_NS + 2000, 0, MAPS)  # it still lives, and its mappings are as before
    with RecordReader(path) as reader:
        assert reader.mapping_times(0) == [START_NS]
        assert reader.mappings_at(500, START_NS + 5000) == MAPS  # what was written stays


def test_so_does_one_of_several_files(tmp_path: Path) -> None:
    path = str(tmp_path / "run.damon")
    with RotatingWriter(path, metadata=metadata(1), max_bytes=1 << 30, max_ns=None, keep=None) as writer:
        for target in range(100):
            writer.add_mappings(START_NS + target, target, MAPS)
            writer.forget_except([target])
            assert len(writer._writer._last_mappings) == 1
