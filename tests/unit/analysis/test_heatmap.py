"""Heat: worked examples, and comparison with the definition computed literally."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.records.record_samples import snapshot

from pydamon.analysis.heatmap import HeatAccumulator, Heatmap, even_edges
from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch


def _timed(start_ns: int, end_ns: int, regions: list[tuple[int, int, int]], most: int = 10) -> Snapshot:
    like = snapshot(0, [(start, end, nr_accesses, 0) for start, end, nr_accesses in regions])
    return Snapshot(0, start_ns, end_ns, 1, most, like.start, like.end, like.nr_accesses, like.age)


def _heat(snapshots: list[Snapshot], time_ns: list[int], address: list[int]) -> Heatmap:
    accumulator = HeatAccumulator(np.array(time_ns), np.array(address, dtype=np.uint64))
    # In two batches, so that adding up is part of every test.
    for part in (snapshots[::2], snapshots[1::2]):
        if part:
            accumulator.add(RegionBatch.of(part))
    return accumulator.heatmap(0)


def test_one_region_in_one_cell_has_its_access_rate() -> None:
    heatmap = _heat([_timed(0, 100, [(0, 4096, 3)])], [0, 100], [0, 4096])
    assert heatmap.heat.tolist() == [[0.3]]
    assert heatmap.outside == 0
    assert heatmap.accessed


def test_a_cell_is_the_mean_weighted_by_area() -> None:
    """Worked by hand: in 0..100 ns, 1/4 of the cell at 0.8 and 3/4 at 0; in 100..200 ns all of it at 0.4.

    First row: 0.25 x 0.8 = 0.2. Second row: 0.4. As one row: (0.2 + 0.4) / 2 = 0.3.
    """
    snapshots = [_timed(0, 100, [(0, 1024, 8), (1024, 4096, 0)]), _timed(100, 200, [(0, 4096, 4)])]
    assert _heat(snapshots, [0, 100, 200], [0, 4096]).heat.tolist() == [[0.2], [0.4]]
    assert _heat(snapshots, [0, 200], [0, 4096]).heat.tolist() == [[0.3]]


def test_a_region_over_several_cells_goes_to_each_by_its_part() -> None:
    """A region 1000..3500 at 0.5: of the cells of 1000 bytes from 0 on it is all of 1000..3000, half of 3000..4000."""
    regions = [(0, 1000, 0), (1000, 3500, 5), (3500, 5000, 0)]
    heatmap = _heat([_timed(0, 10, regions)], [0, 10], list(range(0, 5001, 1000)))
    assert heatmap.heat.tolist() == [[0, 0.5, 0.5, 0.25, 0]]


def test_only_the_monitored_part_of_a_cell_counts() -> None:
    """1000 bytes at 1.0 in a cell of 4000 of which nothing else was monitored: the heat is 1, not 1/4."""
    heatmap = _heat([_timed(0, 10, [(500, 1500, 10)])], [0, 10, 20], [0, 4000, 8000])
    assert heatmap.heat[0, 0] == 1
    assert np.isnan(heatmap.heat[0, 1])
    assert np.isnan(heatmap.heat[1]).all()


def test_a_snapshot_over_several_rows_goes_to_each_by_its_part() -> None:
    """A snapshot 5..25 ns: its rate in the rows 0..10, 10..20 and 20..30 that it overlaps; none in 30..40."""
    heatmap = _heat([_timed(5, 25, [(0, 8, 10)]), _timed(25, 30, [(0, 8, 0)])], [0, 10, 20, 30, 40], [0, 8])
    # Row 20..30: half of it at 1 and half at 0.
    assert heatmap.heat[:3, 0].tolist() == [1, 1, 0.5]
    assert np.isnan(heatmap.heat[3, 0])


def _unsure(end_ns: int, regions: list[tuple[int, int, int, int]], most: int = 20) -> Snapshot:
    """A snapshot from 0 on: start, end, accesses and unanswered samples of each region."""
    like = _timed(0, end_ns, [region[:3] for region in regions], most)
    return like.replace(unknown=np.array([region[3] for region in regions], np.uint32))


def test_what_nobody_answered_is_unknown_and_keeps_no_heat() -> None:
    """The rate of a region without an answer is the one that it had before, and may be founded on one sample."""
    heatmap = _heat([_unsure(100, [(0, 4096, 20, 20), (4096, 8192, 10, 0)])], [0, 100], [0, 4096, 8192])
    assert math.isnan(heatmap.heat[0, 0])
    assert heatmap.heat[0, 1] == 0.5
    assert heatmap.outside == 0


def test_a_region_weighs_by_its_answers() -> None:
    """In one cell 1/4 of the answers at 1.0 (of a region of half the cell, half unanswered) beside 1/2 at 0: 1/3."""
    regions = [(0, 2048, 20, 10), (2048, 4096, 0, 0)]
    for rows in (1, 10):
        edges = np.linspace(0, 100, rows + 1).astype(int).tolist()  # in many rows it is added as steps in time
        assert _heat([_unsure(100, regions)], edges, [0, 4096]).heat.ravel().tolist() == pytest.approx([1 / 3] * rows)


@pytest.mark.parametrize(("unanswered", "known"), [(19, False), (18, True)])
def test_a_single_answer_of_many_is_no_heat(unanswered: int, known: bool) -> None:
    heat = _heat([_unsure(100, [(0, 4096, 20, unanswered)])], [0, 100], [0, 4096]).heat
    assert bool(np.isnan(heat[0, 0])) is not known


def test_a_snapshot_that_tells_of_no_unanswered_samples_has_none() -> None:
    snapshots = [_unsure(100, [(0, 4096, 0, 20)]), _timed(100, 200, [(0, 4096, 4)], 20)]
    accumulator = HeatAccumulator(np.array([0, 100, 200]), np.array([0, 4096], np.uint64))
    accumulator.add(RegionBatch.of(snapshots))
    heat = accumulator.heatmap(0).heat
    assert math.isnan(heat[0, 0])
    assert heat[1, 0] == 0.2


def test_accesses_outside_of_the_picture_are_stated() -> None:
    """Inside: 1000 bytes x 10 accesses. Outside: 500 bytes x 4 below, and a snapshot of 1000 x 8 after its time.

    2000 + 8000 of 20000 are outside: one half.
    """
    snapshots = [_timed(0, 10, [(0, 500, 4), (1000, 2000, 10)]), _timed(10, 20, [(1000, 2000, 8)])]
    assert _heat(snapshots, [0, 10], [1000, 2000]).outside == 0.5


def test_columns_that_are_not_shown_count_as_outside() -> None:
    accumulator = HeatAccumulator(np.array([0, 10]), np.array([0, 100, 900, 1000], dtype=np.uint64))
    accumulator.add(RegionBatch.of([_timed(0, 10, [(0, 100, 5), (100, 200, 5), (900, 1000, 10)])]))
    heatmap = accumulator.heatmap(0, np.array([True, False, True]))
    assert heatmap.outside == 0.25
    assert heatmap.segments() == [slice(0, 1), slice(2, 3)]


def test_without_accesses_nothing_is_outside() -> None:
    heatmap = _heat([_timed(0, 10, [(0, 100, 0)])], [0, 10], [50, 60])
    assert (heatmap.outside, heatmap.accessed, heatmap.heat.tolist()) == (0, False, [[0]])


def test_addresses_up_to_the_last_work() -> None:
    top = 2**64 - 1
    edges = [2**63, top - 4095, top]
    heatmap = _heat([_timed(0, 10, [(2**63 - 4096, top - 4095, 0), (top - 4095, top, 10)])], [0, 10], edges)
    assert heatmap.heat.tolist() == [[0, 1]]


def _brute_force(snapshots: list[Snapshot], time_ns: list[int], address: list[int]) -> tuple[list[list[float]], float]:
    """The definition, literally: for every cell, the overlap with every region of every snapshot."""
    heat: list[list[float]] = []
    total = inside = Fraction(0)
    for one in snapshots:
        for start, end, nr_accesses in zip(one.start.tolist(), one.end.tolist(), one.nr_accesses.tolist(), strict=True):
            total += (end - start) * (one.end_ns - one.start_ns) * Fraction(nr_accesses, one.max_nr_accesses)
    for from_ns, to_ns in pairwise(time_ns):
        row = []
        for low, high in pairwise(address):
            area = accesses = Fraction(0)
            for one in snapshots:
                lasting = max(min(to_ns, one.end_ns) - max(from_ns, one.start_ns), 0)
                for start, end, nr_accesses in zip(
                    one.start.tolist(), one.end.tolist(), one.nr_accesses.tolist(), strict=True
                ):
                    overlap = max(min(high, end) - max(low, start), 0) * lasting
                    area += overlap
                    accesses += overlap * Fraction(nr_accesses, one.max_nr_accesses)
            row.append(float(accesses / area) if area else math.nan)
            inside += accesses
        heat.append(row)
    return heat, float(1 - inside / total) if total else 0.0


_EDGES = st.sets(st.integers(0, 5000), min_size=2, max_size=14).map(sorted)


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    time_ns=st.sets(st.integers(0, 300), min_size=2, max_size=8).map(sorted),
    address=st.one_of(_EDGES, st.integers(1, 12).map(lambda cells: even_edges(512, 512 + 300 * cells, cells))),
    base=st.sampled_from([0, 0x7F31A4000000, 2**63]),
)
def test_any_picture_equals_the_literal_computation(
    data: st.DataObject, time_ns: list[int], address: list[int], base: int
) -> None:
    snapshots = []
    for _ in range(data.draw(st.integers(1, 6))):
        start_ns = data.draw(st.integers(0, 300))
        bounds = [base + place for place in data.draw(_EDGES)]
        most = data.draw(st.integers(1, 20))
        regions = [
            (start, end, data.draw(st.integers(0, most))) for start, end in pairwise(bounds) if data.draw(st.booleans())
        ]
        if regions:
            snapshots.append(_timed(start_ns, start_ns + data.draw(st.integers(0, 150)), regions, most))
    edges = [base + place for place in address]
    expected, outside = _brute_force(snapshots, time_ns, edges)
    found = _heat(snapshots, time_ns, edges)
    np.testing.assert_allclose(found.heat, expected, rtol=0, atol=2e-9)
    assert found.outside == pytest.approx(outside, abs=2e-9)


@pytest.mark.parametrize(
    ("start", "end", "cells", "unit", "expected"),
    [
        (0, 10, 2, 1, [0, 5, 10]),
        (0, 10, 4, 1, [0, 2, 5, 7, 10]),
        (4096, 4096 * 5, 2, 4096, [4096, 4096 * 3, 4096 * 5]),
        (0, 3, 10, 1, [0, 1, 2, 3]),
        (7, 8, 10, 4096, [7, 8]),
    ],
)
def test_edges_are_even_and_distinct(start: int, end: int, cells: int, unit: int, expected: list[int]) -> None:
    assert even_edges(start, end, cells, unit) == expected
