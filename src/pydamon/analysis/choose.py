"""Regions of a snapshot by what they are like: which ones, and in which order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import idle_s, rate_percent, temperature
from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch

Bounds = tuple[float, float]
ANY: Bounds = (0, math.inf)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bounds, inclusive: size in bytes, access rate in percent of the samples, age in ns."""

    size: Bounds = ANY
    rate: Bounds = ANY
    age: Bounds = ANY

    def of(self, snapshot: Snapshot) -> NDArray[np.bool_]:
        """Which regions are within all bounds."""
        age_ns = snapshot.age.astype(np.float64) * (snapshot.aggr_us * 1000)
        rate = 100.0 * snapshot.nr_accesses / snapshot.max_nr_accesses
        size = (snapshot.end - snapshot.start).astype(np.float64)
        wanted = np.ones(len(size), np.bool_)
        for values, (low, high) in ((size, self.size), (rate, self.rate), (age_ns, self.age)):
            wanted &= (values >= low) & (values <= high)
        return wanted


def _hottest(batch: RegionBatch) -> list[NDArray[np.float64]]:
    return [-rate_percent(batch), -batch.age.astype(np.float64)]


def _coldest(batch: RegionBatch) -> list[NDArray[np.float64]]:
    return [-idle_s(batch), rate_percent(batch)]


def _recent(batch: RegionBatch) -> list[NDArray[np.float64]]:
    return [idle_s(batch), -rate_percent(batch)]


def _temperature(batch: RegionBatch) -> list[NDArray[np.float64]]:
    return [-temperature(batch)]


ORDERS: dict[str, Callable[[RegionBatch], list[NDArray[np.float64]]]] = {
    "address": lambda _: [],
    "hottest": _hottest,
    "coldest": _coldest,
    "recency": _recent,
    "temperature": _temperature,
}


def order(snapshot: Snapshot, by: str) -> NDArray[np.intp]:
    """The numbers of the regions in an order of `ORDERS`; equal ones stay in the order of addresses.

    ``hottest``: the most accessed first, among equals the one that has been so the longest. ``coldest``: the longest
    without access first. ``recency``: the most recently accessed first. ``temperature``: the hottest first by
    `distribution.temperature`.
    """
    keys = ORDERS[by](RegionBatch.of([snapshot]))
    place = np.arange(len(snapshot.start), dtype=np.float64)
    return np.lexsort([place, *reversed(keys)])
