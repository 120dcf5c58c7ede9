"""What a recording that is played again on a simulated machine says against the programs it is of.

The mixes of `benchmarks.what_if_accuracy`, on the same machine: the working set as it was recorded and as the played
recording is recorded, and what policies save and bring back on both: `python -m benchmarks played`.
"""

from __future__ import annotations

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.what_if_accuracy import RATE, mix
from pydamon.analysis.wss import working_sets
from pydamon.records.joined import open_record
from pydamon.run.simulation.programs import gather
from pydamon.run.simulation.results import Result
from pydamon.run.simulation.runs import Policy, Setting, compare
from pydamon.spec import Intervals, NrRegions
from pydamon.spec.forms.scheme_short import parse_short
from pydamon.spec.machine import parse_machine
from pydamon.workload.layout import Layout
from pydamon.workload.program import Accesses, Phases, Program

SCHEMES = ("pageout rate=0% age>=10s", "pageout rate=0% age>=40s")
_MIB = 1 << 20
_AIM = 0.05


class Mix(Phases):
    """A workload with the rate of the mixes."""

    def accesses(self, layout: Layout, accesses_per_s: int, seed: int) -> Accesses:
        """See `Program`."""
        return super().accesses(layout, RATE, seed)


def runs(programs: tuple[Program, ...], seed: int, *, output: str = "", schemes: tuple[str, ...] = ()) -> list[Result]:
    """Without a policy and under each, every 100 ms; ``output`` is the record of the last run."""
    setting = Setting(
        programs=programs,
        machine=parse_machine(""),
        intervals=Intervals(sample_us=100_000, aggr_us=1_000_000, ops_update_us=1_000_000),
        nr_regions=NrRegions(min=10, max=200),
        seed=seed,
    )
    policies = [Policy(text, (parse_short(text),)) for text in schemes]
    return compare(setting, policies, output=output, say=lambda line: None)


def working_set(path: str) -> float:
    """In bytes, the mean over the time."""
    with open_record(path) as reader:
        (found,) = working_sets(reader.batches())
    return found.settled().mean_bytes


def one(task: tuple[int, int], seconds: int) -> tuple[float, list[tuple[float, float, float, float]]]:
    """By what share the working set differs; for each policy bytes saved and back a minute, really and played."""
    number, seed = task
    with tempfile.TemporaryDirectory() as folder:
        path, again = str(Path(folder) / "run.damon"), str(Path(folder) / "again.damon")
        real: tuple[Program, ...] = (Mix(mix(number, seconds), "mix"),)
        runs(real, seed, output=path)
        runs(gather([path], hidden=False).programs, seed + 100, output=again)
        truth = runs(real, seed, schemes=SCHEMES)
        found = runs(gather([path]).programs, seed + 100, schemes=SCHEMES)
        policies: list[tuple[float, float, float, float]] = []
        for happened, played in zip(truth[1:], found[1:], strict=True):
            saved = float(truth[0].resident_bytes - happened.resident_bytes)
            again_saved = float(found[0].resident_bytes - played.resident_bytes)
            policies.append((saved, again_saved, happened.refaults_per_minute, played.refaults_per_minute))
        return working_set(again) / working_set(path) - 1, policies


def main() -> None:
    """Run all, as many at a time as there are CPUs."""
    parser = argparse.ArgumentParser(prog="benchmarks played", description=__doc__.splitlines()[0])
    parser.add_argument("--mixes", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=None)
    options = parser.parse_args()
    tasks = list(product(range(options.mixes), range(options.seeds)))
    with ProcessPoolExecutor(options.jobs) as pool:
        found = list(pool.map(partial(one, seconds=options.seconds), tasks))
    print(f"\n== recordings that are played again: {options.mixes} mixes x {options.seeds} seeds, {options.seconds} s")
    sets = np.abs([error for error, _ in found])
    print(
        f"working set, recorded again: off by {np.median(sets):.1%} (median), {sets.max():.1%} (most); "
        f"within {_AIM:.0%}: {np.count_nonzero(sets <= _AIM)} of {len(sets)}"
    )
    rows = np.array([row for _, policies in found for row in policies])
    saved = np.abs(rows[:, 1] / np.maximum(rows[:, 0], _MIB) - 1)
    some = rows[rows[:, 2] > 0.05 * _MIB]
    back = np.abs(some[:, 3] / some[:, 2] - 1)
    print(f"saved by policies: off by {np.median(saved):.1%} (median), {saved.max():.1%} (most), of {len(saved)}")
    print(f"what comes back:   off by {np.median(back):.1%} (median), {back.max():.1%} (most), of {len(back)}")
