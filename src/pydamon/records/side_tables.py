"""The side tables of records: all there are, with their types. What is written has these, what is read is held to them.

A new one is declared here and written with ``writer.add_rows(name, rows)``. Tables of other names, of other programs or
later versions, are opaque: a reader lists them and hands them out as they are, `record cut` and `merge` keep them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from pydamon.records.arrays import array
from pydamon.records.framing import BadMessage
from pydamon.spec.statistics import STATISTICS

_FEW, _MANY = 1 << 16, 1 << 20
# The longest text, and list, in a row; and of rows that take a sixteenth of a byte, what one counts.
_LONGEST, _MOST_ITEMS, _ROW_THAT_REPEATS = 1 << 21, 1 << 10, 1 / 16
_ROWS_AT_ONCE = 1 << 12


class Declared(msgspec.Struct, frozen=True):
    """One side table. Columns that are nullable may be missing in what is read; a piece has at most ``most_rows``.

    ``repeats``: its rows are much alike, so that many of them may take a byte of the file; they are read as arrays.
    """

    name: str
    help: str
    schema: pa.Schema
    most_rows: int

    @property
    def repeats(self) -> bool:
        """Whether its rows are those of regions, pass after pass."""
        return self.name in ("tried_regions", "probe_hits", "filter_passed")

    @property
    def gathered(self) -> bool:
        """Whether a recording has a row or a few of it each second: those of several seconds make one piece."""
        return self.name in ("cost", "footprint", "panel", "answers")


def _declare(name: str, help: str, most_rows: int = _FEW, /, **columns: str) -> Declared:
    """Columns by name: a type of Arrow's, or a list of one, with a ``?`` behind it where the value may be missing."""
    found = [pa.field(key, _type(kind.rstrip("?")), nullable=kind.endswith("?")) for key, kind in columns.items()]
    return Declared(name, help, pa.schema(found), most_rows)


def _type(name: str) -> pa.DataType:
    of_list = name.removeprefix("list:")
    return getattr(pa, name)() if of_list == name else pa.list_(getattr(pa, of_list)())


_REGION = {"start": "uint64", "end": "uint64"}
_ALL = (
    _declare(
        "maps", "the mappings of a target each time they changed", _MANY, time_ns="int64", target="uint32",
        **_REGION, perms="string", offset="uint64", inode="uint64", name="string",
    ),
    _declare(
        "targets", "who joined later; a number stands for one process for ever",
        time_ns="int64?", target="uint32", pid="int64?", command="string", start_ticks="int64?",
    ),
    _declare(
        "cost", "what monitoring has cost since the start, once a second", time_ns="int64", cpu_ns="uint64",
        checks="uint64", check_ns="uint64", clears="uint64", clear_ns="uint64", disturb_ns="uint64",
        samples="uint64?", asked_ns="uint64?", sampled_ns="uint64?",
    ),
    _declare(
        "footprint", "the size of each process, once a second", time_ns="int64", target="uint32",
        virtual_bytes="uint64", resident_bytes="uint64", swap_bytes="uint64?",
    ),
    _declare(
        "panel", "the page panel of a target, each time it was asked: numbers of pages by how long they are idle",
        time_ns="int64", target="uint32", resident_bytes="uint64", pages="uint32", unknown="uint32",
        idle="list:uint32", unseen="list:uint32", ended="list:uint32", weighed="uint32?", weights="float64?",
        squares="float64?", once_idle="list:float64?", once_unseen="list:float64?", once_squares="float64?",
        woken="list:uint32?", returned="list:uint32?",
    ),
    _declare(
        "blind", "how much of a target could not be watched, by the reason (empty: not known), seldom",
        time_ns="int64", target="uint32", reason="string", bytes="uint64",
    ),
    _declare(
        "answers", "where reports came beside sampling: samples of regions by who answered, and reports, by snapshot",
        time_ns="int64", target="uint32", by_primitive="uint64", by_reports="uint64", unknown="uint64",
        reports="uint64",
    ),
    _declare(
        "owners", "the processes that map most of each region of physical memory, each time that was looked up", _MANY,
        time_ns="int64", **_REGION, pid="int64", start_ticks="int64?", command="string", mapped_bytes="uint64",
        mapping="string?",
    ),
    _declare(
        "reverse_map", "what looking up the owners has cost since the start",
        time_ns="int64", refreshes="uint64", total_ns="uint64", pages="uint64",
    ),
    _declare(
        "resctrl", "cache occupancy and bandwidth by cache domain, once a second; null where the machine did not tell",
        time_ns="int64", target="uint32", group="string", domain="uint32", llc_occupancy_bytes="uint64?",
        mbm_total_bytes="uint64?", mbm_local_bytes="uint64?",
    ),
    _declare(
        "schemes", "the statistics of each scheme since the start, once a second",
        time_ns="int64", scheme="int32", name="string", action="string", active="bool_",
        **{row.name: "uint64?" if row.optional else "uint64" for row in STATISTICS.values()}, effective_bytes="uint64?",
    ),
    _declare(
        "modules", "what modules tell of themselves (spec/module_numbers.py), every five seconds; percentiles are many",
        time_ns="int64", module="string", number="string", values="list:int64",
    ),
    _declare(
        "tried_regions", "what the last pass of a scheme tried, if that is a new one", _MANY,
        time_ns="int64", scheme="int32", target="int32", **_REGION, nr_accesses="uint32", age="uint32",
        sz_applied="uint64", sz_filter_passed="uint64",
    ),
    _declare(
        "probe_hits", "how many samples of each region had the attribute of each probe; many snapshots a piece", _MANY,
        time_ns="int64", duration_ns="int64", target="uint32", probe="uint8", attribute="string", **_REGION,
        nr_accesses="uint32", age="uint32", samples="uint32", hits="uint32", weight="uint32?",
    ),
    _declare(
        "filter_passed", "format version 1: what is the column sz_filter_passed now", _MANY,
        time_ns="int64", target="uint32", **_REGION, passed_bytes="uint64",
    ),
)  # fmt: skip
TABLES: Mapping[str, Declared] = {table.name: table for table in _ALL}


def from_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of the side table ``name`` (objects; what may be missing need not be there) with its types.

    Raises KeyError for a table or column that is not declared, ArrowException for a value of another type.
    """
    held = list(rows)
    columns: dict[str, list[Any]] = {field.name: [] for field in TABLES[name].schema}
    for row in held:
        if not row.keys() <= columns.keys():
            raise KeyError(name, *(row.keys() - columns.keys()))
        for key, values in columns.items():
            values.append(row.get(key))
    return from_columns(name, columns)


def from_columns(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """As `from_rows`, of parallel arrays or lists by column."""
    schema = TABLES[name].schema
    arrays = [_array(columns[field.name], field) for field in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    for field, column in zip(schema, table.columns, strict=True):
        if column.null_count and not field.nullable:
            raise pa.ArrowInvalid(f"{name}.{field.name} has no value")
    return table


def _array(values: Any, field: pa.Field) -> pa.Array:
    try:
        return array(values, field.type)
    except UnicodeEncodeError:  # names of programs and files are bytes: what is no UTF-8 becomes "?"
        values = [value if value is None else value.encode("utf-8", "replace").decode() for value in values]
        return array(values, field.type)


def conform(name: str, table: pa.Table) -> pa.Table:
    """A piece as it was read, with exactly the declared columns and types; BadMessage if it cannot have them."""
    declared = TABLES[name]
    if table.num_rows > declared.most_rows:
        raise BadMessage(f"a table {name} of {table.num_rows} rows")
    if table.schema.equals(declared.schema) and not any(column.null_count for column in table.columns):
        _check_lengths(table)
        return table
    columns = [_column(table, field) for field in declared.schema]
    found = pa.Table.from_arrays(columns, schema=declared.schema)
    _check_lengths(found)
    return found


def each_row(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a piece, one by one; few of them are objects at a time."""
    for first in range(0, table.num_rows, _ROWS_AT_ONCE):
        columns = table.slice(first, _ROWS_AT_ONCE).to_pydict()
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def weight(name: str, count: int) -> float:
    """How much so many rows of the side table count against what a file may become."""
    return count * _ROW_THAT_REPEATS if name in TABLES and TABLES[name].repeats else count


def _check_lengths(table: pa.Table) -> None:
    """Raise BadMessage for a text or a list that is absurdly long."""
    for field, column in zip(table.schema, table.columns, strict=True):
        if not (pa.types.is_string(field.type) or pa.types.is_list(field.type)):
            continue
        most = _LONGEST if pa.types.is_string(field.type) else _MOST_ITEMS
        for chunk in column.chunks:
            if not len(chunk):
                continue
            ends = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
            if int(np.diff(ends).max()) > most:
                raise BadMessage(f"a side table with an absurdly long {field.name}")


def _column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    places = table.schema.get_all_field_indices(field.name)
    if len(places) > 1 or (not places and not field.nullable):
        raise BadMessage(f"a side table with other columns than {field.name}")
    if not places:
        return pa.nulls(table.num_rows, field.type)
    column = table.column(places[0])
    if column.null_count and not field.nullable:
        raise BadMessage(f"a side table without values of {field.name}")
    if column.type == field.type:
        return column
    same_kind = (
        (pa.types.is_integer(column.type) and pa.types.is_integer(field.type))
        or (pa.types.is_large_string(column.type) and pa.types.is_string(field.type))
        or pa.types.is_null(column.type)
    )
    if not same_kind:
        raise BadMessage(f"a side table whose column {field.name} is of another type")
    try:
        return column.cast(field.type)
    except (pa.ArrowException, ValueError):
        raise BadMessage(f"a side table whose column {field.name} has other values") from None
