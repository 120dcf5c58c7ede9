"""Other tools' formats: how fast they are read and written, and whether damo agrees about what is in them.

    python -m benchmarks formats [--snapshots 6000] [--damo COMMAND]

Makes a recording of 500 regions a snapshot as `perf script` prints it and as damo writes it (see `formats_input`), and
runs whole processes on it. With ``--damo`` (the command of a damo that is installed somewhere: it is only asked to
report on files) its heatmap and working set of the same text are measured beside ours, its raw regions are compared
with ours, and it is shown our exports. On a busy machine the CPU time says more than the elapsed one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.formats_input import make

PYDAMON = [sys.executable, "-m", "pydamon"]
_FEW = 200  # snapshots of which damo and we print every region


@dataclass(frozen=True)
class Run:
    """A process: seconds that passed, seconds of CPU, largest resident size in MiB, what it printed."""

    wall: float
    cpu: float
    peak_mib: float
    output: str

    def line(self, what: str, note: str = "") -> str:
        """A row of the table."""
        return f"{what:34} {self.wall:7.2f} s {self.cpu:7.2f} s {self.peak_mib:7.0f} MiB  {note}"


def run(*command: str) -> Run:
    """Run it to its end; CalledProcessError if it fails."""
    with tempfile.TemporaryFile() as sink:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=sink, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        sink.seek(0)
        output = sink.read().decode("utf-8", "replace")
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, output)


def _imports(folder: Path, rows: int) -> None:
    for name, what in (("text", "perf-script text"), ("damo", "damo's record")):
        size = (folder / name).stat().st_size
        done = run(*PYDAMON, "import", str(folder / name), "-o", str(folder / "imported"))
        each = (folder / "imported").stat().st_size / rows
        note = f"{size / 1e6:.0f} MB: {size / 1e6 / done.wall:.0f} MB/s, {each:.2f} bytes a row"
        print(done.line(f"import of {what}", note))


def _exports(folder: Path) -> None:
    for kind in ("damo", "perf-script", "parquet", "csv", "jsonl", "trace-events"):
        path = folder / f"exported.{kind}"
        done = run(*PYDAMON, "export", str(folder / "record"), "--format", kind, "-o", str(path))
        print(done.line(f"export to {kind}", f"{path.stat().st_size / 1e6:.0f} MB"))
        if kind != "damo":
            path.unlink()


def _straight(folder: Path, damo: str | None) -> None:
    """Reports of the text as it is, beside damo's."""
    for report in ("heatmap", "wss"):
        ours = run(*PYDAMON, "report", report, "-i", str(folder / "text"))
        print(ours.line(f"{report} straight from the text"))
        if damo is not None:
            theirs = run(damo, "report", report, "-i", str(folder / "text"))
            note = f"ours is {theirs.wall / ours.wall:.0f} times as fast ({theirs.cpu / ours.cpu:.0f} by CPU time)"
            print(theirs.line(f"  damo report {report}", note))


_RAW_REGION = re.compile(r"([0-9a-f]{12})-([0-9a-f]{12}) \([^)]*\)\s+(\d+)\s+(-?\d+)")


def _agreement(folder: Path, damo: str) -> None:
    """Compare every region and time that damo and we find in text, in its record, and in what we export."""
    make(_FEW, str(folder / "few"), "-", str(folder / "few.damo"))
    for kind in ("damo", "perf-script"):
        run(*PYDAMON, "export", str(folder / "few"), "--format", kind, "-o", str(folder / f"few.{kind}.exported"))
    for name in ("few", "few.damo", "few.damo.exported", "few.perf-script.exported"):
        path = str(folder / name)
        theirs = run(damo, "report", "access", "-i", path, "--raw_form", "--raw_number").output
        base = int(re.search(r"base_time_absolute: (\d+)", theirs)[1])  # type: ignore[index]
        their_ends = [base + int(end) for end in re.findall(r"monitoring_end: +(\d+)", theirs)]
        their_regions = [(int(s, 16), int(e, 16), int(n), int(a)) for s, e, n, a in _RAW_REGION.findall(theirs)]
        printed = run(*PYDAMON, "export", path, "--format", "jsonl", "-o", "-").output
        rows = [json.loads(line) for line in printed.splitlines()]
        regions = [(row["start"], row["end"], row["nr_accesses"], row["age"]) for row in rows]
        ends = list(dict.fromkeys(row["end_ns"] for row in rows))
        # damo goes through a float: it may be a nanosecond off.
        times = len(ends) == len(their_ends) and max(abs(a - b) for a, b in zip(ends, their_ends, strict=True)) <= 1
        print(
            f"{name}: {len(regions)} regions, damo finds {'the same' if regions == their_regions else 'OTHERS'}; ",
            end="",
        )
        print(f"{len(ends)} times, {'the same' if times else 'OTHERS'}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks formats")
    parser.add_argument("--snapshots", type=int, default=6000)
    parser.add_argument("--damo", help="the command of an installed damo")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(options.snapshots, str(folder / "text"), str(folder / "record"), str(folder / "damo"))
        rows = 500 * options.snapshots
        print(f"{rows:,} regions; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
        print(f"{'':34} {'elapsed':>9} {'CPU':>9} {'memory':>11}")
        _imports(folder, rows)
        _straight(folder, options.damo)
        _exports(folder)
        if options.damo is not None:
            _agreement(folder, options.damo)


if __name__ == "__main__":
    main()
