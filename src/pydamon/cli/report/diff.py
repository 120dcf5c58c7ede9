"""``pydamon report diff``: what is different between two records."""

from __future__ import annotations

from typing import Any

import msgspec

from pydamon.analysis.diff import Change, bounds_of, changes, mean_heat
from pydamon.analysis.names import short_list
from pydamon.analysis.wss import working_sets
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen, current_screen, emit, printable
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import chosen, mapping_names, opened
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_size

_MOST = 20


def report(before: str, after: str, choice: Choice, as_json: bool) -> None:
    """Print what became hotter, colder, bigger or smaller from the record ``before`` to ``after``."""
    screen = current_screen()
    with opened(before) as one, opened(after) as other:
        target = choice.target or 0
        wanted = Choice(target, choice.from_ns, choice.to_ns, choice.low, choice.high)
        heats, sizes = [], []
        for reader in (one, other):
            bounds = bounds_of(chosen(reader, wanted, age=False)[0])
            heats.append(mean_heat(chosen(reader, wanted, age=False)[0], bounds))
            sizes.append(working_sets(chosen(reader, wanted, age=False)[0])[0].mean_bytes)
        found = changes(heats[0], heats[1])
        if as_json:
            emit(msgspec.json.encode(_object(target, found, sizes)).decode() + "\n")
        else:
            emit(_text(one, other, target, found, sizes, screen))


def _object(target: int, found: list[Change], sizes: list[int]) -> dict[str, Any]:
    return {
        "target": target,
        "mean_working_set_bytes": {"before": sizes[0], "after": sizes[1]},
        "changes": [
            {"start": c.start, "end": c.end, "kind": c.kind, "rate_before": c.before, "rate_after": c.after}
            for c in found
        ],
    }


def _text(
    one: RecordReader, other: RecordReader, target: int, found: list[Change], sizes: list[int], screen: Screen
) -> str:
    lines = [
        styled(f"{printable(one.path)} -> {printable(other.path)}, target {target}", BOLD, screen),
        f"mean working set {format_size(sizes[0])} -> {format_size(sizes[1])} ({_signed(sizes[1] - sizes[0])})",
    ]
    by_kind: dict[str, int] = {}
    for change in found:
        by_kind[change.kind] = by_kind.get(change.kind, 0) + change.end - change.start
    words = ", ".join(f"{kind} {format_size(size)}" for kind, size in sorted(by_kind.items()))
    lines.append(styled(words or "no range differs by 5 % of the samples or more", DIM, screen))
    names = mapping_names(other, target)
    old_names = mapping_names(one, target)
    most = sorted(found, key=lambda change: -change.weight)[:_MOST]
    cells = []
    for change in sorted(most, key=lambda change: change.start):
        called = names.of(change.start, change.end) or old_names.of(change.start, change.end)
        cells.append(
            [
                f"{change.start:#x}-{change.end:#x}",
                format_size(change.end - change.start),
                change.kind,
                _rate(change.before),
                _rate(change.after),
                printable(short_list(called)) or "-",
            ]
        )
    if cells:
        lines += table(["range", "size", "change", "before", "after", "mapping"], cells, screen)
    if len(found) > _MOST:
        lines.append(f"and {len(found) - _MOST} smaller changes (--json has all)")
    return "\n".join(lines) + "\n"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.0f} %"


def _signed(size: int) -> str:
    return ("+" if size >= 0 else "-") + format_size(abs(size))
