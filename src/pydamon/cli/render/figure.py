"""Pictures as files, with matplotlib: the heatmap and the working set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pydamon.analysis.heatmap import Heatmap
from pydamon.analysis.wss import WorkingSet
from pydamon.cli.render.axes import nice_ceiling, percent, short_size, size_step, time_ticks
from pydamon.cli.render.screen import fit
from pydamon.spec.units import format_size

INK = "#22262b"
FAINT = "#6b7280"
LINE = "#3b6fb6"
_GRID = "#e3e6ea"
# What was not monitored: a grey that no heat has.
_UNMONITORED = "#e9eaee"
_DPI = 144
# Widths and heights in inches.
WIDTH, LEFT, _RIGHT, HEAD, FOOT = 11.0, 1.42, 2.55, 0.95, 0.95
_GAP, _GROUP_GAP = 0.13, 0.5
_REST = 0.5
_FEW = 4  # targets: of more each gets less room
_NAME_COLUMNS = 21  # what fits between a panel and the colour bar


def heat_figure(
    heatmaps: Sequence[Heatmap],
    names: Sequence[Sequence[str]],
    titles: Sequence[str],
    details: Sequence[str],
    captions: Sequence[str],
    origin_ns: int,
    rest: str = "",
) -> Figure:
    """One group of panels per target, one panel per segment: time to the right, addresses upwards.

    ``names``: what the mappings of each segment are called, in the order of `Heatmap.segments`; ``details`` and
    ``captions``: a line above and below each group. Times are labelled from ``origin_ns``; ``rest`` is said at the end.
    """
    tops = [float(np.nanmax(h.heat[:, h.shown], initial=0)) for h in heatmaps]
    norm = Normalize(0, nice_ceiling(max(tops)))
    # Not starting at black: cold memory is dark, but it is memory.
    colours = LinearSegmentedColormap.from_list("heat", colormaps["inferno"](np.linspace(0.06, 1, 256)))
    body = 4.9 if len(heatmaps) == 1 else 3.4 if len(heatmaps) <= _FEW else 2.0
    gap = _GROUP_GAP if len(heatmaps) <= _FEW else 0.0
    group = HEAD + body + FOOT
    height = group * len(heatmaps) + gap * (len(heatmaps) - 1) + rest_height(rest)
    figure = blank_figure(height)
    add_rest(figure, rest, height)
    for index, heatmap in enumerate(heatmaps):
        top = height - index * (group + gap) - HEAD
        add_title(figure, titles[index], details[index], top, height)
        panels = _panels(figure, heatmap, names[index], top, body, height)
        for panel, segment in zip(panels, heatmap.segments(), strict=True):
            _draw_segment(panel, heatmap, segment, colours, norm)
        _gap_marks(panels)
        _time_axis(panels[0], heatmap.time_ns, origin_ns)
        blank = bool(np.isnan(heatmap.heat[:, heatmap.shown]).any())
        add_caption(figure, captions[index] + ("; grey: not monitored" if blank else ""), top - body, height)
        # The last column of the figure holds the names, then the colour bar.
        place = figure.add_axes((1 - 0.92 / WIDTH, (top - body) / height, 0.16 / WIDTH, body / height))
        _colour_bar(figure, place, colours, norm)
    return figure


def blank_figure(height: float) -> Figure:
    """An empty page, so many inches high."""
    # Not through pyplot: that would look for a display.
    return Figure(figsize=(WIDTH, height), dpi=_DPI, facecolor="white")


def add_title(figure: Figure, title: str, details: str, top: float, height: float) -> None:
    """A heading over the axes whose top is so many inches above the bottom of the page."""
    left = LEFT / WIDTH
    figure.text(left, (top + 0.52) / height, title, fontsize=14, fontweight="bold", color=INK, va="baseline")
    figure.text(left, (top + 0.22) / height, fit(details, 120), fontsize=9.5, color=FAINT, va="baseline")


def add_caption(figure: Figure, caption: str, bottom: float, height: float) -> None:
    """A line below the axes whose bottom is so many inches above that of the page."""
    figure.text(LEFT / WIDTH, (bottom - 0.78) / height, caption, fontsize=9, color=FAINT, va="baseline")


def rest_height(rest: str) -> float:
    """The inches that `add_rest` needs at the bottom of the page."""
    return _REST if rest else 0.0


def add_rest(figure: Figure, rest: str, height: float) -> None:
    """A line at the bottom of the page, on what is not shown."""
    figure.text(LEFT / WIDTH, _REST / 2 / height, rest, fontsize=11, color=INK, va="baseline")


def _panels(
    figure: Figure, heatmap: Heatmap, names: Sequence[str], top: float, body: float, height: float
) -> list[Axes]:
    """An axes for each segment, the lowest addresses at the bottom, as high as it has cells."""
    segments = heatmap.segments()
    cells = np.array([segment.stop - segment.start for segment in segments], dtype=np.float64)
    shares = np.maximum(cells / cells.sum(), 0.09)
    heights = shares / shares.sum() * (body - _GAP * (len(segments) - 1))
    panels = []
    at = top - body
    for segment, name, size in zip(segments, names, heights.tolist(), strict=True):
        panel = figure.add_axes(
            (LEFT / WIDTH, at / height, (WIDTH - LEFT - _RIGHT) / WIDTH, size / height), facecolor=_UNMONITORED
        )
        for side in panel.spines.values():
            side.set_color(FAINT)
            side.set_linewidth(0.6)
        start, end = int(heatmap.address[segment.start]), int(heatmap.address[segment.stop])
        _beside(panel, name, format_size(end - start), size)
        panels.append(panel)
        at += size + _GAP
    return panels


def _beside(panel: Axes, name: str, size: str, height: float) -> None:
    """The mapping names and the size of a segment, to the right of its panel."""
    rows = max(int(height / 0.17), 1)
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
        color=INK,
        linespacing=1.4,
    )


def _draw_segment(
    panel: Axes, heatmap: Heatmap, segment: slice, colours: LinearSegmentedColormap, norm: Normalize
) -> None:
    start = int(heatmap.address[segment.start])
    # Seconds and bytes from the start: floats cannot hold addresses, and need not.
    times = (heatmap.time_ns - heatmap.time_ns[0]) / 1e9
    places = (heatmap.address[segment.start : segment.stop + 1] - np.uint64(start)).astype(np.float64)
    panel.pcolormesh(
        times, places, np.ma.masked_invalid(heatmap.heat[:, segment].T), cmap=colours, norm=norm, rasterized=True
    )
    span = int(places[-1])
    panel.set_xlim(times[0], times[-1])
    panel.set_ylim(0, float(span))
    # A label needs about 0.2 inches.
    inches = panel.get_window_extent().height / _DPI
    step = size_step(span, max(int(inches / 0.3), 1))
    ticks = [0, *range(step, int(span - span * 0.1 / max(inches, 0.1)) + 1, step)] if inches > 0.5 else [0]
    panel.set_yticks([float(tick) for tick in ticks], [f"{start:#x}", *(f"+{short_size(tick)}" for tick in ticks[1:])])
    panel.tick_params(axis="y", labelsize=8, length=3, width=0.6, color=FAINT, labelcolor=INK)
    panel.tick_params(axis="x", bottom=False, labelbottom=False)
    for label in panel.get_yticklabels()[:1]:
        label.set_fontfamily("monospace")
        label.set_verticalalignment("bottom" if inches < 0.6 else "center")


def _gap_marks(panels: Sequence[Axes]) -> None:
    """Slanted strokes where addresses are left out between two panels."""
    stroke: dict[str, Any] = {
        "marker": [(-1, -0.5), (1, 0.5)],
        "markersize": 7,
        "linestyle": "none",
        "color": FAINT,
        "clip_on": False,
    }
    for lower, upper in pairwise(panels):
        lower.plot([0, 1], [1, 1], transform=lower.transAxes, **stroke)
        upper.plot([0, 1], [0, 0], transform=upper.transAxes, **stroke)


def _time_axis(panel: Axes, edges_ns: NDArray[np.int64], origin_ns: int) -> None:
    first = int(edges_ns[0]) - origin_ns
    span = int(edges_ns[-1] - edges_ns[0])
    ticks, unit = time_ticks(span, 10, first)
    panel.set_xticks([(at - first) / 1e9 for at, _ in ticks], [text for _, text in ticks])
    panel.tick_params(
        axis="x", bottom=True, labelbottom=True, labelsize=9, length=4, width=0.6, color=FAINT, labelcolor=INK
    )
    panel.set_xlabel(f"time since the start of the record ({unit})", fontsize=9.5, color=INK, labelpad=5)


def _colour_bar(figure: Figure, place: Axes, colours: LinearSegmentedColormap, norm: Normalize) -> None:
    bar = figure.colorbar(ScalarMappable(norm, colours), cax=place)
    bar.outline.set_visible(False)
    top = float(norm.vmax or 1)
    ticks = [top * step / 4 for step in range(5)]
    bar.set_ticks(ticks, labels=[percent(tick) for tick in ticks])
    bar.ax.tick_params(labelsize=8.5, length=3, width=0.6, color=FAINT, labelcolor=INK)
    place.set_title("accesses\nper sample", fontsize=8.5, color=INK, loc="left", pad=7, linespacing=1.25)


def wss_figure(
    found: Sequence[WorkingSet],
    titles: Sequence[str],
    details: str,
    definition: str,
    percentiles: dict[str, float],
    over_time: bool,
    rest: str = "",
) -> Figure:
    """The working set of each target, over time or as a distribution, one panel below the other; then ``rest``."""
    body, right = 3.6, 1.25
    group = body + HEAD + FOOT
    height = group * len(found) + rest_height(rest)
    figure = blank_figure(height)
    add_rest(figure, rest, height)
    for index, sizes in enumerate(found):
        top = height - index * group - HEAD
        add_title(figure, f"Working set of {titles[index]}", details if index == 0 else "", top, height)
        panel = figure.add_axes((LEFT / WIDTH, (top - body) / height, (WIDTH - LEFT - right) / WIDTH, body / height))
        highest = _over_time(panel, sizes) if over_time else _distribution(panel, sizes, percentiles)
        size_axis(panel, highest)
        _mean(panel, sizes)
        add_caption(figure, definition, top - body, height)
    return figure


def _over_time(panel: Axes, sizes: WorkingSet) -> float:
    edges, values = sizes.over_time(1200)
    times = (edges - edges[0]) / 1e9
    panel.stairs(np.nan_to_num(values), times, fill=True, color=LINE, alpha=0.22, linewidth=0)
    panel.stairs(values, times, color=LINE, linewidth=1.3, baseline=None)
    panel.set_xlim(times[0], times[-1])
    _time_axis(panel, edges, int(edges[0]))
    return float(np.nanmax(values, initial=0))


def _distribution(panel: Axes, sizes: WorkingSet, percentiles: dict[str, float]) -> float:
    ordered = np.sort(sizes.bytes).astype(np.float64)
    edges = np.linspace(0, 100, len(ordered) + 1)
    panel.stairs(ordered, edges, fill=True, color=LINE, alpha=0.22, linewidth=0)
    panel.stairs(ordered, edges, color=LINE, linewidth=1.6, baseline=None)
    values = sizes.percentiles(list(percentiles.values()))
    for place, size in zip(percentiles.values(), values, strict=True):
        panel.plot([place], [float(size)], "o", color=LINE, markersize=5.5, clip_on=False, zorder=3)
        panel.annotate(
            format_size(size),
            (place, float(size)),
            (0, 8),
            textcoords="offset points",
            ha="left" if place < 3 else "right" if place > 97 else "center",
            fontsize=8.5,
            color=INK,
            zorder=4,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
    panel.set_xlim(0, 100)
    panel.set_xlabel("percentile of the snapshots", fontsize=9.5, color=INK, labelpad=5)
    return float(ordered[-1])


def size_axis(panel: Axes, highest: float) -> None:
    """An axis of bytes from 0 to somewhat above ``highest``."""
    step = size_step(max(int(highest), 1), 6)
    top = max(-(-int(highest * 1.08) // step), 1) * step
    panel.set_ylim(0, float(top))
    ticks = list(range(0, top + 1, step))
    panel.set_yticks([float(tick) for tick in ticks], ["0", *(format_size(tick) for tick in ticks[1:])])
    panel.grid(axis="y", color=_GRID, linewidth=0.8)
    panel.set_axisbelow(True)
    for name, side in panel.spines.items():
        side.set_visible(name in ("left", "bottom"))
        side.set_color(FAINT)
    panel.tick_params(labelsize=9, length=4, width=0.6, color=FAINT, labelcolor=INK)


def _mean(panel: Axes, sizes: WorkingSet) -> None:
    panel.axhline(float(sizes.mean_bytes), color=FAINT, linewidth=1, linestyle=(0, (5, 4)), zorder=1)
    panel.annotate(
        f"mean\n{format_size(sizes.mean_bytes)}",
        (1, float(sizes.mean_bytes)),
        (8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        fontsize=8.5,
        color=FAINT,
    )
