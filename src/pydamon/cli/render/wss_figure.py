"""Pictures of the working set: over time, or as a distribution over the snapshots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pydamon.analysis.wss import WorkingSet
from pydamon.cli.render import figure as parts
from pydamon.spec.units import format_size

_BODY, _RIGHT = 3.6, 1.25


def wss_figure(
    found: Sequence[WorkingSet],
    titles: Sequence[str],
    details: str,
    definition: str,
    percentiles: dict[str, float],
    origin_ns: int | None,
    rest: str = "",
) -> Figure:
    """The working set of each target, one panel below the other; then ``rest``.

    Over time, which is labelled from ``origin_ns``, or, if that is None, as a distribution.
    """
    caption = definition if origin_ns is None else f"{parts.BAND}; {definition}"
    panels = [
        parts.Panel(f"Working set of {title}", details if index == 0 else "", caption)
        for index, title in enumerate(titles[: len(found)])
    ]
    figure, all_axes = parts.stacked(panels, _BODY, _RIGHT, rest)
    for axes, sizes in zip(all_axes, found, strict=True):
        highest = _distribution(axes, sizes, percentiles) if origin_ns is None else _over_time(axes, sizes, origin_ns)
        parts.size_axis(axes, highest)
        parts.level(axes, "mean", sizes.mean_bytes)
    return figure


def _over_time(panel: Axes, sizes: WorkingSet, origin_ns: int) -> float:
    over = sizes.over_time(parts.COLUMNS)
    parts.band_over_time(panel, over)
    panel.set_xlim(0, float(over.edges[-1] - over.edges[0]) / 1e9)
    parts.time_axis(panel, over.edges, origin_ns)
    return float(np.nanmax(over.most, initial=0))


def _distribution(panel: Axes, sizes: WorkingSet, percentiles: dict[str, float]) -> float:
    ordered = np.sort(sizes.bytes).astype(np.float64)
    edges = np.linspace(0, 100, len(ordered) + 1)
    panel.stairs(ordered, edges, fill=True, color=parts.LINE, alpha=0.22, linewidth=0)
    panel.stairs(ordered, edges, color=parts.LINE, linewidth=1.6, baseline=None)
    values = sizes.percentiles(list(percentiles.values()))
    for place, size in zip(percentiles.values(), values, strict=True):
        panel.plot([place], [float(size)], "o", color=parts.LINE, markersize=5.5, clip_on=False, zorder=3)
        panel.annotate(
            format_size(size),
            (place, float(size)),
            (0, 8),
            textcoords="offset points",
            ha="left" if place < 3 else "right" if place > 97 else "center",
            fontsize=8.5,
            color=parts.INK,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
    panel.set_xlim(0, 100)
    panel.set_xlabel("percentile of the snapshots", fontsize=9.5, color=parts.INK, labelpad=5)
    return float(ordered[-1])
