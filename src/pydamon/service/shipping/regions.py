"""The regions of a host whose turn it is: a snapshot of each target a minute, with the columns of exported records.

Before those columns stand ``host``, ``monitor``, ``cgroup`` and ``minute``; times in them are of the host's own clock.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydamon.core import columns
from pydamon.dataset.files import MOST_ROWS
from pydamon.dataset.schema import VERSION, VERSION_KEY
from pydamon.errors import PydamonError
from pydamon.records.batch import RegionBatch
from pydamon.records.decode import Rows
from pydamon.records.region_rows import region_rows
from pydamon.records.schema import region_fields
from pydamon.run.found import Origin
from pydamon.service.client import Client
from pydamon.service.shipping.groups import groups
from pydamon.service.shipping.rows import Seen
from pydamon.views.passing import received

if TYPE_CHECKING:
    import pyarrow as pa

_ASK_S = 5.0
_ORIGIN = Origin(None, None, None, None, None, [], None)
_OPTIONAL = tuple(column.name for column in columns.optional() if column.kept == "recorded")


def schema() -> pa.Schema:
    """The columns of regions in the data set."""
    import pyarrow as pa

    labels = [pa.field(name, pa.string(), nullable=False) for name in ("host", "monitor", "cgroup")]
    fields = [*labels, pa.field("minute", pa.int64(), nullable=False), *region_fields(_OPTIONAL)]
    return pa.schema(fields, metadata={VERSION_KEY: str(VERSION)})


def look(seen: Sequence[Seen], host: str, minute: int) -> bytes | None:
    """The regions of all monitors now; one that does not answer is left out. None: there are none."""
    tables = []
    for one in seen:
        try:
            told = Client(one.name, timeout_s=_ASK_S).moments()["moments"]
        except (PydamonError, KeyError):
            continue
        cgroups = {
            held.target.target: group.name
            for group in groups([(one.name, one.view)], 1 << 30)[0]
            for held in group.held
        }
        table = rows(told, host, one.name, cgroups, minute)
        if table is not None:
            tables.append(table)
    return encode(tables)


def rows(told: Sequence[Any], host: str, monitor: str, cgroups: Mapping[int, str], minute: int) -> pa.Table | None:
    """The regions in what a monitor has passed, of the last moment; None if there are none, or they cannot be."""
    import numpy as np
    import pyarrow as pa

    try:
        moments = received(told[-1:], _ORIGIN)
    except PydamonError:
        return None
    snapshots = [known.snapshot for moment in moments for known in moment.targets.values() if len(known.snapshot.start)]
    if not snapshots:
        return None
    batch = RegionBatch.of(snapshots)
    found = region_rows(pa.schema(region_fields(_OPTIONAL)), Rows.of(batch).index, batch.columns)
    count = found.num_rows
    names = np.repeat([cgroups.get(one.target, monitor) for one in snapshots], batch.counts)
    labels = [pa.array([host] * count), pa.array([monitor] * count), pa.array(names.tolist())]
    return pa.Table.from_arrays([*labels, pa.array([minute] * count, pa.int64()), *found.columns], schema=schema())


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
