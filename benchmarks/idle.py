"""What a sample through idle page tracking costs: of a process and of physical memory, beside another version of
pydamon (``--old``), and, in the guest lab, beside the kernel's DAMON at the same regions.

All versions sample the same process in turns, each in a process of its own: CPU time of opening all windows and looking
at all of them, without the work of an aggregation. Of the kernel's, it is the time of the kdamond, all work included.
Started outside of the lab it boots the guest, whose times are those of an emulated machine: compare columns. With
``--stand-in`` it stays on this machine, and a plain file takes the place of the bitmap: the calls are counted with what
they cost, but what the kernel does in them for each bit is missing from all versions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.cost import MIB, running
from benchmarks.kernel_damon import KernelDamon
from pydamon.errors import MachineError
from pydamon.linux import idle_bitmap

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("vaddr", "paddr")
STAND_IN = Path(f"/dev/shm/pydamon-benchmark-bitmap-{os.environ.get('PYDAMON_STAND_IN', os.getpid())}")
TARGET_CPU, MONITOR_CPU = 0, 1


def biggest_mapping(pid: int) -> tuple[int, int]:
    """Start and end of the process's biggest mapping."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    spans = [[int(word, 16) for word in line.split()[0].split("-")] for line in lines]
    start, end = max((span for span in spans if span[1] < 1 << 47), key=lambda span: span[1] - span[0])
    return start, end


def system_ram() -> tuple[int, int]:
    """Start and end of the biggest range of memory, which is what the kernel's paddr monitors."""
    from pydamon.ops import paddr

    ranges = paddr.system_ram(Path(paddr.IOMEM).read_text())
    start, end = max(ranges.tolist(), key=lambda span: span[1] - span[0])
    return start, end


def sample(kind: str, pid: int, sizes: Sequence[int], seconds: float) -> None:
    """In a process of its own: print microseconds per sample for each number of regions, as JSON.

    Uses only what the versions that are compared have in common.
    """
    from pydamon.linux.process import Process
    from pydamon.ops.fvaddr import FvaddrOps
    from pydamon.ops.paddr import PaddrOps
    from pydamon.primitives import idle
    from pydamon.primitives.base import Shared

    if STAND_IN.exists():
        _use_stand_in()
    start, end = biggest_mapping(pid) if kind == "vaddr" else system_ram()
    whole = np.array([(start, end)], np.uint64)
    shared = Shared()
    if kind == "vaddr":
        ops = FvaddrOps([Process(pid)], idle.opener(shared), ranges=[whole], shared=shared)
    else:
        ops = PaddrOps(ranges=whole)  # type: ignore[assignment]
    ops.init()
    found = []
    for size in sizes:
        edges = start + np.linspace(0, (end - start) // 4096, size + 1).astype(np.uint64) * np.uint64(4096)
        begins, ends = edges[:-1].astype(np.uint64), edges[1:].astype(np.uint64)
        times: list[float] = []
        until = time.monotonic() + seconds
        while time.monotonic() < until or len(times) < 20:
            cpu = time.thread_time_ns()
            ops.sampler.prepare_access_checks(0, begins, ends)  # type: ignore[union-attr]
            spent = time.thread_time_ns() - cpu
            time.sleep(0.005)
            cpu = time.thread_time_ns()
            ops.sampler.check_accesses(0)  # type: ignore[union-attr]
            times.append((spent + time.thread_time_ns() - cpu) / 1000)
        found.append(statistics.median(times[len(times) // 10 :]))
    print(json.dumps(found))
    ops.cleanup()


def _use_stand_in() -> None:
    opens = idle_bitmap.IdleBitmap.__init__
    idle_bitmap.IdleBitmap.__init__ = lambda self, path="": opens(self, str(STAND_IN))  # type: ignore[method-assign]


def make_stand_in() -> None:
    """A sparse file with a bit for each frame of this machine."""
    with STAND_IN.open("wb") as file:
        file.truncate((system_ram()[1] >> 15) + 4096)


def measure(source: Path, kind: str, pid: int, sizes: Sequence[int], seconds: float) -> list[float]:
    """Microseconds per sample of the pydamon in that directory, for each number of regions."""
    # Old accessed bits, which the file does not clear, would make each page look hot.
    Path(f"/proc/{pid}/clear_refs").write_text("1")
    words = [kind, str(pid), ",".join(map(str, sizes)), str(seconds)]
    path = os.pathsep.join((str(source / "src"), str(ROOT)))
    command = [sys.executable, "-m", "benchmarks.idle", "--sample", *words]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"benchmarks: {source} failed (exit status {process.returncode})")
    found: list[float] = json.loads(said)
    return found


def of_kernel(kind: str, pid: int, size: int, seconds: float) -> float:
    """Microseconds per sample of the kernel's DAMON with about that many regions. Raises MachineError elsewhere."""
    sample_us = 20_000
    spans = () if kind == "vaddr" else (system_ram(),)
    least = max(size * 9 // 10, 3)
    damon = KernelDamon(pid, sample_us, 20 * sample_us, least, max(size, least + 1), spans, kind)
    damon.start(MONITOR_CPU)
    time.sleep(2)
    began, cpu = time.monotonic(), damon.cpu_seconds()
    time.sleep(seconds)
    share = (damon.cpu_seconds() - cpu) / (time.monotonic() - began)
    damon.stop()
    return share * sample_us


def table(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    sizes = [int(word) for word in arguments.regions.split(",")]
    versions = {"new": ROOT} if arguments.old is None else {"old": arguments.old, "new": ROOT}
    print(f"idle: CPU per sample in us, medians of {arguments.rounds} turns; a process of {arguments.size} MiB")
    print(f"{'':8}{'regions':>8}" + "".join(f"{name:>10}" for name in versions) + f"{'new/old':>9}", end="")
    print(f"{'kernel':>10}{'new/kernel':>11}", flush=True)
    with running(arguments.size * MIB) as pid:
        os.sched_setaffinity(pid, {TARGET_CPU})
        for kind in KINDS:
            found: dict[str, list[list[float]]] = {name: [] for name in versions}
            for _ in range(arguments.rounds):
                for name, source in versions.items():
                    found[name].append(measure(source, kind, pid, sizes, arguments.seconds))
            for at, size in enumerate(sizes):
                median = {name: statistics.median(times[at] for times in found[name]) for name in versions}
                row = f"{kind:8}{size:>8}" + "".join(f"{median[name]:>10.0f}" for name in versions)
                row += f"{median['new'] / median['old']:>9.2f}" if "old" in median else f"{'-':>9}"
                try:
                    kernel = of_kernel(kind, pid, size, arguments.kernel_seconds)
                    row += f"{kernel:>10.0f}{median['new'] / max(kernel, 1):>11.1f}"
                except MachineError:  # outside of the lab its DAMON is left alone
                    row += f"{'-':>10}{'-':>11}"
                print(row, flush=True)


def main() -> None:
    """Print a row for each operations set and number of regions."""
    parser = argparse.ArgumentParser(prog="benchmarks idle", description=__doc__)
    parser.add_argument("--old", type=Path, metavar="DIR", help="a checkout of the version to compare with")
    parser.add_argument("--regions", default="10,130,1000", help="numbers of regions (default: 10,130,1000)")
    parser.add_argument("--seconds", type=float, default=2, help="of sampling for each of them in a turn (default: 2)")
    parser.add_argument("--kernel-seconds", type=float, default=20, help="of the kernel's sampling (default: 20)")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: 5)")
    parser.add_argument("--size", type=int, default=256, help="MiB of the process (default: 256)")
    parser.add_argument("--stand-in", action="store_true", help="a plain file in place of the bitmap, on this machine")
    parser.add_argument("--sample", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sample:
        kind, pid, sizes, seconds = arguments.sample
        sample(kind, int(pid), [int(word) for word in sizes.split(",")], float(seconds))
        return
    if arguments.stand_in:
        os.environ["PYDAMON_STAND_IN"] = str(os.getpid())
        make_stand_in()
        try:
            table(arguments)
        finally:
            STAND_IN.unlink()
        return
    if (
        "pydamon.lab=1" not in Path("/proc/cmdline").read_text().split()
        and not Path("/sys/kernel/mm/page_idle/bitmap").exists()
    ):
        command = [str(ROOT / "lab/run"), "--timeout", "3000", "--", sys.executable, "-m", "benchmarks", "idle"]
        raise SystemExit(subprocess.run([*command, *sys.argv[1:]], check=False).returncode)
    table(arguments)


if __name__ == "__main__":
    main()
