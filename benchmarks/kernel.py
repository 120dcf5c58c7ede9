"""Our engine beside the kernel's DAMON: the same workloads, intervals and bounds on regions, in the guest lab.

Started anywhere it boots the guest and prints what the guest prints. There, each monitor meets each workload: the
workload alone on one CPU (with a process that wakes up every 5 ms: a switch of address spaces empties the emulated TLB,
which is far larger than a processor's), the monitor on the other one. What the workload loses is measured apart, on a
process that sweeps memory without pause, with the monitor stopped every other second. Times are those of an emulated
machine: compare rows, not with other machines.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kernel_damon import KernelDamon, cpu_seconds
from benchmarks.spinner import Spinner
from pydamon.analysis.accuracy import PhaseScore, score_phases
from pydamon.core.snapshot import Snapshot
from pydamon.errors import PydamonError
from pydamon.records.reader import RecordReader
from pydamon.workload.truth import GroundTruth, from_events

ROOT = Path(__file__).resolve().parents[1]
OURS = ("idle", "bpf+idle", "bpf", "smaps")
MONITORS = ("kernel", *OURS)
# Phases of 5 s; the two with one long phase need no 30 s of it.
WORKLOADS = {"stairs": 1.0, "zigzag": 1.0, "random": 0.5, "hotspots": 0.5}
TARGET_CPU, MONITOR_CPU = 0, 1
NEIGHBOUR = "import time\nwhile True: time.sleep(0.005)"
HEADER = f"{'':22} {'wss error':>15} {'found':>9} {'precision':>9} {'recall':>7} {'regions':>7} {'late':>5} {'CPU':>7}"


class Ours:
    """A `pydamon record` of its own process."""

    def __init__(self, pid: int, primitive: str, options: argparse.Namespace, directory: str) -> None:
        self._record = Path(directory, "x.damon")
        command = [sys.executable, "-m", "pydamon", "record", "-o", str(self._record), "--primitive", primitive]
        command += ["--sample", f"{options.sample_us}us", "--aggr", f"{options.aggr_us}us", "--update", "1s"]
        command += ["--min-regions", "10", "--max-regions", "1000", "--seed", "1", str(pid)]
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._log)

    def start(self, cpu: int) -> None:
        """Wait until it monitors."""
        os.sched_setaffinity(self._process.pid, {cpu})
        began, first = time.monotonic(), 0
        while True:
            if self._process.poll() is not None or time.monotonic() > began + 120:
                self._log.seek(0)
                raise PydamonError(f"the recording did not begin: {self._log.read().strip()}")
            size = self._record.stat().st_size if self._record.exists() else 0
            first = first or size
            if size > first:  # the snapshots of the first second
                return
            time.sleep(0.05)

    def cpu_seconds(self) -> float:
        """CPU time of the whole process so far."""
        return cpu_seconds(self._process.pid)

    def pause(self) -> None:
        """Stop for a while."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> list[Snapshot]:
        """Wait for its end, which is that of its target; what it found."""
        try:
            self._process.wait(120)
        finally:
            self._process.kill()
            self._log.close()
        with RecordReader(self._record) as reader:
            return list(reader.snapshots())


@dataclass(frozen=True)
class Result:
    """What one monitor made of one workload. ``rate``: accesses of the workload per second meanwhile."""

    rate: float
    cpu_share: float
    scores: tuple[PhaseScore, ...]
    late: float  # by how much aggregations take longer than asked for


@contextmanager
def pinned(command: list[str], **pipes: object) -> Iterator[subprocess.Popen[str]]:
    """A process on the target's CPU; killed in the end."""
    process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
    try:
        os.sched_setaffinity(process.pid, {TARGET_CPU})
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(events: Path, condition: str, process: subprocess.Popen[str]) -> None:
    """Until a line of the workload's events holds that text, or it has ended."""
    while condition not in events.read_text() and process.poll() is None:
        time.sleep(0.05)


def measure(workload: str, monitor: str, options: argparse.Namespace) -> Result:
    """One workload with one monitor."""
    scale = WORKLOADS[workload] * options.time_scale
    with tempfile.TemporaryDirectory() as directory:
        events = Path(directory, "events")
        command = [sys.executable, "-m", "benchmarks.counted_workload", workload, str(scale), options.mapping]
        with (
            pinned([sys.executable, "-S", "-c", NEIGHBOUR]),
            events.open("w") as out,
            pinned(command, stdin=subprocess.PIPE, stdout=out) as target,
        ):
            wait_for(events, '"layout"', target)
            watcher = begin(monitor, target.pid, options, directory)
            assert target.stdin
            target.stdin.write("go\n")
            target.stdin.flush()
            wait_for(events, '"count"', target)  # the warm-up is over
            began = now = time.monotonic()
            cpu = spent = watcher.cpu_seconds()
            while target.poll() is None and '"event": "end"' not in events.read_text()[-200:]:
                time.sleep(0.02)
                try:
                    spent, now = watcher.cpu_seconds(), time.monotonic()
                except FileNotFoundError:  # a kdamond ends with its target
                    break
            target.wait()
            found = watcher.stop()
        lines = events.read_text().splitlines()
    scores, late = score(found, from_events(lines), options.aggr_us)
    return Result(throughput(lines), (spent - cpu) / (now - began), scores, late)


def begin(monitor: str, pid: int, options: argparse.Namespace, directory: str) -> KernelDamon | Ours:
    """A monitor that has begun to monitor."""
    watcher: KernelDamon | Ours
    if monitor == "kernel":
        watcher = KernelDamon(pid, options.sample_us, options.aggr_us, 10, 1000)
    else:
        watcher = Ours(pid, monitor, options, directory)
    watcher.start(MONITOR_CPU)
    return watcher


def slowdown(monitor: str, options: argparse.Namespace) -> tuple[float, float]:
    """Share of its speed (per second of its own CPU time) that a sweep of 16 of 256 MiB loses; and the spread of it."""
    with (
        tempfile.TemporaryDirectory() as directory,
        pinned([sys.executable, "-S", "-c", NEIGHBOUR]),
        Spinner(16, 240, cpu=TARGET_CPU) as spinner,
    ):
        watcher = begin(monitor, spinner.pid, options, directory)
        running = True

        def toggled(wanted: bool) -> None:
            nonlocal running
            if running != wanted:
                (watcher.resume if wanted else watcher.pause)()
                running = wanted
            time.sleep(0.05)

        try:
            return spinner.lost(lambda: toggled(True), lambda: toggled(False), seconds=1.5, pairs=10)
        finally:
            toggled(True)
            spinner.kill()
            watcher.stop()


def throughput(lines: list[str]) -> float:
    """Accesses per second in all phases but the warm-up."""
    counts = [event for event in map(json.loads, lines) if event["event"] == "count"][1:]
    return sum(e["accesses"] for e in counts) / sum(e["wall_ns"] for e in counts) * 1e9


def score(found: list[Snapshot], truth: GroundTruth, aggr_us: int) -> tuple[tuple[PhaseScore, ...], float]:
    """Scores of the phases but the warm-up, and by how much aggregations took longer than asked for."""
    places = truth.layout.regions
    window = min(p.start for p in places), max(p.end for p in places)
    warm_ns = truth.schedule.cycle[0].end_ns
    scores = score_phases([s for s in found if s.start_ns >= warm_ns], truth.hot_ranges, window=window)
    took = statistics.median(s.end_ns - s.start_ns for s in found) / 1000 if found else float("nan")
    return tuple(scores), took / aggr_us - 1


def line(title: str, result: Result) -> str:
    """One row: as in `benchmarks.truth`, with the monitor's CPU share."""
    if not result.scores:
        return f"{title:22} no phase was long enough for a snapshot inside it"
    errors = [score.wss_error for score in result.scores]
    found = [float("inf") if score.found_after is None else score.found_after for score in result.scores]
    after = f"{statistics.median(found):.0f} ≤ {max(found):.0f}".replace("inf", "never")
    return (
        f"{title:22} {statistics.median(errors):6.1%} ≤ {max(errors):6.1%} {after:>9} "
        f"{min(s.precision for s in result.scores):9.3f} {min(s.recall for s in result.scores):7.3f} "
        f"{statistics.median(s.regions for s in result.scores):7.0f} {result.late:5.0%} {result.cpu_share:7.2%}"
    )


def in_guest(options: argparse.Namespace) -> None:
    """Print the table."""
    print(
        f"kernel: sampling every {options.sample_us / 1000:g} ms, aggregating every {options.aggr_us / 1000:g} ms, "
        f"10 to 1000 regions, mappings: {options.mapping}"
    )
    print("late: by how much aggregations took longer than asked for; CPU: of the monitor, of one CPU;")
    print("precision and recall: worst phase; the other columns are those of `benchmarks truth`\n")
    print(HEADER)
    monitors = options.monitor or MONITORS
    for workload in options.workload or WORKLOADS:
        rates = []
        for monitor in monitors:
            try:
                result = measure(workload, monitor, options)
            except PydamonError as error:
                print(f"{monitor} {workload}: {error}")
                continue
            print(line(f"{monitor} {workload}", result), flush=True)
            rates.append(result.rate)
        if rates:
            print(f"{workload}: {statistics.median(rates) / 1e6:.2f} M accesses/s\n", flush=True)
    print("What a sweep of 16 of 256 MiB loses (share of its speed, ± half the distance between the quartiles):")
    for monitor in monitors:
        try:
            lost, spread = slowdown(monitor, options)
        except PydamonError as error:
            print(f"{monitor}: {error}")
            continue
        print(f"{monitor:22} {lost:6.1%} ±{spread:5.1%}", flush=True)


def main() -> None:
    """Run in the guest; from elsewhere, start the guest."""
    parser = argparse.ArgumentParser(prog="benchmarks kernel", description=__doc__)
    parser.add_argument("--sample-us", type=int, default=50_000, help="sampling interval (50000)")
    parser.add_argument("--aggr-us", type=int, default=1_000_000, help="aggregation interval (1000000)")
    parser.add_argument("--time-scale", type=float, default=2.0, help="how much longer the workloads run (2)")
    parser.add_argument("--mapping", choices=("separate", "one"), default="separate")
    parser.add_argument("--monitor", action="append", choices=MONITORS, help="only this one; repeatable")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only this one; repeatable")
    options = parser.parse_args()
    if "pydamon.lab=1" in Path("/proc/cmdline").read_text().split():
        in_guest(options)
        return
    command = [str(ROOT / "lab/run"), "--timeout", "7200", "--"]
    status = subprocess.run([*command, sys.executable, "-m", "benchmarks", "kernel", *sys.argv[1:]]).returncode
    if status:
        raise SystemExit(status)
