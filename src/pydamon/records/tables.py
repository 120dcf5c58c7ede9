"""Side tables: what a record holds besides the regions, in the same stream.

A side table travels as a batch without rows whose custom metadata carries its name, the time it is about, a target
where it is about one, and its content: an Arrow IPC stream with zstd in base64. Readers that know nothing of this see
only the regions.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence

import pyarrow as pa
from pyarrow import ipc

from pydamon.linux.process import Mapping
from pydamon.records.framing import BadMessage, buffer_sizes, frame_at
from pydamon.records.schema import NO_SUM, SUM_KEY
from pydamon.records.side_tables import each_row, from_columns

NAME_KEY = "pydamon.table"
DATA_KEY = "pydamon.data"
TIME_KEY = "pydamon.time_ns"
TARGET_KEY = "pydamon.target"

MAPS = "maps"
_OF_MAPPING = ("start", "end", "perms", "offset", "inode", "name")  # in the order of `Mapping`

# What is smaller is stored as it is: to compress it takes more time than all the rest, and hardly makes it smaller.
_SMALL_BYTES = 2048
# A table of more than this, decoded, is refused: nothing that we write comes near it.
_MAX_TABLE_BYTES = 1 << 27


def encode_table(name: str, table: pa.Table, time_ns: int | None, target: int | None) -> dict[str, str]:
    """The custom metadata that carries the table, with room for the message's checksum."""
    sink = pa.BufferOutputStream()
    options = ipc.IpcWriteOptions(compression="zstd" if table.nbytes > _SMALL_BYTES else None, use_threads=False)
    with ipc.new_stream(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    found = {SUM_KEY: NO_SUM, NAME_KEY: name, DATA_KEY: base64.b64encode(sink.getvalue()).decode("ascii")}
    if time_ns is not None:
        found[TIME_KEY] = str(time_ns)
    if target is not None:
        found[TARGET_KEY] = str(target)
    return found


def decode_table(text: str, take: Callable[[int, int], object]) -> pa.Table:
    """The table that `encode_table` put under ``DATA_KEY``; BadMessage if it is damaged.

    ``take`` is called with the bytes and rows that it becomes, before it does, and may raise BadMessage.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadMessage("a side table that is not base64") from None

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    # The sizes claimed inside are checked before anything is allocated for them.
    size = count = offset = 0
    while (frame := frame_at(read, len(data), offset)) is not None:
        size += sum(buffer_sizes(data[frame.offset : frame.end], frame))
        count += max(frame.rows, 0)
        if size > _MAX_TABLE_BYTES:
            raise BadMessage("a side table of absurd size")
        offset = frame.end
    take(size, count)
    try:
        table = ipc.open_stream(pa.py_buffer(data)).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise BadMessage(f"a side table that cannot be decoded ({type(error).__name__})") from None
    return table


def maps_table(time_ns: int, target: int, mappings: Sequence[Mapping]) -> pa.Table:
    """The mappings of one target at one time, as rows of the side table ``maps``."""
    columns = {name: [getattr(mapping, name) for mapping in mappings] for name in _OF_MAPPING}
    return from_columns(MAPS, columns | {"time_ns": [time_ns] * len(mappings), "target": [target] * len(mappings)})


def mappings_of(table: pa.Table) -> list[Mapping]:
    """The mappings in a piece of the side table ``maps``."""
    return [Mapping(*(row[name] for name in _OF_MAPPING)) for row in each_row(table.select(_OF_MAPPING))]
