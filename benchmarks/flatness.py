"""Whether cost depends on the size of the target: it must not, at one number of regions."""

from __future__ import annotations

import statistics
import time

from benchmarks.cost import running
from benchmarks.real import make_spec, opened
from pydamon.engines.user.choose import offers
from pydamon.linux.process import Process
from pydamon.ops.vaddr import three_ranges
from pydamon.spec import from_builtins
from pydamon.spec.primitives import facts
from pydamon.spec.units import format_size
from pydamon.workload.model import parse

GIB = 1 << 30
REGIONS = 500


def simulated(total_bytes: int) -> float:
    """CPU time per sample in us."""
    text = f"hot, {total_bytes // 4}\ncold, {total_bytes * 3 // 4}\n\nsteady\n60000\nhot, 1, 4096, 1\n"
    bounds = {"min": REGIONS * 9 // 10, "max": REGIONS}
    spec = from_builtins({"kdamonds": [{"contexts": [{"ops": "sim", "targets": [{}], "nr_regions": bounds}]}]})
    engine = opened(spec, workload=parse(text, source="flatness"), mapping="one")
    began = time.process_time()
    engine.end_ns = 20_000_000_000
    for _ in engine.monitor():
        pass
    return (time.process_time() - began) / engine.kdamond.passed_samples * 1e6


def per_sample_us(pid: int, primitive: str, seconds: float = 4) -> float:
    """CPU time per sample, from the third aggregation on: unlike the share it does not depend on who else is busy."""
    bounds = {"min": REGIONS * 9 // 10, "max": REGIONS}
    engine = opened(make_spec(pid, primitive, nr_regions=bounds), seed=1)
    engine.end_ns = time.monotonic_ns() + int(seconds * 1e9)
    cpu_ns = samples = 0
    for number, _ in enumerate(engine.monitor()):
        if number == 2:
            cpu_ns, samples = time.process_time_ns(), engine.kdamond.passed_samples
    return (time.process_time_ns() - cpu_ns) / max(engine.kdamond.passed_samples - samples, 1) / 1000


def monitored_bytes(pid: int) -> int:
    """Size of the target ranges of a process."""
    process = Process(pid)
    ranges = three_ranges(process.mappings())
    process.close()
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def show(title: str, costs: dict[int, float]) -> None:
    """One row, in us of CPU time per sample, and the ratio of the largest target to the smallest."""
    cells = "  ".join(f"{format_size(size)}: {cost:.0f} us" for size, cost in costs.items())
    ratio = costs[max(costs)] / costs[min(costs)]
    print(f"{title:<8} {cells}   largest/smallest {ratio:.2f} (aim: ≤ 1.10)", flush=True)


def main() -> None:
    """Print the cost for targets of different sizes."""
    print(f"flatness: CPU time per sample at about {REGIONS} regions, by size of the target (medians of 3 and 5)")
    sizes = (GIB, 64 * GIB, 1024 * GIB)
    runs: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(3):  # in turn, so that a drift of the machine's speed meets all sizes
        for size in sizes:
            runs[size].append(simulated(size))
    show("sim", {size: sorted(costs)[1] for size, costs in runs.items()})
    for offer in offers():
        if offer.obstacle is not None:
            print(f"{offer.name}: skipped, {offer.obstacle}")
            continue
        if not facts(offer.name).page_granular:
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
                        real[size].append(per_sample_us(pid, offer.name))
        show(offer.name, {size: statistics.median(costs) for size, costs in real.items()})
