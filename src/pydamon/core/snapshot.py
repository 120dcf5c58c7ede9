"""What monitoring yields: the regions of one target at the end of one aggregation interval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.core import columns

_UNKNOWN = next(column.unknown for column in columns.PER_REGION if column.name == "resident")


class Snapshot(columns.PerRegion):
    """Aggregated result of one target.

    Its ``columns`` (see `core.columns`) are parallel arrays, one entry per region, in address order; ``start``/``end``
    (bytes, uint64), ``nr_accesses`` and ``age`` (uint32; samples and aggregations) are always there, others may be:
    `column` gives None for what is absent. Times are CLOCK_MONOTONIC nanoseconds (virtual ones in the simulator).
    ``nr_accesses`` ranges over 0..``max_nr_accesses``. A snapshot is not changed: `replace` and `select` make another.
    """

    __slots__ = ("aggr_us", "columns", "end_ns", "sample_us", "start_ns", "target")

    def __init__(
        self,
        target: int,
        start_ns: int,
        end_ns: int,
        sample_us: int,
        aggr_us: int,
        start: NDArray[np.uint64],
        end: NDArray[np.uint64],
        nr_accesses: NDArray[np.uint32],
        age: NDArray[np.uint32],
        **more: columns.Array | None,
    ) -> None:
        """``more``: optional columns by name, None where absent. Raises KeyError for a name that is none."""
        self.target = target
        self.start_ns = start_ns
        self.end_ns = end_ns
        self.sample_us = sample_us
        self.aggr_us = aggr_us
        self.columns: Mapping[str, columns.Array] = columns.checked(
            {"start": start, "end": end, "nr_accesses": nr_accesses, "age": age, **more}
        )

    @classmethod
    def of(cls, head: Mapping[str, Any], columns: Mapping[str, Any]) -> Snapshot:
        """Of what it says once, and its columns, both by name."""
        return cls(**head, **columns)

    @property
    def head(self) -> dict[str, Any]:
        """What it says once, by name (`columns.PER_SNAPSHOT`)."""
        return {column.name: getattr(self, column.name) for column in columns.PER_SNAPSHOT}

    def replace(self, **changes: Any) -> Snapshot:
        """The same with other values or columns; a column that becomes None is absent."""
        return Snapshot(**(self.head | dict(self.columns) | changes))

    def select(self, index: Any) -> Snapshot:
        """The same with only those regions: a slice, a mask, or numbers, in that order."""
        return Snapshot.of(self.head, columns.select(self.columns, index))

    @property
    def probe_hits(self) -> NDArray[np.uint32]:
        """How many of the samples had the attribute of each probe; shape (probes, n)."""
        found = self.columns.get("probe_hits")
        return np.empty((0, len(self.start)), np.uint32) if found is None else found

    @property
    def probe_samples(self) -> NDArray[np.uint32]:
        """How many samples the probes were asked about: fewer than ``max_nr_accesses`` where a target has just joined.

        Of no probe, nothing: shape (0,).
        """
        found = self.columns.get("probe_samples")
        return np.empty(0, np.uint32) if found is None else found

    @property
    def max_nr_accesses(self) -> int:
        """Samples per aggregation: the largest value that ``nr_accesses`` can have."""
        return max_nr_accesses(self.sample_us, self.aggr_us)

    @property
    def known_memory(self) -> NDArray[np.uint64]:
        """The bytes of each region that are known to be there: what is resident; all, where none of them tells."""
        size, resident = self.end - self.start, self.column("resident")
        return size if resident is None else np.where(resident == _UNKNOWN, 0, np.minimum(resident, size))

    def __repr__(self) -> str:
        count = "1 region" if len(self.start) == 1 else f"{len(self.start)} regions"
        lasting_ms = (self.end_ns - self.start_ns) / 1e6
        return f"<Snapshot of target {self.target}: {count}, {lasting_ms:,.4g} ms>"

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
