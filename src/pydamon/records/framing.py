"""The messages of an Arrow IPC stream, found and checked without decoding them.

A message is ``ff ff ff ff``, an int32 length, that many bytes of flatbuffer (`Message.fbs` of the Arrow format), and a
body whose length the flatbuffer states. Walking over these headers finds the last snapshot of a large record without
decompressing the rest, and refuses absurd claims (more rows, or more bytes once decompressed, than can be true)
before anything is allocated for them. Nothing in a file is trusted: whatever is out of bounds raises `BadMessage`.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator

import msgspec

from pydamon.records.schema import MAX_BATCH_ROWS, MAX_METADATA_BYTES, NO_SUM, SUM_KEY

SCHEMA, DICTIONARY, BATCH = 1, 2, 3

_CONTINUATION = 0xFFFFFFFF
# Enough for the header of a region batch, so that one read usually gets all of it.
_READ_AHEAD = 4096
# Writers pad buffers to at most this many bytes.
_PADDING = 64

Read = Callable[[int, int], bytes]


class BadMessage(Exception):
    """The bytes are not a message of ours; says why in a few words."""


class Frame(msgspec.Struct, frozen=True):
    """One message: its place in the file, its kind and, for a batch, its number of rows.

    ``offset`` is where the message starts, ``header_len`` how many bytes precede its body. ``tagged`` says whether
    it has custom metadata (a side table).
    """

    offset: int
    header_len: int
    body_len: int
    kind: int
    rows: int
    tagged: bool

    @property
    def end(self) -> int:
        """Where the next message starts."""
        return self.offset + self.header_len + self.body_len


_u8 = struct.Struct("<B").unpack_from
_u16 = struct.Struct("<H").unpack_from
_i32 = struct.Struct("<i").unpack_from
_u32 = struct.Struct("<I").unpack_from
_i64 = struct.Struct("<q").unpack_from
_prefix = struct.Struct("<Ii").unpack_from

# Offsets within a flatbuffer are unsigned and point forward, so that what is out of bounds raises struct.error; only
# the way from a table back to its vtable may lead before the beginning, where unpack_from would count from the end.


def _field(data: bytes, table: int, number: int) -> int:
    """Where field ``number`` of the table is stored; 0 if it is absent (has its default)."""
    vtable = table - _i32(data, table)[0]
    if vtable < 0:
        raise BadMessage("a header points outside of itself")
    slot = 4 + 2 * number
    if slot + 2 > _u16(data, vtable)[0]:
        return 0
    offset: int = _u16(data, vtable + slot)[0]
    return table + offset if offset else 0


def _vector(data: bytes, at: int, item_size: int) -> tuple[int, int]:
    """First item and number of items of the vector that the field stored at ``at`` refers to."""
    if at == 0:
        return 0, 0
    start = at + _u32(data, at)[0]
    count: int = _u32(data, start)[0]
    if start + 4 + count * item_size > len(data):
        raise BadMessage("a header points outside of itself")
    return start + 4, count


def _pairs(data: bytes, at: int) -> Iterator[tuple[str, int, int]]:
    """(key, place of the value, its length) of the metadata that the field stored at ``at`` refers to."""
    first, count = _vector(data, at, 4)
    for index in range(count):
        entry = first + 4 * index
        entry += _u32(data, entry)[0]
        key, length = _vector(data, _field(data, entry, 0), 1)
        yield (data[key : key + length].decode("utf-8", "replace"), *_vector(data, _field(data, entry, 1), 1))


def _message(data: bytes) -> tuple[int, int, int, int]:
    """(kind, body length, header table, custom metadata field) of a message's flatbuffer; 0 for what is absent."""
    root: int = _u32(data, 0)[0]
    kind_at, header_at, length_at, custom_at = (_field(data, root, number) for number in (1, 2, 3, 4))
    return (
        _u8(data, kind_at)[0] if kind_at else 0,
        _i64(data, length_at)[0] if length_at else 0,
        header_at + _u32(data, header_at)[0] if header_at else 0,
        custom_at,
    )


def frame_at(read: Read, size: int, offset: int) -> Frame | None:
    """The message at ``offset`` of a file of ``size`` bytes; None for the end-of-stream mark.

    Raises BadMessage if no whole message starts there.
    """
    data = read(offset, min(_READ_AHEAD, size - offset))
    if len(data) < 8:
        raise BadMessage("cut short")
    marker, length = _prefix(data)
    if marker != _CONTINUATION:
        raise BadMessage("not a message")
    if length == 0:
        return None
    if not 0 < length <= MAX_METADATA_BYTES:
        raise BadMessage(f"a header of {length} bytes")
    if offset + 8 + length > size:
        raise BadMessage("cut short")
    if len(data) < 8 + length:
        data = read(offset, 8 + length)
    buffer = data[8 : 8 + length]
    rows = 0
    try:
        kind, body_len, header, custom = _message(buffer)
        if kind == BATCH and header and (rows_at := _field(buffer, header, 0)):
            rows = _i64(buffer, rows_at)[0]
    except struct.error:
        raise BadMessage("a header points outside of itself") from None
    if body_len < 0 or body_len % 8:
        raise BadMessage(f"a body of {body_len} bytes")
    frame = Frame(offset, 8 + length, body_len, kind, rows, custom != 0)
    if frame.end > size:
        raise BadMessage("cut short")
    return frame


def custom_metadata(message: bytes, frame: Frame) -> dict[str, str]:
    """The custom metadata of a message, given its bytes (at least the header)."""
    data = message[8 : frame.header_len]
    try:
        pairs = list(_pairs(data, _message(data)[3]))
    except struct.error:
        raise BadMessage("a header points outside of itself") from None
    return {key: data[at : at + length].decode("utf-8", "replace") for key, at, length in pairs}


def _sum_place(message: bytes, frame: Frame) -> int | None:
    """Where in the message its checksum is; None if it has none."""
    data = message[8 : frame.header_len]
    try:
        pairs = list(_pairs(data, _message(data)[3]))
    except struct.error:
        raise BadMessage("a header points outside of itself") from None
    places = [8 + at for key, at, length in pairs if key == SUM_KEY and length == len(NO_SUM)]
    return places[0] if len(places) == 1 else None


def _sum(message: bytes | memoryview, at: int) -> bytes:
    """The checksum of a message that has its own at ``at``."""
    view = memoryview(message)
    begun = zlib.crc32(NO_SUM.encode(), zlib.crc32(view[:at]))
    return b"%08x" % zlib.crc32(view[at + len(NO_SUM) :], begun)


def check_sum(message: bytes, frame: Frame, needed: bool) -> None:
    """Raise BadMessage if the message's checksum is wrong, or if it has none though one is ``needed``."""
    at = _sum_place(message, frame)
    if at is None:
        if needed:
            raise BadMessage("no checksum")
    elif message[at : at + len(NO_SUM)] != _sum(message, at):
        raise BadMessage("a wrong checksum")


def put_sums(data: bytearray) -> None:
    """Write the checksums of all messages in ``data`` whose metadata have `NO_SUM` under `SUM_KEY`."""

    def read(offset: int, length: int) -> bytes:
        return bytes(data[offset : offset + length])

    offset = 0
    view = memoryview(data)
    while offset < len(data):
        frame = frame_at(read, len(data), offset)
        if frame is None:
            return
        at = _sum_place(read(offset, frame.header_len), frame)
        if at is not None:
            view[offset + at : offset + at + len(NO_SUM)] = _sum(view[offset : frame.end], at)
        offset = frame.end


def buffer_sizes(message: bytes, frame: Frame) -> list[int]:
    """The decompressed sizes of the buffers of a batch or dictionary, as claimed; raises BadMessage if out of bounds.

    ``message`` is the whole message, header and body.
    """
    try:
        return _batch(message, frame)[1]
    except struct.error:
        raise BadMessage("a header points outside of itself") from None


def _batch(message: bytes, frame: Frame) -> tuple[tuple[int, ...], list[int]]:
    """(length and null count of each column in turn, decompressed size of each buffer)."""
    data = message[8 : frame.header_len]
    kind, _, header, _ = _message(data)
    if kind == DICTIONARY and header:
        at = _field(data, header, 1)
        header = at + _u32(data, at)[0] if at else 0
    if kind not in (BATCH, DICTIONARY) or not header:
        return (), []
    first, count = _vector(data, _field(data, header, 1), 16)
    nodes = struct.unpack_from(f"<{2 * count}q", data, first)
    first, count = _vector(data, _field(data, header, 2), 16)
    places = struct.unpack_from(f"<{2 * count}q", data, first)
    compressed = _field(data, header, 3) != 0
    sizes = []
    for offset, length in zip(places[::2], places[1::2], strict=True):
        if offset < 0 or length < 0 or offset + length > frame.body_len:
            raise BadMessage("a column outside of its batch")
        if compressed and length:
            if length < 8:
                raise BadMessage("a column outside of its batch")
            stated = _i64(message, frame.header_len + offset)[0]
            # -1: stored as it is behind the length.
            length = length - 8 if stated == -1 else stated
            if length < 0:
                raise BadMessage("a column of negative size")
        sizes.append(length)
    return nodes, sizes


def check_batch(message: bytes, frame: Frame, widths: tuple[int, ...], required: tuple[bool, ...]) -> None:
    """Raise BadMessage unless the message is a batch of columns of these byte widths that is safe to decode.

    Safe: no nulls in columns that are ``required``, as many rows in every column, buffers inside of the body, and
    decompressed sizes that fit the number of rows, so that decoding takes no more memory than the rows are worth.
    """
    rows = frame.rows
    if not 0 <= rows <= MAX_BATCH_ROWS:
        raise BadMessage(f"a batch of {rows} rows")
    try:
        nodes, sizes = _batch(message, frame)
    except struct.error:
        raise BadMessage("a header points outside of itself") from None
    if len(nodes) != 2 * len(widths) or len(sizes) != 2 * len(widths):
        raise BadMessage("a batch with other columns")
    for length, nulls, needed in zip(nodes[::2], nodes[1::2], required, strict=True):
        if length != rows or not 0 <= nulls <= (0 if needed else rows):
            raise BadMessage("a column with missing values")
    for width, validity, values in zip(widths, sizes[::2], sizes[1::2], strict=True):
        if validity > rows // 8 + _PADDING or not rows * width <= values <= rows * width + _PADDING:
            raise BadMessage("a column of another size")
