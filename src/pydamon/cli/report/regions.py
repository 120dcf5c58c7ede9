"""``pydamon report regions``."""

from __future__ import annotations

import json
from itertools import chain

from pydamon.cli.render.screen import emit
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import chosen, count, opened, target_line
from pydamon.core.snapshot import Snapshot
from pydamon.spec.units import format_duration_ns, format_size

_REGION = '{"start":%d,"end":%d,"nr_accesses":%d,"age":%d}'


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
    for start, end, nr_accesses, age in zip(
        snapshot.start.tolist(),
        snapshot.end.tolist(),
        snapshot.nr_accesses.tolist(),
        snapshot.age.tolist(),
        strict=True,
    ):
        lines.append(f"  {start:#x}-{end:#x} {format_size(end - start):>11}  {nr_accesses}/{maximum}  age {age}")
    return "\n".join(lines) + "\n"


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
    rows = zip(
        snapshot.start.tolist(),
        snapshot.end.tolist(),
        snapshot.nr_accesses.tolist(),
        snapshot.age.tolist(),
        strict=True,
    )
    return f'{head[:-1]},"regions":[{",".join(map(_REGION.__mod__, rows))}]}}'
