"""Our DAMOS beside the kernel's: the same scheme on the same process, in the guest lab.

Started anywhere it boots the guest and prints what the guest prints. A process sweeps 32 of 160 MiB; what was not
accessed for a while is paged out to compressed memory. Each monitor is on one CPU, the process (with one that wakes
up every 5 ms: a switch of address spaces empties the emulated TLB) on the other one. Times are those of an emulated
machine: compare rows.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.kernel import MONITOR_CPU, NEIGHBOUR, ROOT, TARGET_CPU, pinned
from benchmarks.kernel_damon import KDAMONDS, KernelDamon, _read, cpu_seconds, is_guest
from benchmarks.spinner import Spinner
from pydamon.errors import PydamonError
from pydamon.records.reader import RecordReader
from pydamon.spec.units import U32_MAX, U64_MAX

MIB = 1 << 20
HOT_MIB, COLD_MIB = 32, 128
QUOTAS = {"no quota": 0, "8 MiB a second": 8 * MIB}
MONITORS = ("kernel", "idle", "bpf+idle", "bpf")
LOOKS_S = (2, 4, 6, 8, 12, 16, 20, 30)


@dataclass(frozen=True)
class Look:
    """What is seen at one time: bytes tried and applied so far (None: not told), resident bytes, CPU seconds."""

    done: tuple[int, int] | None
    resident: int
    cpu_s: float


class Monitor(Protocol):
    """A monitor with one scheme."""

    def start(self, cpu: int) -> None:
        """Monitor, on that CPU."""

    def done(self) -> tuple[int, int] | None:
        """Bytes that the scheme was tried on, and applied to, so far."""

    def cpu_seconds(self) -> float:
        """CPU time so far."""

    def stop(self) -> Any:
        """End."""


class KernelScheme(KernelDamon):
    """The kernel's DAMON with a scheme that pages out what was not accessed for ``age`` aggregations."""

    def __init__(self, pid: int, options: argparse.Namespace, quota: int) -> None:
        super().__init__(pid, options.sample_us, options.aggr_us, 10, 1000)
        schemes = KDAMONDS / "0/contexts/0/schemes"
        (schemes / "nr_schemes").write_text("1")
        self._scheme = schemes / "0"
        (self._scheme / "action").write_text("pageout")
        values = {
            "sz": (0, U64_MAX),
            "nr_accesses": (0, 0),
            "age": (options.age, U32_MAX),
        }
        for name, (low, high) in values.items():
            # Each value must fit the other one at any time: the maximum first.
            (self._scheme / f"access_pattern/{name}/max").write_text(str(high))
            (self._scheme / f"access_pattern/{name}/min").write_text(str(low))
        (self._scheme / "quotas/bytes").write_text(str(quota))
        (self._scheme / "quotas/reset_interval_ms").write_text("1000")
        for name, value in (("sz", 0), ("nr_accesses", 1), ("age", 1)):
            (self._scheme / f"quotas/weights/{name}_permil").write_text(str(value))

    def done(self) -> tuple[int, int]:
        """By the kernel's own statistics."""
        (KDAMONDS / "0/state").write_text("update_schemes_stats")
        return int(_read(self._scheme / "stats/sz_tried")), int(_read(self._scheme / "stats/sz_applied"))


class Ours:
    """A `pydamon record` of its own process, with the same scheme."""

    def __init__(self, pid: int, primitive: str, options: argparse.Namespace, quota: int, directory: str) -> None:
        self._record = Path(directory, "x.damon")
        scheme = f"pageout rate=0 age>={options.age}aggrs" + (f" quota={quota // MIB}M/1s" if quota else "")
        command = [sys.executable, "-m", "pydamon", "record", "-o", str(self._record), "--primitive", primitive]
        command += ["--sample", f"{options.sample_us}us", "--aggr", f"{options.aggr_us}us", "--update", "1s"]
        command += ["--min-regions", "10", "--max-regions", "1000", "--seed", "1", "--scheme", scheme, str(pid)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def start(self, cpu: int) -> None:
        """Wait until it monitors; whatever it does before does not count."""
        os.sched_setaffinity(self._process.pid, {cpu})
        deadline = time.monotonic() + 120
        while not (self._record.exists() and self._record.stat().st_size):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise PydamonError(f"the recording did not begin: {self._process.communicate()[1].strip()[:200]}")
            time.sleep(0.02)

    def done(self) -> tuple[int, int] | None:
        """As far as the record tells by now."""
        with RecordReader(str(self._record)) as reader:
            rows = [row for piece in reader.table("schemes") for row in piece.to_pylist()]
        return (int(rows[-1]["sz_tried"]), int(rows[-1]["sz_applied"])) if rows else None

    def cpu_seconds(self) -> float:
        """CPU time of the whole process."""
        return cpu_seconds(self._process.pid)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate()


def resident_bytes(pid: int) -> int:
    """VmRSS."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def measure(name: str, quota: int, options: argparse.Namespace) -> tuple[list[Look], float, float]:
    """Looks at the times of `LOOKS_S`; CPU share of the monitor; speed of the process with it (1: as without)."""
    with (
        tempfile.TemporaryDirectory() as directory,
        pinned([sys.executable, "-S", "-c", NEIGHBOUR]),
        Spinner(HOT_MIB, COLD_MIB, cpu=TARGET_CPU) as spinner,
    ):
        before = spinner.rate(lambda: time.sleep(0.05), 4)
        monitor: Monitor
        if name == "kernel":
            monitor = KernelScheme(spinner.pid, options, quota)
        else:
            monitor = Ours(spinner.pid, name, options, quota, directory)
        monitor.start(MONITOR_CPU)
        began, cpu = time.monotonic(), monitor.cpu_seconds()
        looks: list[Look] = []

        def look() -> None:
            due = LOOKS_S[len(looks)] if len(looks) < len(LOOKS_S) else None
            if due is not None and time.monotonic() >= began + due:
                seen = Look(monitor.done(), resident_bytes(spinner.pid), monitor.cpu_seconds() - cpu)
                looks.append(seen)
            time.sleep(0.05)

        during = spinner.rate(look, LOOKS_S[-1] + 1)
        share = (monitor.cpu_seconds() - cpu) / (time.monotonic() - began)
        spinner.kill()
        monitor.stop()
    return looks, share, during / before


def in_guest(options: argparse.Namespace) -> None:
    """Print the tables."""
    print(
        f"kernel-schemes: pageout of what was not accessed for {options.age} aggregations of "
        f"{options.aggr_us / 1e6:g} s, sampling every {options.sample_us / 1000:g} ms; "
        f"{HOT_MIB} MiB hot, {COLD_MIB} cold"
    )
    print(
        "tried > applied / resident, in MiB, after so many seconds; CPU of the monitor; speed of the process "
        "(1: undisturbed)\n"
    )
    for title, quota in QUOTAS.items():
        print(f"{title:18}" + "".join(f"{at:>18} s" for at in LOOKS_S) + f"{'CPU':>9}{'speed':>8}")
        for name in options.monitor or MONITORS:
            try:
                looks, share, speed = measure(name, quota, options)
            except PydamonError as error:
                print(f"{name}: {error}")
                continue
            cells = "".join(
                f"{'-' if look.done is None else ' > '.join(f'{size / MIB:.0f}' for size in look.done):>13} / "
                f"{look.resident / MIB:4.0f}"
                for look in looks
            )
            print(f"{name:18}{cells}{share:>9.1%}{speed:>8.2f}", flush=True)
        print()


def main() -> None:
    """Run in the guest; from elsewhere, start the guest."""
    parser = argparse.ArgumentParser(prog="benchmarks kernel-schemes", description=__doc__)
    parser.add_argument("--sample-us", type=int, default=50_000, help="sampling interval (50000)")
    parser.add_argument("--aggr-us", type=int, default=1_000_000, help="aggregation interval (1000000)")
    parser.add_argument("--age", type=int, default=3, help="aggregations without access (3)")
    parser.add_argument("--monitor", action="append", choices=MONITORS, help="only this one; repeatable")
    options = parser.parse_args()
    if is_guest():
        in_guest(options)
        return
    command = [str(ROOT / "lab/run"), "--timeout", "3600", "--"]
    status = subprocess.run([*command, sys.executable, "-m", "benchmarks", "kernel-schemes", *sys.argv[1:]]).returncode
    if status:
        raise SystemExit(status)
