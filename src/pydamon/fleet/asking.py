"""Asking a data set a question: the files, the engine that was chosen, and what has to be said beside the answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydamon.dataset.schema import HOURS, MINUTES
from pydamon.errors import PydamonError
from pydamon.fleet import inventory as inventories
from pydamon.fleet.engine import Means, one_by_one
from pydamon.fleet.inventory import LeftOut
from pydamon.fleet.query import Query, check_labels

Row = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """A row for each group, with Python's integers, and how they were come by."""

    rows: list[Row]
    left_out: LeftOut
    bytes_scanned: int
    files: int
    from_roll_ups: int
    partitions: int
    seconds: float

    def how(self) -> str:
        """In a line: what was read."""
        from pydamon.spec.units import format_size

        kind = "minutes"
        if self.from_roll_ups:
            kind = "roll-ups" if self.from_roll_ups == self.partitions else "roll-ups, and minutes where there are none"
        size = format_size(self.bytes_scanned)
        return f"read {size} of {self.files} files ({kind}) in {self.seconds:.1f} s"

    def about(self) -> dict[str, Any]:
        """The same, for programs."""
        return {
            "bytes_scanned": self.bytes_scanned,
            "files": self.files,
            "partitions": self.partitions,
            "partitions_from_roll_ups": self.from_roll_ups,
            "left_out_rows": self.left_out.rows,
            "left_out_files": [{"file": path, "reason": reason} for path, reason in self.left_out.files],
            "nr_left_out_files": self.left_out.nr_files,
        }


@dataclass(frozen=True)
class Data:
    """A data set, and how it is asked. ``raw``: of minutes, not of roll-ups; ``workers``, ``cluster``: by Dask."""

    path: str
    raw: bool = False
    means: Means = field(default_factory=Means)
    workers: int = 0
    cluster: str | None = None

    def ask(self, query: Query) -> Found:
        """The answer. Raises RequestError, MachineError, PydamonError."""
        check_labels(query.where)
        began = time.monotonic()
        root = inventories.root_of(self.path)
        columns = {table: query.columns(table) for table in (MINUTES, HOURS)}
        stock = inventories.inventory(root, query.where, columns, roll_ups=not self.raw and query.roll_ups_do)
        if self.workers or self.cluster is not None:
            from pydamon.fleet.cluster import by_dask

            table, left_out = by_dask(stock.jobs, query, self.means, self.workers, self.cluster)
        else:
            table, left_out = one_by_one(stock.jobs, query, self.means)
        stock.left_out.add(left_out)
        rows = [dict(zip(table.column_names, values, strict=True)) for values in _plain(table)]
        if not rows:
            for line in stock.left_out.lines():
                raise PydamonError(f"no row is left; {line}", where=self.path)
            raise PydamonError("no row is as it was asked for", where=self.path)
        took = time.monotonic() - began
        return Found(rows, stock.left_out, stock.bytes, stock.files, stock.from_roll_ups, stock.partitions, took)


def _plain(table: Any) -> Iterator[tuple[Any, ...]]:
    """Rows with Python's integers."""
    import pyarrow as pa

    columns = []
    for column in table.columns:
        values = column.to_pylist()
        if pa.types.is_decimal(column.type):
            values = [None if value is None else int(value) for value in values]
        columns.append(values)
    return zip(*columns, strict=True)
