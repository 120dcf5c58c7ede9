"""Damaged records: an answer about what is valid, or one line; never another exception, never much memory."""

from __future__ import annotations

import os
import random
import resource
import struct
from pathlib import Path

import pytest
from tests.unit.records.record_samples import START_NS, mapping, snapshot, write

from pydamon.errors import PydamonError
from pydamon.records.framing import BadMessage, check_batch, frame_at
from pydamon.records.reader import RecordReader
from pydamon.records.schema import measured_names, region_fields
from pydamon.records.walk import walk

FIELDS = region_fields(measured_names())
WIDTHS = tuple(field.type.bit_width // 8 for field in FIELDS)
REQUIRED = tuple(not field.nullable for field in FIELDS)
REGIONS = [(0x1000 * i, 0x1000 * (i + 1), i, i) for i in range(1, 6)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "r"
    snapshots = [snapshot(n, REGIONS, target=t) for n in range(2) for t in range(2)]
    return write(path, snapshots, pids=(1, 2), maps=[mapping(0x1000, 0x9000, "[heap]")], flush_each=True).read_bytes()


def _ends(data: bytes) -> list[tuple[int, int]]:
    """(end of each message, snapshots up to there) of a sound record with a snapshot per batch."""

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    found, count = [], 0
    for frame in walk(read, len(data), 0).frames:
        count += frame.rows > 0
        found.append((frame.end, count))
    return found


def _use(path: Path) -> int:
    """Everything that reads a record; the number of snapshots, -1 for an error of ours."""
    try:
        with RecordReader(path) as reader:
            count = sum(len(batch) for batch in reader.batches())
            list(reader.batches(columns=(), sample_rows=3))
            reader.last_snapshots()
            reader.time_range()
            reader.mappings_at(0, START_NS)
            list(reader.table("maps"))
            assert all("\n" not in line for line in reader.warnings())
            return count
    except PydamonError as error:
        assert "\n" not in str(error)
        return -1


@pytest.mark.slow
def test_truncation_at_every_byte_leaves_the_whole_messages(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r"
    ends = _ends(sound)
    path.write_bytes(sound)
    for length in range(len(sound) - 1, -1, -1):
        os.truncate(path, length)
        if length < ends[0][0]:
            assert _use(path) == -1, length
            continue
        end, count = max((e, c) for e, c in ends if e <= length)
        with RecordReader(path) as reader:
            assert sum(len(batch) for batch in reader.batches(columns=())) == count, length
            assert (reader.truncated, reader.left_out_bytes) == (True, length - end), length
        if length % 50 == 0:
            assert _use(path) == count


def test_bytes_after_the_end_are_left_out(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(sound * 2)
    with RecordReader(path) as reader:
        assert len(list(reader.snapshots())) == 4
        assert reader.warnings() == [f"{path}: the last {len(sound)} bytes are damaged or incomplete and were left out"]


@pytest.mark.parametrize("seed", range(4))
def test_damage_anywhere_gives_an_answer_or_one_line(sound: bytes, tmp_path: Path, seed: int) -> None:
    """Bits flipped, words replaced by telling values, bytes removed or copied elsewhere."""
    chance = random.Random(seed)
    path = tmp_path / "r"
    words = [b"\xff" * 8, b"\0" * 8, struct.pack("<q", 1 << 60), struct.pack("<q", 1 << 31), struct.pack("<q", -8)]
    for _ in range(250):
        data = bytearray(sound)
        at, length = chance.randrange(len(data)), chance.randrange(1, 300)
        match chance.randrange(4):
            case 0:
                for _ in range(chance.choice([1, 1, 2, 8])):
                    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            case 1:
                data[at : at + 8] = chance.choice(words)
            case 2:
                del data[at : at + length]
            case 3:
                source = chance.randrange(len(data))
                data[at : at + length] = data[source : source + length]
        path.write_bytes(data)
        assert _use(path) <= 4


def test_a_damaged_block_costs_only_itself(sound: bytes, tmp_path: Path) -> None:
    first_end = next(end for end, count in _ends(sound) if count == 1)
    data = bytearray(sound)
    # The last bytes of the first region batch belong to a compressed buffer (the ages) and its padding.
    data[first_end - 24 : first_end] = b"\xaa" * 24
    path = tmp_path / "r"
    path.write_bytes(data)
    with RecordReader(path) as reader:
        assert sum(len(batch) for batch in reader.batches()) == 3
        assert reader.warnings() == [f"{path}: 1 damaged block (5 regions) left out"]


def _first_batch(data: bytes) -> tuple[bytearray, int, int]:
    """(the first region batch's message, its header's length, where its number of rows is stored)."""

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    frame = next(f for f in walk(read, len(data), 0).frames if f.rows)
    message = bytearray(data[frame.offset : frame.end])
    rows_at = message.index(struct.pack("<q", frame.rows), 8)
    return message, frame.header_len, rows_at


@pytest.mark.parametrize("rows", [-1, 0x7FFFFFFFFFFFFFFF, 1 << 60, (1 << 20) + 1, 100])
def test_an_absurd_number_of_rows_is_refused_before_decoding(sound: bytes, rows: int) -> None:
    message, _, at = _first_batch(sound)
    for place in range(at, len(message) - 8, 8):
        # Wherever the number of rows is stored: in the batch and in each column.
        if message[place : place + 8] == struct.pack("<q", 5):
            message[place : place + 8] = struct.pack("<q", rows)
    data = bytes(message)
    frame = frame_at(lambda offset, length: data[offset : offset + length], len(data), 0)
    assert frame is not None
    assert frame.rows == rows
    with pytest.raises(BadMessage):
        check_batch(data, frame, WIDTHS, REQUIRED)


def test_a_decompression_bomb_is_refused_before_decoding(sound: bytes) -> None:
    message, header_len, _ = _first_batch(sound)
    # A compressed buffer begins with its decompressed size: 8 bytes for each of the 5 start addresses.
    at = message.index(struct.pack("<q", 40), header_len)
    message[at : at + 8] = struct.pack("<q", 1 << 40)
    data = bytes(message)
    frame = frame_at(lambda offset, length: data[offset : offset + length], len(data), 0)
    assert frame is not None
    with pytest.raises(BadMessage, match="a column of another size"):
        check_batch(data, frame, WIDTHS, REQUIRED)


def test_damage_does_not_cost_memory(sound: bytes, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "r"
    for at in range(0, len(sound) - 8, 64):
        data = bytearray(sound)
        data[at : at + 8] = struct.pack("<q", 1 << 34)
        path.write_bytes(data)
        _use(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
