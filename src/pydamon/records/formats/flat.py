"""Tables with a row per region, as `pydamon export` writes them: Parquet, CSV and JSON lines."""

from __future__ import annotations

import io
import os
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from pydamon.errors import RequestError
from pydamon.records.decode import Rows, columns_of, index_of
from pydamon.records.formats.foreign import Foreign, Hints, target_named
from pydamon.records.formats.input_file import InputFile
from pydamon.records.formats.trace_snapshots import MAX_TARGETS
from pydamon.records.schema import (
    COLUMNS,
    METADATA_KEY,
    RecordInfo,
    decode_metadata,
    optional_names,
    region_fields,
)

_BATCH_ROWS = 1 << 16
_MAX_ROW_GROUP_BYTES = 1 << 30
_NAMES = {"parquet": "Parquet", "csv": "CSV", "jsonl": "JSON lines"}
# Numbers are ASCII; Arrow cannot report a damaged row of other bytes.
_ASCII = bytes(range(128)) + b"?" * 128
_BROKEN = (RequestError, pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError)


class FlatRows(Foreign):
    """Rows of the columns of a record (``age`` may be missing, and what is optional), in its order."""

    def __init__(self, source: InputFile, hints: Hints, kind: str) -> None:
        super().__init__(source, hints)
        self.format = _NAMES[kind]
        self._kind = kind
        self._about: RecordInfo | None = None
        self._damaged = 0
        names = self._names()
        self.optional = tuple(name for name in optional_names() if name in names)
        self._schema = pa.schema([field.with_nullable(True) for field in region_fields(self.optional)])

    def _names(self) -> Collection[str]:
        """The columns of the file, as far as can be known; finds its description, too."""
        line = self.source.head.removeprefix(b"\xef\xbb\xbf").lstrip().split(b"\n", 1)[0].decode("ascii", "replace")
        if self._kind == "jsonl":
            return [name for name in optional_names() if f'"{name}"' in line]
        if self._kind == "csv":
            return [name.strip().strip('"') for name in line.split(",")]
        with self._parquet() as file:
            metadata = (file.schema_arrow.metadata or {}).get(METADATA_KEY)
            if metadata is not None:
                self._about = decode_metadata(metadata, self.source.path)
            names: list[str] = file.schema_arrow.names
            return names

    def info(self) -> RecordInfo:
        """The description that is in a Parquet file of ours; else what is known."""
        return self._about or super().info()

    def rows(self) -> Iterator[Rows]:
        """The snapshots, in pieces. Raises RequestError for columns that are missing or of another kind."""
        self._damaged = 0
        self.targets = []
        known = {t.target for t in self._about.targets} if self._about is not None else set()
        read = {"parquet": self._from_parquet, "csv": self._from_csv, "jsonl": self._from_lines}[self._kind]
        try:
            for batch in read():
                complete = self._complete(batch)
                if not complete.num_rows:
                    continue
                rows = Rows(index_of(complete), columns_of(complete))
                for target in sorted({*rows.index[:, 1].tolist()} - known):
                    known.add(target)
                    self.targets.append(target_named(target, target))
                if len(known) > MAX_TARGETS:
                    raise RequestError(f"has more than {MAX_TARGETS} targets", where=self.source.path)
                yield rows
        except _BROKEN as error:
            raise self._broken(error) from None

    def left_out(self) -> list[str]:
        """Rows without all values, and a file that ends early."""
        found = []
        if self._damaged:
            found.append(f"{self._damaged} {'row' if self._damaged == 1 else 'rows'} without usable values left out")
        if self.source.cut_short:
            found.append(self.source.came_before())
        return found

    def _complete(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that have all values, in the columns of a record."""
        if "age" not in batch.schema.names:
            batch = batch.append_column("age", pa.array(np.zeros(batch.num_rows, np.uint32)))
        table = pa.Table.from_batches([batch]).select(self._schema.names)
        whole = np.ones(table.num_rows, np.bool_)
        for name in COLUMNS:
            if table.column(name).null_count:
                whole &= table.column(name).is_valid().to_numpy()
        if not whole.all():
            self._damaged += len(whole) - int(whole.sum())
            table = table.filter(pa.array(whole))
        table = table.cast(self._schema).combine_chunks()
        return table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema=self._schema)

    def _broken(self, error: BaseException) -> RequestError:
        if isinstance(error, RequestError):
            return error
        what = " ".join(str(error).split())[:160]
        return RequestError(f"is not {self.format} of regions, or damaged: {what}", where=self.source.path)

    @contextmanager
    def _parquet(self) -> Iterator[Any]:
        import pyarrow.parquet as pq

        with os.fdopen(os.dup(self.source.fd), "rb") as raw:
            try:
                file = self._checked(pq.ParquetFile(raw, pre_buffer=False))
            except _BROKEN as error:
                raise self._broken(error) from None
            with file:
                yield file

    def _checked(self, file: Any) -> Any:
        """The file, if it has our columns in pieces that fit memory; RequestError otherwise."""
        missing = [name for name in COLUMNS if name != "age" and name not in file.schema_arrow.names]
        if missing:
            raise RequestError(f"is Parquet, but has no column {missing[0]!r}", where=self.source.path)
        for number in range(file.metadata.num_row_groups):
            if file.metadata.row_group(number).total_byte_size > _MAX_ROW_GROUP_BYTES:
                raise RequestError("has a row group of more than 1 GiB", where=self.source.path)
        return file

    def _from_parquet(self) -> Iterator[pa.RecordBatch]:
        with self._parquet() as file:
            columns = [name for name in self._schema.names if name in file.schema_arrow.names]
            yield from file.iter_batches(batch_size=_BATCH_ROWS, columns=columns, use_threads=False)

    def _from_csv(self) -> Iterator[pa.RecordBatch]:
        from pyarrow import csv

        def skip(_: object) -> str:
            self._damaged += 1
            return "skip"

        names = self._names()
        present = [field for field in self._schema if field.name in names]
        reader = csv.open_csv(
            _Stream(block.translate(_ASCII) for block in self.source.blocks()),
            read_options=csv.ReadOptions(block_size=1 << 20, use_threads=False),
            parse_options=csv.ParseOptions(invalid_row_handler=skip),
            convert_options=csv.ConvertOptions(
                column_types={field.name: field.type for field in present},
                include_columns=[field.name for field in present],
            ),
        )
        with reader:
            yield from reader

    def _from_lines(self) -> Iterator[pa.RecordBatch]:
        decoder = msgspec.json.Decoder(_line_type(self.optional))
        for block in self.source.blocks():
            try:
                found = decoder.decode_lines(block)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                found = []
                for line in block.splitlines():
                    try:
                        if line.strip():
                            found.append(decoder.decode(line))
                    except (msgspec.MsgspecError, ValueError, RecursionError):
                        self._damaged += 1
            columns = [self._column(found, field.name, field.type) for field in self._schema]
            yield pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _column(self, found: list[Any], name: str, kind: pa.DataType) -> pa.Array:
        values = [getattr(line, name) for line in found]
        try:
            return pa.array(values, kind)
        except (pa.ArrowException, OverflowError, ValueError):
            bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
            low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
            return pa.array([value if value is None or low <= value <= high else None for value in values], kind)


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._pieces, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        self._pieces.close()
        super().close()


def _line_type(optional: Iterable[str]) -> Any:
    """What a line of JSON is decoded to: an object with a whole number for each column."""
    fields: list[Any] = [(name, int) for name in COLUMNS if name != "age"]
    fields += [("age", int, 0), *((name, int | None, None) for name in optional)]
    return msgspec.defstruct("Line", fields, gc=False)
