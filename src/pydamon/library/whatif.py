"""What a policy would save and cost, answered from a recording in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydamon.analysis.panel import look_of
from pydamon.analysis.whatif.ages import AgesAccumulator, thresholds_s
from pydamon.analysis.whatif.answers import Answers, answers
from pydamon.analysis.window import Window
from pydamon.errors import PydamonError, RequestError
from pydamon.records.batch import MEMORY, RegionBatch
from pydamon.records.joined import open_record

if TYPE_CHECKING:
    from pydamon.core.panel import Look
    from pydamon.records.joined import AnyReader

COLUMNS = ("age", "age_ms", "unknown", *MEMORY)
_HARMLESS = ("stat",)


def what_if(
    record: str | AnyReader, *, target: int | None = None, start_ns: int | None = None, end_ns: int | None = None
) -> Answers:
    """What taking memory of each age would save and bring back, of all targets of a record or of one.

    ``record`` is a path or an open reader; ``start_ns`` and ``end_ns`` are after the beginning of the record. Raises
    RequestError for what is no record or has no such target, PydamonError for one without snapshots.
    """
    if not isinstance(record, str):
        return _of(record, target, start_ns, end_ns)
    with open_record(record) as reader:
        return _of(reader, target, start_ns, end_ns)


def _of(reader: AnyReader, target: int | None, start_ns: int | None, end_ns: int | None) -> Answers:
    span, part, window = part_of(reader, start_ns, end_ns)
    if part[0] >= part[1]:
        raise RequestError(f"{reader.path} has no snapshot there", where="start_ns, end_ns")
    batches = window.of(reader.batches(columns=COLUMNS, target=target))
    ages = _ages(batches, span, part)
    if ages is None:
        raise RequestError(f"{reader.path} has no snapshot of it in that time", where="target")
    return answers(ages.finish(), looks_of(reader, part, target))


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


def _ages(batches: Iterable[RegionBatch], span: tuple[int, int], part: tuple[int, int]) -> AgesAccumulator | None:
    accumulator = None
    for batch in batches:
        if accumulator is None:
            aggr_s = max(int(batch.aggr_us.min()), 1) / 1e6
            accumulator = AgesAccumulator(thresholds_s(aggr_s, (part[1] - span[0]) / 1e9), part, span[0])
        accumulator.add(batch)
    return accumulator


def acted(reader: AnyReader) -> list[str]:
    """The actions of schemes that took effect while it was recorded, each once."""
    names = [row["action"] for row in reader.table_rows("schemes") if row["sz_applied"]]
    return [name for name in dict.fromkeys(names) if name not in _HARMLESS]
