"""Where a picture looks: worked layouts of a process's memory."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.records.record_samples import Region, snapshot

from pydamon.analysis.focus import Segment, automatic, everything, grid, held, hottest, shares, survey
from pydamon.records.batch import RegionBatch

MIB = 1 << 20
HEAP, LIBS, STACK = 0x55D0C0A00000, 0x7F31A4000000, 0x7FFD1C2A0000


def _survey(*snapshots: list[Region]) -> list[RegionBatch]:
    return [RegionBatch.of([snapshot(number, regions) for number, regions in enumerate(snapshots)])]


def _process(hot_at: int) -> list[Region]:
    """A heap of 100 MiB with one hot MiB, 20 MiB of cold libraries with 1 MiB warm, a stack with 8 hot KiB."""
    hot = HEAP + hot_at * MIB
    regions = [
        (HEAP, hot, 0, 0),
        (hot, hot + MIB, 20, 0),
        (hot + MIB, HEAP + 100 * MIB, 0, 0),
        (LIBS, LIBS + 10 * MIB, 0, 0),
        (LIBS + 10 * MIB, LIBS + 11 * MIB, 8, 0),
        (LIBS + 11 * MIB, LIBS + 20 * MIB, 0, 0),
        (STACK, STACK + 0x1E000, 0, 0),
        (STACK + 0x1E000, STACK + 0x20000, 18, 0),
    ]
    return [region for region in regions if region[0] < region[1]]


def test_three_areas_far_apart_are_three_segments_around_what_was_accessed() -> None:
    focus = survey(_survey(*(_process(hot_at) for hot_at in range(20, 40))))
    assert focus is not None
    heap, libs, stack = automatic(focus)
    # 20 MiB of the heap were hot in turn, and 4 % of margin on each side.
    assert (heap.start, heap.end) == (
        HEAP + int(19.2 * MIB) // 4096 * 4096 + 4096,
        HEAP + int(40.8 * MIB) // 4096 * 4096,
    )
    assert libs.start <= LIBS + 10 * MIB < LIBS + 11 * MIB <= libs.end
    assert libs.size < 1.2 * MIB
    # The margin ends where the monitored memory does.
    assert (stack.start, stack.end) == (STACK + 0x1D000, STACK + 0x20000)


def test_the_hottest_range_holds_most_accesses() -> None:
    focus = survey(_survey(*(_process(hot_at) for hot_at in range(20, 40))))
    assert focus is not None
    (segment,) = hottest(focus)
    assert HEAP + 20 * MIB <= segment.start < segment.end <= HEAP + 40 * MIB
    # The shortest range with 90 % of the accesses of twenty equally hot MiB is 18 MiB long.
    assert segment.size == pytest.approx(18 * MIB, rel=0.03)


def test_everything_is_all_that_was_monitored() -> None:
    focus = survey(_survey(_process(20)))
    assert focus is not None
    assert everything(focus) == [
        Segment(HEAP, HEAP + 100 * MIB),
        Segment(LIBS, LIBS + 20 * MIB),
        Segment(STACK, STACK + 0x20000),
    ]


def test_a_stray_access_in_a_huge_range_does_not_fill_the_picture() -> None:
    """A terabyte of which one sample in 20 hit once in 100 snapshots would leave nothing of 10 hot MiB."""
    huge = 1 << 40
    hot = (HEAP + huge, HEAP + huge + 10 * MIB, 20, 0)
    focus = survey(_survey(*([(HEAP, HEAP + huge, int(n == 50), 0), hot] for n in range(100))))
    assert focus is not None
    (segment,) = automatic(focus)
    assert segment.size < 12 * MIB
    assert segment.start <= hot[0]
    assert segment.end == hot[1]


def test_lukewarm_memory_with_most_of_the_accesses_is_in_the_picture() -> None:
    """A GiB at 5 % all the time matters more than the 8 KiB of stack at 100 % beside it."""
    warm = 1 << 30
    focus = survey(_survey(*([(HEAP, HEAP + warm, n % 2, 0), (STACK, STACK + 0x2000, 20, 0)] for n in range(100))))
    assert focus is not None
    assert automatic(focus) == [Segment(HEAP, HEAP + warm), Segment(STACK, STACK + 0x2000)]


def test_memory_that_was_hot_only_for_a_while_is_in_the_picture() -> None:
    regions = [
        [(HEAP, HEAP + MIB, 20, 0), (HEAP + MIB, HEAP + 50 * MIB, 0, 0), (HEAP + 50 * MIB, HEAP + 51 * MIB, late, 0)]
        for late in [0] * 190 + [20] * 10
    ]
    focus = survey(_survey(*regions))
    assert focus is not None
    assert [s.start <= HEAP + 50 * MIB and s.end == HEAP + 51 * MIB for s in automatic(focus)] == [False, True]


def test_small_gaps_are_shown() -> None:
    """A cold MiB between two hot ones of 10 MiB is part of the picture, not a gap."""
    regions = [(HEAP, HEAP + 10 * MIB, 20, 0), (HEAP + 10 * MIB, HEAP + 11 * MIB, 0, 0)]
    regions.append((HEAP + 11 * MIB, HEAP + 21 * MIB, 20, 0))
    focus = survey(_survey(regions))
    assert focus is not None
    assert automatic(focus) == [Segment(HEAP, HEAP + 21 * MIB)]


def test_many_areas_are_cut_to_the_ones_with_most_accesses() -> None:
    regions = [(HEAP + n * (1 << 32), HEAP + n * (1 << 32) + MIB, 1 + n, 0) for n in range(20)]
    focus = survey(_survey(regions))
    assert focus is not None
    assert [s.start for s in automatic(focus)] == [regions[n][0] for n in range(14, 20)]


def test_without_accesses_there_is_nothing_to_focus_on() -> None:
    focus = survey(_survey([(HEAP, HEAP + MIB, 0, 0)]))
    assert focus is not None
    assert (automatic(focus), hottest(focus)) == ([], [])
    assert everything(focus) == [Segment(HEAP, HEAP + MIB)]


def test_extreme_addresses_and_sizes_work() -> None:
    for regions in ([(0, 2**64 - 1, 1, 0)], [(5, 6, 1, 0)], [(0, 1, 1, 0), (2**64 - 2, 2**64 - 1, 2, 0)]):
        focus = survey(_survey(regions))
        assert focus is not None
        for choose in (automatic, hottest, everything):
            segments = choose(focus)
            edges, shown = grid(segments, [10] * len(segments))
            assert len(edges) == len(shown) + 1
            assert (np.diff(edges) > 0).all()


def test_a_grid_has_equal_cells_and_one_for_each_gap() -> None:
    """8 pages in 4 cells; a gap; 5 pages in 2 cells of 3 pages, which moves the end up by one."""
    page = 4096
    edges, shown = grid([Segment(0, 8 * page), Segment(100 * page, 105 * page)], [4, 2])
    assert (edges // page).tolist() == [0, 2, 4, 6, 8, 100, 103, 106]
    assert shown.tolist() == [True] * 4 + [False] + [True] * 2


def test_an_exact_grid_ends_where_asked() -> None:
    page = 4096
    assert grid([Segment(0, 5 * page)], [2], exact=True)[0].tolist() == [0, 3 * page, 5 * page]
    assert grid([Segment(10, 21)], [4], exact=True)[0].tolist() == [10, 13, 16, 19, 21]


def test_lines_are_shared_by_what_segments_hold_but_every_segment_gets_some() -> None:
    """Of 40 lines each of two has 3; of the other 34 the one with nine times the accesses gets nine tenths: 30.6."""
    segments = [Segment(0, 100 * MIB), Segment(1 << 40, (1 << 40) + MIB)]
    assert shares(segments, [1.0, 9.0], 40, 3) == [6, 34]
    assert shares(segments, [0.0, 1.0], 40, 3) == [3, 37]
    assert shares(segments, [1.0, 9.0], 2, 5) == [1, 1]


def test_without_accesses_lines_are_shared_by_size() -> None:
    segments = [Segment(0, 30 * MIB), Segment(1 << 40, (1 << 40) + 10 * MIB)]
    assert shares(segments, [0.0, 0.0], 46, 3) == [33, 13]


def test_a_segment_of_few_pages_leaves_its_lines_to_the_others() -> None:
    """Two pages need two lines, or one where a line has two cells."""
    stack = Segment(1 << 40, (1 << 40) + 2 * 4096)
    assert shares([Segment(0, MIB), stack], [1.0, 1.0], 20, 3) == [18, 2]
    assert shares([Segment(0, MIB), stack], [1.0, 1.0], 20, 3, cells_per_line=2) == [19, 1]


def test_what_a_segment_holds_is_bytes_times_heat() -> None:
    """One MiB of heap is always accessed, one of the libraries in 8 of 20 samples, 8 KiB of stack in 18 of 20."""
    focus = survey(_survey(_process(10)))
    assert focus is not None
    amounts = np.array(held(focus, automatic(focus)))
    assert amounts / amounts[0] == pytest.approx([1, 0.4, 0.9 * 8 / 1024])
