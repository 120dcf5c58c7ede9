"""`tier` in the lab's guest: hot memory begins on the slowest node, and the fast node is full of cold memory.

Started anywhere it boots a guest of two (and then of three) NUMA nodes and prints what the guest prints. A process has
HOT MiB that it sweeps without pause, and COLD MiB that it never touches again; all of the hot part is moved to the
slowest node first, and the rest of the fast node is filled by another process. *hot on the fast node* is asked page by
page (move_pages). *Busy*: the same for a short time with a small quota, first alone, then beside three busy loops on
each CPU; compared is what was moved. Times are those of an emulated machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.evaluation.recording import recording
from benchmarks.evaluation.report import machine, verdict
from benchmarks.kernel import MONITOR_CPU, ROOT, TARGET_CPU
from benchmarks.kernel_damon import is_guest
from pydamon.linux import move_pages, psi
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.process import Process
from pydamon.modules.registry import parse
from pydamon.modules.tier import TierKnobs

MIB = 1 << 20
PAGE = 4096
SMALL = "quota=4MiB/1s cold_age=2s"
FILL = "import sys; kept = bytearray(int(sys.argv[1])); kept[::4096] = b'x' * len(range(0, len(kept), 4096)); print(flush=True); sys.stdin.read()"  # noqa: E501
LOOP = "while True: pass"
# What is unmapped each time empties the emulated TLB, which is so large that accesses would leave no trace otherwise.
SWEEP = """
import mmap, sys
import numpy as np
hot, cold = (int(word) << 20 for word in sys.argv[1:3])
area = mmap.mmap(-1, hot + cold, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
memory = np.frombuffer(area, np.uint8)
memory[::4096] = 1
print(memory.ctypes.data, flush=True)
while True:
    np.bitwise_or.reduce(memory[:hot:4096])
    with mmap.mmap(-1, 1 << 20) as other:
        for at in range(0, 1 << 20, 4096):
            other[at] = 1
"""


class Sweeper:
    """A process that sweeps ``hot_mib`` without pause; as a context manager."""

    def __init__(self, hot_mib: int, cold_mib: int) -> None:
        command = [sys.executable, "-c", SWEEP, str(hot_mib), str(cold_mib)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.pid, self.pages = self._process.pid, hot_mib * MIB // PAGE
        os.sched_setaffinity(self.pid, {TARGET_CPU})
        assert self._process.stdout is not None
        self.hot_at = int(self._process.stdout.readline())

    def __enter__(self) -> Sweeper:
        return self

    def __exit__(self, *problem: object) -> None:
        self._process.kill()
        self._process.communicate()


class Pages:
    """The hot pages of a sweeper, and where they are."""

    def __init__(self, sweeper: Sweeper) -> None:
        self._process = Process(sweeper.pid)
        first = np.uint64(sweeper.hot_at)
        self._at: NDArray[np.uint64] = first + np.arange(sweeper.pages, dtype=np.uint64) * np.uint64(PAGE)

    def put(self, node: int) -> None:
        """Move all of them to a node."""
        move_pages.move(self._process, self._at, np.full(len(self._at), node, np.int32))

    def share(self, node: int) -> float:
        """How many of them are there."""
        return float((move_pages.nodes_of(self._process, self._at) == node).mean())


@contextmanager
def full(node: int, leave: int) -> Iterator[None]:
    """Another process fills the node until about ``leave`` bytes are free."""
    size = free_bytes(node) - leave
    with subprocess.Popen(
        [sys.executable, "-c", FILL, str(max(size, PAGE))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as filler:
        assert filler.stdout is not None
        filler.stdout.readline()
        try:
            yield
        finally:
            filler.kill()


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many programs that only count."""
    running = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(loops)]
    for number, each in enumerate(running):
        os.sched_setaffinity(each.pid, {number % (os.cpu_count() or 1)})
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


def free_bytes(node: int) -> int:
    """Free memory of a node."""
    metrics = MachineMetrics()
    return metrics.node_mem_bp(node, used=False) * metrics.node_bytes(node) // 10_000


def last_numbers(folder: Path) -> dict[str, int]:
    """What the module told last in the record."""
    command = [sys.executable, "-m", "pydamon", "report", "modules", str(folder / "record"), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, int] = json.loads(done.stdout)["modules"][0]["numbers"][-1]
    return found


def free_goal(module: str) -> float:
    """What of the fast node stays free when all that may be used is, in percent."""
    knobs = parse(module).knobs
    assert isinstance(knobs, TierKnobs)
    return 100 - knobs.used_bp / 100


def settle(options: argparse.Namespace, nodes: list[int]) -> None:
    """The hot set's way to the fast node."""
    fast, slow = nodes[0], nodes[-1]
    with Sweeper(options.hot, options.cold) as sweeper, tempfile.TemporaryDirectory() as name:
        pages, folder = Pages(sweeper), Path(name)
        pages.put(slow)
        with full(fast, options.leave * MIB):
            print(
                f"{len(nodes)} nodes: hot on the fast node {pages.share(fast):.1%} to begin with, "
                f"{MachineMetrics().node_mem_bp(fast, used=False) / 100:.2f}% of it free",
                flush=True,
            )
            shares: list[tuple[float, float, float]] = []
            waited_us = psi.read("cpu").total_us
            with recording(sweeper.pid, options.module, folder) as spent_s:
                began = time.monotonic()
                while time.monotonic() - began < options.seconds:
                    time.sleep(5)
                    free = MachineMetrics().node_mem_bp(fast, used=False) / 100
                    shares.append((time.monotonic() - began, pages.share(fast), free))
                    if options.steps:
                        print("  {:4.0f} s: {:6.1%} on the fast node, {:.2f}% free".format(*shares[-1]), flush=True)
                cpu = spent_s() / (time.monotonic() - began)
            waited = (psi.read("cpu").total_us - waited_us) / 1e6 / (time.monotonic() - began)
            told = last_numbers(folder)
    reached = next((at for at, share, _ in shares if share >= 0.95), None)
    if reached is None:
        print(f"  95% not reached; at the end {shares[-1][1]:.1%}, {shares[-1][2]:.2f}% free")
    else:
        later = [share for at, share, _ in shares if at >= reached]
        free = min(free for at, _, free in shares if at >= reached)
        print(f"  95% after {reached:.0f} s: {verdict(reached <= 120)} (120 s)")
        print(
            f"  from then on at least {min(later):.1%}: {verdict(min(later) >= 0.95)}; free at least {free:.2f}%",
            end="",
        )
        goal = free_goal(options.module)
        print(f": {verdict(free >= goal)} ({goal:g}% is what promotion leaves, {shares[-1][2]:.2f}% in the end)")
    minutes = options.seconds / 60
    ping_pong = told["moved_back_bytes"] / told["fast_node_bytes"] / minutes
    up, down, back = (told[f"{name}_bytes"] / MIB for name in ("promoted", "demoted", "moved_back"))
    print(f"  moved up {up:.0f} MiB, down {down:.0f} MiB, back {back:.1f} MiB")
    print(f"  ping-pong {ping_pong:.2%} of the fast node a minute: {verdict(ping_pong < 0.01)} (1%)")
    print(f"  pydamon: {cpu:.1%} of a CPU, its start included; tasks waited {waited:.0%} of the time for one")
    print(f"  in the end {told['quota_left_bp'] / 100:.0f}% of the quota was allowed", flush=True)


def under_load(options: argparse.Namespace, nodes: list[int]) -> None:
    """How much less is moved beside busy loops."""
    slow, moved = nodes[-1], []
    for loops in (0, 3 * (os.cpu_count() or 1)):
        with Sweeper(options.hot, options.cold) as sweeper:
            pages = Pages(sweeper)
            pages.put(slow)
            with tempfile.TemporaryDirectory() as name:
                module = f"{options.module} {SMALL}"
                with recording(sweeper.pid, module, Path(name), started=True), busy(loops):
                    waited_us = psi.read("cpu").total_us
                    time.sleep(options.busy_seconds)
                    waited = (psi.read("cpu").total_us - waited_us) / 1e6 / options.busy_seconds
                told = last_numbers(Path(name))
        moved.append(told["promoted_bytes"] + told["demoted_bytes"])
        what = f"{moved[-1] / MIB:.1f} MiB moved in {options.busy_seconds} s"
        print(f"  {loops} busy loops: {what}; tasks waited {waited:.0%} of the time", flush=True)
    fell = 1 - moved[1] / max(moved[0], 1)
    print(f"  migrations fell by {fell:.0%}: {verdict(fell >= 0.8)} (80%)")


def main() -> None:
    """Run in the guest; from elsewhere, start guests of two and of three nodes."""
    parser = argparse.ArgumentParser(prog="evaluation tier", description=__doc__)
    parser.add_argument("--hot", type=int, default=64, metavar="MIB", help="swept without pause (default: 64)")
    parser.add_argument("--cold", type=int, default=192, metavar="MIB", help="never touched again (default: 192)")
    parser.add_argument("--leave", type=int, default=8, metavar="MIB", help="free on the fast node (default: 8)")
    parser.add_argument("--seconds", type=int, default=150, help="how long the way is watched (default: 150)")
    parser.add_argument("--busy-seconds", type=int, default=40, help="of each half of the second part (default: 40)")
    parser.add_argument("--module", default="tier", help="what runs (default: tier)")
    parser.add_argument("--nodes", type=int, action="append", help="of the guest (default: 2 and 3)")
    parser.add_argument("--steps", action="store_true", help="print each look on the way")
    parser.add_argument("--only", choices=("way", "load"), help="one of the two parts")
    options = parser.parse_args()
    if not is_guest():
        worst = 0
        for nodes in options.nodes or (2, 3):
            guest = [str(ROOT / "lab/run"), "--nodes", str(nodes), "--timeout", "1800", "--", sys.executable, "-m"]
            done = subprocess.run([*guest, "benchmarks.evaluation", "tier", *sys.argv[1:]], cwd=ROOT)
            worst = max(worst, done.returncode)
        raise SystemExit(worst)
    nodes = move_pages.memory_nodes()
    os.sched_setaffinity(0, {MONITOR_CPU})  # pydamon's as well: the process has a CPU of its own
    print(f"tier: {options.module!r}; {options.hot} MiB hot, {options.cold} MiB cold\n{machine()}")
    if options.only != "load":
        settle(options, nodes)
    if options.only != "way":
        under_load(options, nodes)


if __name__ == "__main__":
    main()
