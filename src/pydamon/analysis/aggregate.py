"""Coarser snapshots from finer ones: k consecutive aggregation intervals as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core import columns
from pydamon.core.columns import Array, Column
from pydamon.core.snapshot import Snapshot
from pydamon.spans import distinct

# What one snapshot says: of which places, what of them, and how much that weighs.
_Piece = tuple[NDArray[np.bool_], Mapping[str, Array], int]


def combine(snapshots: Sequence[Snapshot], newest: Snapshot | None = None) -> Snapshot:
    """One snapshot of one target that says what several consecutive ones of the same intervals say together.

    Its aggregation interval is the sum of theirs; each column is combined by its rule, of a range that some of them did
    not cover, from those that did. Boundaries of all are kept; neighbours that count alike are joined. What is that of
    the last one, as the age (in the longer interval), is that of ``newest`` where the last one is itself a combination.
    """
    first, last = snapshots[0], snapshots[-1]
    if len(snapshots) == 1:
        return first
    newest = newest if newest is not None else last
    bounds = distinct(np.concatenate([array for s in snapshots for array in (s.start, s.end)]))
    low, high = bounds[:-1], bounds[1:]
    pieces = [_piece(snapshot, low, high) for snapshot in snapshots]
    covered = np.logical_or.reduce([inside for inside, _, _ in pieces])
    aggr_us = sum(snapshot.aggr_us for snapshot in snapshots)
    found: dict[str, Array] = {"start": low[covered], "end": high[covered]}
    for column in columns.PER_REGION:
        told = [_piece(newest, low, high)] if column.over_time == "last" else pieces
        told = [piece for piece in told if column.name in piece[1]]
        if column.over_time and column.kept != "aside" and told:
            values = _over_time(column, told, len(low))[covered]
            if column.unit == "aggregations":
                values = (values.astype(np.int64) * newest.aggr_us // aggr_us).astype(values.dtype)
            found[column.name] = values
    return first.replace(end_ns=last.end_ns, aggr_us=aggr_us, **_ABSENT | columns.join(found, _begins(found)))


_ABSENT = {column.name: None for column in columns.PER_REGION if column.optional}


def _piece(snapshot: Snapshot, low: NDArray[np.uint64], high: NDArray[np.uint64]) -> _Piece:
    inside, place = _regions_at(snapshot, low)
    return inside, columns.cut(snapshot.columns, place, low[inside], high[inside]), max(snapshot.aggr_us, 1)


def _over_time(column: Column, pieces: Sequence[_Piece], places: int) -> Array:
    """What the pieces together say of each place; of one that none knows: nothing, or that it is not known."""
    total: Array = np.zeros(places, np.float64 if column.over_time == "mean" else np.uint64)
    weight = np.zeros(places)
    for inside, told, duration in pieces:
        known = columns.known(column, told[column.name])
        values = told[column.name][known]
        clear = inside.copy()
        clear[inside] = known
        if column.over_time == "most":
            total[clear] = np.maximum(total[clear], values)
        elif column.over_time == "mean":
            total[clear] += values * float(duration)
        else:
            total[clear] += values
        weight[clear] += duration
    if column.over_time == "mean":
        total = np.rint(total / np.maximum(weight, 1.0))
    return np.where(weight > 0, total, column.unknown if column.optional else 0).astype(column.dtype)


def _begins(found: Mapping[str, Array]) -> NDArray[np.intp]:
    """The numbers of the ranges that are not joined to the one before: it counts otherwise, or knows other things."""
    begins = np.ones(len(found["start"]), np.bool_)
    begins[1:] = found["start"][1:] != found["end"][:-1]
    for column in columns.PER_REGION[2:]:
        if column.name in found:
            values = columns.known(column, found[column.name]) if column.optional else found[column.name]
            begins[1:] |= values[1:] != values[:-1]
    return np.flatnonzero(begins)


def _regions_at(snapshot: Snapshot, places: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """(which of the sorted addresses lie in a region, the number of that region for each that does)."""
    place = np.searchsorted(snapshot.end, places, "right")
    inside = place < len(snapshot.end)
    inside[inside] = snapshot.start[place[inside]] <= places[inside]
    return inside, place[inside]
