"""CPU time of our engine (primitive `bpf`) and of the kernel's DAMON on the same process, with the same settings.

Started anywhere it boots the guest lab and prints what the guest prints. A process sweeps a part of its memory on one
CPU, the monitors take turns on the other one. Rows of fixed intervals: exactly so many regions of the swept memory
(fvaddr), per sample. The last rows: the whole process (vaddr) with our defaults, where we choose the intervals; the
kernel's (which has no such choice before 6.15) then gets those that we came to. Ours is what a record's own account
says between its first and its last row, writing it included; the kernel's is all of its kdamond, with the trace event
on. The guest is emulated: a CPU's time for Python is stretched more than for the kernel. Compare columns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kernel_damon import KernelDamon, thread_seconds
from benchmarks.older import MIB, PLACE, RECORD, SWEEPER
from pydamon.records.joined import open_record

ROOT = Path(__file__).resolve().parents[1]
TARGET_CPU, MONITOR_CPU = 0, 1
PER_AGGREGATION = 20


@dataclass(frozen=True)
class Way:
    """A row: ``regions`` of the swept memory; None: the whole process, ``auto``: with intervals that we choose.

    ``panel``: with the page panel, which the kernel has nothing like.
    """

    name: str
    regions: int | None
    auto: bool = False
    panel: bool = True


WAYS = (
    *(Way(f"{n} regions", n) for n in (10, 130, 1000)),
    Way("whole process", None),
    Way("whole, auto", None, auto=True),
    Way("whole, auto, no panel", None, auto=True, panel=False),
)


@dataclass(frozen=True)
class Spent:
    """CPU time of one monitor: a share of a CPU, per sample in µs, what of it was not spent in clearing calls (0..1);
    and the intervals at its end in µs."""

    share: float
    per_sample_us: float
    not_clearing: float
    intervals: tuple[int, int]


def spec(way: Way, pid: int, size: int, sample_us: int) -> dict[str, Any]:
    """What our engine is to do, with fixed intervals."""
    context: dict[str, Any] = {"ops": "vaddr", "primitive": "bpf", "targets": [{"pid": pid}]}
    context["intervals"] = {"sample_us": sample_us, "aggr_us": PER_AGGREGATION * sample_us}
    if way.regions is not None:
        context["ops"] = "fvaddr"
        context["targets"] = [{"pid": pid, "regions": [{"start": PLACE, "end": PLACE + size}]}]
        context["nr_regions"] = {"min": way.regions, "max": way.regions}
        context["faithful"] = True
    return {"kdamonds": [{"contexts": [context]}]}


def ours(way: Way, pid: int, size: int, sample_us: int, seconds: float) -> Spent:
    """One recording; of one that chooses intervals, its second half."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x.damon")
        if way.auto:  # a choice of the command, not of the library
            command = [sys.executable, "-m", "pydamon", "record", "-o", str(path), "--primitive", "bpf"]
            command += [*(() if way.panel else ("--panel", "0")), "--duration", f"{seconds}s", str(pid)]
        else:
            task = json.dumps(spec(way, pid, size, sample_us))
            command = [sys.executable, "-c", RECORD, task, f"{seconds}s", str(path)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        os.sched_setaffinity(process.pid, {MONITOR_CPU})
        _, said = process.communicate()
        if process.returncode:
            raise SystemExit(f"benchmarks: a recording failed (exit status {process.returncode}): {said.strip()}")
        with open_record(str(path)) as reader:
            rows = [(row["time_ns"], row["cpu_ns"], row["clear_ns"]) for row in reader.table_rows("cost")]
            snapshots = list(reader.snapshots())[:-1]  # the last one is cut short
    rows = rows[len(rows) // 2 :] if way.auto else rows
    (began_ns, before_ns, cleared_ns), (ended_ns, after_ns, after_clearing_ns) = rows[0], rows[-1]
    between = [s for s in snapshots if began_ns < s.end_ns <= ended_ns]
    last = snapshots[-1]
    samples = sum(s.aggr_us // s.sample_us for s in between)
    cpu_ns = after_ns - before_ns
    settings = last.sample_us, last.aggr_us
    rest = 1 - (after_clearing_ns - cleared_ns) / max(cpu_ns, 1)
    return Spent(cpu_ns / (ended_ns - began_ns), cpu_ns / 1000 / max(samples, 1), rest, settings)


def kernels(way: Way, pid: int, size: int, intervals: tuple[int, int], seconds: float) -> Spent:
    """The kernel's DAMON for some time, its first two aggregations left out."""
    least, most, spans = (10, 1000, ()) if way.regions is None else (way.regions, way.regions, ((PLACE, PLACE + size),))
    damon = KernelDamon(pid, *intervals, least, most, spans, "fvaddr" if spans else "vaddr")
    damon.start(MONITOR_CPU)
    try:
        time.sleep(2 * intervals[1] / 1e6)
        began, before = time.clock_gettime_ns(time.CLOCK_MONOTONIC), thread_seconds(damon.pid)
        time.sleep(seconds)
        ended, cpu = time.clock_gettime_ns(time.CLOCK_MONOTONIC), thread_seconds(damon.pid) - before
    finally:
        found = damon.stop()
    aggregations = sum(began < s.end_ns <= ended for s in found)
    per_sample = cpu * 1e6 / max(aggregations * (intervals[1] // intervals[0]), 1)
    return Spent(cpu / (ended - began) * 1e9, per_sample, 1, intervals)


def row(way: Way, pid: int, options: argparse.Namespace) -> str:
    """Both, in turns; medians, and the median of the ratios of neighbours."""
    size, fixed = options.size * MIB, (options.sample_us, PER_AGGREGATION * options.sample_us)
    mine, its = [], []
    for _ in range(options.rounds):
        mine.append(ours(way, pid, size, options.sample_us, options.seconds * (3 if way.auto else 1)))
        its.append(kernels(way, pid, size, mine[-1].intervals if way.auto else fixed, options.seconds))
    ratio = statistics.median(
        a.share / b.share if way.auto else a.per_sample_us / b.per_sample_us for a, b in zip(mine, its, strict=True)
    )
    texts = [f"{way.name:<22}"]
    for runs in (mine, its):
        share, each = statistics.median(r.share for r in runs), statistics.median(r.per_sample_us for r in runs)
        texts.append(f"{share:>8.2%} {each:>8.0f} us")
    sample_us, aggr_us = mine[-1].intervals
    rest = ratio * statistics.median(each.not_clearing for each in mine)
    return " ".join((*texts, f"{ratio:>7.1f} {rest:>9.1f}", f"  {sample_us / 1000:g} ms / {aggr_us / 1000:g} ms"))


def in_guest(options: argparse.Namespace) -> None:
    """Print the table."""
    print(f"kernel-cost: {options.hot:.0%} of {options.size} MiB swept; medians of {options.rounds} turns of")
    print(f"             {options.seconds:g} s; share of a CPU, CPU time per sample, ratio (of shares where auto);")
    print(
        "             no clears: ratio without the time in clearing calls, which drop the TLB (the kernel's do not)\n"
    )
    print(f"{'':22} {'bpf':>20} {'kdamond':>20} {'ratio':>7} {'no clears':>9}   intervals")
    command = [sys.executable, "-c", SWEEPER, str(PLACE), str(options.size * MIB), str(options.hot)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            os.sched_setaffinity(process.pid, {TARGET_CPU})
            assert process.stdout
            process.stdout.readline()
            for way in WAYS:
                if not options.row or way.name.startswith(tuple(options.row)):
                    print(row(way, process.pid, options), flush=True)
        finally:
            process.kill()


def main() -> None:
    """Run in the guest; from elsewhere, start the guest."""
    parser = argparse.ArgumentParser(prog="benchmarks kernel-cost", description=__doc__)
    parser.add_argument("--sample-us", type=int, default=20_000, help="fixed sampling interval (20000)")
    parser.add_argument("--size", type=int, default=128, help="MiB of the process (128)")
    parser.add_argument("--hot", type=float, default=0.1, help="share of it that is swept (0.1)")
    parser.add_argument("--rounds", type=int, default=3, help="turns (3)")
    parser.add_argument("--seconds", type=float, default=20, help="of each; three times that for ours with auto (20)")
    parser.add_argument("--row", action="append", help="only rows whose name begins so; repeatable")
    options = parser.parse_args()
    if "pydamon.lab=1" in Path("/proc/cmdline").read_text().split():
        in_guest(options)
        return
    command = [str(ROOT / "lab/run"), "--timeout", "7200", "--", sys.executable, "-m", "benchmarks", "kernel-cost"]
    status = subprocess.run([*command, *sys.argv[1:]], check=False).returncode
    if status:
        raise SystemExit(status)
