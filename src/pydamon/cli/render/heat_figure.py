"""The heatmap as a picture, with matplotlib: a group of panels per target, a panel per range of addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from pydamon.cli.render import figure as parts
from pydamon.cli.render.axes import Scale, percent, short_size, size_step
from pydamon.cli.render.heat_panel import HeatPanel
from pydamon.plain import fit
from pydamon.spec.units import format_size

# What was not monitored, or is unknown: a grey that no heat has.
_UNMONITORED = "#e9eaee"
_RIGHT = 2.55
_GAP = 0.13
_NAME_COLUMNS = 19  # what fits between a panel and the colour bar
_FEW = 3  # targets: more of them share one heading, one time axis and one colour bar


@dataclass(frozen=True, slots=True)
class _Look:
    """How heat is coloured."""

    colours: LinearSegmentedColormap
    norm: Normalize
    scale: Scale


def heat_figure(panels: Sequence[HeatPanel], scale: Scale, source: str, rest: str = "") -> Figure:
    """Time to the right, addresses upwards. ``source`` is the record's name; ``rest`` is said at the end."""
    # Not starting at black: cold memory is dark, but it is memory.
    colours = LinearSegmentedColormap.from_list("heat", colormaps["inferno"](np.linspace(0.06, 1, 256)))
    look = _Look(colours, Normalize(0, scale.top), scale)
    draw = _each_by_itself if len(panels) <= _FEW else _below_one_heading
    return draw(panels, look, source, rest)


def _each_by_itself(panels: Sequence[HeatPanel], look: _Look, source: str, rest: str) -> Figure:
    body = 4.9 if len(panels) == 1 else 3.4
    group = parts.HEAD + body + parts.FOOT
    height = group * len(panels) + parts.rest_height(rest)
    figure = parts.blank_figure(height)
    parts.add_rest(figure, rest, height)
    for index, panel in enumerate(panels):
        top = height - index * group - parts.HEAD
        parts.add_title(figure, fit(panel.title, 64), f"{source}: {panel.details}", top, height)
        drawn = _segments(figure, panel, look, (top, body, height))
        parts.time_axis(drawn[0], panel.heatmap.time_ns, panel.origin_ns)
        parts.add_caption(figure, panel.note + _unknown([panel]), top - body, height)
        _colour_bar(figure, look, (top, body, height))
    return figure


def _below_one_heading(panels: Sequence[HeatPanel], look: _Look, source: str, rest: str) -> Figure:
    """Of many targets: each as low as it may be, so that all are on one page."""
    head, gap = 0.3, 0.14
    # Where nothing was accessed, there is nothing to see: as low as can be.
    bodies = [max(1.1 if p.heatmap.accessed else 0.0, (0.22 + _GAP) * len(p.names)) for p in panels]
    height = parts.HEAD + sum(bodies) + (head + gap) * len(panels) + parts.FOOT + parts.rest_height(rest)
    figure = parts.blank_figure(height)
    parts.add_rest(figure, rest, height)
    title = f"{len(panels)} targets, the one with the most memory first"
    parts.add_title(figure, title, f"{source}: {panels[0].details}", height - parts.HEAD, height)
    top = height - parts.HEAD
    _colour_bar(figure, look, (top - head, 3.0, height))
    for panel, body in zip(panels, bodies, strict=True):
        top -= head
        left, right = parts.LEFT / parts.WIDTH, 1 - _RIGHT / parts.WIDTH
        place = (top + 0.07) / height
        figure.text(left, place, fit(panel.title, 62), fontsize=10, fontweight="bold", color=parts.INK, va="baseline")
        if panel.heatmap.outside or not panel.heatmap.accessed:
            note = f"{percent(panel.heatmap.outside)} of its accesses outside" if panel.heatmap.accessed else panel.note
            figure.text(right, place, note, fontsize=8.5, color=parts.FAINT, va="baseline", ha="right")
        drawn = _segments(figure, panel, look, (top, body, height))
        if panel is panels[-1]:
            parts.time_axis(drawn[0], panel.heatmap.time_ns, panel.origin_ns)
        top -= body + gap
    notes = {panel.note for panel in panels}
    said = notes.pop() if len(notes) == 1 else "accesses (bytes x nr_accesses) outside of a picture are said above it"
    parts.add_caption(figure, said + _unknown(panels), top + gap, height)
    return figure


def _unknown(panels: Sequence[HeatPanel]) -> str:
    """What the pictures cannot tell, where there is any."""
    blank = any(np.isnan(panel.heatmap.heat[:, panel.heatmap.shown]).any() for panel in panels)
    named = any(name for panel in panels for name in panel.names)
    return ("; grey: not monitored or unknown" if blank else "") + ("" if named else "; what was mapped is not known")


def _segments(figure: Figure, panel: HeatPanel, look: _Look, place: tuple[float, float, float]) -> list[Axes]:
    """An axes for each segment, the lowest addresses at the bottom, as high as `HeatPanel.heights` says.

    ``place``: in inches the top of all, the height of all, and that of the page.
    """
    top, body, height = place
    heatmap = panel.heatmap
    segments = heatmap.segments()
    drawn = []
    at = top - body
    tall = panel.heights(body - _GAP * (len(segments) - 1))
    for segment, name, bytes_, size in zip(segments, panel.names, heatmap.sizes(), tall, strict=True):
        width = (parts.WIDTH - parts.LEFT - _RIGHT) / parts.WIDTH
        axes = figure.add_axes((parts.LEFT / parts.WIDTH, at / height, width, size / height), facecolor=_UNMONITORED)
        for side in axes.spines.values():
            side.set_color(parts.FAINT)
            side.set_linewidth(0.6)
        _beside(axes, name, format_size(bytes_), size)
        _draw_segment(axes, panel, segment, size, look)
        drawn.append(axes)
        at += size + _GAP
    _gap_marks(drawn)
    return drawn


def _beside(panel: Axes, name: str, size: str, height: float) -> None:
    """The mapping names and the size of a segment, to the right of its panel."""
    rows = max(int(height / 0.165), 1)
    lines = name.split(", ") if name else []
    if len(lines) >= rows > 1:
        lines = [*lines[: rows - 2], ", ".join(lines[rows - 2 :])]
    if rows > 1:
        text = "\n".join([*(fit(line, _NAME_COLUMNS) for line in lines), size])
    else:
        text = f"{fit(name, _NAME_COLUMNS - len(size) - 1)} {size}".strip()
    panel.annotate(
        text,
        (1, 0.5),
        (8, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=parts.INK,
        linespacing=1.4,
    )


def _draw_segment(axes: Axes, panel: HeatPanel, segment: slice, inches: float, look: _Look) -> None:
    """The heat of a segment, in axes that are so many ``inches`` high."""
    heatmap = panel.heatmap
    start = int(heatmap.address[segment.start])
    # Seconds and bytes from the start: floats cannot hold addresses, and need not.
    times = (heatmap.time_ns - heatmap.time_ns[0]) / 1e9
    places = (heatmap.address[segment.start : segment.stop + 1] - np.uint64(start)).astype(np.float64)
    cells = np.ma.masked_invalid(heatmap.heat[:, segment].T)
    axes.pcolormesh(times, places, cells, cmap=look.colours, norm=look.norm, rasterized=True)
    span = int(places[-1])
    axes.set_xlim(times[0], times[-1])
    axes.set_ylim(0, float(span))
    # A label needs about 0.2 inches.
    step = size_step(span, max(int(inches / 0.3), 1))
    ticks = [0, *range(step, int(span - span * 0.1 / max(inches, 0.1)) + 1, step)] if inches > 0.5 else [0]
    axes.set_yticks([float(tick) for tick in ticks], [f"{start:#x}", *(f"+{short_size(tick)}" for tick in ticks[1:])])
    axes.tick_params(axis="y", labelsize=8, length=3, width=0.6, color=parts.FAINT, labelcolor=parts.INK)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    for label in axes.get_yticklabels()[:1]:
        label.set_fontfamily("monospace")
        label.set_verticalalignment("bottom" if inches < 0.6 else "center")


def _gap_marks(panels: Sequence[Axes]) -> None:
    """Slanted strokes where addresses are left out between two panels."""
    stroke: dict[str, Any] = {
        "marker": [(-1, -0.5), (1, 0.5)],
        "markersize": 7,
        "linestyle": "none",
        "color": parts.FAINT,
        "clip_on": False,
    }
    for lower, upper in pairwise(panels):
        lower.plot([0, 1], [1, 1], transform=lower.transAxes, **stroke)
        upper.plot([0, 1], [0, 0], transform=upper.transAxes, **stroke)


def _colour_bar(figure: Figure, look: _Look, place: tuple[float, float, float]) -> None:
    """What the colours stand for, at the right edge; ``place``: the top, the height and that of the page, in inches."""
    top, body, height = place
    axes = figure.add_axes((1 - 0.92 / parts.WIDTH, (top - body) / height, 0.16 / parts.WIDTH, body / height))
    bar = figure.colorbar(
        ScalarMappable(look.norm, look.colours), cax=axes, extend="max" if look.scale.cut else "neither"
    )
    bar.outline.set_visible(False)
    ticks = look.scale.ticks()
    labels = [percent(tick) for tick in ticks]
    bar.set_ticks(ticks, labels=[*labels[:-1], f"≥{labels[-1]}" if look.scale.cut else labels[-1]])
    bar.ax.tick_params(labelsize=8.5, length=3, width=0.6, color=parts.FAINT, labelcolor=parts.INK)
    axes.set_title("accesses\nper sample", fontsize=8.5, color=parts.INK, loc="left", pad=7, linespacing=1.25)
