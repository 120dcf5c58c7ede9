"""Sizes over time: worked by hand, compared with the working set's own curve, and over folding."""

from __future__ import annotations

import numpy as np
from tests.unit.analysis.test_pyramid import timed

from pydamon.analysis.curves import COLD_S, Curves
from pydamon.analysis.wss import working_sets
from pydamon.records.batch import RegionBatch

MIB = 1 << 20
S = 10**9


def test_a_column_is_the_mean_by_time_with_the_least_and_the_most() -> None:
    """By hand: columns of 2 s. In 0..1 s 1 MiB is used, in 1..2 s 3 MiB; in 2..5 s nothing."""
    curves = Curves(0, 8 * S, columns=4)
    curves.column_ns = 2 * S
    regions = [(0, MIB, 10), (MIB, 3 * MIB, 0)], [(0, 3 * MIB, 10)], [(0, 3 * MIB, 0)]
    times = (0, 1), (1, 2), (2, 5)
    snapshots = [timed(a * S, b * S, list(r), 10) for (a, b), r in zip(times, regions, strict=True)]
    for one in snapshots:
        curves.add(RegionBatch.of([one]))
    sizes = curves.sizes()
    assert sizes.time_ns.tolist() == [0, 2 * S, 4 * S, 6 * S]
    assert (sizes.used / MIB).tolist() == [2, 0, 0]
    assert (sizes.used_least / MIB).tolist() == [1, 0, 0]
    assert (sizes.used_most / MIB).tolist() == [3, 0, 0]
    assert (sizes.memory / MIB).tolist() == [3, 3, 3]
    assert (sizes.cold[0] / MIB).tolist() == [1, 3, 3]
    assert not sizes.cold[1].any()


def test_cold_memory_is_told_by_how_long_it_is_cold() -> None:
    """Ages are in aggregations of 1 s; what was accessed is not cold, whatever its age."""
    one = timed(0, S, [(0, MIB, 0), (MIB, 2 * MIB, 0), (2 * MIB, 4 * MIB, 1)], 1_000_000)
    one = one.replace(age=np.array([9, 60, 500], np.uint32))
    curves = Curves(0, S, columns=1)
    curves.add(RegionBatch.of([one]))
    cold = dict(zip(COLD_S, (curves.sizes().cold[:, 0] / MIB).tolist(), strict=True))
    assert [cold[at] for at in (0, 5, 10, 60, 120)] == [2, 2, 1, 1, 0]


def test_folding_keeps_what_the_working_set_says() -> None:
    rng = np.random.default_rng(3)
    snapshots = [timed(at * S, (at + 1) * S, [(0, int(n) * 4096, 10)]) for at, n in enumerate(rng.integers(1, 99, 300))]
    curves = Curves(0, S, columns=16)
    for first in range(0, 300, 7):
        curves.add(RegionBatch.of(snapshots[first : first + 7]))
    sizes = curves.sizes()
    (working_set,) = working_sets([RegionBatch.of(snapshots)])
    assert curves.column_ns * 16 >= 300 * S > curves.column_ns * 8
    weights = np.diff(np.minimum(sizes.time_ns, 300 * S)).astype(np.float64)
    assert round(float(np.average(sizes.used, weights=weights))) in range(
        working_set.mean_bytes, working_set.mean_bytes + 2
    )
    assert np.nanmax(sizes.used_most) == working_set.bytes.max()
    assert np.nanmin(sizes.used_least) == working_set.bytes.min()
