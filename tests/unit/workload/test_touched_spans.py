"""Which ranges a window touches, against the same question asked of each page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydamon.workload import intervals, layout, model
from pydamon.workload.closed_form import AccessModel
from pydamon.workload.truth import Schedule

PAGE = 4096
MS = 1_000_000


def build(text: str, rate: int) -> tuple[AccessModel, Schedule, layout.Layout]:
    workload = model.parse(text, source="x")
    place = layout.place(workload, 0)
    return AccessModel(workload, place, rate, 7), Schedule.nominal(workload, 0, repeat=0), place


def pages_of(spans: intervals.Spans) -> list[int]:
    return [page for start, end in spans.tolist() for page in range(start // PAGE, end // PAGE)]


@settings(max_examples=200, deadline=None)
@given(
    stride=st.sampled_from([1, 64, 4096, 5000, 8192, 100_000]),
    random=st.booleans(),
    rate=st.sampled_from([10, 1000, 100_000, 10**8]),
    window=st.tuples(st.integers(0, 500), st.integers(0, 500)),
    skip=st.integers(1, 5),
)
def test_ranges_are_the_touched_pages(stride: int, random: bool, rate: int, window: tuple[int, int], skip: int) -> None:
    pattern = f"{random:d}, {stride}, 1"
    text = f"a, 123456\nb, 400000\n\np\n70\na, {pattern}\nb, 0, 4096, 1\n\nq\n50\nb, {pattern}\n"
    accesses, schedule, place = build(text, rate)
    start, end = min(window) * MS, max(window) * MS
    every = np.arange(0, place.end, PAGE, dtype=np.int64)
    asked = every[every // PAGE % skip == 0]
    found = accesses.touched(np.stack([asked, asked + PAGE], axis=1), schedule, start, end)
    expected = asked[accesses.accessed(asked.astype(np.uint64), schedule, start, end)]
    assert pages_of(found) == (expected // PAGE).tolist()


def test_a_large_random_pattern_touches_as_many_pages_as_it_must() -> None:
    # 1,000,000 accesses to 1,048,576 pages (4 GiB): 1 - (1 - 1/n)^k = 0.6147 of the pages. Rounded 1024 times at
    # random, by less than a page each: the sum is off by less than 5 * sqrt(1024 / 4) = 80.
    accesses, schedule, place = build("a, 4 GiB\n\np\n10000\na, 1, 1, 1\n", 10**6)
    everything = np.array([[0, place.end]], np.int64)
    found = accesses.touched(everything, schedule, 0, 1000 * MS, max_pieces=1024)
    pages = int((found[:, 1] - found[:, 0]).sum()) // PAGE
    share = -np.expm1(10**6 * np.log1p(-1 / 2**20))
    assert abs(pages - share * 2**20) < 80
    assert len(found) == 1024


def test_a_large_stride_touches_as_many_pages_as_it_must() -> None:
    # 65,536 positions, 64 KiB apart: as many pages, in 64 runs. After 2048 accesses two of the runs, and no more after
    # a second pass.
    accesses, schedule, place = build("a, 4 GiB\n\np\n10000\na, 0, 65536, 1\n", 10**6)
    everything = np.array([[0, place.end]], np.int64)
    found = accesses.touched(everything, schedule, 0, 2_048_000, max_pieces=64)
    assert found.tolist() == [[0, 1024 * PAGE], [64 * (1 << 20), 64 * (1 << 20) + 1024 * PAGE]]
    for window in (100, 1000):
        found = accesses.touched(everything, schedule, 0, window * MS, max_pieces=64)
        assert (len(found), int((found[:, 1] - found[:, 0]).sum())) == (64, 65536 * PAGE)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=8), st.lists(st.integers(0, 60), max_size=8)
)
def test_sets_of_ranges(some: list[tuple[int, int]], points: list[int]) -> None:
    left = intervals.union(np.array(some, np.int64).reshape(-1, 2))
    right = intervals.union(np.array([(p, p + 3) for p in points], np.int64).reshape(-1, 2))
    members = {n for start, end in some for n in range(start, end)}
    others = {n for p in points for n in range(p, p + 3)}

    def numbers(spans: intervals.Spans) -> list[int]:
        return [n for start, end in spans.tolist() for n in range(start, end)]

    assert numbers(left) == sorted(members)
    assert numbers(intervals.intersection(left, right)) == sorted(members & others)
    assert numbers(intervals.split(left, 1, 4)) == sorted(members)
    assert all((start - 1) // 4 == (end - 2) // 4 for start, end in intervals.split(left, 1, 4).tolist())


@pytest.mark.parametrize(("value", "power"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8)])
def test_powers_of_two(value: int, power: int) -> None:
    assert intervals.power_of_two(value) == power
