"""Minutes in a file, one record after the other, each with its checksum: what a crash or a bad disk has left is read.

8 bytes that begin each record, the minute (or -1: the file's header), the length, CRC-32 of these and the content
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import msgspec

VERSION = 1
MOST_RECORD = 64 << 20
HEADER = -1
_MAGIC = b"\xf3pdship\n"
_HEAD = struct.Struct("<8sqII")


class Record(NamedTuple):
    """A minute (seconds since 1970) and what is told of it."""

    minute: int
    payload: bytes


class Contents(NamedTuple):
    """What could be read of a file.

    ``end`` is where its last whole record ends; ``damaged`` bytes between records are of those that are lost, ``torn``
    ones behind the last of one that was being written. ``version`` is None where there is no header.
    """

    version: int | None
    records: list[Record]
    end: int
    damaged: int
    torn: int

    @property
    def is_newer(self) -> bool:
        """Whether only a later pydamon knows what is in it."""
        return self.version is not None and self.version > VERSION


class _Header(msgspec.Struct):
    version: int


def header() -> bytes:
    """What a file begins with."""
    return encode(HEADER, msgspec.msgpack.encode(_Header(VERSION)))


def encode(minute: int, payload: bytes) -> bytes:
    """A record."""
    return _HEAD.pack(_MAGIC, minute, len(payload), _sum(minute, payload)) + payload


def _sum(minute: int, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<qI", minute, len(payload))))


def read(data: bytes) -> Contents:
    """All records of a file that are whole."""
    version, records = None, []
    at = end = damaged = 0
    while 0 <= (found := data.find(_MAGIC, at)) <= len(data) - _HEAD.size:
        record = _record(data, found)
        if record is None:
            at = found + 1
            continue
        damaged += found - end
        at = end = found + _HEAD.size + len(record.payload)
        if record.minute == HEADER:
            version = _version(record.payload) if version is None else version
        else:
            records.append(record)
    return Contents(version, records, end, damaged, len(data) - end)


def _record(data: bytes, at: int) -> Record | None:
    _, minute, length, wanted = _HEAD.unpack_from(data, at)
    begin = at + _HEAD.size
    if length > MOST_RECORD or begin + length > len(data) or minute < HEADER:
        return None
    payload = data[begin : begin + length]
    return Record(minute, payload) if _sum(minute, payload) == wanted else None


def _version(payload: bytes) -> int | None:
    try:
        return msgspec.msgpack.decode(payload, type=_Header).version
    except msgspec.MsgspecError:
        return None
