"""What a recording with the default settings costs: share of a CPU, of three programs at once.

``python -m benchmarks default-cost [--seconds 120]``. *running* is what the record's own account says between its first
and its last row (starting up and ending are not in it); *whole* is all CPU time of the `pydamon record` process.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import answers_programs as programs
from benchmarks.answers_programs import Missing, Running
from pydamon.records.joined import open_record

PROGRAMS: dict[str, Callable[[], AbstractContextManager[Running]]] = {
    "Python service, 16/60/300 MiB": partial(programs.python, programs.SERVICE),
    "redis, 40 MB hot": programs.redis,
    "JVM, 20 of 200 MiB hot": programs.java,
}
AIM = 0.01


def running_share(path: Path) -> tuple[float, float]:
    """CPU share between the first and the last account in a record, and its last aggregation interval in s."""
    with open_record(str(path)) as reader:
        rows = [(row["time_ns"], row["cpu_ns"]) for row in reader.table_rows("cost")]
        ends = np.unique(np.concatenate([batch.end_ns for batch in reader.batches()]))
    (began_ns, before_ns), (ended_ns, after_ns) = rows[0], rows[-1]
    return (after_ns - before_ns) / (ended_ns - began_ns), float(ends[-1] - ends[-2]) / 1e9


def main() -> None:
    """Print a line for each program."""
    parser = argparse.ArgumentParser(prog="benchmarks default-cost", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120, help="how long to record (default: 120)")
    seconds = parser.parse_args().seconds
    print(f"default-cost: default settings, {seconds:g} s; aim {AIM:.0%} of a CPU while it runs")
    print(f"{'':<32} {'running':>8} {'whole':>8} {'aggregation':>12}")
    with ExitStack() as stack, tempfile.TemporaryDirectory() as directory:
        started: list[tuple[str, Path, subprocess.Popen[bytes]]] = []
        for name, program in PROGRAMS.items():
            running = enter(stack, name, program())
            if running is None:
                continue
            path = Path(directory) / f"{len(started)}.damon"
            command = [sys.executable, "-m", "pydamon", "record", str(running.pids[0]), "-o", str(path)]
            command += ["--duration", f"{seconds}s"]
            started.append((name, path, subprocess.Popen(command, stdout=subprocess.DEVNULL)))
        for name, path, process in started:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"benchmarks: {name}: record ended with {process.returncode}")
            share, aggregation_s = running_share(path)
            whole = (used.ru_utime + used.ru_stime) / seconds
            print(f"{name:<32} {share:>8.2%} {whole:>8.2%} {aggregation_s:>10.2f} s", flush=True)


def enter(stack: ExitStack, name: str, program: AbstractContextManager[Running]) -> Running | None:
    """The program, running until ``stack`` ends; None, and a line, where it is not here."""
    try:
        return stack.enter_context(program)
    except Missing as reason:
        print(f"{name}: skipped, {reason}", flush=True)
        return None


if __name__ == "__main__":
    main()
