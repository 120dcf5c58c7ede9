"""``pydamon report heatmap``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pydamon.analysis.focus import Segment, automatic, everything, grid, held, hottest, shares, survey
from pydamon.analysis.heatmap import HeatAccumulator, Heatmap
from pydamon.analysis.names import short_list
from pydamon.analysis.window import Window
from pydamon.cli.render.axes import Scale, percent, scale_of
from pydamon.cli.render.heat_panel import HeatPanel
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit, warn
from pydamon.cli.render.terminal import heat_chart, layout
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import (
    MAX_DRAWN,
    MOST_SHOWN,
    as_chosen,
    count,
    empty,
    largest,
    mapping_names,
    opened,
    rest_line,
    rest_words,
    window_of,
)
from pydamon.errors import RequestError
from pydamon.plain import json_text, printable
from pydamon.records.batch import MEMORY, RegionBatch
from pydamon.records.reader import RecordReader
from pydamon.spans import distinct
from pydamon.spec.units import format_duration_ns, format_size, parse_address
from pydamon.views.names import source_line, target_line

# Where to look is decided from this many rows.
_SURVEY_ROWS = 1 << 16
_USUAL = 3  # segments, whose headings a screen has room for


@dataclass(frozen=True, slots=True)
class Shape:
    """Of how many cells a picture consists: columns of time, lines of addresses, at ``least`` so many per segment.

    ``headed``: each segment has a heading, which takes a line from it where there are many.
    """

    columns: int
    lines: int
    least: int = 1
    cells_per_line: int = 1
    headed: bool = False

    def cells(self, segments: list[Segment], amounts: list[float]) -> list[int]:
        """The cells of addresses of each segment, by what it holds."""
        lines = max(self.lines - max(len(segments) - _USUAL, 0) * self.headed, len(segments))
        found = shares(segments, amounts, lines, self.least, cells_per_line=self.cells_per_line)
        return [count * self.cells_per_line for count in found]


_JSON = Shape(100, 200)
_PICTURE = Shape(600, 400, 400 // 12)


@dataclass(slots=True)
class View:
    """One target's picture and the words that go with it."""

    heatmap: Heatmap
    names: list[str]
    snapshots: int
    note: str

    def details(self, span_ns: int, source: str) -> str:
        """``1 min, 600 snapshots, vaddr by bpf``."""
        parts = [format_duration_ns(span_ns), count(self.snapshots, "snapshot"), source]
        return ", ".join(part for part in parts if part)


def report(
    path: str, choice: Choice, as_json: bool, addresses: str, output: str | None, top: float | None = None
) -> None:
    """Print or draw the heatmap of every target (of many: the largest), or of the one asked for.

    JSON has as many as a picture may. All pictures have one scale of colours: up to ``top`` (0..1), or to the hottest.
    """
    if top is not None and as_json and output is None:
        raise RequestError("is of colours, which JSON has not", where="--max")
    if output is not None:
        check_picture(output)
    wanted = _parse_range(addresses)
    screen = current_screen()
    if as_json:
        shape = _JSON
    elif output is not None:
        shape = _PICTURE
    else:
        place = layout(screen)
        shape = Shape(place.columns, place.lines, 2, place.cells_per_line, headed=True)
    with opened(path) as reader:
        whole = reader.time_range()
        if whole is None:
            raise empty(reader, None)
        window = window_of(choice, whole)
        span = (
            whole[0] if window.start_ns is None else min(max(window.start_ns, whole[0]), whole[1]),
            whole[1] if window.end_ns is None else max(min(window.end_ns, whole[1]), whole[0]),
        )
        sample, rest = _chosen(_sample(reader, choice.target, window), choice, MAX_DRAWN if as_json else MOST_SHOWN)
        views = _views(reader, choice.target, window, wanted, span, shape, sample, set(rest))
        scale = scale_of(max(view.heatmap.hottest for view in views), top)
        left = format_size(sum(rest.values()))
        words, line = (rest_words(len(rest), left), rest_line(len(rest), left, choice)) if rest else ("", "")
        if as_json:
            warn([words] if rest else [])
            for view in sorted(views, key=lambda view: view.heatmap.target):
                emit(_json(view.heatmap) + "\n")
        elif output is None:
            for view in views:
                emit(_text(reader, view, screen, span, whole[0], scale))
            emit(line)
        if output is None:
            return
        panels = [_panel(reader, view, span, whole[0]) for view in views]
        from pydamon.cli.render.heat_figure import heat_figure

        write_picture(output, heat_figure(panels, scale, printable(path), words), reader, printable(path))
        if not as_json:
            emit(f"wrote {output}\n" + "".join(f"{view.note}\n" for view in views) + line)


def _parse_range(text: str) -> str | Segment:
    if text in ("auto", "hottest", "all"):
        return text
    start_text, dash, end_text = text.partition("-")
    try:
        start, end = parse_address(start_text), parse_address(end_text)
    except RequestError as error:
        reason = f"{error.message}; " if dash and start_text and end_text else ""
        raise RequestError(
            f"{reason}it must be hottest, all or START-END, e.g. 0x7f0000000000-0x7f0000200000", where="--range"
        ) from None
    if start >= end:
        raise RequestError(f"{start:#x}-{end:#x} is empty: its end must be above its start", where="--range")
    return Segment(start, end)


def _views(
    reader: RecordReader,
    target: int | None,
    window: Window,
    wanted: str | Segment,
    span: tuple[int, int],
    shape: Shape,
    sample: dict[int, list[RegionBatch]],
    rest: set[int],
) -> list[View]:
    """The picture of each target of ``sample``, which is emptied; those of ``rest`` are known not to be shown."""
    time_ns = distinct(np.linspace(span[0], max(span[1], span[0] + 1), shape.columns + 1).round().astype(np.int64))
    accumulators: dict[int, HeatAccumulator] = {}
    shown = {}
    for number, batches in sample.items():
        segments, amounts = _segments(wanted, batches)
        edges, shown[number] = grid(segments, shape.cells(segments, amounts), exact=isinstance(wanted, Segment))
        accumulators[number] = HeatAccumulator(time_ns, edges)
    sample.clear()
    snapshots = dict.fromkeys(accumulators, 0)
    unseen: set[int] = set()
    for batch in window.of(reader.batches(columns=("unknown",), target=target)):
        unseen.update(set(batch.targets) - accumulators.keys() - rest)
        for number, accumulator in accumulators.items():
            part = batch.of_target(number)
            if len(part):
                accumulator.add(part)
                snapshots[number] += len(part)
    if unseen:
        numbers = ", ".join(str(number) for number in sorted(unseen)[:10])
        warn([f"{reader.path}: too few snapshots for this overview; show them with --target: {numbers}"])
    views = []
    for number, accumulator in accumulators.items():
        heatmap = accumulator.heatmap(number, shown[number])
        views.append(View(heatmap, _names(reader, heatmap), snapshots[number], _note(heatmap)))
    return views


def _sample(reader: RecordReader, target: int | None, window: Window) -> dict[int, list[RegionBatch]]:
    """Some snapshots of each target, from which to choose the addresses to show."""
    sample: dict[int, list[RegionBatch]] = {}
    # A target that was there for a moment may escape the sample; if it is asked for, look at everything.
    for rows in (_SURVEY_ROWS, None) if target is not None or not window.everything else (_SURVEY_ROWS,):
        for batch in window.of(reader.batches(columns=MEMORY, target=target, sample_rows=rows)):
            for number in batch.targets:
                sample.setdefault(number, []).append(batch.of_target(number))
        if sample:
            return sample
    if not window.everything:
        raise RequestError(f"{reader.path} has no snapshot there", where="--from, --to or --address")
    raise empty(reader, target)


def _chosen(
    sample: dict[int, list[RegionBatch]], choice: Choice, most: int
) -> tuple[dict[int, list[RegionBatch]], dict[int, int]]:
    """(what is to be shown of the sample, the sizes in bytes of the other targets): by what was resident at last.

    Also memory of which it is not known whether it was used counts.
    """
    sizes = {}
    for number, batches in sample.items():
        (last,) = as_chosen([batches[-1]], choice)
        sizes[number] = int(last.per_snapshot(last.memory)[-1] + last.per_snapshot(last.unknown_memory)[-1])
    shown, rest = largest(sorted(sizes), sizes.__getitem__, choice, most, MAX_DRAWN)
    shown.sort(key=lambda number: -sizes[number])
    return {number: sample[number] for number in shown}, {number: sizes[number] for number in rest}


def _segments(wanted: str | Segment, batches: list[RegionBatch]) -> tuple[list[Segment], list[float]]:
    """The address ranges to show, and what each holds."""
    if isinstance(wanted, Segment):
        return [wanted], [0.0]
    focus = survey(batches)
    assert focus is not None  # there is no snapshot without regions
    choose = {"auto": automatic, "hottest": hottest, "all": everything}[wanted]
    # Without any access there is nothing to focus on: show all. Likewise for time in which next to nothing was
    # monitored.
    ends = Segment(int(focus.edges[0]), int(focus.edges[-1]))
    segments = choose(focus) or everything(focus) or [ends]
    return segments, held(focus, segments)


def _names(reader: RecordReader, heatmap: Heatmap) -> list[str]:
    known = mapping_names(reader, heatmap.target)
    found = []
    for segment in heatmap.segments():
        start, end = int(heatmap.address[segment.start]), int(heatmap.address[segment.stop])
        found.append(printable(short_list(known.of(start, end))))
    return found


def _note(heatmap: Heatmap) -> str:
    if not heatmap.accessed:
        return "no accesses were found"
    if heatmap.outside == 0:
        return "all accesses that were found are inside of this picture"
    return f"{percent(heatmap.outside)} of the accesses (bytes x nr_accesses) are outside of this picture"


def _json(heatmap: Heatmap) -> str:
    return json_text(
        {
            "target": heatmap.target,
            "time_ns": heatmap.time_ns.tolist(),
            "address": heatmap.address.tolist(),
            "heat": np.round(np.nan_to_num(heatmap.heat), 6).tolist(),
        }
    )


def _panel(reader: RecordReader, view: View, span: tuple[int, int], origin_ns: int) -> HeatPanel:
    title = target_line(reader, view.heatmap.target, 100)
    details = view.details(span[1] - span[0], source_line(reader))
    return HeatPanel(view.heatmap, title, details, view.names, view.note, origin_ns)


def _text(reader: RecordReader, view: View, screen: Screen, span: tuple[int, int], origin_ns: int, scale: Scale) -> str:
    import textwrap

    details = f"{printable(reader.path)}: {view.details(span[1] - span[0], source_line(reader))}"
    lines = [
        styled(target_line(reader, view.heatmap.target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(details), DIM, screen),
        *heat_chart(view.heatmap, view.names, screen, origin_ns, scale),
        *textwrap.wrap(view.note, screen.width),
    ]
    return "\n".join(lines) + "\n"
