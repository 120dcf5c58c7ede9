"""What runs in the background, as plain text for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydamon.spec.units import format_duration_ns, format_size

_SCHEME_HEADS = ("KDAMOND", "SCHEME", "ACTION", "TRIED", "APPLIED", "QUOTA", "USED UP", "STATE")


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def overview(kdamonds: Sequence[dict[str, Any]]) -> list[str]:
    """One line for each kdamond, and one for each of their schemes."""
    rows = [("NAME", "PID", "OPS", "PRIMITIVE", "TARGETS", "SAMPLE", "AGGR", "REGIONS", "SNAPSHOTS", "CPU", "UP")]
    for each in kdamonds:
        row = (
            each["name"],
            str(each["pid"]),
            each["ops"],
            each["primitive"],
            _targets(each["targets"]),
            _time_us(each["intervals"]["sample_us"]),
            _time_us(each["intervals"]["aggr_us"]),
            f"{each['regions']}/{each['nr_regions']['max']}",
            str(each["snapshots"]),
            _share(each["cost"]["cpu_bp"]),
            format_duration_ns(each["uptime_ns"]),
        )
        rows.append(tuple(map(_plain, row)))  # type: ignore[arg-type]
    lines = table(rows)
    schemes = [row for each in kdamonds for row in _scheme_rows(each)]
    if schemes:
        lines += ["", *table([_SCHEME_HEADS, *schemes])]
    return lines


def details(kdamond: dict[str, Any]) -> list[str]:
    """Everything about one kdamond."""
    intervals, bounds, cost = kdamond["intervals"], kdamond["nr_regions"], kdamond["cost"]
    auto = ", tuned automatically" if (intervals["intervals_goal"] or {}).get("access_bp") else ""
    pending = ", a change is about to be taken" if kdamond["commit_pending"] else ""
    facts = [
        ("kdamond", f"{kdamond['name']} (pid {kdamond['pid']}), {kdamond['state']}"),
        ("up", format_duration_ns(kdamond["uptime_ns"])),
        ("engine", f"{kdamond['engine']}, ops {kdamond['ops']}"),
        ("primitive", f"{kdamond['primitive']}: {kdamond['primitive_reason']}"),
        *[("target" if not n else "", _target(row)) for n, row in enumerate(kdamond["targets"][:20])],
        ("intervals", f"sample {_time_us(intervals['sample_us'])}, aggregate {_time_us(intervals['aggr_us'])}, "
                      f"update {_time_us(intervals['ops_update_us'])}{auto}{pending}"),
        ("regions", f"{kdamond['regions']}, bounds {bounds['min']} to {bounds['max']}"),
        ("snapshots", str(kdamond["snapshots"])),
        ("cost", _cost(cost)),
    ]  # fmt: skip
    if len(kdamond["targets"]) > 20:
        facts.insert(-4, ("", f"and {len(kdamond['targets']) - 20} more"))
    if kdamond["record"] is not None:
        facts.append(("record", kdamond["record"]))
    facts += [("notices" if not n else "", line) for n, line in enumerate(kdamond["notices"])]
    lines = [f"{head:<9}  {_plain(text)}" for head, text in facts]
    if kdamond["schemes"]:
        lines += ["", *table([_SCHEME_HEADS, *_scheme_rows(kdamond)])]
        lines += _goal_table(kdamond)
    return lines


def ended(report: dict[str, Any]) -> list[str]:
    """What a kdamond that has ended did."""
    name, reason = report.get("name", "?"), report["reason"]
    if "snapshots" not in report:
        return [_plain(f"kdamond {name}: {reason}")]
    count = "1 snapshot" if report["snapshots"] == 1 else f"{report['snapshots']:,} snapshots"
    lines = [f"kdamond {name}: {reason} after {format_duration_ns(report['uptime_ns'])}, {count}"]
    lines.append(f"cost: {_cost(report['cost'])}")
    if report["record"] is not None:
        lines.append(f"record: {report['record']}")
    if report["command_fate"] is not None:
        lines.append(f"the command: {report['command_fate']}")
    if report["undone"] is not None:
        lines += [f"undone: {line}" for line in report["undone"]]
    lines = list(map(_plain, lines))
    return [*lines, *table([_SCHEME_HEADS, *_scheme_rows(report)])] if report["schemes"] else lines


def _scheme_rows(kdamond: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for number, scheme in enumerate(kdamond["schemes"]):
        stats, quota = scheme["stats"], scheme["quota"]
        limit = "none" if not quota["limited"] else "not yet" if quota["effective_bytes"] is None else (
            f"{format_size(quota['charged_bytes'])} of {format_size(quota['effective_bytes'])}"
        )  # fmt: skip
        if scheme["failed"] is not None:
            state = f"failed: {scheme['failed']}"
        elif scheme["finished"]:
            state = "finished"
        else:
            state = "active" if scheme["watermarks"]["active"] else "inactive, by its watermarks"
        row = (
            kdamond["name"],
            scheme["name"] or str(number),
            scheme["action"],
            f"{stats['nr_tried']} ({format_size(stats['sz_tried_bytes'])})",
            f"{stats['nr_applied']} ({format_size(stats['sz_applied_bytes'])})",
            limit,
            str(stats["qt_exceeds"]),
            state,
        )
        rows.append(tuple(map(_plain, row)))
    return rows


def _goal_table(kdamond: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = [("SCHEME", "GOAL", "METRIC", "TARGET", "CURRENT", "REACHED")]
    for s, scheme in enumerate(kdamond["schemes"]):
        for g, goal in enumerate(scheme["goals"]):
            row = (
                scheme["name"] or str(s),
                goal["name"] or f"{s}.{g}",
                goal["metric"],
                str(goal["target_value"]),
                str(goal["current_value"]),
                _share(goal["score_bp"]),
            )
            rows.append(tuple(map(_plain, row)))
    return ["", *table(rows)] if len(rows) > 1 else []


def _targets(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "none now"
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    text = _target(rows[0])
    return (text if len(text) <= 32 else text[:31] + "…") + more


def _target(row: dict[str, Any]) -> str:
    parts = [str(row[key]) for key in ("pid", "command") if row.get(key) is not None]
    return " ".join(parts) or f"target {row['target']}"


def _cost(cost: dict[str, Any]) -> str:
    text = f"{_share(cost['cpu_bp'])} of a CPU"
    if "kdamond_cpu_bp" in cost:
        text += f", and {_share(cost['kdamond_cpu_bp'])} in the kernel's kdamond"
    if "checks" in cost:
        text += f", {cost['checks']:,} checks, target disturbed {_share(cost['disturb_bp'])} of the time"
    return text


def _time_us(value_us: int) -> str:
    return format_duration_ns(value_us * 1000)


def _share(bp: int) -> str:
    return f"{bp / 100:.1f}%"


def _plain(text: str) -> str:
    """Without what a terminal would obey: commands and names are somebody else's text."""
    return "".join(c if c.isprintable() else "?" for c in text)
