"""When the memory was hot: the time in which most of it was accessed, to be compared with what was executed then.

The heat of a snapshot is the sum of size × access rate over its regions, in bytes. A snapshot is hot if that is at
least a given share of the largest of all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.records.batch import RegionBatch


@dataclass(frozen=True, slots=True, eq=False)
class HotTime:
    """Snapshots of one target in the order of time: ``start_ns``, ``end_ns``, and which are ``hot``; parallel."""

    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    hot: NDArray[np.bool_]

    def lasting_ns(self, hot: bool) -> int:
        """How long all snapshots that are hot (or are not) last together."""
        which = self.hot == hot
        return int((self.end_ns - self.start_ns)[which].sum())

    def of(self, times_ns: NDArray[np.int64]) -> NDArray[np.int8]:
        """For each time: 1 in a hot snapshot, 0 in another one, -1 in none."""
        place = np.searchsorted(self.end_ns, times_ns, "right")
        inside = place < len(self.end_ns)
        inside[inside] = self.start_ns[place[inside]] <= times_ns[inside]
        found = np.full(len(times_ns), -1, np.int8)
        found[inside] = self.hot[place[inside]]
        return found


def hot_time(batches: Iterable[RegionBatch], share: float) -> HotTime:
    """When the heat of one target was at least ``share`` (0..1) of its maximum (and not 0)."""
    starts, ends, heats = [], [], []
    for batch in batches:
        rate = batch.nr_accesses / np.repeat(batch.max_nr_accesses, batch.counts)
        heats.append(np.add.reduceat(batch.memory * rate, batch.offsets[:-1]))
        starts.append(batch.start_ns)
        ends.append(batch.end_ns)
    if not heats:
        nothing = np.empty(0, np.int64)
        return HotTime(nothing, nothing, np.empty(0, np.bool_))
    heat = np.concatenate(heats)
    return HotTime(np.concatenate(starts), np.concatenate(ends), (heat > 0) & (heat >= share * heat.max()))
