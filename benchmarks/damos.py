"""What schemes cost in the core: one pass of 1 to 10 schemes over 1,000 regions, without the actions themselves."""

from __future__ import annotations

import os
import statistics
import time

import numpy as np
from numpy.typing import NDArray

from pydamon.core.clock import VirtualClock
from pydamon.core.damos import Damos
from pydamon.core.regions import Regions
from pydamon.ops.base import Applied
from pydamon.spec import Intervals, Scheme
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AccessPattern, AddressRange, AgeRange, Filter, Quotas, RateRange

MIB = 1 << 20
REGIONS = 1000
INTERVALS = Intervals()


class NoAction:
    """An operations set whose actions are done at once."""

    name = "none"
    nr_targets = 1

    def target_valid(self, target: int) -> bool:
        """Always."""
        return True

    def may_grow(self) -> bool:
        """Nobody joins."""
        return False

    def check_scheme(self, scheme: Scheme) -> None:
        """Anything goes."""

    def apply_scheme(
        self,
        target: int,
        scheme: Scheme,
        start: NDArray[np.uint64],
        end: NDArray[np.uint64],
        allowed: NDArray[np.bool_],
    ) -> Applied:
        """All of it worked out."""
        return Applied(applied=end - start, passed=end - start)

    def node_bytes(self, target: int, start: NDArray[np.uint64], end: NDArray[np.uint64], nid: int) -> int:
        """Nothing."""
        return 0


def fresh() -> Regions:
    """1,000 regions of 1 MiB with random counts and ages."""
    rng = np.random.default_rng(1)
    start = np.uint64(0x7F00_0000_0000) + np.arange(REGIONS, dtype=np.uint64) * np.uint64(MIB)
    regions = Regions(start, start + np.uint64(MIB))
    regions.nr_accesses[:] = rng.integers(0, 21, REGIONS)
    regions.count_samples(20, 20)
    regions.age[:] = rng.integers(0, 1000, REGIONS)
    return regions


def schemes(kind: str, count: int) -> tuple[Scheme, ...]:
    """``count`` schemes of a kind, for slightly different patterns."""
    kinds = {
        "pattern only": {},
        "quota and scores": {"quotas": Quotas(sz_bytes=64 * MIB, reset_interval_ms=100)},
        "quota, scores and 4 address filters": {
            "quotas": Quotas(sz_bytes=64 * MIB, reset_interval_ms=100),
            "filters": tuple(
                Filter(
                    filter_type="addr",
                    address_range=AddressRange(
                        start=0x7F00_0000_0000 + (100 * i) * MIB + 4096, end=0x7F00_0000_0000 + (100 * i + 50) * MIB
                    ),
                )
                for i in range(1, 5)
            ),
        },
        "time quota": {"quotas": Quotas(time_ms=10, reset_interval_ms=100)},
    }
    return tuple(
        Scheme(
            action="stat",
            access_pattern=AccessPattern(
                nr_accesses=RateRange(min=Rate(number % 5, "samples")), age=AgeRange(min=Age(1_000_000, "us"))
            ),
            **kinds[kind],  # type: ignore[arg-type]
        )
        for number in range(count)
    )


def pass_us(kind: str, count: int, rounds: int = 100) -> float:
    """Median time of one pass of all schemes, in us; the regions are new each time."""
    clock = VirtualClock()
    damos = Damos(ops=NoAction(), clock=clock)  # type: ignore[arg-type]
    damos.start(schemes(kind, count), INTERVALS)
    times = []
    for number in range(1, rounds + 1):
        clock.sleep_ns(100_000_000)
        damos.wait_ns()
        regions = [fresh()]
        began = time.perf_counter_ns()
        damos.apply(20 * number, INTERVALS, [0], regions)
        times.append((time.perf_counter_ns() - began) / 1000)
    return statistics.median(times)


def main() -> None:
    """Print the table."""
    print(f"damos, {REGIONS} regions, one pass per aggregation of 100 ms, on {os.cpu_count()} CPUs")
    counts = (1, 2, 5, 10)
    print(f"{'schemes':<38}" + "".join(f"{count:>20}" for count in counts))
    for kind in ("pattern only", "quota and scores", "quota, scores and 4 address filters", "time quota"):
        cells = []
        for count in counts:
            spent = pass_us(kind, count)
            cells.append(f"{spent:>10.0f} us {spent / 100_000:>6.2%}")
        print(f"{kind:<38}" + "".join(f"{cell:>20}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
