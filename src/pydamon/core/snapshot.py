"""What monitoring yields: the regions of one target at the end of one aggregation interval."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Aggregated result of one target.

    ``start``/``end`` (bytes, uint64), ``nr_accesses`` and ``age`` (uint32; samples and aggregations) are parallel
    arrays, one entry per region, in address order. Times are CLOCK_MONOTONIC nanoseconds (virtual ones in the
    simulator). ``nr_accesses`` ranges over 0..``max_nr_accesses``. ``probe_hits`` (uint32, shape (probes, n)) is how
    many of the samples had the attribute of each probe, of the ``probe_samples`` (uint32) that they were asked about:
    fewer than ``max_nr_accesses`` where a target has just joined.
    """

    target: int
    start_ns: int
    end_ns: int
    sample_us: int
    aggr_us: int
    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    nr_accesses: NDArray[np.uint32]
    age: NDArray[np.uint32]
    probe_hits: NDArray[np.uint32] = field(default_factory=lambda: np.empty((0, 0), np.uint32))
    probe_samples: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))

    @property
    def max_nr_accesses(self) -> int:
        """Samples per aggregation: the largest value that ``nr_accesses`` can have."""
        return max_nr_accesses(self.sample_us, self.aggr_us)

    def _repr_html_(self) -> str:
        """How a notebook shows it: a table of its first regions."""
        from pydamon.markup import html_table
        from pydamon.spec.units import format_duration_ns, format_size

        most = 50
        rows = [
            [
                f"{start:#x}-{end:#x}",
                format_size(end - start),
                f"{nr_accesses}/{self.max_nr_accesses}",
                format_duration_ns(age * self.aggr_us * 1000),
            ]
            for start, end, nr_accesses, age in zip(
                *(column[:most].tolist() for column in (self.start, self.end, self.nr_accesses, self.age)), strict=True
            )
        ]
        if len(self.start) > most:
            rows.append([f"and {len(self.start) - most} more", "", "", ""])
        lasting = format_duration_ns(self.end_ns - self.start_ns)
        title = f"Snapshot of target {self.target}: {lasting}, {len(self.start)} regions"
        return html_table(title, ["range", "size", "accesses", "age"], rows)


def max_nr_accesses(sample_us: int, aggr_us: int) -> int:
    """Samples per aggregation interval, at least 1; a sampling interval of 0 counts as 1 us: docs/algorithms.md 2.1."""
    return max(aggr_us // max(sample_us, 1), 1)
