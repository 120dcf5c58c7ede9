"""The part of a record that is asked about: when it is, which looks at the page panel are in it, what schemes did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydamon.analysis.panel import look_of
from pydamon.analysis.window import Window
from pydamon.errors import PydamonError
from pydamon.records.batch import MEMORY

if TYPE_CHECKING:
    from pydamon.core.panel import Look
    from pydamon.records.joined import AnyReader

COLUMNS = ("age", "age_ms", "unknown", *MEMORY)
_HARMLESS = ("stat",)


def part_of(
    reader: AnyReader, start_ns: int | None, end_ns: int | None
) -> tuple[tuple[int, int], tuple[int, int], Window]:
    """From when to when (ns) the record is, and the part of it from ``start_ns`` to ``end_ns`` after its beginning.

    The last is what chooses that part. Raises PydamonError for a record without snapshots.
    """
    span = reader.time_range()
    if span is None:
        raise PydamonError("holds no snapshot: nothing was recorded", where=reader.path)
    low = span[0] if start_ns is None else max(span[0], span[0] + start_ns)
    high = span[1] if end_ns is None else min(span[1], span[0] + end_ns)
    return span, (low, high), Window(None if start_ns is None else low, None if end_ns is None else high)


def looks_of(reader: AnyReader, part: tuple[int, int], target: int | None) -> dict[int, list[Look]]:
    """The looks at the page panel in that time (ns), by target; of one, or of all (None)."""
    found: dict[int, list[Look]] = {}
    for row in reader.table_rows("panel"):
        inside = part[0] <= row["time_ns"] <= part[1] and target in (None, row["target"])
        if inside and (look := look_of(row)) is not None:
            found.setdefault(row["target"], []).append(look)
    return found


def acted(reader: AnyReader) -> list[str]:
    """The actions of schemes that took effect while it was recorded, each once."""
    names = [row["action"] for row in reader.table_rows("schemes") if row["sz_applied"]]
    return [name for name in dict.fromkeys(names) if name not in _HARMLESS]
