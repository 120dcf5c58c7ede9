"""``pydamon report summary``: one answer on one screen."""

from __future__ import annotations

from typing import Any

from pydamon.analysis.panel import SECOND_NS, Estimate, estimate
from pydamon.analysis.summary import WARM_S, Holding, holdings
from pydamon.analysis.together import Together
from pydamon.analysis.window import Window
from pydamon.cli.render.axes import tenth_percent
from pydamon.cli.render.bars import HOT_TO_COLD, Bar, Bars, Legend
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report import blind, late, reclaim
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import count, empty, of_what, opened, tells_residency
from pydamon.cli.report.panel import looks, resident_words, sharing_words, why_none, words
from pydamon.core.panel import Look
from pydamon.core.snapshot import Snapshot
from pydamon.plain import json_text, printable
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.views.names import source_line, target_line

_USED_S = (1, 10, 60)
_IDLE_S = (10, 60, 600)
_MOST_TARGETS = 5
_MOST_MAPPINGS = 8
_REGIONS_ERROR = 0.1  # what regions may be wrong by, as a share of what is resident


def report(path: str, choice: Choice, as_json: bool, output: str | None) -> None:
    """Print or draw what the record says of each target: the largest, if there are many."""
    if output is not None:
        check_picture(output)
    screen = current_screen()
    with opened(path) as reader:
        span = reader.time_range()
        if span is None:
            raise empty(reader, None)
        last = {t: s for t, s in reader.last_snapshots().items() if choice.target in (None, t)}
        if not last:
            raise empty(reader, choice.target)
        panel = looks(reader, Window(), choice.target)
        if choice.whole_ranges:  # the panel is of resident pages
            last, panel = {t: s.replace(resident=None) for t, s in last.items()}, {}
        held = {
            target: holdings(snapshot, reader.mappings_at(target, snapshot.end_ns)) for target, snapshot in last.items()
        }
        order = sorted(last, key=lambda target: -sum(map(_all, held[target])))
        if as_json:
            objects = [_object(reader, last[t], held[t], panel.get(t, []), span) for t in order]
            told: dict[str, Any] = {"targets": objects}
            if len(order) > 1:
                told["total"] = _total_object(held, panel)
            told |= {
                "cost": _cost(reader),
                "sampled": late.sampling(reader),
                "resident": tells_residency(reader, choice),
            }
            emit(json_text(told) + "\n")
        if output is not None:
            _draw(reader, [(t, held[t], panel.get(t, [])) for t in order], choice, span, output)
            emit("" if as_json else f"wrote {output}\n")
        if as_json or output is not None:
            return
        if len(order) > 1:
            emit(_total_text(reader, held, panel, span, screen))
        for target in order[:_MOST_TARGETS]:
            emit(_text(reader, last[target], held[target], panel.get(target, []), choice, span, screen))
        if len(order) > _MOST_TARGETS:
            rest = sum(one.memory for target in order[_MOST_TARGETS:] for one in held[target])
            emit(f"and {count(len(order) - _MOST_TARGETS, 'smaller target')}, {format_size(rest)} together\n")
        warning = late.warning(late.sampling(reader))
        if warning is not None:
            emit(screen.fit(warning) + "\n")
        cost = _cost(reader)
        if cost is not None:
            cpu, disturbed = (tenth_percent(cost[name] / 100) for name in ("cpu_percent", "disturbed_percent"))
            emit(screen.fit(f"cost: {cpu} of a CPU, and {disturbed} of the target's time") + "\n")


def _cost(reader: RecordReader) -> dict[str, float] | None:
    rows = list(reader.table_rows("cost"))
    if len(rows) < 2:
        return None
    elapsed = max(rows[-1]["time_ns"] - rows[0]["time_ns"], 1)
    cpu, disturbed = (rows[-1][name] - rows[0][name] for name in ("cpu_ns", "disturb_ns"))
    return {"cpu_percent": 100 * cpu / elapsed, "disturbed_percent": 100 * disturbed / elapsed}


def _total_text(
    reader: RecordReader,
    held: dict[int, list[Holding]],
    panel: dict[int, list[Look]],
    span: tuple[int, int],
    screen: Screen,
) -> str:
    """What all targets have together, as the panel has it; else what their regions hold."""
    lines = [styled(f"all targets ({len(held)})", BOLD, screen)]
    resident = resident_words(panel)
    if resident is None:
        size = format_size(sum(one.memory for mine in held.values() for one in mine))
        return "\n".join([*lines, f"{'resident':<16}{size}; {sharing_words(False)}"]) + "\n"
    together = Together(panel)
    lines.append(screen.fit(resident))
    lines += _windows([(s, together.used(s)) for s in _USED_S], [(s, _idle_of(together, s)) for s in _IDLE_S], span)
    without = len(held.keys() - panel.keys())
    if without:
        lines.append(f"without {count(without, 'target')} of which there is no page panel")
    return "\n".join(lines) + "\n"


def _idle_of(together: Together, window_s: float) -> Estimate | None:
    used = together.used(window_s)
    return None if used is None else used.of_rest(together.resident().bytes)


def _windows(
    used: list[tuple[int, Estimate | None]], idle: list[tuple[int, Estimate | None]], span: tuple[int, int]
) -> list[str]:
    recorded_ns = span[1] - span[0]
    return [f"{'used within ' + _time(window_s):<20}{words(one, recorded_ns)}" for window_s, one in used] + [
        f"{'idle for ≥ ' + _time(window_s):<20}{words(one, recorded_ns)}" for window_s, one in idle
    ]


def _told(one: Estimate | None, window_s: int) -> dict[str, int | None]:
    values = (None,) * 3 if one is None else (one.bytes, one.low_bytes, one.high_bytes)
    return {"window_s": window_s, **dict(zip(("bytes", "low_bytes", "high_bytes"), values, strict=True))}


def _total_object(held: dict[int, list[Holding]], panel: dict[int, list[Look]]) -> dict[str, Any]:
    plain = sum(one.memory for mine in held.values() for one in mine)
    if len(panel) < 2:
        return {"resident_bytes": plain, "shared_once": False, "targets": len(held), "without_panel": len(held)}
    together = Together(panel)
    size = together.resident()
    return {
        "resident_bytes": size.bytes,
        "resident_low_bytes": size.low_bytes,
        "resident_high_bytes": size.high_bytes,
        "shared_once": together.once,
        "sum_bytes": together.plain_bytes(),
        "targets": len(held),
        "without_panel": len(held.keys() - panel.keys()),
        "used": [_told(together.used(s), s) for s in _USED_S],
        "idle": [_told(_idle_of(together, s), s) for s in _IDLE_S],
    }


def _resident(mine: list[Holding], panel: list[Look]) -> int:
    return panel[-1].resident_bytes if panel else sum(one.memory for one in mine)


def _idle(panel: list[Look], window_s: float) -> Estimate | None:
    used = estimate(panel, window_s) if panel else None
    return None if used is None else used.of_rest(panel[-1].resident_bytes)


def _text(
    reader: RecordReader,
    snapshot: Snapshot,
    mine: list[Holding],
    panel: list[Look],
    choice: Choice,
    span: tuple[int, int],
    screen: Screen,
) -> str:
    lines = [
        styled(target_line(reader, snapshot.target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(_details(reader, choice, span)), DIM, screen),
        f"{_name_of_all(choice):<16}{format_size(_resident(mine, panel))}",
    ]
    if panel:
        used, idle = [(s, estimate(panel, s)) for s in _USED_S], [(s, _idle(panel, s)) for s in _IDLE_S]
        lines += _windows(used, idle, span)
    elif not choice.whole_ranges:
        lines.append(screen.fit(f"no page panel ({why_none(reader)}): how much was used within a time is not known"))
    rows = [
        [printable(one.name), one.kind, *map(format_size, (one.memory, one.hot, one.warm, one.cold))] for one in mine
    ]
    shown = rows[:_MOST_MAPPINGS]
    if len(mine) > _MOST_MAPPINGS:
        rest = mine[_MOST_MAPPINGS:]
        sums = [sum(getattr(one, name) for one in rest) for name in ("memory", "hot", "warm", "cold")]
        shown.append([f"and {len(rest)} more", "", *map(format_size, sums)])
    lines += table(["mapping", "kind", "memory", "hot", "warm", "cold"], shown, screen)
    lines.append(screen.fit(reclaim.words(reclaim.cold_by_kind(mine), reclaim.has_swap(reader))))
    apart = _disagreement(mine, panel) if panel else None
    if apart is not None:
        lines.append(screen.fit(apart))
    unknown = sum(one.unknown for one in mine)
    reasons = blind.by_reason(reader).get(snapshot.target)
    if unknown:
        why = printable(blind.words(reasons)) if reasons else "not looked at yet, or they cannot be watched"
        lines.append(screen.fit(f"{format_size(unknown)} cannot be told: {why}"))
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _details(reader: RecordReader, choice: Choice, span: tuple[int, int]) -> str:
    parts = [format_duration_ns(span[1] - span[0]), source_line(reader), of_what(reader, choice)]
    return f"{printable(reader.path)}: {', '.join(part for part in parts if part)}"


def _all(one: Holding) -> int:
    """Its bytes, whatever is known of them."""
    return one.memory + one.unknown


def _name_of_all(choice: Choice) -> str:
    """What the sum of all mappings is called."""
    return "addresses" if choice.whole_ranges else "resident"


def _draw(
    reader: RecordReader,
    found: list[tuple[int, list[Holding], list[Look]]],
    choice: Choice,
    span: tuple[int, int],
    output: str,
) -> None:
    """The largest targets: a bar for each mapping, hot to cold; below it what the page panel says."""
    from pydamon.cli.render.bars_figure import bars_figure

    panels = []
    for target, held, looked in found[:_MOST_TARGETS]:
        mine = sorted(held, key=_all, reverse=True)
        bars = [_bar(f"{printable(one.name)} ({one.kind})", [one]) for one in mine[:_MOST_MAPPINGS]]
        if more := mine[_MOST_MAPPINGS:]:
            bars.append(_bar(f"and {len(more)} more", more))
        notes = [f"{_name_of_all(choice)} {format_size(_resident(mine, looked))}"]
        if looked:
            used = [(s, estimate(looked, s)) for s in _USED_S]
            notes[0] += "".join(f"; used within {_time(s)}: {words(one, span[1] - span[0])}" for s, one in used)
        notes.append(reclaim.words(reclaim.cold_by_kind(mine), reclaim.has_swap(reader)))
        panels.append(Bars(target_line(reader, target, 80), _details(reader, choice, span), bars, notes))
    names = ("hot", f"warm: used within {_time(round(WARM_S))}", "cold", "unknown")
    rest = ""
    if left := found[_MOST_TARGETS:]:
        size = sum(one.memory for _, mine, _ in left for one in mine)
        rest = f"and {count(len(left), 'smaller target')}, {format_size(size)} together"
    legend = Legend("memory in the last snapshot", names, HOT_TO_COLD)
    write_picture(output, bars_figure(panels, legend, rest), reader, f"Summary: {printable(reader.path)}")


def _bar(label: str, held: list[Holding]) -> Bar:
    amounts = [float(sum(getattr(one, name) for one in held)) for name in ("hot", "warm", "cold", "unknown")]
    unknown = f", {format_size(int(amounts[3]))} unknown" if amounts[3] else ""
    return Bar(label, amounts, format_size(int(sum(amounts[:3]))) + unknown)


def _disagreement(mine: list[Holding], panel: list[Look]) -> str | None:
    """Says that regions and panel tell different things of what is idle, farther apart than their errors."""
    idle = _idle(panel, WARM_S)
    if idle is None:
        return None
    cold, room = sum(one.cold for one in mine), round(_REGIONS_ERROR * panel[-1].resident_bytes)
    if idle.low_bytes - room <= cold <= idle.high_bytes + room:
        return None
    told = f"{format_size(idle.bytes)} ± {format_size(idle.half_width_bytes)}"
    return (
        f"regions say that {format_size(cold)} are idle for ≥ {_time(round(WARM_S))}, the panel {told}: "
        "believe the panel in how much, the regions in where"
    )


def _time(seconds: int) -> str:
    return format_duration_ns(seconds * SECOND_NS)


def _object(
    reader: RecordReader, snapshot: Snapshot, mine: list[Holding], panel: list[Look], span: tuple[int, int]
) -> dict[str, Any]:
    return {
        "target": snapshot.target,
        "pid": reader.info.target(snapshot.target).pid,
        "recorded_ns": span[1] - span[0],
        "resident_bytes": _resident(mine, panel),
        "used": [_told(estimate(panel, s) if panel else None, s) for s in _USED_S],
        "idle": [_told(_idle(panel, s), s) for s in _IDLE_S],
        "reclaimable": reclaim.as_object(reclaim.cold_by_kind(mine), reclaim.has_swap(reader)),
        "unwatched_by_reason": blind.by_reason(reader).get(snapshot.target, {}),
        "warnings": [text for text in [_disagreement(mine, panel) if panel else None] if text is not None],
        "mappings": [
            {
                "name": one.name, "kind": one.kind, "bytes": one.memory, "hot_bytes": one.hot,
                "warm_bytes": one.warm, "cold_bytes": one.cold, "unknown_bytes": one.unknown,
            }
            for one in mine
        ],
    }  # fmt: skip
