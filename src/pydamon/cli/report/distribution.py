"""``pydamon report recency``, ``temperature`` and ``idle``: how bytes are distributed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from pydamon.analysis import distribution as dist
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen, current_screen, emit, printable
from pydamon.cli.render.table import table
from pydamon.cli.render.terminal import bar
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import chosen, opened, source_line, target_line
from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size

_MEASURES = {"recency": dist.idle_s, "rate": dist.rate_percent, "temperature": dist.temperature}
_FORMULAS = {
    "recency": "idle time: the age of regions without access, 0 for accessed ones",
    "rate": "access rate: samples that found an access, in percent",
    "temperature": "temperature: 100 x rate in percent + 100 x age in seconds, negative without access",
}
_BINS = 10


def report(path: str, kind: str, choice: Choice, whole: bool, as_json: bool) -> None:
    """Print a histogram of bytes: of the last snapshot in the window, or with ``whole`` of all, as a mean over time."""
    screen = current_screen()
    measure = _MEASURES[kind]
    with opened(path) as reader:
        first, second = _twice(reader, choice, whole)
        edges = _edges(kind, dist.ranges(first, measure))
        for one in dist.distributions(second, measure, edges):
            if as_json:
                emit(msgspec.json.encode(_object(reader, one, kind, whole)).decode() + "\n")
            else:
                emit(_text(reader, one, kind, whole, screen))


def idle(path: str, choice: Choice, whole: bool, as_json: bool) -> None:
    """Print how much memory has been idle for how long at least: what could be reclaimed."""
    screen = current_screen()
    edges = np.array([-math.inf, 1e-9, *dist.IDLE_BOUNDS_S, math.inf])
    with opened(path) as reader:
        batches, span = chosen(reader, choice)
        looked_at = batches if whole else _last(batches).values()
        longest_s = (span[1] - span[0]) / 1e9
        for one in dist.distributions(looked_at, dist.idle_s, edges):
            rows = [(0, one.at_least(1))]
            for at, bound in enumerate(dist.IDLE_BOUNDS_S, start=2):
                rows.append((bound, one.at_least(at)))
                if rows[-1][1] == 0 or bound > longest_s:
                    break
            if as_json:
                emit(msgspec.json.encode(_idle_object(reader, one, rows, whole)).decode() + "\n")
            else:
                emit(_idle_text(reader, one, rows, whole, screen))


def _twice(reader: RecordReader, choice: Choice, whole: bool) -> list[Iterable[RegionBatch]]:
    """The batches to look at, for two passes: read twice where they are many."""
    if whole:
        return [chosen(reader, choice)[0], chosen(reader, choice)[0]]
    held = list(_last(chosen(reader, choice)[0]).values())
    return [held, held]


def _last(batches: Iterable[RegionBatch]) -> dict[int, RegionBatch]:
    """The last snapshot of each target, as a batch of its own."""
    found: dict[int, Snapshot] = {}
    for batch in batches:
        for target in np.unique(batch.target).tolist():
            found[target] = batch.snapshot(int(np.flatnonzero(batch.target == target)[-1]))
    return {target: RegionBatch.of([snapshot]) for target, snapshot in sorted(found.items())}


def _edges(kind: str, limits: dict[int, tuple[float, float]]) -> Any:
    low = min(limit[0] for limit in limits.values())
    high = max(limit[1] for limit in limits.values())
    if kind == "rate":
        low, high = 0.0, 100.0
    if not high > low:
        high = low + 1.0
    return np.linspace(low, math.nextafter(high, math.inf), _BINS + 1)


def _value(kind: str, value: float) -> str:
    if kind == "recency":
        return format_duration_ns(round(value * 1e9))
    return f"{value:.0f} %" if kind == "rate" else f"{value:,.0f}"


def _object(reader: RecordReader, one: dist.Distribution, kind: str, whole: bool) -> dict[str, Any]:
    unit = {"recency": "idle_s", "rate": "rate_percent", "temperature": "temperature"}[kind]
    rows = [
        {f"{unit}_min": low, f"{unit}_max": high, "bytes": round(size)}
        for low, high, size in zip(one.edges[:-1].tolist(), one.edges[1:].tolist(), one.bytes.tolist(), strict=True)
    ]
    pid = reader.info.target(one.target).pid
    return {"target": one.target, "pid": pid, "whole": whole, "total_bytes": one.total_bytes, "histogram": rows}


def _heading(reader: RecordReader, target: int, text: str, whole: bool, screen: Screen) -> list[str]:
    when = "mean over time" if whole else "last snapshot"
    details = f"{printable(reader.path)}: {', '.join(part for part in (when, source_line(reader)) if part)}"
    return [
        styled(target_line(reader, target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(details), DIM, screen),
        styled(screen.fit(text), DIM, screen),
    ]


def _text(reader: RecordReader, one: dist.Distribution, kind: str, whole: bool, screen: Screen) -> str:
    lines = _heading(reader, one.target, _FORMULAS[kind], whole, screen)
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


def _idle_object(reader: RecordReader, one: dist.Distribution, rows: list[tuple[int, int]], whole: bool) -> Any:
    return {
        "target": one.target,
        "pid": reader.info.target(one.target).pid,
        "whole": whole,
        "total_bytes": one.total_bytes,
        "idle": [{"idle_at_least_s": bound, "bytes": size} for bound, size in rows],
    }


def _idle_text(
    reader: RecordReader, one: dist.Distribution, rows: list[tuple[int, int]], whole: bool, screen: Screen
) -> str:
    text = f"of {format_size(one.total_bytes)} monitored; idle: no access was found since"
    lines = _heading(reader, one.target, text, whole, screen)
    cells = []
    for bound, size in rows:
        label = "not accessed" if bound == 0 else f">= {format_duration_ns(bound * 10**9)}"
        cells.append([label, format_size(size), f"{100 * size / max(one.total_bytes, 1):.1f} %"])
    lines += table(["idle for", "size", "share"], cells, screen)
    return "\n".join(lines) + "\n"
