"""The estimate of memory bandwidth."""

from __future__ import annotations

import pytest
from tests.unit.analysis.analysis_samples import batches_of, random_snapshots, regions_of
from tests.unit.records.record_samples import snapshot

from pydamon.analysis.bandwidth import bandwidths
from pydamon.records.batch import RegionBatch


def test_one_region_by_hand() -> None:
    """DAMON_STAT's formula: size × nr_accesses per aggregation; 1 MiB × 20 in 0.1 s is 200 MiB/s."""
    (found,) = bandwidths([RegionBatch.of([snapshot(0, [(0, 1 << 20, 20, 0), (1 << 20, 1 << 30, 0, 9)])])])
    assert found.bytes_per_s.tolist() == [200 << 20]
    assert found.mean == 200 << 20


@pytest.mark.parametrize("seed", range(5))
def test_estimates_are_what_a_loop_over_all_regions_sums(seed: int) -> None:
    snapshots = random_snapshots(seed)
    for found in bandwidths(batches_of(snapshots)):
        mine = [one for one in snapshots if one.target == found.target]
        rates = [sum((e - s) * n for s, e, n, _ in regions_of(one)) * 1e6 / one.aggr_us for one in mine]
        assert found.bytes_per_s.tolist() == pytest.approx(rates)
        lasting = [one.end_ns - one.start_ns for one in mine]
        mean = sum(rate * time for rate, time in zip(rates, lasting, strict=True)) / sum(lasting)
        assert found.mean == pytest.approx(mean)


def test_nothing_gives_nothing() -> None:
    assert bandwidths([]) == []
