"""What of a target could not be watched, and why, and who answered, as far as a record tells."""

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


def answers(reader: RecordReader) -> list[dict[str, int]]:
    """Where reports came beside sampling: of each target the samples of its regions by who answered, and reports."""
    found: dict[int, dict[str, int]] = {}
    for row in reader.table_rows("answers"):
        sums = found.setdefault(row["target"], dict.fromkeys(("by_primitive", "by_reports", "unknown", "reports"), 0))
        for name in sums:
            sums[name] += row[name]
    return [{"target": target, **sums} for target, sums in sorted(found.items())]


def words(reasons: dict[str, int]) -> str:
    """In a few words."""
    parts = [f"{format_size(size)} {reason or 'reason unknown'}" for reason, size in reasons.items()]
    return f"could not be watched: {', '.join(parts)}"
