"""What an answer from a recording says against what happens when the policy is really run, on the simulated machine.

Mixes of memory in steady use, swept again and again, accessed at random and never: each is recorded once without a
scheme, and run again with `pageout` of what was not accessed for T, whose bytes and refaults are known exactly. Both
are looked at from T on. Random patterns are of at most 64 MiB, below which the simulator is exact to the page.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np

from pydamon.analysis.whatif.ages import AgesAccumulator
from pydamon.analysis.whatif.answers import answers
from pydamon.core.panel import Look
from pydamon.engines.sim import SimEngine
from pydamon.library.build import make_spec
from pydamon.records.batch import RegionBatch
from pydamon.workload import model

RATE = 1_000_000  # accesses a second, of all patterns together
PAGES = 256  # to a MiB
AGES_S = (2, 5, 10, 20, 40, 80)
AIMS = "aims: saved within 5 % (median), refaults within 15 % (median), the bracket holds the truth in 90 %, width x 2"


@dataclass(frozen=True, slots=True)
class Compared:
    """One policy on one mix: bytes, and bytes per minute."""

    mix: int
    seed: int
    age_s: int
    saved_truth: float
    saved: float
    truth: float
    low: float
    middle: float
    high: float
    hits: int


def mix(number: int, duration_s: int) -> model.Workload:
    """A mix of patterns; the odd ones have busy and quiet times of a minute."""
    rng = np.random.default_rng(number)
    sizes = {"hot": int(rng.integers(8, 65)), "cold": int(rng.integers(16, 129))}
    rates: dict[str, int] = {"cold": 0}
    for sweep in range(int(rng.integers(2, 6))):
        name = f"sweep{sweep}"
        sizes[name] = int(rng.integers(8, 49))
        rates[name] = round(sizes[name] * PAGES / float(np.exp(rng.uniform(np.log(3), np.log(120)))))
    for random in range(int(rng.integers(0, 3))):
        name = f"random{random}"
        sizes[name] = int(rng.integers(16, 65))
        rates[name] = round(sizes[name] * PAGES / float(np.exp(rng.uniform(np.log(4), np.log(200)))))
    order = rng.permutation(sorted(sizes)).tolist()
    regions = tuple(model.WorkloadRegion(name, sizes[name] << 20) for name in order)

    def phase(name: str, seconds: int, share: float) -> model.Phase:
        used = {one: round(rate * share) for one, rate in rates.items()}
        used["hot"] = RATE - sum(used.values())
        accesses = [
            model.Access(order.index(one), one.startswith("random"), 4096, rate) for one, rate in used.items() if rate
        ]
        return model.Phase(name, seconds * 1000, tuple(accesses))

    if number % 2 == 0:
        return model.Workload(regions, (phase("steady", duration_s, 1.0),))
    minutes = range(duration_s // 60)
    return model.Workload(regions, tuple(phase(f"m{n}", 60, 1.5 if n % 2 == 0 else 0.5) for n in minutes))


def engine(workload: model.Workload, seed: int, schemes: Sequence[str], panel: int) -> SimEngine:
    """The simulated machine, monitored every 100 ms."""
    spec = make_spec(ops="sim", sample="100ms", aggr="1s", regions=(10, 200), schemes=list(schemes))
    return SimEngine(spec, workload, seed=seed, accesses_per_s=RATE, mapping="one", panel=panel)


def recorded(workload: model.Workload, seed: int, panel: int) -> tuple[RegionBatch, list[Look]]:
    """The snapshots of a recording without schemes, and its looks at the panel."""
    running = engine(workload, seed, (), panel)
    running.looks()
    found, looks = [], []
    for snapshots in running.monitor():
        found += snapshots
        looks += running.looks()
    return RegionBatch.of(found), looks


def happened(workload: model.Workload, seed: int, age_s: int) -> tuple[float, float]:
    """Bytes that are out, the mean over time, and bytes that came back in a minute, with the policy, from T on."""
    running = engine(workload, seed, [f"pageout rate=0% age>={age_s}s"], 0)
    out, before, first_ns, last_ns, faults = [], 0, None, 0, 0
    for snapshots in running.monitor():
        began_ns = snapshots[0].end_ns if first_ns is None else first_ns
        first_ns, last_ns = began_ns, snapshots[0].end_ns
        now = running.simulated.summary()
        if last_ns - first_ns < age_s * 10**9:
            before = now.fault_bytes
            continue
        out.append(now.swapped_bytes)
        faults = now.fault_bytes - before
    assert first_ns is not None
    return float(np.mean(out)), faults * 60 / ((last_ns - first_ns) / 1e9 - age_s)


def compare(number: int, seed: int, ages_s: Sequence[int], duration_s: int, panel: int) -> list[Compared]:
    """One recording against the policies of these ages."""
    workload = mix(number, duration_s)
    batch, looks = recorded(workload, seed, panel)
    span = int(batch.start_ns[0]), int(batch.end_ns[-1])
    accumulator = AgesAccumulator(np.array([1.0, *AGES_S, 120.0]), span, span[0])
    accumulator.add(batch)
    found = answers(accumulator.finish(), {0: looks})
    rows = {row.age_s: row for row in found.rows}
    compared = []
    for age_s in ages_s:
        saved, truth = happened(workload, seed, age_s)
        row = rows[age_s]
        assert row.high is not None
        assert row.hits is not None
        compared.append(
            Compared(number, seed, age_s, saved, row.saved, truth, row.low, row.refaults, row.high, row.hits)
        )
    return compared


def _task(arguments: tuple[int, int, tuple[int, ...], int, int]) -> list[Compared]:
    return compare(*arguments)


def report(found: Sequence[Compared]) -> None:
    """Print how far off, and how often the bracket holds."""
    mib, least = 1 << 20, 0.05
    saved = np.array([abs(one.saved - one.saved_truth) / max(one.saved_truth, mib) for one in found])
    back = [one for one in found if one.truth > least * mib]
    error = np.array([abs(one.middle - one.truth) / one.truth for one in back])
    signed = np.array([(one.middle - one.truth) / one.truth for one in back])
    held = np.array([one.low <= one.truth <= one.high for one in back])
    width = np.array([one.high / max(one.low, 1) for one in back])
    print(f"{len(found)} policies on {len({(one.mix, one.seed) for one in found})} recordings; {AIMS}")
    percentiles = [float(x) for x in np.percentile(saved, [50, 95]) * 100]
    print(f"saved bytes:       off by {percentiles[0]:.1f} % (median), {percentiles[1]:.1f} % (95 %)")
    percentiles = [float(x) for x in np.percentile(error, [50, 95]) * 100]
    bias = float(np.median(signed)) * 100
    print(
        f"refaults, middle:  off by {percentiles[0]:.1f} % (median), {percentiles[1]:.1f} % (95 %), bias {bias:+.1f} %"
    )
    few = [one.hits < 10 for one in back]
    print(f"refaults, bracket: holds {held.mean() * 100:.0f} % of {len(back)}, width x {np.median(width):.2f} (median)")
    print(f"with fewer than 10 hits, where more is asked for: {sum(few)}")


def main() -> None:
    """Run all, as many at a time as there are CPUs."""
    parser = argparse.ArgumentParser(prog="benchmarks what-if-accuracy", description=__doc__.splitlines()[0])
    parser.add_argument("--mixes", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="mix; the method is tuned on 0 to 19")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--panel", type=int, default=1024)
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    tasks = []
    for number, seed in product(range(options.first, options.first + options.mixes), range(options.seeds)):
        ages = tuple(AGES_S[(number + seed) % 2 :: 2])
        tasks.append((number, seed, ages, options.seconds, options.panel))
    began = time.monotonic()
    with ProcessPoolExecutor(options.jobs) as pool:
        found = [one for part in pool.map(_task, tasks) for one in part]
    print(f"\n== what-if from a recording against the closed loop ({time.monotonic() - began:.0f} s)")
    if options.verbose:
        for one in found:
            numbers = (one.saved_truth, one.saved, one.truth, one.low, one.middle, one.high)
            print(one.mix, one.seed, one.age_s, *(f"{number / (1 << 20):8.1f}" for number in numbers), one.hits)
    report(found)


if __name__ == "__main__":
    main()
