"""Asking a data set a question: the files, the engine that was chosen, and what has to be said beside the answer."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pydamon.dataset.schema import HOURS, MINUTES
from pydamon.errors import PydamonError
from pydamon.fleet import inventory as inventories
from pydamon.fleet.engine import Means, one_by_one
from pydamon.fleet.inventory import LeftOut
from pydamon.fleet.query import Query
from pydamon.fleet.where import check_labels

if TYPE_CHECKING:
    import pyarrow as pa

MINUTE_S = 60


@dataclass(frozen=True, eq=False)
class Found:
    """A row for each group, and how they were come by."""

    table: pa.Table
    left_out: LeftOut
    bytes_scanned: int
    files: int
    from_roll_ups: int
    partitions: int
    seconds: float

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A measure of each group; NaN where it is not known."""
        found: NDArray[np.float64] = self.table.column(name).cast("float64").to_numpy()
        return found

    def exact(self, name: str) -> list[int | None]:
        """A measure of each group, to the last digit."""
        values = (one.as_py() for one in self.table.column(name))
        return [None if value is None else int(value) for value in values]

    def texts(self, name: str) -> NDArray[np.object_]:
        """A label of each group; empty where it has none."""
        return np.array([one.as_py() or "" for one in self.table.column(name)], object)

    def flags(self, name: str = "after") -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = self.table.column(name).to_numpy().astype(bool)
        return found

    def span_s(self) -> float:
        """Seconds from the first minute to the end of the last; needs the measures ``first`` and ``last``."""
        return float(np.nanmax(self.numbers("last")) - np.nanmin(self.numbers("first"))) + MINUTE_S

    def how(self) -> str:
        """In a line: what was read."""
        from pydamon.spec.units import format_size

        kind = "minutes"
        if self.from_roll_ups:
            kind = "roll-ups" if self.from_roll_ups == self.partitions else "roll-ups, and minutes where there are none"
        size = format_size(self.bytes_scanned)
        files = f"{self.files} file{'' if self.files == 1 else 's'}"
        return f"read {size} of {files} ({kind}) in {self.seconds:.1f} s"

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
        if not table.num_rows:
            for line in stock.left_out.lines():
                raise PydamonError(f"no row is left; {line}", where=self.path)
            raise PydamonError("no row is as it was asked for", where=self.path)
        # In the order of the labels: the same whatever has been added up first.
        table = table.sort_by([(name, "ascending") for name in query.keys]) if query.keys else table
        took = time.monotonic() - began
        return Found(table, stock.left_out, stock.bytes, stock.files, stock.from_roll_ups, stock.partitions, took)
