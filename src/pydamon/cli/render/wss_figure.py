"""Pictures of the working set: over time, or as a distribution over the snapshots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pydamon.analysis.wss import WorkingSet
from pydamon.cli.render import figure as parts
from pydamon.spec.units import format_size

_COLUMNS = 600
_BAND = "line: mean; band: least to most"


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
    body, right = 3.6, 1.25
    group = body + parts.HEAD + parts.FOOT
    height = group * len(found) + parts.rest_height(rest)
    figure = parts.blank_figure(height)
    parts.add_rest(figure, rest, height)
    for index, sizes in enumerate(found):
        top = height - index * group - parts.HEAD
        parts.add_title(figure, f"Working set of {titles[index]}", details if index == 0 else "", top, height)
        panel = figure.add_axes(
            (
                parts.LEFT / parts.WIDTH,
                (top - body) / height,
                (parts.WIDTH - parts.LEFT - right) / parts.WIDTH,
                body / height,
            )
        )
        if origin_ns is None:
            highest = _distribution(panel, sizes, percentiles)
        else:
            highest = _over_time(panel, sizes, origin_ns)
        parts.size_axis(panel, highest)
        _mean(panel, sizes)
        parts.add_caption(figure, definition if origin_ns is None else f"{_BAND}; {definition}", top - body, height)
    return figure


def _over_time(panel: Axes, sizes: WorkingSet, origin_ns: int) -> float:
    over = sizes.over_time(_COLUMNS)
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


def _mean(panel: Axes, sizes: WorkingSet) -> None:
    panel.axhline(float(sizes.mean_bytes), color=parts.FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    panel.annotate(
        f"mean\n{format_size(sizes.mean_bytes)}",
        (1, float(sizes.mean_bytes)),
        (8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=parts.FAINT,
    )
