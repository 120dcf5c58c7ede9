"""What of a target could not be watched, and why, as far as a record tells."""

from __future__ import annotations

from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_size


def by_reason(reader: RecordReader) -> dict[int, dict[str, int]]:
    """Of each target: the bytes by the reason ("": not known), when that was looked at last."""
    found: dict[int, dict[str, int]] = {}
    newest: dict[int, int] = {}
    for row in reader.table_rows("blind"):
        target = row["target"]
        if row["time_ns"] > newest.get(target, -1):
            newest[target], found[target] = row["time_ns"], {}
        if row["time_ns"] == newest[target]:
            found[target][row["reason"]] = row["bytes"]
    return found


def words(reasons: dict[str, int]) -> str:
    """In a few words."""
    parts = [f"{format_size(size)} {reason or 'reason unknown'}" for reason, size in reasons.items()]
    return f"could not be watched: {', '.join(parts)}"
