"""Answers compared with access patterns that are known: exactly in the simulator, with stated tolerance on processes.

The expected values come from the workload's own description (what it touches, and when), not from our monitoring.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from benchmarks.real import monitor_workload
from benchmarks.truth import simulated

from pydamon.analysis.accuracy import PhaseScore, score_phases
from pydamon.engines.user.choose import offers

OBSTACLES = {offer.name: offer.obstacle for offer in offers()}

pytestmark = pytest.mark.truth


# Two ranges in turn; a short form of zigzag.
TURNS = """\
a, 33554432
b, 33554432

warm-up
300
a, 0, 4096, 1
b, 0, 4096, 1

a
1500
a, 0, 4096, 1

b
1500
b, 0, 4096, 1

a again
1500
a, 0, 4096, 1
"""


@pytest.fixture
def turns(tmp_path: Path) -> str:
    path = tmp_path / "turns.cfg"
    path.write_text(TURNS)
    return str(path)


def needs(primitive: str) -> pytest.MarkDecorator:
    reason = f"primitive {primitive}: {OBSTACLES[primitive]}"
    return pytest.mark.skipif(OBSTACLES[primitive] is not None, reason=reason)


def check(scores: list[PhaseScore], *, error: float, accuracy: float) -> None:
    """Medians over the phases after the warm-up."""
    steady = scores[1:]
    assert steady
    assert statistics.median(score.wss_error for score in steady) <= error
    assert statistics.median(score.precision for score in steady) >= accuracy
    assert statistics.median(score.recall for score in steady) >= accuracy


@pytest.mark.parametrize("workload", ["stairs", "zigzag"])
@pytest.mark.parametrize("mapping", ["separate", "one"])
def test_simulated_patterns_are_found(workload: str, mapping: str) -> None:
    scores = simulated(workload, mapping)
    assert len(scores) >= 3
    check(scores, error=0.05, accuracy=0.95)
    assert all(score.found_after in (1, 2) for score in scores)


def test_region_bounds_that_do_not_fit_the_pattern_make_no_difference() -> None:
    # 100 MiB in 7 initial regions: no bound falls on a stair
    check(simulated("stairs", "one", nr_regions={"min": 7, "max": 1000}), error=0.05, accuracy=0.95)


@pytest.mark.parametrize("seed", range(3))
def test_random_accesses_are_found_with_few_regions(seed: int) -> None:
    check(simulated("random", "one", seed=seed, nr_regions={"min": 10, "max": 100}), error=0.05, accuracy=0.95)


@needs("bpf")
@pytest.mark.parametrize("mapping", ["separate", "one"])
@pytest.mark.usefixtures("processes")
def test_a_real_process_is_seen_to_the_page_through_bpf(mapping: str, turns: str) -> None:
    # Short phases on a machine that may be busy: looser than the benchmark's aims (5 %, 0.95).
    run = monitor_workload(turns, "bpf", mapping=mapping)
    check(score_phases(run.snapshots, run.truth.hot_ranges, window=run.window), error=0.15, accuracy=0.85)


@needs("smaps")
@pytest.mark.usefixtures("processes")
def test_a_real_process_is_seen_by_mapping_through_smaps(turns: str) -> None:
    run = monitor_workload(turns, "smaps", intervals={"sample_us": 20_000, "aggr_us": 200_000})
    scores = score_phases(run.snapshots, run.truth.hot_ranges, window=run.window)
    # One mapping per region, touched completely: the mapping's share is all or nothing.
    check(scores, error=0.5, accuracy=0.7)
