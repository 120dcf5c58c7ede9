"""``pydamon report recency``, ``temperature`` and ``idle``: how bytes are distributed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pydamon.analysis import distribution as dist
from pydamon.analysis.summary import holdings
from pydamon.analysis.totals import TOTAL
from pydamon.analysis.window import Window
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.render.terminal import bar
from pydamon.cli.report import reclaim
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import (
    as_chosen,
    chosen,
    largest,
    of_what,
    of_which_ages,
    opened,
    rest_line,
    source_line,
    target_keys,
    target_line,
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
    path: str, kind: str, choice: Choice, whole: bool, as_json: bool, weights: tuple[float, float] = (100.0, 100.0)
) -> None:
    """Print a histogram of bytes: of the last snapshot in the window, or with ``whole`` of all, as a mean over time."""
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
            _emit_objects(reader, found, choice, whole, lambda one: _object(reader, one, kind, whole))
        else:

            def text_of(one: dist.Distribution) -> str:
                text = _text(reader, one, kind, f"{formula}; {what}{ages}", whole, screen)
                return text + (sum_lines(reader, choice, span, screen) if one.target == TOTAL else "")

            span = reader.time_range() or (0, 0)
            _emit_texts(found, choice, whole, text_of)


def _emit_objects(
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


def _emit_texts(
    found: list[dist.Distribution], choice: Choice, whole: bool, text_of: Callable[[dist.Distribution], str]
) -> None:
    """The total of several targets, the largest of them, and what the others have together."""
    shown, rest = largest(found, lambda one: one.total_bytes, choice)
    if len(found) > 1:
        shown.insert(0, dist.total(found, latest=not whole))
    emit("".join(map(text_of, shown)))
    if rest:
        emit(rest_line(len(rest), format_size(dist.total(rest, latest=not whole).total_bytes)))


def idle(path: str, choice: Choice, whole: bool, as_json: bool) -> None:
    """Print how much memory has been idle for at least how long: what could be reclaimed."""
    screen = current_screen()
    edges = np.array([-math.inf, 0, *dist.IDLE_BOUNDS_S, math.inf])
    with opened(path) as reader:
        batches, span = chosen(reader, choice)
        looked_at = batches if whole else _latest(reader, choice)
        longest_s = (span[1] - span[0]) / 1e9
        found = dist.distributions(looked_at, dist.unaccessed_s, edges)
        cold = {} if whole else _cold(reader, _latest(reader, choice))
        swap = reclaim.has_swap(reader)

        def object_of(one: dist.Distribution) -> dict[str, Any]:
            told = _idle_object(reader, one, _idle_rows(one, longest_s), whole)
            if one.target in cold:
                told["reclaimable"] = reclaim.as_object(cold[one.target], swap)
            return told

        def text_of(one: dist.Distribution) -> str:
            text = _idle_text(reader, one, _idle_rows(one, longest_s), whole, what, screen)
            if one.target in cold:
                text += screen.fit(reclaim.words(cold[one.target], swap)) + "\n"
            return text + (sum_lines(reader, choice, span, screen) if one.target == TOTAL else "")

        what = of_what(reader, choice)
        if as_json:
            _emit_objects(reader, found, choice, whole, object_of)
        else:
            _emit_texts(found, choice, whole, text_of)


def _cold(reader: RecordReader, latest: list[RegionBatch]) -> dict[int, dict[str, int]]:
    """What is cold of each target whose mappings the record has, by kind; of several also of all together."""
    found = {}
    last_ns = max(int(batch.end_ns[0]) for batch in latest)
    together = dict.fromkeys(reclaim.KINDS, 0)
    for batch in latest:
        snapshot = batch.snapshot(0)
        mappings = reader.mappings_at(snapshot.target, snapshot.end_ns)
        if mappings:
            found[snapshot.target] = reclaim.cold_by_kind(holdings(snapshot, mappings))
            if last_ns - snapshot.end_ns <= snapshot.end_ns - snapshot.start_ns:  # else it is gone
                together = {kind: size + found[snapshot.target][kind] for kind, size in together.items()}
    return found | {TOTAL: together} if len(found) == len(latest) > 1 else found


def _idle_rows(one: dist.Distribution, longest_s: float) -> list[tuple[int, int]]:
    """(seconds, bytes idle for at least that), as far as there are any and the record reaches."""
    rows = [(0, one.at_least(1))]
    for at, bound in enumerate(dist.IDLE_BOUNDS_S, start=2):
        rows.append((bound, one.at_least(at)))
        if rows[-1][1] == 0 or bound > longest_s:
            break
    return rows


def _twice(reader: RecordReader, choice: Choice, whole: bool) -> list[Iterable[RegionBatch]]:
    """The batches to look at, for two passes: read twice where they are many."""
    if whole:
        return [chosen(reader, choice)[0], chosen(reader, choice)[0]]
    held = _latest(reader, choice)
    return [held, held]


def _latest(reader: RecordReader, choice: Choice) -> list[RegionBatch]:
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


def _heading(reader: RecordReader, one: dist.Distribution, text: str, whole: bool, screen: Screen) -> list[str]:
    when = "mean over time" if whole else "last snapshot"
    details = f"{printable(reader.path)}: {', '.join(part for part in (when, source_line(reader)) if part)}"
    return [
        styled(target_line(reader, one.target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(details), DIM, screen),
        styled(screen.fit(text + unknown_words(one.unknown_bytes)), DIM, screen),
    ]


def _text(reader: RecordReader, one: dist.Distribution, kind: str, formula: str, whole: bool, screen: Screen) -> str:
    lines = _heading(reader, one, formula, whole, screen)
    highest = max(float(one.bytes.max()), 1.0)
    rows = []
    for low, high, size in zip(one.edges[:-1].tolist(), one.edges[1:].tolist(), one.bytes.tolist(), strict=True):
        share = f"{100 * size / max(one.total_bytes, 1):.1f} %"
        rows.append([f"{_value(kind, low)} to {_value(kind, high)}", format_size(round(size)), share, size / highest])
    width = min(max(screen.width - 50, 0), 40)
    cells = [[*row[:3], bar(row[3], width, screen)] for row in rows]
    lines += table([kind, "size", "share", ""], _left_last(cells, width), screen)
    return "\n".join(lines) + "\n"


def _left_last(rows: list[list[str]], width: int) -> list[list[str]]:
    return [[*row[:-1], row[-1].ljust(width)] for row in rows]


def _idle_object(
    reader: RecordReader, one: dist.Distribution, rows: list[tuple[int, int]], whole: bool
) -> dict[str, Any]:
    return {
        **target_keys(reader, one.target),
        "whole": whole,
        "total_bytes": one.total_bytes,
        "idle": [{"idle_at_least_s": bound, "bytes": size} for bound, size in rows],
    }


def _idle_text(
    reader: RecordReader, one: dist.Distribution, rows: list[tuple[int, int]], whole: bool, what: str, screen: Screen
) -> str:
    text = f"of {format_size(one.total_bytes)} of {what}; idle: no access was found since"
    text += of_which_ages(reader)
    lines = _heading(reader, one, text, whole, screen)
    cells = []
    for bound, size in rows:
        label = "not accessed" if bound == 0 else f">= {format_duration_ns(bound * 10**9)}"
        cells.append([label, format_size(size), f"{100 * size / max(one.total_bytes, 1):.1f} %"])
    lines += table(["idle for", "size", "share"], cells, screen)
    return "\n".join(lines) + "\n"
