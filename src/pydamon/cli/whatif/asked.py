"""What was asked of ``pydamon what-if``, and answering it: one pass over the record, then text, JSON or a picture."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.analysis.whatif.answers import Answers
from pydamon.cli.files import load_costs
from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import current_screen, emit, warn
from pydamon.cli.report.common import empty, opened
from pydamon.cli.report.panel import why_none
from pydamon.cli.whatif.policies import policies, try_on
from pydamon.cli.whatif.shown import as_object, remarks, text
from pydamon.errors import RequestError
from pydamon.library.policies import Recording
from pydamon.library.whatif import acted, what_if
from pydamon.plain import json_text, printable
from pydamon.records.reader import RecordReader
from pydamon.spec.costs import Costs


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the verb: shares as fractions, rates in bytes a second, times in ns after the start of the record
    (negative: before its end)."""

    path: str
    target: int | None
    from_ns: int | None
    to_ns: int | None
    goal: float
    slowdown: float
    refaults: int
    fast: int | None
    costs: str | None
    schemes: tuple[str, ...]
    scheme: tuple[str, ...]
    modules: tuple[str, ...]
    as_json: bool
    output: str | None


def answer(asked: Asked) -> None:
    """Print or draw what the record says."""
    if asked.output is not None:
        check_picture(asked.output)
    costs = Costs() if asked.costs is None else load_costs(asked.costs)
    wanted = policies(asked.schemes, asked.scheme, asked.modules)
    with opened(asked.path) as reader:
        found = answers_of(reader, asked)
        if wanted:
            try_on(reader, found, _recording(reader, asked), wanted, asked.goal, costs, asked.as_json, asked.output)
            return
        limits = (asked.goal, asked.slowdown, asked.refaults, asked.fast)
        said = remarks(found, limits, costs, acted(reader), why_none(reader))
        if asked.as_json:
            emit(json_text(as_object(reader, found, limits, costs, said)) + "\n")
        if asked.output is not None:
            from pydamon.cli.render.whatif_figure import whatif_figure

            figure = whatif_figure(found, printable(reader.path), said)
            write_picture(asked.output, figure, reader, f"What if: {printable(reader.path)}")
            emit("" if asked.as_json else f"wrote {asked.output}\n")
        elif not asked.as_json:
            emit(text(reader, found, limits, costs, current_screen()))
        if not asked.as_json:
            warn(said)


def answers_of(reader: RecordReader, asked: Asked) -> Answers:
    """What the chosen part of the record says. Raises RequestError for a part in which there is nothing."""
    span = reader.time_range()
    if span is None:
        raise empty(reader, None)
    start_ns, end_ns = _part(asked, span)
    if start_ns is not None and end_ns is not None and start_ns >= end_ns:
        raise RequestError("is not before --to", where="--from")
    if asked.target is not None and asked.target not in {one.target for one in reader.info.targets}:
        raise empty(reader, asked.target)
    try:
        return what_if(reader, target=asked.target, start_ns=start_ns, end_ns=end_ns)
    except RequestError as error:
        raise RequestError(error.message, where="--from, --to or --target") from None


def _part(asked: Asked, span: tuple[int, int]) -> tuple[int | None, int | None]:
    """From when to when, after the start of the record, in ns."""
    length_ns = span[1] - span[0]

    def after_start(time_ns: int | None) -> int | None:
        return None if time_ns is None else max(length_ns + time_ns, 0) if time_ns < 0 else time_ns

    return after_start(asked.from_ns), after_start(asked.to_ns)


def _recording(reader: RecordReader, asked: Asked) -> Recording:
    """The chosen part of the record, to be played again. Raises RequestError for one that cannot be."""
    span = reader.time_range()
    assert span is not None  # else there would be no answers
    start_ns, end_ns = _part(asked, span)
    try:
        return Recording(reader, target=asked.target, start_ns=start_ns, end_ns=end_ns)
    except RequestError as error:
        where = "--target" if error.where == "target" else "--from, --to"
        raise RequestError(error.message, where=where) from None
