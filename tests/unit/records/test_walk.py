"""Damage between the messages of a record: what is behind it is found, within bounds."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest
from tests.unit.records.record_samples import as_tuple, snapshot, write

from pydamon.records.framing import Frame
from pydamon.records.reader import RecordReader
from pydamon.records.walk import walk

COUNT = 8
SNAPSHOTS = [snapshot(number, [(4096 * i, 4096 * (i + 1), number, i) for i in range(1, 40)]) for number in range(COUNT)]


@pytest.fixture(name="sound")
def sound_fixture(tmp_path: Path) -> bytes:
    return write(tmp_path / "r", SNAPSHOTS, flush_each=True).read_bytes()


def _frames(data: bytes) -> list[Frame]:
    return walk(lambda at, length: data[at : at + length], len(data), 0).frames


def _read(path: Path, data: bytes) -> tuple[list[int], list[str]]:
    """(the numbers of the snapshots that are read, which are as written; what is said)."""
    path.write_bytes(data)
    with RecordReader(path) as reader:
        found = [as_tuple(one) for one in reader.snapshots()]
        said = reader.warnings()
    written = [as_tuple(one) for one in SNAPSHOTS]
    return [written.index(one) for one in found], said


def test_a_flipped_bit_in_what_leads_to_the_next_message_costs_one(sound: bytes, tmp_path: Path) -> None:
    batches = [frame for frame in _frames(sound) if frame.rows]
    assert len(batches) == COUNT
    for number, frame in enumerate(batches):
        header = sound[frame.offset : frame.offset + frame.header_len]
        body_len = header.index(struct.pack("<q", frame.body_len))
        # The mark, the length of the header, and that of the body.
        for at in (*range(8), *range(body_len, body_len + 8)):
            for bit in range(8):
                damaged = bytearray(sound)
                damaged[frame.offset + at] ^= 1 << bit
                found, said = _read(tmp_path / "damaged", bytes(damaged))
                assert found == [each for each in range(COUNT) if each != number], (number, at, bit)
                # Behind the last one nothing has a checksum by which it could be found.
                assert ("damaged block" if number < COUNT - 1 else "was not closed") in said[0]
                assert number == COUNT - 1 or len(said) == 1


def test_bytes_that_are_missing_or_too_many_cost_one_message(sound: bytes, tmp_path: Path) -> None:
    frame = [each for each in _frames(sound) if each.rows][3]
    middle = frame.offset + frame.header_len + 16
    for damaged in (
        sound[:middle] + sound[middle + 16 :],
        sound[:middle] + bytes(4096) + sound[middle:],
        sound[: frame.offset] + b"\xff" * 64 + sound[frame.offset + 64 :],
        sound[: frame.offset] + bytes(frame.end - frame.offset) + sound[frame.end :],
    ):
        found, said = _read(tmp_path / "damaged", damaged)
        assert found == [0, 1, 2, 4, 5, 6, 7]
        assert "damaged block" in said[0]


@pytest.mark.parametrize("filling", ["marks", "messages"])
def test_what_is_looked_at_is_bounded(filling: str, sound: bytes, tmp_path: Path) -> None:
    """Millions of places where a message might begin; or each with a header that claims all of the rest."""
    frame = next(each for each in _frames(sound) if each.rows)
    unit = struct.pack("<Ii", 0xFFFFFFFF, 3)
    if filling == "messages":
        message = bytearray(sound[frame.offset : frame.offset + frame.header_len])
        at = message.index(struct.pack("<q", frame.body_len))
        message[at : at + 8] = struct.pack("<q", 16 << 20)
        unit = bytes(message)
    damaged = sound[: frame.end - 8] + bytes(8) + b"ABCDEFGH" + unit * ((32 << 20) // len(unit))
    begun = time.process_time()
    found, said = _read(tmp_path / "damaged", damaged)
    assert time.process_time() - begun < 20
    assert found == []
    assert said
