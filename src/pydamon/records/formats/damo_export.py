"""Writing a record in the layout of damo 3: a list of one object per target, packed by zlib."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.records.formats.values import ALWAYS, region_values, target_ids
from pydamon.records.hits import HitsBeside
from pydamon.records.joined import AnyReader

_UPDATE_US = 1_000_000  # what damo wants to know besides, where the record does not say it
_GOAL = {"access_bp": "400", "aggrs": "3"}  # likewise, where the intervals were tuned


@dataclass(frozen=True, slots=True)
class _Intervals:
    """Of a target, in microseconds: those of its first snapshot, and the bounds of the sampling interval."""

    sample_us: int
    aggr_us: int
    shortest_us: int
    longest_us: int

    @property
    def tuned(self) -> bool:
        return self.shortest_us != self.longest_us

    def aggr_of(self, snapshot: Snapshot) -> int:
        """What damo takes for the aggregation interval of a snapshot that says its sampling interval."""
        return snapshot.sample_us * self.aggr_us // self.sample_us


def damo(reader: AnyReader, file: BinaryIO) -> None:
    """Write the record to ``file``, in one pass over each target after one over all."""
    packer = zlib.compressobj(6)

    def put(text: str) -> None:
        file.write(packer.compress(text.encode()))

    ids = target_ids(reader)
    between = "["
    for target, intervals in sorted(_intervals(reader).items()):
        put(between + _head(intervals, ids.get(target, target)))
        between = ""
        beside = HitsBeside(reader, target)
        for batch in reader.batches(target=target):
            for snapshot in batch.snapshots():
                put(between + _snapshot(snapshot, intervals, beside.of(snapshot)))
                between = ",\n"
        put('\n], "data_source": "pydamon"}')
    put("]\n")
    file.write(packer.flush())


def _intervals(reader: AnyReader) -> dict[int, _Intervals]:
    """The intervals of each target that has a snapshot."""
    found: dict[int, _Intervals] = {}
    for batch in reader.batches(columns=()):
        for target in np.unique(batch.target).tolist():
            sample_us = batch.sample_us[batch.target == target]
            low, high = int(sample_us.min()), int(sample_us.max())
            if target in found:
                known = found[target]
                low, high = min(low, known.shortest_us), max(high, known.longest_us)
                found[target] = _Intervals(known.sample_us, known.aggr_us, low, high)
            else:
                aggr_us = int(batch.aggr_us[batch.target == target][0])
                found[target] = _Intervals(int(sample_us[0]), aggr_us, low, high)
    return found


def _head(intervals: _Intervals, target_id: int) -> str:
    told: dict[str, Any] = {
        "sample_us": str(intervals.sample_us),
        "aggr_us": str(intervals.aggr_us),
        "ops_update_us": str(_UPDATE_US),
    }
    if intervals.tuned:  # without a goal damo takes no notice of what the snapshots say
        limits = {"min_sample_us": str(intervals.shortest_us), "max_sample_us": str(intervals.longest_us)}
        told["intervals_goal"] = {**_GOAL, **limits}
    about = {
        "kdamond_idx": 0,
        "context_idx": 0,
        "intervals": told,
        "scheme_idx": None,
        "target_id": target_id,
        "scheme_filters": [],
    }
    return msgspec.json.encode(about).decode()[:-1] + ', "snapshots": [\n'


def _ages(snapshot: Snapshot, intervals: _Intervals) -> list[str]:
    """The ages in microseconds, where damo would take the wrong interval for them."""
    if not intervals.tuned and snapshot.aggr_us == intervals.aggr_of(snapshot):
        return ["null"] * len(snapshot.start)
    age_ms = snapshot.column("age_ms")
    ages = snapshot.age.astype(np.float64) * snapshot.aggr_us if age_ms is None else age_ms.astype(np.float64) * 1000
    return [f'"{age:.0f}"' for age in ages.tolist()]


def _hits(snapshot: Snapshot, hits: NDArray[np.uint32] | None, scale: float) -> list[str]:
    """What a region says of the hits of its probes; nothing where there are none."""
    if hits is None:
        return [""] * len(snapshot.start)
    return [f', "probe_hits": {each}' for each in np.rint(hits.T * scale).astype(np.int64).tolist()]


def _snapshot(snapshot: Snapshot, intervals: _Intervals, hits: NDArray[np.uint32] | None) -> str:
    """One snapshot. One object has one number of samples in an aggregation: where a snapshot has another one (it was
    cut short), its counts are scaled to that, and its own interval is told to `DamoRecord`, which scales them back.
    """
    own = "null"
    if snapshot.aggr_us != (expected_us := intervals.aggr_of(snapshot)):
        own = f'"{snapshot.aggr_us}"'
    scale = expected_us / snapshot.aggr_us
    regions = ",\n".join(
        f'{{"start": "{start}", "end": "{end}", "nr_accesses": {{"samples": {round(int(nr) * scale)}, '
        f'"percent": null}}, "age": {{"usec": {usec}, "aggr_intervals": {age}}}, "sz_filter_passed": "{passed}"{hit}}}'
        for (start, end, nr, age, passed), usec, hit in zip(
            region_values(snapshot, (*ALWAYS, "sz_filter_passed")),
            _ages(snapshot, intervals),
            _hits(snapshot, hits, scale),
            strict=True,
        )
    )
    total = int((snapshot.end - snapshot.start).sum(dtype=np.uint64))
    sample = f'"{snapshot.sample_us}"' if intervals.tuned or own != "null" else "null"
    return (
        f'{{"start_time": "{snapshot.start_ns}", "end_time": "{snapshot.end_ns}", "regions": [\n{regions}\n], '
        f'"total_bytes": "{total}", "damos_stats": null, "sample_interval_us": {sample}'
        + (f', "aggr_interval_us": {own}}}' if own != "null" else "}")
    )
