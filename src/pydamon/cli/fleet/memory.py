"""Cold memory, savings and working sets, shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydamon.cli.fleet.asked import Shown
from pydamon.cli.fleet.words import age_words, drawn, more_line, name_words, size_words, titled, whole
from pydamon.cli.render.axes import percent
from pydamon.cli.render.bars import HOT_TO_COLD, PLAIN, Bar, Bars, Legend
from pydamon.cli.render.screen import Screen
from pydamon.fleet.asking import Data
from pydamon.fleet.questions import memory
from pydamon.fleet.where import Where

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_S = (60, 300, 600, 1800, 3600, 14400, 86400)
_STEPS_S = (60, 600, 3600)
_MOST_DRAWN = 40


def cold(data: Data, where: Where, by: str, top: int) -> Shown:
    """Idle memory of each group by age."""
    rows, found = memory.cold(data, where, by)
    total = sum(row.resident for row in rows)

    def text(screen: Screen) -> list[str]:
        cells = [[name_words(row.name), size_words(row.resident), *(size_words(row.cold[age]) for age in SHOWN_S)]
                 for row in rows[:top]]  # fmt: skip
        cells.append(["all", size_words(total), *(size_words(_sum(rows, age)) for age in SHOWN_S)])
        headings = [by, "resident", *(f">= {age_words(age)}" for age in SHOWN_S)]
        about = f"means over {age_words(found.span_s())}; ?: not known yet"
        return titled(f"Cold memory by {by} and idle time", about, headings, cells, screen) + more_line(
            len(rows) - top, screen
        )

    def values() -> dict[str, Any]:
        told = [
            {
                by: row.name,
                "resident_bytes": round(row.resident),
                "cold_bytes": {str(age): whole(size) for age, size in row.cold.items()},
                "known": {str(age): share for age, share in row.known.items()},
            }
            for row in rows
        ]
        return {"by": by, "span_s": round(found.span_s()), "rows": told}

    def figure() -> Figure:
        names = ["used within 1 min", "10 min", "1 h", "idle longer"]
        bars = [Bar(name_words(row.name), _steps(row), f"{size_words(row.cold[600])} idle 10 min")
                for row in rows[: min(top, _MOST_DRAWN)]]  # fmt: skip
        panel = Bars(f"Cold memory by {by}", f"means over {age_words(found.span_s())}", bars)
        return drawn([panel], Legend("resident memory", names, HOT_TO_COLD))

    return Shown(text, values, figure, "Cold memory", found, _unknown(rows))


def _sum(rows: list[memory.Cold], age: int) -> float | None:
    sizes = [row.cold[age] for row in rows]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _steps(row: memory.Cold) -> list[float]:
    """Resident memory in parts: used within a minute, ten, an hour, and not."""
    sizes = [row.resident, *(row.cold[age] or 0.0 for age in _STEPS_S)]
    return [max(before - after, 0.0) for before, after in zip(sizes, [*sizes[1:], 0.0], strict=True)]


def _unknown(rows: list[memory.Cold]) -> tuple[str, ...]:
    """What to say where ages are known for a part of the time only."""
    least = {age: min((row.known[age] for row in rows), default=1.0) for age in SHOWN_S}
    parts = [f"{age_words(age)} ({percent(share)} of the time)" for age, share in least.items() if share < 0.999]
    return (f"idle times that were not always known, of some at least: {', '.join(parts)}",) if parts else ()


def savings(data: Data, where: Where, by: str, top: int, goal: float) -> Shown:
    """What reclaim would save at a goal."""
    rows, found = memory.savings(data, where, by, goal)
    title = f"What reclaim would save at {percent(goal)} of the working set a minute"

    def text(screen: Screen) -> list[str]:
        cells = [
            [
                name_words(row.name), size_words(row.resident), size_words(row.working_set),
                _idle_for(row), size_words(row.saved),
                percent(row.saved / row.resident) if row.resident and row.is_known else "-",
                f"{size_words(row.back)}/min",
            ]
            for row in rows[:top]
        ]  # fmt: skip
        known = [row for row in rows if row.is_known]
        resident = sum(row.resident for row in rows)
        saved = sum(row.saved for row in known)
        cells.append(["all", size_words(resident), size_words(sum(row.working_set for row in known)), "",
                      size_words(saved), percent(saved / resident) if resident else "-",
                      f"{size_words(sum(row.back for row in known))}/min"])  # fmt: skip
        headings = [by, "resident", "working set", "idle for", "saved", "of it", "comes back"]
        about = "working set: used within 2 min; -: too much comes back at any idle time; ?: not known yet"
        return titled(title, about, headings, cells, screen) + more_line(len(rows) - top, screen)

    def values() -> dict[str, Any]:
        told = [
            {
                by: row.name, "resident_bytes": round(row.resident), "working_set_bytes": whole(row.working_set),
                "idle_at_least_s": row.age_s, "saved_bytes": whole(row.saved),
                "returned_bytes_per_minute": whole(row.back),
            }
            for row in rows
        ]  # fmt: skip
        return {"by": by, "goal_share_per_minute": goal, "rows": told}

    def figure() -> Figure:
        bars = [
            Bar(name_words(row.name), [row.saved, row.resident - row.saved] if row.is_known else [0.0, row.resident],
                _idle_for(row) if row.age_s is None else f"{size_words(row.saved)}, idle {age_words(row.age_s)}")
            for row in rows[: min(top, _MOST_DRAWN)]
        ]  # fmt: skip
        legend = Legend("resident memory", ["saved", "stays"], (HOT_TO_COLD[2], HOT_TO_COLD[3]))
        return drawn([Bars(title, "", bars)], legend)

    return Shown(text, values, figure, "Savings", found)


def _idle_for(row: memory.Savings) -> str:
    if not row.is_known:
        return "?"
    return "-" if row.age_s is None else age_words(row.age_s)


def working_sets(data: Data, where: Where, window_s: int) -> Shown:
    """The distribution of working sets in classes of hosts."""
    rows, found = memory.working_sets(data, where, window_s)
    without = len(found) - sum(row.hosts for row in rows)
    remarks = (f"left out {without} hosts of which nobody knows it yet",) if without else ()
    title = f"Working sets of hosts: used within {age_words(window_s)}"
    parts = [f"{one} %" for one in memory.PERCENTILES]

    def text(screen: Screen) -> list[str]:
        cells = [[name_words(row.name), str(row.hosts), size_words(row.resident), *map(size_words, row.used)]
                 for row in rows]  # fmt: skip
        about = "percentiles over hosts of what each used on average"
        return titled(title, about, ["class", "hosts", "resident", *parts], cells, screen)

    def values() -> dict[str, Any]:
        told = [
            {
                "host_class": row.name, "hosts": row.hosts, "resident_bytes": round(row.resident),
                "used_bytes": {str(one): round(size) for one, size in zip(memory.PERCENTILES, row.used, strict=True)},
            }
            for row in rows
        ]  # fmt: skip
        return {"window_s": window_s, "rows": told}

    def figure() -> Figure:
        panels = [
            Bars(f"{name_words(row.name)}: {row.hosts} hosts", title,
                 [Bar(f"{part} of hosts use no more than", [size], size_words(size))
                  for part, size in zip(parts, row.used, strict=True)])
            for row in rows[:_MOST_DRAWN]
        ]  # fmt: skip
        return drawn(panels, Legend("a host's working set", ["used"], PLAIN))

    return Shown(text, values, figure, "Working sets", found, remarks)
