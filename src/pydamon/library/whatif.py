"""What a policy would save and cost, answered from a recording in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydamon.analysis.whatif.ages import AgesAccumulator, thresholds_s
from pydamon.analysis.whatif.answers import Answers, answers
from pydamon.analysis.whatif.part import COLUMNS, looks_of, part_of
from pydamon.errors import RequestError
from pydamon.records.batch import RegionBatch
from pydamon.records.joined import open_record

if TYPE_CHECKING:
    from pydamon.records.joined import AnyReader


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


def _ages(batches: Iterable[RegionBatch], span: tuple[int, int], part: tuple[int, int]) -> AgesAccumulator | None:
    accumulator = None
    for batch in batches:
        if accumulator is None:
            aggr_s = max(int(batch.aggr_us.min()), 1) / 1e6
            accumulator = AgesAccumulator(thresholds_s(aggr_s, (part[1] - span[0]) / 1e9), part, span[0])
        accumulator.add(batch)
    return accumulator
