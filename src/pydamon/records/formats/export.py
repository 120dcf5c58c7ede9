"""Writing records as other tools want them, in one pass (for damo: one per target) and bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.core import columns
from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError, RequestError
from pydamon.records.batch import MEMORY
from pydamon.records.decode import Rows
from pydamon.records.formats.damo_export import damo
from pydamon.records.formats.values import region_values, target_ids
from pydamon.records.hits import TABLE as HITS
from pydamon.records.hits import HitsBeside
from pydamon.records.joined import AnyReader
from pydamon.records.region_rows import region_rows
from pydamon.records.same_window import SameWindow
from pydamon.records.schema import BATCH_ROWS, METADATA_KEY, describe, encode_metadata, region_fields, region_schema
from pydamon.records.side_tables import TABLES

_AGGREGATED, _PROBED = "damon:damon_aggregated:", "damon:damon_region_aggregated:"
_MOST_TRACED = 255  # hits that the event has room for
_HALF = 2  # hot: accessed in at least every second sample

# The metadata of a side table in Parquet.
TABLE_KEY = b"pydamon.table"

Write = Callable[[AnyReader, BinaryIO], None]


def export(reader: AnyReader, file: BinaryIO, kind: str) -> None:
    """Write the whole record to ``file`` as one of `FORMATS`. Raises PydamonError if it holds no snapshot."""
    if kind not in FORMATS:
        raise RequestError(f"{kind!r} is none of {', '.join(FORMATS)}", where="format")
    if reader.time_range() is None:
        raise PydamonError("holds no snapshot: nothing was recorded", where=reader.path)
    FORMATS[kind](reader, file)


def side_tables(reader: AnyReader) -> list[str]:
    """The side tables that the record has and `export_table` can write: those that are declared."""
    found = {entry.name for entry in reader.tables()}
    return [name for name in TABLES if name in found]


def is_exported_table(path: str) -> bool:
    """Whether the file is one that `export_table` has written."""
    import pyarrow.parquet as pq

    try:
        return TABLE_KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError, ValueError):
        return False


def export_table(reader: AnyReader, name: str, file: BinaryIO) -> None:
    """Write one side table to ``file`` as Parquet."""
    import pyarrow.parquet as pq

    schema = TABLES[name].schema.with_metadata({TABLE_KEY: name})
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        held: list[pa.Table] = []
        for piece in reader.table(name):
            held.append(piece)
            if sum(one.num_rows for one in held) >= BATCH_ROWS:
                writer.write_table(pa.concat_tables(held))
                held.clear()
        if held:
            writer.write_table(pa.concat_tables(held))


def _rows(reader: AnyReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in reader.batches():
        yield region_rows(schema, Rows.of(batch).index, batch.columns)


def _parquet(reader: AnyReader, file: BinaryIO) -> None:
    import pyarrow.parquet as pq

    schema = region_schema(encode_metadata(describe(reader.info)), reader.optional)
    schema = schema.with_metadata({METADATA_KEY: schema.metadata[METADATA_KEY]})  # checksums are of messages
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for rows in _rows(reader, schema):
            writer.write_batch(rows)


def _csv(reader: AnyReader, file: BinaryIO) -> None:
    """Where probes were counted, ``probe_hits`` has a number for each probe, with blanks between them."""
    from pyarrow import csv

    if any(entry.name == HITS for entry in reader.tables()):
        _csv_with_hits(reader, file)
        return
    schema = pa.schema(region_fields(reader.optional))
    file.write((",".join(schema.names) + "\n").encode())  # Arrow would quote the names
    with csv.CSVWriter(file, schema, write_options=csv.WriteOptions(include_header=False)) as writer:
        for rows in _rows(reader, schema):
            writer.write_batch(rows)


def _csv_with_hits(reader: AnyReader, file: BinaryIO) -> None:
    schema = pa.schema(region_fields(reader.optional))
    file.write((",".join([*schema.names, "probe_hits"]) + "\n").encode())
    beside = HitsBeside(reader)
    for snapshot in reader.snapshots():
        head = snapshot.head
        there = [name for name in schema.names if name in snapshot.columns]
        form = ",".join(
            str(head[name]) if name in head else "%s" if name in snapshot.columns else "" for name in schema.names
        )
        told, hits = map(form.__mod__, region_values(snapshot, there, "")), beside.of(snapshot)
        each = [""] * len(snapshot.start) if hits is None else _by_region(hits, "%d")
        file.write("".join(f"{text},{counted}\n" for text, counted in zip(told, each, strict=True)).encode())


def _by_region(hits: NDArray[np.uint32], form: str) -> list[str]:
    """The counts of each region, with blanks between them."""
    line = " ".join([form] * len(hits))
    return [line % tuple(counts) for counts in hits.T.tolist()]


def _json_lines(reader: AnyReader, file: BinaryIO) -> None:
    beside = HitsBeside(reader)
    for snapshot in reader.snapshots():
        head = "".join(f'"{name}":{value},' for name, value in snapshot.head.items())
        names = [
            column.name for column in (*columns.required(), *columns.optional()) if column.name in snapshot.columns
        ]
        form = "{" + head + ",".join(f'"{name}":%s' for name in names)
        told, hits = map(form.__mod__, region_values(snapshot, names, "null")), beside.of(snapshot)
        if hits is None:
            lines = [text + "}\n" for text in told]
        else:
            each = (str(of_probes).replace(" ", "") for of_probes in hits.T.tolist())
            lines = [f'{text},"probe_hits":{of_probes}}}\n' for text, of_probes in zip(told, each, strict=True)]
        file.write("".join(lines).encode())


def _perf_script(reader: AnyReader, file: BinaryIO) -> None:
    """Lines of damon:damon_aggregated. When the first snapshot began cannot be said in it, unless it is the only one:
    then damo's mark follows, a region 0-0. Where probes were counted, lines of damon_region_aggregated stand behind
    those of each snapshot, with a byte for each probe, as newer kernels trace them."""
    beside = HitsBeside(reader)
    ids = target_ids(reader)
    seen: dict[int, list[Snapshot]] = {}
    whole = SameWindow()
    for snapshot in map(whole.of, reader.snapshots()):
        head = _trace_head(snapshot.end_ns, ids.get(snapshot.target, snapshot.target), len(snapshot.start))
        lines = [f"{head}{start}-{end}: {nr} {age}\n" for start, end, nr, age in region_values(snapshot)]
        hits = beside.of(snapshot)
        if hits is not None:
            counted = _by_region(np.minimum(hits, _MOST_TRACED), "%02x")
            heads = [line.replace(_AGGREGATED, _PROBED, 1).rstrip("\n") for line in lines]
            lines += [f"{line} probe_hits={of_probes}\n" for line, of_probes in zip(heads, counted, strict=True)]
        file.write("".join(lines).encode())
        seen.setdefault(snapshot.target, [])
        if len(seen[snapshot.target]) < 2:
            seen[snapshot.target].append(snapshot)
    for target, snapshots in seen.items():
        if len(snapshots) == 1:
            end_ns = 2 * snapshots[0].end_ns - snapshots[0].start_ns
            file.write(f"{_trace_head(end_ns, ids.get(target, target), 1)}0-0: -1 -1\n".encode())


def _trace_head(time_ns: int, target_id: int, regions: int) -> str:
    second, rest = divmod(time_ns, 10**9)
    # Nanoseconds, as perf script --ns prints them, only where microseconds do not do.
    fraction = f"{rest:09d}" if rest % 1000 else f"{rest // 1000:06d}"
    return f"kdamond.0     0 [000] {second:5d}.{fraction}: {_AGGREGATED} target_id={target_id} nr_regions={regions} "


def _trace_events(reader: AnyReader, file: BinaryIO) -> None:
    """Counters for Perfetto and chrome://tracing: of each target the working set and what is hot, and its footprint."""
    encode = msgspec.json.encode
    file.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
    between = b""
    process = {t.target: t.pid if t.pid is not None else t.target for t in reader.info.targets}
    for target in reader.info.targets:
        name = target.command or f"target {target.target}"
        about = {"name": "process_name", "ph": "M", "pid": process[target.target], "args": {"name": name[:200]}}
        file.write(between + encode(about))
        between = b",\n"
    for event in _counters(reader, process):
        file.write(between + encode(event))
        between = b",\n"
    file.write(b"\n]}\n")


def _counters(reader: AnyReader, process: dict[int, int]) -> Iterator[dict[str, Any]]:
    for batch in reader.batches(columns=MEMORY):
        sizes = batch.memory.astype(np.float64)  # counters are numbers of JavaScript
        limits = np.repeat(batch.max_nr_accesses, batch.counts)
        accessed = np.where(batch.nr_accesses > 0, sizes, 0.0)
        hot = np.where(batch.nr_accesses.astype(np.int64) * _HALF >= limits, sizes, 0.0)
        firsts = batch.offsets[:-1]
        both = (np.add.reduceat(accessed, firsts).tolist(), np.add.reduceat(hot, firsts).tolist())
        for target, end_ns, working, hottest in zip(batch.target.tolist(), batch.end_ns.tolist(), *both, strict=True):
            pid = process.get(target, target)
            # A counter holds from its time on; a snapshot tells what was until its end.
            yield _counter("working set", pid, end_ns, {"bytes": int(working)})
            yield _counter("hot", pid, end_ns, {"bytes": int(hottest)})
    for row in reader.table_rows("footprint"):
        told = ((name, row[f"{name}_bytes"]) for name in ("resident", "swap"))
        sizes_now = {name: size for name, size in told if size is not None}
        yield _counter("memory", process.get(row["target"], row["target"]), row["time_ns"], sizes_now)


def _counter(name: str, pid: int, time_ns: int, values: dict[str, int]) -> dict[str, Any]:
    return {"name": name, "ph": "C", "pid": pid, "ts": time_ns / 1000, "args": values}


FORMATS: dict[str, Write] = {
    "damo": damo,
    "perf-script": _perf_script,
    "parquet": _parquet,
    "csv": _csv,
    "jsonl": _json_lines,
    "trace-events": _trace_events,
}
