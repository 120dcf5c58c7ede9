"""Whether cost depends on the size of the target: it must not, at one number of regions."""

from __future__ import annotations

import time

from benchmarks.cost import monitor, running
from pydamon.engines.choose import offers
from pydamon.engines.sim import SimEngine
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


def show(title: str, shares: dict[int, float]) -> None:
    """One row and the ratio of the largest to the smallest."""
    cells = "  ".join(f"{format_size(size)}: {share:.2%}" for size, share in shares.items())
    print(
        f"{title:<8} {cells}   largest/smallest {max(shares.values()) / min(shares.values()):.2f} (aim: ≤ 1.10)",
        flush=True,
    )


def main() -> None:
    """Print the CPU shares for targets of different sizes."""
    print(f"flatness: CPU share at about {REGIONS} regions, by size of the target (median of 3)")
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
        real: dict[int, list[float]] = {GIB // 4: [], 4 * GIB: []}
        with running(GIB // 4) as small, running(4 * GIB) as large:
            for _ in range(3):
                for size, pid in ((GIB // 4, small), (4 * GIB, large)):
                    real[size].append(monitor(pid, offer.name, 4, regions=REGIONS)[1])
        show(offer.name, {size: sorted(shares)[1] for size, shares in real.items()})
