"""Resident runs against a literal model: one flag for each page."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pydamon.spans import ResidentRuns, coarser, union, without

PAGE = 4096
PAGES = 64


def spans(flags: list[bool], low: int = 0) -> np.ndarray:
    """The runs of True, as bytes."""
    found, begin = [], None
    for page, flag in enumerate([*flags, False]):
        if flag and begin is None:
            begin = page
        elif not flag and begin is not None:
            found.append(((low + begin) * PAGE, (low + page) * PAGE))
            begin = None
    return np.array(found, np.uint64).reshape(-1, 2)


looks = st.lists(
    st.tuples(st.integers(0, PAGES), st.lists(st.booleans(), min_size=1, max_size=PAGES), st.booleans()), max_size=12
)
ranges = st.lists(st.tuples(st.integers(0, PAGES), st.integers(0, PAGES)), min_size=1, max_size=8)


@given(looks, ranges)
def test_bytes_are_those_of_a_flag_for_each_page(
    done: list[tuple[int, list[bool], bool]], asked: list[tuple[int, int]]
) -> None:
    runs, resident, seen = ResidentRuns(), [False] * PAGES, [False] * PAGES
    for low, flags, is_look in done:
        flags = flags[: PAGES - low]
        if is_look:
            runs.note(low * PAGE, (low + len(flags)) * PAGE, spans(flags, low))
            resident[low : low + len(flags)] = flags
            seen[low : low + len(flags)] = [True] * len(flags)
        else:  # what is still mapped
            runs.keep_only(spans(flags, low))
            kept = [low <= page < low + len(flags) and flags[page - low] for page in range(PAGES)]
            resident = [a and b for a, b in zip(resident, kept, strict=True)]
            seen = [a and b for a, b in zip(seen, kept, strict=True)]
    assert runs.runs.tolist() == spans(resident).tolist()
    start, end = (np.array([f(pair) * PAGE for pair in asked], np.uint64) for f in (min, max))
    bounds = [(min(pair), max(pair)) for pair in asked]
    assert runs.resident_bytes(start, end).tolist() == [PAGE * sum(resident[a:b]) for a, b in bounds]
    assert runs.seen_bytes(start, end).tolist() == [PAGE * sum(seen[a:b]) for a, b in bounds]
    assert runs.total_bytes() == PAGE * sum(resident)
    every = np.arange(sum(resident), dtype=np.uint64) * np.uint64(PAGE)
    assert runs.at(every).tolist() == [page * PAGE for page in range(PAGES) if resident[page]]
    assert runs.rank(runs.at(every)).tolist() == every.tolist()


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=PAGES))
def test_what_either_covers_and_one_alone(flags: list[tuple[bool, bool]]) -> None:
    one, other = (spans(list(each)) for each in zip(*flags, strict=True))
    assert union(one, other).tolist() == spans([a or b for a, b in flags]).tolist()
    assert without(one, other).tolist() == spans([a and not b for a, b in flags]).tolist()


@given(st.lists(st.booleans(), min_size=1, max_size=PAGES), st.integers(1, 10))
def test_fewer_spans_close_the_smallest_gaps(flags: list[bool], most: int) -> None:
    given_spans = spans(flags)
    found = coarser(given_spans, most)
    assert len(found) == min(most, len(given_spans))
    assert without(given_spans, found).tolist() == []
    gaps = sorted((given_spans[1:, 0] - given_spans[:-1, 1]).tolist())
    closed = int((found[:, 1] - found[:, 0]).sum()) - int((given_spans[:, 1] - given_spans[:, 0]).sum())
    assert closed == sum(gaps[: len(given_spans) - len(found)])
