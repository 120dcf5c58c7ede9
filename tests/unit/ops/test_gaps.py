"""Gaps between mappings that are left out of what is monitored."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydamon.linux.process import Mapping
from pydamon.ops.gaps import Gaps, mapped_spans
from pydamon.ops.vaddr import three_ranges

PAGE = 4096


def mappings(*spans: tuple[int, int]) -> list[Mapping]:
    """Mappings of pages [first, beyond)."""
    return [Mapping(a * PAGE, b * PAGE, "rw-p", 0, 0, "") for a, b in spans]


def pages(ranges: np.ndarray) -> list[tuple[int, int]]:
    return [(a // PAGE, b // PAGE) for a, b in ranges.tolist()]


layouts = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 60)), min_size=1, max_size=12)


def layout(steps: list[tuple[int, int]]) -> list[Mapping]:
    found, at = [], 1
    for size, gap in steps:
        found.append((at, at + size))
        at += size + gap
    return mappings(*found)


@given(layouts)
def test_without_room_for_more_it_is_the_rule_of_the_three_ranges(steps: list[tuple[int, int]]) -> None:
    mapped = layout(steps)
    assert Gaps(0).ranges({0: mapped_spans(mapped)})[0].tolist() == three_ranges(mapped).tolist()


@given(layouts, layouts, st.integers(0, 8))
def test_what_is_mapped_is_monitored_and_the_largest_gaps_are_not(
    one: list[tuple[int, int]], two: list[tuple[int, int]], most: int
) -> None:
    spans = {0: mapped_spans(layout(one)), 7: mapped_spans(layout(two))}
    found = Gaps(most).ranges(spans)
    left_in: list[int] = []
    left_out: list[int] = []
    for target, ranges in found.items():
        inside = np.zeros(2000, np.bool_)
        for a, b in pages(ranges):
            inside[a:b] = True
        gaps = list(zip(pages(spans[target])[:-1], pages(spans[target])[1:], strict=True))
        for a, b in pages(spans[target]):
            assert inside[a:b].all()
        sizes = sorted(((b - a, target) for (_, a), (b, _) in gaps), reverse=True)
        for (_, a), (b, _) in gaps:
            assert inside[a:b].all() or not inside[a:b].any()
            (left_in if inside[a] else left_out).append(b - a)
        assert len(ranges) >= min(len(sizes), 2) + 1
    always = sum(min(len(found) - 1, 2) for found in spans.values() if len(found))
    assert len(left_out) == min(always + most, len(left_out) + len(left_in))


def test_far_mappings_take_their_gaps_out() -> None:
    # shared/cases/quota-spent-on-nothing: six mappings 100 GiB apart, beside program, libraries and stack
    gib = 1 << 18  # pages
    far = [(16384 * gib + n * 100 * gib, 16384 * gib + n * 100 * gib + 256) for n in range(6)]
    mapped = mappings(
        (1000, 1500), (2000, 9000), *far, (130000 * gib, 130000 * gib + 5000), (131000 * gib, 131000 * gib + 33)
    )
    total = sum(m.end - m.start for m in mapped)
    ranges = Gaps(125).ranges({0: mapped_spans(mapped)})[0]
    assert int((ranges[:, 1] - ranges[:, 0]).sum()) == total
    assert int((three_ranges(mapped)[:, 1] - three_ranges(mapped)[:, 0]).sum()) > 500 * gib * PAGE


def test_a_gap_that_is_left_out_stays_so_while_it_is_one() -> None:
    gaps = Gaps(1)
    #          always    always    by choice: 30 pages rather than 29
    before = mappings((0, 1), (1001, 1002), (2002, 2003), (2033, 2034), (2063, 2064))
    assert pages(gaps.ranges({0: mapped_spans(before)})[0])[-2:] == [(2002, 2003), (2033, 2064)]
    # the other one is a little larger now
    after = mappings((0, 1), (1001, 1002), (2002, 2003), (2033, 2034), (2073, 2074))
    assert pages(gaps.ranges({0: mapped_spans(after)})[0])[-2:] == [(2002, 2003), (2033, 2074)]
    # now more than twice as large: it takes the place
    after = mappings((0, 1), (1001, 1002), (2002, 2003), (2033, 2034), (2103, 2104))
    assert pages(gaps.ranges({0: mapped_spans(after)})[0])[-2:] == [(2002, 2034), (2103, 2104)]
    # something is mapped in it, and it is none any more
    after = mappings((0, 1), (1001, 1002), (2002, 2003), (2033, 2104))
    assert pages(gaps.ranges({0: mapped_spans(after)})[0])[-1] == (2033, 2104)


def test_nothing_mapped_is_nothing_monitored() -> None:
    assert Gaps(5).ranges({3: mapped_spans([])})[3].tolist() == []


def test_it_counts_what_it_leaves_out_and_looks_at_the_same_mappings_once() -> None:
    gaps = Gaps(2)
    mapped = mappings((1, 2), (10, 11), (30, 31), (60, 61), (100, 101), (101, 102))
    assert pages(gaps.of_mappings({0: mapped})[0]) == [(1, 2), (10, 11), (30, 31), (60, 61), (100, 102)]
    assert gaps.left_out == 2
    mapped[0] = Mapping(0, PAGE, "rw-p", 0, 0, "")  # the same list: nobody looks
    assert pages(gaps.of_mappings({0: mapped})[0])[0] == (1, 2)
    assert pages(gaps.of_mappings({0: mapped[:]})[0])[0] == (0, 1)
    gaps.most = 0
    assert len(gaps.of_mappings({0: mapped})[0]) == 3
    assert gaps.left_out == 0


@given(layouts, layouts, st.integers(0, 8))
def test_the_same_mappings_are_not_looked_at_again(
    one: list[tuple[int, int]], two: list[tuple[int, int]], most: int
) -> None:
    gaps, mapped, again = Gaps(most), {0: layout(one), 1: layout(two)}, {0: layout(one), 1: layout(two)}
    first = gaps.of_mappings(mapped)
    same = gaps.of_mappings(mapped)
    assert all(same[target] is first[target] for target in mapped)
    looked = gaps.of_mappings(again)  # others, that say the same
    assert {target: pages(ranges) for target, ranges in looked.items()} == {t: pages(r) for t, r in first.items()}
    gaps.most = 0
    assert pages(gaps.of_mappings(again)[0]) == pages(Gaps(0).of_mappings({0: again[0]})[0])
    assert list(gaps.of_mappings({1: again[1]})) == [1]
