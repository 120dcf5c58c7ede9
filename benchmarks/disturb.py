"""What clearing takes from the target, per page: the numbers behind the disturbance that a recording reports.

A process sweeps a hot set on one CPU; on the other one its pages are cleared for half a second, then only looked at for
half a second, and so on. What the process loses per second of its own CPU time is the disturbance; the constants in
``primitives/clearing.py``, ``idle.py`` and ``soft_dirty.py`` come from here. With ``--guest`` it runs in the guest lab,
whose kernel has idle page tracking and soft-dirty; its processor is emulated, so that setting an accessed bit costs
next to nothing there. What that costs on a real one is told by the rows "bits only": clear_refs does the same to the
page tables as the idle bitmap does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.spinner import Spinner
from pydamon.errors import MachineError
from pydamon.linux.process import Process
from pydamon.primitives.base import Primitive
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.idle import IdlePrimitive
from pydamon.primitives.soft_dirty import SoftDirtyPrimitive

ROOT = Path(__file__).resolve().parents[1]
HEADER = f"{'':34} {'clears/s':>9} {'in the call':>12} {'lost':>14} {'lost per page':>14} {'lost/in the call':>17}"
PAUSE_S = 0.002
BATCH = 100


def row(title: str, clears: float, inside: float, lost: float, spread: float) -> None:
    """``clears`` per second, ``inside``: share of time in clearing calls, ``lost``: share of the target's speed."""
    per_page = lost / clears * 1e9 if clears else float("nan")
    ratio = lost / inside if inside else float("nan")
    print(
        f"{title:34} {clears:9.0f} {inside / clears * 1e9 if clears else 0:9.0f} ns {lost:7.1%} ±{spread:5.1%} "
        f"{per_page:11.0f} ns {ratio:17.2f}",
        flush=True,
    )


def bits_only(hot_mib: int) -> None:
    """Writing 1 to clear_refs: clears the bits of all pages, drops no cached translation."""
    with Spinner(hot_mib) as spinner:
        fd = os.open(f"/proc/{spinner.pid}/clear_refs", os.O_WRONLY)
        inside = count = 0

        def clear() -> None:
            nonlocal inside, count
            began = time.perf_counter_ns()
            os.write(fd, b"1")
            inside += time.perf_counter_ns() - began
            count += spinner.pages
            time.sleep(PAUSE_S * 5)

        lost, spread = spinner.lost(clear, lambda: time.sleep(PAUSE_S * 5))
        os.close(fd)
    wall = 12 * 0.5
    row(f"bits only, {hot_mib} MiB hot", count / wall, inside / 1e9 / wall, lost, spread)


def primitive(title: str, open_one: Callable[[Process], Primitive], hot_mib: int, mode: str = "read") -> None:
    """A primitive that watches pages of the hot set."""
    rng = np.random.default_rng(1)
    with Spinner(hot_mib, mode=mode) as spinner:
        process = Process(spinner.pid)
        try:
            opened = open_one(process)
        except MachineError as error:
            process.close()
            print(f"{title}, {hot_mib} MiB hot: skipped, {error}")
            return
        addresses = spinner.addresses(BATCH, rng)
        opened.prepare(addresses)

        def watch() -> None:
            opened.prepare(spinner.addresses(BATCH, rng))
            time.sleep(PAUSE_S)
            opened.check()

        def look() -> None:
            time.sleep(PAUSE_S)
            opened.check()

        before = opened.cost.clears, opened.cost.clear_ns
        lost, spread = spinner.lost(watch, look)
        clears, inside = opened.cost.clears - before[0], opened.cost.clear_ns - before[1]
        opened.close()
        process.close()
    wall = 12 * 0.5
    row(f"{title}, {hot_mib} MiB hot", clears / wall, inside / 1e9 / wall, lost, spread)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks disturb", description=__doc__)
    parser.add_argument("--guest", action="store_true", help="in the guest lab")
    if parser.parse_args().guest:
        status = subprocess.run([ROOT / "lab/run", "--", sys.executable, "-m", "benchmarks", "disturb"]).returncode
        if status:
            raise SystemExit(status)
        return
    print(f"disturb: what clearing takes from a process on the other of {os.cpu_count()} CPUs, per page")
    print("(soft-dirty clears the whole process: one clear is all of its pages)\n" + HEADER)
    os.sched_setaffinity(0, {1})
    for hot_mib in (1, 8, 32, 128):
        bits_only(hot_mib)
    try:
        walk: PageTableWalk | None = PageTableWalk()
    except MachineError as error:
        print(f"bpf: skipped, {error}")
        walk = None
    for hot_mib in (1, 8, 32):
        if walk is not None:
            primitive("bpf", partial(BpfPrimitive, walk=walk), hot_mib)
            primitive("bpf+idle", partial(IdlePrimitive, walk=walk, tables=True), hot_mib)
        primitive("idle", IdlePrimitive, hot_mib)
        primitive("soft-dirty, reads", SoftDirtyPrimitive, hot_mib)
        primitive("soft-dirty, writes", SoftDirtyPrimitive, hot_mib, "write")
    if walk is not None:
        walk.close()
