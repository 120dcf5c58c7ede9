"""What runs in the background, or did, as plain text for people: tables of the fields of a status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pydamon.plain import printable
from pydamon.spec.module_numbers import NUMBERS, told
from pydamon.spec.units import format_size
from pydamon.spec.words.late import REMEDY, late_words
from pydamon.views.fields import View, cell
from pydamon.views.status import Act, Cost, Ended, Kdamond, Running, Scheme, Target

# The columns of tables: their headings, and the path of a field or what makes text of several.
_KDAMONDS: dict[str, str | Callable[[Running], str]] = {
    "NAME": "name",
    "PID": "pid",
    "OPS": "ops",
    "PRIMITIVE": "primitive",
    "TARGETS": lambda kdamond: _targets(kdamond.targets),
    "SAMPLE": "intervals.sample_us",
    "AGGR": "intervals.aggr_us",
    "REGIONS": lambda kdamond: f"{kdamond.regions}/{kdamond.nr_regions.max}",
    "SNAPSHOTS": "snapshots",
    "CPU": "cost.cpu_bp",
    "UP": "uptime_ns",
}
_SCHEMES: dict[str, str | Callable[[Scheme], str]] = {
    "ACTION": "action",
    "TRIED": lambda scheme: f"{cell(scheme, 'stats.nr_tried')} ({cell(scheme, 'stats.sz_tried_bytes')})",
    "APPLIED": lambda scheme: f"{cell(scheme, 'stats.nr_applied')} ({cell(scheme, 'stats.sz_applied_bytes')})",
    "QUOTA": lambda scheme: _quota(scheme),
    "USED UP": "stats.qt_exceeds",
    "STATE": lambda scheme: _state(scheme),
}
_ACTS: dict[str, str | Callable[[Act], str]] = {
    "MODULE": "module",
    "TIMES": "count",
    "DONE": lambda act: f"{cell(act, 'done_bytes')} of {cell(act, 'asked_bytes')}" if act.asked_bytes else "–",
    "BOUNDED": "bounded",
    "REFUSED": "refused",
    "LAST": lambda act: act.last or act.refusal or "–",
}
_GOALS = {"METRIC": "metric", "TARGET": "target_value", "CURRENT": "current_value", "REACHED": "score_bp"}
_MOST_TARGETS = 20
_Row = TypeVar("_Row", bound=View)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def overview(kdamonds: Sequence[Running]) -> list[str]:
    """One line for each kdamond, and one for each of their schemes."""
    rows = [list(_KDAMONDS)]
    for each in kdamonds:
        rows.append(_cells(each, _KDAMONDS))
    lines = table(rows)
    lines += [_plain(f"{each.name}: {late}") for each in kdamonds if (late := _late(each.cost)) is not None]
    lines += ["", *_scheme_lines(kdamonds)] if any(each.schemes for each in kdamonds) else []
    return lines + _act_table(kdamonds)


def details(kdamond: Running) -> list[str]:
    """Everything about one kdamond."""
    intervals, bounds = kdamond.intervals, kdamond.nr_regions
    auto = ", tuned automatically" if (intervals.intervals_goal or {}).get("access_bp") else ""
    pending = ", a change is about to be taken" if kdamond.commit_pending else ""
    paused = ", paused" if kdamond.paused else ""
    sample, aggr, update = (cell(intervals, name) for name in ("sample_us", "aggr_us", "ops_update_us"))
    facts = [
        ("kdamond", f"{kdamond.name} (pid {kdamond.pid}), {kdamond.state}{paused}"),
        ("up", cell(kdamond, "uptime_ns")),
        ("engine", f"{kdamond.engine}, ops {kdamond.ops}"),
        ("primitive", f"{kdamond.primitive}: {kdamond.primitive_reason}"),
        *[("target" if not n else "", _target(row)) for n, row in enumerate(kdamond.targets[:_MOST_TARGETS])],
        ("intervals", f"sample {sample}, aggregate {aggr}, update {update}{auto}{pending}"),
        ("regions", f"{kdamond.regions}, bounds {bounds.min} to {bounds.max}"),
        ("snapshots", cell(kdamond, "snapshots")),
        ("cost", _cost(kdamond.cost)),
    ]
    late = _late(kdamond.cost)
    if len(kdamond.targets) > _MOST_TARGETS:
        facts.insert(-4, ("", f"and {len(kdamond.targets) - _MOST_TARGETS} more"))
    if late is not None:
        facts.append(("late", late))
    if kdamond.record is not None:
        facts.append(("record", kdamond.record))
    facts += [("notices" if not n else "", line) for n, line in enumerate(kdamond.notices)]
    lines = [f"{head:<9}  {_plain(text)}" for head, text in facts]
    if kdamond.schemes:
        lines += ["", *_scheme_lines([kdamond])]
        lines += _goal_table(kdamond)
    return lines + _act_table([kdamond]) + _module_lines(kdamond)


def ended(name: str, reason: str, report: Ended | None) -> list[str]:
    """What a kdamond that has ended did; None: it could not tell any more."""
    if report is None:
        return [_plain(f"kdamond {name}: {reason}")]
    count = "1 snapshot" if report.snapshots == 1 else f"{report.snapshots:,} snapshots"
    lines = [f"kdamond {name}: {reason} after {cell(report, 'uptime_ns')}, {count}", f"cost: {_cost(report.cost)}"]
    late = _late(report.cost)
    lines += [] if late is None else [late]
    if report.record is not None:
        lines.append(f"record: {report.record}")
    if report.command_fate is not None:
        lines.append(f"the command: {report.command_fate}")
    if report.undone is not None:
        lines += [f"undone: {line}" for line in report.undone]
    lines = list(map(_plain, lines))
    lines += _scheme_lines([report]) if report.schemes else []
    return lines + _act_table([report])


def _scheme_lines(kdamonds: Sequence[Kdamond]) -> list[str]:
    """The table of their schemes, and what those cannot do here, once."""
    rows = [row for each in kdamonds for row in _scheme_rows(each)]
    remarks = dict.fromkeys(
        f"{scheme.action}: {scheme.remark}" for each in kdamonds for scheme in each.schemes if scheme.remark
    )
    dry = [each.name for each in kdamonds if each.dry_run and each.schemes]
    if dry:
        remarks[f"{', '.join(dry)}: dry run, nothing was done; APPLIED is what would have been, each byte once"] = None
    return [*table([["KDAMOND", "SCHEME", *_SCHEMES], *rows]), *map(_plain, remarks)]


def _scheme_rows(kdamond: Kdamond) -> list[list[str]]:
    rows = []
    for number, scheme in enumerate(kdamond.schemes):
        rows.append([_plain(kdamond.name), _plain(scheme.name or str(number)), *_cells(scheme, _SCHEMES)])
    return rows


def _module_lines(kdamond: Kdamond) -> list[str]:
    """Each module, and what it tells of itself."""
    lines = []
    for module in kdamond.modules:
        lines += ["", _plain(f"module {module.text}")]
        for key, value in module.numbers.items():
            row = NUMBERS[key]
            lines.append(f"  {row.heading:<13}{told(value if isinstance(value, list) else [value], row)}")
    return lines


def _quota(scheme: Scheme) -> str:
    quota = scheme.quota
    if not quota.limited:
        return "none"
    if quota.effective_bytes is None:
        return "not yet"
    return f"{format_size(quota.charged_bytes)} of {format_size(quota.effective_bytes)}"


def _state(scheme: Scheme) -> str:
    if scheme.failed is not None:
        return f"failed: {scheme.failed}"
    if scheme.finished:
        return "finished"
    return "active" if scheme.watermarks.active else "inactive, by its watermarks"


def _goal_table(kdamond: Kdamond) -> list[str]:
    rows = [["SCHEME", "GOAL", *_GOALS]]
    for s, scheme in enumerate(kdamond.schemes):
        for g, goal in enumerate(scheme.goals):
            names = scheme.name or str(s), goal.name or f"{s}.{g}"
            rows.append([*map(_plain, names), *_cells(goal, _GOALS)])
    return ["", *table(rows)] if len(rows) > 1 else []


def _act_table(kdamonds: Sequence[Kdamond]) -> list[str]:
    """What the loops of modules have done."""
    rows = [["KDAMOND", *_ACTS]]
    for each in kdamonds:
        for act in each.acts:
            rows.append([_plain(each.name), *_cells(act, _ACTS)])
    return ["", *table(rows)] if len(rows) > 1 else []


def _cells(view: _Row, columns: Mapping[str, str | Callable[[_Row], str]]) -> list[str]:
    """The cells of a row."""
    return [_plain(cell(view, of) if isinstance(of, str) else of(view)) for of in columns.values()]


def _targets(targets: Sequence[Target]) -> str:
    if not targets:
        return "none now"
    more = f" and {len(targets) - 1} more" if len(targets) > 1 else ""
    text = _target(targets[0])
    return (text if len(text) <= 32 else text[:31] + "…") + more


def _target(target: Target) -> str:
    parts = [str(value) for value in (target.pid, target.command) if isinstance(value, int | str)]
    return " ".join(parts) or f"target {target.target}"


def _cost(cost: Cost) -> str:
    text = f"{cell(cost, 'cpu_bp')} of a CPU"
    if isinstance(cost.kdamond_cpu_bp, int):
        text += f", and {cell(cost, 'kdamond_cpu_bp')} in the kernel's kdamond"
    if isinstance(cost.checks, int) and isinstance(cost.disturb_bp, int):
        text += f", {cost.checks:,} checks, target disturbed {cell(cost, 'disturb_bp')} of the time"
    return text


def _late(cost: Cost) -> str | None:
    """Whether samples came later than asked for."""
    told = cost.samples, cost.asked_ns, cost.sampled_ns
    numbers = [each for each in told if isinstance(each, int)]
    line = late_words(*numbers) if len(numbers) == len(told) else None
    return None if line is None else f"{line}; {REMEDY}"


def _plain(text: str) -> str:
    """Without what a terminal would obey: commands and names are somebody else's text."""
    return printable(text)
