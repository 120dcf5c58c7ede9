"""Proactive reclamation of ten kernels in the lab: `reclaim` on our engine, and as the kernel's DAMON carries it out.

Started anywhere it boots the guest and prints what the guest prints. A kernel works in a cgroup of its own on one CPU,
swap is on zram; what has not been used for `--min-age` is paged out, with no quota (the `prcl` of DAMON's authors).
Beside a run without a monitor, *saved* is by how much less its cgroup uses, on average from the age on; *slower* what
it loses of its work per second of its CPU time, and the share of the time that it waits for memory (PSI); *CPU* the
monitor's. Times are those of an emulated machine, whose TLB hides accesses: compare rows. *sim*: the kernel recorded
without a policy, and that recording played again on the simulated machine under the same module (`what-if`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation import cgroups
from benchmarks.evaluation.kernels import KERNELS
from benchmarks.evaluation.lab import run_in_lab
from benchmarks.evaluation.recording import monitoring, recording
from benchmarks.evaluation.report import machine
from benchmarks.kernel import MONITOR_CPU, NEIGHBOUR, TARGET_CPU, pinned
from benchmarks.kernel_damon import cpu_seconds, is_guest
from benchmarks.spinner import Counted

PUBLISHED = "93.38% of the resident memory at 1.22% (parsec3/freqmine, their best case)"
ENGINES = ("user", "kernel")
MODULE = "reclaim min_age={}s quota=off watermarks=off"
WARM_UP_S = 10


@dataclass(frozen=True)
class Outcome:
    """Bytes that the cgroup used, work per second of CPU time, shares of the time that it waited for memory, and that
    the monitor was on a CPU."""

    used: float
    speed: float
    waited: float
    cpu: float


def monitored(pid: int, engine: str | None, min_age_s: int) -> AbstractContextManager[int | None]:
    """`pydamon record` with the module, once it monitors; its pid. None: nobody monitors."""
    if engine is None:
        return nullcontext()
    return monitoring(str(pid), "--engine", engine, "--module", MODULE.format(min_age_s), cpu=MONITOR_CPU)


def measure(name: str, engine: str | None, options: argparse.Namespace) -> Outcome:
    """One kernel under one engine (the kernel's thread is not in the CPU time of engine kernel), or left alone."""
    with (
        cgroups.made("evaluation") as cgroup,
        pinned([sys.executable, "-S", "-c", NEIGHBOUR]),
        Counted("benchmarks.evaluation.kernels", name, str(options.mib), cpu=TARGET_CPU, cgroup=cgroup) as work,
    ):
        time.sleep(WARM_UP_S)
        with monitored(work.pid, engine, options.min_age) as monitor:
            time.sleep(options.min_age)
            used: list[int] = []

            def look() -> None:
                used.append(cgroups.number(cgroup, "memory.current"))
                time.sleep(0.5)

            began, waited_us = time.monotonic(), cgroups.stalled_us(cgroup)
            spent_s = cpu_seconds(monitor) if monitor else 0
            speed = work.rate(look, options.seconds)
            lasted = time.monotonic() - began
            waited = (cgroups.stalled_us(cgroup) - waited_us) / 1e6 / lasted
            cpu = (cpu_seconds(monitor) - spent_s) / lasted if monitor else 0
    return Outcome(statistics.mean(used), speed, waited, cpu)


def simulated(name: str, options: argparse.Namespace) -> tuple[float, float]:
    """What the module would save and cost by a recording of the kernel: shares of its memory, and of its time."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Counted("benchmarks.evaluation.kernels", name, str(options.mib), cpu=TARGET_CPU) as work,
    ):
        time.sleep(WARM_UP_S)
        with recording(work.pid, "", Path(folder), started=True):
            work.rate(lambda: time.sleep(0.5), options.min_age + options.seconds)
        command = [sys.executable, "-m", "pydamon", "what-if", f"{folder}/record", "--json"]
        said = subprocess.run(
            [*command, "--module", MODULE.format(options.min_age)], check=True, capture_output=True, text=True
        )
    told = json.loads(said.stdout)
    (policy,) = told["policies"]
    return policy["saved_bytes"] / told["memory_bytes"], policy["lost"]["zram"]


def main() -> None:
    """Run in the guest; from elsewhere, start the guest."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--only", action="append", choices=list(KERNELS), help="this kernel; repeatable")
    parser.add_argument("--mib", type=int, default=128, help="memory of each (default: 128)")
    parser.add_argument("--seconds", type=int, default=60, help="how long each is measured (default: 60)")
    parser.add_argument("--min-age", type=int, default=5, metavar="SECONDS", help="the module's knob (default: 5)")
    options = parser.parse_args()
    if not is_guest():
        run_in_lab("guest-kernels", "--timeout", "7200")
    print(f"guest-kernels: min_age={options.min_age}s, {options.mib} MiB each, {options.seconds} s\n{machine()}")
    print(f"{'':<12} {'engine':<8} {'saved':>8} {'slower':>8} {'CPU':>8}")
    for name in options.only or KERNELS:
        alone = measure(name, None, options)
        if not alone.speed:
            print(f"{name:<12} did no piece of its work in {options.seconds} s: give it more --seconds", flush=True)
            continue
        for engine in ENGINES:
            found = measure(name, engine, options)
            saved, slower = 1 - found.used / alone.used, 1 - found.speed / alone.speed + found.waited - alone.waited
            print(f"{name:<12} {engine:<8} {saved:>8.1%} {slower:>8.1%} {found.cpu:>8.1%}", flush=True)
        saved, slower = simulated(name, options)
        print(f"{name:<12} {'sim':<8} {saved:>8.1%} {slower:>8.1%} {'-':>8}", flush=True)
    print(f"published: {PUBLISHED}")


if __name__ == "__main__":
    main()
