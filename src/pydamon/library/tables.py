"""Snapshots and records as Arrow tables, NumPy arrays, pandas and Polars frames.

One row per region: ``target``, ``start_ns``, ``end_ns`` (of the snapshot), ``sample_us``, ``aggr_us``, ``start``,
``end`` (bytes), ``nr_accesses``, ``age`` (aggregation intervals).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.errors import MachineError
from pydamon.records.batch import RegionBatch

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader

_PER_SNAPSHOT = ("target", "start_ns", "end_ns", "sample_us", "aggr_us")
_PER_REGION = ("start", "end", "nr_accesses", "age")


def to_numpy(what: Snapshot | AnyReader | Iterable[Snapshot]) -> dict[str, NDArray[Any]]:
    """One array per column, all of one length."""
    batches = _batches(what)
    columns: dict[str, NDArray[Any]] = {}
    for name in _PER_SNAPSHOT:
        parts = [np.repeat(getattr(batch, name), batch.counts) for batch in batches]
        columns[name] = np.concatenate(parts) if parts else np.empty(0, np.int64)
    for name in _PER_REGION:
        parts = [getattr(batch, name) for batch in batches]
        kind = np.uint64 if name in ("start", "end") else np.uint32
        columns[name] = np.concatenate(parts) if parts else np.empty(0, kind)
    return columns


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
    return pa.table(to_numpy(what))


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
