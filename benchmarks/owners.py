"""The reverse map of physical memory: CPU seconds per GiB, all processes of this machine beside one of a given size.

Wanted: at most 0.2 s per GiB. It needs root. With ``--guest`` it runs in the guest lab, which is emulated.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.cost import MIB, running
from pydamon.errors import MachineError
from pydamon.ops import reverse_map
from pydamon.ops.reverse_map import ReverseMap

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5


def main() -> None:
    """Print a row for each size: medians of five refreshes, after one that is not counted."""
    parser = argparse.ArgumentParser(prog="benchmarks owners", description=__doc__)
    parser.add_argument("--guest", action="store_true", help="in the guest lab")
    parser.add_argument("--size", type=int, action="append", help="MiB, instead of 256 and 1024; repeatable")
    options = parser.parse_args()
    sizes = options.size or [256, 1024]
    if options.guest:
        words = [word for size in sizes for word in ("--size", str(size))]
        command = [str(ROOT / "lab/run"), "--", sys.executable, "-m", "benchmarks", "owners", *words]
        status = subprocess.run(command).returncode
        if status:
            raise SystemExit(status)
        return
    try:
        reverse_map.probe()
    except MachineError as error:
        print(f"owners: skipped, {error}")
        return
    print("owners: the reverse map of all processes and one more of this size (aim: at most 0.2 s per GiB)")
    print(f"{'size':>10} {'mapped':>10} {'processes':>10} {'refresh':>10} {'per GiB':>12}")
    for size in sizes:
        with running(size * MIB):
            built = ReverseMap()
            built.refresh()
            spent, per_gib = [], []
            for _ in range(ROUNDS):
                built.refresh()
                spent.append(built.cost.last_ns / 1e6)
                per_gib.append(built.cost.seconds_per_gib)
            cost = built.cost
        mapped = cost.pages * 4096 / MIB
        print(
            f"{size:>6} MiB {mapped:>6.0f} MiB {cost.processes:>10} {statistics.median(spent):>7.0f} ms "
            f"{statistics.median(per_gib):>8.3f} s",
            flush=True,
        )
