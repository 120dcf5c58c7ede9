"""What is gained by sampling that learns from the machine: faithful runs beside those with each part of it, and all.

*many*: 48 mappings side by side, six of them hot for 4 s each time. *sparse*: two pairs of mappings in turn, of each
pair one has every eighth page in memory and uses all of these, the other one all pages. Beside them the workloads of
`benchmarks truth`. Medians over phases and seeds, and the worst; see there for the columns.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.real import monitor_workload
from benchmarks.truth import simulated
from pydamon.analysis.accuracy import PhaseScore, score_phases
from pydamon.engines.user.choose import offers
from pydamon.engines.user.engine import UserEngine
from pydamon.workload.builtin import TEXTS

INTERVALS = {"sample_us": 20_000, "aggr_us": 200_000}
SMAPS_INTERVALS = {"sample_us": 50_000, "aggr_us": 500_000}
HEADER = f"{'':36} {'wss error':>15} {'found after':>12} {'precision':>15} {'recall':>15} {'regions':>8} {'CPU':>6}"


def _phase(name: str, milliseconds: int, regions: list[str], stride: Callable[[str], int] = lambda _: 4096) -> str:
    return f"\n{name}\n{milliseconds}\n" + "".join(f"{region}, 0, {stride(region)}, 1\n" for region in regions)


def many() -> str:
    """48 mappings of 1 to 8 MiB, of which six others are hot in each phase."""
    rng = random.Random(5)
    names = [f"m{i}" for i in range(48)]
    text = "".join(f"{name}, {rng.choice([1, 2, 3, 5, 8])} MiB\n" for name in names) + _phase("warm-up", 1000, names)
    return text + "".join(_phase(f"phase {turn}", 4000, rng.sample(names, 6)) for turn in range(6))


def sparse() -> str:
    """Two pairs of mappings in turn; of a and c every eighth page is ever used."""

    def stride(name: str) -> int:
        return 32768 if name in "ac" else 4096

    text = "a, 128 MiB\nb, 64 MiB\nc, 128 MiB\nd, 64 MiB\n" + _phase("warm-up", 1000, list("abcd"), stride)
    return text + "".join(
        _phase(f"{pair} {turn}", 4000, list(pair), stride) for turn in range(3) for pair in ("ab", "cd")
    )


PATTERNS = {"many": many(), "sparse": sparse()}


def only_mappings(engine: UserEngine) -> None:
    """Leave it at regions that end where mappings end."""
    engine.ops.faithful = True


def only_resident(engine: UserEngine) -> None:
    """Leave it at resident pages."""
    engine.kdamond.context = msgspec.structs.replace(engine.kdamond.context, faithful=True)


WAYS: dict[str, tuple[bool, Callable[[UserEngine], None] | None]] = {
    "faithful": (True, None),
    "mappings": (False, only_mappings),
    "resident": (False, only_resident),
    "both": (False, None),
}


def line(title: str, runs: list[list[PhaseScore]], cpu: float | None = None) -> str:
    """Median and worst of all phases but the warm-ups."""
    scores = [score for run in runs for score in run[1:]]
    if not scores:
        return f"{title:36} no phase was long enough for a snapshot inside it"
    errors = [score.wss_error for score in scores]
    found = [float("inf") if score.found_after is None else score.found_after for score in scores]
    after = f"{statistics.median(found):.0f} ≤ {max(found):.0f}".replace("inf", "never")
    precision, recall = [s.precision for s in scores], [s.recall for s in scores]
    return (
        f"{title:36} {statistics.median(errors):6.1%} ≤ {max(errors):6.1%} {after:>12} "
        f"{statistics.median(precision):7.3f} ≥ {min(precision):.3f} "
        f"{statistics.median(recall):7.3f} ≥ {min(recall):.3f} "
        f"{statistics.median(s.regions for s in scores):8.0f} {'' if cpu is None else f'{cpu:6.1%}'}"
    )


def real(pattern: str, primitive: str, way: str, seeds: int) -> str:
    """The row of one primitive: monitors the pattern once per seed."""
    faithful, adjust = WAYS[way]
    intervals = SMAPS_INTERVALS if primitive == "smaps" else INTERVALS
    runs, shares = [], []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, f"{pattern}.cfg")
        path.write_text(PATTERNS[pattern])
        for seed in range(seeds):
            run = monitor_workload(
                str(path),
                primitive,
                seed=seed,
                populate=pattern != "sparse",
                adjust=adjust,
                faithful=faithful,
                intervals=intervals,
            )
            runs.append(score_phases(run.snapshots, run.truth.hot_ranges, window=run.window))
            shares.append(run.cpu_share)
    return line(f"{primitive} {pattern} {way}", runs, statistics.median(shares))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks faithful", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2, help="runs per row, simulated ones five times as many (2)")
    parser.add_argument("--primitive", action="append", help="only this one; repeatable (default: bpf and smaps)")
    options = parser.parse_args()
    print("faithful: what sampling gains from what is mapped and what is resident (median and worst)\n\n" + HEADER)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "many.cfg")
        path.write_text(PATTERNS["many"])
        for workload in ("stairs", "zigzag", "hotspots", str(path)):
            for way in ("faithful", "mappings"):
                run = partial(simulated, workload, "separate", faithful=way == "faithful")
                name = workload if workload in TEXTS else "many"
                print(line(f"sim {name} {way}", [run(seed) for seed in range(5 * options.seeds)]), flush=True)
    obstacles = {offer.name: offer.obstacle for offer in offers()}
    for primitive in options.primitive or ("bpf", "smaps"):
        if obstacles.get(primitive, "there is no such primitive") is not None:
            print(f"{primitive}: skipped, {obstacles.get(primitive, 'there is no such primitive')}")
            continue
        for pattern in PATTERNS:
            for way in WAYS:
                if primitive == "smaps" and way in ("mappings", "resident"):
                    continue  # that it answers for what is resident is decided when it is opened: both or none
                print(real(pattern, primitive, way, options.seeds), flush=True)
