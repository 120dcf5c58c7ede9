"""How much faster than real time the simulator is, on one core: `python -m benchmarks simulate`.

Sixty ranges, a third of them swept, a third accessed at random, a third idle; 200 regions. Beside it the same with one
sample after another, as everybody else samples, and how the cost depends on the size of what is simulated.
"""

from __future__ import annotations

import time

from pydamon.core.clock import VirtualClock
from pydamon.engines.sim import SimEngine
from pydamon.library.build import make_spec
from pydamon.ops.sampling import PageSampler
from pydamon.spec.units import format_size
from pydamon.workload import model
from pydamon.workload.model import Workload

_MIB = 1 << 20
_RANGES = 60
_REGIONS = (200, 400)
# sampling and aggregation interval (us), simulated seconds, aim (times real time)
ROWS = ((5_000, 100_000, 60, 100), (18_500, 370_000, 200, 300), (50_000, 1_000_000, 600, 1000))


def pattern(total_bytes: int) -> Workload:
    """The workload, of that size."""
    lines = [f"r{i}, {total_bytes // _RANGES // 4096 * 4096}" for i in range(_RANGES)]
    accesses = [f"r{i}, {int(i % 3 == 1)}, 4096, 1" for i in range(_RANGES) if i % 3 != 2]
    return model.parse("\n".join([*lines, "", "steady", "3600000", *accesses]) + "\n", source="benchmark")


def simulated(sample_us: int, aggr_us: int, seconds: int, total_bytes: int, *, at_once: bool = True) -> float:
    """CPU seconds that it takes; the best of three."""
    best = float("inf")
    for _ in range(3):
        spec = make_spec(ops="sim", sample=sample_us, aggr=aggr_us, regions=_REGIONS)
        clock = VirtualClock()
        engine = SimEngine(spec, pattern(total_bytes), seed=1, clock=clock)
        if not at_once:
            ops = engine.ops
            ops.sampler = PageSampler(ops, ops.dice)  # type: ignore[assignment]
        engine.end_ns = seconds * 1_000_000_000
        began = time.process_time()
        for _ in engine.monitor():
            pass
        best = min(best, time.process_time() - began)
    return best


def main() -> None:
    """Print a row for each pair of intervals, then one for sizes."""
    for sample_us, aggr_us, seconds, aim in ROWS:
        once = seconds / simulated(sample_us, aggr_us, seconds, 480 * _MIB)
        each = seconds / simulated(sample_us, aggr_us, seconds, 480 * _MIB, at_once=False)
        print(
            f"{sample_us / 1000:g} ms / {aggr_us / 1000:g} ms: {once:.0f} x real time (aim: >= {aim}), "
            f"one sample after another {each:.0f} x: {once / each:.1f} times as fast",
            flush=True,
        )
    costs = {size: simulated(50_000, 1_000_000, 200, size) * 1000 / 200 for size in (1 << 30, 32 << 30, 1 << 40)}
    cells = "  ".join(f"{format_size(size)}: {cost:.2f} ms" for size, cost in costs.items())
    ratio = costs[max(costs)] / costs[min(costs)]
    print(f"CPU per aggregation  {cells}  largest/smallest {ratio:.2f}", flush=True)
