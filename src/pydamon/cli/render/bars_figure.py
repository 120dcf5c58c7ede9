"""Pictures of amounts as horizontal bars, with matplotlib."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pydamon.cli.render import figure as parts
from pydamon.cli.render.axes import percent, scale_of, size_step
from pydamon.cli.render.bars import Bar, Bars, Legend
from pydamon.plain import fit
from pydamon.spec.units import format_size

_LEFT, _RIGHT, _MARGIN = 3.2, 2.3, 0.35  # inches for the labels, for the words behind the bars, and of the page
_ROW = 0.29
_LABEL_COLUMNS, _WORDS_COLUMNS, _NOTE_COLUMNS = 40, 32, 165


def bars_figure(panels: Sequence[Bars], legend: Legend, rest: str = "") -> Figure:
    """The panels, one below the other, each on its own scale; then ``rest``."""
    row = _ROW * (1.5 if legend.beside else 1)
    notes = [[line for note in one.notes for line in textwrap.wrap(note, _NOTE_COLUMNS)] for one in panels]
    bodies = [row * max(len(one.bars), 1) for one in panels]
    foots = [parts.FOOT + 0.2 * max(len(lines) - 1, 0) for lines in notes]
    height = sum(bodies) + sum(foots) + parts.HEAD * len(panels) + parts.rest_height(rest)
    figure = parts.blank_figure(height)
    parts.add_rest(figure, rest, height)
    top = height
    for panel, lines, body, foot in zip(panels, notes, bodies, foots, strict=True):
        top -= parts.HEAD
        parts.add_title(figure, fit(panel.title, 90), panel.details, top, height, left=_MARGIN)
        place = (
            _LEFT / parts.WIDTH,
            (top - body) / height,
            (parts.WIDTH - _LEFT - _RIGHT) / parts.WIDTH,
            body / height,
        )
        axes = figure.add_axes(place)
        _draw(axes, panel.bars, legend)
        reach = max if legend.beside else sum
        highest = max((reach(bar.amounts) for bar in panel.bars if bar.amounts), default=0.0)
        _amount_axis(axes, highest, legend)
        for number, line in enumerate(lines):
            at = (top - body - 0.72 - 0.2 * number) / height
            figure.text(_MARGIN / parts.WIDTH, at, line, fontsize=9, color=parts.FAINT, va="baseline")
        if len(legend.names) > 1:
            _names(figure, legend, top, height)
        top -= body + foot
    return figure


def _draw(axes: Axes, bars: Sequence[Bar], legend: Legend) -> None:
    """The first bar on top."""
    for place, bar in enumerate(bars):
        reached = 0.0
        for number, (amount, colour) in enumerate(zip(bar.amounts, legend.colours, strict=False)):
            if legend.beside:
                axes.barh(place - 0.2 + 0.4 * number, amount, 0.36, color=colour)
            else:
                axes.barh(place, amount, 0.72, left=reached, color=colour)
                reached += amount
        axes.annotate(
            fit(bar.words, _WORDS_COLUMNS), (1, place), (8, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=8.5, color=parts.INK if bar.amounts else parts.FAINT,
        )  # fmt: skip
    axes.set_ylim(max(len(bars), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(bars)), [fit(bar.label, _LABEL_COLUMNS) for bar in bars])


def _amount_axis(axes: Axes, highest: float, legend: Legend) -> None:
    if legend.shares:
        scale = scale_of(highest, None)
        top, ticks = scale.top, scale.ticks()
        labels = [percent(tick) for tick in ticks]
    else:
        step = size_step(max(int(highest), 1), 5)
        top = max(-(-int(highest) // step), 1) * step
        ticks = [float(tick) for tick in range(0, int(top) + 1, step)]
        labels = ["0", *(format_size(int(tick)) for tick in ticks[1:])]
    axes.set_xlim(0, top)
    axes.set_xticks(ticks, labels)
    axes.grid(axis="x", color=parts.GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(legend.axis, fontsize=9, color=parts.INK, labelpad=3)
    for name, side in axes.spines.items():
        side.set_visible(name in ("left", "bottom"))
        side.set_color(parts.FAINT)
    axes.tick_params(labelsize=8.5, length=3, width=0.6, color=parts.FAINT, labelcolor=parts.INK)


def _names(figure: Figure, legend: Legend, top: float, height: float) -> None:
    """What the colours stand for, above the words at the right."""
    patches = [Patch(color=colour, label=name) for name, colour in zip(legend.names, legend.colours, strict=True)]
    figure.legend(
        handles=patches, loc="lower right", bbox_to_anchor=(1 - _MARGIN / parts.WIDTH, (top + 0.08) / height),
        ncols=len(patches), fontsize=8.5, frameon=False, handlelength=1, handleheight=1, columnspacing=1.2,
        borderpad=0, borderaxespad=0, labelcolor=parts.INK,
    )  # fmt: skip
