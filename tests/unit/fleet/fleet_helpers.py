"""Small fleets to ask, and files of rows as a host ships them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pydamon.dataset import files
from pydamon.fleet.asking import Data
from pydamon.fleet.measures import MEASURES
from pydamon.fleet.query import Query
from pydamon.fleet.simulated.hosts import Fleet
from pydamon.fleet.simulated.write import TRUTH, simulate
from pydamon.fleet.where import Where

FIRST = 1_795_564_800 // 86_400 * 86_400 + 10 * 3600  # ten o'clock on a day in November 2026, which is no future
DAY = files.day(FIRST)
ALL = Query(("service",), tuple(MEASURES))


def fleet_at(
    root: Path, *, hosts: int = 10, cgroups: int = 5, minutes: int = 120, seed: int = 1, pieces: int = 3
) -> Fleet:
    """Write a fleet, in this process."""
    fleet = Fleet(hosts, cgroups, minutes, FIRST, seed)
    simulate(root, fleet, pieces=pieces, jobs=1)
    return fleet


def truth(root: Path) -> dict[str, Any]:
    """What the simulation says is right."""
    told: dict[str, Any] = json.loads((root / TRUTH).read_text())
    return told


def answer(root: Path, *, raw: bool = True, query: Query = ALL, **how: Any) -> list[dict[str, Any]]:
    """All that is added up, as it is to the last digit."""
    return list(asked(root, raw=raw, query=query, **how).table.to_pylist())


def asked(root: Path, *, raw: bool = True, query: Query = ALL, **how: Any) -> Any:
    return Data(str(root), raw, **how).ask(query)


def rows(host: str = "host-a", cgroups: int = 1, minutes: int = 10, first: int = FIRST, **changed: Any) -> pa.Table:
    """Rows of a host, all the same, but for what is ``changed``: a value, or one for each row."""
    count = cgroups * minutes
    told: dict[str, Any] = {
        "host": [host] * count,
        "host_class": ["small"] * count,
        "cgroup": [f"/a/{at // minutes}" for at in range(count)],
        "service": ["api"] * count,
        "minute": [first + 60 * (at % minutes) for at in range(count)],
        "seconds": [60] * count,
        "resident": [1 << 30] * count,
    }
    for head, size in (("cold", 1 << 29), ("returned", 1 << 20)):
        told |= {f"{head}_{age}s": [size - (at << 12)] * count for at, age in enumerate((10, 30, 60, 120, 300, 600))}
    for name, value in changed.items():
        told[name] = value if isinstance(value, list) else [value] * count
    schema = files.arrow_schema()
    arrays = [pa.array(told.get(field.name, [None] * count), field.type) for field in schema]
    return pa.table(arrays, schema=pa.schema([field.with_nullable(True) for field in schema], schema.metadata))


def ship(
    root: Path,
    table: pa.Table,
    *,
    host: str | None = None,
    day: str = DAY,
    metadata: Mapping[bytes, bytes] | None = None,
) -> Path:
    """Put rows into the partition of their host, without any check."""
    if metadata is not None:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **metadata})
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    return put(root, data, host or table.column("host")[0].as_py(), day)


def put(root: Path, data: bytes, host: str, day: str = DAY) -> Path:
    """Put bytes where a file of this host goes."""
    path = root / files.part("minutes", day, host, data).name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def changed(table: pa.Table, name: str, at: int, value: Any) -> pa.Table:
    """The table with one value changed."""
    values = table.column(name).to_pylist()
    values[at] = value
    index = table.column_names.index(name)
    return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def sums(root: Path, name: str = "rows", where: Where | None = None, **how: Any) -> int:
    """One measure of all rows."""
    found = Data(str(root), True, **how).ask(Query((), (name,), where or Where()))
    return int(found.exact(name)[0] or 0)


def reread(root: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All rows of minutes as another tool reads them: every file of the folder, by Arrow alone."""
    tables = [pq.ParquetFile(path).read() for path in sorted((root / "minutes").rglob("*.parquet"))]
    whole = pa.concat_tables([table.cast(files.arrow_schema()) for table in tables])
    return {name: np.asarray(whole.column(name).to_numpy(zero_copy_only=False)) for name in whole.column_names}
