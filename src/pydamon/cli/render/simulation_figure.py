"""A picture of runs on a simulated machine: what they use of memory over time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from pydamon.cli.render import figure as parts
from pydamon.run.simulation.results import Result

_BODY, _RIGHT = 3.6, 0.5
_COLOURS = ("#6b7280", "#3b6fb6", "#c2563b", "#4b9b6e", "#8a5fb0", "#b58b2a", "#3a9aa8", "#a84a7a")


def simulation_figure(results: Sequence[Result], title: str, details: str) -> Figure:
    """A line for each run."""
    caption = "memory in use, with what is compressed in it"
    figure, (axes,) = parts.stacked([parts.Panel(title, details, caption)], _BODY, _RIGHT)
    highest = last_s = 0.0
    for number, result in enumerate(results):
        times = [point[0] for point in result.timeline]
        used = [float(point[2]) for point in result.timeline]
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(
            times, used, color=colour, linewidth=1.4, label=result.label[:60], marker="o" if len(times) == 1 else ""
        )
        highest, last_s = max(highest, *used), max(last_s, times[-1])
    parts.size_axis(axes, highest)
    parts.time_from_0(axes, max(last_s, 1.0))
    axes.set_xlabel("simulated time", fontsize=9.5, color=parts.INK, labelpad=5)
    parts.legend_above(axes, 2)
    return figure
