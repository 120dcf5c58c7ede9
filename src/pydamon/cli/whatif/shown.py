"""The answers of ``pydamon what-if`` as text and JSON, and what has to be said beside them."""

from __future__ import annotations

import math
from typing import Any

from pydamon.analysis.whatif.answers import FEW_HITS, Answers, Row
from pydamon.analysis.whatif.limits import (
    Lowest,
    cpu_share,
    fast_share,
    for_share,
    for_slowdown,
    memory_for,
    miss_curve,
    slowdown,
)
from pydamon.cli.render.axes import percent
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen
from pydamon.cli.render.table import table
from pydamon.cli.whatif.showing import acted_line, age_words, size_words
from pydamon.plain import printable
from pydamon.records.reader import RecordReader
from pydamon.spec.costs import BACKINGS, Costs
from pydamon.spec.units import format_size

Limits = tuple[float, float, int, int | None]  # goal, slowdown, refaults (bytes a second), fast tier

_ROWS = 16  # of the table as text
_OPEN_LOOP = 0.05  # of the time may be lost before what is lost changes what is accessed
_SHORT_S = 120  # the window of the working set
_SWAP = {"zram": "zram", "ssd": "SSD"}


def text(reader: RecordReader, found: Answers, limits: Limits, costs: Costs, screen: Screen) -> str:
    """The table and the lines below it."""
    ages = found.ages
    title = f"what if idle memory of {printable(reader.path)} were taken"
    lines = [styled(screen.fit(title), BOLD, screen)]
    for line in (_details(found), f"of {size_words(ages.resident)} on average, {_working_set(found)}"):
        lines.append(styled(screen.fit(line), DIM, screen))
    headings = ["idle for", "saved", "back a minute", "at least - most", "of w. set", "lost zram", "SSD", "CPU zram"]
    lines += table(headings, [_cells(found, row, costs) for row in _some(found.rows)], screen)
    lines += [screen.fit(line) for line in conclusions(found, limits, costs)]
    return "\n".join(lines) + "\n"


def _details(found: Answers) -> str:
    ages = found.ages
    parts = [age_words(ages.span_s), f"{ages.snapshots:,} snapshots, {ages.regions:,} regions"]
    parts.append(f"page panel of {found.panel_pages:,} pages" if found.panel_pages else "no page panel")
    if ages.resolution:
        parts.append(f"idle regions of {format_size(ages.resolution)} (median)")
    return ", ".join(parts)


def _working_set(found: Answers) -> str:
    return f"working set {size_words(found.working_set)} (used within {age_words(found.window_s)})"


def _some(rows: tuple[Row, ...]) -> list[Row]:
    """As many as fit, evenly, the first and the last included."""
    step = max(math.ceil((len(rows) - 1) / (_ROWS - 1)), 1)
    return [*rows[:-1:step], *rows[-1:]]


def _cells(found: Answers, row: Row, costs: Costs) -> list[str]:
    most = "?" if row.high is None else size_words(row.high)
    waits = [percent(min(slowdown(row, costs, backing), 9.99)) for backing in BACKINGS]
    work = percent(cpu_share(row, costs, "zram"))
    back = f">= {size_words(row.refaults)}" if row.high is None else size_words(row.refaults)
    share = percent(found.share(row.refaults))
    return [age_words(row.age_s), size_words(row.saved), back, f"{size_words(row.low)} - {most}", share, *waits, work]


def conclusions(found: Answers, limits: Limits, costs: Costs) -> list[str]:
    """The lowest ages that keep within the limits, what memory is needed, and what was never used."""
    goal, most, refaults, fast = limits
    lines = [f"{percent(goal)} of the working set a minute: {_lowest(for_share(found, goal), goal)}"]
    for backing in BACKINGS:
        lowest = for_slowdown(found, most, costs, backing)
        lines.append(f"{percent(most)} of the time lost, swap on {_SWAP[backing]}: {_lowest(lowest, most)}")
    need = memory_for(found, refaults)
    told = "cannot be told" if need is None else f"{size_words(need)} are needed (longest idle first)"
    lines.append(f"for at most {size_words(refaults)}/s of refaults {told}")
    lines.append(f"not used at all: {_untouched(found)}")
    if fast is not None:
        share = percent(fast_share(found, fast))
        lines.append(f"a fast tier of {size_words(fast)} could hold at best what {share} of the accesses found are to")
    return lines


def _lowest(lowest: Lowest, limit: float) -> str:
    row = lowest.row
    if row is None:
        return "no idle time that was seen is long enough"
    words = f"take what is idle for {age_words(row.age_s)}"
    if lowest.few:
        words += f" (by {row.hits} returns only: record longer, or take a larger panel)"
    elif row.hits is not None:
        most = "more than was seen" if lowest.most_s is None else age_words(lowest.most_s)
        least = age_words(lowest.least_s) if lowest.least_s is not None else "?"
        words += f" (surely between {least} and {most}: {row.hits:,} returns)" if least != most else ""
    return f"{words}: saves {size_words(row.saved)}, {size_words(row.refaults)} a minute come back"


def _untouched(found: Answers) -> str:
    regions = size_words(found.ages.untouched)
    if found.untouched_panel is None:
        return f"{regions}, by regions"
    size, low, high = (size_words(one) for one in found.untouched_panel)
    return f"{size} by the panel ({low} to {high}), {regions} by regions"


def remarks(found: Answers, limits: Limits, costs: Costs, acted: list[str], why_no_panel: str) -> list[str]:
    """What makes the answers less sure, a line each."""
    lines = []
    if not found.panel_pages:
        lines.append(
            f"there is no page panel ({why_no_panel}): refaults are what regions say, which miss most of the single "
            "pages that come back, and have no upper end and no error"
        )
    if acted:
        lines.append(acted_line(acted))
    told = found.rows[-1].age_s if found.rows else 0.0
    if told < _SHORT_S:
        lines.append(
            f"longer idle times than {age_words(told)} cannot be told: it lasts {age_words(found.ages.span_s)}"
        )
    goal, most = limits[:2]
    row = for_share(found, goal).row or for_slowdown(found, most, costs, "zram").row
    if row is not None and row.slope_differs and row.hits is not None and row.hits >= FEW_HITS:
        lines.append(
            f"the slope of the working set makes {size_words(row.slope)} a minute of {age_words(row.age_s)}, not "
            f"{size_words(row.refaults)}: the two estimates differ, so trust neither closely"
        )
    fewest = found.rows[0] if found.rows else None
    if fewest is not None and slowdown(fewest, costs, "zram") > _OPEN_LOOP:
        lines.append(
            f"where more than {percent(_OPEN_LOOP)} of the time is lost the program would slow down and access less: "
            "such rows are too high"
        )
    return lines


def as_object(reader: RecordReader, found: Answers, limits: Limits, costs: Costs, said: list[str]) -> dict[str, Any]:
    """All of it as one JSON object; sizes in bytes, times in s, refaults in bytes per minute, shares as fractions."""
    goal, most, refaults, fast = limits
    ages = found.ages
    sizes, back = miss_curve(found)
    told: dict[str, Any] = {
        "record": reader.path,
        "span_s": ages.span_s,
        "snapshots": ages.snapshots,
        "resident_bytes": round(ages.resident),
        "unknown_bytes": round(ages.unknown),
        "working_set_bytes": round(found.working_set),
        "window_s": found.window_s,
        "panel_pages": found.panel_pages,
        "idle_region_bytes": ages.resolution,
        "thresholds": [_row_object(found, row, costs) for row in found.rows],
        "goal": _lowest_object(for_share(found, goal), goal),
        "slowdown": {backing: _lowest_object(for_slowdown(found, most, costs, backing), most) for backing in BACKINGS},
        "refaults": {"limit_bytes_per_s": refaults, "memory_bytes": memory_for(found, refaults)},
        "miss_curve": [
            {"memory_bytes": round(size), "bytes_per_s": rate}
            for size, rate in zip(sizes.tolist(), back.tolist(), strict=True)
        ],
        "untouched": {"regions_bytes": ages.untouched, "panel_bytes": _panel_untouched(found)},
        "remarks": said,
    }
    if fast is not None:
        told["fast"] = {"bytes": fast, "share": fast_share(found, fast)}
    return told


def _panel_untouched(found: Answers) -> dict[str, int] | None:
    if found.untouched_panel is None:
        return None
    return dict(zip(("bytes", "low_bytes", "high_bytes"), found.untouched_panel, strict=True))


def _row_object(found: Answers, row: Row, costs: Costs) -> dict[str, Any]:
    return {
        "idle_s": row.age_s,
        "seen_s": row.seen_s,
        "saved_bytes": round(row.saved),
        "idle_region_bytes": round(row.cold),
        "refaults": {
            "low": round(row.low),
            "estimate": round(row.refaults),
            "high": None if row.high is None else round(row.high),
            "hits": row.hits,
            "regions": round(row.regions),
            "slope": round(row.slope),
        },
        "working_set_share": found.share(row.refaults),
        "lost": {backing: slowdown(row, costs, backing) for backing in BACKINGS},
        "cpu": {backing: cpu_share(row, costs, backing) for backing in BACKINGS},
    }


def _lowest_object(lowest: Lowest, limit: float) -> dict[str, Any]:
    row = lowest.row
    told: dict[str, Any] = {"limit": limit, "idle_s": None if row is None else row.age_s}
    if row is not None:
        told |= {"least_s": lowest.least_s, "most_s": lowest.most_s, "hits": row.hits, "saved_bytes": round(row.saved)}
        told["too_few_hits"] = lowest.few
    return told
