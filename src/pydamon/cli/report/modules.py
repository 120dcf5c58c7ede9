"""``pydamon report modules``: what modules took, what came back, what it cost, over time."""

from __future__ import annotations

from typing import Any

from pydamon.analysis.window import Window
from pydamon.cli.render.palette import BOLD, styled
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import opened, window_of
from pydamon.cli.report.series import rows_of
from pydamon.errors import PydamonError
from pydamon.plain import json_text, printable
from pydamon.records.reader import RecordReader
from pydamon.spec.module_numbers import NUMBERS, Number, cells, headings, told
from pydamon.spec.units import format_duration_ns, format_size

_MOST_ROWS = 20
_MINUTE_NS = 60_000_000_000
_LEAST_SPAN_NS = 1_000_000_000
_SUMMED = {
    "refaulted_bytes": "came back",
    "major_faults": "major faults",
    "swapped_in_bytes": "came from swap",
    "memory_stall_us": "of waiting for memory",
    "io_stall_us": "of waiting for disks",
    "cpu_ns": "of CPU",
}

Moment = dict[str, list[int]]  # what a module told at one time, by number


def report(path: str, choice: Choice, as_json: bool) -> None:
    """Print the numbers of each module over time."""
    screen = current_screen()
    with opened(path) as reader:
        span = _span(reader)
        found = _moments(rows_of(reader, "modules", window_of(choice, span)))
        if not found:
            raise PydamonError("has no modules' numbers: none was running", where=path)
        if as_json:
            emit(json_text({"modules": [_object(module, moments) for module, moments in found.items()]}) + "\n")
            return
        for module, moments in found.items():
            lines = [styled(screen.fit(f"module {printable(module)}"), BOLD, screen)]
            summary = _summary(moments)
            lines += [screen.fit(summary)] if summary else []
            emit("\n".join(lines + _table(moments, span[0], screen)) + "\n")


def _span(reader: RecordReader) -> tuple[int, int]:
    """The time that is told of, though no snapshot may have been completed."""
    span = reader.time_range()
    if span is None:
        times = [row["time_ns"] for row in rows_of(reader, "modules", Window())]
        span = (min(times), max(times)) if times else (0, 0)
    return span


def _moments(rows: list[dict[str, Any]]) -> dict[str, dict[int, Moment]]:
    """By module and time; numbers of a later pydamon are left out."""
    found: dict[str, dict[int, Moment]] = {}
    for row in rows:
        if row["number"] in NUMBERS and row["values"]:
            found.setdefault(row["module"], {}).setdefault(row["time_ns"], {})[row["number"]] = row["values"]
    return found


def _object(module: str, moments: dict[int, Moment]) -> dict[str, Any]:
    told_of = [
        {
            "time_ns": time_ns,
            **{name: values if NUMBERS[name].percentiles else values[0] for name, values in moment.items()},
        }
        for time_ns, moment in moments.items()
    ]
    return {"name": module, "numbers": told_of}


def _summary(moments: dict[int, Moment]) -> str | None:
    """What it took or moved in all, and what that cost; None of a module that does nothing of it."""
    last = moments[max(moments)]
    if "promoted_bytes" in last:
        return _moved(last, max(moments) - min(moments))
    if not last.get("taken_bytes"):
        return None
    parts = [f"took {format_size(last['taken_bytes'][0])}"]
    for name, words in _SUMMED.items():
        if last.get(name):
            parts.append(f"{told(last[name], NUMBERS[name])} {words}")
    return ", ".join(parts)


def _moved(last: Moment, span_ns: int) -> str:
    """What was moved which way, and how much of that to and fro, beside the fast nodes' memory."""
    up, down, hot, fast, nodes = (
        last.get(f"{name}_bytes", [0])[0] for name in ("promoted", "demoted", "hot", "hot_fast", "fast_node")
    )
    text = f"moved {format_size(up)} up, {format_size(down)} down"
    text += f", {fast / hot:.0%} of what is hot is on the fastest nodes" if hot else ""
    if "moved_back_bytes" not in last:
        return f"{text}, ping-pong is not known: the kernel does not say which pages it moves"
    back = last["moved_back_bytes"][0]
    minutes = max(span_ns, _LEAST_SPAN_NS) / _MINUTE_NS
    share = f" ({back / nodes / minutes:.2%} of the fastest nodes a minute)" if nodes else ""
    return f"{text}, ping-pong {format_size(back)}{share}"


def _table(moments: dict[int, Moment], began_ns: int, screen: Screen) -> list[str]:
    """A row for each moment (of many some, and the last), a column for each number that was told at all.

    Of counters: by how much they have grown since the row before.
    """
    times = sorted(moments)
    shown = times[:: max(len(times) // _MOST_ROWS, 1)]
    if shown[-1] != times[-1]:
        shown.append(times[-1])
    rows = [row for name, row in NUMBERS.items() if any(name in moment for moment in moments.values())]
    lines, before = [], Moment()
    for time_ns in shown:
        moment = moments[time_ns]
        line = [format_duration_ns(max(time_ns - began_ns, 0))]
        for row in rows:
            line += cells(_grown(moment.get(row.key), before.get(row.key), row), row)
        lines.append(line)
        before = before | moment
    return table(["at", *(heading for row in rows for heading in headings(row))], lines, screen)


def _grown(values: list[int] | None, before: list[int] | None, row: Number) -> list[int] | None:
    if values is None or before is None or row.kind == "gauge":
        return values
    return [max(values[0] - before[0], 0)]
