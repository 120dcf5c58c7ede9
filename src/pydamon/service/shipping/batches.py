"""Files of the data set, made of the minutes in a journal: one for each table, day and bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from pydamon.dataset import files
from pydamon.dataset.schema import COLUMNS, MINUTES, REGIONS, bucket
from pydamon.errors import PydamonError
from pydamon.service.shipping.journal import Record
from pydamon.service.shipping.spool import Packed

Columns = dict[str, list[Any]]
_INTEGERS = frozenset(column.name for column in COLUMNS if column.type == "int64")


class Told(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is told of a minute: of the whole host, of each cgroup (a value of each column), and of regions, if they are
    shipped: a stream of Arrow.
    """

    host: str
    host_class: str | None = None
    kernel: str | None = None
    version: str | None = None
    columns: Columns
    regions: bytes | None = None

    @property
    def rows(self) -> int:
        """How many cgroups."""
        return len(self.columns["cgroup"])


_DECODER = msgspec.msgpack.Decoder(Told)


def encode(told: Told) -> bytes:
    """For a journal."""
    return msgspec.msgpack.encode(told)


class Packer:
    """Makes files of records; counts the rows that cannot be true, which are left out."""

    def __init__(self, say: Callable[[str], object] = lambda line: None) -> None:
        self.left_out = 0
        self._say = say

    def __call__(self, records: Sequence[Record]) -> Iterator[Packed]:
        """A `spool.Pack`: the same records make the same files."""
        parts: dict[tuple[str, int], list[tuple[int, Told]]] = {}
        for record in records:
            try:
                told = _DECODER.decode(record.payload)
            except (msgspec.MsgspecError, UnicodeDecodeError):  # its checksum was right: of another pydamon
                self._say("a minute in the spool cannot be understood and is left out")
                self.left_out += 1
                continue
            parts.setdefault((files.day(record.minute), bucket(told.host)), []).append((record.minute, told))
        for (date, number), minutes in sorted(parts.items()):
            yield from self._minutes(date, number, minutes)
            yield from self._regions(date, number, minutes)

    def _minutes(self, date: str, number: int, minutes: list[tuple[int, Told]]) -> Iterator[Packed]:
        import pyarrow as pa

        pieces = []
        for minute, told in minutes:
            try:
                pieces.append(files.shaped(_table(minute, told)))
            except (PydamonError, pa.ArrowException, ValueError, TypeError, OverflowError) as error:
                self._say(f"a minute in the spool is left out: {error}")
                self.left_out += 1
        if not pieces:
            return
        # An unnullable column of a poisoned piece may have a null: until it is validated all may.
        loose = pa.schema([field.with_nullable(True) for field in files.arrow_schema()])
        found = files.validate(pa.concat_tables([piece.cast(loose) for piece in pieces]))
        self.left_out += found.nr_left_out
        if found.left_out:
            self._say(f"{found.nr_left_out} rows cannot be true and are left out: {', '.join(found.left_out)}")
        if found.rows.num_rows:
            yield Packed(MINUTES, date, number, found.rows.num_rows, files.write(found.rows))

    def _regions(self, date: str, number: int, minutes: list[tuple[int, Told]]) -> Iterator[Packed]:
        pieces = [told.regions for _, told in minutes if told.regions is not None]
        if pieces:
            import pyarrow as pa

            from pydamon.service.shipping.region_files import joined

            try:
                rows, data = joined(pieces)
            except (pa.ArrowException, OSError, ValueError) as error:  # their checksum was right: of another pydamon
                self._say(f"regions in the spool are left out: {error}")
                self.left_out += 1
                return
            if rows:
                yield Packed(REGIONS, date, number, rows, data)


def _table(minute: int, told: Told) -> Any:
    """The rows of a minute, with the columns that are told."""
    import pyarrow as pa

    count = told.rows
    alike = {name: getattr(told, name) for name in ("host", "host_class", "kernel", "version")}
    columns: dict[str, Any] = {name: pa.array([value] * count, pa.string()) for name, value in alike.items()}
    columns["minute"] = pa.array([minute] * count, pa.int64())
    for name, values in told.columns.items():
        columns[name] = pa.array(values, pa.int64() if name in _INTEGERS else pa.string())
    return pa.table(columns)
