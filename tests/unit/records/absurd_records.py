"""Records of some 100 KB that claim as much as the format lets them: nobody records such things."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc
from tests.unit.records.record_samples import AGGR_NS, START_NS, metadata, snapshot

from pydamon.records.framing import put_sums
from pydamon.records.index import INDEX_KEY
from pydamon.records.schema import END_OF_STREAM, MAX_BATCH_ROWS, NO_SUM, SUM_KEY, encode_metadata, region_schema
from pydamon.records.side_tables import TABLES
from pydamon.records.tables import encode_table
from pydamon.records.writer import RecordWriter

BYTES = 100_000
_ROWS = MAX_BATCH_ROWS
_NUMBER = np.arange(_ROWS, dtype=np.int64)

# An index: rows, target, start_ns, end_ns, sample_us, aggr_us of each snapshot.
Index = NDArray[np.int64]


def _index(rows: Any, target: Any, start_ns: Any, end_ns: Any) -> Index:
    return np.stack(np.broadcast_arrays(rows, target, start_ns, end_ns, 5000, 100_000), axis=1).astype(np.int64)


def _one_snapshot(number: int) -> Index:
    begin = START_NS + (number + 1) * AGGR_NS
    return _index([_ROWS], 0, begin, begin + AGGR_NS)


def _snapshots_of_four(number: int) -> Index:
    begin = START_NS + (number * _ROWS + _NUMBER[: _ROWS // 4]) * AGGR_NS
    return _index(4, 0, begin, begin + AGGR_NS)


def _backwards(number: int) -> Index:
    begin = START_NS + (_ROWS - _NUMBER) * AGGR_NS
    return _index(1, 0, begin, begin + AGGR_NS)


def _many_targets(number: int) -> Index:
    return _index(1, number * _ROWS + _NUMBER, START_NS, START_NS + AGGR_NS)


def _as_long_as_the_record(number: int) -> Index:
    return _index(1, 0, START_NS, START_NS + (1 << 50) + number * _ROWS + _NUMBER)


INDICES: dict[str, Callable[[int], Index]] = {
    "overlapping": _one_snapshot,
    "overlapping in many": _snapshots_of_four,
    "backwards": _backwards,
    "many targets": _many_targets,
    "long": _as_long_as_the_record,
}


def _region_messages(make: Callable[[int], Index]) -> Iterator[bytes]:
    """Messages whose columns are constant, and pack well; what differs is in the index."""
    schema = region_schema(encode_metadata(metadata(1)))
    constant = {"start": 4096, "end": 8192, "nr_accesses": 1, "sample_us": 5000, "aggr_us": 100_000}
    columns = [pa.array(np.full(_ROWS, constant.get(f.name, 0)), f.type) for f in schema]
    batch = pa.RecordBatch.from_arrays(columns, schema=schema)
    number = 0
    while True:
        steps = np.diff(make(number), axis=0, prepend=0).astype("<i8").tobytes()
        yield _message(schema, batch, {INDEX_KEY: base64.b64encode(zlib.compress(steps, 9)).decode("ascii")})
        number += 1


def _message(schema: pa.Schema, batch: pa.RecordBatch, tags: dict[str, str]) -> bytes:
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, schema, options=ipc.IpcWriteOptions(compression="zstd", use_threads=False)) as writer:
        writer.write_batch(batch, custom_metadata={SUM_KEY: NO_SUM} | tags)
    data = bytearray(sink.getvalue())[len(schema.serialize().to_pybytes()) : -len(END_OF_STREAM)]
    put_sums(data)
    return bytes(data)


def _column(field: pa.Field, rows: int) -> pa.Array:
    if pa.types.is_list(field.type):
        return pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32), pa.array(np.ones(rows, np.uint32)))
    if pa.types.is_string(field.type):
        return pa.array(np.full(rows, "", object), field.type)
    if pa.types.is_boolean(field.type):
        return pa.array(np.ones(rows, np.bool_))
    value = {"time_ns": START_NS, "end": 4096}.get(field.name, 0)  # the same in all: it packs best
    return pa.array(np.full(rows, value)).cast(field.type)


def _many_rows(name: str) -> pa.Table:
    schema = TABLES[name].schema
    return pa.table([_column(field, TABLES[name].most_rows) for field in schema], schema=schema)


def _long_values(name: str) -> pa.Table:
    columns = []
    for field in TABLES[name].schema:
        long: dict[bool, Any] = {True: ["\x1b" * (1 << 22)] * 4, False: [[1] * (1 << 20)] * 4}
        known = pa.types.is_string(field.type) or pa.types.is_list(field.type)
        columns.append(pa.array(long[pa.types.is_string(field.type)], field.type) if known else _column(field, 4))
    return pa.table(columns, schema=TABLES[name].schema)


def write_absurd(path: Path, kind: str, name: str) -> Path:
    """One of ``index``, ``rows``, ``values``, with the name of an index or of a side table."""
    with RecordWriter(path, metadata=metadata(1), optional=()) as writer:
        writer.add_snapshot(snapshot(0, [(0, 1 << 20, 3, 0)]))
    data = path.read_bytes().removesuffix(END_OF_STREAM)
    if kind == "index":
        messages = _region_messages(INDICES[name])
    else:
        table = _many_rows(name) if kind == "rows" else _long_values(name)
        schema = region_schema(encode_metadata(metadata(1)))
        nothing = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
        message = _message(schema, nothing, encode_table(name, table, START_NS, 0))
        messages = iter(lambda: message, None)
    size = len(data)
    pieces = [data]
    while size < BYTES:
        pieces.append(next(messages))
        size += len(pieces[-1])
    path.write_bytes(b"".join(pieces) + END_OF_STREAM)
    return path
