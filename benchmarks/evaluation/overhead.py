"""What monitoring takes from ten kernels and four servers: `rec`, of their addresses, and `prec`, of all memory.

A kernel works without pause on one CPU (servers run where they are put), `pydamon record` with default settings runs on
the other one and is stopped every other window. *slower* is the share of its speed that the program loses in windows
with, by the work done per second of its own CPU time (so neither another process on its CPU nor the clock's frequency
counts, but faults and misses that monitoring causes do): the median over the windows, and half the distance between
their quartiles. *CPU* is the monitor's while it runs. `prec` needs the idle page bitmap, which is not everywhere:
`--lab` boots the lab's guest.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import AbstractContextManager

from benchmarks.answers_programs import Missing
from benchmarks.evaluation.kernels import KERNELS
from benchmarks.evaluation.recording import NotMonitoring, monitoring
from benchmarks.evaluation.report import machine
from benchmarks.evaluation.servers import SERVERS, Served
from benchmarks.kernel import MONITOR_CPU, ROOT, TARGET_CPU
from benchmarks.kernel_damon import cpu_seconds, is_guest
from benchmarks.spinner import Counted, lost

PUBLISHED = "1.16% (the authors' summary: DAMON on PARSEC3 and SPLASH-2X, all workloads)"


def slower(work: Counted | Served, monitor: int, options: argparse.Namespace) -> tuple[float, float, float]:
    """Share of its speed that the work loses, the spread of that, and the monitor's share of a CPU."""
    running_s, spent_s = 0.0, 0.0

    def beside() -> None:
        nonlocal running_s, spent_s
        began, before = time.monotonic(), cpu_seconds(monitor)
        os.kill(monitor, signal.SIGCONT)
        time.sleep(options.seconds)
        os.kill(monitor, signal.SIGSTOP)
        running_s, spent_s = running_s + time.monotonic() - began, spent_s + cpu_seconds(monitor) - before

    def alone() -> None:
        time.sleep(options.seconds)

    os.kill(monitor, signal.SIGSTOP)
    share, spread = lost(work.rate, beside, alone, seconds=options.seconds, pairs=options.pairs)
    return share, spread, spent_s / running_s


def working(name: str, mib: int) -> AbstractContextManager[Counted | Served]:
    """A kernel or server, at work."""
    if name in SERVERS:
        return SERVERS[name]()
    return Counted("benchmarks.evaluation.kernels", name, str(mib), cpu=TARGET_CPU)


def main() -> None:
    """Print a line for each program and way of monitoring."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    names = [*KERNELS, *SERVERS]
    parser.add_argument("--only", action="append", choices=names, help="this kernel or server; repeatable")
    parser.add_argument("--mib", type=int, default=256, help="memory of each kernel (default: 256)")
    parser.add_argument("--pairs", type=int, default=10, help="windows with the monitor (default: 10)")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a window lasts (default: 2)")
    parser.add_argument("--lab", action="store_true", help="in the lab's guest")
    options = parser.parse_args()
    if options.lab and not is_guest():
        command = [str(ROOT / "lab/run"), "--timeout", "7200", "--", sys.executable, "-m", "benchmarks.evaluation"]
        raise SystemExit(subprocess.run([*command, "overhead", *sys.argv[1:]]).returncode)
    print(f"overhead: {options.pairs} windows of {options.seconds:g} s; kernels of {options.mib} MiB\n{machine()}")
    found: dict[str, list[float]] = {}
    for name in options.only or names:
        try:
            with working(name, options.mib) as work:
                for way in ("rec", "prec"):
                    words = [str(work.pid)] if way == "rec" else ["--ops", "paddr"]
                    try:
                        with monitoring(*words, cpu=MONITOR_CPU) as monitor:
                            share, spread, cpu = slower(work, monitor, options)
                    except NotMonitoring as reason:
                        print(f"  not measured: {reason}", flush=True)
                        continue
                    found.setdefault(way, []).append(share)
                    print(f"{name:<12} {way:<4} slower {share:>7.2%} +- {spread:.2%}, CPU {cpu:.2%}", flush=True)
        except Missing as reason:
            print(f"{name:<12} skipped: {reason}", flush=True)
    for way, shares in found.items():
        print(f"{way}: {statistics.mean(shares):.2%} slower on average; published: {PUBLISHED}")


if __name__ == "__main__":
    main()
