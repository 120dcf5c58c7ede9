"""Distributions of bytes over idle time, access rate and temperature."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.analysis.analysis_samples import batches_of, random_snapshots, regions_of
from tests.unit.records.record_samples import snapshot

from pydamon.analysis import distribution as dist
from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch


def _literal(kind: str, one: Snapshot, nr_accesses: int, age: int) -> float:
    """The formulas of the module, of one region."""
    age_s = age * one.aggr_us / 1e6
    rate = 100 * nr_accesses / (one.aggr_us // one.sample_us)
    if kind == "idle":
        return 0.0 if nr_accesses else age_s
    if kind == "rate":
        return rate
    heat = 100 * rate + 100 * age_s
    return heat if nr_accesses else -heat


MEASURES = {"idle": dist.idle_s, "rate": dist.rate_percent, "temperature": dist.temperature}


@pytest.mark.parametrize("kind", MEASURES)
@pytest.mark.parametrize("seed", range(6))
def test_histograms_are_what_a_loop_over_all_regions_counts(kind: str, seed: int) -> None:
    snapshots = random_snapshots(seed)
    edges = np.array([-10_000.0, -50.0, 0.0, 0.7, 3.0, 40.0, 5_000.0])
    found = {one.target: one for one in dist.distributions(batches_of(snapshots), MEASURES[kind], edges)}
    for target in (0, 1):
        sums, lasting = [0.0] * 6, 0
        for one in snapshots:
            if one.target == target:
                lasting += one.end_ns - one.start_ns
                for start, end, nr_accesses, age in regions_of(one):
                    value = _literal(kind, one, nr_accesses, age)
                    place = max(sum(value >= edge for edge in edges) - 1, 0)
                    sums[min(place, 5)] += (end - start) * (one.end_ns - one.start_ns)
        assert found[target].bytes == pytest.approx([size / lasting for size in sums])
        assert found[target].at_least(2) == round(sum(sums[2:]) / lasting)


@pytest.mark.parametrize("kind", MEASURES)
def test_ranges_are_the_extremes_of_each_target(kind: str) -> None:
    snapshots = random_snapshots(3)
    found = dist.ranges(batches_of(snapshots), MEASURES[kind])
    for target in (0, 1):
        values = [
            _literal(kind, one, n, a) for one in snapshots if one.target == target for *_, n, a in regions_of(one)
        ]
        assert found[target] == pytest.approx((min(values), max(values)))


def test_all_bytes_are_counted_also_beyond_the_edges() -> None:
    one = snapshot(0, [(0, 4096, 0, 100), (4096, 12288, 20, 0)])
    (found,) = dist.distributions([RegionBatch.of([one])], dist.idle_s, np.array([1.0, 2.0, 3.0]))
    assert (found.total_bytes, found.bytes.tolist()) == (12288, [8192, 4096])


def test_longer_snapshots_weigh_more() -> None:
    """100 ms with one page accessed, 300 ms with none: a quarter of the time."""
    first = snapshot(0, [(0, 4096, 20, 0)])
    second = snapshot(1, [(0, 4096, 0, 0)], aggr_ns=300_000_000)
    (found,) = dist.distributions([RegionBatch.of([first, second])], dist.rate_percent, np.array([0.0, 50.0, 101.0]))
    assert found.bytes.tolist() == [3072, 1024]


def test_the_temperature_has_the_age_in_seconds_and_a_sign() -> None:
    """20 of 20 samples, 3 aggregations of 100 ms: 100 × 100 + 100 × 0.3. The same age without access: -30."""
    batch = RegionBatch.of([snapshot(0, [(0, 4096, 20, 3), (4096, 8192, 0, 3)])])
    assert dist.temperature(batch).tolist() == pytest.approx([10_030, -30])


def test_the_weights_of_damo_give_the_temperature_of_damo() -> None:
    """damo 3.4: rate in percent × 100 + age in µs × 100; of a region idle for 300 ms, -30,000,000."""
    batch = RegionBatch.of([snapshot(0, [(0, 4096, 20, 3), (4096, 8192, 0, 3)])])
    assert dist.temperature(batch, (100, 1e8)).tolist() == pytest.approx([30_010_000, -30_000_000])


def test_percentiles_count_bytes() -> None:
    """Of 4 pages with 1 and 12 with 5: the first quarter has 1."""
    batch = RegionBatch.of([snapshot(0, [(0, 4 * 4096, 1, 0), (4 * 4096, 16 * 4096, 5, 0)])])
    values = batch.nr_accesses.astype(np.float64)
    assert dist.percentiles(batch, values, [0, 25, 26, 100]) == [1, 1, 5, 5]
