"""``pydamon report profile``: what the target executed while its memory was hot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from pydamon.analysis.profile import HotTime, hot_time
from pydamon.cli.render.axes import tenth_percent
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen, current_screen, emit, warn
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import chosen, count, of_what, opened, tells_residency
from pydamon.errors import RequestError
from pydamon.plain import json_text, printable
from pydamon.records.batch import MEMORY
from pydamon.records.cpu_samples import CpuSampleReader
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns
from pydamon.views.names import target_line

_HOW = "record with: perf record -k CLOCK_MONOTONIC -p PID"


def report(path: str, perf: str, choice: Choice, hot_percent: float, top: int, as_json: bool) -> None:
    """Print which symbols the CPU samples fell into in the hot time, beside the rest of the time."""
    screen = current_screen()
    with opened(path) as reader:
        if reader.info.clock == "virtual":
            raise RequestError(f"{path} is in virtual time; there are no CPU samples of that", where="--perf")
        target = choice.target
        if target is None:
            numbers = [info.target for info in reader.info.targets]
            if len(numbers) > 1:
                raise RequestError(f"{path} has {len(numbers)} targets; choose one", where="--target")
            target = numbers[0] if numbers else 0
        batches, span = chosen(reader, replace(choice, target=target), columns=MEMORY)
        when = hot_time(batches, hot_percent / 100)
        samples = CpuSampleReader(perf)
        found = _tally(samples, when, reader.info.target(target).pid)
        if samples.counts.garbage:
            lines = count(samples.counts.garbage, "line")
            warn([f"{perf}: {lines} left out, the first: {samples.counts.garbage_example}"])
        if not samples.counts.accesses:
            raise RequestError(f"{perf} holds no samples; it must be what perf script prints", where="--perf")
        if not (found["hot"] or found["rest"]):
            seconds = " to ".join(f"{time_ns / 1e9:.3f}" for time_ns in span)
            raise RequestError(
                f"none of its {samples.counts.accesses} samples is of this process and time ({seconds} s); {_HOW}",
                where="--perf",
            )
        if as_json:
            told = _object(target, when, found) | {"resident": tells_residency(reader, choice)}
            emit(json_text(told) + "\n")
        else:
            definition = f"bytes x access rate at least {hot_percent:g} % of the maximum; {of_what(reader, choice)}"
            emit(_text(reader, target, when, found, top, definition, screen))


def _tally(samples: CpuSampleReader, when: HotTime, pid: int | None) -> dict[str, Any]:
    """Samples by where they are, and of those in the record's time by symbol: (name, hot ones, others)."""
    sums = np.zeros((2, 0), np.int64)
    outside = others = 0
    for piece in samples.pieces():
        mine = (piece.pid == pid) | (piece.pid < 0) | (pid is None)
        others += int((~mine).sum())
        place = when.of(piece.time_ns[mine])
        outside += int((place < 0).sum())
        size = len(samples.names)
        sums = np.pad(sums, ((0, 0), (0, size - sums.shape[1])))
        for row, kind in enumerate((1, 0)):
            sums[row] += np.bincount(piece.symbol[mine][place == kind], minlength=size)
    names = samples.names[: sums.shape[1]]
    symbols = sorted(zip(names, *sums.tolist(), strict=True), key=lambda row: (-row[1], -row[2], row[0]))
    hot, rest = (int(part.sum()) for part in sums)
    return {
        "hot": hot,
        "rest": rest,
        "outside": outside,
        "other_processes": others,
        "symbols": [row for row in symbols if row[1] or row[2]],
    }


def _object(target: int, when: HotTime, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "target": target,
        "hot_ns": when.lasting_ns(True),
        "rest_ns": when.lasting_ns(False),
        "samples": {key: found[key] for key in ("hot", "rest", "outside", "other_processes")},
        "symbols": [{"symbol": name, "hot": hot, "rest": rest} for name, hot, rest in found["symbols"]],
    }


def _text(
    reader: RecordReader,
    target: int,
    when: HotTime,
    found: dict[str, Any],
    top: int,
    definition: str,
    screen: Screen,
) -> str:
    hot, rest = (format_duration_ns(when.lasting_ns(kind)) for kind in (True, False))
    lines = [
        styled(target_line(reader, target, screen.limit, screen.ellipsis), BOLD, screen),
        styled(screen.fit(f"hot: {definition}"), DIM, screen),
        screen.fit(f"hot for {hot} with {found['hot']:,} samples, the rest {rest} with {found['rest']:,}"),
    ]
    cells = []
    for name, in_hot, in_rest in found["symbols"][:top]:
        cells.append([_share(in_hot, found["hot"]), _share(in_rest, found["rest"]), printable(name)])
    lines += table(["while hot", "else", "symbol"], cells, screen, left=0, words=True)
    if len(found["symbols"]) > top:
        lines.append(screen.fit(f"and {len(found['symbols']) - top} more symbols (--top N)"))
    return "\n".join(lines) + "\n"


def _share(part: int, whole: int) -> str:
    return tenth_percent(part / whole) if whole else "-"
