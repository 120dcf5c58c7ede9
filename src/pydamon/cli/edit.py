"""``pydamon record cut``, ``merge`` and ``aggregate``: records from records, in one pass and bounded memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import click

from pydamon.cli.report.choice import Choice, choice, windowed
from pydamon.errors import RequestError

_INPUT = click.option("-i", "--input", "path", metavar="FILE", default="pydamon.damon", show_default=True)
_OUTPUT = click.option("-o", "--output", metavar="FILE", required=True, help="The record to write.")
_MAX_MERGED = 256


@click.command("cut")
@_INPUT
@_OUTPUT
@click.option("--target", type=int, metavar="N", help="Only this target.")
@windowed
def cut(path: str, output: str, target: int | None, **window: Any) -> None:
    """Write a record that holds only a part of another: some of the time, some addresses, one target."""
    _cut(path, output, choice(target, **window))


@click.command("merge")
@click.argument("inputs", nargs=-1, required=True, metavar="FILE…")
@_OUTPUT
def merge(inputs: tuple[str, ...], output: str) -> None:
    """Write one record that holds all the snapshots of several, one file after the other, by their start."""
    _merge(inputs, output)


@click.command("aggregate")
@_INPUT
@_OUTPUT
@click.option("--factor", type=click.IntRange(2, 100_000), required=True, help="So many snapshots become one.")
def aggregate(path: str, output: str, factor: int) -> None:
    """Write a coarser record: every N consecutive snapshots of a target become one."""
    _aggregate(path, output, factor)


COMMANDS = {"cut": cut, "merge": merge, "aggregate": aggregate}


def _writer(reader: Any, output: str, inputs: Iterable[str], **changes: Any) -> Any:
    """A writer with the description of ``reader``. Refuses to write onto what is being read."""
    from pydamon.records.writer import RecordWriter

    for path in inputs:
        if os.path.exists(output) and os.path.samefile(path, output):
            raise RequestError(f"{output} is being read; choose another name", where="-o")
    return RecordWriter(output, metadata=_metadata(reader.info, **changes))


def _metadata(info: Any, **changes: Any) -> dict[str, Any]:
    found = {
        "version": info.version,
        "pydamon": info.pydamon,
        "clock": info.clock,
        "wall_offset_ns": info.wall_offset_ns,
        "ops": info.ops,
        "primitive": info.primitive,
        "primitive_reason": info.primitive_reason,
        "targets": [asdict(target) for target in info.targets],
        "spec": dict(info.spec),
        "machine": dict(info.machine),
    }
    return found | changes


def _cut(path: str, output: str, wanted: Choice) -> None:
    from pydamon.cli.report.common import chosen, opened, window_of

    with opened(path) as reader:
        batches, span = chosen(reader, wanted)
        window = window_of(wanted, span)
        keep = [asdict(t) for t in reader.info.targets if wanted.target in (None, t.target)]
        with _writer(reader, output, _files(reader), targets=keep) as writer:
            _copy_tables(
                reader, writer, lambda time_ns: window.end_ns is None or time_ns <= window.end_ns, wanted.target
            )
            for batch in batches:
                for snapshot in batch.snapshots():
                    writer.add_snapshot(snapshot)
    _say(output)


def _merge(inputs: tuple[str, ...], output: str) -> None:
    from pydamon.records.joined import open_record

    if len(inputs) > _MAX_MERGED:
        raise RequestError(f"{len(inputs)} files are too many; the most is {_MAX_MERGED}", where="FILE")
    with ExitStack() as stack:
        readers: list[Any] = [stack.enter_context(open_record(path)) for path in inputs]
        starts = {id(reader): (reader.time_range() or (0, 0))[0] for reader in readers}
        readers.sort(key=lambda reader: starts[id(reader)])
        clocks = {reader.info.clock for reader in readers}
        if len(clocks) > 1:
            raise RequestError("virtual and real time cannot be in one record", where="FILE")
        known: dict[tuple[Any, ...], int] = {}
        targets: list[dict[str, Any]] = []
        numbers: list[dict[int, int]] = []
        for place, reader in enumerate(readers):
            mine = {}
            for target in reader.info.targets:
                # One process stays one target; what has no identity is a target of its own.
                process = target.pid is not None and target.start_ticks is not None
                key = (target.pid, target.start_ticks) if process else (place, target.target)
                if key not in known:
                    known[key] = len(known)
                    targets.append(asdict(target) | {"target": known[key]})
                mine[target.target] = known[key]
            numbers.append(mine)
        files = [file for reader in readers for file in _files(reader)]
        with _writer(readers[0], output, files, targets=targets) as writer:
            for reader, mine in zip(readers, numbers, strict=True):
                # Without wall time in one of them the records' clocks are taken as one.
                shift = _shift(readers[0].info, reader.info)
                _copy_tables(reader, writer, lambda _: True, None, mine, shift)
                for snapshot in reader.snapshots():
                    if snapshot.target not in mine:
                        mine[snapshot.target] = len(known)
                        known[("?", id(reader), snapshot.target)] = len(known)
                    times = {"start_ns": snapshot.start_ns + shift, "end_ns": snapshot.end_ns + shift}
                    writer.add_snapshot(replace(snapshot, target=mine[snapshot.target], **times))
        for reader in readers:
            _warn(reader)
    _say(output)


def _shift(first: Any, other: Any) -> int:
    """What brings times of ``other`` onto the clock of ``first``: another boot has another monotonic clock."""
    if first.wall_offset_ns is None or other.wall_offset_ns is None:
        return 0
    drift = int(other.wall_offset_ns) - int(first.wall_offset_ns)
    return drift if abs(drift) > 60_000_000_000 else 0  # less is the wall clock being set right


def _aggregate(path: str, output: str, factor: int) -> None:
    from pydamon.analysis.aggregate import combine
    from pydamon.cli.report.common import chosen, opened

    with opened(path) as reader:
        batches, _ = chosen(reader, Choice())
        with _writer(reader, output, _files(reader)) as writer:
            _copy_tables(reader, writer, lambda _: True, None)
            for group in _groups(batches, factor):
                writer.add_snapshot(combine(group))
    _say(output)


def _groups(batches: Iterable[Any], factor: int) -> Iterator[list[Any]]:
    """Up to ``factor`` consecutive snapshots of one target with the same intervals."""
    held: dict[int, list[Any]] = {}
    for batch in batches:
        for snapshot in batch.snapshots():
            group = held.setdefault(snapshot.target, [])
            same = group and (group[0].sample_us, group[0].aggr_us) == (snapshot.sample_us, snapshot.aggr_us)
            if group and (not same or len(group) == factor):
                yield group
                group = held[snapshot.target] = []
            group.append(snapshot)
    yield from (group for group in held.values() if group)


def _copy_tables(
    reader: Any,
    writer: Any,
    wanted: Any,
    target: int | None,
    numbers: dict[int, int] | None = None,
    shift: int = 0,
) -> None:
    """The side tables, piece by piece; ``numbers`` gives the new number of each target, ``shift`` is added to times."""
    import pyarrow as pa

    for name in dict.fromkeys(entry.name for entry in reader.tables()):
        if name == "targets":
            continue  # they are in the description already
        about = iter([entry for entry in reader.tables() if entry.name == name])
        for piece, entry in zip(reader.table(name), about, strict=False):
            if (entry.time_ns is not None and not wanted(entry.time_ns)) or (
                target is not None and entry.target not in (None, target)
            ):
                continue
            new = entry.target
            if numbers is not None:
                new = None if new is None else numbers.get(new, new)
                if "target" in piece.column_names:
                    column = [numbers.get(value, value) for value in piece.column("target").to_pylist()]
                    at = piece.column_names.index("target")
                    piece = piece.set_column(at, "target", pa.array(column, piece.schema.field("target").type))
            if shift and "time_ns" in piece.column_names:
                times = [None if value is None else value + shift for value in piece.column("time_ns").to_pylist()]
                at = piece.column_names.index("time_ns")
                piece = piece.set_column(at, "time_ns", pa.array(times, pa.int64()))
            time_ns = None if entry.time_ns is None else entry.time_ns + shift
            writer.add_table(name, piece, time_ns=time_ns, target=new)


def _files(reader: Any) -> list[str]:
    return reader.paths if hasattr(reader, "paths") else [reader.path]


def _warn(reader: Any) -> None:
    from pydamon.cli.render.screen import warn

    warn(reader.warnings())


def _say(output: str) -> None:
    print(f"pydamon: wrote {output}, {os.stat(output).st_size:,} bytes", file=sys.stderr)
