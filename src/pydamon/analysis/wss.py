"""The working set: how much memory is in use.

The working set of a snapshot is the memory (`RegionBatch.memory`: what is resident, where the record tells) of its
regions with at least ``min_accesses`` accesses. Every snapshot
counts the same, however long it lasted, as in the field's tool; percentiles are its as well: of the n sorted sizes, the
one at ``int(percentile / 100 * n)``, the last one for 100.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.records.batch import RegionBatch, distinct

TOTAL = -1  # the number of what is not a target, but all of them together


@dataclass(frozen=True, slots=True, eq=False)
class WorkingSet:
    """The working set sizes of one target (or their `TOTAL`) in the order of time.

    ``bytes`` (uint64), ``start_ns`` and ``end_ns`` (int64) are parallel, one entry per snapshot.
    """

    target: int
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    bytes: NDArray[np.uint64]

    @property
    def mean_bytes(self) -> int:
        """The mean over the snapshots, rounded down."""
        # In two halves, because the sum may not fit 64 bits.
        high, low = self.bytes >> np.uint64(32), self.bytes & np.uint64(0xFFFFFFFF)
        return ((int(high.sum()) << 32) + int(low.sum())) // len(self.bytes)

    def percentiles(self, wanted: Sequence[float]) -> list[int]:
        """The size in bytes at each wanted percentile (0..100)."""
        ordered = np.sort(self.bytes)
        return [int(ordered[min(int(p / 100.0 * len(ordered)), len(ordered) - 1)]) for p in wanted]

    def over_time(self, columns: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """(edges in ns, mean bytes between them, weighted by time; NaN where there is no snapshot)."""
        first, last = int(self.start_ns[0]), int(self.end_ns.max())
        edges = distinct(np.linspace(first, max(last, first + 1), columns + 1).astype(np.int64))
        # The integrals of size and of time up to each edge; snapshots follow one another.
        lasting = np.maximum(self.end_ns - self.start_ns, 0).astype(np.float64)
        known = np.column_stack([self.start_ns, self.end_ns]).ravel()
        known = np.maximum.accumulate(known)
        integrals = []
        for height in (self.bytes.astype(np.float64), np.ones(len(lasting))):
            area = np.cumsum(height * lasting)
            both = np.column_stack([np.append(0.0, area[:-1]), area]).ravel()
            integrals.append(np.diff(np.interp(edges, known, both)))
        sizes, times = integrals
        return edges, np.divide(sizes, times, out=np.full(len(sizes), np.nan), where=times > 0)


def working_sets(batches: Iterable[RegionBatch], min_accesses: int = 1) -> list[WorkingSet]:
    """The working set sizes of every target in the batches, by target number."""
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.uint64]]] = []
    for batch in batches:
        sizes = np.where(batch.nr_accesses < min_accesses, np.uint64(0), batch.memory)
        totals = np.add.reduceat(sizes, batch.offsets[:-1])
        parts.append((batch.target, batch.start_ns, batch.end_ns, totals))
    if not parts:
        return []
    target, start_ns, end_ns = (np.concatenate([part[column] for part in parts]) for column in range(3))
    totals = np.concatenate([part[3] for part in parts])
    found = []
    for number in distinct(target).tolist():
        of_target = target == number
        found.append(WorkingSet(number, start_ns[of_target], end_ns[of_target], totals[of_target]))
    return found


def total(sets: Sequence[WorkingSet]) -> WorkingSet:
    """The working set of several targets together: at each end of a snapshot, the sum of what each had then.

    Added up per moment: percentiles of a sum are no sums of percentiles. A target counts from the start of its first
    snapshot to the end of its last one. Memory that targets share counts for each.
    """
    ends = distinct(np.concatenate([one.end_ns for one in sets]))
    sums = np.zeros(len(ends), np.uint64)
    for one in sets:
        place = np.searchsorted(one.end_ns, ends, "left")  # the snapshot that covers the moment
        lives = (place < len(one.end_ns)) & (ends > one.start_ns[0])
        sums[lives] += one.bytes[place[lives]]
    first = min(int(one.start_ns[0]) for one in sets)
    return WorkingSet(TOTAL, np.concatenate([[first], ends[:-1]]), ends, sums)
