"""Working sets and heat by the field's definitions, computed literally.

damo's percentiles: of the n sorted sizes the one at int(p / 100 × n), the last one for 100; its heat of a region: size
× time × nr_accesses. ``benchmarks/reports.py`` compares with damo itself.
"""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.analysis.analysis_samples import PAGE, batches_of, random_snapshots, regions_of

from pydamon.analysis.heatmap import HeatAccumulator
from pydamon.analysis.wss import working_sets


@pytest.mark.parametrize("min_accesses", [0, 1, 6])
@pytest.mark.parametrize("seed", range(6))
def test_working_set_percentiles(seed: int, min_accesses: int) -> None:
    snapshots = random_snapshots(seed, count=23)
    for found in working_sets(batches_of(snapshots), min_accesses):
        mine = [one for one in snapshots if one.target == found.target]
        sizes = [sum(e - s for s, e, n, _ in regions_of(one) if n >= min_accesses) for one in mine]
        assert found.bytes.tolist() == sizes
        wanted = [0, 1, 25, 33.3, 50, 75, 99, 100]
        expected = [sorted(sizes)[min(int(p / 100 * len(sizes)), len(sizes) - 1)] for p in wanted]
        assert found.percentiles(wanted) == expected
        assert found.mean_bytes == sum(sizes) // len(sizes)


@pytest.mark.parametrize("seed", range(6))
def test_the_heat_of_all_cells_is_that_of_all_regions(seed: int) -> None:
    """Whatever the cells: their heat × bytes × time is the sum over the regions of size × time × rate."""
    snapshots = random_snapshots(seed, targets=1, aggr_us=100_000)
    first, last = snapshots[0].start_ns, snapshots[-1].end_ns
    times = np.linspace(first, last, 8).astype(np.int64)
    places = np.array([0, 7, 19, 33, 62], np.uint64) * np.uint64(PAGE)
    accumulator = HeatAccumulator(times, places)
    monitored = np.zeros((7, 4))
    total = 0.0
    for batch in batches_of(snapshots):
        accumulator.add(batch)
    for one in snapshots:
        for start, end, nr_accesses, _ in regions_of(one):
            total += (end - start) * (one.end_ns - one.start_ns) * nr_accesses / one.max_nr_accesses
            for row in range(7):
                lasting = max(min(one.end_ns, int(times[row + 1])) - max(one.start_ns, int(times[row])), 0)
                for cell in range(4):
                    width = max(min(end, int(places[cell + 1])) - max(start, int(places[cell])), 0)
                    monitored[row, cell] += lasting * width
    found = accumulator.heatmap(0)
    assert (np.nan_to_num(found.heat) * monitored).sum() == pytest.approx(total)
    assert found.outside == pytest.approx(0, abs=1e-9)
