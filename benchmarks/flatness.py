"""Whether cost depends on the size of the target: it must not, at one number of regions."""

from __future__ import annotations

import statistics
import time

from benchmarks.cost import monitor, running
from pydamon.engines.choose import offers
from pydamon.engines.sim import SimEngine
from pydamon.ops.vaddr import three_ranges
from pydamon.primitives.process import Process
from pydamon.spec import from_builtins
from pydamon.spec.units import format_size
from pydamon.workload.model import parse

GIB = 1 << 30
REGIONS = 500


def simulated(total_bytes: int) -> float:
    """CPU time per virtual second."""
    text = f"hot, {total_bytes // 4}\ncold, {total_bytes * 3 // 4}\n\nsteady\n60000\nhot, 1, 4096, 1\n"
    bounds = {"min": REGIONS * 9 // 10, "max": REGIONS}
    spec = from_builtins({"kdamonds": [{"contexts": [{"ops": "sim", "targets": [{}], "nr_regions": bounds}]}]})
    engine = SimEngine(spec, parse(text, source="flatness"), mapping="one")
    began = time.process_time()
    engine.kdamond.end_ns = 20_000_000_000
    for _ in engine.monitor():
        pass
    return (time.process_time() - began) / 20


def monitored_bytes(pid: int) -> int:
    """Size of the target ranges of a process."""
    process = Process(pid)
    ranges = three_ranges(process.mappings())
    process.close()
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def show(title: str, shares: dict[int, float]) -> None:
    """One row and the ratio of the largest to the smallest."""
    cells = "  ".join(f"{format_size(size)}: {share:.2%}" for size, share in shares.items())
    print(
        f"{title:<8} {cells}   largest/smallest {max(shares.values()) / min(shares.values()):.2f} (aim: ≤ 1.10)",
        flush=True,
    )


def main() -> None:
    """Print the CPU shares for targets of different sizes."""
    print(f"flatness: CPU share at about {REGIONS} regions, by size of the target (medians of 3 and 5)")
    sizes = (GIB, 64 * GIB, 1024 * GIB)
    runs: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(3):  # in turn, so that a drift of the machine's speed meets all sizes
        for size in sizes:
            runs[size].append(simulated(size))
    show("sim", {size: sorted(shares)[1] for size, shares in runs.items()})
    for offer in offers():
        if offer.obstacle is not None:
            print(f"{offer.name}: skipped, {offer.obstacle}")
            continue
        if offer.name == "smaps":
            continue  # walks the whole resident set by its nature: see the table of `cost`
        small_bytes, large_bytes = GIB // 4, 4 * GIB
        real: dict[int, list[float]] = {small_bytes: [], large_bytes: []}
        with running(small_bytes) as small:
            # The same share of what is monitored (the program's own mappings count, too) is hot in both.
            overhead = monitored_bytes(small) - small_bytes
            hot = small_bytes // 4 * (large_bytes + overhead) // (small_bytes + overhead) // 4096 * 4096
            with running(large_bytes, hot) as large:
                for _ in range(5):
                    for size, pid in ((small_bytes, small), (large_bytes, large)):
                        real[size].append(monitor(pid, offer.name, 4, regions=REGIONS)[1])
        show(offer.name, {size: statistics.median(shares) for size, shares in real.items()})
