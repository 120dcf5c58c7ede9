"""The heat pyramid: each level is the heatmap of its own cells, whatever the batches; time may grow."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.records.record_samples import snapshot

from pydamon.analysis.focus import Segment, survey
from pydamon.analysis.heatmap import HeatAccumulator
from pydamon.analysis.pyramid import (
    TILE,
    Axis,
    Piece,
    Pyramid,
    axis_of,
    divided_cells,
    exact,
    heat_in,
    planned,
    quantised,
    with_gaps,
)
from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch

PAGE = 4096


def timed(start_ns: int, end_ns: int, regions: list[tuple[int, int, int]], most: int = 10) -> Snapshot:
    like = snapshot(0, [(start, end, nr_accesses, 0) for start, end, nr_accesses in regions])
    return Snapshot(0, start_ns, end_ns, 1, most, like.start, like.end, like.nr_accesses, like.age)


def cells(*ranges: tuple[int, int]) -> Axis:
    start, end = (np.array(part, np.uint64) for part in zip(*ranges, strict=True))
    return Axis(start, end, (Piece(ranges[0][0], ranges[-1][1], 0, len(ranges)),))


def empty(axis: Axis, column_ns: int, columns: int = TILE) -> Pyramid:
    levels = []
    while columns >= TILE:
        levels.append(np.zeros((columns, len(axis)), np.uint8))
        columns //= 2
    return Pyramid(axis, 0, column_ns, levels)


def directly(axis: Axis, snapshots: list[Snapshot], column_ns: int, columns: int) -> np.ndarray:
    """The heat of the same cells by `HeatAccumulator`."""
    edges, shown = with_gaps(axis.start, axis.end)
    accumulator = HeatAccumulator(np.arange(columns + 1, dtype=np.int64) * column_ns, edges)
    accumulator.add(RegionBatch.of(snapshots))
    return accumulator.heatmap(0).heat[:, shown]


def test_bytes_tell_little_from_none_and_none_from_unknown() -> None:
    heat = np.array([np.nan, 0.0, 1e-12, 1e-5, 0.25, 1.0])
    assert quantised(heat).tolist() == [0, 1, 1, 2, 128, 255]
    assert np.nanmax(np.abs(heat_in(quantised(heat)) - heat)) < 1 / 254
    every = np.arange(256, dtype=np.uint8)
    assert quantised(heat_in(every)).tolist() == every.tolist()


@st.composite
def recordings(draw: st.DrawFn) -> tuple[list[Snapshot], list[int]]:
    """Snapshots that follow one another, some with a pause, of up to three regions; and where to divide them."""
    found, now = [], draw(st.integers(0, 50))
    for _ in range(draw(st.integers(1, 40))):
        length = draw(st.integers(1, 400))
        bounds = sorted(draw(st.sets(st.integers(0, 40), min_size=2, max_size=4)))
        regions = [(low * PAGE, high * PAGE, draw(st.integers(0, 10))) for low, high in pairwise(bounds)]
        found.append(timed(now, now + length, regions))
        now += length + draw(st.sampled_from([0, 0, 0, 37]))
    return found, sorted(draw(st.sets(st.integers(1, len(found)), max_size=4)) | {len(found)})


@settings(max_examples=60)
@given(recordings())
def test_each_level_is_the_heatmap_of_its_cells(recording: tuple[list[Snapshot], list[int]]) -> None:
    """Also of cells with a gap between them; the mean of two columns may be a step away, as of rounded ones."""
    snapshots, divided = recording
    axis = cells((0, 8 * PAGE), (8 * PAGE, 9 * PAGE), (20 * PAGE, 37 * PAGE))
    pyramid = empty(axis, 16, 1024)
    before = 0
    for behind in divided:
        pyramid.add(RegionBatch.of(snapshots[before:behind]))
        pyramid.finish()  # looking at it in between changes nothing
        before = behind
    assert pyramid.end_ns == snapshots[-1].end_ns
    assert pyramid.column_ns == 16 << max((pyramid.end_ns - 1).bit_length() - 14, 0)
    if pyramid.column_ns > 16:
        return  # folded: see below
    for level, found in enumerate(pyramid.levels):
        wanted = quantised(directly(axis, snapshots, 16 << level, 1024 >> level))
        assert np.array_equal(found, wanted)


def test_when_time_grows_two_columns_become_one() -> None:
    axis = cells((0, PAGE), (PAGE, 2 * PAGE))
    pyramid = empty(axis, 4, 512)
    snapshots = [
        timed(at * 10, at * 10 + 10, [(0, PAGE, at % 11), (PAGE, 2 * PAGE, 10 if at > 500 else 0)]) for at in range(700)
    ]
    for one in snapshots:
        pyramid.add(RegionBatch.of([one]))
    pyramid.finish()
    assert (pyramid.columns, pyramid.column_ns, pyramid.rows) == (512, 16, 1400)
    wanted = directly(axis, snapshots, 16, 512)
    found = heat_in(pyramid.levels[0])
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    assert np.nanmax(np.abs(found - wanted)) < 5 / 254  # twice made of rounded ones: a step is up to 2 / 254


def test_what_had_no_answer_counts_as_in_a_heatmap() -> None:
    """Counts are scaled to what was answered: 5 of 10 is a heat of 0.5. Without any answer it is unknown."""
    one = timed(0, 1024, [(0, PAGE, 5), (PAGE, 2 * PAGE, 0)])
    one = one.replace(unknown=np.array([5, 10], np.uint32))
    pyramid = empty(cells((0, PAGE), (PAGE, 2 * PAGE)), 4)
    pyramid.add(RegionBatch.of([one]))
    pyramid.finish()
    assert pyramid.levels[0][:2].tolist() == [[181, 0], [181, 0]]


def test_tiles_are_pieces_of_levels_and_may_be_of_fewer_cells() -> None:
    axis = cells(*((page * PAGE, page * PAGE + PAGE) for page in range(300)))
    pyramid = empty(axis, 4, 1024)
    pyramid.add(RegionBatch.of([timed(0, 2048, [(0, 150 * PAGE, 10), (150 * PAGE, 300 * PAGE, 0)])]))
    pyramid.finish()
    whole = pyramid.tile(1, 0, 0, 0)
    assert whole.shape == (TILE, TILE)
    assert whole[:, [0, 149, 150, 255]].tolist() == [[255, 255, 1, 1]] * 256
    beyond = pyramid.tile(1, 0, 1, 1)
    assert not beyond.any()
    fewer = pyramid.tile(0, 2, 1, 0)  # four pages a cell; in cell 37 two of them are hot
    assert fewer[0, [0, 36, 37, 38, 74, 75]].tolist() == [255, 255, int(np.ceil(254 * 0.5**0.5)) + 1, 1, 1, 0]
    for place in [(3, 0, 0, 0), (-1, 0, 0, 0), (0, 0, 99, 0), (0, 0, 0, 9), (0, 0, -1, 0), (0, 99, 0, 0)]:
        with pytest.raises(ValueError, match="no such tile"):
            pyramid.tile(*place)


def test_finer_cells_are_worked_out_of_the_snapshots() -> None:
    axis = cells((0, 4 * PAGE), (4 * PAGE, 8 * PAGE))
    start, end = divided_cells(axis, 0, 1)
    assert (start // PAGE).tolist() == [0, 2, 4, 6]
    assert (end // PAGE).tolist() == [2, 4, 6, 8]
    batch = RegionBatch.of([timed(0, 10, [(2 * PAGE, 6 * PAGE, 10)]), timed(10, 20, [(0, 8 * PAGE, 0)])])
    found = exact([batch], np.array([0, 10, 20, 30]), start, end)
    assert found.tolist() == [[0, 255, 255, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    for row, stretch in ((1, 0), (0, 15)):
        with pytest.raises(ValueError, match="no such tile"):
            divided_cells(axis, row, stretch)


def test_the_axis_has_the_finest_cells_where_accesses_are_and_no_gaps() -> None:
    """A hot MiB in a cold GiB, and a cold MiB terabytes away."""
    mib = 1 << 20
    base, far = 0x550000000000, 0x7F0000000000
    regions = [
        (base, base + 400 * mib, 0),
        (base + 400 * mib, base + 401 * mib, 10),
        (base + 401 * mib, base + 1024 * mib, 0),
        (far, far + mib, 0),
    ]
    focus = survey([RegionBatch.of([timed(at, at + 1, regions) for at in range(30)])])
    assert focus is not None
    axis = axis_of(focus)
    assert 400 < len(axis) <= 520
    assert [piece.first for piece in axis.pieces][1:] == [piece.behind for piece in axis.pieces][:-1]
    assert int((axis.end - axis.start).sum()) == 1025 * mib
    hot = next(piece for piece in axis.pieces if piece.start <= base + 400 * mib < piece.end)
    cold = axis.pieces[0]
    assert (hot.end - hot.start) / (hot.behind - hot.first) < (cold.end - cold.start) / (cold.behind - cold.first) / 100
    assert (axis.start[1:] >= axis.end[:-1]).all()


def test_a_pyramid_is_as_fine_as_the_record_and_as_memory_allows() -> None:
    axis = cells(*((page * PAGE, page * PAGE + PAGE) for page in range(512)))
    large = planned(axis, (0, 7200 * 10**9), 36_000_000, 72_000)
    assert large.columns == 16_384
    assert large.span_ns >= 7200 * 10**9 > large.span_ns // 2
    assert planned(axis, (0, 10**9), 100, 10).columns == TILE
    assert planned(axis, (5, 5), 0, 0).span_ns == TILE
    shared = [planned(axis, (0, 10**9), 10**12, 10**9, pyramids=64) for _ in range(2)]
    assert sum(one.levels[0].nbytes for one in shared) * 32 <= 1 << 25


def test_segments_of_an_axis_may_touch() -> None:
    """Segments that touch, as those that were divided do, have no gap between their cells."""
    edges, shown = with_gaps(np.array([0, 10, 30], np.uint64), np.array([10, 20, 40], np.uint64))
    assert edges.tolist() == [0, 10, 20, 30, 40]
    assert shown.tolist() == [True, True, False, True]
    assert Segment(0, 10).size == 10
