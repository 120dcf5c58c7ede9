"""``pydamon report cost``: what monitoring itself cost over time."""

from __future__ import annotations

from pydamon.analysis.window import Window
from pydamon.cli.render.screen import current_screen, emit
from pydamon.cli.render.table import table
from pydamon.cli.report.choice import Choice
from pydamon.cli.report.common import opened, window_of
from pydamon.cli.report.series import heading, rows_of
from pydamon.errors import PydamonError
from pydamon.plain import json_text
from pydamon.spec.units import format_duration_ns


def report(path: str, choice: Choice, as_json: bool) -> None:
    """Print what monitoring itself cost over time."""
    screen = current_screen()
    columns = ("cpu_ns", "checks", "check_ns", "clears", "clear_ns", "disturb_ns")
    with opened(path) as reader:
        span = reader.time_range()
        window = window_of(choice, span or (0, 0))
        known = rows_of(reader, "cost", Window(end_ns=window.end_ns))
        began = window.start_ns if window.start_ns is not None else span[0] if span else 0
        rows = [row for row in known if row["time_ns"] >= began]
        if not rows:
            raise PydamonError("does not say what it cost (simulated, imported, or shorter than a second)", where=path)
        looked_up = rows_of(reader, "reverse_map", window)
        if as_json:
            emit(json_text({"samples": rows, "reverse_map": looked_up}) + "\n")
            return
        # The counters run since the start of the recording, of which this may be a part.
        before = [row for row in known if row["time_ns"] < began]
        start_ns = span[0] if span else rows[0]["time_ns"]
        zero = before[-1] if before else {"time_ns": start_ns, **dict.fromkeys(columns, 0)}
        lines = heading(reader, None, "what monitoring cost", screen)
        steps = [*rows[:: max(len(rows) // 20, 1)]]
        if steps[-1] is not rows[-1]:
            steps.append(rows[-1])
        cells = [_cost_cells(earlier, row, start_ns) for earlier, row in zip([zero, *steps], steps, strict=False)]
        total = _cost_cells(zero, rows[-1], start_ns)
        cells.append(["all", *total[1:]])
        lines += table(["up to", "CPU", "checks/s", "checking", "clears/s", "clearing", "disturbed"], cells, screen)
        if looked_up:
            last = looked_up[-1]
            looking = (
                f"of the CPU time {format_duration_ns(last['total_ns'])} went to the reverse map (whose memory it is): "
                f"{last['refreshes']} times, {last['pages']:,} mapped pages the last time"
            )
            lines.append(screen.fit(looking))
        emit("\n".join(lines) + "\n")


def _cost_cells(before: dict[str, int], row: dict[str, int], began_ns: int) -> list[str]:
    elapsed = max(row["time_ns"] - before["time_ns"], 1)

    def share(name: str) -> str:
        return f"{100 * (row[name] - before[name]) / elapsed:.2f} %"

    def rate(name: str) -> str:
        return f"{(row[name] - before[name]) * 1e9 / elapsed:,.0f}"

    return [
        format_duration_ns(row["time_ns"] - began_ns),
        share("cpu_ns"),
        rate("checks"),
        share("check_ns"),
        rate("clears"),
        share("clear_ns"),
        share("disturb_ns"),
    ]
