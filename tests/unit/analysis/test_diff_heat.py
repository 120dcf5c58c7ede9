"""Comparing two records: mean access rates by address and by name."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.analysis.analysis_samples import PAGE, batches_of, random_snapshots, regions_of
from tests.unit.records.record_samples import snapshot

from pydamon.analysis.diff import (
    Change,
    MeanHeat,
    NameChange,
    NamedHeat,
    bounds_of,
    by_name,
    changes,
    mean_heat,
    name_changes,
)
from pydamon.records.batch import RegionBatch

MIB = 1 << 20


def _heat(*regions: tuple[int, int, int]) -> MeanHeat:
    """Of one snapshot with regions of (start, end, accesses of 20), in MiB."""
    batch = RegionBatch.of([snapshot(0, [(s * MIB, e * MIB, n, 0) for s, e, n in regions])])
    return mean_heat([batch], bounds_of([batch]))


@pytest.mark.parametrize("seed", range(8))
def test_mean_rates_are_what_a_loop_over_pages_finds(seed: int) -> None:
    snapshots = random_snapshots(seed, targets=1)
    batches = batches_of(snapshots)
    bounds = np.arange(0, 64 * PAGE, 3 * PAGE, dtype=np.uint64)  # regions straddle these cells
    found = mean_heat(batches, bounds)
    total = sum(one.end_ns - one.start_ns for one in snapshots)
    for cell in range(len(bounds) - 1):
        heat = known = 0.0
        for page in range(3 * cell, 3 * cell + 3):
            for one in snapshots:
                for start, end, nr_accesses, _ in regions_of(one):
                    if start <= page * PAGE < end:
                        known += one.end_ns - one.start_ns
                        heat += (one.end_ns - one.start_ns) * nr_accesses / one.max_nr_accesses
        assert found.monitored[cell] == pytest.approx(known / 3 / total)
        if known:
            assert found.rate[cell] == pytest.approx(heat / known)
        else:
            assert np.isnan(found.rate[cell])


def test_bounds_are_all_ends_of_regions_if_they_are_few() -> None:
    batches = batches_of(random_snapshots(1))
    expected = {int(place) for batch in batches for column in (batch.start, batch.end) for place in column}
    assert bounds_of(batches).tolist() == sorted(expected)


def test_many_bounds_leave_the_commonest_and_the_outermost() -> None:
    """Page 10 and 20 are bounds in each of 50 snapshots, a thousand others in one each."""
    snapshots = [snapshot(0, [(PAGE * n, PAGE * (n + 1), 0, 0) for n in range(100, 1100)])]
    snapshots += [snapshot(n, [(10 * PAGE, 20 * PAGE, 5, 0)]) for n in range(1, 50)]
    found = bounds_of(batches_of(snapshots), most=8).tolist()
    assert len(found) <= 8
    assert {10 * PAGE, 20 * PAGE, 1100 * PAGE} <= set(found)
    assert found == sorted(found)


def test_what_became_hotter_colder_new_and_gone() -> None:
    before = _heat((0, 1, 20), (1, 2, 0), (2, 3, 10), (3, 4, 4))
    after = _heat((0, 1, 2), (1, 2, 10), (2, 3, 10), (5, 6, 1))
    assert changes(before, after) == [
        Change(0, MIB, 1.0, 0.1, MIB),
        Change(MIB, 2 * MIB, 0.0, 0.5, MIB),
        Change(3 * MIB, 4 * MIB, 0.2, None, MIB),
        Change(5 * MIB, 6 * MIB, None, 0.05, MIB),
    ]
    assert [change.kind for change in changes(before, after)] == ["colder", "hotter", "gone", "new"]
    weights = [change.weight / MIB for change in changes(before, after)]
    assert weights == pytest.approx([0.9, 0.5, 0.2, 0.05])


def test_small_differences_are_none() -> None:
    before = MeanHeat(np.array([0, MIB], np.uint64), np.array([0.50]), np.ones(1))
    after = MeanHeat(np.array([0, MIB], np.uint64), np.array([0.54]), np.ones(1))
    assert changes(before, after) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_record_does_not_differ_from_itself(seed: int) -> None:
    batches = batches_of(random_snapshots(seed, targets=1))
    heat = mean_heat(batches, bounds_of(batches))
    assert changes(heat, heat) == []


def test_neighbours_that_changed_alike_are_one_range() -> None:
    before = _heat((0, 1, 0), (1, 4, 0))
    after = _heat((0, 3, 10), (3, 4, 10))
    assert changes(before, after) == [Change(0, 4 * MIB, 0.0, 0.5, 4 * MIB)]


def test_what_is_not_resident_does_not_count() -> None:
    """A MiB of which an eighth is resident and hot, one of which nothing is, beside one that is all there and idle."""
    regions = [(0, MIB, 20, 0), (MIB, 2 * MIB, 0, 0), (2 * MIB, 3 * MIB, 0, 0)]
    resident = np.array([MIB // 8, 0, MIB], np.uint64)
    batch = RegionBatch.of([snapshot(0, regions).replace(resident=resident)])
    heat = mean_heat([batch], np.array([0, 2 * MIB, 3 * MIB], np.uint64))
    assert heat.bytes.tolist() == [MIB / 8, MIB]
    assert heat.rate.tolist() == [1.0, 0.0]
    other = RegionBatch.of([snapshot(0, [(0, MIB, 0, 0)]).replace(resident=resident[:1])])
    bounds = np.arange(4, dtype=np.uint64) * np.uint64(MIB)
    found = changes(mean_heat([batch], bounds), mean_heat([other], bounds[:2]))
    assert found == [Change(0, MIB, 1.0, 0.0, MIB // 8), Change(2 * MIB, 3 * MIB, 0.0, None, MIB)]


def test_memory_of_one_name_is_taken_together() -> None:
    """1 MiB at 100 % and 3 MiB at 0 % of the samples are 4 MiB at 25 %."""
    found = by_name(_heat((0, 1, 20), (1, 2, 10), (2, 5, 0)), ["heap", None, "heap"])
    assert found == {"heap": NamedHeat(4 * MIB, 0.25)}


def test_names_that_changed_are_told_by_rate_then_size() -> None:
    before = {"a": NamedHeat(100, 0.5), "b": NamedHeat(100, 0.5), "c": NamedHeat(100, 0.5), "gone": NamedHeat(10, 1)}
    after = {"a": NamedHeat(100, 0.9), "b": NamedHeat(120, 0.52), "c": NamedHeat(100, 0.5), "new": NamedHeat(1, 1)}
    found = name_changes(before, after)
    assert [(change.name, change.kind) for change in found] == [
        ("a", "hotter"),  # 40 bytes more are accessed
        ("b", "bigger"),  # 12.4
        ("gone", "gone"),  # 10
        ("new", "new"),  # 1
        ("c", "same"),
    ]
    assert found[0] == NameChange("a", before["a"], after["a"])
