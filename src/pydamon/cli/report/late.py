"""Whether the samples of a record came when they were asked for."""

from __future__ import annotations

from typing import Any

from pydamon.cli.options import OF_REMEDY
from pydamon.records.reader import RecordReader
from pydamon.spec.words.late import REMEDY, late_words

_COUNTED = ("samples", "asked_ns", "sampled_ns")


def sampling(reader: RecordReader) -> dict[str, int] | None:
    """How many samples there were in this record, how long they were to take, and took; None if it does not tell.

    The counters run since the start of the recording, of which this may be a part.
    """
    rows = [row for row in reader.table_rows("cost") if all(row[name] is not None for name in _COUNTED)]
    if not rows:
        return None
    first: dict[str, Any] = rows[0] if len(rows) > 1 else dict.fromkeys(_COUNTED, 0)
    found = {name: rows[-1][name] - first[name] for name in _COUNTED}
    return found if min(found.values()) >= 0 else None  # of several recordings that were merged


def warning(told: dict[str, int] | None) -> str | None:
    """A line if samples came late, with what to do about it."""
    line = None if told is None else late_words(*(told[name] for name in _COUNTED))
    return None if line is None else f"{line}; {REMEDY} ({OF_REMEDY})"
