"""The working set: how much memory is in use.

The working set of a snapshot is the memory (`RegionBatch.memory`: what is resident, where the record tells) of its
regions with at least ``min_accesses`` accesses. Snapshots of the same intervals count the same, as in the field's
tool; percentiles are its as well: of the n sorted sizes, the one at ``int(percentile / 100 * n)``, the last one for
100. Where memory counts, each counts by its aggregation interval: intervals may have been tuned, and the end may have
cut the last one short.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.totals import TOTAL, moments, picked
from pydamon.records.batch import RegionBatch
from pydamon.spans import distinct

_MOST_UNSETTLED = 10


@dataclass(frozen=True, slots=True, eq=False)
class OverTime:
    """Sizes in bytes over time in columns: ``edges`` (int64 [columns + 1], ns); NaN where there is no snapshot.

    ``mean`` is weighted by time; ``least`` and ``most`` (float64 [columns]) are of the snapshots in the column, so that
    no peak is lost, however many snapshots there are in a column.
    """

    edges: NDArray[np.int64]
    mean: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]

    @property
    def varies(self) -> bool:
        """Whether there is a column with different sizes: else the mean says all."""
        return bool((self.most > self.least).any())


@dataclass(frozen=True, slots=True, eq=False)
class WorkingSet:
    """The working set sizes of one target (or their `TOTAL`) in the order of time.

    ``bytes`` (uint64), ``start_ns`` and ``end_ns`` (int64) are parallel, one entry per snapshot; so is ``unknown``
    (uint64), the bytes that may be in use or not, unless it is empty: then there are none. ``weight`` (int64) is how
    much each counts, all the same if it is empty. In the first ``unsettled`` snapshots the regions were still being
    found; `settled` leaves them out, ``left_out`` of them.
    """

    target: int
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    bytes: NDArray[np.uint64]
    unknown: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    unsettled: int = 0
    left_out: int = 0
    weight: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def mean_bytes(self) -> int:
        """The mean over the snapshots, rounded down."""
        return _mean(self.bytes, self.weight)

    @property
    def unknown_bytes(self) -> int:
        """Bytes of which it is not known whether they are in use: the mean over the snapshots, rounded down."""
        return _mean(self.unknown, self.weight) if len(self.unknown) else 0

    def settled(self) -> WorkingSet:
        """Without the snapshots in which the regions were still being found."""
        first = self.unsettled
        times, sizes = (self.start_ns[first:], self.end_ns[first:]), (self.bytes[first:], self.unknown[first:])
        return WorkingSet(self.target, *times, *sizes, left_out=self.left_out + first, weight=self.weight[first:])

    def percentiles(self, wanted: Sequence[float]) -> list[int]:
        """The size in bytes at each wanted percentile (0..100)."""
        order = np.argsort(self.bytes, kind="stable")
        if _alike(self.weight):
            places = [int(p / 100.0 * len(order)) for p in wanted]
        else:
            reach = np.cumsum(self.weight[order].astype(np.float64))
            places = [int(np.searchsorted(reach, p / 100.0 * float(reach[-1]), "right")) for p in wanted]
        return [int(self.bytes[order[min(place, len(order) - 1)]]) for place in places]

    def over_time(self, columns: int) -> OverTime:
        """The sizes in so many columns of equal time (fewer, if the time has fewer ns)."""
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
        mean = np.divide(sizes, times, out=np.full(len(sizes), np.nan), where=times > 0)
        return OverTime(edges, mean, *self._extremes(edges))

    def _extremes(self, edges: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the most of the snapshots that reach into each column; NaN where there is none."""
        least, most = np.full(len(edges) - 1, np.inf), np.full(len(edges) - 1, -np.inf)
        column = np.searchsorted(edges, self.start_ns, "right") - 1
        last = np.minimum(np.searchsorted(edges, self.end_ns, "left") - 1, len(edges) - 2)
        sizes = self.bytes.astype(np.float64)
        while (here := column <= last).any():  # a snapshot reaches into few columns, or there are few snapshots
            column, last, sizes = column[here], last[here], sizes[here]
            np.minimum.at(least, column, sizes)
            np.maximum.at(most, column, sizes)
            column = column + 1
        nothing = most < 0
        least[nothing], most[nothing] = np.nan, np.nan
        return least, most


def _alike(weight: NDArray[np.int64]) -> bool:
    return len(weight) == 0 or bool((weight == weight[0]).all())


def _mean(values: NDArray[np.uint64], weight: NDArray[np.int64]) -> int:
    if not _alike(weight):
        return int(np.average(values.astype(np.float64), weights=weight))
    # In two halves, because the sum may not fit 64 bits.
    high, low = values >> np.uint64(32), values & np.uint64(0xFFFFFFFF)
    return ((int(high.sum()) << 32) + int(low.sum())) // len(values)


def unsettled(regions: NDArray[np.int64]) -> int:
    """In how many of the first snapshots the number of regions still grew: at most 10, and a tenth of all.

    A monitor begins with few regions, which are split until they tell hot from cold.
    """
    grown = np.flatnonzero(np.diff(regions) <= 0)
    return min(int(grown[0]) if len(grown) else len(regions), _MOST_UNSETTLED, len(regions) // 10)


def working_sets(batches: Iterable[RegionBatch], min_accesses: int = 1) -> list[WorkingSet]:
    """The working set sizes of every target in the batches, by target number.

    Without residency they are DAMON's own: each snapshot counts the same, whatever its intervals are.
    """
    by_interval = True
    heads: list[NDArray[np.int64]] = []
    sizes: list[NDArray[np.uint64]] = []
    counts: list[NDArray[np.int64]] = []
    for batch in batches:
        used = np.where(batch.nr_accesses < min_accesses, np.uint64(0), batch.memory)
        heads.append(np.stack([batch.target, batch.start_ns, batch.end_ns, np.maximum(batch.aggr_us, 1)]))
        sizes.append(np.stack([batch.per_snapshot(used), batch.per_snapshot(batch.unknown_memory)]))
        counts.append(batch.counts)
        by_interval &= batch.column("resident") is not None
    if not heads:
        return []
    target, start_ns, end_ns, weight = np.concatenate(heads, axis=1)
    totals, unknown = np.concatenate(sizes, axis=1)
    regions = np.concatenate(counts)
    found = []
    for number in distinct(target).tolist():
        mine = target == number
        first = unsettled(regions[mine])
        parts = (start_ns[mine], end_ns[mine], totals[mine], unknown[mine])
        found.append(WorkingSet(number, *parts, first, weight=weight[mine & by_interval]))
    return found


def total(sets: Sequence[WorkingSet]) -> WorkingSet:
    """The working set of several targets (at least one) together, moment for moment.

    Percentiles of a sum are no sums of percentiles. It is settled once those targets are that were there first.
    """
    when = moments([(one.start_ns, one.end_ns) for one in sets])
    sums = np.zeros((2, len(when.end_ns)), np.uint64)
    weight = np.zeros(len(when.end_ns), np.int64)
    for one, place in zip(sets, when.picks, strict=True):
        weight = np.maximum(weight, picked(one.weight, place) if len(one.weight) else 1)
        sums[0] += picked(one.bytes, place)
        if len(one.unknown):
            sums[1] += picked(one.unknown, place)
    first_ns = int(when.end_ns[0])
    growing = [int(one.end_ns[one.unsettled - 1]) for one in sets if one.unsettled and one.start_ns[0] < first_ns]
    first = min(int(np.searchsorted(when.end_ns, max(growing, default=0), "right")), len(when.end_ns) // 10)
    return WorkingSet(TOTAL, when.start_ns, when.end_ns, sums[0], sums[1], first, weight=weight)
