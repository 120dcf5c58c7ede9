"""What was asked of ``pydamon what-if``, and answering it: one pass over the record, then text, JSON or a picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydamon.analysis.whatif.answers import Answers
from pydamon.analysis.whatif.part import acted
from pydamon.cli.files import load_costs
from pydamon.cli.render.picture import check_picture
from pydamon.cli.report.common import empty, opened
from pydamon.cli.report.panel import why_none
from pydamon.cli.whatif.policies import policies, tried
from pydamon.cli.whatif.showing import Shown, show
from pydamon.cli.whatif.shown import Limits, as_object, remarks, text
from pydamon.errors import MachineError, RequestError, located
from pydamon.library.policies import Recording
from pydamon.library.whatif import what_if
from pydamon.plain import printable
from pydamon.records.reader import RecordReader
from pydamon.spec.costs import Costs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WHERE = {"target": "--target", "start_ns, end_ns": "--from, --to", "jobs": "--jobs"}  # of the library, as options
_Part = tuple[int | None, int | None]


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
    search: str | None
    limits: tuple[str, ...]
    seed: int
    jobs: int | None
    as_json: bool
    output: str | None


def answer(asked: Asked) -> None:
    """Print or draw what the record says."""
    if asked.output is not None:
        check_picture(asked.output)
    costs = Costs() if asked.costs is None else load_costs(asked.costs)
    wanted = policies(asked.schemes, asked.scheme, asked.modules)
    if asked.search is not None:
        if wanted:
            raise RequestError("goes with no --schemes, --scheme or --module: it finds one", where="--search")
        search_for(asked, asked.search, costs)
        return
    if asked.limits:
        raise RequestError("is what a search keeps within; there is no --search", where="--limit")
    with opened(asked.path) as reader:
        part = _part(reader, asked)
        found = _answers(reader, asked.target, part)
        if wanted:
            shown = tried(reader, found, _recording(reader, asked.target, part), wanted, asked.goal, costs)
        else:
            shown = _told(reader, found, (asked.goal, asked.slowdown, asked.refaults, asked.fast), costs)
        show(shown, reader, asked.as_json, asked.output)


def search_for(asked: Asked, text: str, costs: Costs) -> None:
    """Search, and show what was found. Raises PydamonError, afterwards, where nothing keeps within the limits."""
    from pydamon.analysis.search.limits import Limit, parse_limit
    from pydamon.analysis.search.space import parse_space
    from pydamon.cli.whatif.search import out_of_reach, searched
    from pydamon.library.search import search

    with located("--limit", ": "):
        limits = [parse_limit(one) for one in asked.limits]
    limits = limits or [Limit("slowdown", asked.slowdown, f"slowdown={asked.slowdown * 100:g}%")]
    with located("--search", ": "):
        parse_space(text)
    with opened(asked.path) as reader:
        start_ns, end_ns = _part(reader, asked)
        with _as_options("--search"):
            found = search(
                reader,
                text,
                limits,
                costs=costs,
                target=asked.target,
                start_ns=start_ns,
                end_ns=end_ns,
                seed=asked.seed,
                jobs=asked.jobs,
            )
        shown = searched(reader, found, asked.goal, acted(reader), why_none(reader))
        show(shown, reader, asked.as_json, asked.output)
    beyond = out_of_reach(found)
    if beyond is not None:
        raise beyond


def _told(reader: RecordReader, found: Answers, limits: Limits, costs: Costs) -> Shown:
    said = remarks(found, limits, costs, acted(reader), why_none(reader))

    def figure() -> Figure:
        from pydamon.cli.render.whatif_figure import whatif_figure

        return whatif_figure(found, printable(reader.path), said)

    return Shown(
        text=lambda screen: text(reader, found, limits, costs, screen),
        values=lambda: as_object(reader, found, limits, costs, said),
        figure=figure,
        title=f"What if: {printable(reader.path)}",
        remarks=said,
    )


def _part(reader: RecordReader, asked: Asked) -> _Part:
    """From when to when, after the start of the record, in ns. Raises as `empty`, or RequestError."""
    span = reader.time_range()
    if span is None:
        raise empty(reader, None)
    length_ns = span[1] - span[0]

    def after_start(time_ns: int | None) -> int | None:
        return None if time_ns is None else max(length_ns + time_ns, 0) if time_ns < 0 else time_ns

    start_ns, end_ns = after_start(asked.from_ns), after_start(asked.to_ns)
    if start_ns is not None and end_ns is not None and start_ns >= end_ns:
        raise RequestError("is not before --to", where="--from")
    if asked.target is not None and asked.target not in {one.target for one in reader.info.targets}:
        raise empty(reader, asked.target)
    return start_ns, end_ns


def _answers(reader: RecordReader, target: int | None, part: _Part) -> Answers:
    """What a part of the record says. Raises RequestError for one in which there is nothing."""
    try:
        return what_if(reader, target=target, start_ns=part[0], end_ns=part[1])
    except RequestError as error:
        raise RequestError(error.message, where="--from, --to or --target") from None


def _recording(reader: RecordReader, target: int | None, part: _Part) -> Recording:
    """A part of the record, to be played again. Raises RequestError for one that cannot be."""
    with _as_options("--from, --to"):
        return Recording(reader, target=target, start_ns=part[0], end_ns=part[1])


@contextmanager
def _as_options(usual: str) -> Iterator[None]:
    """What the library refuses in here is about the option of what it names, or about the ``usual`` one."""
    try:
        yield
    except (MachineError, RequestError) as error:
        error.move(_WHERE.get(error.where or "", usual))
        raise
