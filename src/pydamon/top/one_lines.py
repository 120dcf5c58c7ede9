"""What stands on the screen of one process: its memory, working set over time, idle times, schemes, mappings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydamon.analysis.strips import UNKNOWN, Strip
from pydamon.plain import printable
from pydamon.spec.units import format_duration_ns
from pydamon.top.cells import UNTOLD, fit, size, use
from pydamon.top.listing import WINDOW_S
from pydamon.top.scenes import used_of
from pydamon.top.spans import Line, Span, text_line
from pydamon.views.live import Live, MappingHeat, Scheme, Target

SECOND_NS = 1_000_000_000
CURVE_ROWS = 3
# Windows in the order in which they are left out, the last first; they are shown in their own order.
_WINDOWS_S = (10, 60, 1, 300, 3600, 30, 5, 600, 120, 1800, 20, 2, 7200, 14400, 43200, 86400)
_COLUMN = 7
_HEAD = 8
_BARS = " ▁▂▃▄▅▆▇█"
_HEAT = "·░▒▓█"
_STRIP = (8, 40)  # cells, at least and at most
SORTS = ("memory", "heat", "idle", "name")


class Point(NamedTuple):
    """A point of the curve; ``bytes`` is None where nothing is known."""

    time_ns: int
    bytes: int | None


def who(target: Target) -> str:
    """Its pid, which is not to be cut off, and its command."""
    name = printable(target.command or f"target {target.target}")
    return name if target.pid is None else f"{target.pid} {name}"


def cost_bp(seen: Live, before: Live | None) -> tuple[int, int] | None:
    """CPU time and disturbance since ``before`` (None: since the start), in 1/10,000 of the time."""
    if seen.cost is None:
        return None
    cpu_ns, disturb_ns, over_ns = seen.cost.cpu_ns, seen.cost.disturb_ns, seen.elapsed_ns
    if before is not None and before.cost is not None and before.time_ns < seen.time_ns:
        cpu_ns, disturb_ns = cpu_ns - before.cost.cpu_ns, disturb_ns - before.cost.disturb_ns
        over_ns = seen.time_ns - before.time_ns
    return (cpu_ns * 10_000 // over_ns, disturb_ns * 10_000 // over_ns) if over_ns > 0 else None


def facts(seen: Live, target: Target, cost: tuple[int, int] | None) -> list[str]:
    """How large it is, what it uses, how that is known, and the ``cost_bp``; the most important first."""
    used = used_of(target.used, WINDOW_S)
    if used is None:
        told = f"working set {size(target.working_set_bytes)}"
    elif target.by == "panel":
        told = f"used in {WINDOW_S} s {use(used)} ± {size(used.error_bytes)}"
    else:
        told = f"used in {WINDOW_S} s {use(used)}"
    found = [f"{size(target.resident_bytes)} resident", told]
    if seen.primitive:
        found.append(f"{seen.primitive}, {target.regions} regions, {format_duration_ns(1000 * target.aggr_us)}")
    if cost is not None:
        found.append(f"{cost[0] / 100:.1f}% CPU, disturbed {cost[1] / 100:.1f}%")
    if target.swap_bytes:
        found.append(f"{size(target.swap_bytes)} swapped out")
    if len(seen.targets) > 1:
        place = [one.target for one in seen.targets].index(target.target) + 1
        found.insert(0, f"{place} of {len(seen.targets)}")
    return found


# -- the curve --------------------------------------------------------------------------------------------------------


def curve(points: Sequence[Point], width: int, title: str) -> list[Line]:
    """The working set over time, of ``CURVE_ROWS`` rows: its highest value and the times stand beside it."""
    most = max((point.bytes or 0 for point in points), default=0)
    lines = []
    steps = CURVE_ROWS * 8
    heights = [None if p.bytes is None else max(round(p.bytes * steps / most), 1) if most else 1 for p in points]
    labels = [size(most), "", "0"]
    for row in range(CURVE_ROWS):
        below = (CURVE_ROWS - 1 - row) * 8
        cells = "".join(" " if height is None else _BARS[min(max(height - below, 0), 8)] for height in heights)
        lines.append((Span(f"{labels[row]:>6} "), Span(fit(cells, max(width - 7, 1)), "curve")))
    return [text_line(fit(title, width), "bold"), *lines]


def curve_title(points: Sequence[Point], by: str) -> str:
    """What the curve is of, and over how long."""
    what = f"used within {WINDOW_S} s" if by == "panel" else "working set"
    if len(points) < 2:
        return what
    return f"{what}, {format_duration_ns(max(points[-1].time_ns - points[0].time_ns, 0))}"


# -- idle times -------------------------------------------------------------------------------------------------------


def idle_table(target: Target, width: int) -> list[Line]:
    """By windows: what was used within, the error of that, and what has been idle for that long."""
    room = max((width - _HEAD) // _COLUMN, 1)
    windows = sorted(_WINDOWS_S[:room])
    rows: list[tuple[str, list[str]]] = [("within", []), ("used", []), ("±", []), ("idle", [])]
    for window_s in windows:
        used = used_of(target.used, window_s)
        cells = [_window(window_s)]
        if used is None:
            cells += [UNTOLD] * 3
        else:
            error = size(used.error_bytes) if target.by == "panel" else UNTOLD
            cells += [size(used.bytes), error, size(max(target.resident_bytes - used.bytes, 0))]
        for (_, row), cell in zip(rows, cells, strict=True):
            row.append(cell)
    if target.by != "panel":
        rows = [row for row in rows if row[0] != "±"]
    return [
        text_line(fit(f"{name:<{_HEAD}}" + "".join(f"{cell:>{_COLUMN}}" for cell in row), width), style)
        for (name, row), style in zip(rows, ("bold", "", "", ""), strict=False)
    ]


def _window(window_s: int) -> str:
    for unit, seconds in (("h", 3600), ("m", 60)):
        if window_s >= seconds:
            return f"{window_s // seconds}{unit}"
    return f"{window_s}s"


# -- schemes ----------------------------------------------------------------------------------------------------------


def scheme_lines(schemes: Sequence[Scheme], width: int, most: int) -> list[Line]:
    """One line for each of the first ``most``."""
    lines = []
    for scheme in schemes[:most]:
        stats = scheme.stats
        parts = [f"scheme {printable(scheme.name) or scheme.number}: {scheme.action}"]
        for word in ("tried", "applied"):
            if f"sz_{word}_bytes" in stats:
                parts.append(f"{word} {stats.get(f'nr_{word}', 0)} ({size(stats[f'sz_{word}_bytes'])})")
        if scheme.effective_bytes is not None:
            parts.append(f"quota {size(scheme.effective_bytes)}")
        if not scheme.active:
            parts.append("waits (watermarks)")
        lines.append(text_line(fit(", ".join(parts), width)))
    if len(schemes) > most:
        lines.append(text_line(fit(f"and {len(schemes) - most} more schemes", width), "dim"))
    return lines


# -- mappings ---------------------------------------------------------------------------------------------------------


def strip_cells(width: int) -> int:
    """How many cells there are for the heat of a mapping."""
    return min(max(width - 44, _STRIP[0]), _STRIP[1])


def mappings_head(width: int, sort: str) -> str:
    """The line of headings."""
    marks = {name: "▼" if name == sort else "" for name in SORTS}
    cells = strip_cells(width)
    heat = fit("HEAT" + marks["heat"], cells)
    return fit(
        f"{'MEM' + marks['memory']:>6} {'HOT':>6} {'IDLE' + marks['idle']:>6} {heat} MAPPING{marks['name']}", width
    )


def arranged(mappings: Sequence[MappingHeat], sort: str) -> list[MappingHeat]:
    """In order: the largest, hottest, longest idle first, or by name."""
    by_name = sorted(mappings, key=lambda one: one.name)
    if sort == "name":
        return by_name
    keys = {"memory": lambda one: -one.bytes, "heat": lambda one: -one.rate_bp, "idle": lambda one: -one.idle_ms}
    return sorted(by_name, key=keys[sort])


def mapping_line(one: MappingHeat, strip: Strip | None, width: int) -> Line:
    """One mapping: its memory, what of it is hot, how long nothing of it was used, where it is hot, its name."""
    cells = strip_cells(width)
    idle = format_short(one.idle_ms) if one.bytes else UNTOLD
    name = fit(printable(one.name), max(width - 22 - cells, 1))
    heat = _shares(one, cells) if strip is None else _strip(strip)
    return (
        Span(f"{size(one.bytes + one.unknown_bytes):>6} {size(one.hot_bytes):>6} {idle:>6} "),
        *heat,
        Span(f" {name}"),
    )


def format_short(duration_ms: int) -> str:
    """A time in five characters: 0.2s, 12s, 3m, 5h, 12d."""
    seconds = duration_ms / 1000
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for unit, length, until in (("s", 1, 100), ("m", 60, 100), ("h", 3600, 100)):
        if seconds / length < until:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"


def legend(width: int) -> Line:
    """What the cells of heat mean."""
    words = (f"idle for {WINDOW_S} s", "used since", "now: seldom", "often", "always")
    spans: list[Span] = []
    room = width
    for level, word in enumerate(words):
        room -= len(word) + 4
        if room < 0:
            break
        spans += [_cell(level, 2), Span(f" {word} ", "dim")]
    if room > 12:
        spans += [_cell(UNKNOWN, 2), Span(" unknown", "dim")]
    return tuple(spans)


def _cell(level: int, count: int = 1) -> Span:
    """So many cells of one level of heat."""
    return Span("?" * count, "unknown") if level == UNKNOWN else Span(_HEAT[level] * count, f"heat{level}")


def _strip(strip: Strip) -> list[Span]:
    """Cells of one level after another become one span."""
    spans: list[Span] = []
    for level in strip.tolist():
        text, style = _cell(level)
        if spans and spans[-1].style == style:
            spans[-1] = Span(spans[-1].text + text, style)
        else:
            spans.append(Span(text, style))
    return spans


def _shares(one: MappingHeat, cells: int) -> list[Span]:
    """Where only sums are known: how much is hot, warm, cold, unknown, as parts of a bar."""
    parts = ((one.hot_bytes, 4), (one.warm_bytes, 1), (one.cold_bytes, 0), (one.unknown_bytes, UNKNOWN))
    total = sum(part for part, _ in parts)
    spans, done, drawn = [], 0, 0
    for part, level in parts:
        done += part
        until = round(done * cells / total) if total else 0
        if until > drawn:
            spans.append(_cell(level, until - drawn))
        drawn = max(drawn, until)
    return [*spans, Span(" " * (cells - drawn))]
