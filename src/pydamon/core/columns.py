"""The columns of a snapshot: a row each, by which regions are held, cut, joined, written to records and read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Column(msgspec.Struct, frozen=True):
    """One value per region, or per snapshot.

    ``joined`` is the rule of `JOINING` for a region that is put together from others (and cut from one: see `cut`);
    ``over_time`` says what consecutive snapshots have together: the sum, the mean, the most, or the last. An
    ``optional`` column need not be there at all; where it is, the largest value of its type says that it is not known
    for that region (in files: null). It is ``kept`` in what pydamon ``recorded``, in what is ``imported`` only, or
    ``aside``, in a side table.
    """

    name: str
    dtype: type[np.signedinteger[Any] | np.unsignedinteger[Any]]
    unit: str
    help: str
    joined: str = ""
    over_time: str = ""
    optional: bool = False
    kept: str = "recorded"

    @property
    def unknown(self) -> int:
        """What says in an optional column that the value is not known."""
        return int(np.iinfo(self.dtype).max)


# Times are signed so that differences need no care; the widths are those of the kernel's own fields.
PER_SNAPSHOT = (
    Column("target", np.uint32, "", "number of the target"),
    Column("start_ns", np.int64, "ns", "when the aggregation interval began"),
    Column("end_ns", np.int64, "ns", "when the aggregation interval ended"),
    Column("sample_us", np.uint64, "us", "sampling interval"),
    Column("aggr_us", np.uint64, "us", "aggregation interval"),
)
# The addresses come first.
PER_REGION = (
    Column("start", np.uint64, "bytes", "first address of the region"),
    Column("end", np.uint64, "bytes", "first address after the region"),
    Column("nr_accesses", np.uint32, "samples", "checks that found an access", "mean", "sum"),
    Column("age", np.uint32, "aggregations", "how long the accesses have been about the same", "mean", "last"),
    Column("resident", np.uint64, "bytes", "how much of it was in memory", "sum", "mean", True),
    Column("unknown", np.uint32, "samples", "checks without an answer", "mean", "sum", True),
    Column("age_ms", np.uint64, "ms", "how long the accesses have been so, by the clock", "mean", "last", True),
    Column("sz_filter_passed", np.uint64, "bytes", "what passed a scheme's filters", "sum", "mean", True, "imported"),
    Column("probe_samples", np.uint32, "samples", "checks with probes", "mean", "sum", True, "aside"),
    Column("probe_hits", np.uint32, "samples", "hits of each probe", "mean", "sum", True, "aside"),
)


def optional() -> tuple[Column, ...]:
    """The columns of regions that records may have."""
    return tuple(column for column in PER_REGION if column.optional and column.kept != "aside")


def required() -> tuple[Column, ...]:
    """The columns of regions that always are there."""
    return tuple(column for column in PER_REGION if not column.optional)


class PerRegion:
    """What has ``columns``: parallel arrays by name, regions along the last axis."""

    __slots__ = ()
    columns: Mapping[str, Array]

    @property
    def start(self) -> NDArray[np.uint64]:
        """First address of each region, in bytes."""
        return self.columns["start"]

    @property
    def end(self) -> NDArray[np.uint64]:
        """First address after each region, in bytes."""
        return self.columns["end"]

    @property
    def nr_accesses(self) -> NDArray[np.uint32]:
        """Checks of each region that found an access."""
        return self.columns["nr_accesses"]

    @property
    def age(self) -> NDArray[np.uint32]:
        """Aggregation intervals for which that has been about the same."""
        return self.columns["age"]

    def column(self, name: str) -> Array | None:
        """A column by its name; None if it is absent."""
        return self.columns.get(name)


def checked(columns: Mapping[str, Array | None]) -> dict[str, Array]:
    """The columns that are there, in the order of the table. Raises KeyError for names that it does not have."""
    found = {}
    left = dict(columns)
    for column in PER_REGION:
        array = left.pop(column.name) if not column.optional else left.pop(column.name, None)
        if array is not None:
            found[column.name] = array
    if left:
        raise KeyError(*left)
    return found


def select(columns: Mapping[str, Array], index: Any) -> dict[str, Array]:
    """The same columns of those regions: a slice (then as views), a mask, or numbers."""
    return {name: array[..., index] for name, array in columns.items()}


def concatenate(parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """The columns of several sets of regions, one set after the other (at least one); unknown where one has none.

    What has no place in a row per region (the hits of several probes) is left out unless there is one part.
    """
    if len(parts) == 1:
        return dict(parts[0])
    found = {}
    for column in PER_REGION:
        if column.kept == "aside" or not any(column.name in part for part in parts):
            continue
        arrays = [
            part[column.name] if column.name in part else unknown_values(column, len(part["start"])) for part in parts
        ]
        if all(array.strides == (0,) for array in arrays):  # left out: see `RecordReader.batches`
            found[column.name] = np.broadcast_to(arrays[0][:1], sum(map(len, arrays)))
        else:
            found[column.name] = np.concatenate(arrays).astype(column.dtype, copy=False)
    return found


def unknown_values(column: Column, count: int) -> Array:
    """What an optional column holds of regions about which it knows nothing; takes no memory."""
    return np.broadcast_to(column.dtype(column.unknown), count)


def known(column: Column, array: Array) -> NDArray[np.bool_]:
    """Which values are known."""
    found: NDArray[np.bool_] = array != column.unknown if column.optional else np.ones(array.shape, np.bool_)
    return found


def without_unknown(columns: Mapping[str, Array]) -> dict[str, Array]:
    """The columns without the optional ones of which nothing is known."""
    kept = dict(columns)
    for column in PER_REGION:
        array = kept.get(column.name)
        if column.optional and array is not None and array.size and bool((array == column.unknown).all()):
            del kept[column.name]
    return kept


def cut(
    columns: Mapping[str, Array], index: Any, low: NDArray[np.uint64], high: NDArray[np.uint64]
) -> dict[str, Array]:
    """The pieces [low, high) of the regions ``index``, each piece within its region.

    Where joining adds up (bytes), a piece has its share by size, such that the pieces of a region add up to it; else a
    piece is like its region.
    """
    found = select(columns, index)
    start, end = found["start"], found["end"]
    whole = (low == start) & (high == end)
    for column in PER_REGION:
        array = found.get(column.name)
        if array is None or column.joined != "sum" or whole.all():
            continue
        keep = whole | ~known(column, array)
        shared, size = np.where(keep, 0, array), (end - start).astype(np.float64)
        most = np.nextafter(float(column.unknown), 0)
        until = [np.minimum(shared * ((at - start) / size), most).astype(array.dtype) for at in (low, high)]
        found[column.name] = np.where(keep, array, until[1] - until[0])
    return found | {"start": low, "end": high}


def _add(values: Array, weights: NDArray[np.float64], firsts: NDArray[np.intp]) -> Array:
    return np.add.reduceat(values, firsts, axis=-1)


def _mean(values: Array, weights: NDArray[np.float64], firsts: NDArray[np.intp]) -> Array:
    total = np.add.reduceat(weights, firsts, axis=-1)
    return np.rint(np.add.reduceat(values * weights, firsts, axis=-1) / np.maximum(total, 1e-300))


def _most(values: Array, weights: NDArray[np.float64], firsts: NDArray[np.intp]) -> Array:
    return np.maximum.reduceat(values, firsts, axis=-1)


# How the values of neighbours become that of the region that they are joined to: their sum, mean by size, or largest.
JOINING: dict[str, Callable[[Array, NDArray[np.float64], NDArray[np.intp]], Array]] = {
    "sum": _add,
    "mean": _mean,
    "most": _most,
}


def join(columns: Mapping[str, Array], firsts: NDArray[np.intp]) -> dict[str, Array]:
    """Neighbours as one region each; ``firsts`` are the numbers of those with which a new region begins.

    A sum of which a part is unknown is unknown; a mean, or the largest, is of what is known.
    """
    start, end = columns["start"], columns["end"]
    if len(firsts) == len(start):
        return dict(columns)
    lasts = np.append(firsts[1:], len(start)) - 1
    found = {"start": start[firsts], "end": end[lasts]}
    size = (end - start).astype(np.float64)
    for column in PER_REGION:
        array = columns.get(column.name)
        if array is None or not column.joined:
            continue
        clear = known(column, array)
        weights = np.where(clear, size, 0.0)
        values = JOINING[column.joined](np.where(clear, array, 0).astype(array.dtype), weights, firsts)
        settle = np.logical_and if column.joined == "sum" else np.logical_or
        clear = settle.reduceat(clear, firsts, axis=-1)
        found[column.name] = np.where(clear, values, column.unknown).astype(array.dtype)
    return found
