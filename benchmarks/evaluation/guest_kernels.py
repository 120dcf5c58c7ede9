"""Proactive reclamation of ten kernels in the lab: `reclaim` on our engine, and as the kernel's DAMON carries it out.

Started anywhere it boots the guest and prints what the guest prints. A kernel works in a cgroup of its own on one CPU,
swap is on zram; what has not been used for `--min-age` is paged out, with no quota (the `prcl` of DAMON's authors).
*saved* is by how much less its cgroup uses, on average from the age on; *slower* what it loses of its work per second
of its CPU time, and the share of the time that it waits for memory (PSI); *CPU* the monitor's. Times are those of an
emulated machine, whose TLB hides accesses: compare rows.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation import cgroups
from benchmarks.evaluation.kernels import KERNELS
from benchmarks.evaluation.report import machine
from benchmarks.kernel import MONITOR_CPU, NEIGHBOUR, ROOT, TARGET_CPU, pinned
from benchmarks.kernel_damon import cpu_seconds, is_guest
from benchmarks.spinner import Counted

PUBLISHED = "93.38% of the resident memory at 1.22% (parsec3/freqmine, their best case)"
ENGINES = ("user", "kernel")


@dataclass(frozen=True)
class Outcome:
    """Shares: of the cgroup's memory that was saved, of the speed that was lost, of a CPU that the monitor took."""

    saved: float
    slower: float
    cpu: float


def measure(name: str, engine: str, options: argparse.Namespace) -> Outcome:
    """One kernel under one engine; the kernel's own threads are not in *CPU* of engine kernel."""
    with (
        cgroups.made("evaluation") as cgroup,
        pinned([sys.executable, "-S", "-c", NEIGHBOUR]),
        Counted("benchmarks.evaluation.kernels", name, str(options.mib), cpu=TARGET_CPU, cgroup=cgroup) as work,
        tempfile.TemporaryDirectory() as folder,
    ):
        before = work.rate(lambda: time.sleep(0.05), 10)
        used = cgroups.number(cgroup, "memory.current")
        command = ["taskset", "-c", str(MONITOR_CPU), sys.executable, "-m", "pydamon", "record", str(work.pid)]
        command += ["--engine", engine, "--module", f"reclaim min_age={options.min_age}s quota=off watermarks=off"]
        with subprocess.Popen(
            [*command, "-o", f"{folder}/r"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as monitor:
            try:
                assert monitor.stderr is not None
                if not any("monitoring" in line for line in monitor.stderr):
                    raise SystemExit("evaluation: the recording did not begin")
                time.sleep(options.min_age)
                began, spent_s, waited_us = time.monotonic(), cpu_seconds(monitor.pid), cgroups.stalled_us(cgroup)
                left: list[int] = []

                def look() -> None:
                    left.append(cgroups.number(cgroup, "memory.current"))
                    time.sleep(0.5)

                during = work.rate(look, options.seconds)
                lasted = time.monotonic() - began
                stall = (cgroups.stalled_us(cgroup) - waited_us) / 1e6 / lasted
                cpu = (cpu_seconds(monitor.pid) - spent_s) / lasted
            finally:
                monitor.terminate()
                monitor.communicate()
    return Outcome(1 - statistics.mean(left) / used, 1 - during / before + stall, cpu)


def main() -> None:
    """Run in the guest; from elsewhere, start the guest."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--only", action="append", choices=list(KERNELS), help="this kernel; repeatable")
    parser.add_argument("--mib", type=int, default=128, help="memory of each (default: 128)")
    parser.add_argument("--seconds", type=int, default=60, help="how long each is measured (default: 60)")
    parser.add_argument("--min-age", type=int, default=5, metavar="SECONDS", help="the module's knob (default: 5)")
    options = parser.parse_args()
    if not is_guest():
        command = [str(ROOT / "lab/run"), "--timeout", "7200", "--", sys.executable, "-m", "benchmarks.evaluation"]
        raise SystemExit(subprocess.run([*command, Path(__file__).stem.replace("_", "-"), *sys.argv[1:]]).returncode)
    print(f"guest-kernels: min_age={options.min_age}s, {options.mib} MiB each, {options.seconds} s\n{machine()}")
    print(f"{'':<12} {'engine':<8} {'saved':>8} {'slower':>8} {'CPU':>8}")
    for name in options.only or KERNELS:
        for engine in ENGINES:
            found = measure(name, engine, options)
            print(f"{name:<12} {engine:<8} {found.saved:>8.1%} {found.slower:>8.1%} {found.cpu:>8.1%}", flush=True)
    print(f"published: {PUBLISHED}")


if __name__ == "__main__":
    main()
