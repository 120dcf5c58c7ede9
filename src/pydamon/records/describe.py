"""How a record shows itself in a notebook."""

from __future__ import annotations

from typing import Protocol

from pydamon.markup import html_table
from pydamon.records.schema import RecordInfo
from pydamon.spec.units import format_duration_ns, format_size

_MOST_TARGETS = 10


class Described(Protocol):
    """What is needed of a record, or of several that are read as one."""

    path: str

    @property
    def info(self) -> RecordInfo:
        """The description of the recording."""
        ...

    @property
    def rows(self) -> int:
        """Region rows."""
        ...

    @property
    def file_bytes(self) -> int:
        """The size of the file, or files."""
        ...

    @property
    def truncated(self) -> bool:
        """Whether it was not closed."""
        ...

    def time_range(self) -> tuple[int, int] | None:
        """(start of the first snapshot, end of the last one) in ns; None if there is none."""
        ...


def describe(reader: Described) -> str:
    """What the record is about and what it holds, as an HTML table."""
    info, span = reader.info, reader.time_range()
    how = " by ".join(part for part in (info.ops, info.primitive) if part)
    rows = [
        ["covers", format_duration_ns(span[1] - span[0]) if span is not None else "no snapshot"],
        ["regions", f"{reader.rows:,} in {format_size(reader.file_bytes)}"],
        ["monitored", how or "not known"],
        ["complete", "no (interrupted, or still being written)" if reader.truncated else "yes"],
    ]
    for target in info.targets[:_MOST_TARGETS]:
        pid = f" (pid {target.pid})" if target.pid is not None else ""
        rows.append([f"target {target.target}", f"{(target.command or '')[:200]}{pid}"])
    if len(info.targets) > _MOST_TARGETS:
        rows.append(["…", f"{len(info.targets) - _MOST_TARGETS} more targets"])
    return html_table(reader.path, [], rows)
