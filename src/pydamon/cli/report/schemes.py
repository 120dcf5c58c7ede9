"""``pydamon report schemes``: what the schemes of a recording did."""

from __future__ import annotations

from typing import Any

from pydamon.analysis.window import Window
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report import reclaim
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import count, opened, window_of
from pydamon.cli.report.series import each_row, rows_of
from pydamon.errors import PydamonError
from pydamon.plain import json_text, printable
from pydamon.records.reader import RecordReader
from pydamon.spec import Scheme, from_builtins
from pydamon.spec.actions import ACTIONS, NO_SWAP
from pydamon.spec.statistics import REPORTED, told
from pydamon.spec.units import format_duration_ns, format_size


def report(path: str, choice: Choice, tried: bool, as_json: bool) -> None:
    """Print the statistics of each scheme over time, or the regions that were tried last."""
    screen = current_screen()
    with opened(path) as reader:
        span = reader.time_range()
        if span is None:  # there may be statistics though no snapshot was completed
            times = [row["time_ns"] for row in rows_of(reader, "schemes", Window())]
            span = (min(times), max(times)) if times else (0, 0)
        window = window_of(choice, span)
        rows = rows_of(reader, "schemes", window)
        if not rows:
            raise PydamonError("has no schemes' statistics: none was running", where=path)
        regions, swap = _last_tried(reader, window, choice), reclaim.has_swap(reader)
        if as_json:
            emit(json_text({"statistics": rows, "tried_regions": regions, "swap": swap}) + "\n")
            return
        known = _schemes_of(reader)
        for number in sorted({row["scheme"] for row in rows}):
            mine = [row for row in rows if row["scheme"] == number]
            name = printable(mine[-1]["name"] or mine[-1]["action"])
            lines = [styled(screen.fit(f"scheme {number}: {name}"), BOLD, screen)]
            if tried:
                lines += _tried([row for row in regions if row["scheme"] == number], span, screen)
            else:
                lines += _statistics(mine, span, screen)
            if swap is False and _needs_swap(known, mine[-1]):
                lines.append(screen.fit(NO_SWAP))
            emit("\n".join(lines) + "\n")


def _schemes_of(reader: RecordReader) -> tuple[Scheme, ...]:
    """The schemes that the record began with; none where its description has no such spec."""
    try:
        return from_builtins(reader.info.request).context.schemes
    except (PydamonError, IndexError):
        return ()


def _needs_swap(known: tuple[Scheme, ...], row: dict[str, Any]) -> bool:
    """Whether the scheme that ``row`` is about was to take anonymous memory; one that came later by its action."""
    number, action = row["scheme"], ACTIONS.get(row["action"])
    scheme = known[number] if number < len(known) else None
    if scheme is not None and (scheme.name or "") == row["name"] and scheme.action == row["action"]:
        return bool(scheme.needs_swap)
    return action is not None and action.swaps


def _statistics(rows: list[dict[str, Any]], span: tuple[int, int], screen: Any) -> list[str]:
    steps = rows[:: max(len(rows) // 20, 1)]
    if steps[-1] is not rows[-1]:
        steps.append(rows[-1])
    cells = []
    for row in steps:
        quota = row["effective_bytes"]
        cells.append(
            [
                format_duration_ns(max(row["time_ns"] - span[0], 0)),
                "yes" if row["active"] else "no",
                *(told(row[statistic.name], statistic) for statistic in REPORTED),
                "-" if quota is None else format_size(quota),
            ]
        )
    headings = ["at", "active", *(statistic.heading for statistic in REPORTED), "effective quota"]
    return table(headings, cells, screen)


def _last_tried(reader: RecordReader, window: Window, choice: Choice) -> list[dict[str, Any]]:
    """The regions that each scheme's last pass in the window tried: those of all passes need not fit the memory."""
    newest: dict[int, int] = {}
    held: dict[int, list[dict[str, Any]]] = {}
    for row in each_row(reader, "tried_regions", window):
        number = row["scheme"]
        if row["time_ns"] > newest.get(number, -1):
            newest[number], held[number] = row["time_ns"], []
        inside = row["end"] > choice.low and row["start"] < choice.high and choice.target in (None, row["target"])
        if inside and row["time_ns"] == newest[number]:
            held[number].append(row)
    return [row for number in sorted(held) for row in held[number]]


def _tried(mine: list[dict[str, Any]], span: tuple[int, int], screen: Any) -> list[str]:
    if not mine:
        return ["no region was tried"]
    when = format_duration_ns(max(mine[0]["time_ns"] - span[0], 0))
    cells = [
        [
            f"{row['start']:#x}-{row['end']:#x}",
            format_size(row["end"] - row["start"]),
            str(row["nr_accesses"]),
            str(row["age"]),
            format_size(row["sz_filter_passed"]),
            format_size(row["sz_applied"]),
        ]
        for row in mine
    ]
    heading = styled(screen.fit(f"tried at {when}: {count(len(mine), 'region')}"), DIM, screen)
    return [heading, *table(["range", "size", "accesses", "age", "passed", "applied"], cells, screen)]
