"""What has changed between two records: the mean access rate of each address in one and in the other.

Both are brought onto one grid of ranges whose bounds are those of either; where only one has memory, it is new or gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.records.batch import RegionBatch
from pydamon.spans import distinct

U64 = NDArray[np.uint64]
F64 = NDArray[np.float64]
MAX_RANGES = 1 << 12
LEAST = 0.05  # access rates that differ by less are the same
_TRACE = 1e-9  # a range of which less was there than this share had nothing: rounding leaves traces of that size


@dataclass(frozen=True, slots=True, eq=False)
class MeanHeat:
    """Mean access rates (0..1) over time of the ranges between ``bounds`` (n + 1 addresses); NaN: nothing was there.

    ``monitored`` is the share of the range, and of the time, that was memory (`RegionBatch.memory`) and monitored.
    """

    bounds: U64
    rate: F64
    monitored: F64

    @property
    def bytes(self) -> F64:
        """The memory of each range, as a mean over time."""
        found: F64 = np.diff(self.bounds).astype(np.float64) * self.monitored
        return found

    def on(self, bounds: U64) -> MeanHeat:
        """The same on finer bounds, which include these within their reach."""
        middle = bounds[:-1] + (bounds[1:] - bounds[:-1]) // np.uint64(2)
        place = np.searchsorted(self.bounds, middle, "right") - 1
        inside = (place >= 0) & (place < len(self.rate))
        rate, monitored = np.full(len(middle), np.nan), np.zeros(len(middle))
        rate[inside], monitored[inside] = self.rate[place[inside]], self.monitored[place[inside]]
        return MeanHeat(bounds, rate, monitored)


def bounds_of(batches: Iterable[RegionBatch], most: int = MAX_RANGES) -> U64:
    """Addresses at which regions often begin or end, at most ``most`` of them, the outermost included."""
    points = np.empty(0, np.uint64)
    counts = np.empty(0, np.int64)
    for batch in batches:
        found, count = np.unique(np.concatenate([batch.start, batch.end]), return_counts=True)
        points, place = np.unique(np.concatenate([points, found]), return_inverse=True)
        counts = np.bincount(place, weights=np.concatenate([counts, count]), minlength=len(points)).astype(np.int64)
        if len(points) > 8 * most:  # bounded memory: what is rare so far is forgotten
            points, counts = _commonest(points, counts, 4 * most)
    return _commonest(points, counts, most)[0]


def _commonest(points: U64, counts: NDArray[np.int64], most: int) -> tuple[U64, NDArray[np.int64]]:
    if len(points) <= most:
        return points, counts
    keep = np.argsort(-counts, kind="stable")[: most - 2]
    keep = distinct(np.concatenate([keep, np.array([0, len(points) - 1])]))
    return points[keep], counts[keep]


def mean_heat(batches: Iterable[RegionBatch], bounds: U64) -> MeanHeat:
    """The mean access rate between ``bounds`` (sorted addresses), each snapshot weighed by the time it covers."""
    cells = len(bounds) - 1
    heat, known, total = np.zeros(cells), np.zeros(cells), 0.0
    width = np.diff(bounds).astype(np.float64)
    for batch in batches:
        weight = np.maximum(batch.end_ns - batch.start_ns, 1).astype(np.float64)
        total += float(weight.sum())
        row_weight = np.repeat(weight, batch.counts) * _density(batch)
        rate = batch.nr_accesses / np.repeat(batch.max_nr_accesses, batch.counts)
        for values, into in ((row_weight * rate, heat), (row_weight, known)):
            into += _spread(batch.start, batch.end, values, bounds)
    there = known > _TRACE * width * total
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(there, np.clip(heat / known, 0, 1), np.nan)
        return MeanHeat(bounds, rate, np.where(there, known, 0.0) / np.maximum(width * total, 1e-300))


def _density(batch: RegionBatch) -> F64:
    """The share (0..1) of each region's addresses that is memory."""
    size = np.maximum(batch.end - batch.start, np.uint64(1)).astype(np.float64)
    found: F64 = np.minimum(batch.memory / size, 1.0)
    return found


def _spread(start: U64, end: U64, values: F64, bounds: U64) -> F64:
    """The sum over ranges of value × bytes in each cell: through the integral of a function that jumps at the ends."""
    cells = len(bounds) - 1
    low, high = np.clip(start, bounds[0], bounds[-1]), np.clip(end, bounds[0], bounds[-1])
    first = np.clip(np.searchsorted(bounds, low, "right") - 1, 0, cells - 1)
    last = np.clip(np.searchsorted(bounds, high, "left") - 1, 0, cells - 1)
    same = first == last
    result: F64 = np.bincount(first[same], weights=(values * (high - low))[same], minlength=cells).astype(np.float64)
    if not same.all():
        apart = ~same
        left, right, value = first[apart], last[apart], values[apart]
        result += np.bincount(left, weights=value * (bounds[left + 1] - low[apart]), minlength=cells)
        result += np.bincount(right, weights=value * (high[apart] - bounds[right]), minlength=cells)
        # Whole cells in between: a difference array.
        steps = np.bincount(left + 1, weights=value, minlength=cells + 1)
        steps -= np.bincount(right, weights=value, minlength=cells + 1)
        result += np.cumsum(steps)[:cells] * np.diff(bounds).astype(np.float64)
    return result


@dataclass(frozen=True, slots=True)
class NamedHeat:
    """All memory of one name: monitored bytes (mean over time), and its mean access rate (0..1)."""

    bytes: float
    rate: float


def by_name(heat: MeanHeat, names: Sequence[str | None]) -> dict[str, NamedHeat]:
    """The heat of each name; ``names`` are those of the ranges between the bounds, None for none.

    What was not monitored all the time counts in proportion.
    """
    sizes = heat.bytes
    accessed = sizes * np.nan_to_num(heat.rate)
    found: dict[str, list[float]] = {}
    for name, size, part in zip(names, sizes.tolist(), accessed.tolist(), strict=True):
        if name is not None and size > 0:
            sums = found.setdefault(name, [0.0, 0.0])
            sums[0] += size
            sums[1] += part
    return {name: NamedHeat(size, part / size) for name, (size, part) in found.items()}


@dataclass(frozen=True, slots=True)
class NameChange:
    """All memory of one name in both records; None where one has none."""

    name: str
    before: NamedHeat | None
    after: NamedHeat | None

    @property
    def kind(self) -> str:
        """``new``, ``gone``, ``hotter``, ``colder`` (5 % of samples), ``bigger``, ``smaller`` (a tenth) or ``same``."""
        if self.before is None or self.after is None:
            return "new" if self.before is None else "gone"
        if abs(self.after.rate - self.before.rate) >= LEAST:
            return "hotter" if self.after.rate > self.before.rate else "colder"
        ratio = self.after.bytes / self.before.bytes
        return "bigger" if ratio >= 1.1 else "smaller" if ratio <= 1 / 1.1 else "same"

    @property
    def weight(self) -> float:
        """How much it matters: by how many bytes the accessed memory differs."""
        before, after = (0.0 if one is None else one.bytes * one.rate for one in (self.before, self.after))
        return abs(after - before)


def name_changes(before: dict[str, NamedHeat], after: dict[str, NamedHeat]) -> list[NameChange]:
    """Every name, the one that matters most first."""
    found = [NameChange(name, before.get(name), after.get(name)) for name in sorted(before.keys() | after.keys())]
    return sorted(found, key=lambda change: -change.weight)


@dataclass(frozen=True, slots=True)
class Change:
    """One range in both records: mean access rates (0..1), None where nothing was there; and how much memory it is.

    Those ``bytes`` are of the record that has more of them there.
    """

    start: int
    end: int
    before: float | None
    after: float | None
    bytes: int

    @property
    def kind(self) -> str:
        """``new``, ``gone``, ``hotter``, ``colder`` or ``same``."""
        if self.before is None:
            return "new"
        if self.after is None:
            return "gone"
        return "hotter" if self.after > self.before else "colder" if self.after < self.before else "same"

    @property
    def weight(self) -> float:
        """How much it matters: bytes × change of the rate."""
        return self.bytes * abs((self.after or 0.0) - (self.before or 0.0))


def changes(before: MeanHeat, after: MeanHeat, least: float = LEAST) -> list[Change]:
    """The ranges whose mean rate differs by ``least`` or more, or that only one has; equal neighbours are joined."""
    bounds = distinct(np.concatenate([before.bounds, after.bounds]))
    if len(bounds) < 2:
        return []
    both = before.on(bounds), after.on(bounds)
    a, b = both[0].rate, both[1].rate
    sizes = [heat.bytes for heat in both]
    # Rates in steps of ``least``: neighbours in one step are one range.
    step_a = np.where(np.isnan(a), -1, np.floor(np.nan_to_num(a) / least + 0.5)).astype(np.int64)
    step_b = np.where(np.isnan(b), -1, np.floor(np.nan_to_num(b) / least + 0.5)).astype(np.int64)
    cut = np.flatnonzero((np.diff(step_a) != 0) | (np.diff(step_b) != 0)) + 1
    first = np.concatenate([np.zeros(1, np.intp), cut])
    last = np.append(cut, len(a))
    width = np.diff(bounds).astype(np.float64)
    found = []
    for low, high in zip(first.tolist(), last.tolist(), strict=True):  # at most a few thousand
        rates: list[float | None] = []
        for values in (a, b):
            part = values[low:high]
            rates.append(None if np.isnan(part[0]) else float(np.average(part, weights=width[low:high])))
        most = max(round(float(size[low:high].sum())) for size in sizes)
        change = Change(int(bounds[low]), int(bounds[high]), rates[0], rates[1], most)
        if rates == [None, None] or (None not in rates and abs((rates[1] or 0) - (rates[0] or 0)) < least):
            continue
        found.append(change)
    return found
