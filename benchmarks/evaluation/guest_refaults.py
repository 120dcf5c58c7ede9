"""`reclaim driver=refaults` beside a fixed `min_age=120s`: redis with a zipf client, in the lab's guest, swap on zram.

Started anywhere it boots the guest and prints what the guest prints. redis holds 4,000 bytes per key in a cgroup of its
own; a client outside of it asks for some of the keys by Zipf's law (`benchmarks/evaluation/zipf_client.py`), which lie
beside each other, and never for the others. What comes back is what the kernel counts in the cgroup's memory.stat
(workingset_refault); the working set is what pydamon has seen used within two minutes. Aim: in the last half of the
time per minute 0.2 % of the working set comes back, within × 1.5. *saved* is by how much less the cgroup uses, in the
mean of that half. The emulated guest hides some accesses in its TLB, and takes longer for each application of a scheme,
hence the quota.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation import cgroups
from benchmarks.evaluation.lab import run_in_lab
from benchmarks.evaluation.report import machine, verdict
from benchmarks.kernel import MONITOR_CPU, TARGET_CPU, pinned
from benchmarks.kernel_damon import cpu_seconds, is_guest
from benchmarks.spinner import entering
from pydamon.linux.refaults import of_cgroup
from pydamon.records.reader import RecordReader

MIB = 1 << 20
LIMIT = 0.002
WITHIN = 1.5
_QUOTA = "quota=200ms+128MiB/1s watermarks=off"
MODULES = {
    "0.2% a minute": f"reclaim driver=refaults refaults=0.2% {_QUOTA}",
    "fixed 120 s": f"reclaim min_age=120s {_QUOTA}",
}
_CLIENT = [sys.executable, "-m", "benchmarks.evaluation.zipf_client"]


@dataclass(frozen=True)
class Look:
    """At one time: seconds since the start, bytes that the cgroup uses, and bytes that have come back so far."""

    at_s: float
    used: int
    back: int


@dataclass(frozen=True)
class Outcome:
    """One run: the share of the working set that came back per minute in the last half, what was saved in it (MiB),
    the working set (MiB), the minimum age minute by minute (s), the client's requests per second, percent of a CPU."""

    rate: float
    saved: float
    working_set: float
    min_age_s: list[float]
    requests: float
    cpu: float

    def line(self, name: str, requests: str) -> str:
        """As it is printed."""
        return (
            f"{name}: {self.rate:.2%} of {self.working_set:.1f} MiB came back a minute, saved {self.saved:.1f} MiB, "
            f"{self.requests:.0f} {requests} a second, pydamon {self.cpu:.1f}% of a CPU\n"
            f"  min_age by the minute, s: {', '.join(f'{age:.0f}' for age in self.min_age_s)}"
        )

    def beside_the_limit(self) -> str:
        """How far what came back is from the limit, as it is printed."""
        factor = self.rate / LIMIT
        return f"  {factor:.2f} times the limit: {verdict(1 / WITHIN <= factor <= WITHIN)} (within × {WITHIN:g})"


@contextmanager
def redis(cgroup: Path, folder: Path, keys: int) -> Iterator[Path]:
    """A server in the cgroup that has so many keys; its socket."""
    where = folder / "socket"
    server = ["redis-server", "--port", "0", "--unixsocket", str(where), "--save", "", "--dir", str(folder)]
    with pinned(entering(cgroup, server), stdout=subprocess.DEVNULL) as process:
        while not where.exists():
            if process.poll() is not None:
                raise SystemExit(f"evaluation: redis-server ended with exit status {process.returncode}")
            time.sleep(0.1)
        subprocess.run([*_CLIENT, str(where), "load", str(keys)], check=True)
        yield where


def measure(module: str, options: argparse.Namespace) -> Outcome:
    """One run."""
    with (
        tempfile.TemporaryDirectory() as text,
        cgroups.made("evaluation") as cgroup,
        redis(cgroup, Path(text), options.keys) as where,
        pinned([*_CLIENT, str(where), "use", str(options.used), str(options.rate)], stdout=subprocess.PIPE) as client,
    ):
        path = Path(text, "record")
        command = ["taskset", "-c", str(MONITOR_CPU), sys.executable, "-m", "pydamon", "record"]
        command += ["--cgroup", str(cgroup), "-o", str(path), "--module", module]
        before = cgroups.number(cgroup, "memory.current")
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as recorder:
            try:
                looks = watch(cgroup, recorder, options.seconds)
                cpu = cpu_seconds(recorder.pid) / options.seconds
            finally:
                recorder.terminate()
        client.kill()
        assert client.stdout is not None
        requests = statistics.median(map(float, client.stdout.read().split()))
        return outcome(looks, before, path, requests, cpu)


def watch(cgroup: Path, recorder: subprocess.Popen[bytes], seconds: float) -> list[Look]:
    """A look every five seconds."""
    began, looks = time.monotonic(), []
    while (at_s := time.monotonic() - began) < seconds:
        if recorder.poll() is not None:
            raise SystemExit(f"evaluation: pydamon ended with exit status {recorder.returncode}")
        back = of_cgroup(str(cgroup)).refaulted_bytes
        assert back is not None
        looks.append(Look(at_s, cgroups.number(cgroup, "memory.current"), back))
        time.sleep(5)
    return looks


def outcome(looks: list[Look], before: int, path: Path, requests: float, cpu: float) -> Outcome:
    """The figures of a run, of which ``path`` is the record."""
    half = [look for look in looks if look.at_s >= looks[-1].at_s / 2]
    working_set, ages = of_modules(path)
    minutes = (half[-1].at_s - half[0].at_s) / 60
    rate = (half[-1].back - half[0].back) / minutes / working_set
    saved = before - statistics.mean(look.used for look in half)
    return Outcome(rate, saved / MIB, working_set / MIB, ages, requests, cpu * 100)


def of_modules(path: Path) -> tuple[float, list[float]]:
    """What the module of a record has told: the mean working set of the last half, in bytes, and each minute's age."""
    with RecordReader(path) as reader:
        rows = list(reader.table_rows("modules"))
    first_ns, last_ns = rows[0]["time_ns"], rows[-1]["time_ns"]
    late = [row for row in rows if row["time_ns"] - first_ns >= (last_ns - first_ns) / 2]
    sizes = [row["values"][0] for row in late if row["number"] == "working_set_bytes"]
    ages = {
        (row["time_ns"] - first_ns) // 60_000_000_000: row["values"][0] / 1e6
        for row in rows
        if row["number"] == "min_age_us"
    }
    return statistics.mean(sizes), list(ages.values())


def main() -> None:
    """Run in the guest; from elsewhere, start the guest."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="how long each lasts (default: 600)")
    parser.add_argument("--keys", type=int, default=32768, help="that redis holds (default: 32768, 128 MiB)")
    parser.add_argument("--used", type=int, default=8192, help="of them that are ever asked for (default: 8192)")
    parser.add_argument("--rate", type=int, default=200, help="requests per second (default: 200)")
    parser.add_argument("--only", choices=list(MODULES), help="one of both")
    options = parser.parse_args()
    if not is_guest():
        run_in_lab("guest-refaults", "--timeout", "3600")
    print(f"guest-refaults: {options.keys} keys, of which {options.used} are used, {options.rate} requests a second, ")
    print(f"{options.seconds} s; {_QUOTA}; redis and its client on CPU {TARGET_CPU}\n{machine()}", flush=True)
    for name in [options.only] if options.only else MODULES:
        module = MODULES[name]
        found = measure(module, options)
        print(found.line(name, "requests"), flush=True)
        if "refaults" in module:
            print(found.beside_the_limit())


if __name__ == "__main__":
    main()
