"""The picture of policies on a recording: what is in memory, and what has come back so far, over time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from pydamon.cli.render import figure as parts
from pydamon.library.policies import Outcome
from pydamon.plain import fit, printable

_BODY, _RIGHT = 3.0, 0.5
_COLOURS = ("#3b6fb6", "#c8452f", "#5a8f3c", "#8a5fb0", "#b07a2f", "#2f9aa0", "#6b7280", "#22262b")


def policies_figure(outcomes: Sequence[Outcome], name: str) -> Figure:
    """Two panels, one below the other, a line for each policy."""
    last_s = max((float(one.seconds[-1]) for one in outcomes if len(one.seconds)), default=1.0)
    total = max((one.total for one in outcomes), default=0)
    panels = [
        parts.Panel("In memory under each policy", name, "at the end of each aggregation"),
        parts.Panel("Has come back so far", "", "bytes that were out and were accessed"),
    ]
    figure, (resident, faults) = parts.stacked(panels, _BODY, _RIGHT)
    for axes in (resident, faults):
        for number, one in enumerate(outcomes):
            sizes = one.resident if axes is resident else one.faults
            colour = _COLOURS[number % len(_COLOURS)]
            axes.plot(one.seconds, sizes, color=colour, linewidth=1.3, label=fit(printable(one.name), 40))
        parts.time_from_0(axes, last_s)
        parts.legend_above(axes, 3, 8)
    parts.size_axis(resident, float(total))
    parts.size_axis(faults, max((float(one.faults.max(initial=0)) for one in outcomes), default=0.0))
    return figure
