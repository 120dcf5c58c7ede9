"""``pydamon report footprint`` and ``bandwidth``: how sizes went over time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from pydamon.analysis.bandwidth import Bandwidth, bandwidths
from pydamon.analysis.bandwidth import total as total_bandwidth
from pydamon.analysis.panel import Estimate, touched
from pydamon.analysis.together import Together
from pydamon.analysis.totals import TOTAL, picked
from pydamon.analysis.window import Window
from pydamon.analysis.wss import WorkingSet, total, working_sets
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.series import BESIDE, DOMAINS, Line, Series
from pydamon.cli.render.table import table
from pydamon.cli.render.terminal import curve, layout
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import (
    MAX_DRAWN,
    MOST_DRAWN,
    MOST_SHOWN,
    chosen,
    count,
    largest,
    of_what,
    opened,
    rest_line,
    rest_words,
    target_keys,
    tells_residency,
    unknown_words,
    window_of,
)
from pydamon.cli.report.panel import looks, sum_lines
from pydamon.plain import json_text, printable
from pydamon.records.batch import MEMORY
from pydamon.records.reader import RecordReader
from pydamon.spans import distinct
from pydamon.spec.units import U64_MAX, format_duration_ns, format_percent, format_size
from pydamon.views.names import source_line, target_line

_HOLDS_NS = 1_500_000_000  # sizes are measured once a second
_SIZES = ("virtual_bytes", "resident_bytes", "swap_bytes")


def rows_of(reader: RecordReader, name: str, window: Window) -> list[dict[str, Any]]:
    """The rows of a side table in the window's time."""
    return list(each_row(reader, name, window))


def each_row(reader: RecordReader, name: str, window: Window) -> Iterator[dict[str, Any]]:
    """As `rows_of`, one by one."""
    for row in reader.table_rows(name):
        late_enough = window.start_ns is None or row["time_ns"] >= window.start_ns
        if late_enough and (window.end_ns is None or row["time_ns"] <= window.end_ns):
            yield row


def heading(reader: RecordReader, target: int | None, text: str, screen: Screen) -> list[str]:
    """The lines above what is told of a target (of the record, if that is None)."""
    name = printable(reader.path) if target is None else target_line(reader, target, screen.limit, screen.ellipsis)
    details = ", ".join(part for part in (f"{printable(reader.path)}: {text}", source_line(reader)) if part)
    return [styled(name, BOLD, screen), styled(screen.fit(details), DIM, screen)]


def footprint(path: str, choice: Choice, as_json: bool, output: str | None) -> None:
    """Print or draw the working set beside the resident, virtual and swapped size over time."""
    if output is not None:
        check_picture(output)
    screen = current_screen()
    with opened(path) as reader:
        batches, span = chosen(reader, choice, columns=MEMORY)
        found = working_sets(batches)
        by_target: dict[int, list[dict[str, Any]]] = {one.target: [] for one in found}
        for row in each_row(reader, "footprint", window_of(choice, span)):
            by_target.setdefault(row["target"], []).append(row)
        together = [total(found)] if len(found) > 1 else []
        ever = _touched(reader, window_of(choice, span), choice, [one.target for one in found])
        by_target[TOTAL] = _summed([by_target[one.target] for one in found]) if together else []
        if as_json:
            resident = {"resident": tells_residency(reader, choice)}
            for one in found:
                emit(_json_line(_footprint_object(reader, one, by_target[one.target], ever) | resident))
            for one in together:
                emit(_json_line({"total": _footprint_object(reader, one, by_target[TOTAL], ever) | resident}))
        what = of_what(reader, choice)
        shown, rest = largest(found, lambda one: one.mean_bytes, choice, *_most(output))
        left = f"{format_size(total(rest).mean_bytes)} on average" if rest else ""
        if output is not None:
            panels = [_footprint_panel(reader, one, by_target[one.target], what) for one in [*together, *shown]]
            _draw(reader, output, "Footprint", panels, span[0], rest_words(len(rest), left) if rest else "")
        if as_json or output is not None:
            emit(_wrote(output, as_json, rest_line(len(rest), left, choice) if rest else ""))
            return
        for one in [*together, *shown]:
            emit(_footprint_text(reader, one, by_target[one.target], ever, what, screen))
            if one.target == TOTAL:
                measured = sum(bool(by_target[each.target]) for each in found)
                if 0 < measured < len(found):
                    emit(screen.fit(f"sizes were measured of {measured} of {len(found)} targets") + "\n")
                emit(sum_lines(reader, choice, span, screen))
        if rest:
            emit(rest_line(len(rest), left))


def _touched(reader: RecordReader, window: Window, choice: Choice, targets: list[int]) -> dict[int, Estimate]:
    """What was touched at all of each target that the page panel knows, and of those of its last moment together."""
    if choice.whole_ranges or choice.low or choice.high < U64_MAX:
        return {}
    panels = {target: mine for target, mine in looks(reader, window, choice.target).items() if target in targets}
    found = {target: one for target, mine in panels.items() if (one := touched(mine)) is not None}
    whole = Together(panels).touched() if len(found) == len(targets) > 1 else None
    return found if whole is None else found | {TOTAL: whole}


def _json_line(found: dict[str, Any]) -> str:
    return json_text(found) + "\n"


def _summed(parts: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The sizes of several targets together, at each time at which that of any was measured.

    A size holds from when it was measured until the next time, at most for `_HOLDS_NS`.
    """
    measured = [rows for rows in parts if rows]
    if not measured:
        return []
    times = distinct(np.array([row["time_ns"] for rows in measured for row in rows], np.int64))
    sums = {name: np.zeros(len(times), np.uint64) for name in _SIZES}
    for rows in measured:
        mine = np.array([row["time_ns"] for row in rows], np.int64)
        place = np.searchsorted(mine, times, "right") - 1
        place[(place >= 0) & (times - mine[np.maximum(place, 0)] > _HOLDS_NS)] = -1
        for name, values in sums.items():
            values += picked(np.array([row[name] or 0 for row in rows], np.uint64), place)
    swap_told = all(row["swap_bytes"] is not None for rows in measured for row in rows)
    told = {
        name: values.tolist() if name != "swap_bytes" or swap_told else [None] * len(times)
        for name, values in sums.items()
    }
    columns = (times.tolist(), *told.values())
    return [dict(zip(("time_ns", *_SIZES), row, strict=True)) for row in zip(*columns, strict=True)]


def _wss_at(sizes: WorkingSet, times_ns: list[int]) -> list[int]:
    place = np.clip(np.searchsorted(sizes.end_ns, np.array(times_ns, np.int64), "left"), 0, len(sizes.bytes) - 1)
    return [int(size) for size in sizes.bytes[place]]


def _footprint_object(
    reader: RecordReader, sizes: WorkingSet, rows: list[dict[str, Any]], ever: dict[int, Estimate]
) -> dict[str, Any]:
    touched_at_all = asdict(ever[sizes.target]) if sizes.target in ever else None
    beside = _wss_at(sizes, [row["time_ns"] for row in rows])
    samples = [
        {"time_ns": row["time_ns"], "working_set_bytes": wss, **{name: row[name] for name in _SIZES}}
        for row, wss in zip(rows, beside, strict=True)
    ]
    return {
        **target_keys(reader, sizes.target),
        "mean_working_set_bytes": sizes.mean_bytes,
        "unknown_bytes": sizes.unknown_bytes,
        "touched": touched_at_all,
        "samples": samples,
    }


def _footprint_text(
    reader: RecordReader,
    sizes: WorkingSet,
    rows: list[dict[str, Any]],
    ever: dict[int, Estimate],
    what: str,
    screen: Screen,
) -> str:
    text = f"{len(sizes.bytes)} snapshots, working set in {what}{unknown_words(sizes.unknown_bytes)}"
    lines = heading(reader, sizes.target, text, screen)
    values = {"working set": [int(size) for size in sizes.bytes]}
    for name in ("resident", "virtual", "swap"):
        values[name] = [size for row in rows if (size := row[f"{name}_bytes"]) is not None]
    cells = []
    for name, found in values.items():
        if found:
            mean = sum(found) // len(found)
            cells.append([name, *(format_size(size) for size in (min(found), mean, max(found), found[-1]))])
        else:
            cells.append([name, "-", "-", "-", "-"])
    lines += table(["", "least", "mean", "most", "last"], cells, screen)
    if not rows:
        lines.append(screen.fit("resident, virtual and swap sizes are not in this record"))
    elif values["resident"][-1]:
        share = 100 * sizes.mean_bytes / max(sum(values["resident"]) / len(rows), 1)
        lines.append(screen.fit(f"the working set is {format_percent(share)} of what is resident (means)"))
    if sizes.target in ever:
        one = ever[sizes.target]
        error = format_size(one.half_width_bytes)
        lines.append(
            screen.fit(f"touched at all since the start: {format_size(one.bytes)} ± {error} of what is resident")
        )
    return "\n".join(lines) + "\n"


def bandwidth(path: str, choice: Choice, as_json: bool, output: str | None) -> None:
    """Print or draw the estimated bandwidth over time."""
    if output is not None:
        check_picture(output)
    screen = current_screen()
    with opened(path) as reader:
        batches, span = chosen(reader, choice, columns=MEMORY)
        found = bandwidths(batches)
        measured = rows_of(reader, "resctrl", window_of(choice, span))
        by_target = {one.target: [row for row in measured if row["target"] == one.target] for one in found}
        together = [total_bandwidth(found)] if len(found) > 1 else []
        if as_json:
            resident = {"resident": tells_residency(reader, choice)}
            for one in found:
                emit(_json_line(_bandwidth_object(reader, one) | {"resctrl": by_target[one.target]} | resident))
            for one in together:
                emit(_json_line({"total": _bandwidth_object(reader, one) | resident}))
        what = of_what(reader, choice)
        shown, rest = largest(found, lambda one: one.mean, choice, *_most(output))
        left = f"{format_size(round(total_bandwidth(rest).mean))}/s on average" if rest else ""
        if output is not None:
            panels = [_bandwidth_panel(reader, one, by_target.get(one.target, []), what) for one in [*together, *shown]]
            _draw(reader, output, "Bandwidth", panels, span[0], rest_words(len(rest), left) if rest else "", "/s")
        if as_json or output is not None:
            emit(_wrote(output, as_json, rest_line(len(rest), left, choice) if rest else ""))
            return
        for one in [*together, *shown]:
            emit(_bandwidth_text(reader, one, by_target.get(one.target, []), what, span[0], screen))
        if rest:
            emit(rest_line(len(rest), left))


def _bandwidth_object(reader: RecordReader, one: Bandwidth) -> dict[str, Any]:
    columns = (one.start_ns.tolist(), one.end_ns.tolist(), one.bytes_per_s.tolist())
    snapshots = [
        {"start_ns": start, "end_ns": end, "bytes_per_s": value} for start, end, value in zip(*columns, strict=True)
    ]
    return {**target_keys(reader, one.target), "mean_bytes_per_s": one.mean, "snapshots": snapshots}


def _bandwidth_text(
    reader: RecordReader, one: Bandwidth, measured: list[dict[str, Any]], what: str, origin_ns: int, screen: Screen
) -> str:
    text = f"accessed regions' bytes per second ({what}): an estimate, not traffic"
    lines = heading(reader, one.target, text, screen)
    lines += curve(_as_sizes(one).over_time(layout(screen).columns), screen, origin_ns)
    most = format_size(int(one.bytes_per_s.max()))
    lines.append(screen.fit(f"mean {format_size(round(one.mean))}/s, most {most}/s"))
    lines += [screen.fit(line) for line in _resctrl_lines(measured)]
    return "\n".join(lines) + "\n"


def _as_sizes(one: Bandwidth) -> WorkingSet:
    """The bytes of each second, as if they were sizes; more than 2**63 is drawn as that."""
    rates = one.bytes_per_s.clip(0, 2**63)
    return WorkingSet(one.target, one.start_ns, one.end_ns, rates.astype(np.uint64))


def _resctrl_lines(rows: list[dict[str, Any]]) -> list[str]:
    """What the processor measured, where the record has it: per domain, over the whole window."""
    found = []
    for domain in sorted({row["domain"] for row in rows}):
        mine = [row for row in rows if row["domain"] == domain]
        last, first = mine[-1], mine[0]
        parts = [f"domain {domain} (measured by resctrl):"]
        if last["llc_occupancy_bytes"] is not None:
            parts.append(f"{format_size(last['llc_occupancy_bytes'])} of cache,")
        elapsed_s = max((last["time_ns"] - first["time_ns"]) / 1e9, 1e-9)
        if None not in (last["mbm_total_bytes"], first["mbm_total_bytes"]):
            parts.append(f"{format_size(int((last['mbm_total_bytes'] - first['mbm_total_bytes']) / elapsed_s))}/s")
        found.append(" ".join(parts).rstrip(","))
    return found


def _most(output: str | None) -> tuple[int, int | None]:
    """How many targets are shown, as `largest` takes it: fewer in a picture than as text."""
    return (MOST_SHOWN, None) if output is None else (MOST_DRAWN, MAX_DRAWN)


def _wrote(output: str | None, as_json: bool, line: str) -> str:
    """What is said once a picture is there."""
    return "" if as_json or output is None else f"wrote {output}\n{line}"


def _footprint_panel(reader: RecordReader, sizes: WorkingSet, rows: list[dict[str, Any]], what: str) -> Series:
    times = [row["time_ns"] for row in rows]
    note = f"working set in {what}{unknown_words(sizes.unknown_bytes)}"
    if rows:
        # Beside terabytes of reserved addresses, nothing else could be seen.
        note += f"; virtual, which is not drawn: {format_size(max(row['virtual_bytes'] for row in rows))} at most"
    else:
        note += "; resident, virtual and swap sizes are not in this record"
    told = [(name, colour) for name, colour in BESIDE if rows and all(row[f"{name}_bytes"] is not None for row in rows)]
    lines = [Line(name, times, [row[f"{name}_bytes"] for row in rows], colour) for name, colour in told]
    title = f"Footprint of {target_line(reader, sizes.target, 60)}"
    return Series(title, _details(reader, sizes), "working set", sizes, note, lines)


def _bandwidth_panel(reader: RecordReader, one: Bandwidth, measured: list[dict[str, Any]], what: str) -> Series:
    note = f"accessed regions' bytes per second ({what}): an estimate, not traffic"
    title = f"Bandwidth of {target_line(reader, one.target, 60)}"
    sizes = _as_sizes(one)
    lines = []
    for domain, colour in zip(sorted({row["domain"] for row in measured}), DOMAINS, strict=False):
        mine = [row for row in measured if row["domain"] == domain and row["mbm_total_bytes"] is not None]
        rates = [
            (row["mbm_total_bytes"] - before["mbm_total_bytes"]) * 1e9 / max(row["time_ns"] - before["time_ns"], 1)
            for before, row in pairwise(mine)
        ]
        if rates:
            times = [row["time_ns"] for row in mine[1:]]
            lines.append(Line(f"resctrl, domain {domain} (measured)", times, rates, colour))
    return Series(title, _details(reader, sizes), "estimate", sizes, note, lines)


def _details(reader: RecordReader, sizes: WorkingSet) -> str:
    span = int(sizes.end_ns.max()) - int(sizes.start_ns[0])
    parts = [format_duration_ns(span), count(len(sizes.bytes), "snapshot"), source_line(reader)]
    return f"{printable(reader.path)}: " + ", ".join(part for part in parts if part)


def _draw(
    reader: RecordReader, output: str, title: str, panels: list[Series], origin_ns: int, rest: str, per: str = ""
) -> None:
    from pydamon.cli.render.series_figure import series_figure

    write_picture(output, series_figure(panels, origin_ns, per, rest), reader, f"{title}: {printable(reader.path)}")
