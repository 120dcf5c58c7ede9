"""What an aggregation costs: all that happens between two batches of samples, caches cold, beside another tree's code.

python -m benchmarks aggregation                 of this code
python -m benchmarks aggregation --old DIR/src   beside that one's, in turn, and the ratio of each pair
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.core.kdamond import Kdamond
from pydamon.ops.base import BatchEnd
from pydamon.records.schema import build_metadata
from pydamon.records.writer import RecordWriter
from pydamon.spans import ResidentRuns
from pydamon.spec import Context, Intervals, NrRegions, Target

U64 = NDArray[np.uint64]
PAGE = 4096
WINDOW = 20
ROUNDS = 300  # aggregations of one measurement
PAIRS = 5
CASES = {"130 regions": 100, "1,000 regions": 800}  # the fewest regions: noise and splitting add to them


class FixedOps:
    """A process of 1 GiB, a tenth of it accessed always, another one now and then, half of each MiB resident.

    It is its own sampler, which costs nothing: the time between its batches is the loop's, and is noted.
    """

    name = "vaddr"
    nr_targets = 1

    def __init__(self) -> None:
        self.probes: Sequence[Any] = ()
        self.sampler = self
        self.spent_ns: list[int] = []
        self._rng = np.random.default_rng(5)
        self._began_ns = 0
        self._cache = np.zeros(4 << 20)  # more than the caches hold
        low = (np.arange(1024, dtype=np.uint64) << np.uint64(20)) + np.uint64(1 << 30)
        self._resident = ResidentRuns()
        self._resident.note(1 << 30, 2 << 30, np.stack([low, low + np.uint64(1 << 19)], axis=1))
        self._ranges = [np.array([[1 << 30, 2 << 30]], np.uint64)]
        self._mappings: list[Any] = []

    def sample(
        self, targets: Any, regions: Sequence[Any], counts: Sequence[Any], n: int, pace: Any
    ) -> tuple[int, BatchEnd]:
        """As `pydamon.ops.base.Sampler`."""
        if self._began_ns:
            self.spent_ns.append(time.thread_time_ns() - self._began_ns)
        for spans, counted in zip(regions, counts, strict=True):
            place = (spans.start >> np.uint64(20)) % np.uint64(100)
            some = self._rng.random(len(spans.start)) < 0.3
            counted.accessed += np.where(place < 10, n, np.where((place < 20) & some, n // 2, 0))
        pace.clock.now += n * 5_000_000
        self._cache += 1
        self._began_ns = time.thread_time_ns()
        return n, BatchEnd.DONE

    def init(self) -> list[U64]:
        """All of it."""
        return self._ranges

    def update(self) -> list[U64 | None]:
        """All of it."""
        return [*self._ranges]

    def reset_aggregated(self) -> None:
        """Nothing is kept."""

    def target_valid(self, target: int) -> bool:
        """Always."""
        return True

    def mappings(self, target: int) -> list[Any]:
        """None that count."""
        return self._mappings

    def resident_bytes(self, target: int, start: U64, end: U64) -> U64:
        """Half of it."""
        return self._resident.resident_bytes(start, end)

    def cleanup(self) -> None:
        """Nothing is held."""


class Clock:
    """Advances by what is sampled."""

    now = 0

    def now_ns(self) -> int:
        """Its time."""
        return self.now

    def sleep_ns(self, ns: int) -> None:
        """It only advances."""
        self.now += ns


def measure(fewest: int, rounds: int = ROUNDS) -> tuple[float, float]:
    """The mean CPU time of an aggregation, in us, and the mean number of regions of a snapshot."""
    context = Context(
        ops="vaddr",
        targets=(Target(pid=1),),
        intervals=Intervals(ops_update_us=1_000_000),
        nr_regions=NrRegions(min=fewest, max=5 * fewest),
    )
    ops, regions = FixedOps(), []
    end_ns = rounds * 100_000_000
    kdamond = Kdamond(ops, context, Clock(), rng=np.random.default_rng(1), end_ns=end_ns)  # type: ignore[arg-type]
    metadata = build_metadata(targets=[])
    with tempfile.TemporaryDirectory() as directory, RecordWriter(f"{directory}/x", metadata=metadata) as writer:
        for snapshots in kdamond.monitor():
            for snapshot in snapshots:
                writer.add_snapshot(snapshot)
                regions.append(len(snapshot.start))
    per_aggregation = np.array(ops.spent_ns[rounds // 10 :]) / 1000
    return float(np.mean(per_aggregation)), float(np.mean(regions))


def child(tree: str) -> dict[str, tuple[float, float]]:
    """What the code in ``tree`` (a directory that has the package) takes, by the case."""
    environment = {**os.environ, "PYTHONPATH": tree, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--json"]
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd="/")
    found: dict[str, tuple[float, float]] = json.loads(ran.stdout)
    return found


def main() -> None:
    """Print the medians, and the ratios beside another tree."""
    parser = argparse.ArgumentParser(prog="benchmarks aggregation", description=__doc__)
    parser.add_argument("--old", help="the directory of another version's package, beside which to measure")
    parser.add_argument("--json", action="store_true", help="one measurement of the code that is imported, as JSON")
    options = parser.parse_args()
    if options.json:
        print(json.dumps({case: measure(fewest) for case, fewest in CASES.items()}))
        return
    here = str(Path(__file__).resolve().parent.parent / "src")
    pairs = [(child(here), child(options.old) if options.old else None) for _ in range(PAIRS)]
    print(f"CPU time of an aggregation and of writing it, caches cold: the median of {PAIRS}")
    for case in CASES:
        new = statistics.median(now[case][0] for now, _ in pairs)
        regions = pairs[0][0][case][1]
        line = f"{case:>14}: {new:7.0f} us ({regions:.0f} regions in a snapshot)"
        if options.old:
            ratios = [now[case][0] / before[case][0] for now, before in pairs if before is not None]
            before_us = statistics.median(before[case][0] for _, before in pairs if before is not None)
            line += f", before {before_us:.0f} us, ratio {statistics.median(ratios):.2f}"
        print(line)


if __name__ == "__main__":
    main()
