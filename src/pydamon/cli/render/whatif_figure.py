"""The picture of ``pydamon what-if``: what is saved and comes back by the idle time, and what memory, or a fast tier,
of a size would do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pydamon.analysis.whatif.answers import Answers
from pydamon.analysis.whatif.limits import fast_curve, miss_curve
from pydamon.cli.render import figure as parts
from pydamon.cli.render.axes import size_step
from pydamon.spec.units import format_duration_ns, format_size

_BODY, _RIGHT = 2.7, 0.5
_TICKS_S = (0.001, 0.01, 0.1, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10_800, 43_200, 86_400, 604_800)
_LOW = 4096.0  # what is less has no place on an axis of powers


def whatif_figure(found: Answers, name: str, remarks: Sequence[str]) -> Figure:
    """Four panels, one below the other; the first remark stands below the refaults."""
    about = f"{name}: {format_duration_ns(round(found.ages.span_s * 1e9))}, {found.ages.snapshots:,} snapshots"
    bracket = "line: estimate; band: at least to at most" if found.panel_pages else "at least so much; no page panel"
    panels = [
        parts.Panel("Saved by taking what is idle for at least …", about, "the mean of what is idle for that long"),
        parts.Panel("Comes back a minute", "", "; ".join([bracket, *remarks[:1]])),
        parts.Panel("Refaults with so much memory", "", "the longest idle goes first when memory is full"),
        parts.Panel("Accesses that a fast tier could hold at best", "", "share of the accesses found, by size"),
    ]
    figure, (saved, back, misses, fast) = parts.stacked(panels, _BODY, _RIGHT)
    ages = np.array([row.age_s for row in found.rows])
    cold = np.array([row.saved for row in found.rows])
    saved.plot(ages, cold, color=parts.LINE, linewidth=1.6)
    saved.fill_between(ages, cold, color=parts.LINE, alpha=0.18, linewidth=0)
    parts.size_axis(saved, float(cold.max(initial=0)))
    _refaults(back, found, ages)
    for axes in (saved, back):
        _age_axis(axes, ages)
    _misses(misses, found)
    _fast(fast, found)
    return figure


def _refaults(axes: Axes, found: Answers, ages: NDArray[np.float64]) -> None:
    middle = np.array([row.refaults for row in found.rows])
    low = np.array([row.low for row in found.rows])
    high = np.array([np.nan if row.high is None else row.high for row in found.rows])
    axes.fill_between(
        ages, np.maximum(low, _LOW), np.maximum(high, _LOW), color=parts.LINE, alpha=0.28, linewidth=0, gid="bracket"
    )
    axes.plot(ages, np.where(middle >= _LOW, middle, np.nan), color=parts.LINE, linewidth=1.6)
    _power_axis(axes, float(np.nanmax(np.concatenate([middle, high]), initial=_LOW)), "/min")


def _misses(axes: Axes, found: Answers) -> None:
    sizes, back = miss_curve(found)
    axes.plot(sizes, np.where(back >= _LOW, back, np.nan), color=parts.LINE, linewidth=1.6)
    _memory_axis(axes, found.ages.resident)
    _power_axis(axes, float(back.max(initial=_LOW)), "/s")


def _fast(axes: Axes, found: Answers) -> None:
    sizes, shares = fast_curve(found)
    axes.plot(sizes, shares * 100, color=parts.LINE, linewidth=1.6)
    _memory_axis(axes, float(sizes.max(initial=_LOW)))
    axes.set_ylim(0, 105)
    axes.set_yticks([0, 25, 50, 75, 100], ["0", "25 %", "50 %", "75 %", "100 %"])
    parts.quiet(axes)


def _age_axis(axes: Axes, ages: NDArray[np.float64]) -> None:
    axes.set_xscale("log")
    low, high = (float(ages[0]), float(ages[-1])) if len(ages) > 1 else (1.0, 10.0)
    axes.set_xlim(low, high)
    ticks = [one for one in _TICKS_S if low <= one <= high]
    axes.set_xticks([], minor=True)
    parts.ticks_below(axes, ticks, [format_duration_ns(round(one * 1e9)) for one in ticks])


def _memory_axis(axes: Axes, most: float) -> None:
    step = size_step(max(round(most), 1), 8)
    top = max(-(-round(most) // step), 1) * step
    axes.set_xlim(0, float(top))
    ticks = range(0, top + 1, step)
    parts.ticks_below(axes, [float(at) for at in ticks], [format_size(at) for at in ticks])


def _power_axis(axes: Axes, most: float, per: str) -> None:
    axes.set_yscale("log")
    axes.set_ylim(_LOW, max(most, _LOW) * 2)
    ticks = [one for one in (4096.0 * 16**power for power in range(12)) if one <= max(most, _LOW) * 2]
    axes.set_yticks(ticks, [format_size(round(one)) + per for one in ticks])
    axes.set_yticks([], minor=True)
    parts.quiet(axes)
