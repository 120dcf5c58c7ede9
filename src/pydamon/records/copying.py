"""Side tables of a record that is made of others: which rows go into it, with which times and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.ma  # pyarrow asks for it with a mask: it is there before a file is begun
import pyarrow as pa
from numpy.typing import NDArray

from pydamon.records import hits
from pydamon.records.joined import AnyReader
from pydamon.records.writer import RecordWriter

# What is not flushed is in memory: so many rows at most.
_ROWS = 1 << 14

_Numbers = NDArray[np.integer[Any]]


def copy_tables(
    reader: AnyReader,
    writer: RecordWriter,
    *,
    until_ns: int | None = None,
    target: int | None = None,
    numbers: Mapping[int, int] | None = None,
    shift_ns: int = 0,
    within: tuple[int, int] | None = None,
) -> None:
    """The side tables, piece by piece: rows up to a time, of one target, with new ``numbers``, on another clock.

    What probes counted is cut to the addresses ``within``, as the regions are. Tables that are not declared go along.
    """
    rows = 0
    for name in dict.fromkeys(entry.name for entry in reader.tables()):
        if name == "targets":
            continue  # they are in the description already
        for entry, piece in reader.pieces(name):
            if until_ns is not None and (entry.time_ns or 0) > until_ns:
                continue
            if target is not None and entry.target not in (None, target):
                continue
            piece = _wanted_rows(piece, until_ns, target)
            if name == hits.TABLE and within is not None:
                piece = hits.cut(piece, *within)
            new = entry.target
            if numbers is not None:
                new = None if new is None else numbers.get(new, new)
                piece = _changed(piece, "target", lambda values: _renumbered(values, numbers))
            if shift_ns:
                piece = _changed(piece, "time_ns", lambda values: values + shift_ns)
            time_ns = None if entry.time_ns is None else entry.time_ns + shift_ns
            writer.add_opaque(name, piece, time_ns=time_ns, target=new)
            rows += piece.num_rows
            if rows > _ROWS:
                writer.flush()
                rows = 0
    writer.flush()


def _wanted_rows(piece: pa.Table, until_ns: int | None, target: int | None) -> pa.Table:
    """The rows of a side table up to that time, and of that target where it says of which they are."""
    wanted = np.ones(piece.num_rows, np.bool_)
    if until_ns is not None and (found := _whole_numbers(piece, "time_ns")) is not None:
        wanted &= (found[0] <= until_ns) | found[1]
    if target is not None and (found := _whole_numbers(piece, "target")) is not None:
        wanted &= (found[0] == target) | found[1]
    return piece if wanted.all() else piece.filter(pa.array(wanted))


def _whole_numbers(piece: pa.Table, name: str) -> tuple[_Numbers, NDArray[np.bool_]] | None:
    """(the values of a column, where it has none); None if the column is not there, or not of whole numbers."""
    places = piece.schema.get_all_field_indices(name)
    if len(places) != 1 or not pa.types.is_integer(piece.schema.field(places[0]).type):
        return None
    column = piece.column(places[0])
    return column.fill_null(0).to_numpy(), column.is_null().to_numpy()


def _changed(piece: pa.Table, name: str, change: Callable[[_Numbers], _Numbers]) -> pa.Table:
    """The table with the values of a column changed; as it is if that is not there, of another kind, or has no room."""
    found = _whole_numbers(piece, name)
    if found is None:
        return piece
    at = piece.schema.get_field_index(name)
    field = piece.schema.field(at)
    try:
        return piece.set_column(at, field, pa.array(change(found[0]), mask=found[1]).cast(field.type))
    except pa.ArrowInvalid:
        return piece


def _renumbered(values: _Numbers, numbers: Mapping[int, int]) -> _Numbers:
    if not numbers:
        return values
    old = np.array(sorted(numbers), np.int64)
    new = np.array([numbers[number] for number in old.tolist()], np.int64)
    place = np.searchsorted(old, values).clip(max=len(old) - 1)
    return np.where(old[place] == values, new[place], values)
