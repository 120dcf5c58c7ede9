"""``pydamon report wss``."""

from __future__ import annotations

from typing import Any

from pydamon.analysis.totals import TOTAL
from pydamon.analysis.wss import WorkingSet, total, working_sets
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.picture import check_picture, write_picture
from pydamon.cli.render.screen import Screen, current_screen, emit
from pydamon.cli.render.terminal import bar, curve, layout
from pydamon.cli.report import panel
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import (
    MAX_DRAWN,
    MOST_DRAWN,
    MOST_SHOWN,
    chosen,
    count,
    largest,
    of_what,
    opened,
    rest_line,
    rest_words,
    target_keys,
    tells_residency,
    unknown_words,
    window_of,
)
from pydamon.errors import RequestError
from pydamon.plain import json_text, printable
from pydamon.records.batch import MEMORY
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.views.names import source_line, target_line


def report(
    path: str,
    choice: Choice,
    as_json: bool,
    percentiles: str,
    min_accesses: int,
    over_time: bool,
    output: str | None,
    every: bool = False,
) -> None:
    """Print or draw the working set sizes of every target, or of the one asked for.

    Percentiles leave out the first snapshots, in which the regions are still being found, unless ``every`` one is to
    count; a part of a record that begins later has none.
    """
    if output is not None:
        check_picture(output)
    wanted = _parse_percentiles(percentiles)
    screen = current_screen()
    with opened(path) as reader:
        batches, span = chosen(reader, choice, columns=MEMORY)
        found = working_sets(batches, min_accesses)
        settling = not (every or over_time or choice.from_ns)
        what = f"{_definition(min_accesses)}, {of_what(reader, choice)}"
        together = [total(found)] if len(found) > 1 else []
        if settling:
            together, found = ([sizes.settled() for sizes in sets] for sets in (together, found))
        most, limit = (MOST_SHOWN, None) if output is None else (MOST_DRAWN, MAX_DRAWN)
        shown, rest = largest(found, lambda sizes: sizes.mean_bytes, choice, most, limit)
        left = f"{format_size(total(rest).mean_bytes)} on average" if rest else ""
        if as_json:
            told: dict[str, Any] = {"resident": tells_residency(reader, choice)}
            told["targets"] = [_object(reader, sizes, wanted, over_time) for sizes in found]
            if together:
                told["total"] = _object(reader, together[0], wanted, over_time)
            emit(json_text(told) + "\n")
        elif output is None:
            for sizes in [*together, *shown]:
                emit(_text(reader, sizes, wanted, what, span[0] if over_time else None, screen))
                if sizes.target == TOTAL and tells_residency(reader, choice):
                    words = panel.resident_words(panel.looks(reader, window_of(choice, span), choice.target))
                    emit("" if words is None else screen.fit(words) + "\n")
        if output is not None:
            _draw(
                reader,
                [*together, *shown],
                wanted,
                what,
                span[0] if over_time else None,
                output,
                rest_words(len(rest), left) if rest else "",
            )
        if not as_json:
            emit(f"wrote {output}\n" if output is not None else "")
            emit(rest_line(len(rest), left, choice) if rest else "")


def _parse_percentiles(text: str) -> dict[str, float]:
    """The percentiles by the names that the user gave them."""
    wanted = {}
    for part in text.split(","):
        name = part.strip()
        try:
            value = float(name)
        except ValueError:
            raise RequestError(f"{name[:40]!r} is not a number; write e.g. 0,50,99.9", where="--percentiles") from None
        if not 0 <= value <= 100:
            raise RequestError(f"{name[:40]} is not between 0 and 100", where="--percentiles")
        wanted[f"{value:g}"] = value
    return wanted


def _object(reader: RecordReader, sizes: WorkingSet, wanted: dict[str, float], over_time: bool) -> dict[str, Any]:
    values = sizes.percentiles(list(wanted.values()))
    found: dict[str, Any] = {
        **target_keys(reader, sizes.target),
        "mean_bytes": sizes.mean_bytes,
        "unknown_bytes": sizes.unknown_bytes,
        "left_out_snapshots": sizes.left_out,
        "percentiles": dict(zip(wanted, values, strict=True)),
    }
    if over_time:
        columns = (sizes.start_ns.tolist(), sizes.end_ns.tolist(), sizes.bytes.tolist())
        found["snapshots"] = [
            {"start_ns": start_ns, "end_ns": end_ns, "bytes": size}
            for start_ns, end_ns, size in zip(*columns, strict=True)
        ]
    return found


def _definition(min_accesses: int) -> str:
    accesses = count(min_accesses, "access").replace("accesss", "accesses")
    return f"regions with at least {accesses} per aggregation"


def _details(reader: RecordReader, sizes: WorkingSet) -> str:
    span = int(sizes.end_ns.max()) - int(sizes.start_ns[0])
    parts = [format_duration_ns(span), count(len(sizes.bytes), "snapshot"), source_line(reader)]
    if sizes.left_out:
        parts[1] += f" (without the first {sizes.left_out}, in which regions were still being found: --all)"
    if sizes.target == TOTAL:
        parts.append("memory that they share counts for each")
    return f"{printable(reader.path)}: " + ", ".join(part for part in parts if part)


def _text(
    reader: RecordReader,
    sizes: WorkingSet,
    wanted: dict[str, float],
    what: str,
    origin_ns: int | None,
    screen: Screen,
) -> str:
    lines = [styled(target_line(reader, sizes.target, screen.limit, screen.ellipsis), BOLD, screen)]
    for text in (_details(reader, sizes), f"working set: {what}{unknown_words(sizes.unknown_bytes)}"):
        lines.append(styled(screen.fit(text), DIM, screen))
    if origin_ns is not None:
        lines += curve(sizes.over_time(layout(screen).columns), screen, origin_ns)
        words = f"mean {format_size(sizes.mean_bytes)}, most {format_size(int(sizes.bytes.max()))}"
        lines += [words] if len(words) <= screen.width else words.split(", ")
        return "\n".join(lines) + "\n"
    rows = [(f"{name} %", size) for name, size in zip(wanted, sizes.percentiles(list(wanted.values())), strict=True)]
    rows.append(("mean", sizes.mean_bytes))
    heading = "percentile" if screen.width >= 40 else ""
    left = max(len(heading), *(len(name) for name, _ in rows))
    right = max(len(format_size(size)) for _, size in rows)
    highest = max(*(size for _, size in rows), 1)
    width = min(screen.width - left - right - 4, 60)
    if heading:
        lines.append(styled(f"{heading:>{left}}  {'size':>{right}}", DIM, screen))
    for name, size in rows:
        drawn = bar(size / highest, width, screen) if width > 0 else ""
        lines.append(f"{name:>{left}}  {format_size(size):>{right}}  {drawn}".rstrip())
    return "\n".join(lines) + "\n"


def _draw(
    reader: RecordReader,
    found: list[WorkingSet],
    wanted: dict[str, float],
    what: str,
    origin_ns: int | None,
    output: str,
    rest: str,
) -> None:
    from pydamon.cli.render.wss_figure import wss_figure

    figure = wss_figure(
        found,
        [target_line(reader, sizes.target, 52) for sizes in found],
        _details(reader, found[0]),
        what + unknown_words(found[0].unknown_bytes),
        wanted,
        origin_ns,
        rest,
    )
    write_picture(output, figure, reader, f"Working set: {printable(reader.path)}")
