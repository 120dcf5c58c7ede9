"""Scans by regions and page by page, with and without paging out: what each saves, and what it costs.

The table of etmem's comparison (MySQL with 40 GiB there, swap) at small scale, without swap: a process maps a file of
COLD MiB and reads it once, and another of HOT MiB, which it sweeps without pause. *saved* is how much less of it is
resident at the end, *speed* its sweeps per second beside those of the first row, *CPU* what pydamon needs once it runs.
Aim: both kinds of scan save the same (within 2 %), and regions need less CPU than pages.
"""

from __future__ import annotations

import argparse
import struct
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.evaluation.host_files import having_read, major_faults
from benchmarks.evaluation.recording import recording
from benchmarks.evaluation.report import machine, spread, verdict
from benchmarks.kernel_schemes import resident_bytes

MIB = 1 << 20
START_S = 5  # from which on pydamon's CPU counts
REGIONS = ("--sample", "100ms", "--aggr", "3s", "--min-regions", "100", "--max-regions", "1000", "--panel", "0")
PAGES = ("--sample", "1s", "--aggr", "1s", "--min-regions", "1000000", "--max-regions", "1000000", "--panel", "0")
ROWS: dict[str, tuple[str, tuple[str, ...]] | None] = {
    "baseline": None,
    "region scan + page out": ("etmem scan=region T=2 files=only", REGIONS),
    "page scan + page out": ("etmem scan=page loop=1 interval=1s sleep=1s T=1 files=only", ("--panel", "0")),
    "region scan": ("", REGIONS),
    "page scan": ("", PAGES),
}
_READER = """
import mmap, struct, sys
cold, hot, told = (open(name, "r+b") for name in sys.argv[1:4])
cold, hot = (mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for file in (cold, hot))
told = mmap.mmap(told.fileno(), 0)
for at in range(0, len(cold), 4096): cold[at]
for at in range(0, len(hot), 4096): hot[at]
print("ready", flush=True)
sweeps = 0
while True:
    for at in range(0, len(hot), 4096): hot[at]
    sweeps += 1
    told[:8] = struct.pack("q", sweeps)
"""


@dataclass(frozen=True)
class Outcome:
    """MiB that were saved, sweeps per second, share of a CPU, and the process's major faults."""

    saved: float
    speed: float
    cpu: float
    faults: int


def sweeps(told: Path) -> int:
    """How many it has done so far."""
    found: int = struct.unpack("q", told.read_bytes()[:8])[0]
    return found


def run(row: str, options: argparse.Namespace) -> Outcome:
    """One row, once."""
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder, asked = Path(name), ROWS[row]
        told = folder / "told"
        told.write_bytes(bytes(4096))
        with having_read(_READER, {folder / "cold": options.cold, folder / "hot": options.hot}, told) as pid:
            resident, faults = resident_bytes(pid), major_faults(pid)
            if asked is None:
                began, before = time.monotonic(), sweeps(told)
                time.sleep(options.seconds)
                cpu = 0.0
            else:
                with recording(pid, asked[0], folder, *asked[1]) as spent_s:
                    time.sleep(START_S)
                    began, before, spent = time.monotonic(), sweeps(told), spent_s()
                    time.sleep(options.seconds)
                    cpu = (spent_s() - spent) / (time.monotonic() - began)
            speed = (sweeps(told) - before) / (time.monotonic() - began)
            saved = (resident - resident_bytes(pid)) / MIB
            return Outcome(saved, speed, cpu, major_faults(pid) - faults)


def main() -> None:
    """Print a line for each row, and the verdicts."""
    parser = argparse.ArgumentParser(prog=sys.argv[0], description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each row (default: 3)")
    parser.add_argument("--seconds", type=int, default=30, help="how long each lasts (default: 30)")
    parser.add_argument("--cold", type=int, default=400, metavar="MIB", help="read once (default: 400)")
    parser.add_argument("--hot", type=int, default=64, metavar="MIB", help="swept (default: 64)")
    parser.add_argument("--dir", help="a folder on a disk, where the files are made (default: the temporary one)")
    options = parser.parse_args()
    print(
        f"etmem: {options.cold} MiB cold, {options.hot} MiB hot, {options.seconds} s, {options.runs} runs\n{machine()}"
    )
    print(f"{'':24} {'saved, MiB':>24} {'speed':>20} {'CPU':>22} {'faults':>10}")
    found: dict[str, list[Outcome]] = {}
    usual = 1.0
    for row in ROWS:
        runs = found[row] = [run(row, options) for _ in range(options.runs)]
        if row == "baseline":
            usual = sum(one.speed for one in runs) / len(runs)
        saved, speed = spread([one.saved for one in runs]), spread([one.speed / usual for one in runs], digits=2)
        cpu, faults = spread([100 * one.cpu for one in runs], "%"), max(one.faults for one in runs)
        print(f"{row:24} {saved:>24} {speed:>20} {cpu:>22} {faults:>10}", flush=True)
    by_region, by_page = found["region scan + page out"], found["page scan + page out"]
    least, most = (pick(one.saved for one in by_region + by_page) for pick in (min, max))
    print(f"both save the same: {verdict(least >= 0.98 * most > 0)} (within 2%)")
    cheaper = max(one.cpu for one in by_region) < min(one.cpu for one in by_page)
    print(f"regions need less CPU than pages: {verdict(cheaper)}")


if __name__ == "__main__":
    main()
