"""``pydamon fleet compact`` and ``simulate``: what writes a data set."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pydamon.cli.render.screen import emit, emit_json, warn
from pydamon.spec.units import format_size

if TYPE_CHECKING:
    from pydamon.fleet.compact import Compacted


def compact(path: str, keep: int | None, keep_hours: int | None, jobs: int | None, memory: int, as_json: bool) -> None:
    """Compact, and say what was done."""
    from pydamon.fleet.compact import compact as compacted
    from pydamon.fleet.engine import Means

    began = time.monotonic()
    done = compacted(path, keep_days=keep, keep_hours_days=keep_hours, jobs=jobs, means=Means(memory))
    if as_json:
        told = {name: value for name, value in asdict(done).items() if name != "left_out"}
        emit_json({**told, "left_out_rows": done.left_out.rows, "nr_left_out_files": done.left_out.nr_files})
    else:
        emit(_words(done, time.monotonic() - began) + "\n")
    warn(done.left_out.lines())


def _words(done: Compacted, took_s: float) -> str:
    if not done.partitions and not done.deleted_dates:
        return "nothing new to compact"
    words = []
    if done.partitions:
        words = [f"{done.files_before:,} files of {done.partitions:,} partitions became {done.files_after:,}",
                 f"{done.rows:,} rows, and roll-ups of their hours"]  # fmt: skip
    if done.deleted_dates:
        words.append(f"deleted what was too old, of {done.deleted_dates} dates")
    return f"{'; '.join(words)} ({took_s:.1f} s)"


def simulate(
    path: str, hosts: int, cgroups: int, days: float, until: int | None, pieces: int, seed: int, jobs: int | None
) -> None:
    """Write a simulated fleet, and say how much."""
    from pydamon.fleet.simulated.hosts import Fleet
    from pydamon.fleet.simulated.write import TRUTH
    from pydamon.fleet.simulated.write import simulate as simulated

    began = time.monotonic()
    minutes = max(round(days * 1440), 1)
    end = int(time.time()) if until is None else until
    end = end // 86400 * 86400 if until is None else end // 60 * 60
    done = simulated(Path(path), Fleet(hosts, cgroups, minutes, end - minutes * 60, seed), pieces=pieces, jobs=jobs)
    took = time.monotonic() - began
    emit(
        f"{done.rows:,} rows in {done.files:,} files, {format_size(done.bytes)} ({took:.1f} s); {TRUTH} has the truth\n"
    )
