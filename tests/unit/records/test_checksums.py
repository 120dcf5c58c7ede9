"""Version 2: what is damaged is said, whatever bit it was; records of other programs need no checksums."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc
from tests.unit.records.record_samples import START_NS, as_tuple, mapping, snapshot, write

from pydamon.errors import RequestError
from pydamon.records.framing import BATCH, BadMessage, Frame, check_sum
from pydamon.records.reader import RecordReader
from pydamon.records.schema import SUM_KEY
from pydamon.records.walk import walk

REGIONS = [(0x1000 * i, 0x1000 * (i + 1), i, i) for i in range(1, 6)]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    snapshots = [snapshot(number, REGIONS) for number in range(2)]
    return write(tmp_path / "r", snapshots, maps=[mapping(0x1000, 0x9000, "[heap]")], flush_each=True)


def _messages(data: bytes) -> list[Frame]:
    return walk(lambda offset, length: data[offset : offset + length], len(data), 0).frames


def _all(path: Path) -> tuple[Any, ...]:
    """What a reader finds, and what it says about it; only the error where it is refused."""
    try:
        with RecordReader(path) as reader:
            found = [as_tuple(s) for s in reader.snapshots()], reader.mappings_at(0, START_NS), reader.info.targets
            return *found, reader.warnings()
    except RequestError as error:
        return ([], [], (), [str(error)])


def test_every_batch_has_one_that_is_right(sound: Path) -> None:
    data = sound.read_bytes()
    batches = [frame for frame in _messages(data) if frame.kind == BATCH]
    assert len(batches) == 3  # mappings, and two snapshots
    for frame in batches:
        message = data[frame.offset : frame.end]
        assert message.count(SUM_KEY.encode()) == 1
        check_sum(message, frame, needed=True)
        with pytest.raises(BadMessage, match="checksum"):
            check_sum(message[:-1] + bytes([message[-1] ^ 1]), frame, needed=False)


@pytest.mark.parametrize("first", range(8))
def test_no_flipped_bit_gives_other_values_silently(sound: Path, first: int) -> None:
    """Of the batches and of the description; the eight runs take each bit of a byte in turn."""
    data = bytearray(sound.read_bytes())
    expected = _all(sound)
    assert expected[3] == []
    about = data.index(b'{"version"')
    end = data.index(b"}", data.index(b'"page_bytes"'))
    places = [*range(about, end, 31), *range(_messages(bytes(data))[1].offset, len(data) - 8, 31)]
    said = 0
    for place in places:
        bit = (first + place) % 8
        data[place] ^= 1 << bit
        sound.write_bytes(data)
        found = _all(sound)
        if found[3] == []:
            assert found == expected, (place, bit)
        said += found[3] != []
        data[place] ^= 1 << bit
    assert said > 0.9 * len(places)  # the rest are the names of keys, and padding of headers


def test_nor_where_only_the_regions_are_read(sound: Path) -> None:
    """All bytes of the headers, one bit each: what is lost is said, also without looking at the side tables."""
    data = bytearray(sound.read_bytes())
    expected = _regions(sound)
    for frame in _messages(bytes(data)):
        for place in range(frame.offset, frame.offset + frame.header_len):
            data[place] ^= 1 << (place * 5 + 3) % 8
            sound.write_bytes(data)
            found, warnings = _regions(sound)
            assert found == expected[0] or warnings, place
            data[place] ^= 1 << (place * 5 + 3) % 8


def _regions(path: Path) -> tuple[list[Any], list[str]]:
    try:
        with RecordReader(path) as reader:
            return [as_tuple(s) for s in reader.snapshots()], reader.warnings()
    except RequestError as error:
        return [], [str(error)]


def test_a_damaged_description_is_said_and_the_record_is_read(sound: Path) -> None:
    data = sound.read_bytes()
    sound.write_bytes(data.replace(b'"pid":1234', b'"pid":1235', 1))
    snapshots, mappings, targets, warnings = _all(sound)
    assert len(snapshots) == 2
    assert len(mappings) == 1
    assert targets[0].pid == 1235
    assert warnings == [f"{sound}: its description is damaged: what it says of targets and spec may be wrong"]


def test_a_damaged_side_table_is_left_out(sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    place = data.index(b"pydamon.time_ns") - 40  # in the data of the table, which still are base64 then
    data[place] = ord("A") if data[place] != ord("A") else ord("B")
    sound.write_bytes(data)
    snapshots, mappings, _, warnings = _all(sound)
    assert (len(snapshots), mappings) == (2, [])
    assert warnings == [f"{sound}: 1 damaged side table left out"]


def test_a_record_that_another_program_has_rewritten_has_none(sound: Path, tmp_path: Path) -> None:
    expected = _all(sound)[0]
    with pa.OSFile(str(sound)) as file, ipc.open_stream(file) as stream:
        table = stream.read_all()
    other = tmp_path / "other"
    with ipc.new_stream(str(other), table.schema) as writer:
        writer.write_table(table)
    snapshots, _, _, warnings = _all(other)
    assert (snapshots, warnings) == (expected, [])
