"""How memory is distributed over recency, access rate, and temperature; in bytes, over one snapshot or many.

- *idle time* (recency): for how long a region has not been accessed: its age where its count is 0, else 0.
- *access rate*: samples that found an access, in 1 of the aggregation's samples.
- *temperature*: the two in one number, a weighted sum, negative if there was no access at all: by default 100 × rate in
  percent + 100 × age in seconds. The field's tool has the same sum with the age in microseconds, in which all of the
  rate weighs as much as 0.1 ms of age; with weights of (100, 1e8) the numbers are its own. A blend: two regions of one
  temperature can be very different, so reports keep the three apart.

Bytes are of memory: what was resident, where the record tells (`RegionBatch.memory`).

A histogram over several snapshots weighs each by the time that it covers, so that its bytes are a mean over time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.totals import TOTAL, covered_ns
from pydamon.records.batch import RegionBatch

F64 = NDArray[np.float64]
Measure = Callable[[RegionBatch], F64]

# Idle times are told apart by these bounds, in seconds.
IDLE_BOUNDS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)


def idle_s(batch: RegionBatch) -> F64:
    """The idle time of each region in seconds; 0 for one that was accessed."""
    age = age_s(batch)
    age[batch.nr_accesses > 0] = 0.0
    return age


def unaccessed_s(batch: RegionBatch) -> F64:
    """As `idle_s`, but -1 for a region that was accessed: one that has just become idle is told from it."""
    return np.where(batch.nr_accesses > 0, -1.0, age_s(batch))


def age_s(batch: RegionBatch) -> F64:
    """The age of each region in seconds: by the clock where the record tells, else aggregations × their interval."""
    # Divided last: whole seconds stay whole.
    nominal: F64 = batch.age.astype(np.float64) * np.repeat(batch.aggr_us, batch.counts) / 1e6
    clock = batch.column("age_ms")
    if clock is None:
        return nominal
    return np.where(clock == np.iinfo(clock.dtype).max, nominal, clock / 1000.0)


def rate_percent(batch: RegionBatch) -> F64:
    """The access rate of each region in percent of the samples."""
    result: F64 = 100.0 * batch.nr_accesses / np.repeat(batch.max_nr_accesses, batch.counts)
    return result


def temperature(batch: RegionBatch, weights: tuple[float, float] = (100.0, 100.0)) -> F64:
    """See above; larger is hotter. ``weights``: of one percent of access rate, and of one second of age."""
    heat = weights[0] * rate_percent(batch) + weights[1] * age_s(batch)
    return np.where(batch.nr_accesses > 0, heat, -heat)


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """One target's bytes by value: ``bytes[i]`` (mean over time) have a value in [edges[i], edges[i + 1]).

    ``unknown_bytes`` are beside them: what may be resident or not, accessed or not. ``spans`` (int64, shape (2, n)) are
    the start and end in ns of the snapshots that were looked at.
    """

    target: int
    edges: F64
    bytes: F64
    unknown_bytes: int
    spans: NDArray[np.int64]

    @property
    def total_bytes(self) -> int:
        """All bytes that were looked at (mean over time)."""
        return round(float(self.bytes.sum()))

    def at_least(self, edge: int) -> int:
        """Bytes with a value of ``edges[edge]`` or more."""
        return round(float(self.bytes[edge:].sum()))


def distributions(batches: Iterable[RegionBatch], measure: Measure, edges: F64) -> list[Distribution]:
    """Histograms of ``measure`` by target; values beyond the outer ``edges`` count in the outer bins."""
    sums: dict[int, F64] = {}
    times: dict[int, float] = {}
    unknown: dict[int, float] = {}
    spans: dict[int, list[NDArray[np.int64]]] = {}
    for batch in batches:
        weight = _weights(batch)
        row_weight = np.repeat(weight, batch.counts) * batch.memory
        without = batch.per_snapshot(batch.unknown_memory) * weight
        place = np.clip(np.searchsorted(edges, measure(batch), "right") - 1, 0, len(edges) - 2)
        row_target = np.repeat(batch.target, batch.counts)
        for target in batch.targets:
            mine = row_target == target
            found = np.bincount(place[mine], weights=row_weight[mine], minlength=len(edges) - 1)
            sums[target] = sums.get(target, np.zeros(len(edges) - 1)) + found
            here = batch.target == target
            times[target] = times.get(target, 0.0) + float(weight[here].sum())
            unknown[target] = unknown.get(target, 0.0) + float(without[here].sum())
            spans.setdefault(target, []).append(np.stack([batch.start_ns[here], batch.end_ns[here]]))
    every = []
    for target in sorted(sums):
        time = max(times[target], 1.0)
        of_time = np.concatenate(spans[target], axis=1)
        every.append(Distribution(target, edges, sums[target] / time, round(unknown[target] / time), of_time))
    return every


def total(found: Sequence[Distribution], *, latest: bool) -> Distribution:
    """All targets (at least one) together.

    Over time, each target counts with the share of the time in which it was there; of the ``latest`` snapshots, those
    count that the last moment of all is not farther from than they last: others are of targets that are gone.
    """
    spans = np.concatenate([one.spans for one in found], axis=1)
    whole = max(covered_ns(spans[0], spans[1]), 1)
    last_ns = int(spans[1].max())
    sizes, unknown = np.zeros(len(found[0].bytes)), 0.0
    for one in found:
        start_ns, end_ns = one.spans[:, -1].tolist()
        if latest:
            share = float(last_ns - end_ns <= end_ns - start_ns)
        else:
            share = covered_ns(one.spans[0], one.spans[1]) / whole
        sizes += one.bytes * share
        unknown += one.unknown_bytes * share
    return Distribution(TOTAL, found[0].edges, sizes, round(unknown), spans)


def ranges(batches: Iterable[RegionBatch], measure: Measure) -> dict[int, tuple[float, float]]:
    """The smallest and the largest value of each target."""
    found: dict[int, tuple[float, float]] = {}
    for batch in batches:
        values = measure(batch)
        low = np.minimum.reduceat(values, batch.offsets[:-1])
        high = np.maximum.reduceat(values, batch.offsets[:-1])
        for target in batch.targets:
            mine = batch.target == target
            before = found.get(target, (np.inf, -np.inf))
            found[target] = (min(before[0], float(low[mine].min())), max(before[1], float(high[mine].max())))
    return found


def percentiles(batch: RegionBatch, values: F64, wanted: list[float]) -> list[float]:
    """Of the regions of one snapshot sorted by value, the values at these percentiles of their bytes."""
    order = np.argsort(values, kind="stable")
    reach = np.cumsum(batch.memory[order].astype(np.float64))
    at = np.searchsorted(reach, np.array(wanted) / 100.0 * reach[-1], "left")
    return [float(values[order[min(int(i), len(order) - 1)]]) for i in at]


def _weights(batch: RegionBatch) -> F64:
    """How much each snapshot counts: the time that it covers, at least 1 ns."""
    result: F64 = np.maximum(batch.end_ns - batch.start_ns, 1).astype(np.float64)
    return result
