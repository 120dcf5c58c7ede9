"""What monitoring takes from ten kernels and four servers: `rec`, of their addresses, and `prec`, of all memory.

A kernel works without pause on one CPU (servers run where they are put), `pydamon record` with default settings runs on
the other one and is stopped every other window. *slower* is the share of its speed that the program loses in windows
with, by the work done per second of its own CPU time (so neither another process on its CPU nor the clock's frequency
counts, but faults and misses that monitoring causes do), of a kernel over whole rounds: the median of the windows, and
between what the median of many more would lie (95 %, sign test). *CPU* is the monitor's while it runs. `prec` needs the
idle page bitmap, which is not everywhere: `--lab` boots the lab's guest.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from contextlib import AbstractContextManager

from benchmarks.answers_programs import Missing
from benchmarks.evaluation.kernels import KERNELS
from benchmarks.evaluation.lab import run_in_lab
from benchmarks.evaluation.recording import NotMonitoring, monitoring
from benchmarks.evaluation.report import machine
from benchmarks.evaluation.servers import SERVERS, Served
from benchmarks.kernel import MONITOR_CPU, TARGET_CPU
from benchmarks.kernel_damon import cpu_seconds, is_guest
from benchmarks.spinner import Counted, of_the_median, shares_lost

PUBLISHED = "1.16% (the authors' summary: DAMON on PARSEC3 and SPLASH-2X, all workloads)"
_MOMENT_S = 0.005


def slower(work: Counted | Served, monitor: int, options: argparse.Namespace) -> tuple[list[float], float]:
    """Shares of its speed that the work loses, and the monitor's share of a CPU."""
    switch = _Switch(monitor)
    rate = work.rate_in_rounds if isinstance(work, Counted) else work.rate
    shares = shares_lost(rate, switch.beside, switch.alone, seconds=options.seconds, pairs=options.pairs)
    switch.alone()
    return shares, switch.spent_s / switch.running_s


class _Switch:
    """A monitor that runs or is stopped, with its CPU time and how long it has run."""

    def __init__(self, monitor: int) -> None:
        self._monitor, self._since = monitor, 0.0
        self.running_s = self.spent_s = 0.0
        os.kill(monitor, signal.SIGSTOP)

    def beside(self) -> None:
        """Have it run for a moment, and on."""
        if not self._since:
            self._since, self._before = time.monotonic(), cpu_seconds(self._monitor)
            os.kill(self._monitor, signal.SIGCONT)
        time.sleep(_MOMENT_S)

    def alone(self) -> None:
        """Have it rest for a moment, and on."""
        if self._since:
            os.kill(self._monitor, signal.SIGSTOP)
            self.running_s += time.monotonic() - self._since
            self.spent_s += cpu_seconds(self._monitor) - self._before
            self._since = 0.0
        time.sleep(_MOMENT_S)


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
        # By instructions: the speed of an emulated machine changes by far more than monitoring takes.
        run_in_lab("overhead", "--steady", "--timeout", "7200")
    print(f"overhead: {options.pairs} windows of {options.seconds:g} s; kernels of {options.mib} MiB\n{machine()}")
    found: dict[str, list[float]] = {}
    for name in options.only or names:
        try:
            with working(name, options.mib) as work:
                for way in ("rec", "prec"):
                    words = [str(work.pid)] if way == "rec" else ["--ops", "paddr"]
                    try:
                        with monitoring(*words, cpu=MONITOR_CPU) as monitor:
                            shares, cpu = slower(work, monitor, options)
                    except NotMonitoring as reason:
                        print(f"  not measured: {reason}", flush=True)
                        continue
                    share, (low, high) = statistics.median(shares), of_the_median(shares)
                    found.setdefault(way, []).append(share)
                    print(
                        f"{name:<12} {way:<4} slower {share:>7.2%} [{low:.2%}, {high:.2%}], CPU {cpu:.2%}", flush=True
                    )
        except Missing as reason:
            print(f"{name:<12} skipped: {reason}", flush=True)
    for way, medians in found.items():
        print(f"{way}: {statistics.mean(medians):.2%} slower on average; published: {PUBLISHED}")


if __name__ == "__main__":
    main()
