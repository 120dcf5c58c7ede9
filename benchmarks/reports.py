"""What reports cost on large records, whole processes, beside `damo` from PyPI on the same snapshots.

Makes the records itself: 500 regions a snapshot, of which a tenth moves or changes each time. damo is installed into a
throw-away environment (needs the network; left out without it), reads the same snapshots as perf-script text, and is
asked only to report. Times are the best of some runs: elapsed, and CPU time of all threads, which a busy machine
disturbs less; memory is the largest resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pydamon.analysis.heatmap import HeatAccumulator
from pydamon.core.snapshot import Snapshot
from pydamon.records.reader import RecordReader
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter

REGIONS = 500
PAGES = 1 << 18
BASE = 0x7F0000000000
AGGR_NS = 100_000_000
REPORTS = {
    "heatmap": ["heatmap"],
    "wss": ["wss"],
    "last snapshot": ["access"],
    "temperature of all": ["temperature", "--whole"],
}
GRID = (100, 128)  # cells of time and of addresses, whole numbers of bytes, so that damo's cells are ours


def make_record(path: Path, snapshots: int) -> None:
    """A record of so many snapshots of 500 regions over 1 GiB."""
    rng = np.random.default_rng(1)
    cuts = np.sort(rng.choice(np.arange(1, PAGES), REGIONS - 1, replace=False))
    accesses, age = rng.integers(0, 21, REGIONS), rng.integers(0, 100, REGIONS)
    about = build_metadata(targets=[{"target": 0, "pid": 1234, "command": "generated"}], ops="vaddr", primitive="bpf")
    with RecordWriter(path, metadata=about) as writer:
        for number in range(snapshots):
            moved = cuts.copy()
            moved[rng.integers(0, REGIONS - 1, 25)] += rng.integers(-3, 4, 25)
            cuts = np.unique(moved.clip(1, PAGES - 1))
            while len(cuts) < REGIONS - 1:
                cuts = np.unique(np.append(cuts, rng.integers(1, PAGES, REGIONS - 1 - len(cuts))))
            changed = rng.integers(0, REGIONS, 50)
            accesses[changed] = rng.integers(0, 21, 50)
            age += 1
            age[changed] = 0
            bounds = np.concatenate([[0], cuts, [PAGES]]).astype(np.uint64) * np.uint64(4096) + np.uint64(BASE)
            start_ns = 10**9 + number * AGGR_NS
            columns = (bounds[:-1], bounds[1:], accesses.astype(np.uint32), age.astype(np.uint32))
            writer.add_snapshot(Snapshot(0, start_ns, start_ns + AGGR_NS, 5_000, 100_000, *columns))


def add_record_options(parser: argparse.ArgumentParser) -> None:
    """Which record is measured: see `record_of`."""
    parser.add_argument("--snapshots", type=int, default=72_000, help=f"of {REGIONS} regions each")
    parser.add_argument("--record", help="a record of one target to use instead of making one")


@contextmanager
def record_of(options: argparse.Namespace) -> Iterator[Path]:
    """The record that was asked for, or else one that is made, for as long as this lasts."""
    if options.record is not None:
        yield Path(options.record)
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "made.damon")
        make_record(path, options.snapshots)
        yield path


def least(call: Callable[[], object], repeat: int) -> tuple[float, float]:
    """The least elapsed and CPU time of this process that it takes, in s."""
    elapsed, cpu = float("inf"), float("inf")
    for _ in range(repeat):
        began, began_cpu = time.monotonic(), time.process_time()
        call()
        elapsed, cpu = min(elapsed, time.monotonic() - began), min(cpu, time.process_time() - began_cpu)
    return elapsed, cpu


def write_text(record: Path, path: Path, snapshots: int) -> None:
    """The first snapshots of a record as ``perf script`` prints them of damon:damon_aggregated."""
    with RecordReader(record) as reader, open(path, "w") as file:
        for number, one in enumerate(reader.snapshots()):
            if number == snapshots:
                return
            when = f"{one.end_ns // 10**9}.{one.end_ns % 10**9 // 1000:06d}"
            head = f"kdamond.0  4452 [000] {when}: damon:damon_aggregated: target_id=0 nr_regions={len(one.start)} "
            columns = (one.start.tolist(), one.end.tolist(), one.nr_accesses.tolist(), one.age.tolist())
            file.write("".join(f"{head}{a}-{b}: {n} {age}\n" for a, b, n, age in zip(*columns, strict=True)))


@dataclass(frozen=True, slots=True)
class Run:
    """The best of some runs: elapsed and CPU time in s; the most memory in MB."""

    elapsed: float
    cpu: float
    memory: float
    output: str


def measured(command: Sequence[str], environment: dict[str, str], repeat: int) -> Run:
    """Run a command some times."""
    best, cpu, most, output = float("inf"), float("inf"), 0.0, ""
    for _ in range(repeat):
        with tempfile.TemporaryFile("w+") as out:
            began = time.monotonic()
            child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
            _, status, usage = os.wait4(child.pid, 0)
            elapsed = time.monotonic() - began
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise SystemExit(f"{' '.join(command)} ended with {child.returncode}")
            out.seek(0)
            best, cpu = min(best, elapsed), min(cpu, usage.ru_utime + usage.ru_stime)
            most, output = max(most, usage.ru_maxrss / 1024), out.read()
    return Run(best, cpu, most, output)


def _environment(directory: str) -> dict[str, str]:
    """As for an installed package, whose modules are compiled: byte code is kept, below the temporary directory."""
    found = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return found | {"PYTHONPYCACHEPREFIX": str(Path(directory, "compiled"))}


def _print(what: str, rows: int, run: Run, note: str = "") -> None:
    line = f"{what:31} {rows / 1e6:6.2f} M rows {run.elapsed:7.2f} s {run.cpu:7.2f} s CPU {run.memory:6.0f} MB  {note}"
    print(line.rstrip(), flush=True)


def _install_damo(directory: str) -> str | None:
    """damo in an environment of its own; None if that cannot be had."""
    place = Path(directory, "damo")
    try:
        subprocess.run([sys.executable, "-m", "venv", place], check=True, capture_output=True)
        pip = [str(place / "bin" / "pip"), "-q", "install", "damo"]
        subprocess.run(pip, check=True, capture_output=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"damo could not be installed ({type(error).__name__}): nothing to compare with")
        return None
    return str(place / "bin" / "damo")


def _percentiles(text: str) -> list[int]:
    """The mean and the percentiles that ``damo report wss --raw_number`` prints."""
    found = []
    for line in text.splitlines():
        if line.startswith("# avr:"):
            found.append(int(line.split(":")[1]))
        elif line.strip() and not line.startswith("#"):
            found.append(int(line.split()[1]))
    return found


def _beside_damo(directory: str, record: Path, snapshots: int, environment: dict[str, str]) -> None:
    damo = _install_damo(directory)
    if damo is None:
        return
    text = Path(directory, "text")
    write_text(record, text, snapshots)
    rows = snapshots * REGIONS
    version = subprocess.run([damo, "version"], capture_output=True, text=True, check=False).stdout.strip()
    print(f"\nbeside damo {version}, from {text.stat().st_size / 1e6:.0f} MB of text, which pydamon reads as well")
    part = Path(directory, "part.damon")
    until = f"{snapshots * AGGR_NS / 1e9:.1f}s"
    pydamon = [sys.executable, "-m", "pydamon"]
    subprocess.run(
        [*pydamon, "record", "cut", "-i", record, "-o", part, "--to", until], check=True, capture_output=True
    )
    heat = ["heatmap", "--output", "raw", "--resol", *map(str, GRID)]
    sizes = ["wss", "--raw_number", "--exclude_samples", "0"]
    theirs = {}
    for name, arguments in (("heatmap", heat), ("wss", sizes)):
        run = measured([damo, "report", *arguments, "-i", str(text)], environment, 1)
        theirs[name] = run.output
        _print(f"damo report {name}", rows, run)
        for what, path in (("text", text), ("record", part)):
            ours = measured([*pydamon, "report", name, "-i", str(path)], environment, 3)
            ratios = f"{run.cpu / ours.cpu:.0f} x less CPU, {run.memory / ours.memory:.1f} x less memory"
            _print(f"pydamon report {name}, {what}", rows, ours, ratios)
    wanted = [*pydamon, "report", "wss", "--all", "--json", "-i", str(text)]
    (found,) = json.loads(measured(wanted, environment, 1).output)["targets"]
    ours_sizes = [found["mean_bytes"], *found["percentiles"].values()]
    same = "equal" if ours_sizes == _percentiles(theirs["wss"]) else "DIFFERENT"
    print(f"working sets (mean, 0, 25, 50, 75, 100 %): {same}")
    _compare_heat(part, theirs["heatmap"])


def _compare_heat(part: Path, text: str) -> None:
    """Cell by cell: damo's heat is the mean nr_accesses, ours is that in one of the samples."""
    theirs = np.array([float(line.split()[2]) for line in text.splitlines()]).reshape(GRID)
    with RecordReader(part) as reader:
        span = reader.time_range()
        assert span is not None
        times = np.linspace(span[0], span[1], GRID[0] + 1).astype(np.int64)
        size = PAGES * 4096 // GRID[1]
        places = np.uint64(BASE) + np.arange(GRID[1] + 1, dtype=np.uint64) * np.uint64(size)
        accumulator = HeatAccumulator(times, places)
        samples = 1
        for batch in reader.batches(columns=()):
            accumulator.add(batch)
            samples = int(batch.max_nr_accesses[0])
    ours = accumulator.heatmap(0).heat * samples
    apart = float(np.abs(ours - theirs).max())
    print(f"heat in {ours.size:,} cells: totals {ours.sum():.6f} and {theirs.sum():.6f}, at most {apart:.1e} apart")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks reports", description=__doc__.splitlines()[0])
    parser.add_argument("--snapshots", type=int, default=6_000, help="of the smaller record")
    parser.add_argument("--large", type=int, default=72_000, help="of the larger record; 0 for none")
    parser.add_argument("--damo", type=int, default=600, help="snapshots that damo is given too; 0 for none")
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    print("\n== reports of large records: whole processes")
    with tempfile.TemporaryDirectory() as directory:
        environment = _environment(directory)
        records = [Path(directory, f"{number}.damon") for number in (options.snapshots, options.large) if number]
        for record in records:
            snapshots = int(record.stem)
            make_record(record, snapshots)
            size = record.stat().st_size
            each = f"{size / snapshots / REGIONS:.1f} bytes a row"
            print(f"record of {snapshots:,} snapshots: {size / 1e6:.1f} MB, {each}")
            for name, arguments in REPORTS.items():
                command = [sys.executable, "-m", "pydamon", "report", *arguments, "-i", str(record)]
                measured(command, environment, 1)  # what it imports is compiled now
                run = measured(command, environment, options.repeat if snapshots < 10_000 else 2)
                _print(name, snapshots * REGIONS, run)
        if options.damo and records:
            _beside_damo(directory, records[0], min(options.damo, options.snapshots), environment)


if __name__ == "__main__":
    main()
