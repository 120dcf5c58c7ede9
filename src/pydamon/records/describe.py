"""How a record shows itself in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from pydamon.core.snapshot import Snapshot
from pydamon.linux.mapping_names import mapping_name
from pydamon.linux.process import Mapping
from pydamon.markup import html_table
from pydamon.records.schema import RecordInfo
from pydamon.spec.units import format_duration_ns, format_size

_MOST_TARGETS = 10
_MOST_SHOWN, _MOST_REGIONS, _MOST_NAMES = 3, 20, 3


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

    def last_snapshots(self) -> dict[int, Snapshot]:
        """That of each target."""
        ...

    def mappings_at(self, target: int, time_ns: int) -> list[Mapping]:
        """What was mapped then."""
        ...

    def time_range(self) -> tuple[int, int] | None:
        """(start of the first snapshot, end of the last one) in ns; None if there is none."""
        ...


def short(reader: Described) -> str:
    """The record in one line, for a prompt; costs nothing."""
    info = reader.info
    how = " by ".join(dict.fromkeys(part for part in (info.ops, info.primitive) if part))
    targets = "1 target" if len(info.targets) == 1 else f"{len(info.targets)} targets"
    return f"<record {reader.path}: {how or 'imported'}, {targets}>"


def describe(reader: Described) -> str:
    """What the record is about, what it holds, and its last snapshots with what is mapped there, as HTML tables."""
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
    return html_table(reader.path, [], rows) + _last(reader)


def _last(reader: Described) -> str:
    """The regions that were accessed most in the last snapshot of each target, with the names of their mappings."""
    tables = []
    for target, snapshot in list(reader.last_snapshots().items())[:_MOST_SHOWN]:
        mappings = reader.mappings_at(target, snapshot.end_ns)
        order = np.argsort(-snapshot.nr_accesses.astype(np.int64), kind="stable")[:_MOST_REGIONS]
        rows = [
            [
                f"{start:#x}-{end:#x}",
                format_size(end - start),
                f"{nr_accesses}/{snapshot.max_nr_accesses}",
                ", ".join(_names(mappings, start, end)) or "-",
            ]
            for start, end, nr_accesses in zip(
                *(column[order].tolist() for column in (snapshot.start, snapshot.end, snapshot.nr_accesses)),
                strict=True,
            )
        ]
        title = f"target {target} at the end: {min(len(order), len(snapshot.start))} of {len(snapshot.start)} regions"
        tables.append(html_table(title, ["range", "size", "accesses", "mapping"], rows))
    return "".join(tables)


def _names(mappings: Sequence[Mapping], start: int, end: int) -> list[str]:
    found = dict.fromkeys(mapping_name(m) for m in mappings if m.start < end and start < m.end)
    return list(found)[:_MOST_NAMES]
