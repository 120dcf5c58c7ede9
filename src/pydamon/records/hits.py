"""The side table ``probe_hits``: how many samples of each region had the attribute of each probe.

One row per snapshot, region and probe. ``time_ns`` and ``target`` are those of the snapshot (its end), ``duration_ns``
is how long it took; ``attribute`` is what the probe is about, in words, ``weight`` its weight (missing if no
probe has any); ``samples`` is how many samples were asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.records.side_tables import TABLES, from_columns
from pydamon.spec.units import U64_MAX

TABLE = "probe_hits"
_COLUMNS = tuple(TABLES[TABLE].schema.names)


class ProbedRegions(msgspec.Struct, frozen=True, eq=False):
    """The regions of one snapshot of one target.

    ``hits`` has the shape (probes, n), of ``samples`` (n); ``attributes`` says what each probe is about, ``weights``
    how much it counts.
    """

    time_ns: int
    duration_ns: int
    target: int
    attributes: tuple[str, ...]
    weights: tuple[int, ...]
    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    nr_accesses: NDArray[np.uint32]
    age: NDArray[np.uint32]
    samples: NDArray[np.uint32]
    hits: NDArray[np.uint32]

    def within(self, low: int, high: int) -> ProbedRegions:
        """What of the regions is in the addresses [low, high)."""
        start = np.maximum(self.start, np.uint64(max(low, 0)))
        end = np.minimum(self.end, np.uint64(min(high, U64_MAX)))
        inside = start < end
        columns = {name: getattr(self, name)[inside] for name in ("nr_accesses", "age", "samples")}
        return msgspec.structs.replace(self, start=start[inside], end=end[inside], hits=self.hits[:, inside], **columns)


def hits_table(parts: Sequence[ProbedRegions]) -> pa.Table:
    """The rows of these snapshots (at least one)."""
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _COLUMNS}
    for part in parts:
        probes, count = part.hits.shape
        columns["probe"].append(np.repeat(np.arange(probes, dtype=np.uint8), count))
        columns["attribute"].append(np.repeat(np.array(part.attributes, dtype=object), count))
        weights = part.weights if any(part.weights) else (None,) * probes
        columns["weight"].append(np.repeat(np.array(weights, dtype=object), count))
        columns["hits"].append(part.hits.ravel())
        for name in ("start", "end", "nr_accesses", "age", "samples"):
            columns[name].append(np.tile(getattr(part, name), probes))
        for name in ("time_ns", "duration_ns", "target"):
            columns[name].append(np.full(probes * count, getattr(part, name)))
    return from_columns(TABLE, {name: np.concatenate(parts) for name, parts in columns.items()})


def of_snapshot(snapshot: Snapshot, attributes: Sequence[str], weights: Sequence[int] = ()) -> ProbedRegions:
    """What the probes of a snapshot have counted; ``attributes`` says what each of them is about.

    Without ``weights`` none has any.
    """
    return ProbedRegions(
        time_ns=snapshot.end_ns,
        duration_ns=snapshot.end_ns - snapshot.start_ns,
        target=snapshot.target,
        attributes=tuple(attributes),
        weights=tuple(weights) or (0,) * len(attributes),
        start=snapshot.start,
        end=snapshot.end,
        nr_accesses=snapshot.nr_accesses,
        age=snapshot.age,
        samples=snapshot.probe_samples,
        hits=snapshot.probe_hits,
    )


def probed_regions(table: pa.Table) -> Iterator[ProbedRegions]:
    """What is in a piece of the table, by snapshot; nothing of one that is not whole."""
    if not table.num_rows:
        return
    columns = {name: table.column(name).to_numpy() for name in _COLUMNS if name not in ("attribute", "weight")}
    begins = np.ones(table.num_rows, np.bool_)
    begins[1:] = (np.diff(columns["time_ns"]) != 0) | (np.diff(columns["target"].astype(np.int64)) != 0)
    for first, behind in pairwise([*np.flatnonzero(begins).tolist(), table.num_rows]):
        part = {name: column[first:behind] for name, column in columns.items()}
        probes = int(part["probe"][-1]) + 1
        count = (behind - first) // probes
        if not np.array_equal(part["probe"], np.repeat(np.arange(probes), count)):
            continue
        if (part["hits"] > part["samples"]).any() or (part["start"] > part["end"]).any():
            continue
        yield ProbedRegions(
            time_ns=int(part["time_ns"][0]),
            duration_ns=int(part["duration_ns"][0]),
            target=int(part["target"][0]),
            attributes=tuple(table.column("attribute")[place].as_py() for place in range(first, behind, count)),
            weights=tuple(table.column("weight")[place].as_py() or 0 for place in range(first, behind, count)),
            hits=part["hits"].reshape(probes, count),
            **{name: part[name][:count] for name in ("start", "end", "nr_accesses", "age", "samples")},
        )


def cut(table: pa.Table, low: int, high: int) -> pa.Table:
    """A piece of the table with what is in the addresses [low, high)."""
    parts = [part.within(low, high) for part in probed_regions(table)]
    kept = [part for part in parts if len(part.start)]
    return hits_table(kept) if kept else table.slice(0, 0)


class HasTables(Protocol):
    """What is needed of a reader."""

    def table(self, name: str) -> Iterator[pa.Table]:
        """The pieces of a side table."""
        ...


class HitsBeside:
    """The hits that belong to snapshots, which are asked for in the order of time; of one ``target``, or of all."""

    def __init__(self, reader: HasTables, target: int | None = None) -> None:
        parts = (part for piece in reader.table(TABLE) for part in probed_regions(piece))
        self._parts = (part for part in parts if target in (None, part.target))
        self._next = next(self._parts, None)
        self._last: dict[int, ProbedRegions] = {}

    def of(self, snapshot: Snapshot) -> NDArray[np.uint32] | None:
        """Shape (probes, n); None if there are none of just these regions."""
        part = self.part(snapshot)
        return None if part is None else part.hits

    def part(self, snapshot: Snapshot) -> ProbedRegions | None:
        """As `of`, with what the probes are about."""
        while self._next is not None and self._next.time_ns <= snapshot.end_ns:
            self._last[self._next.target] = self._next
            self._next = next(self._parts, None)
        part = self._last.get(snapshot.target)
        if part is None or part.time_ns != snapshot.end_ns or not np.array_equal(part.start, snapshot.start):
            return None
        return part
