"""What the page panel of a record says: used and idle memory for any window, with an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydamon.analysis.panel import SECOND_NS, Estimate, bound_of, estimate, look_of
from pydamon.analysis.together import Together
from pydamon.analysis.totals import TOTAL
from pydamon.analysis.window import Window
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import (
    MAX_DRAWN,
    MOST_DRAWN,
    MOST_SHOWN,
    empty,
    largest,
    opened,
    rest_line,
    rest_words,
    target_keys,
    tells_residency,
    window_of,
)
from pydamon.core.panel import BOUNDS_S, Look
from pydamon.errors import PydamonError
from pydamon.plain import json_text, printable
from pydamon.records.reader import RecordReader
from pydamon.spec.primitives import PRIMITIVES
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.views.names import source_line, target_line

_OF_KERNEL = ("damon_aggregated", "tried_regions")  # how the kernel's results came
# The windows of the curve as text; JSON and pictures have all bounds.
_SHOWN_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400)


def looks(reader: RecordReader, window: Window, target: int | None = None) -> dict[int, list[Look]]:
    """The looks at the panel in the window's time, by target; those of another pydamon's bins are left out."""
    found: dict[int, list[Look]] = {}
    for row in reader.table_rows("panel"):
        inside = (window.start_ns is None or row["time_ns"] >= window.start_ns) and (
            window.end_ns is None or row["time_ns"] <= window.end_ns
        )
        if inside and target in (None, row["target"]) and (look := look_of(row)) is not None:
            found.setdefault(row["target"], []).append(look)
    return found


def why_none(reader: RecordReader) -> str:
    """Why a record has no page panel, as far as it tells."""
    by, ops = reader.info.primitive, reader.info.ops
    if ops == "paddr":
        return "there is none of physical memory"
    if by in _OF_KERNEL:
        return "the kernel's DAMON asks no single pages"
    if any(row.name == by and not row.has_panel for row in PRIMITIVES):
        return f"{by} asks no single pages"
    if (span := reader.time_range()) is not None and span[1] - span[0] < SECOND_NS:
        return "it ended before the first look, which comes after a second"
    return "recorded with --panel 0 or --faithful, imported, or made before there was one"


def words(one: Estimate | None, recorded_ns: int) -> str:
    """``70.7 MiB ± 8.7 MiB``, or that it cannot be known yet."""
    if one is None:
        return f"–: recorded for {format_duration_ns(recorded_ns)}"
    return f"{format_size(one.bytes)} ± {format_size(one.half_width_bytes)}"


def report(path: str, choice: Choice, as_json: bool, window_ns: int | None, output: str | None) -> None:
    """Print how much memory was used within a window, with 95 % intervals; without one (or as a picture), over all."""
    if output is not None:
        check_picture(output)
        window_ns = None
    screen = current_screen()
    with opened(path) as reader:
        span = reader.time_range()
        if span is None:
            raise empty(reader, None)
        found = looks(reader, window_of(choice, span), choice.target)
        if not found:
            raise PydamonError(
                f"has no page panel, which tells the working set of a window: {why_none(reader)}", where=path
            )
        windows = BOUNDS_S[1:] if window_ns is None else (BOUNDS_S[bound_of(window_ns / SECOND_NS)],)
        curves = [
            Curve(target, _mean_resident(mine), {s: estimate(mine, s) for s in windows})
            for target, mine in sorted(found.items())
        ]
        together = [_total(Together(found), windows)] if len(curves) > 1 else []
        most, limit = (MOST_SHOWN, None) if output is None else (MOST_DRAWN, MAX_DRAWN)
        shown, rest = largest(curves, lambda one: one.resident_bytes, choice, most, limit)
        what = f"{format_size(sum(one.resident_bytes for one in rest))} resident"
        if output is not None:
            _draw(reader, [*together, *shown], span, output, rest_words(len(rest), what) if rest else "")
        if as_json:
            told: dict[str, Any] = {"targets": [_object(reader, one, window_ns) for one in curves]}
            for one in together:
                told["total"] = _object(reader, one, window_ns)
            emit(json_text(told) + "\n")
        elif output is not None:
            emit(f"wrote {output}\n" + (rest_line(len(rest), what, choice) if rest else ""))
        else:
            for one in [*together, *shown]:
                emit(_text(reader, one, window_ns, span, screen))
            if rest:
                emit(rest_line(len(rest), what))


@dataclass(frozen=True, slots=True)
class Curve:
    """What one target (or `TOTAL`) used within each window, in s; None where that cannot be known."""

    target: int
    resident_bytes: int  # the mean over the looks
    used: dict[int, Estimate | None]
    once: bool | None = None  # of `TOTAL`: whether memory that targets share counts once


def _mean_resident(found: list[Look]) -> int:
    return round(sum(look.resident_bytes for look in found) / len(found))


def _total(together: Together, windows: Sequence[int]) -> Curve:
    used = {window_s: together.used(window_s) for window_s in windows}
    return Curve(TOTAL, together.resident().bytes, used, together.once)


def sharing_words(once: bool) -> str:
    """How memory counts, in a total, that several targets share."""
    return "memory that they share counts once" if once else "memory that they share counts for each"


def resident_words(found: Mapping[int, list[Look]]) -> str | None:
    """What is resident of several targets together, as their panels have it; None if they have none."""
    if len(found) < 2:
        return None
    together = Together(found)
    size = together.resident()
    words = f"resident together: {format_size(size.bytes)}"
    if not together.once:
        return f"{words}; {sharing_words(False)}: the record does not say what is shared"
    words += f" ± {format_size(size.half_width_bytes)}; {sharing_words(True)}"
    return f"{words} ({format_size(together.plain_bytes())} if it did for each)"


def sum_lines(reader: RecordReader, choice: Choice, span: tuple[int, int], screen: Screen) -> str:
    """What is said below a total that sums what the regions of each target say; ``span`` is the record's."""
    lines = [f"the sum of the targets: {sharing_words(False)}"]
    if tells_residency(reader, choice):
        found = looks(reader, window_of(choice, span), choice.target)
        if len(found) > 1 and Together(found).once:
            lines.append(resident_words(found) or "")
    return "".join(screen.fit(line) + "\n" for line in lines)


def _object(reader: RecordReader, one: Curve, window_ns: int | None) -> dict[str, Any]:
    def told(window_s: int, known: Estimate | None) -> dict[str, int | None]:
        values = (None,) * 3 if known is None else (known.bytes, known.low_bytes, known.high_bytes)
        return {"window_s": window_s, **dict(zip(("bytes", "low_bytes", "high_bytes"), values, strict=True))}

    rows = [told(window_s, known) for window_s, known in one.used.items()]
    head: dict[str, Any] = {**target_keys(reader, one.target), "resident_bytes": one.resident_bytes}
    if one.once is not None:
        head["shared_once"] = one.once
    return head | (rows[0] if window_ns is not None else {"windows": rows})


def _details(reader: RecordReader, span: tuple[int, int], once: bool | None = None) -> str:
    shared = "" if once is None else sharing_words(once)
    parts = (format_duration_ns(span[1] - span[0]), source_line(reader), "resident memory", shared)
    return f"{printable(reader.path)}: {', '.join(part for part in parts if part)}"


def _text(reader: RecordReader, one: Curve, window_ns: int | None, span: tuple[int, int], screen: Screen) -> str:
    recorded_ns = span[1] - span[0]
    lines = [
        styled(target_line(reader, one.target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(_details(reader, span, one.once)), DIM, screen),
    ]
    if window_ns is None:
        return "\n".join([*lines, *_curve_lines(one, recorded_ns, screen)]) + "\n"
    for window_s, known in one.used.items():
        text = f"used within {format_duration_ns(window_s * SECOND_NS)}: {words(known, recorded_ns)}"
        if known is not None:
            text += f" (95 %: {format_size(known.low_bytes)} to {format_size(known.high_bytes)})"
        lines.append(screen.fit(text))
    return "\n".join(lines) + "\n"


def _curve_lines(one: Curve, recorded_ns: int, screen: Screen) -> list[str]:
    """A row for each window of `_SHOWN_S` that is known: a bar up to what is used, a lighter one to the upper end."""
    known = [(s, used) for s, used in one.used.items() if used is not None and s in _SHOWN_S]
    rows = []
    highest = max([one.resident_bytes, *(used.high_bytes for _, used in known), 1])
    width = min(max(screen.width - 38, 0), 50)
    for window_s, used in known:
        full, reach = (round(size / highest * width) for size in (used.low_bytes, used.high_bytes))
        drawn = screen.pick("█", "#") * full + screen.pick("▒", "+") * (reach - full)
        size, error = format_size(used.bytes), f"± {format_size(used.half_width_bytes)}"
        rows.append([format_duration_ns(window_s * SECOND_NS), size, error, drawn.ljust(width)])
    lines = table(["window", "used", "", ""], rows, screen)
    longer = [s for s, used in one.used.items() if used is None and s in _SHOWN_S]
    if longer:
        lines.append(screen.fit(f"{format_duration_ns(longer[0] * SECOND_NS)} and longer: {words(None, recorded_ns)}"))
    return lines


def _draw(reader: RecordReader, curves: list[Curve], span: tuple[int, int], output: str, rest: str) -> None:
    from pydamon.cli.render.window_figure import WindowCurve, window_figure

    drawn = []
    for one in curves:
        known = [(window_s, used) for window_s, used in one.used.items() if used is not None]
        if known:
            title = f"Used within a time: {target_line(reader, one.target, 52)}"
            drawn.append(WindowCurve(title, known, one.resident_bytes))
    if not drawn:
        raise PydamonError(f"tells no window: {words(None, span[1] - span[0])}", where=reader.path)
    caption = "memory that was accessed within the window before each look, with 95 % intervals: from the page panel"
    write_picture(
        output, window_figure(drawn, _details(reader, span), caption, rest), reader, f"Used: {printable(reader.path)}"
    )
