"""`reclaim driver=pressure` with its defaults on real memory, in the lab's guest: no access is asked for.

Started anywhere it boots the guest and prints what the guest prints. A process in a cgroup sweeps one half of its
memory without pause and never uses the other one; swap is on zram. Aim: within ten minutes 80 % of the cold half has
gone, and the share of the time in which a task of the cgroup waited for memory (PSI, from its total) is below the
module's bound. The emulated guest takes some 0.1 ms to bring a page back, which is more than a machine does.
"""

from __future__ import annotations

import argparse
import mmap
import subprocess
import sys
import tempfile
import time
from contextlib import closing

from benchmarks.evaluation import cgroups
from benchmarks.evaluation.lab import run_in_lab
from benchmarks.evaluation.report import machine, verdict
from benchmarks.kernel import MONITOR_CPU, NEIGHBOUR, TARGET_CPU, pinned
from benchmarks.kernel_damon import cpu_seconds, is_guest
from benchmarks.spinner import Spinner
from pydamon.linux import psi
from pydamon.linux.pagemap import Pagemap, is_present

MIB = 1 << 20
BOUND_PERCENT = 0.1


def present(pid: int, start: int, pages: int) -> float:
    """The share of so many pages from ``start`` that is in memory."""
    with closing(Pagemap(pid)) as table:
        return float(is_present(table.span(start, start + pages * mmap.PAGESIZE)).sum()) / pages


def main() -> None:
    """Run in the guest; from elsewhere, start the guest."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long it lasts (default: 600)")
    parser.add_argument("--half", type=int, default=96, metavar="MIB", help="each half (default: 96)")
    parser.add_argument("--module", default="reclaim driver=pressure", help="(default: reclaim driver=pressure)")
    options = parser.parse_args()
    if not is_guest():
        run_in_lab("guest-pressure", "--timeout", "3600")
    print(f"guest-pressure: {options.module}; {options.half} MiB hot, {options.half} MiB cold; ", end="")
    print(f"{options.seconds} s\n{machine()}", flush=True)
    measure(options)


def measure(options: argparse.Namespace) -> None:
    """Print a line a minute, and the verdicts."""
    pages = options.half * MIB // mmap.PAGESIZE
    with (
        tempfile.TemporaryDirectory() as folder,
        cgroups.made("evaluation") as cgroup,
        pinned([sys.executable, "-S", "-c", NEIGHBOUR]),
        Spinner(options.half, options.half, cpu=TARGET_CPU, cgroup=cgroup) as spinner,
    ):
        cold_at = spinner.hot_at + options.half * MIB
        speed = spinner.rate(lambda: time.sleep(0.05), 6)
        command = ["taskset", "-c", str(MONITOR_CPU), sys.executable, "-m", "pydamon", "record"]
        command += ["--cgroup", str(cgroup), "-o", f"{folder}/record", "--module", options.module]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as recorder:
            began, waited_us, worst = time.monotonic(), cgroups.stalled_us(cgroup), 0.0
            reached_s = None
            try:
                for minute in range(1, max(options.seconds // 60, 1) + 1):
                    while (now_s := time.monotonic() - began) < min(minute * 60, options.seconds):
                        worst = max(worst, psi.read("memory", cgroup).avg60_percent)
                        gone = 1 - present(spinner.pid, cold_at, pages)
                        if reached_s is None and gone >= 0.8:
                            reached_s = now_s
                        time.sleep(1)
                    hot = present(spinner.pid, spinner.hot_at, pages)
                    share = (cgroups.stalled_us(cgroup) - waited_us) / 1e4 / now_s
                    print(f"{now_s:4.0f} s: {gone:4.0%} of the cold half gone, ", end="")
                    print(f"{hot:.0%} of the hot one in memory, {share:.3f}% waited so far", flush=True)
                cpu = cpu_seconds(recorder.pid) / now_s
                during = spinner.rate(lambda: time.sleep(0.05), 6)
            finally:
                recorder.terminate()
    after = "never" if reached_s is None else f"after {reached_s:.0f} s"
    print(f"80% of the cold half gone {after}, {gone:.0%} at the end: {verdict(reached_s is not None)}")
    print(f"waited for memory: {share:.3f}% of the time, at the most {worst:.2f}% of a minute: ", end="")
    print(f"{verdict(share < BOUND_PERCENT)} (below {BOUND_PERCENT}%)")
    print(f"the process: {1 - during / speed:.1%} slower at the end than before; pydamon: {cpu:.2%} of a CPU, ", end="")
    print("its start included")


if __name__ == "__main__":
    main()
