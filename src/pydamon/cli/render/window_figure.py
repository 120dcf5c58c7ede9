"""The picture of used memory over the length of the window, with its 95 % band."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pydamon.analysis.panel import Estimate
from pydamon.cli.render import figure as parts
from pydamon.spec.units import format_duration_ns

_TICKS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400)
_BODY, _RIGHT = 3.6, 1.25


@dataclass(frozen=True, slots=True)
class WindowCurve:
    """What is drawn of one target: its name, what was used within each window (in s), and what is resident."""

    title: str
    used: Sequence[tuple[int, Estimate]]
    resident_bytes: int


def window_figure(curves: Sequence[WindowCurve], details: str, caption: str, rest: str = "") -> Figure:
    """One panel for each curve, one below the other; ``rest`` at the end."""
    panels = [parts.Panel(curve.title, details if index == 0 else "", caption) for index, curve in enumerate(curves)]
    figure, all_axes = parts.stacked(panels, _BODY, _RIGHT, rest)
    for axes, curve in zip(all_axes, curves, strict=True):
        _draw(axes, curve)
    return figure


def _draw(axes: Axes, curve: WindowCurve) -> None:
    windows = np.array([window_s for window_s, _ in curve.used], np.float64)
    used, low, high = (
        np.array([getattr(one, name) for _, one in curve.used], np.float64)
        for name in ("bytes", "low_bytes", "high_bytes")
    )
    parts.size_axis(axes, float(max(curve.resident_bytes, high.max())))
    axes.fill_between(windows, low, high, color=parts.LINE, alpha=0.22, linewidth=0)
    axes.plot(windows, used, "o-", color=parts.LINE, linewidth=1.6, markersize=4)
    parts.level(axes, "resident", curve.resident_bytes)
    axes.set_xscale("log")
    axes.set_xlim(windows[0] / 1.1, max(windows[-1], windows[0] * 2) * 1.1)
    ticks = [tick for tick in _TICKS_S if windows[0] <= tick <= windows[-1]] or [int(windows[0])]
    axes.set_xticks([float(tick) for tick in ticks], [format_duration_ns(tick * 10**9) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("length of the window", fontsize=9.5, color=parts.INK, labelpad=5)
