"""Where regions lie, when phases run, what is hot then; all numbers worked out by hand from the definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydamon.errors import RequestError
from pydamon.workload import layout, model, truth
from pydamon.workload.truth import GroundTruth, Interval, Schedule, Segment

MS = 1_000_000
BASE = 0x10_0000

TEXT = """\
a, 8192
b, 5000
c, 4096

both
10
a, 0, 4096, 1
b, 0, 4096, 1
c, 0, 4096, 0

last
30
c, 1, 4096, 1
"""
WORKLOAD = model.parse(TEXT, source="x")


def make(mapping: str = "one", repeat: int = 1, start_ns: int = 100) -> GroundTruth:
    schedule = Schedule.nominal(WORKLOAD, start_ns, repeat=repeat)
    return GroundTruth(WORKLOAD, layout.place(WORKLOAD, BASE, mapping), schedule)


def test_separate_mappings_have_gaps_and_names() -> None:
    placed = layout.place(WORKLOAD, BASE, "separate")
    # 8192 is 2 pages, 5000 bytes are 2 as well, and each gap is 64 KiB.
    assert [(p.start - BASE, p.end - BASE) for p in placed.mappings] == [
        (0, 0x2000),
        (0x12000, 0x14000),
        (0x24000, 0x25000),
    ]
    assert [p.name for p in placed.mappings] == ["[anon:a]", "[anon:b]", "[anon:c]"]
    assert [(p.start, p.end) for p in placed.regions] == [(p.start, p.end) for p in placed.mappings]


def test_one_mapping_has_the_regions_side_by_side() -> None:
    placed = layout.place(WORKLOAD, BASE, "one")
    assert [(p.start - BASE, p.end - BASE) for p in placed.regions] == [(0, 0x2000), (0x2000, 0x4000), (0x4000, 0x5000)]
    assert [(p.name, p.start, p.end) for p in placed.mappings] == [("[anon:workload]", BASE, BASE + 0x5000)]
    with pytest.raises(RequestError, match="separate or one"):
        layout.place(WORKLOAD, BASE, "two")


def test_names_that_the_kernel_would_refuse() -> None:
    assert layout.anon_name("a[b]$`\\é" + "x" * 100) == "[anon:a_b_____" + "x" * 71 + "]"


def test_hot_ranges_follow_the_phases() -> None:
    known = make("separate")
    assert (known.hot_ranges(100) - BASE).tolist() == [[0, 0x2000], [0x12000, 0x14000]]
    assert (known.hot_ranges(100 + 10 * MS) - BASE).tolist() == [[0x24000, 0x25000]]
    assert known.hot_bytes(100) == 0x4000
    assert known.hot_ranges(99).tolist() == []
    assert known.hot_ranges(100 + 40 * MS).tolist() == []
    # A window over the change of phases holds both.
    assert known.hot_bytes(100 + 10 * MS - 1, 100 + 10 * MS) == 0x4000
    assert known.hot_bytes(100 + 10 * MS - 1, 100 + 10 * MS + 1) == 0x5000


def test_neighbours_become_one_range() -> None:
    assert (make("one").hot_ranges(100) - BASE).tolist() == [[0, 0x4000]]


def test_long_strides_leave_pages_out() -> None:
    workload = model.parse("a, 40960\n\np\n1\na, 0, 12288, 1\n", source="x")
    known = GroundTruth(workload, layout.place(workload, BASE, "one"), Schedule.nominal(workload, 0))
    # Positions 0, 12288, 24576, 36864: pages 0, 3, 6, 9.
    pages = np.arange(BASE - 4096, BASE + 12 * 4096, 4096, dtype=np.uint64)
    assert ((pages[known.is_hot(pages, 0)] - BASE) // 4096).tolist() == [0, 3, 6, 9]
    assert known.hot_bytes(0) == 40960


def test_the_end_of_a_region_that_its_stride_does_not_reach_is_cold() -> None:
    workload = model.parse("a, 8193\n\np\n1\na, 0, 3000, 1\n", source="x")
    known = GroundTruth(workload, layout.place(workload, BASE, "one"), Schedule.nominal(workload, 0))
    assert (known.hot_ranges(0) - BASE).tolist() == [[0, 0x2000]]  # positions 0, 3000, 6000


def test_schedule_repeats() -> None:
    schedule = make(repeat=3).schedule
    assert schedule.end_ns == 100 + 120 * MS
    assert schedule.at(100 + 45 * MS) == Interval(0, 100 + 40 * MS, 100 + 50 * MS)
    assert schedule.at(100 + 119 * MS) == Interval(1, 100 + 90 * MS, 100 + 120 * MS)
    assert schedule.at(100 + 120 * MS) is None
    assert schedule.at(99) is None
    for_ever = make(repeat=0).schedule
    assert for_ever.end_ns is None
    assert for_ever.at(100 + 400_000_000 * MS) == Interval(0, 100 + 400_000_000 * MS, 100 + 400_000_010 * MS)


def test_time_scale() -> None:
    schedule = Schedule.nominal(WORKLOAD, 0, time_scale=0.1)
    assert schedule.cycle == (Interval(0, 0, MS), Interval(1, MS, 4 * MS))


def test_whole_cycles_are_counted_not_listed() -> None:
    schedule = make(repeat=0, start_ns=0).schedule
    assert list(schedule.segments(5 * MS, 4_000_015 * MS)) == [
        Segment(0, 5 * MS, 10 * MS, 1),
        Segment(1, 0, 30 * MS, 1),
        Segment(0, 0, 10 * MS, 99_999),
        Segment(1, 0, 30 * MS, 99_999),
        Segment(0, 0, 10 * MS, 1),
        Segment(1, 0, 5 * MS, 1),
    ]


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4),
    st.integers(0, 3),
    st.integers(-5, 60),
    st.integers(-5, 60),
)
@settings(deadline=None)
def test_segments_hold_each_instant_of_the_window_once(lengths: list[int], repeat: int, low: int, high: int) -> None:
    ends = np.cumsum(lengths).tolist()
    cycle = [Interval(i, end - length, end) for i, (length, end) in enumerate(zip(lengths, ends, strict=True))]
    schedule = Schedule(cycle, repeat)
    found = sorted(
        (segment.phase, instant)
        for segment in schedule.segments(low, high)
        for instant in range(segment.from_ns, segment.to_ns)
        for _ in range(segment.times)
    )
    expected = []
    for instant in range(low, high):
        now = schedule.at(instant)
        if now is not None:
            assert now.start_ns <= instant < now.end_ns
            expected.append((now.phase, instant - now.start_ns))
    assert found == sorted(expected)


def test_precision_and_recall() -> None:
    def ranges(*pairs: tuple[int, int]) -> truth.Ranges:
        return np.array(pairs, dtype=np.uint64).reshape(-1, 2)

    true = ranges((0, 100), (200, 300))
    # 50 + 25 of 150 found bytes are true, and 75 of 200 true ones found.
    assert truth.precision_recall(ranges((50, 125), (150, 225)), true) == (0.5, 0.375)
    assert truth.precision_recall(true, true) == (1.0, 1.0)
    assert truth.precision_recall(ranges(), true) == (1.0, 0.0)
    assert truth.precision_recall(true, ranges()) == (0.0, 1.0)
    assert truth.merged([(5, 7), (1, 3), (3, 4), (6, 6), (5, 6)]).tolist() == [[1, 4], [5, 7]]


def test_truth_from_what_the_runner_printed() -> None:
    layout_event = {
        "event": "layout",
        "regions": [{"name": "a", "start": BASE, "end": BASE + 8192, "size_bytes": 8000}],
        "phases": [
            {
                "name": "p",
                "duration_ms": 0,
                "duration_ns": 5,
                "accesses": [{"region": "a", "random": False, "stride_bytes": 1, "probability": 1, "mode": "ro"}],
            }
        ],
    }
    lines = [
        json.dumps(event)
        for event in (
            layout_event,
            {"event": "phase", "index": 0, "name": "p", "start_ns": 50, "hot": []},
            {"event": "phase", "index": 0, "name": "p", "start_ns": 57, "hot": []},
            {"event": "end", "end_ns": 63},
        )
    ]
    known = truth.from_events(lines)
    assert known.schedule.cycle == (Interval(0, 50, 57), Interval(0, 57, 63))
    assert known.hot_ranges(62).tolist() == [[BASE, BASE + 8192]]
    assert truth.from_events(lines[:2]).schedule.cycle == (Interval(0, 50, 55),)
    with pytest.raises(ValueError, match="no layout"):
        truth.from_events(lines[3:])
