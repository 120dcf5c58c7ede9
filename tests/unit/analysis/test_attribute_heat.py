"""Temperatures by what probes counted, and how bytes are distributed over them, in numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.records.record_samples import AGGR_NS, snapshot

from pydamon.analysis.attribute_heat import attribute_heat, histogram, percentiles
from pydamon.records.hits import ProbedRegions, hits_table, of_snapshot, probed_regions
from pydamon.records.side_tables import conform

MIB = 1 << 20


def probed(weights: tuple[int, ...] = (100, 1)) -> ProbedRegions:
    """1 MiB with 20 and 0 hits for 2 aggregations, 2 MiB with none for 9, 1 MiB with 0 and 5 for none."""
    regions = [(0, MIB, 0, 2), (MIB, 3 * MIB, 0, 9), (3 * MIB, 4 * MIB, 0, 0)]
    hits = {"probe_hits": np.array([[20, 0, 0], [0, 0, 5]], np.uint32), "probe_samples": np.full(3, 20, np.uint32)}
    part = of_snapshot(snapshot(0, regions).replace(**hits), ("a", "b"), weights)
    (read,) = probed_regions(hits_table([part]))
    assert read.weights == (weights or (0, 0))
    return read


def test_a_temperature_is_of_hits_age_and_size() -> None:
    heat = attribute_heat(probed(), (100.0, 10.0, 1.0))
    assert heat.sums.tolist() == [2000, 0, 5]
    age_us = AGGR_NS / 1000
    assert heat.temperatures.tolist() == [
        2000 * 100 + 2 * age_us * 10 + MIB,
        -(9 * age_us * 10 + 2 * MIB),  # without hits: the longer, the colder
        5 * 100 + MIB,
    ]
    assert heat.idle_ns.tolist() == [0, 9 * AGGR_NS, 0]
    assert heat.order("address").tolist() == [0, 1, 2]
    assert heat.order("temperature").tolist() == [1, 2, 0]
    assert heat.order("age").tolist() == [2, 0, 1]
    assert heat.order("size").tolist() == [0, 2, 1]


def test_without_weights_all_probes_count_alike() -> None:
    heat = attribute_heat(probed(()))
    assert heat.weights == (1, 1)
    assert heat.sums.tolist() == [20, 0, 5]


def test_what_was_recorded_without_weights_has_none() -> None:
    old = hits_table([probed()]).drop_columns(["weight"])
    (read,) = probed_regions(conform("probe_hits", old))
    assert read.weights == (0, 0)


@pytest.mark.parametrize(
    ("percent", "value"), [(0, 1.0), (20, 1.0), (25, 1.0), (26, 3.0), (75, 3.0), (76, 9.0), (100, 9.0)]
)
def test_percentiles_are_of_bytes(percent: float, value: float) -> None:
    # 1 of 4 bytes has the value 1, two have 3, one has 9.
    assert percentiles(np.array([9.0, 1.0, 3.0]), np.array([1.0, 1.0, 2.0]), [percent]) == [value]


def test_a_histogram_has_equal_bins_that_hold_all_bytes() -> None:
    found = histogram(np.array([0.0, 4.0, 10.0]), np.array([1.0, 2.0, 4.0]), 5)
    assert found == [(0, 2, 1), (2, 4, 0), (4, 6, 2), (6, 8, 0), (8, 10, 4)]
    assert histogram(np.array([3.0, 3.0]), np.array([1.0, 2.0]), 5) == [(3, 3, 3)]
