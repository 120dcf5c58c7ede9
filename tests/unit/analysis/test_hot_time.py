"""When the memory was hot."""

from __future__ import annotations

import numpy as np
from tests.unit.records.record_samples import AGGR_NS, START_NS, snapshot

from pydamon.analysis.profile import hot_time
from pydamon.records.batch import RegionBatch

MIB = 1 << 20


def _batch() -> RegionBatch:
    """Heats of 0, 1, 0.4, 0.5 MiB; the third after a break."""
    regions = [[(0, MIB, 0, 0)], [(0, MIB, 20, 0)], [(0, MIB, 8, 0)], [(0, MIB // 2, 20, 0), (MIB, 9 * MIB, 0, 1)]]
    return RegionBatch.of([snapshot(number + (number > 1), one) for number, one in enumerate(regions)])


def test_hot_is_a_share_of_the_maximum() -> None:
    assert hot_time([_batch()], 0.5).hot.tolist() == [False, True, False, True]
    assert hot_time([_batch()], 0.4).hot.tolist() == [False, True, True, True]
    assert hot_time([_batch()], 0.0).hot.tolist() == [False, True, True, True]


def test_times_are_told_apart() -> None:
    found = hot_time([_batch()], 0.5)
    times = [START_NS - 1, START_NS, START_NS + AGGR_NS, START_NS + 2 * AGGR_NS, START_NS + 3 * AGGR_NS]
    times += [START_NS + 5 * AGGR_NS - 1, START_NS + 5 * AGGR_NS]
    assert found.of(np.array(times)).tolist() == [-1, 0, 1, -1, 0, 1, -1]
    assert (found.lasting_ns(True), found.lasting_ns(False)) == (2 * AGGR_NS, 2 * AGGR_NS)


def test_nothing_is_never_hot() -> None:
    assert hot_time([], 0.5).of(np.array([5])).tolist() == [-1]
