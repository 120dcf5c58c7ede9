"""Snapshots and records as Arrow tables, NumPy arrays, pandas and Polars frames.

One row per region: ``target``, ``start_ns``, ``end_ns`` (of the snapshot), ``sample_us``, ``aggr_us``, ``start``,
``end`` (bytes), ``nr_accesses``, ``age`` (aggregation intervals), and optional columns where there are any.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.core import columns
from pydamon.core.snapshot import Snapshot
from pydamon.errors import MachineError
from pydamon.records.batch import RegionBatch

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader


def to_numpy(what: Snapshot | AnyReader | Iterable[Snapshot]) -> dict[str, NDArray[Any]]:
    """One array per column, all of one length; an optional one that is not known everywhere is of floats, with NaN."""
    found = dict(_columns(what))
    for column in columns.optional():
        if column.name in found:
            known = columns.known(column, found[column.name])
            if not known.all():
                found[column.name] = np.where(known, found[column.name], np.nan)
    return found


def _columns(what: Snapshot | AnyReader | Iterable[Snapshot]) -> dict[str, NDArray[Any]]:
    batches = _batches(what)
    found: dict[str, NDArray[Any]] = {}
    for column in columns.PER_SNAPSHOT:
        parts = [np.repeat(batch.heads[column.name], batch.counts) for batch in batches]
        found[column.name] = np.concatenate(parts) if parts else np.empty(0, np.int64)
    if not batches:
        return found | {column.name: np.empty(0, column.dtype) for column in columns.required()}
    regions = columns.concatenate([batch.columns for batch in batches])
    return found | {column.name: regions[column.name] for column in columns.PER_REGION if column.name in regions}


def _batches(what: Snapshot | AnyReader | Iterable[Snapshot]) -> list[RegionBatch]:
    if isinstance(what, Snapshot):
        return [RegionBatch.of([what])]
    read = getattr(what, "batches", None)
    if read is not None:
        return list(read())
    snapshots = list(what)  # type: ignore[arg-type]
    return [RegionBatch.of(snapshots)] if snapshots else []


def to_arrow(what: Snapshot | AnyReader | Iterable[Snapshot]) -> pa.Table:
    """An Arrow table of a snapshot, of snapshots, or of all of a record (as large as the record is)."""
    found = {name: pa.array(array) for name, array in _columns(what).items()}
    for column in columns.optional():
        if column.name in found:
            values = found[column.name].to_numpy()
            found[column.name] = pa.array(values, mask=~columns.known(column, values))
    return pa.table(found)


def to_pandas(what: Snapshot | AnyReader | Iterable[Snapshot]) -> Any:
    """A pandas DataFrame. Raises MachineError where pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise MachineError("is not installed; pip install pandas", where="pandas") from None
    return pandas.DataFrame(to_numpy(what))


def to_polars(what: Snapshot | AnyReader | Iterable[Snapshot]) -> Any:
    """A Polars DataFrame. Raises MachineError where Polars is not installed."""
    try:
        import polars
    except ImportError:
        raise MachineError("is not installed; pip install polars", where="polars") from None
    return polars.from_arrow(to_arrow(what))
