"""An estimate of memory bandwidth: bytes of accessed regions per second (docs/algorithms.md 2.18).

Each sample that found an access counts as if all of its region had been accessed once: sum of size × nr_accesses per
aggregation. It says how the demand changes and which ranges cause it; it does not measure traffic, which `resctrl` has
where the processor counts it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.totals import TOTAL, moments, picked
from pydamon.records.batch import RegionBatch
from pydamon.spans import distinct


@dataclass(frozen=True, slots=True, eq=False)
class Bandwidth:
    """One target's estimated bytes per second; parallel arrays, one entry per snapshot."""

    target: int
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    bytes_per_s: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Bytes per second over the whole time."""
        lasting = np.maximum(self.end_ns - self.start_ns, 1)
        return float((self.bytes_per_s * lasting).sum() / lasting.sum())


def bandwidths(batches: Iterable[RegionBatch]) -> list[Bandwidth]:
    """The estimate of every target in the batches."""
    parts = []
    for batch in batches:
        events = batch.memory.astype(np.float64) * batch.nr_accesses
        rate = np.add.reduceat(events, batch.offsets[:-1]) * 1e6 / np.maximum(batch.aggr_us, 1)
        parts.append((batch.target, batch.start_ns, batch.end_ns, rate))
    if not parts:
        return []
    target, start_ns, end_ns = (np.concatenate([part[column] for part in parts]) for column in range(3))
    rates = np.concatenate([part[3] for part in parts])
    return [
        Bandwidth(number, start_ns[mine], end_ns[mine], rates[mine])
        for number in distinct(target).tolist()
        for mine in (target == number,)
    ]


def total(found: Sequence[Bandwidth]) -> Bandwidth:
    """All targets (at least one) together, moment for moment."""
    when = moments([(one.start_ns, one.end_ns) for one in found])
    rates = [picked(one.bytes_per_s, place) for one, place in zip(found, when.picks, strict=True)]
    return Bandwidth(TOTAL, when.start_ns, when.end_ns, np.sum(rates, axis=0))
