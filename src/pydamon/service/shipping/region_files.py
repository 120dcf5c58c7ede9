"""Regions in the data set, with the columns of exported records.

Before those columns stand ``host``, ``monitor``, ``cgroup`` and ``minute``; times in them are of the host's own clock.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydamon.core import columns
from pydamon.dataset.files import MOST_ROWS
from pydamon.dataset.schema import VERSION, VERSION_KEY
from pydamon.records.schema import region_fields

if TYPE_CHECKING:
    import pyarrow as pa

OPTIONAL = tuple(column.name for column in columns.optional() if column.kept == "recorded")


def schema() -> pa.Schema:
    """The columns of regions in the data set."""
    import pyarrow as pa

    labels = [pa.field(name, pa.string(), nullable=False) for name in ("host", "monitor", "cgroup")]
    fields = [*labels, pa.field("minute", pa.int64(), nullable=False), *region_fields(OPTIONAL)]
    return pa.schema(fields, metadata={VERSION_KEY: str(VERSION)})


def encode(tables: Sequence[pa.Table]) -> bytes | None:
    """For a journal; None: there are none."""
    import pyarrow as pa
    from pyarrow import ipc

    if not tables:
        return None
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, schema(), options=ipc.IpcWriteOptions(compression="zstd", use_threads=False)) as writer:
        for table in tables:
            writer.write_table(table)
    return bytes(sink.getvalue())


def joined(pieces: Sequence[bytes]) -> tuple[int, bytes]:
    """One file of what was encoded, sorted by host and minute: its rows, and its bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow import ipc

    tables: list[pa.Table] = []
    for piece in pieces:
        table = ipc.open_stream(pa.py_buffer(piece)).read_all()
        if table.schema.equals(schema()) and sum(each.num_rows for each in tables) + table.num_rows <= MOST_ROWS:
            tables.append(table)
    if not tables:
        return 0, b""
    found = pa.concat_tables(tables).sort_by([(name, "ascending") for name in ("host", "minute", "monitor", "target")])
    sink = io.BytesIO()
    pq.write_table(found, sink, compression="zstd", write_page_checksum=True)
    return found.num_rows, sink.getvalue()
