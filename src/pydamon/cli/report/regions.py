"""``pydamon report regions``."""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

from pydamon.cli.render.screen import emit
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import chosen, count, opened
from pydamon.core import columns
from pydamon.core.snapshot import Snapshot
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.views.names import target_line


def report(path: str, choice: Choice, as_json: bool) -> None:
    """Print every snapshot: one JSON object per line, or a heading and one line per region."""
    with opened(path) as reader:
        first_ns = None
        batches, _ = chosen(reader, choice)
        for number, snapshot in enumerate(chain.from_iterable(batch.snapshots() for batch in batches)):
            first_ns = snapshot.start_ns if first_ns is None else first_ns
            if as_json:
                emit(snapshot_json(snapshot, reader.info.target(snapshot.target).pid) + "\n")
            else:
                emit(_text(snapshot, number, target_line(reader, snapshot.target), first_ns))


def _text(snapshot: Snapshot, number: int, target: str, first_ns: int) -> str:
    maximum = snapshot.max_nr_accesses
    lines = [
        f"snapshot {number} of {target}: {format_duration_ns(snapshot.start_ns - first_ns)} to "
        f"{format_duration_ns(snapshot.end_ns - first_ns)}, {count(len(snapshot.start), 'region')}"
    ]
    more = [column for column in columns.optional() if column.name in snapshot.columns]
    for start, end, nr_accesses, age, *others in zip(
        snapshot.start.tolist(),
        snapshot.end.tolist(),
        snapshot.nr_accesses.tolist(),
        snapshot.age.tolist(),
        *(snapshot.columns[column.name].tolist() for column in more),
        strict=True,
    ):
        told = "".join(_more(column, value) for column, value in zip(more, others, strict=True))
        lines.append(f"  {start:#x}-{end:#x} {format_size(end - start):>11}  {nr_accesses}/{maximum}  age {age}{told}")
    return "\n".join(lines) + "\n"


def _more(column: columns.Column, value: int) -> str:
    if value == column.unknown:
        return f"  {column.name} ?"
    return f"  {column.name} {format_size(value) if column.unit == 'bytes' else value}"


def snapshot_json(snapshot: Snapshot, pid: int | None) -> str:
    """A snapshot as the JSON object that other programs rely on."""
    head = json.dumps(
        {
            "target": snapshot.target,
            "pid": pid,
            "start_ns": snapshot.start_ns,
            "end_ns": snapshot.end_ns,
            "sample_us": snapshot.sample_us,
            "aggr_us": snapshot.aggr_us,
            "max_nr_accesses": snapshot.max_nr_accesses,
        },
        separators=(",", ":"),
    )
    names = [column.name for column in columns.PER_REGION if column.kept != "aside" and column.name in snapshot.columns]
    form = "{" + ",".join(f'"{name}":%s' for name in names) + "}"
    rows = zip(*(_texts(snapshot, column) for column in columns.PER_REGION if column.name in names), strict=True)
    return f'{head[:-1]},"regions":[{",".join(map(form.__mod__, rows))}]}}'


def _texts(snapshot: Snapshot, column: columns.Column) -> list[Any]:
    values: list[Any] = snapshot.columns[column.name].tolist()
    return ["null" if value == column.unknown else value for value in values] if column.optional else values
