"""Snapshots at random for comparisons with literal computations."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np

from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch

PAGE = 4096


def random_snapshots(seed: int, *, targets: int = 2, count: int = 12, aggr_us: int | None = None) -> list[Snapshot]:
    """Snapshots of some targets: regions with gaps, of different sizes, some accessed; intervals that change."""
    rng = random.Random(seed)
    found = []
    now_ns = rng.randrange(10**9)
    for _ in range(count):
        lasting_us = aggr_us or rng.choice([50_000, 100_000, 120_000])
        for target in range(targets):
            bounds = sorted(rng.sample(range(1, 60), rng.randrange(2, 12)))
            regions = [
                (low * PAGE, high * PAGE, rng.choice([0, 0, 1, 5, 10]), rng.randrange(30))
                for low, high in pairwise(bounds)
                if rng.random() < 0.8
            ] or [(bounds[0] * PAGE, bounds[-1] * PAGE, 3, 0)]
            columns = np.array(regions, np.uint64)
            found.append(
                Snapshot(
                    target,
                    now_ns,
                    now_ns + lasting_us * 1000,
                    5_000,
                    lasting_us,
                    columns[:, 0],
                    columns[:, 1],
                    columns[:, 2].astype(np.uint32),
                    columns[:, 3].astype(np.uint32),
                )
            )
        now_ns += lasting_us * 1000 + rng.choice([0, 0, 10**7])
    return found


def batches_of(snapshots: list[Snapshot], size: int = 5) -> list[RegionBatch]:
    """The snapshots as batches of at most ``size`` of them."""
    return [RegionBatch.of(snapshots[at : at + size]) for at in range(0, len(snapshots), size)]


def regions_of(one: Snapshot) -> list[tuple[int, int, int, int]]:
    """(start, end, nr_accesses, age) of each region."""
    return list(zip(one.start.tolist(), one.end.tolist(), one.nr_accesses.tolist(), one.age.tolist(), strict=True))
