"""What monitoring costs: Python per step, the page-table walk, memory, and CPU share by regions and interval."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real import make_spec, opened
from pydamon.core.kdamond import Kdamond
from pydamon.engines.base import Engine
from pydamon.engines.user.choose import offers
from pydamon.ops.pace import Pace

MIB = 1 << 20
# One region, a quarter of it touched over and over: most of memory is cold, as in most services.
PATTERN = "hot, {hot}\ncold, {cold}\n\nwarm\n100\nhot, 0, 4096, 1\ncold, 0, 4096, 1\n\nsteady\n{ms}\nhot, 0, 4096, 1\n"


@contextmanager
def running(total_bytes: int, hot_bytes: int = 0) -> Iterator[int]:
    """A workload process of that size, a quarter hot if not said; yields its pid in its steady phase."""
    hot_bytes = hot_bytes or total_bytes // 4
    text = PATTERN.format(hot=hot_bytes, cold=total_bytes - hot_bytes, ms=600_000)
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as file:
        file.write(text)
        file.flush()
        command = [sys.executable, "-m", "pydamon", "workload", file.name, "--json", "--mapping", "one"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(3):  # the layout, the warm-up, the steady phase
                process.stdout.readline()
            try:
                yield process.pid
            finally:
                process.kill()


class Stopwatch:
    """Times the steps of a kdamond, by replacing the methods of the loop with timed ones."""

    def __init__(self, engine: Engine) -> None:
        self.steps: dict[str, list[float]] = {}
        self.engine = engine
        self._slept_ns = 0
        self._undo: list[tuple[type, str, Any]] = [(Pace, "sleep", Pace.sleep)]
        sleep = Pace.sleep

        def asleep(pace: Pace) -> bool:
            began = time.perf_counter_ns()
            whole = sleep(pace)
            self._slept_ns += time.perf_counter_ns() - began
            return whole

        Pace.sleep = asleep  # type: ignore[method-assign,assignment]  # the parameter has another name
        for name in ("_check_accesses", "_merge_regions", "_take_snapshots", "_reset_aggregated", "_split_regions"):
            self._wrap(name)

    def _wrap(self, name: str) -> None:
        step = getattr(Kdamond, name)
        times = self.steps.setdefault(name, [])

        def timed(kdamond: Kdamond) -> Any:
            outside, began = self._asking_ns() + self._slept_ns, time.perf_counter_ns()
            result = step(kdamond)
            elapsed = time.perf_counter_ns() - began
            python_ns = elapsed - (self._asking_ns() + self._slept_ns - outside)
            times.append(python_ns / (result or 1) / 1000)  # of many samples: of each
            return result

        setattr(Kdamond, name, timed)
        self._undo.append((Kdamond, name, step))

    def _asking_ns(self) -> int:
        cost = self.engine.cost()
        return 0 if cost is None else cost.check_ns + cost.clear_ns

    def restore(self) -> None:
        """Put the methods back."""
        for owner, name, step in self._undo:
            setattr(owner, name, step)


def monitor(pid: int, primitive: str, seconds: float, *, regions: int, sample_us: int = 5000) -> tuple[Engine, float]:
    """Monitor with about ``regions`` regions; returns the engine and the CPU share of this process."""
    context = {
        "nr_regions": {"min": max(regions * 9 // 10, 3), "max": max(regions, 3)},
        "intervals": {"sample_us": sample_us, "aggr_us": 20 * sample_us},
    }
    engine = opened(make_spec(pid, primitive, **context), seed=1)
    return engine, run(engine, seconds)


def run(engine: Engine, seconds: float) -> float:
    """Run the engine; the CPU share of this process meanwhile (first tenth left out)."""
    engine.end_ns = time.monotonic_ns() + int(seconds * 1e9)
    settled = time.monotonic_ns() + int(seconds * 1e8)
    began = cpu = 0.0
    for _ in engine.monitor():
        if not began and time.monotonic_ns() >= settled:
            began, cpu = time.monotonic(), time.process_time()
    return (time.process_time() - cpu) / (time.monotonic() - began)


def steps() -> None:
    """Python's share of the sampling and aggregation steps at 1,000 regions."""
    with running(512 * MIB) as pid:
        engine = opened(make_spec(pid, "bpf", nr_regions={"min": 900, "max": 1000}), seed=1)
        watch = Stopwatch(engine)
        try:
            run(engine, 6)
        finally:
            watch.restore()
    median = {name: statistics.median(times) for name, times in watch.steps.items()}
    sampling = median["_check_accesses"]
    aggregation = sum(median.values()) - sampling
    regions = len(engine.kdamond.regions[0])
    print(f"Python per sampling step, system calls excluded   {sampling:8.0f} us at {regions} regions (aim: 100 us)")
    print(
        f"Python per aggregation step                       {aggregation:8.0f} us at {regions} regions (aim: 1,500 us)"
    )


def walk() -> None:
    """Time per page of the page-table walk, including Python."""
    from pydamon.primitives.bpf import PageTableWalk

    with running(256 * MIB) as pid:
        walker = PageTableWalk()
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        spans = [tuple(int(x, 16) for x in line.split()[0].split("-")) for line in maps]
        start, end = max(spans, key=lambda span: span[1] - span[0] if span[1] < 2**47 else 0)
        rng = np.random.default_rng(1)
        times = []
        for _ in range(300):
            addresses = (start + rng.integers(0, (end - start) // 4096, 1000) * 4096).astype(np.uint64)
            began = time.perf_counter_ns()
            walker.walk(pid, addresses)
            times.append(time.perf_counter_ns() - began)
        walker.close()
    per_page = statistics.median(times) / 1000 / 1000
    print(f"page-table walk, including Python                 {per_page:8.3f} us a page (aim: 0.1 us)")


def memory() -> None:
    """Peak resident memory of a recording process."""
    with running(256 * MIB) as pid, tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pydamon", "record", "-o", f"{directory}/x", "--sample", "5ms"]
        command += ["--min-regions", "900", "--duration", "8s", str(pid)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            time.sleep(7)
            status = Path(f"/proc/{process.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(f"peak resident memory of a recording process       {peak / 1024:8.1f} MiB (aim: 120 MB)")


def table() -> None:
    """CPU share against regions and sampling interval."""
    with running(256 * MIB) as pid:
        for offer in offers():
            if offer.obstacle is not None:
                print(f"\n{offer.name}: skipped, {offer.obstacle}")
                continue
            print(f"\nCPU share (of one CPU) and disturbance of the target, {offer.name}, 256 MiB target")
            print(f"{'regions':>9} " + "".join(f"{f'{ms} ms':>20}" for ms in (5, 20, 100)))
            for regions in (10, 100, 1000):
                cells = []
                for sample_us in (5_000, 20_000, 100_000):
                    engine, share = monitor(pid, offer.name, 4, regions=regions, sample_us=sample_us)
                    cost = engine.cost()
                    lost = 0.0 if cost is None else cost.disturb_ns / 4e9
                    cells.append(f"{share:9.1%} +{lost:8.1%} ")
                print(f"{regions:>9} " + "".join(f"{cell:>20}" for cell in cells), flush=True)


def main() -> None:
    """Print all of it."""
    print(f"cost, on {os.cpu_count()} CPUs")
    if all(offer.obstacle is None for offer in offers() if offer.name == "bpf"):
        steps()
        walk()
    memory()
    table()
