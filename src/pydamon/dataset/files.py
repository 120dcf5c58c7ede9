"""One file of the data set: written the same way each time, named by what is in it, and read with mistrust.

A file that cannot be believed as a whole (no Parquet, another version, no such columns) is an error that names it; a
row that cannot be true is left out and counted (`validate`).
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from pydamon.dataset.schema import BUCKETS, COLUMNS, HOURS, MINUTES, REGIONS, VERSION, VERSION_KEY, Column, bucket
from pydamon.errors import RequestError
from pydamon.plain import printable

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

SUFFIX = ".parquet"
MOST_BYTES = 1 << 50  # of any amount: more is no memory of a machine
MOST_TEXT = 1024  # characters of a label
MOST_HOST = 255
MOST_ROWS = 1 << 24  # of a file that is read at once
MOST_MINUTE = 1 << 33  # the year 2242
_ROW_GROUP = 1 << 17
_METADATA = {VERSION_KEY: str(VERSION)}
_LEVEL = 9  # of zstd: a batch is small, and is kept for long
_HASH_DIGITS = 32
_ORDER = (("host", "ascending"), ("minute", "ascending"), ("cgroup", "ascending"))

# What no label holds: what `plain.printable` escapes, as the regular expressions of Arrow (RE2) have it.
UNPRINTABLE = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}]"

_NAME = re.compile(
    rf"({MINUTES}|{HOURS}|{REGIONS})/date=(\d{{4}}-\d\d-\d\d)/bucket=(\d\d)/([0-9a-f]{{{_HASH_DIGITS}}})\.parquet",
    re.ASCII,
)


class Part(NamedTuple):
    """Where a file lies: its table, day (UTC, YYYY-MM-DD) and bucket, and the hash of what is in it."""

    table: str
    date: str
    bucket: int
    hash: str

    @property
    def name(self) -> str:
        """Below the data set's root."""
        return f"{folder(self.table, self.date, self.bucket)}/{self.hash}{SUFFIX}"


class Checked(NamedTuple):
    """What `validate` has left, and how many rows were left out, by reason; a row counts for the first that it has."""

    rows: pa.Table
    left_out: dict[str, int]

    @property
    def nr_left_out(self) -> int:
        """Rows that were left out."""
        return sum(self.left_out.values())


# -- names ------------------------------------------------------------------------------------------------------------


def folder(table: str, date: str, number: int) -> str:
    """The partition, below the data set's root."""
    return f"{table}/date={date}/bucket={number:02d}"


def part(table: str, date: str, host: str, data: bytes) -> Part:
    """Where the file with these bytes of this host goes: the same bytes always to the same place."""
    return Part(table, date, bucket(host), content_hash(data))


def content_hash(data: bytes) -> str:
    """The name of a file with these bytes: 128 bits of its SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]


def parse_name(name: str) -> Part | None:
    """What the name (below the root) says; None: it is no file of the data set."""
    found = _NAME.fullmatch(name)
    if found is None or int(found[3]) >= BUCKETS:
        return None
    try:
        datetime.date.fromisoformat(found[2])
    except ValueError:
        return None
    return Part(found[1], found[2], int(found[3]), found[4])


def day(minute: int) -> str:
    """The day (UTC, YYYY-MM-DD) of a time in seconds since 1970."""
    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=minute)).strftime("%Y-%m-%d")


# -- writing ----------------------------------------------------------------------------------------------------------


def arrow_schema(columns: Sequence[Column] = COLUMNS) -> pa.Schema:
    """The columns as Arrow has them; the metadata says the version."""
    import pyarrow as pa

    types = {"string": pa.string(), "int64": pa.int64()}
    fields = [pa.field(column.name, types[column.type], nullable=column.null) for column in columns]
    return pa.schema(fields, metadata=_METADATA)


def write(
    rows: pa.Table, file: IO[bytes] | str | None = None, columns: Sequence[Column] = COLUMNS, level: int = _LEVEL
) -> bytes:
    """The rows as one file, sorted by host, minute and cgroup; its bytes, or empty if they went to ``file``.

    Any rows with these columns in any order; what may be null may be missing. Raises RequestError.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = shaped(rows, columns)
    order = [each for each in _ORDER if each[0] in rows.column_names]
    rows = rows.sort_by(order)
    sink: Any = pa.BufferOutputStream() if file is None else file
    texts = [column.name for column in columns if column.type == "string"]
    with pq.ParquetWriter(
        sink,
        rows.schema,
        compression="zstd",
        compression_level=level,
        use_dictionary=texts,
        write_page_checksum=True,
        # What a batch of one host has beside its numbers is bytes for each column: a seventh of it, if all were told.
        write_statistics=[name for name, _ in order],
        store_schema=False,
        sorting_columns=pq.SortingColumn.from_ordering(rows.schema, order),
    ) as writer:
        writer.add_key_value_metadata(_METADATA)
        writer.write_table(rows, row_group_size=_ROW_GROUP)
    return bytes(sink.getvalue()) if file is None else b""


def shaped(rows: pa.Table, columns: Sequence[Column] = COLUMNS, where: str | None = None) -> pa.Table:
    """The rows with just these columns, in order and of their types; nulls where one that may be null is missing.

    Columns that are not known are left out. Raises RequestError about ``where``.
    """
    import pyarrow as pa

    schema = arrow_schema(columns)
    arrays = []
    for field in schema:
        if rows.column_names.count(field.name) == 1:
            arrays.append(_cast(rows.column(field.name), field, where))
        elif field.name in rows.column_names or not field.nullable:
            words = "is there twice" if field.name in rows.column_names else "is missing"
            raise RequestError(f"the column {field.name} {words}", where=where)
        else:
            arrays.append(pa.chunked_array([pa.nulls(rows.num_rows, field.type)]))
    # Not null is what `validate` sees to: here a null must not be lost unseen.
    loose = pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)
    table = pa.Table.from_arrays(arrays, schema=loose)
    strict = all(field.nullable or not table.column(field.name).null_count for field in schema)
    return table.cast(schema) if strict else table


def _cast(column: Any, field: Any, where: str | None) -> Any:
    import pyarrow as pa

    is_text = pa.types.is_string(field.type)
    found = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    texts = pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)
    if not (pa.types.is_null(found) or (texts if is_text else pa.types.is_integer(found))):
        raise RequestError(f"the column {field.name} is {found}; it must be {field.type}", where=where)
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise RequestError(f"the column {field.name}: {printable(str(error))[:200]}", where=where) from None


# -- reading ----------------------------------------------------------------------------------------------------------


def check(file: IO[bytes] | str, where: str, most_rows: int = MOST_ROWS) -> Any:
    """The opened Parquet file, if it is of this version and of bounded size. Raises RequestError about ``where``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        found = pq.ParquetFile(file, page_checksum_verification=True)
        text = (found.metadata.metadata or {}).get(VERSION_KEY)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestError(f"is no whole file of Parquet ({printable(str(error))[:100]})", where=where) from None
    if text is None:
        raise RequestError("is no file of a fleet's data set", where=where)
    if not re.fullmatch(rb"[1-9]\d{0,5}", text):
        raise RequestError("says no version that can be read", where=where)
    if int(text) > VERSION:
        raise RequestError(f"is of version {int(text)}; this pydamon reads up to {VERSION}", where=where)
    if found.metadata.num_rows > most_rows:
        raise RequestError(f"has {found.metadata.num_rows} rows; at most {most_rows} are read at once", where=where)
    return found


def read(file: IO[bytes] | str, where: str, columns: Sequence[Column] = COLUMNS) -> pa.Table:
    """The rows of a file, `shaped` but not yet validated. Raises RequestError about ``where``."""
    import pyarrow as pa

    opened = check(file, where)
    names = [column.name for column in columns if column.name in opened.schema_arrow.names]
    try:
        rows = opened.read(columns=names, use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestError(f"is damaged ({printable(str(error))[:100]})", where=where) from None
    return shaped(rows, columns, where)


# -- what can be believed ---------------------------------------------------------------------------------------------


def validate(rows: pa.Table, columns: Sequence[Column] = COLUMNS, *, until: int | None = None) -> Checked:
    """The rows that can be true: see `_reasons`. ``until``: no minute begins later than that (seconds since 1970).

    The rows are `shaped` first; raises RequestError if they cannot be.
    """
    import numpy as np
    import pyarrow as pa

    rows = shaped(rows, columns).combine_chunks()
    good = np.ones(rows.num_rows, dtype=bool)
    left_out: dict[str, int] = {}
    for reason, bad in _reasons(rows, columns, until):
        count = int(np.count_nonzero(bad & good))
        if count:
            left_out[reason] = left_out.get(reason, 0) + count
            good &= ~bad
    if good.all():
        return Checked(rows, left_out)
    return Checked(shaped(rows.filter(pa.array(good)), columns), left_out)


def _reasons(rows: pa.Table, columns: Sequence[Column], until: int | None) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """What a row is left out for, and which have it."""
    import numpy as np

    names = [column.name for column in columns]
    for column in columns:
        if not column.null and rows.column(column.name).null_count:
            yield f"{column.name} is null", _bools(rows.column(column.name).is_null())
    for column in columns:
        if column.type == "string":
            yield f"{column.name} is too long or not printable", _bad_text(rows.column(column.name), column.name)
    values = {column.name: _numbers(rows.column(column.name)) for column in columns if column.type == "int64"}
    for name, found in values.items():
        if name not in ("minute", "seconds"):
            yield f"{name} is out of range", (found < _UNKNOWN) | (found > MOST_BYTES)
    if "minute" in values:
        minute = values["minute"]
        yield "minute is none", (minute < 0) | (minute % 60 != 0) | (minute > MOST_MINUTE)
        if until is not None:
            yield "minute is in the future", minute > until
    if "seconds" in values:
        yield "seconds is not 1 to 60", (values["seconds"] < 1) | (values["seconds"] > 60)
    for head in ("cold_", "returned_"):
        ages = [name for name in names if re.fullmatch(rf"{head}\d+s", name)]
        yield f"{head}T does not fall with T", _rising([values[name] for name in ages], rows.num_rows)
    if "resident" in values and "cold_10s" in values:
        yield "cold_10s is more than resident", values["cold_10s"] > values["resident"]
    for name in (name for name in names if f"{name}_low" in values and f"{name}_high" in values):
        low, size, high = values[f"{name}_low"], values[name], values[f"{name}_high"]
        known = (size != _UNKNOWN) & (high != _UNKNOWN)
        yield f"{name} is not within its bounds", (low > np.where(size < 0, low, size)) | (known & (size > high))


_UNKNOWN = -1  # stands for null while rows are looked at
_POISON = -2


def _bools(column: Any) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = column.combine_chunks().to_numpy(zero_copy_only=False).astype(bool)
    return found


def _numbers(column: Any) -> NDArray[np.int64]:
    """The values; `_UNKNOWN` where null, and what is negative as `_POISON`."""
    import numpy as np
    import pyarrow.compute as pc

    values: NDArray[np.int64] = pc.fill_null(column, 0).combine_chunks().to_numpy(zero_copy_only=False)
    found = np.where(values < 0, _POISON, values)
    if column.null_count:
        found[_bools(column.is_null())] = _UNKNOWN
    return found


def _bad_text(column: Any, name: str) -> NDArray[np.bool_]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = column.combine_chunks()
    if isinstance(texts, pa.ChunkedArray):  # more than one array holds
        return np.concatenate([_bad_text(pa.chunked_array([chunk]), name) for chunk in texts.chunks])
    coded = texts.dictionary_encode()  # the same few are there again and again
    values, most = coded.dictionary, MOST_HOST if name == "host" else MOST_TEXT
    bad = pc.or_(
        pc.greater(pc.binary_length(values), 4 * most),  # before characters are counted
        pc.or_(pc.greater(pc.utf8_length(values), most), pc.match_substring_regex(values, UNPRINTABLE)),
    )
    if name in ("host", "cgroup"):
        bad = pc.or_(bad, pc.equal(values, ""))
    is_bad = np.append(bad.to_numpy(zero_copy_only=False).astype(bool), False)
    found: NDArray[np.bool_] = is_bad[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)]
    return found


def _rising(values: Sequence[NDArray[np.int64]], rows: int) -> NDArray[np.bool_]:
    """Where one of the columns is larger than the known one before it."""
    import numpy as np

    found = np.zeros(rows, dtype=bool)
    least = np.full(rows, np.iinfo(np.int64).max)
    for column in values:
        known = column >= 0
        found |= known & (column > least)
        least = np.where(known, column, least)
    return found
