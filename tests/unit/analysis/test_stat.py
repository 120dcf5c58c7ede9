"""DAMON_STAT's numbers, by worked examples with the definitions of Documentation/admin-guide/mm/damon/stat.rst."""

from __future__ import annotations

import numpy as np
from tests.unit.records.record_samples import snapshot

from pydamon.analysis.stat import stat, used_within

KIB = 1024
# Of 100 KiB: 10 in use for 2 aggregations, 40 just touched, 30 idle for 1, 20 idle for 10; of 100 ms, 20 samples.
REGIONS = [
    (0, 10 * KIB, 20, 1),
    (10 * KIB, 50 * KIB, 5, 0),
    (50 * KIB, 80 * KIB, 0, 0),
    (80 * KIB, 100 * KIB, 0, 9),
]


def test_bandwidth_is_the_sum_of_size_times_accesses() -> None:
    """(10 KiB x 20 + 40 KiB x 5) per 100 ms are 4,000 KiB/s."""
    found = stat([snapshot(0, REGIONS)])
    assert found is not None
    assert found.bandwidth_bytes_per_s == 4000 * KIB
    assert found.aggr_us == 100_000


def test_percentiles_go_from_what_is_in_use_to_what_is_idle() -> None:
    """Region 0 is in use for (1 + 1) x 100 ms and has the first 10 %; the others reach 50, 80 and 100 %."""
    found = stat([snapshot(0, REGIONS)])
    assert found is not None
    idle = found.idle_ms.tolist()
    assert len(idle) == 101
    assert (idle[0], idle[10], idle[11], idle[50]) == (-200, -200, -100, -100)
    assert (idle[51], idle[80], idle[81], idle[100]) == (100, 100, 1000, 1000)


def test_targets_count_together_each_by_its_own_interval() -> None:
    """Two of 100 KiB; the second's aggregation takes 200 ms, so that the same counts are half the rate."""
    slow = snapshot(0, [(0, 100 * KIB, 0, 4)], target=1, aggr_ns=200_000_000)
    found = stat([snapshot(0, REGIONS), slow])
    assert found is not None
    assert found.bandwidth_bytes_per_s == 4000 * KIB
    assert found.idle_ms[[0, 25, 26, 40, 41, 90, 91]].tolist() == [-200, -100, 100, 100, 1000, 1000, 1000]


def test_what_is_not_resident_does_not_count() -> None:
    held = snapshot(0, REGIONS).replace(resident=np.array([0, 0, 30 * KIB, 0], np.uint64))
    found = stat([held])
    assert found is not None
    assert found.bandwidth_bytes_per_s == 0
    assert set(found.idle_ms.tolist()) == {100}
    assert stat([held.replace(resident=np.zeros(4, np.uint64))]) is None


def test_without_regions_nothing_is_told() -> None:
    assert stat([]) is None
    assert stat([snapshot(0, [])]) is None
    assert used_within([], 1) == (0, 0)


def test_the_working_set_is_what_is_used_or_young() -> None:
    """Ages: 0 aggregations of 100 ms are younger than 500 ms, 9 are not."""
    assert used_within([snapshot(0, REGIONS)], 500_000) == (100 * KIB, 80 * KIB)
    assert used_within([snapshot(0, REGIONS)], 10_000_000) == (100 * KIB, 100 * KIB)
