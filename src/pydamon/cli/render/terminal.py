"""Pictures made of characters: the heatmap, a strip of heat, and a curve over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.heatmap import Heatmap
from pydamon.analysis.wss import OverTime
from pydamon.cli.render.axes import Scale, nice_ceiling, short_size, size_step, time_ticks
from pydamon.cli.render.palette import DIM, LEVELS, RESET, colour, styled
from pydamon.cli.render.screen import Screen
from pydamon.plain import fit

# Without colours: the first is monitored memory that was (nearly) never accessed; a blank is not known.
_RAMP = ".:-=+*#%@"
# Less heat than this part of the scale counts as none where there is a separate sign for none.
_NEARLY_NONE = 0.02
_EIGHTHS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class PictureLayout:
    """How a heatmap fits a screen: columns of time, lines of addresses, cells of addresses per line."""

    gutter: int
    columns: int
    lines: int
    cells_per_line: int


def layout(screen: Screen) -> PictureLayout:
    """The layout for the screen; half blocks show two cells per line where there are colours."""
    gutter = 7 if screen.width >= 40 else 6
    halves = 2 if screen.colours and screen.unicode else 1
    lines = min(max(screen.height - 12, 8), 32) if screen.terminal else 20
    return PictureLayout(gutter, screen.width - gutter - (1 if screen.width >= 40 else 0), lines, halves)


def heat_chart(heatmap: Heatmap, names: Sequence[str], screen: Screen, origin_ns: int, scale: Scale) -> Iterator[str]:
    """The lines of a heatmap: time to the right, addresses upwards, each segment under a heading.

    ``names``: what the mappings of each segment are called (empty: unknown), in the order of `Heatmap.segments`. Times
    are labelled from ``origin_ns``.
    """
    top = scale.top
    place = layout(screen)
    segments = heatmap.segments()
    for segment, name in reversed(list(zip(segments, names, strict=True))):
        yield _heading(heatmap, segment, name, screen)
        yield from _segment_lines(heatmap, segment, place, top, screen)
    yield from _time_axis(heatmap.time_ns, place, screen, origin_ns)
    yield from _legend(scale, screen, bool(np.isnan(heatmap.heat[:, heatmap.shown]).any()))


def _heading(heatmap: Heatmap, segment: slice, name: str, screen: Screen) -> str:
    start, end = int(heatmap.address[segment.start]), int(heatmap.address[segment.stop])
    size, address = short_size(end - start), f"{start:#x}"
    line = screen.pick("─", "-")
    texts = [f"{name}  {address} + {size}", f"{name} {address}", f"{name} {size}"] if name else []
    texts += [f"{address} + {size}", f"{address}"]
    text = next((t for t in texts if len(t) <= screen.width - 4), None)
    if text is None:
        text = fit(texts[0], screen.width - 4, screen.ellipsis)
    rule = line * max(screen.width - len(text) - 4, 0)
    return f"{styled(line * 2, DIM, screen)} {text} {styled(rule, DIM, screen)}".rstrip()


def _segment_lines(heatmap: Heatmap, segment: slice, place: PictureLayout, top: float, screen: Screen) -> Iterator[str]:
    """The lines of one segment, highest address first."""
    cells = heatmap.heat[:, segment].T[::-1]
    per_line = place.cells_per_line
    if len(cells) % per_line:
        cells = np.vstack([cells, np.full((1, cells.shape[1]), np.nan)])
    lines = [cells[at : at + per_line] for at in range(0, len(cells), per_line)]
    labels = _address_labels(heatmap.address[segment.start : segment.stop + 1], len(lines), per_line)
    room = place.gutter - 2
    for label, line in zip(labels, lines, strict=True):
        label = label if len(label) <= room else label[1:] if len(label) == room + 1 else ""
        gutter = f"{label:>{room}} "
        axis = screen.pick("┤" if label else "│", "|")
        drawn = _half_blocks(line, top, screen.colours) if screen.colours and per_line == 2 else None
        yield gutter + styled(axis, DIM, screen) + (drawn if drawn is not None else _ramp(line[0], top))


def _address_labels(edges: NDArray[np.uint64], lines: int, per_line: int) -> list[str]:
    """A label for each line (highest address first), most of them empty: distances from the segment's start."""
    start, span = int(edges[0]), int(edges[-1] - edges[0])
    labels = [""] * lines
    step = size_step(span, max(lines // 3, 1))
    # None where the heading is.
    for offset in range(0, max(span - span // lines, 1), step):
        cell = int(np.searchsorted(edges, start + offset, "right")) - 1
        line = lines - 1 - min((cell + (len(edges) - 1) % per_line) // per_line, lines - 1)
        if not labels[line]:
            labels[line] = f"+{short_size(offset)}" if offset else "0"
    return labels


def _ramp(cells: NDArray[np.float64], top: float) -> str:
    characters = []
    for heat in cells.tolist():
        if heat != heat:
            characters.append(" ")
        elif heat < top * _NEARLY_NONE:
            characters.append(_RAMP[0])
        else:
            characters.append(_RAMP[min(1 + int(heat / top * (len(_RAMP) - 1)), len(_RAMP) - 1)])
    return "".join(characters).rstrip()


def _levels(cells: NDArray[np.float64], top: float) -> NDArray[np.int64]:
    """Colour levels; -1 for what is not known."""
    scaled = np.nan_to_num(cells / top, nan=0).clip(0, 1) * (LEVELS - 1)
    levels: NDArray[np.int64] = np.where(np.isnan(cells), -1, np.rint(scaled)).astype(np.int64)
    return levels


def _half_blocks(pair: NDArray[np.float64], top: float, colours: int) -> str:
    """Two rows of cells as one line: the upper one in the foreground of ``▀``, the lower one in its background."""
    parts = []
    before = None
    for upper, lower in _levels(pair, top).T.tolist():
        if upper < 0 and lower < 0:
            style, character = DIM, "·"
        elif lower < 0:
            style, character = colour(upper, colours), "▀"
        elif upper < 0:
            style, character = colour(lower, colours), "▄"
        else:
            style, character = colour(upper, colours) + colour(lower, colours, background=True), "▀"
        # Colours stay until changed; a cell without background needs a reset first.
        if style != before:
            parts.append(RESET + style)
            before = style
        parts.append(character)
    return "".join(parts) + RESET


def _time_axis(edges_ns: NDArray[np.int64], place: PictureLayout, screen: Screen, origin_ns: int) -> Iterator[str]:
    span = int(edges_ns[-1] - edges_ns[0])
    first = int(edges_ns[0]) - origin_ns
    columns = len(edges_ns) - 1
    ticks, unit = time_ticks(span, max(columns // 9, 2), first)
    line = [screen.pick("─", "-")] * columns
    labels = [" "] * (columns + place.gutter)
    free_from = 0
    for at_ns, number in ticks:
        column = (at_ns - first) * columns // max(span, 1)
        if not 0 <= column <= columns:
            continue
        text = f"{number} {unit}" if at_ns == ticks[0][0] else number
        left = min(max(place.gutter + column - len(text) // 2, 0), len(labels) - len(text))
        if column < columns:
            line[column] = screen.pick("┬", "+")
        if left >= free_from:
            labels[left : left + len(text)] = text
            free_from = left + len(text) + 1
    corner = " " * (place.gutter - 1) + screen.pick("└", "+")
    yield styled(corner + "".join(line), DIM, screen)
    yield "".join(labels).rstrip()


def _legend(scale: Scale, screen: Screen, unmonitored: bool) -> Iterator[str]:
    if screen.colours:
        blocks = min(24, screen.width // 2 - 6)
        bar = "".join(
            colour(round(at * (LEVELS - 1) / max(blocks - 1, 1)), screen.colours) + screen.pick("█", "#")
            for at in range(blocks)
        )
        text = f"{bar}{RESET} {scale.words()}"
        length = blocks + len(f" {scale.words()}")
        blank = screen.pick("·", "blank")
    else:
        text = f"{_RAMP} {scale.words()}"
        length = len(text)
        blank = "blank"
    for addition in (" of samples found access", f", {blank} not monitored or unknown" if unmonitored else ""):
        if length + len(addition) <= screen.width:
            text += addition
            length += len(addition)
    yield text


def heat_strip(heat: Sequence[float], sizes: Sequence[int], screen: Screen, width: int) -> str:
    """One line of heat over the addresses; larger ranges get more columns, but not in proportion."""
    weights = np.array(sizes, dtype=np.float64) ** 0.4
    edges = np.concatenate([[0], np.cumsum(weights)]) / weights.sum()
    at = np.searchsorted(edges, (np.arange(width) + 0.5) / width, "right") - 1
    cells = np.array(heat, dtype=np.float64)[at.clip(0, len(heat) - 1)]
    top = nice_ceiling(float(cells.max()))
    if not screen.colours:
        return _ramp(cells, top)
    block = screen.pick("█", "#")
    runs = groupby(_levels(cells, top).tolist())
    return "".join(colour(level, screen.colours) + block * len(list(run)) for level, run in runs) + RESET


def box(heat: float, width: int, screen: Screen) -> str:
    """``width`` columns that are filled with one heat (0..1)."""
    if not screen.colours:
        sign = _RAMP[0] if heat <= 0 else _RAMP[min(1 + int(heat * (len(_RAMP) - 1)), len(_RAMP) - 1)]
        return sign * width
    return colour(round(heat * (LEVELS - 1)), screen.colours) + screen.pick("█", "#") * width + RESET


def bar(share: float, width: int, screen: Screen) -> str:
    """A bar of ``share`` (0..1) of ``width`` columns, without trailing blanks; anything above 0 shows."""
    if not screen.unicode:
        return "#" * (max(round(share * width), 1) if share > 0 else 0)
    eighths = max(round(share * width * 8), 1) if share > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def curve(sizes: OverTime, screen: Screen, origin_ns: int) -> Iterator[str]:
    """Sizes in bytes over time as columns up to the mean, lighter up to the most; NaN leaves a gap.

    The lines from the top, with both axes; one below says what is lighter, if anything is.
    """
    place = layout(screen)
    height = min(place.lines, 12)
    highest = float(np.nanmax(sizes.most, initial=0))
    step = size_step(max(int(highest), 1), 4)
    top = -(-max(int(highest), 1) // step) * step
    means, peaks = (_eighths(values, top, height) for values in (sizes.mean, sizes.most))
    for line in range(height - 1, -1, -1):
        # The label of a tick stands on the line that its value reaches the top of.
        ticks = [tick for tick in range(step, top + 1, step) if -(-tick * height // top) - 1 == line]
        label = short_size(ticks[-1]) if ticks else ""
        pairs = zip((means - line * 8).clip(0, 8).tolist(), (peaks - line * 8).clip(0, 8).tolist(), strict=True)
        drawn = "".join(_column(mean, peak, screen) for mean, peak in pairs)
        axis = screen.pick("┤" if label else "│", "|")
        gutter = f"{label:>{place.gutter - 2}} "[-(place.gutter - 1) :]
        yield gutter + styled(axis, DIM, screen) + drawn.rstrip()
    yield from _time_axis(sizes.edges, place, screen, origin_ns)
    if sizes.varies:
        yield screen.fit(f"{screen.pick('█', '#')} mean of each column, {screen.pick('░', ':')} up to its most")


def _eighths(values: NDArray[np.float64], top: int, height: int) -> NDArray[np.int64]:
    """How high each value reaches, in eighths of a line; anything above 0 shows."""
    levels = np.nan_to_num(values / top * height * 8, nan=0)
    found: NDArray[np.int64] = np.where((levels > 0) & (levels < 1), 1, levels).round().astype(np.int64)
    return found


def _column(mean: int, peak: int, screen: Screen) -> str:
    """One character of a curve: what of it the mean fills, else what the most reaches; both in eighths."""
    if mean > (0 if screen.unicode else 3):
        return _EIGHTHS[mean] if screen.unicode else "#"
    return screen.pick("░", ":") if peak > (0 if screen.unicode else 3) else " "
