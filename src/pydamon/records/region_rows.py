"""The regions of many snapshots on their way into a file: collected, and as rows of Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.core import columns
from pydamon.core.columns import Array
from pydamon.core.snapshot import Snapshot
from pydamon.records.arrays import of_numbers
from pydamon.records.index import ROWS


def region_rows(schema: pa.Schema, index: NDArray[np.int64], regions: Mapping[str, Array]) -> pa.RecordBatch:
    """Regions as rows of that schema, given the index of their snapshots; null where an optional column is unknown."""
    rows: list[pa.Array] = []
    for place, column in enumerate(columns.PER_SNAPSHOT, ROWS + 1):
        rows.append(of_numbers(np.repeat(index[:, place].astype(column.dtype), index[:, ROWS])))
    for column in columns.PER_REGION:
        if column.name not in schema.names:
            continue
        values = regions.get(column.name)
        if values is None:
            rows.append(pa.nulls(len(regions["start"]), pa.from_numpy_dtype(column.dtype)))
        else:
            unknown = values == column.unknown if column.optional else None
            rows.append(of_numbers(values, unknown))
    return pa.RecordBatch.from_arrays(rows, schema=schema)


class RegionBuffer:
    """The columns of regions, growing to what is needed between two flushes."""

    def __init__(self, rows: int, names: Sequence[str]) -> None:
        self._about = [column for column in columns.PER_REGION if column.name in names]
        self._columns: list[Array] = [np.empty(rows, dtype=column.dtype) for column in self._about]
        self._seen: set[str] = set()  # the optional columns that some snapshot has

    def append(self, at: int, snapshot: Snapshot) -> None:
        """Copy the snapshot's regions to the rows from ``at`` on."""
        end = at + len(snapshot.start)
        if at == 0:
            self._seen.clear()
        if end > len(self._columns[0]):
            self._columns = [np.concatenate([column[:at], np.empty(end, column.dtype)]) for column in self._columns]
        for column, array in zip(self._about, self._columns, strict=True):
            source = snapshot.columns.get(column.name)
            array[at:end] = column.unknown if source is None else source
            if source is not None:
                self._seen.add(column.name)

    def columns(self, rows: int) -> dict[str, Array]:
        """The first ``rows`` rows of the columns that there are, as views."""
        return {
            column.name: array[:rows]
            for column, array in zip(self._about, self._columns, strict=True)
            if not column.optional or column.name in self._seen
        }
