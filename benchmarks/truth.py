"""How right the answers are where the pattern is known: simulated exactly, and real through each primitive.

``--older DIR``: whether they are as right as those of an earlier commit, of which DIR is a checkout (`truth_older`).
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any, cast

from benchmarks import truth_older
from benchmarks.real import monitor_workload, opened
from pydamon.analysis.accuracy import PhaseScore, score_phases
from pydamon.engines.sim import SimEngine
from pydamon.engines.user.choose import offers
from pydamon.spec import from_builtins

WORKLOADS = ("stairs", "zigzag")
# Left to itself smaps would take longer intervals for these sizes than a phase has time for.
INTERVALS: dict[str, dict[str, Any]] = {"smaps": {"intervals": {"sample_us": 50_000, "aggr_us": 500_000}}}
MAPPINGS = ("separate", "one")
HEADER = f"{'':26} {'wss error':>15} {'found after':>12} {'precision':>10} {'recall':>8} {'regions':>8} {'CPU':>7}"


def simulated(workload: str, mapping: str, seed: int = 0, **context: object) -> list[PhaseScore]:
    """Scores of the phases of a simulated run at default attributes."""
    spec = from_builtins({"kdamonds": [{"contexts": [{"ops": "sim", "targets": [{}], **context}]}]})
    engine = cast(SimEngine, opened(spec, workload=workload, mapping=mapping, seed=seed))
    snapshots = [snapshots[0] for snapshots in engine.monitor()]
    return score_phases(snapshots, engine.ops.truths[0].hot_ranges)


def line(title: str, scores: list[PhaseScore], cpu_share: float | None = None) -> str:
    """One row: median and worst working-set error, worst of the others over all phases but the warm-up."""
    scores = scores[1:]
    if not scores:
        return f"{title:26} no phase was long enough for a snapshot inside it"
    errors = [score.wss_error for score in scores]
    found = [float("inf") if score.found_after is None else score.found_after for score in scores]
    after = f"{statistics.median(found):.0f} ≤ {max(found):.0f}".replace("inf", "never")
    cpu = "" if cpu_share is None else f"{cpu_share:7.1%}"
    return (
        f"{title:26} {statistics.median(errors):6.1%} ≤ {max(errors):6.1%} {after:>12} "
        f"{min(s.precision for s in scores):10.3f} {min(s.recall for s in scores):8.3f} "
        f"{statistics.median(s.regions for s in scores):8.0f} {cpu}"
    )


def main() -> None:
    """Print the table, or the one beside an earlier commit."""
    parser = argparse.ArgumentParser(prog="benchmarks truth", description=__doc__)
    parser.add_argument("--older", type=Path, help="a checkout of a commit to compare with")
    parser.add_argument("--seeds", type=int, default=5, help="with --older: runs of each pattern (default: 5)")
    parser.add_argument("--time-scale", type=float, default=0.3, help="with --older: of phases of 5 s (default: 0.3)")
    options = parser.parse_args()
    if options.older is None:
        alone()
        return
    if not (options.older / "benchmarks/truth.py").is_file():
        raise SystemExit(f"benchmarks: --older {options.older}: no benchmarks/truth.py in it; give a checkout")
    if options.seeds < 1:
        raise SystemExit(f"benchmarks: --seeds {options.seeds}: must be at least 1")
    ways = ["sim", *(offer.name for offer in offers() if offer.name == "bpf" and offer.obstacle is None)]
    patterns = [(workload, mapping) for workload in WORKLOADS for mapping in MAPPINGS]
    print(f"truth: beside {options.older}, {options.seeds} seeds; means over phases of {5 * options.time_scale:g} s of")
    print("       what `benchmarks truth` shows; medians of the runs, and what two older runs of a seed differ by\n")
    for row in truth_older.table(options.older.resolve(), options.seeds, options.time_scale, ways, patterns):
        print(row, flush=True)


def alone() -> None:
    """Print the table of this code."""
    print("truth: working-set error (median and worst phase), snapshots until the hot range is found (likewise),")
    print("       precision and recall of hot bytes in the steady half (worst phase), median number of regions\n")
    print(HEADER)
    for workload in WORKLOADS:
        for mapping in MAPPINGS:
            print(line(f"sim {workload} {mapping}", simulated(workload, mapping)), flush=True)
    for offer in offers():
        if offer.obstacle is not None:
            print(f"{offer.name}: skipped, {offer.obstacle}")
            continue
        for workload in WORKLOADS:
            for mapping in MAPPINGS:
                run = monitor_workload(workload, offer.name, mapping=mapping, **INTERVALS.get(offer.name, {}))
                scores = score_phases(run.snapshots, run.truth.hot_ranges, window=run.window)
                print(line(f"{offer.name} {workload} {mapping}", scores, run.cpu_share), flush=True)
