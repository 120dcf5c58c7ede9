"""`reclaim` beside the kernel's DAMON_RECLAIM with the same knobs, in the lab's guest, with swap on zram.

Started anywhere it boots the guest and prints what the guest prints. Each workload is a process in a cgroup of its own,
which sweeps 32 MiB without pause, and has 96 or 400 MiB that it never uses; a neighbour wakes up on its CPU every 5 ms
(a switch of address spaces empties the emulated TLB, which hides accesses). `quota` is for both the time and 128 MiB
per second. *saved* is by how much less the cgroup uses at the end; *slower* is what the sweeps per second of their CPU
time lose against those before the monitor, and the share of the time that the cgroup has waited for memory (PSI); *CPU*
is the monitor's. Times are those of an emulated machine: compare rows. `--quotas`: our own under three quotas of time.

The guest has 1 GiB in one node, because DAMON_RECLAIM looks at all physical memory, of which the workload is a part.
Its kernel is 7.3 at least: in 6.12.117 the scheme of DAMON_RECLAIM is lost when its parameters are committed (it is set
on the running context, and the one that is committed over it has none), so that it monitors and never acts. *sim*: such
a workload and our module on the simulated machine, with the costs of a real one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation import cgroups
from benchmarks.evaluation.lab import run_in_lab
from benchmarks.evaluation.recording import monitoring
from benchmarks.evaluation.report import machine, spread, verdict
from benchmarks.kernel import MONITOR_CPU, NEIGHBOUR, TARGET_CPU, pinned
from benchmarks.kernel_damon import cpu_seconds, is_guest
from benchmarks.spinner import Spinner

MIB = 1 << 20
HOT_MIB = 32
PARAMETERS = Path("/sys/module/damon_reclaim/parameters")
WORKLOADS = {
    "read, 96 MiB idle": (96, "read"),
    "written, 96 MiB idle": (96, "write"),
    "read, 400 MiB idle": (400, "read"),
}


@dataclass(frozen=True)
class Outcome:
    """MiB that were saved; what the process lost, in percent of its speed and of its time; percent of a CPU."""

    saved: float
    slower: float
    cpu: float


@contextmanager
def kernel(_cgroup: Path, min_age_s: int, quota_ms: int) -> Iterator[int]:
    """DAMON_RECLAIM; the pid of its kdamond."""
    knobs = {
        "min_age": min_age_s * 1_000_000,
        "quota_ms": quota_ms,
        "quota_sz": 128 * MIB,
        "quota_reset_interval_ms": 1000,
        "wmarks_high": 1000,
        "wmarks_mid": 999,
        "wmarks_low": 0,
    }
    for name, value in knobs.items():
        (PARAMETERS / name).write_text(str(value))
    (PARAMETERS / "enabled").write_text("Y")
    try:
        kdamond = int((PARAMETERS / "kdamond_pid").read_text())
        subprocess.run(["taskset", "-cp", str(MONITOR_CPU), str(kdamond)], check=True, capture_output=True)
        yield kdamond
        if not int((PARAMETERS / "nr_reclaim_tried_regions").read_text()):
            print("  DAMON_RECLAIM has not tried a region in this run", flush=True)
    finally:
        (PARAMETERS / "enabled").write_text("N")


def module_of(min_age_s: int, quota_ms: int) -> str:
    """Ours, with the same knobs."""
    return f"reclaim min_age={min_age_s}s quota={quota_ms}ms+128MiB/1s watermarks=off"


def ours(cgroup: Path, min_age_s: int, quota_ms: int) -> AbstractContextManager[int]:
    """`pydamon record --cgroup CGROUP --module reclaim`, once it monitors; its pid."""
    return monitoring("--cgroup", str(cgroup), "--module", module_of(min_age_s, quota_ms), cpu=MONITOR_CPU)


Monitor = Callable[[Path, int, int], AbstractContextManager[int]]


def measure(monitor: Monitor, workload: str, options: argparse.Namespace, quota_ms: int) -> Outcome:
    """One run."""
    cold_mib, mode = WORKLOADS[workload]
    with (
        cgroups.made("evaluation") as cgroup,
        pinned([sys.executable, "-S", "-c", NEIGHBOUR]),
        Spinner(HOT_MIB, cold_mib, mode, cpu=TARGET_CPU, cgroup=cgroup) as spinner,
    ):
        before = spinner.rate(lambda: time.sleep(0.05), 6)
        used = cgroups.number(cgroup, "memory.current")
        with monitor(cgroup, options.min_age, quota_ms) as watcher:
            began, spent_s, waited_us = time.monotonic(), cpu_seconds(watcher), cgroups.stalled_us(cgroup)
            during = spinner.rate(lambda: time.sleep(0.2), options.seconds)
            lasted = time.monotonic() - began
            cpu = (cpu_seconds(watcher) - spent_s) / lasted
            stall = (cgroups.stalled_us(cgroup) - waited_us) / 1e6 / lasted
            saved = used - cgroups.number(cgroup, "memory.current")
    return Outcome(saved / MIB, 100 * (1 - during / before + stall), 100 * cpu)


def simulated(workload: str, options: argparse.Namespace, quota_ms: int) -> Outcome:
    """The same on the simulated machine: after a second in which all is used, only the hot memory is."""
    cold_mib, _ = WORKLOADS[workload]
    hot = "hot, 1, 64, 100\n"
    text = f"#regions\nhot, {HOT_MIB * MIB}\ncold, {cold_mib * MIB}\n\n# phases\nall\n1000\n{hot}cold, 1, 64, 100\n\n"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "workload")
        program.write_text(f"{text}hot\n{options.seconds * 1000}\n{hot}")
        command = [sys.executable, "-m", "pydamon", "simulate", str(program), "--machine", "ram=1GiB swap=zram:1GiB"]
        module = ["--module", module_of(options.min_age, quota_ms), "--json"]
        told = json.loads(subprocess.run([*command, *module], check=True, capture_output=True, text=True).stdout)
    run = told["runs"][1]
    saved = run["timeline"][0][1] - run["timeline"][-1][1]
    return Outcome(saved / MIB, 100 * run["slowdown"], 100 * (run["monitor_share"] + run["scheme_share"]))


def beside_the_kernel(options: argparse.Namespace) -> None:
    """Print a line for each workload and monitor, and the verdicts."""
    print(f"{'':22} {'':8} {'saved, MiB':>22} {'slower':>22} {'CPU':>22}")
    for workload in options.workload or WORKLOADS:
        found: dict[str, list[Outcome]] = {"kernel": [], "pydamon": []}
        for _ in range(options.runs):  # in turns: a drift of the machine's speed meets both
            for name, monitor in (("kernel", kernel), ("pydamon", ours)):
                found[name].append(measure(monitor, workload, options, options.quota))
        for name, runs in (found | {"sim": [simulated(workload, options, options.quota)]}).items():
            saved, slower = spread([run.saved for run in runs]), spread([run.slower for run in runs], "%")
            cpu = spread([run.cpu for run in runs], "%")
            print(f"{workload:22} {name:8} {saved:>22} {slower:>22} {cpu:>22}", flush=True)
        saving, speed = compared(found["kernel"], found["pydamon"])
        print(f"{'':22} at least its saving: {verdict(saving)}; ", end="")
        print(f"as slow within a point or the spread: {verdict(speed)}", flush=True)


def compared(theirs: list[Outcome], own: list[Outcome]) -> tuple[bool, bool]:
    """Whether as much is saved (by the medians), and the slowdowns differ by no more than a point or their spread."""
    saving = statistics.median(run.saved for run in own) >= statistics.median(run.saved for run in theirs)
    slower = [[run.slower for run in runs] for runs in (theirs, own)]
    allowed = max(1.0, *(max(values) - min(values) for values in slower))
    return saving, statistics.median(slower[1]) - statistics.median(slower[0]) <= allowed


def by_quota(options: argparse.Namespace) -> None:
    """Print what is saved under three quotas of time."""
    saved = {}
    for quota_ms in (10, 50, 200):
        runs = [measure(ours, "read, 400 MiB idle", options, quota_ms) for _ in range(options.runs)]
        saved[quota_ms] = [run.saved for run in runs]
        cpu = spread([run.cpu for run in runs], "%")
        print(f"{quota_ms:4} ms a second: saved {spread(saved[quota_ms])} MiB, {cpu} of a CPU", end="; ")
        sim = simulated("read, 400 MiB idle", options, quota_ms)
        print(f"simulated: {sim.saved:.1f} MiB, {sim.cpu:.1f}%", flush=True)
    ordered = max(saved[10]) < min(saved[50]) and max(saved[50]) < min(saved[200])
    print(f"saving in the order of the quotas: {verdict(ordered)}")


def main() -> None:
    """Run in the guest; from elsewhere, start the guest."""
    parser = argparse.ArgumentParser(prog="evaluation guest-reclaim", description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="of each (default: 1; 5 for a table that is published)")
    parser.add_argument("--seconds", type=int, default=60, help="how long each lasts (default: 60)")
    parser.add_argument("--min-age", type=int, default=10, metavar="SECONDS", help="of both (default: 10)")
    parser.add_argument("--quota", type=int, default=10, metavar="MS", help="ms a second, of both (default: 10)")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="only this one; repeatable")
    parser.add_argument("--steady", action="store_true", help="in a guest whose time goes by its instructions")
    parser.add_argument("--quotas", action="store_true", help="our own under three quotas instead")
    options = parser.parse_args()
    if not is_guest():
        guest = ["--timeout", "7200", "--memory", "1G", "--nodes", "1", "--kernel", "7.3"]
        guest += ["--steady"] if options.steady else []
        run_in_lab("guest-reclaim", *guest)
    quota = "" if options.quotas else f" quota={options.quota}ms+128MiB/1s"
    print(f"guest-reclaim: min_age={options.min_age}s{quota}, {options.seconds} s, {options.runs} runs\n{machine()}")
    by_quota(options) if options.quotas else beside_the_kernel(options)


if __name__ == "__main__":
    main()
