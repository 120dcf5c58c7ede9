"""What all pictures that matplotlib draws have in common: the page, headings, axes of time and of bytes."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pydamon.analysis.wss import OverTime
from pydamon.cli.render.axes import size_step, time_ticks
from pydamon.plain import fit
from pydamon.spec.units import format_size

INK = "#22262b"
FAINT = "#6b7280"
LINE = "#3b6fb6"
GRID = "#e3e6ea"
_DPI = 144
# Widths and heights in inches.
WIDTH, LEFT, HEAD, FOOT = 11.0, 1.42, 0.95, 0.95
_REST = 0.5
_CAPTION_COLUMNS = 125


# Of what is drawn over time: into how many columns it goes, and what a column shows (`band_over_time`).
COLUMNS = 600
BAND = "line: mean; band: least to most"


class Panel(NamedTuple):
    """What stands around the axes of a panel."""

    title: str
    details: str
    caption: str


def blank_figure(height: float) -> Figure:
    """An empty page, so many inches high."""
    # Not through pyplot: that would look for a display.
    return Figure(figsize=(WIDTH, height), dpi=_DPI, facecolor="white")


def add_title(figure: Figure, title: str, details: str, top: float, height: float, left: float = LEFT) -> None:
    """A heading over the axes whose top is so many inches above the bottom of the page."""
    left /= WIDTH
    figure.text(left, (top + 0.52) / height, title, fontsize=14, fontweight="bold", color=INK, va="baseline")
    figure.text(left, (top + 0.22) / height, fit(details, 120), fontsize=9.5, color=FAINT, va="baseline")


def add_caption(figure: Figure, caption: str, bottom: float, height: float) -> None:
    """A line, or two, below the axes whose bottom is so many inches above that of the page."""
    lines = textwrap.wrap(caption, _CAPTION_COLUMNS, max_lines=2, placeholder=" …")
    for number, line in enumerate(lines):
        at = bottom - (0.78 if len(lines) == 1 else 0.7) - 0.18 * number
        figure.text(LEFT / WIDTH, at / height, line, fontsize=9, color=FAINT, va="baseline")


def stacked(panels: Sequence[Panel], body: float, right: float, rest: str = "") -> tuple[Figure, list[Axes]]:
    """A page of panels, one below the other, and the axes of each: ``body`` inches high, ``right`` from the edge.

    ``rest`` stands at the bottom, on what is not shown.
    """
    group = body + HEAD + FOOT
    height = group * len(panels) + rest_height(rest)
    figure = blank_figure(height)
    add_rest(figure, rest, height)
    found = []
    for index, panel in enumerate(panels):
        top = height - index * group - HEAD
        add_title(figure, panel.title, panel.details, top, height)
        box = (LEFT / WIDTH, (top - body) / height, (WIDTH - LEFT - right) / WIDTH, body / height)
        found.append(figure.add_axes(box))
        add_caption(figure, panel.caption, top - body, height)
    return figure, found


def rest_height(rest: str) -> float:
    """The inches that `add_rest` needs at the bottom of the page."""
    return _REST if rest else 0.0


def add_rest(figure: Figure, rest: str, height: float) -> None:
    """A line at the bottom of the page, on what is not shown."""
    figure.text(LEFT / WIDTH, _REST / 2 / height, rest, fontsize=11, color=INK, va="baseline")


def time_axis(panel: Axes, edges_ns: NDArray[np.int64], origin_ns: int) -> None:
    first = int(edges_ns[0]) - origin_ns
    span = int(edges_ns[-1] - edges_ns[0])
    ticks, unit = time_ticks(span, 10, first)
    ticks_below(panel, [(at - first) / 1e9 for at, _ in ticks], [text for _, text in ticks])
    panel.set_xlabel(f"time since the start of the record ({unit})", fontsize=9.5, color=INK, labelpad=5)


def time_from_0(panel: Axes, last_s: float) -> None:
    """The axis of times that begin at 0 and end at ``last_s``."""
    panel.set_xlim(0, last_s)
    time_axis(panel, np.array([0, round(last_s * 1e9)], np.int64), 0)


def ticks_below(panel: Axes, places: Sequence[float], words: Sequence[str]) -> None:
    """Ticks of the axis at the bottom, and what stands below each."""
    panel.set_xticks(places, words)
    panel.tick_params(
        axis="x", bottom=True, labelbottom=True, labelsize=9, length=4, width=0.6, color=FAINT, labelcolor=INK
    )


def legend_above(panel: Axes, columns: int, size: float = 8.5) -> None:
    """The names of the lines, at the right above the axes; ``size`` is that of the letters."""
    panel.legend(
        loc="lower right", bbox_to_anchor=(1, 1), ncols=columns, fontsize=size, frameon=False, borderaxespad=0.1
    )


def band_over_time(panel: Axes, sizes: OverTime, colour: str = LINE, label: str = "") -> None:
    """The mean as a line, and from the least to the most of each column as a band, over an axis of time."""
    edges = sizes.edges
    times = (edges - edges[0]) / 1e9
    low, high = (np.append(values, values[-1:]) for values in (sizes.least, sizes.most))
    panel.fill_between(times, low, high, step="post", color=colour, alpha=0.28, linewidth=0, gid="least-to-most")
    panel.stairs(sizes.mean, times, color=colour, linewidth=1.3, baseline=None, label=label)


def level(panel: Axes, name: str, size: int) -> None:
    """A dashed line across at ``size`` bytes, which is said with its name at the right."""
    panel.axhline(float(size), color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    panel.annotate(
        f"{name}\n{format_size(size)}",
        (1, float(size)),
        (8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=FAINT,
    )


def size_axis(panel: Axes, highest: float, per: str = "") -> None:
    """An axis of bytes (``per`` something, as ``/s``) from 0 to somewhat above ``highest``."""
    step = size_step(max(int(highest), 1), 6)
    top = max(-(-int(highest * 1.08) // step), 1) * step
    panel.set_ylim(0, float(top))
    ticks = list(range(0, top + 1, step))
    panel.set_yticks([float(tick) for tick in ticks], ["0", *(format_size(tick) + per for tick in ticks[1:])])
    quiet(panel)


def quiet(panel: Axes) -> None:
    """Faint lines across, and sides at the left and at the bottom only."""
    panel.grid(axis="y", color=GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    for name, side in panel.spines.items():
        side.set_visible(name in ("left", "bottom"))
        side.set_color(FAINT)
    panel.tick_params(labelsize=9, length=4, width=0.6, color=FAINT, labelcolor=INK)
