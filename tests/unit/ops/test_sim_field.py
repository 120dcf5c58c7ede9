"""A field of rates: what its pages do one by one, what ranges of them do, and what it leaves of a recording."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pydamon.ops.sim.field import Piece, RateField, memory_of
from pydamon.workload import model
from pydamon.workload.intervals import Spans
from pydamon.workload.layout import PAGE_SIZE
from pydamon.workload.truth import Schedule

BASE = 1 << 30
SECOND = 10**9
QUIET = model.parse("#regions\nm, 4096\n\nall\n60000\nm, 0, 4096, 0\n", source="test")


def schedule(start_ns: int = 0) -> Schedule:
    """A minute, from then on."""
    return Schedule.nominal(QUIET, start_ns)


def field(*rates: tuple[float, float], pages: int = 64) -> RateField:
    """Two regions of as many pages each; for a second each of these (accesses of a page a second)."""
    middle, end = BASE + pages * PAGE_SIZE, BASE + 2 * pages * PAGE_SIZE
    start, ends = np.array([BASE, middle], np.uint64), np.array([middle, end], np.uint64)
    pieces = [Piece(at * SECOND, start, ends, np.array(rate)) for at, rate in enumerate(rates)]
    return RateField(pieces, np.array([[BASE, end]], np.int64))


def every_page(pages: int = 64) -> np.ndarray:
    """The addresses of all pages of `field`."""
    return np.uint64(BASE) + np.arange(2 * pages, dtype=np.uint64) * np.uint64(PAGE_SIZE)


def test_a_page_is_accessed_as_often_as_its_rate_says() -> None:
    """At 4 a second each page 4 times in a second, in 100 windows of 10 ms; at 0 never."""
    found = field((4.0, 0.0))
    windows = [(at * SECOND // 100, (at + 1) * SECOND // 100) for at in range(100)]
    hits = np.sum([found.accessed(every_page(), schedule(), *window) for window in windows], axis=0)
    assert (hits[:64] == 4).all()
    assert not hits[64:].any()


@pytest.mark.parametrize("pages", [64, 1 << 17])  # a page, or several, to a cell
def test_ranges_are_what_pages_are(pages: int) -> None:
    rates = [(0.3, 1.7), (0.0, 0.05), (2.0, 0.4)]
    by_page, by_range = field(*rates, pages=pages), field(*rates, pages=pages)
    addresses, whole = every_page(pages), np.array([[BASE, BASE + 2 * pages * PAGE_SIZE]], np.int64)
    rng = np.random.default_rng(1)
    times = np.sort(rng.integers(0, 3 * SECOND, 12)).tolist()
    for low, high in pairwise(times):
        spans: Spans = by_range.touched(whole, schedule(), low, high, 1 << 14)
        inside = np.searchsorted(spans[:, 0], addresses.astype(np.int64), "right") - 1
        touched = (inside >= 0) & (addresses.astype(np.int64) < np.append(spans[:, 1], 0)[inside])
        assert (touched == by_page.accessed(addresses, schedule(), low, high)).all()


def test_windows_are_what_one_window_is() -> None:
    one, many = field((0.5, 3.0)), field((0.5, 3.0))
    windows = np.array([[0, 10**8], [2 * 10**8, 9 * 10**8]], np.int64)
    pages = np.stack([every_page(), every_page()[::-1]])
    found = many.accessed_in(pages, schedule(), windows)
    assert (found[0] == one.accessed(pages[0], schedule(), 0, 10**8)).all()
    assert (found[1] == one.accessed(pages[1], schedule(), 2 * 10**8, 9 * 10**8)).all()


def test_ranges_get_as_many_accesses_as_their_pages() -> None:
    """Ranges across both regions, and outside of the memory."""
    spans = np.array([[-8, 2], [60, 68], [70, 200]]) * PAGE_SIZE + BASE
    found = field((4.0, 1.0), (0.0, 3.0)).accesses(spans, schedule(), SECOND // 2, 3 * SECOND // 2)
    assert found == pytest.approx([2 * 2, 4 * 2 + 4 * 2, 58 * 2])


def test_time_is_that_of_the_schedule_and_what_is_no_memory_is_not_accessed() -> None:
    found = field((5.0, 5.0))
    at = np.array([BASE - PAGE_SIZE, BASE, BASE + 128 * PAGE_SIZE], np.uint64)
    assert found.accessed(at, schedule(7 * SECOND), 7 * SECOND, 8 * SECOND).tolist() == [False, True, False]


def test_memory_is_whole_pages() -> None:
    assert memory_of(np.array([[5000, 9000], [4096, 6000], [20000, 20001]])).tolist() == [[4096, 12288], [16384, 20480]]


def test_long_ago_is_known_as_a_mean() -> None:
    """A thousand snapshots: all together are exact, and what was in the last sixty is, too."""
    rates = [(float(at % 7), 1.0) for at in range(1000)]
    found, whole = field(*rates), np.array([[BASE, BASE + 128 * PAGE_SIZE]], np.int64)
    long = Schedule.in_turn([2000 * SECOND], 0)
    every = found.accesses(whole, long, 0, 1000 * SECOND)[0]
    assert every == pytest.approx(64 * sum(one + other for one, other in rates))
    part = found.accesses(whole, long, 950 * SECOND, 951 * SECOND)[0]
    assert part == pytest.approx(64 * (950 % 7 + 1))
    old = found.accesses(whole, long, 100 * SECOND, 500 * SECOND)[0]
    assert old == pytest.approx(64 * sum(one + other for one, other in rates[100:500]), rel=0.05)


def test_nothing_is_accessed_after_the_end() -> None:
    found, whole = field((4.0, 4.0)), np.array([[BASE, BASE + 128 * PAGE_SIZE]], np.int64)
    assert found.accesses(whole, schedule(), 59 * SECOND, 90 * SECOND)[0] == pytest.approx(4 * 128)
    assert not len(found.touched(whole, schedule(), 60 * SECOND, 70 * SECOND, 1 << 14))


def test_snapshots_out_of_their_order_do_no_harm() -> None:
    span = np.array([BASE], np.uint64), np.array([BASE + PAGE_SIZE], np.uint64)
    pieces = [Piece(at * SECOND, *span, np.array([rate])) for at, rate in ((2, 1.0), (1, 5.0), (-4, 3.0))]
    found = RateField(pieces, np.array([[BASE, BASE + PAGE_SIZE]], np.int64))
    assert found.accesses(np.array([[BASE, BASE + PAGE_SIZE]]), schedule(), 0, 4 * SECOND)[0] == pytest.approx(6)
