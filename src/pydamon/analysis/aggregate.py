"""Coarser snapshots from finer ones: k consecutive aggregation intervals as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import distinct


def combine(snapshots: Sequence[Snapshot], ages_of: Snapshot | None = None) -> Snapshot:
    """One snapshot of one target that says what several consecutive ones of the same intervals say together.

    Its aggregation interval is the sum of theirs, its counts are sums: for a range that some of them did not cover, of
    those that did. All boundaries are kept; neighbours with equal counts are joined. Ages are those of the last one, in
    the longer interval (or those of ``ages_of``, where the last one is itself a combination).
    """
    first, last = snapshots[0], snapshots[-1]
    if len(snapshots) == 1:
        return first
    aged = ages_of if ages_of is not None else last
    bounds = distinct(np.concatenate([array for s in snapshots for array in (s.start, s.end)]))
    low = bounds[:-1]
    counts = np.zeros(len(low), np.int64)
    covered = np.zeros(len(low), np.bool_)
    age = np.zeros(len(low), np.int64)
    for snapshot in snapshots:  # a handful
        inside, place = _regions_at(snapshot, low)
        counts[inside] += snapshot.nr_accesses[place]
        covered |= inside
    inside, place = _regions_at(aged, low)
    age[inside] = aged.age[place]
    aggr_us = sum(snapshot.aggr_us for snapshot in snapshots)
    age = age * aged.aggr_us // aggr_us
    start, end = low[covered], bounds[1:][covered]
    counts, age = counts[covered], age[covered]
    begins = np.ones(len(start), np.bool_)
    begins[1:] = (start[1:] != end[:-1]) | (counts[1:] != counts[:-1]) | (age[1:] != age[:-1])
    at = np.flatnonzero(begins)
    return Snapshot(
        target=first.target,
        start_ns=first.start_ns,
        end_ns=last.end_ns,
        sample_us=first.sample_us,
        aggr_us=aggr_us,
        start=start[at],
        end=end[np.append(at[1:] - 1, len(end) - 1)] if len(at) else end,
        nr_accesses=counts[at].astype(np.uint32),
        age=age[at].astype(np.uint32),
    )


def _regions_at(snapshot: Snapshot, places: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """(which of the sorted addresses lie in a region, the number of that region for each that does)."""
    place = np.searchsorted(snapshot.end, places, "right")
    inside = place < len(snapshot.end)
    inside[inside] = snapshot.start[place[inside]] <= places[inside]
    return inside, place[inside]
