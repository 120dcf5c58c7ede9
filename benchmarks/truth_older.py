"""Whether this code's answers are as right as an earlier commit's: on the same workloads, seed by seed, in turns.

For each seed the older code monitors a workload twice, this code once. It is *no worse* in a measure if its median is
behind that of all the older runs by no more than what the older code's two runs of a seed differ by on average.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
OTHER_DRAWS = 1000  # added to the seed of the older code's second run: a simulation would be the same otherwise

# Both checkouts have `benchmarks.real` and `benchmarks.truth`; each runs its own.
_RUN = """
import json, sys
from dataclasses import asdict
from benchmarks.real import monitor_workload
from benchmarks.truth import simulated
from pydamon.analysis.accuracy import score_phases
how, workload, mapping, seed, scale = sys.argv[1:]
if how == "sim":
    scores = simulated(workload, mapping, int(seed))
else:
    run = monitor_workload(workload, how, mapping=mapping, seed=int(seed), time_scale=float(scale))
    scores = score_phases(run.snapshots, run.truth.hot_ranges, window=run.window)
print(json.dumps([asdict(score) for score in scores[1:]]))
"""


@dataclass(frozen=True)
class Measure:
    """One number of a run. ``sign``: 1 where more is worse, -1 where less is; ``shown``: half of its last digit."""

    name: str
    sign: int
    form: str
    shown: float


MEASURES = (
    Measure("wss error", 1, "{:.1%}", 0.0005),
    Measure("found after", 1, "{:.1f}", 0.05),
    Measure("precision", -1, "{:.3f}", 0.0005),
    Measure("recall", -1, "{:.3f}", 0.0005),
)


def measured(phases: Sequence[dict[str, Any]]) -> tuple[float, ...]:
    """A run's `MEASURES`: means over its phases. What was never found counts as found after the last snapshot."""
    rows = (
        [phase["wss_error"] for phase in phases],
        [phase["snapshots"] + 1 if phase["found_after"] is None else phase["found_after"] for phase in phases],
        [phase["precision"] for phase in phases],
        [phase["recall"] for phase in phases],
    )
    return tuple(statistics.fmean(row) for row in rows)


def one_run(checkout: Path, how: str, workload: str, mapping: str, seed: int, scale: float) -> tuple[float, ...]:
    """What `measured` returns, of the code in ``checkout``; ``how``: "sim" or a primitive."""
    command = [sys.executable, "-c", _RUN, how, workload, mapping, str(seed), str(scale)]
    environment = {**os.environ, "PYTHONPATH": f"{checkout / 'src'}:{checkout}"}
    done = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"benchmarks: a run in {checkout} failed: {done.stderr.strip()}")
    phases = json.loads(done.stdout.splitlines()[-1])
    if not phases:
        raise SystemExit("benchmarks: no phase was long enough for a snapshot inside it; give a larger --time-scale")
    return measured(phases)


@dataclass(frozen=True)
class Verdict:
    """A measure's medians, by how much the older code's two runs differ, and whether this code is no worse."""

    older: float
    this: float
    differ: float
    no_worse: bool


def judge(measure: Measure, older: Sequence[tuple[float, float]], this: Sequence[float]) -> Verdict:
    """``older``: the two runs of each seed; ``this``: the one of each."""
    before, now = statistics.median(run for pair in older for run in pair), statistics.median(this)
    differ = statistics.fmean(abs(one - other) for one, other in older)
    behind = (now - before) * measure.sign
    return Verdict(before, now, differ, behind <= max(differ, measure.shown))


def table(
    older: Path, seeds: int, scale: float, ways: Sequence[str], patterns: Sequence[tuple[str, str]]
) -> Iterator[str]:
    """Lines: one for each way, pattern and measure, as they are known, and the verdict on all."""
    yield f"{'':28} {'measure':12} {'older':>8} {'differ by':>10} {'this':>8}"
    worse = 0
    for how in ways:
        for workload, mapping in patterns:
            pairs, ours = [], []
            for seed in range(1, seeds + 1):
                # In turns: whatever else the machine does then, it does to all.
                first = one_run(older, how, workload, mapping, seed, scale)
                ours.append(one_run(HERE, how, workload, mapping, seed, scale))
                pairs.append((first, one_run(older, how, workload, mapping, seed + OTHER_DRAWS, scale)))
            for at, measure in enumerate(MEASURES):
                found = judge(measure, [(a[at], b[at]) for a, b in pairs], [run[at] for run in ours])
                worse += not found.no_worse
                before, differ, now = (measure.form.format(x) for x in (found.older, found.differ, found.this))
                title = "" if at else f"{how} {workload} {mapping}"
                said = "no worse" if found.no_worse else "WORSE"
                yield f"{title:28} {measure.name:12} {before:>8} {differ:>10} {now:>8}  {said}"
    yield ""
    yield (
        f"worse in {worse} measures than two runs of the older code differ"
        if worse
        else "in every measure no worse than two runs of the older code differ"
    )
