"""The values of a record as other tools' formats want them: region by region, and under the names they have there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pydamon.core import columns
from pydamon.core.snapshot import Snapshot
from pydamon.records.joined import AnyReader

ALWAYS = ("start", "end", "nr_accesses", "age")
_TARGET_ID = re.compile(r"target_id=(\d{1,20})\b")


def region_values(
    snapshot: Snapshot, names: Sequence[str] = ALWAYS, unknown: str | int = 0
) -> Iterator[tuple[int | str, ...]]:
    """The values of these columns, region by region."""
    return zip(*(_values(snapshot, name, unknown) for name in names), strict=True)


def _values(snapshot: Snapshot, name: str, unknown: str | int) -> list[int | str]:
    found = snapshot.column(name)
    if found is None:
        return [unknown] * len(snapshot.start)
    values: list[int | str] = found.tolist()
    no_value = {column.name: column.unknown for column in columns.optional()}.get(name)
    return values if no_value is None else [unknown if value == no_value else value for value in values]


def target_ids(reader: AnyReader) -> dict[int, int]:
    """What each target is called elsewhere: the id that it was imported with, else its number."""
    found = {}
    for target in reader.info.targets:
        match = _TARGET_ID.match(target.command or "") if target.pid is None else None
        found[target.target] = int(match[1]) if match else target.target
    return found
