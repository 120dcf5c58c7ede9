"""Candidates, right sizes and the cost of monitoring, shown."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from pydamon.cli.fleet.asked import Shown
from pydamon.cli.fleet.words import drawn, more_line, name_words, size_words, titled, whole
from pydamon.cli.render.axes import percent
from pydamon.cli.render.bars import PLAIN, TWO, Bar, Bars, Legend
from pydamon.cli.render.screen import Screen
from pydamon.fleet.asking import Data
from pydamon.fleet.questions import choices
from pydamon.fleet.where import Where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_KINDS = {"reclaim": "Reclaim", "tier": "A slower tier", "thp": "Huge pages"}
_MOST_DRAWN = 40


def candidates(data: Data, where: Where, by: str, top: int, goal: float) -> Shown:
    """What could be done for which groups."""
    rows, found = choices.candidates(data, where, by, goal)
    kinds = {kind: list(mine) for kind, mine in groupby(rows, key=lambda row: row.kind)}

    def text(screen: Screen) -> list[str]:
        lines: list[str] = []
        for kind, mine in kinds.items():
            cells = [[name_words(row.name), size_words(row.size), percent(row.size / max(row.resident, 1)), row.why]
                     for row in mine[:top]]  # fmt: skip
            lines += [""] if lines else []
            lines += titled(_KINDS[kind], "", [by, "size", "of it", "why"], cells, screen, words=True)
            lines += more_line(len(mine) - top, screen)
        return lines or ["none"]

    def values() -> dict[str, Any]:
        told = [
            {"for": row.kind, by: row.name, "bytes": round(row.size), "resident_bytes": round(row.resident),
             "why": row.why}
            for row in rows
        ]  # fmt: skip
        return {"by": by, "goal_share_per_minute": goal, "rows": told}

    def figure() -> Figure:
        panels = [
            Bars(_KINDS[kind], "", [Bar(name_words(row.name), [row.size], size_words(row.size))
                                    for row in mine[: min(top, _MOST_DRAWN)]])
            for kind, mine in kinds.items()
        ]  # fmt: skip
        return drawn(panels, Legend("memory that it is for", ["memory"], PLAIN))

    return Shown(text, values, figure, "Candidates", found)


def right_sizes(data: Data, where: Where, top: int) -> Shown:
    """Limits and requests beside use."""
    rows, found = choices.right_sizes(data, where)
    without = len(set(found.texts("service").tolist())) - len(rows)
    remarks = (f"left out {without} services of which nobody knows what they use within 1 h",) if without else ()
    title = "Limits and requests beside what an instance uses"

    def text(screen: Screen) -> list[str]:
        cells = [
            [
                name_words(row.name), str(row.instances), _or_none(row.limit), _or_none(row.request),
                size_words(row.resident), size_words(row.hour_p95), size_words(row.hour_most), size_words(row.day),
                size_words(row.suggested), "-" if row.freed is None else size_words(row.freed),
            ]
            for row in rows[:top]
        ]  # fmt: skip
        uses = ["resident", "1 h (95 %)", "1 h (most)", "1 d"]
        headings = ["service", "instances", "limit", "request", *uses, "suggested", "freed"]
        about = "suggested: what 95 of 100 instances used within 1 h at most, and a tenth more; freed: of all instances"
        return titled(title, about, headings, cells, screen) + more_line(len(rows) - top, screen)

    def values() -> dict[str, Any]:
        told = [
            {
                "service": row.name, "instances": row.instances, "limit_bytes": whole(row.limit),
                "request_bytes": whole(row.request), "resident_max_bytes": round(row.resident),
                "used_hour_p95_bytes": round(row.hour_p95), "used_hour_max_bytes": round(row.hour_most),
                "used_day_bytes": whole(row.day), "suggested_request_bytes": round(row.suggested),
                "freed_bytes": whole(row.freed),
            }
            for row in rows
        ]  # fmt: skip
        return {"rows": told}

    def figure() -> Figure:
        bars = [Bar(name_words(row.name), [row.request or 0.0, row.suggested],
                    "no request" if row.freed is None else f"{size_words(row.freed)} freed")
                for row in rows[: min(top, _MOST_DRAWN)]]  # fmt: skip
        legend = Legend("of an instance", ["request", "suggested"], TWO, beside=True)
        return drawn([Bars(title, "", bars)], legend)

    return Shown(text, values, figure, "Right sizes", found, remarks)


def _or_none(size: float | None) -> str:
    return "none" if size is None else size_words(size)


def cost(data: Data, where: Where) -> Shown:
    """What monitoring costs."""
    rows, found = choices.cost(data, where)
    title = "What monitoring costs"

    def text(screen: Screen) -> list[str]:
        cells = [
            [name_words(row.name), str(row.hosts), f"{row.cpus:.3g}", percent(row.cpu_share),
             percent(row.cpu_share_p95), size_words(row.memory), percent(row.memory_share)]
            for row in rows
        ]  # fmt: skip
        headings = ["class", "hosts", "CPUs", "of a CPU a host", "95 %", "memory", "of resident"]
        return titled(title, "CPUs and memory of all hosts of a class together", headings, cells, screen)

    def values() -> dict[str, Any]:
        told = [
            {
                "host_class": row.name, "hosts": row.hosts, "cpus": row.cpus, "cpu_share_per_host": row.cpu_share,
                "cpu_share_per_host_p95": row.cpu_share_p95, "memory_bytes": round(row.memory),
                "memory_share": row.memory_share,
            }
            for row in rows
        ]  # fmt: skip
        return {"rows": told}

    def figure() -> Figure:
        bars = [Bar(name_words(row.name), [row.cpu_share, row.cpu_share_p95], percent(row.cpu_share)) for row in rows]
        legend = Legend("share of a CPU of a host", ["mean", "95 % of hosts: at most"], TWO, shares=True, beside=True)
        return drawn([Bars(title, "", bars)], legend)

    return Shown(text, values, figure, title, found)
