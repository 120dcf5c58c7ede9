"""Small records for tests, made through the writer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pydamon.core.snapshot import Snapshot
from pydamon.linux.process import Mapping
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter

# A region: start, end, nr_accesses, age.
Region = tuple[int, int, int, int]
START_NS = 5_000_000_000
AGGR_NS = 100_000_000


def snapshot(number: int, regions: Sequence[Region], *, target: int = 0, aggr_ns: int = AGGR_NS) -> Snapshot:
    """The ``number``-th snapshot of a recording with 20 samples per aggregation."""
    columns = np.array(regions, dtype=np.uint64).reshape(-1, 4)
    return Snapshot(
        target,
        START_NS + number * aggr_ns,
        START_NS + (number + 1) * aggr_ns,
        aggr_ns // 20_000,
        aggr_ns // 1000,
        columns[:, 0],
        columns[:, 1],
        columns[:, 2].astype(np.uint32),
        columns[:, 3].astype(np.uint32),
    )


def metadata(*pids: int, **more: Any) -> dict[str, Any]:
    """A description with one target for each pid."""
    targets = [{"target": number, "pid": pid, "command": f"program{number} --flag"} for number, pid in enumerate(pids)]
    return build_metadata(targets=targets, ops="vaddr", primitive="bpf", **more)


def mapping(start: int, end: int, name: str) -> Mapping:
    """A private anonymous or file mapping."""
    return Mapping(start, end, "rw-p", 0, 7 if name.startswith("/") else 0, name)


def write(
    path: Path,
    snapshots: Sequence[Snapshot],
    *,
    pids: Sequence[int] = (1234,),
    maps: Sequence[Mapping] = (),
    flush_each: bool = False,
) -> Path:
    """A complete record of these snapshots; ``maps`` are those of target 0."""
    with RecordWriter(path, metadata=metadata(*pids)) as writer:
        writer.add_mappings(START_NS, 0, maps)
        for one in snapshots:
            writer.add_snapshot(one)
            if flush_each:
                writer.flush()
    return path


def as_tuple(one: Snapshot) -> tuple[Any, ...]:
    """A snapshot as plain values, to compare."""
    rows = zip(one.start.tolist(), one.end.tolist(), one.nr_accesses.tolist(), one.age.tolist(), strict=True)
    return one.target, one.start_ns, one.end_ns, one.sample_us, one.aggr_us, list(rows)
