"""The side table ``probe_hits``: how many samples of each region had the attribute of each probe.

One row per snapshot, region and probe: ``time_ns`` and ``target`` are those of the snapshot (its end), ``samples`` is
how many there were in its aggregation interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.spec.units import U64_MAX

TABLE = "probe_hits"
_SCHEMA = pa.schema(
    [
        ("time_ns", pa.int64()),
        ("target", pa.uint32()),
        ("probe", pa.uint8()),
        ("start", pa.uint64()),
        ("end", pa.uint64()),
        ("nr_accesses", pa.uint32()),
        ("age", pa.uint32()),
        ("samples", pa.uint32()),
        ("hits", pa.uint32()),
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class ProbedRegions:
    """The regions of one snapshot of one target, ``hits`` of the shape (probes, n), and the number of ``samples``."""

    time_ns: int
    target: int
    samples: int
    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    nr_accesses: NDArray[np.uint32]
    age: NDArray[np.uint32]
    hits: NDArray[np.uint32]

    def within(self, low: int, high: int) -> ProbedRegions:
        """What of the regions is in the addresses [low, high)."""
        start = np.maximum(self.start, np.uint64(max(low, 0)))
        end = np.minimum(self.end, np.uint64(min(high, U64_MAX)))
        inside = start < end
        return replace(
            self,
            start=start[inside],
            end=end[inside],
            nr_accesses=self.nr_accesses[inside],
            age=self.age[inside],
            hits=self.hits[:, inside],
        )


def hits_table(snapshots: Sequence[Snapshot]) -> pa.Table:
    """The rows of these snapshots (at least one), which have probes."""
    columns: dict[str, list[NDArray[Any]]] = {field.name: [] for field in _SCHEMA}
    for snapshot in snapshots:
        probes, count = snapshot.probe_hits.shape
        columns["probe"].append(np.repeat(np.arange(probes, dtype=np.uint8), count))
        columns["hits"].append(snapshot.probe_hits.ravel())
        for name in ("start", "end", "nr_accesses", "age"):
            columns[name].append(np.tile(getattr(snapshot, name), probes))
        same = {"time_ns": snapshot.end_ns, "target": snapshot.target, "samples": snapshot.max_nr_accesses}
        for name, value in same.items():
            columns[name].append(np.full(probes * count, value))
    return pa.Table.from_arrays(
        [pa.array(np.concatenate(columns[field.name]), field.type) for field in _SCHEMA], schema=_SCHEMA
    )


def probed_regions(table: pa.Table) -> Iterator[ProbedRegions]:
    """What is in a piece of the table, by snapshot; nothing of one that is not whole or has other columns."""
    if not table.schema.equals(_SCHEMA) or any(column.null_count for column in table.columns):
        return
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    if not table.num_rows:
        return
    begins = np.ones(table.num_rows, np.bool_)
    begins[1:] = (np.diff(columns["time_ns"]) != 0) | (np.diff(columns["target"].astype(np.int64)) != 0)
    bounds = [*np.flatnonzero(begins).tolist(), table.num_rows]
    for first, behind in pairwise(bounds):
        part = {name: column[first:behind] for name, column in columns.items()}
        probes = int(part["probe"][-1]) + 1
        count = (behind - first) // probes
        whole = np.repeat(np.arange(probes), count)
        samples = int(part["samples"][0])
        if not np.array_equal(part["probe"], whole) or (part["hits"] > samples).any() or not samples:
            continue
        yield ProbedRegions(
            time_ns=int(part["time_ns"][0]),
            target=int(part["target"][0]),
            samples=samples,
            hits=part["hits"].reshape(probes, count),
            **{name: part[name][:count] for name in ("start", "end", "nr_accesses", "age")},
        )
