"""Snapshots for formats in which the number of samples of an aggregation is said once, or not at all."""

from __future__ import annotations

import numpy as np

from pydamon.core.snapshot import Snapshot


class SameWindow:
    """Makes whole aggregations of those that have fewer samples than the first one of the same target had.

    That is what the end of a recording has cut short, or what was to last no longer: rates stay what they are.
    """

    def __init__(self) -> None:
        self._windows: dict[int, int] = {}

    def of(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, as if its samples had gone on alike for a whole aggregation; ages stand for the same time."""
        samples = snapshot.max_nr_accesses
        window = self._windows.setdefault(snapshot.target, samples)
        if samples >= window:
            return snapshot
        aggr_us = snapshot.sample_us * window
        age = snapshot.age.astype(np.uint64) * np.uint64(snapshot.aggr_us) // np.uint64(max(aggr_us, 1))
        rate = snapshot.nr_accesses.astype(np.uint64) * np.uint64(window) // np.uint64(samples)
        most = np.iinfo(np.uint32).max
        return snapshot.replace(
            aggr_us=aggr_us, nr_accesses=np.minimum(rate, most).astype(np.uint32), age=age.astype(np.uint32)
        )
