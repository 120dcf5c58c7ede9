"""Pictures of several sizes over time: a panel for each target, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from pydamon.cli.render import figure as parts
from pydamon.cli.render.series import Series
from pydamon.plain import fit

_BODY, _RIGHT = 3.4, 0.5


def series_figure(panels: Sequence[Series], origin_ns: int, per: str = "", rest: str = "") -> Figure:
    """The panels, one below the other, times labelled from ``origin_ns``; sizes are ``per`` something (``/s``)."""
    around = [parts.Panel(fit(panel.title, 80), panel.details, f"{parts.BAND}; {panel.note}") for panel in panels]
    figure, all_axes = parts.stacked(around, _BODY, _RIGHT, rest)
    for axes, panel in zip(all_axes, panels, strict=True):
        over = panel.sizes.over_time(parts.COLUMNS)
        parts.band_over_time(axes, over, label=panel.name)
        first_ns = int(over.edges[0])
        highest = float(np.nanmax(over.most, initial=0))
        for line in panel.lines:
            times = [(time_ns - first_ns) / 1e9 for time_ns in line.time_ns]
            marker = "o" if len(times) == 1 else ""
            axes.plot(times, line.bytes, color=line.colour, linewidth=1.3, marker=marker, label=line.name)
            highest = max(highest, *line.bytes)
        axes.set_xlim(0, float(over.edges[-1] - first_ns) / 1e9)
        parts.size_axis(axes, highest, per)
        parts.time_axis(axes, over.edges, origin_ns)
        parts.legend_above(axes, 4)
    return figure
