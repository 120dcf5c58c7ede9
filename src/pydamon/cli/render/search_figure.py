"""The picture of a search: what is saved at what cost, foretold and played again, and where the limit is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pydamon.analysis.search.screen import Burden
from pydamon.cli.render import figure as parts
from pydamon.cli.render.axes import percent
from pydamon.library.search import Found
from pydamon.plain import printable
from pydamon.spec.units import format_duration_ns, format_size

_BODY, _RIGHT = 4.2, 0.5
_PLAYED, _REST, _CHOSEN = "#c8452f", "#5a8f3c", "#22262b"
_DECADES = 4  # of the axis of costs: what is less is drawn at its beginning


def search_figure(found: Found, name: str) -> Figure:
    """One panel: each setting at its cost by the first limit (across) and the bytes that it saves (up)."""
    limit = found.judge.limits[0]
    title = f"Saved at which {'refaults' if 'refault' in limit.kind else 'slowdown'}"
    about = f"{printable(found.space.source)} on {name}; limit: {limit.text}"
    first = format_duration_ns(round(found.tuned_s * 1e9))
    caption = f"line: the frontier as foretold of the first {first}; marks: the recording played again"
    figure, (axes,) = parts.stacked([parts.Panel(title, about, caption)], _BODY, _RIGHT)
    front = [one.foretold.tuned for one in found.front]
    played = [one.tuned for one in found.verified]
    rest = [one.rest for one in found.verified]
    usual = [] if found.usual is None else [found.usual.tuned]
    most = max(*(found.judge.first(one) for one in [*front, *played, *rest, *usual]), limit.value) * 1.5
    least = most / 10**_DECADES

    def draw(burdens: Sequence[Burden], label: str, **style: Any) -> None:
        across = [max(found.judge.first(one), least) for one in burdens]
        axes.plot(across, [one.saved for one in burdens], label=label, **style)

    draw(front, "foretold", color=parts.LINE, linewidth=1.6, drawstyle="steps-post")
    draw(played, "played again", color=_PLAYED, marker="o", linestyle="none", markersize=6)
    draw(rest, "the same on the rest", color=_REST, marker="o", linestyle="none", fillstyle="none", markersize=6)
    if usual:
        draw(usual, "the default", color=parts.FAINT, marker="x", linestyle="none", markersize=8)
    if found.chosen is not None:
        draw(
            [found.chosen.tuned], "chosen", color=_CHOSEN, marker="o", fillstyle="none", linestyle="none", markersize=12
        )
    axes.axvline(limit.value, color=parts.FAINT, linewidth=1, linestyle=(0, (5, 4)), gid="limit")
    parts.size_axis(axes, max(one.saved for one in [*front, *played, *rest, *usual]))
    _cost_axis(axes, least, most, limit.kind == "refault-bytes")
    parts.legend_above(axes, 5, 8)
    return figure


def _cost_axis(axes: Axes, least: float, most: float, bytes_per_s: bool) -> None:
    axes.set_xscale("log")
    axes.set_xlim(least, most)
    if bytes_per_s:
        ticks = [float(1 << power) for power in range(0, 60, 3) if least <= 1 << power <= most]
        words = [format_size(round(one)) + "/s" for one in ticks]
    else:
        ticks = [10.0**power for power in range(-9, 1) if least <= 10.0**power <= most]
        words = [percent(one) if one >= 1e-4 else f"{one * 100:g} %" for one in ticks]
    axes.set_xticks([], minor=True)
    parts.ticks_below(axes, ticks, words)
