"""``pydamon report recency``, ``temperature`` and ``idle``: how bytes are distributed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pydamon.analysis import distribution as dist
from pydamon.analysis.totals import TOTAL
from pydamon.analysis.window import Window
from pydamon.cli.render.axes import percent, tenth_percent
from pydamon.cli.render.bars import PLAIN, Bar, Bars, Legend
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.render.terminal import bar
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import (
    MAX_DRAWN,
    MOST_DRAWN,
    MOST_SHOWN,
    as_chosen,
    chosen,
    largest,
    of_what,
    of_which_ages,
    opened,
    rest_line,
    rest_words,
    target_keys,
    tells_residency,
    unknown_words,
)
from pydamon.cli.report.panel import sum_lines
from pydamon.core.snapshot import Snapshot
from pydamon.errors import RequestError
from pydamon.plain import json_text, printable
from pydamon.records.batch import RegionBatch
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.views.names import source_line, target_line

_MEASURES: dict[str, dist.Measure] = {
    "recency": dist.idle_s,
    "rate": dist.rate_percent,
    "temperature": dist.temperature,
}
_FORMULAS = {
    "recency": "idle time: the age of regions without access, 0 for accessed ones",
    "rate": "access rate: samples that found an access, in percent",
    "temperature": "temperature: {:g} x rate in percent + {:g} x age in seconds, negative without access",
}
_BINS = 10


def parse_weights(text: str) -> tuple[float, float]:
    """``RATE,AGE`` of ``--weights``; RequestError if it is not that."""
    try:
        rate, age = (float(part) for part in text.split(","))
    except ValueError:
        rate = age = math.nan
    if not (0 <= rate <= 1e15 and 0 <= age <= 1e15):
        raise RequestError(f"{text[:40]!r} is not two numbers of at least 0; write e.g. 100,100", where="--weights")
    return rate, age


def report(
    path: str,
    kind: str,
    choice: Choice,
    whole: bool,
    as_json: bool,
    output: str | None,
    weights: tuple[float, float] = (100.0, 100.0),
) -> None:
    """Print or draw a histogram of bytes: of the last snapshot in the window, or of ``whole``: a mean over time."""
    if output is not None:
        check_picture(output)
    screen = current_screen()
    formula = _FORMULAS[kind]
    measure = _MEASURES[kind]
    if kind == "temperature":
        formula = formula.format(*weights)

        def measure(batch: RegionBatch) -> dist.F64:
            return dist.temperature(batch, weights)

    with opened(path) as reader:
        first, second = _twice(reader, choice, whole)
        edges = _edges(kind, dist.ranges(first, measure))
        what, ages = of_what(reader, choice), "" if kind == "rate" else of_which_ages(reader)
        found = dist.distributions(second, measure, edges)
        if as_json:
            emit_objects(reader, found, choice, whole, lambda one: _object(reader, one, kind, whole))
        shown, rest, line = selected(found, choice, not whole, output is not None)
        text = f"{formula}; {what}{ages}"
        if output is not None:
            panels = [_panel(reader, one, kind, text, whole) for one in shown]
            title = f"{'Access rate' if kind == 'rate' else kind.capitalize()}: {printable(path)}"
            draw(reader, output, title, panels, what, rest)
            emit("" if as_json else f"wrote {output}\n{line}")
        elif not as_json:
            span = reader.time_range() or (0, 0)
            for one in shown:
                emit(_text(reader, one, kind, text, whole, screen))
                emit(sum_lines(reader, choice, span, screen) if one.target == TOTAL else "")
            emit(line)


def emit_objects(
    reader: RecordReader,
    found: list[dist.Distribution],
    choice: Choice,
    whole: bool,
    object_of: Callable[[dist.Distribution], dict[str, Any]],
) -> None:
    """A line of JSON for each target, and behind several one for their total."""
    resident = tells_residency(reader, choice)

    def complete(one: dist.Distribution) -> dict[str, Any]:
        return object_of(one) | {"resident": resident, "unknown_bytes": one.unknown_bytes}

    lines = [complete(one) for one in found]
    if len(found) > 1:
        lines.append({"total": complete(dist.total(found, latest=not whole))})
    emit("".join(json_text(line) + "\n" for line in lines))


def selected(
    found: list[dist.Distribution], choice: Choice, latest: bool, drawn: bool
) -> tuple[list[dist.Distribution], str, str]:
    """(the total of several targets and the largest of them, what the others have together in words: short and long).

    Fewer are ``drawn`` than told as text.
    """
    most, limit = (MOST_DRAWN, MAX_DRAWN) if drawn else (MOST_SHOWN, None)
    shown, rest = largest(found, lambda one: one.total_bytes, choice, most, limit)
    if len(found) > 1:
        shown.insert(0, dist.total(found, latest=latest))
    if not rest:
        return shown, "", ""
    size = format_size(dist.total(rest, latest=latest).total_bytes)
    return shown, rest_words(len(rest), size), rest_line(len(rest), size, choice if drawn else None)


def draw(reader: RecordReader, output: str, title: str, panels: list[Bars], axis: str, rest: str) -> None:
    """A picture of bytes as bars, below the panels ``rest``."""
    from pydamon.cli.render.bars_figure import bars_figure

    write_picture(output, bars_figure(panels, Legend(axis, (axis,), PLAIN), rest), reader, title)


def _twice(reader: RecordReader, choice: Choice, whole: bool) -> list[Iterable[RegionBatch]]:
    """The batches to look at, for two passes: read twice where they are many."""
    if whole:
        return [chosen(reader, choice)[0], chosen(reader, choice)[0]]
    held = latest(reader, choice)
    return [held, held]


def latest(reader: RecordReader, choice: Choice) -> list[RegionBatch]:
    """The last snapshot of each target in the window, as a batch of its own."""
    if choice.from_ns is None and choice.to_ns is None:  # without reading all the others
        snapshots = [one for number, one in reader.last_snapshots().items() if choice.target in (None, number)]
        window = Window(low=choice.low, high=choice.high)
        if held := list(window.of(as_chosen((RegionBatch.of([one]) for one in snapshots), choice))):
            return held
    found: dict[int, Snapshot] = {}
    for batch in chosen(reader, choice)[0]:
        for target in batch.targets:
            found[target] = batch.snapshot(int(np.flatnonzero(batch.target == target)[-1]))
    return [RegionBatch.of([snapshot]) for _, snapshot in sorted(found.items())]


def _edges(kind: str, limits: dict[int, tuple[float, float]]) -> Any:
    low = min(limit[0] for limit in limits.values())
    high = max(limit[1] for limit in limits.values())
    if kind == "rate":
        low, high = 0.0, 100.0
    if not high > low:
        high = low + 1.0
    edges = np.linspace(low, high, _BINS + 1)
    edges[-1] = math.nextafter(high, math.inf)  # the largest value is in the last bin
    return edges


def _value(kind: str, value: float) -> str:
    if kind == "recency":
        return format_duration_ns(round(value * 1e9))
    return f"{value:.0f} %" if kind == "rate" else f"{value:,.0f}"


def _object(reader: RecordReader, one: dist.Distribution, kind: str, whole: bool) -> dict[str, Any]:
    unit = {"recency": "idle_s", "rate": "rate_percent", "temperature": "temperature"}[kind]
    rows = [
        {f"{unit}_min": round(low, 6), f"{unit}_max": round(high, 6), "bytes": round(size)}
        for low, high, size in zip(one.edges[:-1].tolist(), one.edges[1:].tolist(), one.bytes.tolist(), strict=True)
    ]
    whose = target_keys(reader, one.target)
    return {**whose, "whole": whole, "total_bytes": one.total_bytes, "histogram": rows}


def heading(reader: RecordReader, one: dist.Distribution, text: str, whole: bool, screen: Screen) -> list[str]:
    """The lines above a distribution."""
    return [
        styled(target_line(reader, one.target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(details(reader, whole)), DIM, screen),
        styled(screen.fit(text + unknown_words(one.unknown_bytes)), DIM, screen),
    ]


def _text(reader: RecordReader, one: dist.Distribution, kind: str, formula: str, whole: bool, screen: Screen) -> str:
    lines = heading(reader, one, formula, whole, screen)
    highest = max(float(one.bytes.max()), 1.0)
    rows = []
    for low, high, size in zip(one.edges[:-1].tolist(), one.edges[1:].tolist(), one.bytes.tolist(), strict=True):
        share = tenth_percent(size / max(one.total_bytes, 1))
        rows.append([f"{_value(kind, low)} to {_value(kind, high)}", format_size(round(size)), share, size / highest])
    width = min(max(screen.width - 50, 0), 40)
    cells = [[*row[:3], bar(row[3], width, screen)] for row in rows]
    lines += table([kind, "size", "share", ""], _left_last(cells, width), screen)
    return "\n".join(lines) + "\n"


def _panel(reader: RecordReader, one: dist.Distribution, kind: str, text: str, whole: bool) -> Bars:
    bars = []
    for low, high, size in zip(one.edges[:-1].tolist(), one.edges[1:].tolist(), one.bytes.tolist(), strict=True):
        words = f"{format_size(round(size))}  {percent(size / max(one.total_bytes, 1))}"
        bars.append(Bar(f"{_value(kind, low)} to {_value(kind, high)}", (size,), words))
    name = "Access rate" if kind == "rate" else kind.capitalize()
    title = f"{name} of the memory of {target_line(reader, one.target, 60)}"
    return Bars(title, details(reader, whole), bars, [text + unknown_words(one.unknown_bytes)])


def details(reader: RecordReader, whole: bool) -> str:
    """What a distribution is of."""
    when = "mean over time" if whole else "last snapshot"
    return f"{printable(reader.path)}: {', '.join(part for part in (when, source_line(reader)) if part)}"


def _left_last(rows: list[list[str]], width: int) -> list[list[str]]:
    return [[*row[:-1], row[-1].ljust(width)] for row in rows]
