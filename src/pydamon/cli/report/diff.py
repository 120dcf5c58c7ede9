"""``pydamon report diff``: what is different between two records."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from pydamon.analysis.diff import (
    Change,
    NameChange,
    NamedHeat,
    bounds_of,
    by_name,
    changes,
    mean_heat,
    name_changes,
)
from pydamon.analysis.names import MappingNames, short_list
from pydamon.analysis.wss import working_sets
from pydamon.cli.render.axes import tenth_percent
from pydamon.cli.render.bars import TWO, Bar, Bars, Legend
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import chosen, mapping_names, of_what, opened, tells_residency, window_of
from pydamon.errors import RequestError
from pydamon.plain import json_text, printable
from pydamon.records.batch import MEMORY
from pydamon.records.reader import RecordReader
from pydamon.spans import distinct
from pydamon.spec.units import format_percent, format_size

_MOST = 20


def report(before: str, after: str, choice: Choice, by: str, as_json: bool, output: str | None) -> None:
    """Print or draw what became hotter, colder, bigger or smaller from the record ``before`` to ``after``."""
    if output is not None:
        check_picture(output)
    screen = current_screen()
    with opened(before) as one, opened(after) as other:
        target = choice.target or 0
        # What both records tell is compared, and said in the words of the one that tells less.
        teller = next((reader for reader in (one, other) if not tells_residency(reader, choice)), one)
        resident, what = tells_residency(teller, choice), of_what(teller, choice)
        wanted = replace(choice, target=target, whole_ranges=not resident)
        sizes = [working_sets(chosen(reader, wanted, columns=MEMORY)[0])[0].mean_bytes for reader in (one, other)]
        words = _heading(one, other, target, sizes, what)
        heading = [styled(screen.fit(words[0]), BOLD, screen), screen.fit(words[1])]
        if by == "mapping":
            named = [_named(reader, wanted) for reader in (one, other)]
            found = name_changes(named[0], named[1])
            if as_json:
                told = _named_object(target, found, sizes) | {"resident": resident}
                emit(json_text(told) + "\n")
            elif output is None:
                emit("\n".join([*heading, *_named_table(found, screen)]) + "\n")
            if output is not None:
                _draw(one, _named_bars(found), words, len(found), output)
                emit("" if as_json else f"wrote {output}\n")
            return
        heats = []
        for reader in (one, other):
            bounds = bounds_of(chosen(reader, wanted, columns=())[0])
            heats.append(mean_heat(chosen(reader, wanted, columns=MEMORY)[0], bounds))
        ranges = changes(heats[0], heats[1])
        if as_json:
            emit(json_text(_object(target, ranges, sizes) | {"resident": resident}) + "\n")
        elif output is None:
            emit(_text(one, other, target, ranges, heading, screen))
        if output is not None:
            bars = _bars(ranges, mapping_names(other, target), mapping_names(one, target))
            _draw(one, bars, words, len(ranges), output)
            emit("" if as_json else f"wrote {output}\n")


def _named(reader: RecordReader, wanted: Choice) -> dict[str, NamedHeat]:
    """The heat of each mapping's name. What an address was called last counts."""
    batches, span = chosen(reader, wanted, columns=MEMORY)
    target = wanted.target or 0
    end_ns = window_of(wanted, span).end_ns
    last = MappingNames(reader.mappings_at(target, span[1] if end_ns is None else end_ns))
    ever = mapping_names(reader, target)
    bounds = distinct(np.array([*last.bounds(), *ever.bounds()], np.uint64))
    if len(bounds) < 2:
        raise RequestError("does not say what was mapped: compare by address", where=reader.path)
    names: list[str | None] = []
    for start, end in pairwise(bounds.tolist()):
        called = last.of(start, end) or ever.of(start, end)
        names.append(called[0] if called else None)
    return by_name(mean_heat(batches, bounds), names)


def _heading(one: RecordReader, other: RecordReader, target: int, sizes: list[int], what: str) -> list[str]:
    change = f"{format_size(sizes[0])} -> {format_size(sizes[1])} ({_signed(sizes[1] - sizes[0])})"
    return [
        f"{printable(one.path)} -> {printable(other.path)}, target {target}",
        f"mean working set {change}, {what}",
    ]


def _named_object(target: int, found: list[NameChange], sizes: list[int]) -> dict[str, Any]:
    def part(heat: NamedHeat | None) -> dict[str, Any] | None:
        return None if heat is None else {"bytes": round(heat.bytes), "rate": round(heat.rate, 9)}

    return {
        "target": target,
        "mean_working_set_bytes": {"before": sizes[0], "after": sizes[1]},
        "mappings": [{"name": c.name, "kind": c.kind, "before": part(c.before), "after": part(c.after)} for c in found],
    }


def _named_table(found: list[NameChange], screen: Screen) -> list[str]:
    cells = []
    for change in found[:_MOST]:
        row = [printable(change.name), change.kind]
        for heat in (change.before, change.after):
            row += ["-", "-"] if heat is None else [format_size(round(heat.bytes)), tenth_percent(heat.rate)]
        cells.append([row[0], row[1], row[2], row[4], row[3], row[5]])
    lines = table(["mapping", "change", "size", "now", "rate", "now"], cells, screen)
    if len(found) > _MOST:
        lines.append(screen.fit(f"and {len(found) - _MOST} more (--json has all)"))
    return lines


def _named_bars(found: list[NameChange]) -> list[Bar]:
    bars = []
    for change in found[:_MOST]:
        rates = [0.0 if heat is None else heat.rate for heat in (change.before, change.after)]
        sizes = [format_size(round(heat.bytes)) for heat in (change.before, change.after) if heat is not None]
        bars.append(Bar(printable(change.name), rates, f"{change.kind}: {' -> '.join(sizes)}"))
    return bars


def _bars(found: list[Change], names: MappingNames, old_names: MappingNames) -> list[Bar]:
    bars = []
    most = sorted(found, key=lambda change: -change.weight)[:_MOST]
    for change in sorted(most, key=lambda change: change.start):
        called = printable(short_list(names.of(change.start, change.end) or old_names.of(change.start, change.end)))
        label = f"{called} {change.start:#x}".strip()
        rates = [change.before or 0.0, change.after or 0.0]
        bars.append(Bar(label, rates, f"{change.kind}: {format_size(change.bytes)}"))
    return bars


def _draw(one: RecordReader, bars: list[Bar], words: list[str], changes: int, output: str) -> None:
    from pydamon.cli.render.bars_figure import bars_figure

    notes = ["no range differs by 5 % of the samples or more"] if not bars else []
    notes += [f"and {changes - _MOST} smaller changes (--json has all)"] if changes > _MOST else []
    axis = "mean access rate: samples that found an access"
    legend = Legend(axis, ("before", "after"), TWO, shares=True, beside=True)
    write_picture(output, bars_figure([Bars(words[0], words[1], bars, notes)], legend), one, words[0])


def _object(target: int, found: list[Change], sizes: list[int]) -> dict[str, Any]:
    return {
        "target": target,
        "mean_working_set_bytes": {"before": sizes[0], "after": sizes[1]},
        "changes": [
            {
                "start": c.start, "end": c.end, "kind": c.kind,
                "rate_before": c.before, "rate_after": c.after, "bytes": c.bytes,
            }
            for c in found
        ],
    }  # fmt: skip


def _text(
    one: RecordReader, other: RecordReader, target: int, found: list[Change], heading: list[str], screen: Screen
) -> str:
    lines = list(heading)
    processes = [(info.pid, info.start_ticks) for info in (r.info.target(target) for r in (one, other))]
    if processes[0] != processes[1]:
        lines.append(screen.fit("two processes: where their addresses differ, compare with --by mapping"))
    by_kind: dict[str, int] = {}
    for change in found:
        by_kind[change.kind] = by_kind.get(change.kind, 0) + change.bytes
    words = ", ".join(f"{kind} {format_size(size)}" for kind, size in sorted(by_kind.items()))
    lines.append(styled(screen.fit(words or "no range differs by 5 % of the samples or more"), DIM, screen))
    names = mapping_names(other, target)
    old_names = mapping_names(one, target)
    most = sorted(found, key=lambda change: -change.weight)[:_MOST]
    cells = []
    for change in sorted(most, key=lambda change: change.start):
        called = names.of(change.start, change.end) or old_names.of(change.start, change.end)
        cells.append(
            [
                f"{change.start:#x}-{change.end:#x}",
                format_size(change.bytes),
                change.kind,
                _rate(change.before),
                _rate(change.after),
                printable(short_list(called)) or "-",
            ]
        )
    if cells:
        lines += table(["range", "size", "change", "before", "after", "mapping"], cells, screen, words=True)
    if len(found) > _MOST:
        lines.append(screen.fit(f"and {len(found) - _MOST} smaller changes (--json has all)"))
    return "\n".join(lines) + "\n"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else format_percent(100 * rate)


def _signed(size: int) -> str:
    return ("+" if size >= 0 else "-") + format_size(abs(size))
