"""How busy and how idle memory is in one moment, with the definitions of DAMON_STAT (mm/damon/stat.c).

The estimated bandwidth is Σ size × nr_accesses per aggregation interval. A region is idle for (age + 1) aggregation
intervals, and as long, but negative, in use if it was accessed. Percentile p of the idle times is that of the region
with which p % of the bytes are reached, beginning with the busiest. Bytes are of memory (`RegionBatch.memory`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch


@dataclass(frozen=True, slots=True, eq=False)
class Stat:
    """``idle_ms`` has the percentiles 0 to 100. Shape (101,), int64."""

    bandwidth_bytes_per_s: int
    aggr_us: int
    idle_ms: NDArray[np.int64]


def stat(snapshots: Sequence[Snapshot]) -> Stat | None:
    """Of one snapshot of each target, all together; None without memory."""
    held = [snapshot for snapshot in snapshots if len(snapshot.start)]
    if not held:
        return None
    batch = RegionBatch.of(held)
    memory = batch.memory.astype(np.float64)
    aggr_us = np.repeat(np.maximum(batch.aggr_us, 1), batch.counts)
    there = memory > 0
    if not there.any():
        return None
    rate = float((memory * batch.nr_accesses * 1e6 / aggr_us).sum())
    idle_us = (batch.age.astype(np.int64) + 1) * aggr_us
    idle_us = np.where(batch.nr_accesses > 0, -idle_us, idle_us)[there]
    order = np.argsort(idle_us, kind="stable")
    reached = np.cumsum(memory[there][order])
    place = np.searchsorted(reached * 100, np.arange(101) * reached[-1], "left")
    idle_ms = np.trunc(idle_us[order][np.minimum(place, len(order) - 1)] / 1000).astype(np.int64)
    return Stat(round(rate), int(batch.aggr_us[-1]), idle_ms)


def used_within(snapshots: Sequence[Snapshot], window_us: int) -> tuple[int, int]:
    """(resident, used within the window) in bytes, by the regions of one snapshot of each target."""
    held = [snapshot for snapshot in snapshots if len(snapshot.start)]
    if not held:
        return 0, 0
    batch = RegionBatch.of(held)
    memory, aggr_us = batch.memory, np.repeat(np.maximum(batch.aggr_us, 1), batch.counts)
    used = (batch.nr_accesses > 0) | (batch.age.astype(np.int64) * aggr_us < window_us)
    return int(memory.sum()), int(memory[used].sum())
