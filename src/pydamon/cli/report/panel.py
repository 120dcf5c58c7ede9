"""What the page panel of a record says: used and idle memory for any window, with an error."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from pydamon.analysis.panel import Estimate, bound_of, used_within
from pydamon.analysis.window import Window
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import current_screen, emit, printable
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import empty, opened, source_line, target_line, window_of
from pydamon.core.panel import BOUNDS_S, Look
from pydamon.errors import PydamonError
from pydamon.records.reader import RecordReader
from pydamon.spec.units import format_duration_ns, format_size

SECOND_NS = 1_000_000_000


def looks(reader: RecordReader, window: Window, target: int | None = None) -> dict[int, list[Look]]:
    """The looks at the panel in the window's time, by target; those of another pydamon's bins are left out."""
    found: dict[int, list[Look]] = {}
    for row in reader.table_rows("panel"):
        inside = (window.start_ns is None or row["time_ns"] >= window.start_ns) and (
            window.end_ns is None or row["time_ns"] <= window.end_ns
        )
        idle, unseen, ended = (np.array(row[name], np.int64) for name in ("idle", "unseen", "ended"))
        if (
            not inside
            or target not in (None, row["target"])
            or any(len(one) != len(BOUNDS_S) for one in (idle, unseen, ended))
        ):
            continue
        look = Look(row["time_ns"], row["target"], row["resident_bytes"], idle, unseen, ended, row["unknown"])
        found.setdefault(row["target"], []).append(look)
    return found


def estimate(found: list[Look], window_s: float) -> Estimate | None:
    """The working set of a window: from the looks that come at least so long after the first one."""
    settled = [look for look in found if look.time_ns - found[0].time_ns >= (window_s - 1.5) * SECOND_NS]
    return used_within(settled, window_s) if settled else None


def words(one: Estimate | None, recorded_ns: int) -> str:
    """``70.7 MiB ± 8.7 MiB``, or that it cannot be known yet."""
    if one is None:
        return f"–: recorded for {format_duration_ns(recorded_ns)}"
    return f"{format_size(one.bytes)} ± {format_size(one.half_width_bytes)}"


def report(path: str, choice: Choice, as_json: bool, window_ns: int) -> None:
    """Print how much memory was used within a window, with 95 % intervals."""
    screen = current_screen()
    window_s = BOUNDS_S[bound_of(window_ns / SECOND_NS)]
    with opened(path) as reader:
        span = reader.time_range()
        if span is None:
            raise empty(reader, None)
        found = looks(reader, window_of(choice, span), choice.target)
        if not found:
            raise PydamonError(
                "has no page panel, which tells the working set of a window: the primitive asks no single pages, it "
                "was recorded with --panel 0, --faithful or by the kernel, or imported",
                where=path,
            )
        told: list[dict[str, Any]] = []
        for target, mine in sorted(found.items()):
            one = estimate(mine, window_s)
            head = {"target": target, "pid": reader.info.target(target).pid, "window_s": window_s}
            low, high = (None, None) if one is None else (one.low_bytes, one.high_bytes)
            told.append({**head, "bytes": None if one is None else one.bytes, "low_bytes": low, "high_bytes": high})
            if not as_json:
                parts = (format_duration_ns(span[1] - span[0]), source_line(reader))
                details = ", ".join(part for part in parts if part)
                text = f"used within {format_duration_ns(window_s * SECOND_NS)}: {words(one, span[1] - span[0])}"
                if one is not None:
                    text += f" (95 %: {format_size(one.low_bytes)} to {format_size(one.high_bytes)})"
                lines = [
                    styled(target_line(reader, target, screen.limit, screen.ellipsis), BOLD, screen),
                    styled(screen.fit(f"{printable(reader.path)}: {details}; resident memory"), DIM, screen),
                    screen.fit(text),
                ]
                emit("\n".join(lines) + "\n")
        if as_json:
            emit(msgspec.json.encode({"targets": told}).decode() + "\n")
