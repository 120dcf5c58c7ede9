"""What the reports share: opening the record, which targets are shown, and the words for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar, cast

from pydamon.analysis.names import MappingNames, Owners
from pydamon.analysis.totals import TOTAL
from pydamon.analysis.window import Window
from pydamon.cli.render.screen import warn
from pydamon.cli.report.choice import Choice
from pydamon.errors import PydamonError, RequestError
from pydamon.linux.mapping_names import mapping_name
from pydamon.linux.process import Mapping
from pydamon.records.batch import RegionBatch
from pydamon.records.joined import open_record
from pydamon.records.reader import RecordReader
from pydamon.records.side_tables import each_row
from pydamon.spec.units import format_size
from pydamon.views.names import mappings_over

MAX_DRAWN = 64  # targets in one picture (or text of one), however many are asked for
MOST_SHOWN = 10  # targets, as text or in a heatmap
MOST_DRAWN = 5  # … in a picture of curves, beside the total

_One = TypeVar("_One")


@contextmanager
def opened(path: str) -> Iterator[RecordReader]:
    """The record (or, for a pattern, the parts of one); afterwards says on standard error what was left out of it."""
    with cast(RecordReader, open_record(path)) as reader:  # parts that are joined read like one
        yield reader
        warn(reader.warnings())


def empty(reader: RecordReader, target: int | None) -> PydamonError:
    """The error for a record that has no snapshot (of that target)."""
    warn(reader.warnings())
    if target is None:
        return PydamonError("holds no snapshot: nothing was recorded", where=reader.path)
    known = ", ".join(str(t.target) for t in reader.info.targets[:20]) or "none"
    return RequestError(f"{reader.path} has no snapshot of target {target}; its targets are: {known}", where="--target")


def largest(
    found: Sequence[_One],
    size: Callable[[_One], float],
    choice: Choice,
    most: int = MOST_SHOWN,
    limit: int | None = None,
) -> tuple[list[_One], list[_One]]:
    """(the targets to show, the rest): all of a few, of many the ``most`` largest, the largest first.

    If all are asked for it is all of them, or as many as the ``limit`` says.
    """
    if choice.all_targets:
        most = len(found) if limit is None else limit
    if len(found) <= most:
        return list(found), []
    ordered = sorted(found, key=lambda one: -size(one))
    return ordered[:most], ordered[most:]


def rest_line(targets: int, what: str, choice: Choice | None = None) -> str:
    """What stands for the targets that are not shown, ``what`` for what they have; and how to see them.

    Of a ``choice`` all of whose targets do not fit: one by one.
    """
    how = "--target shows one" if choice is not None and choice.all_targets else "--all-targets shows each"
    return f"{rest_words(targets, what)}; {how}\n"


def rest_words(targets: int, what: str) -> str:
    """As `rest_line`, for a picture."""
    return f"and {count(targets, 'smaller target')}, {what} together"


def target_keys(reader: RecordReader, target: int) -> dict[str, int | None]:
    """How JSON names a target; `TOTAL` has no number."""
    return {} if target == TOTAL else {"target": target, "pid": reader.info.target(target).pid}


def mapping_names(reader: RecordReader, target: int) -> MappingNames:
    """Names for a target's addresses over the whole record: of its mappings at up to eight times."""
    return MappingNames(mappings_over(reader, target))


def owners_at(reader: RecordReader, time_ns: int) -> Owners:
    """Whose memory physical ranges were when that was last looked up before ``time_ns``; empty if never."""
    rows: list[tuple[int, int, str, int]] = []
    latest = None
    for piece in reader.table("owners"):
        if not piece.num_rows or (seen_ns := piece.column("time_ns")[0].as_py()) > time_ns:
            continue
        if latest is None or seen_ns >= latest:
            latest = seen_ns
            rows = [(r["start"], r["end"], _owner(r), r["mapped_bytes"]) for r in each_row(piece)]
    return Owners(rows)


def _owner(row: dict[str, Any]) -> str:
    """``postgres (123) [heap]``; without the mapping where that is not known."""
    who = f"{row['command']} ({row['pid']})"
    name = row["mapping"]
    return who if name is None else f"{who} {mapping_name(Mapping(0, 1, '', 0, 0, name))}"


def chosen(
    reader: RecordReader, choice: Choice, *, columns: Collection[str] | None = None
) -> tuple[Iterator[RegionBatch], tuple[int, int]]:
    """The batches in the window that the user chose, and (start, end) of the whole record in ns.

    ``columns`` as `RecordReader.batches` takes them.
    Raises like `empty` if the record, or the window, holds nothing at all.
    """
    span = reader.time_range()
    if span is None:
        raise empty(reader, None)
    window = window_of(choice, span)
    batches = window.of(as_chosen(reader.batches(columns=columns, target=choice.target), choice))
    first = next(batches, None)
    if first is None:
        if window.everything:
            raise empty(reader, choice.target)
        raise RequestError(f"{reader.path} has no snapshot there", where="--from, --to, --address or --target")
    return chain([first], batches), span


def as_chosen(batches: Iterable[RegionBatch], choice: Choice) -> Iterator[RegionBatch]:
    """The batches, without what is resident if sizes are to be those of address ranges."""
    for batch in batches:
        yield batch.without("resident") if choice.whole_ranges else batch


def tells_residency(reader: RecordReader, choice: Choice) -> bool:
    """Whether sizes are of resident memory."""
    if choice.whole_ranges or "resident" not in reader.optional:
        return False
    return any(one.column("resident") is not None for one in reader.last_snapshots().values())


def of_what(reader: RecordReader, choice: Choice) -> str:
    """What sizes are of, in words."""
    if tells_residency(reader, choice):
        return "resident memory"
    return "address ranges" + ("" if choice.whole_ranges else ": this record does not say what was resident")


def of_which_ages(reader: RecordReader) -> str:
    """What a heading says of ages that are no times of the clock; empty where they are."""
    told = any(one.column("age_ms") is not None for one in reader.last_snapshots().values())
    return "" if told else "; nominal ages"


def unknown_words(unknown_bytes: int) -> str:
    """What a heading says of memory of which nothing is known; empty if there is none."""
    return f"; {format_size(unknown_bytes)} more: unknown whether used" if unknown_bytes else ""


def window_of(choice: Choice, span: tuple[int, int]) -> Window:
    """The window that the user chose of a record that covers ``span``."""

    def at(time_ns: int | None) -> int | None:
        return None if time_ns is None else (span[1] if time_ns < 0 else span[0]) + time_ns

    start, end = at(choice.from_ns), at(choice.to_ns)
    if start is not None and end is not None and start >= end:
        raise RequestError("is not before --to", where="--from")
    return Window(start, end, choice.low, choice.high)


def count(number: int, what: str) -> str:
    """``1 snapshot``, ``2 snapshots``."""
    return f"{number} {what}" + ("" if number == 1 else "s")
