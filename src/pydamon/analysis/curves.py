"""Sizes of one target over time: what was used, how much memory there is, and how much of it is cold for how long.

In columns of equal, power-of-two lengths, so that memory does not grow with the snapshots; when time goes beyond the
last column, two columns become one. Each snapshot counts in every column that it reaches into, by the time that it has
there; the least and the most working set of a column are kept, too, so that no peak is lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import IDLE_BOUNDS_S, unaccessed_s
from pydamon.records.batch import RegionBatch

F64 = NDArray[np.float64]

COLUMNS = 1024
COLD_S = (0, *IDLE_BOUNDS_S)
_EDGES = np.array([0.0, *IDLE_BOUNDS_S])
_USED, _MEMORY, _UNKNOWN, _COLD = 0, 1, 2, 3  # rows of the sums; from `_COLD` on a row for each of `COLD_S`


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """Parallel float64 arrays in bytes, NaN where there was no snapshot; ``time_ns`` (int64) has one edge more.

    ``unknown`` is beside ``memory``: of it it is not known whether it is there, or used. ``cold[i]`` is what was not
    accessed for at least ``COLD_S[i]`` seconds (0: in the snapshot itself).
    """

    time_ns: NDArray[np.int64]
    used: F64
    used_least: F64
    used_most: F64
    memory: F64
    unknown: F64
    cold: F64


class Curves:
    """Collects the snapshots of one target, in any order."""

    def __init__(self, start_ns: int, span_ns: int, columns: int = COLUMNS) -> None:
        self.start_ns = start_ns
        self.column_ns = 1 << max((-(-max(span_ns, 1) // columns) - 1).bit_length(), 0)
        self._time = np.zeros(columns)
        self._sums = np.zeros((_COLD + len(COLD_S), columns))
        self._least = np.full(columns, np.inf)
        self._most = np.full(columns, -np.inf)

    def add(self, batch: RegionBatch) -> None:
        """Take in the snapshots of a batch (all of them: select the target before)."""
        batch = batch.select((batch.end_ns > self.start_ns) & (batch.end_ns > batch.start_ns))
        if not len(batch):
            return
        while int(batch.end_ns.max()) - self.start_ns > self.column_ns * len(self._time):
            self._fold()
        values = _values(batch)
        start, end = np.maximum(batch.start_ns - self.start_ns, 0), batch.end_ns - self.start_ns
        column, last = start // self.column_ns, (end - 1) // self.column_ns
        while (here := column <= last).any():
            column, last, start, end, values = column[here], last[here], start[here], end[here], values[:, here]
            low = column * self.column_ns
            part = (np.minimum(end, low + self.column_ns) - np.maximum(start, low)).astype(np.float64)
            size = len(self._time)
            self._time += np.bincount(column, part, size)
            for row, value in zip(self._sums, values, strict=True):
                row += np.bincount(column, part * value, size)
            np.minimum.at(self._least, column, values[_USED])
            np.maximum.at(self._most, column, values[_USED])
            column = column + 1

    def state(self) -> dict[str, NDArray[np.float64]]:
        """All that it has collected, for `of_state`."""
        return {"time": self._time, "sums": self._sums, "least": self._least, "most": self._most}

    @classmethod
    def of_state(cls, start_ns: int, column_ns: int, state: Mapping[str, NDArray[np.float64]]) -> Curves:
        """One that goes on from a `state`; ValueError if it cannot be one."""
        columns = len(state["time"])
        made = cls(start_ns, 1, max(columns, 1))
        for name, array in made.state().items():
            if state[name].shape != array.shape or state[name].dtype != array.dtype:
                raise ValueError(f"{name} has another shape")
            array[:] = state[name]
        made.column_ns = column_ns
        return made

    def _fold(self) -> None:
        half = len(self._time) // 2
        for array, rule, empty in (
            (self._time, np.add, 0.0),
            (self._sums, np.add, 0.0),
            (self._least, np.minimum, np.inf),
            (self._most, np.maximum, -np.inf),
        ):
            array[..., :half] = rule(array[..., 0::2], array[..., 1::2])
            array[..., half:] = empty
        self.column_ns *= 2

    def sizes(self) -> Sizes:
        """What was collected so far, up to the last column with a snapshot."""
        count = int(np.flatnonzero(self._time)[-1]) + 1 if self._time.any() else 0
        some = self._time[:count] > 0
        time = np.where(some, self._time[:count], 1)
        means = np.where(some, self._sums[:, :count] / time, np.nan)
        least, most = (np.where(some, array[:count], np.nan) for array in (self._least, self._most))
        edges = self.start_ns + np.arange(count + 1, dtype=np.int64) * self.column_ns
        return Sizes(edges, means[_USED], least, most, means[_MEMORY], means[_UNKNOWN], means[_COLD:])


def _values(batch: RegionBatch) -> F64:
    """Of each snapshot: used, memory, unknown, and cold for each of `COLD_S`; bytes, shape (rows, snapshots)."""
    memory = batch.memory.astype(np.float64)
    idle = unaccessed_s(batch)
    bins = np.searchsorted(_EDGES, idle, "right")  # 0 for what was accessed
    place = np.repeat(np.arange(len(batch)), batch.counts) * (len(COLD_S) + 1) + bins
    sizes = np.bincount(place, memory, len(batch) * (len(COLD_S) + 1)).reshape(len(batch), -1).T
    cold = np.cumsum(sizes[:0:-1], axis=0)[::-1]
    unknown = batch.per_snapshot(batch.unknown_memory).astype(np.float64)
    found: F64 = np.concatenate([sizes[:1], sizes.sum(axis=0, keepdims=True), unknown[np.newaxis], cold])
    return found
