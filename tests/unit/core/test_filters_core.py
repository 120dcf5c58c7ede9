"""Filters that the core decides: first match, unmatched memory, splitting at the bounds of address ranges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.fake_acting import MIB, PAGE, make_regions, spans_of

from pydamon.core import filters
from pydamon.spec import Scheme
from pydamon.spec.schemes import AddressRange, Filter

EIGHT = [(page * PAGE, (page + 1) * PAGE) for page in range(8)]


def addr(start: int, end: int, matching: bool = True, allow: bool = False) -> Filter:
    return Filter(filter_type="addr", matching=matching, allow=allow, address_range=AddressRange(start=start, end=end))


def target(index: int, matching: bool = True, allow: bool = False) -> Filter:
    return Filter(filter_type="target", matching=matching, allow=allow, damon_target_idx=index)


def scheme(*items: Filter) -> Scheme:
    return Scheme(action="stat", filters=items)


def passed(*items: Filter, of_target: int = 0, min_region: int = PAGE) -> list[int]:
    """Which of eight pages pass."""
    regions = make_regions(EIGHT)
    return np.flatnonzero(filters.decide(regions, of_target, scheme(*items), min_region)[0]).tolist()


def test_no_filter_lets_all_pass() -> None:
    assert passed() == list(range(8))


def test_reject_and_allow_matching_and_not() -> None:
    inside, outside = [2, 3], [0, 1, 4, 5, 6, 7]
    bounds = 2 * PAGE, 4 * PAGE
    assert passed(addr(*bounds)) == outside  # reject what matches; unmatched: the opposite of the last one
    assert passed(addr(*bounds, allow=True)) == inside
    assert passed(addr(*bounds, matching=False)) == inside
    assert passed(addr(*bounds, matching=False, allow=True)) == outside


def test_the_first_filter_that_matches_decides() -> None:
    assert passed(addr(0, 2 * PAGE, allow=True), addr(0, 4 * PAGE)) == [0, 1, 4, 5, 6, 7]
    assert passed(addr(0, 4 * PAGE), addr(0, 2 * PAGE, allow=True)) == []  # the last one allows: the others are out


def test_unmatched_memory_is_treated_as_the_opposite_of_the_last_filter() -> None:
    assert passed(addr(0, PAGE, allow=True), addr(7 * PAGE, 8 * PAGE)) == [0, 1, 2, 3, 4, 5, 6]
    assert passed(addr(7 * PAGE, 8 * PAGE), addr(0, PAGE, allow=True)) == [0]


def test_targets_are_told_by_their_number() -> None:
    assert passed(target(3), of_target=3) == []
    assert passed(target(3), of_target=2) == list(range(8))
    assert passed(target(3, allow=True), of_target=3) == list(range(8))
    assert passed(target(3, allow=True), of_target=2) == []
    assert passed(target(3, matching=False), of_target=2) == []


def test_page_filters_have_the_last_word_on_what_no_core_filter_matches() -> None:
    # Core: allow pages 2 and 3. Without page filters all others are out; with them the page filters decide.
    core, page = addr(2 * PAGE, 4 * PAGE, allow=True), Filter(filter_type="anon", allow=True)
    assert passed(core) == [2, 3]
    assert passed(core, page) == list(range(8))
    assert passed(page, core) == list(range(8))  # in whatever order they were written: the core's come first


def test_only_what_a_filter_let_in_skips_the_page_filters() -> None:
    regions = make_regions(EIGHT)
    items = addr(0, 2 * PAGE, allow=True), addr(2 * PAGE, 4 * PAGE), Filter(filter_type="anon")
    let_in, explicitly = filters.decide(regions, 0, scheme(*items), PAGE)
    assert np.flatnonzero(let_in).tolist() == [0, 1, 4, 5, 6, 7]
    assert np.flatnonzero(explicitly).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (addr(PAGE + 1, 3 * PAGE - 1), [0, 3, 4, 5, 6, 7]),  # rejected: pages 1 and 2 are partly in the range
        (addr(PAGE + 1, 3 * PAGE - 1, allow=True), []),  # let in: neither is wholly in the range
        (addr(PAGE + 1, 4 * PAGE - 1, allow=True), [2]),
        (addr(PAGE + 1, 3 * PAGE - 1, matching=False), []),
        (addr(PAGE + 1, 3 * PAGE - 1, matching=False, allow=True), [0, 3, 4, 5, 6, 7]),
    ],
)
def test_a_page_that_is_partly_in_a_range_is_not_acted_on(item: Filter, expected: list[int]) -> None:
    assert passed(item) == expected


def test_bounds_follow_the_smallest_region() -> None:
    item = addr(PAGE, 3 * MIB)
    assert filters.aligned(item, 2 * MIB) == (0, 4 * MIB)
    assert filters.aligned(addr(PAGE, 5 * MIB, allow=True), 2 * MIB) == (2 * MIB, 4 * MIB)
    assert filters.aligned(addr(PAGE, 3 * MIB, allow=True), 2 * MIB) == (0, 0)


def test_the_top_of_the_address_space() -> None:
    top = 2**64 - 1
    regions = make_regions([(2**64 - 4 * PAGE, 2**64 - 2 * PAGE)])
    for item, expected in (
        (addr(2**64 - 3 * PAGE, top), [True, False]),
        (addr(top - 1, top), [True]),
        (addr(top - 1, top, allow=True), [False]),
    ):
        cut = filters.cut_at_filters(regions, np.ones(1, np.bool_), scheme(item), PAGE)
        assert filters.decide(cut, 0, scheme(item), PAGE)[0].tolist() == expected


class TestCutting:
    def test_regions_are_split_at_the_bounds(self) -> None:
        regions = make_regions([(0, 4 * PAGE), (4 * PAGE, 8 * PAGE), (20 * PAGE, 24 * PAGE)], [1, 2, 3], [4, 5, 6])
        cut = filters.cut_at_filters(regions, np.ones(3, np.bool_), scheme(addr(PAGE, 22 * PAGE)), PAGE)
        assert spans_of(cut) == [
            *[(0, PAGE), (PAGE, 4 * PAGE)],
            (4 * PAGE, 8 * PAGE),
            *[(20 * PAGE, 22 * PAGE), (22 * PAGE, 24 * PAGE)],
        ]
        assert cut.nr_accesses.tolist() == [1, 1, 2, 3, 3]
        assert cut.age.tolist() == [4, 4, 5, 6, 6]

    def test_several_bounds_in_one_region(self) -> None:
        items = addr(PAGE, 2 * PAGE), addr(2 * PAGE, 3 * PAGE), addr(5 * PAGE, 6 * PAGE)
        cut = filters.cut_at_filters(make_regions([(0, 8 * PAGE)]), np.ones(1, np.bool_), scheme(*items), PAGE)
        assert cut.start.tolist() == [0, PAGE, 2 * PAGE, 3 * PAGE, 5 * PAGE, 6 * PAGE]

    def test_what_the_scheme_is_not_for_stays_whole(self) -> None:
        regions = make_regions([(0, 4 * PAGE), (4 * PAGE, 8 * PAGE)])
        cut = filters.cut_at_filters(regions, np.array([False, True]), scheme(addr(PAGE, 5 * PAGE)), PAGE)
        assert cut.start.tolist() == [0, 4 * PAGE, 5 * PAGE]

    def test_no_bounds_inside_leaves_the_same_object(self) -> None:
        regions = make_regions([(0, 4 * PAGE)])
        for items in ((), (addr(0, 4 * PAGE),), (target(0),), (addr(100 * PAGE, 200 * PAGE),)):
            assert filters.cut_at_filters(regions, np.ones(1, np.bool_), scheme(*items), PAGE) is regions

    def test_no_regions(self) -> None:
        empty = make_regions([])
        assert len(filters.cut(empty, np.array([PAGE], np.uint64))) == 0
        assert len(filters.cut_at_filters(empty, np.ones(0, np.bool_), scheme(addr(0, PAGE)), PAGE)) == 0
        assert filters.decide(empty, 0, scheme(addr(0, PAGE)), PAGE)[0].tolist() == []


def literal(page: int, of_target: int, items: list[Filter]) -> tuple[bool, bool]:
    """A literal reading of the filter rules for one page: whether it passes, and whether it was let in explicitly."""
    core = [item for item in items if item.filter_type in ("addr", "target")]
    for item in core:
        if item.filter_type == "target":
            is_of_type = item.damon_target_idx == of_target
        else:
            assert item.address_range is not None
            is_of_type = item.address_range.start <= page * PAGE and (page + 1) * PAGE <= item.address_range.end
        if is_of_type == item.matching:
            return item.allow, item.allow
    if len(core) < len(items):
        return True, False
    return (not core[-1].allow if core else True), False


pages = st.integers(0, 12)
items = st.one_of(
    st.builds(
        lambda low, high, m, a: addr(min(low, high) * PAGE, (max(low, high) + 1) * PAGE, m, a),
        *(pages, pages, st.booleans(), st.booleans()),
    ),
    st.builds(target, st.integers(0, 2), st.booleans(), st.booleans()),
    st.builds(lambda a: Filter(filter_type="anon", allow=a), st.booleans()),
)


@given(st.lists(items, max_size=6), st.integers(0, 2), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_a_filter_list_decides_like_a_literal_reading(chosen: list[Filter], of_target: int, sizes: list[int]) -> None:
    ends: Any = np.cumsum(sizes)
    spans = [(int(end - size) * PAGE, int(end) * PAGE) for end, size in zip(ends, sizes, strict=True)]
    whole = make_regions(spans)
    cut = filters.cut_at_filters(whole, np.ones(len(whole), np.bool_), scheme(*chosen), PAGE)
    in_, explicitly = filters.decide(cut, of_target, scheme(*chosen), PAGE)
    for (start, end), let_in, explicit in zip(spans_of(cut), in_, explicitly, strict=True):
        for page in range(start // PAGE, end // PAGE):
            assert literal(page, of_target, chosen) == (let_in, explicit)
