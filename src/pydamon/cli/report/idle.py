"""``pydamon report idle``: how much memory has been idle for how long."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pydamon.analysis import distribution as dist
from pydamon.analysis.summary import holdings
from pydamon.analysis.totals import TOTAL
from pydamon.cli.render.axes import percent, tenth_percent
from pydamon.cli.render.bars import Bar, Bars
from pydamon.cli.render.picture import check_picture
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report import reclaim
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import chosen, of_what, of_which_ages, opened, target_keys, unknown_words, window_of
from pydamon.cli.report.distribution import details, draw, emit_objects, heading, latest, selected
from pydamon.cli.report.panel import sum_lines
from pydamon.plain import printable
from pydamon.records.batch import RegionBatch
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.views.names import target_line

_UNKNOWN = "not known: the record is shorter"


def report(path: str, choice: Choice, whole: bool, as_json: bool, output: str | None) -> None:
    """Print or draw how much memory has been idle for at least how long: what could be reclaimed."""
    if output is not None:
        check_picture(output)
    screen = current_screen()
    edges = np.array([-math.inf, 0, *dist.IDLE_BOUNDS_S, math.inf])
    with opened(path) as reader:
        batches, span = chosen(reader, choice)
        looked_at = batches if whole else latest(reader, choice)
        end_ns = window_of(choice, span).end_ns
        longest_s = (min(span[1] if end_ns is None else end_ns, span[1]) - span[0]) / 1e9
        found = dist.distributions(looked_at, dist.unaccessed_s, edges)
        cold = {} if whole else _cold(reader, latest(reader, choice))
        swap = reclaim.has_swap(reader)

        def object_of(one: dist.Distribution) -> dict[str, Any]:
            told = _object(reader, one, _rows(one, longest_s), whole)
            if one.target in cold:
                told["reclaimable"] = reclaim.as_object(cold[one.target], swap)
            return told

        if as_json:
            emit_objects(reader, found, choice, whole, object_of)
        shown, rest, line = selected(found, choice, not whole, output is not None)
        could = {target: reclaim.words(kinds, swap) for target, kinds in cold.items()}
        if output is not None:
            panels = [_panel(reader, one, _rows(one, longest_s), choice, whole, could.get(one.target)) for one in shown]
            draw(reader, output, f"Idle: {printable(path)}", panels, of_what(reader, choice), rest)
            emit("" if as_json else f"wrote {output}\n{line}")
        elif not as_json:
            for one in shown:
                emit(_text(reader, one, _rows(one, longest_s), choice, whole, screen))
                emit(screen.fit(could[one.target]) + "\n" if one.target in could else "")
                emit(sum_lines(reader, choice, span, screen) if one.target == TOTAL else "")
            emit(line)


def _cold(reader: RecordReader, last: list[RegionBatch]) -> dict[int, dict[str, int]]:
    """What is cold of each target whose mappings the record has, by kind; of several also of all together."""
    found = {}
    last_ns = max(int(batch.end_ns[0]) for batch in last)
    together = dict.fromkeys(reclaim.KINDS, 0)
    for batch in last:
        snapshot = batch.snapshot(0)
        mappings = reader.mappings_at(snapshot.target, snapshot.end_ns)
        if mappings:
            found[snapshot.target] = reclaim.cold_by_kind(holdings(snapshot, mappings))
            if last_ns - snapshot.end_ns <= snapshot.end_ns - snapshot.start_ns:  # else it is gone
                together = {kind: size + found[snapshot.target][kind] for kind, size in together.items()}
    return found | {TOTAL: together} if len(found) == len(last) > 1 else found


def _rows(one: dist.Distribution, longest_s: float) -> list[tuple[int, int | None]]:
    """(seconds, bytes idle for at least that; None: not known) up to the first of which there is none or none known.

    What has not been accessed since the record began may have been idle for longer.
    """
    rows: list[tuple[int, int | None]] = [(0, one.at_least(1))]
    for at, bound in enumerate(dist.IDLE_BOUNDS_S, start=2):
        size = one.at_least(at)
        rows.append((bound, size if size or bound <= longest_s else None))
        if not size:
            break
    return rows


def _object(
    reader: RecordReader, one: dist.Distribution, rows: list[tuple[int, int | None]], whole: bool
) -> dict[str, Any]:
    return {
        **target_keys(reader, one.target),
        "whole": whole,
        "total_bytes": one.total_bytes,
        "idle": [{"idle_at_least_s": bound, "bytes": size} for bound, size in rows],
    }


def _label(bound_s: int, sign: str) -> str:
    return "not accessed" if bound_s == 0 else f"{sign} {format_duration_ns(bound_s * 10**9)}"


def _definition(reader: RecordReader, one: dist.Distribution, choice: Choice) -> str:
    text = f"of {format_size(one.total_bytes)} of {of_what(reader, choice)}; idle: no access was found since"
    return text + of_which_ages(reader)


def _text(
    reader: RecordReader,
    one: dist.Distribution,
    rows: list[tuple[int, int | None]],
    choice: Choice,
    whole: bool,
    screen: Screen,
) -> str:
    lines = heading(reader, one, _definition(reader, one, choice), whole, screen)
    cells, unknown = [], []
    for bound, size in rows:
        if size is None:
            unknown.append(screen.fit(f"{_label(bound, '>=')}: {_UNKNOWN}"))
        else:
            share = tenth_percent(size / max(one.total_bytes, 1))
            cells.append([_label(bound, ">="), format_size(size), share])
    lines += [*table(["idle for", "size", "share"], cells, screen), *unknown]
    return "\n".join(lines) + "\n"


def _panel(
    reader: RecordReader,
    one: dist.Distribution,
    rows: list[tuple[int, int | None]],
    choice: Choice,
    whole: bool,
    could: str | None,
) -> Bars:
    bars = []
    for bound, size in rows:
        if size is None:
            bars.append(Bar(_label(bound, "≥"), (), _UNKNOWN))
        else:
            words = f"{format_size(size)}  {percent(size / max(one.total_bytes, 1))}"
            bars.append(Bar(_label(bound, "≥"), (size,), words))
    notes = [_definition(reader, one, choice) + unknown_words(one.unknown_bytes), *([could] if could else [])]
    title = f"Idle memory of {target_line(reader, one.target, 60)}"
    return Bars(title, details(reader, whole), bars, notes)
