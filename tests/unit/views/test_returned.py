"""How much memory came back after it had been idle: by a page panel, and by regions."""

from typing import Any

import numpy as np
import pytest

from pydamon.core.panel import BOUNDS_S, Look
from pydamon.core.snapshot import Snapshot
from pydamon.views.moments import WINDOWS_S
from pydamon.views.returned import Returned, after

SECOND = 10**9
PAGE = 4096


def note(returned: Returned, found: Look) -> None:
    returned.note_look(found, found.pages)


def look(at_s: int, ended: dict[int, int], *, pages: int = 100, resident: int = 1000 * PAGE) -> Look:
    """So many idle times of at least these bounds have ended."""
    counts, none = np.zeros(len(BOUNDS_S), np.int64), np.zeros(len(BOUNDS_S), np.int64)
    for bound, count in ended.items():
        counts[BOUNDS_S.index(bound)] = count
    idle = none.copy()
    idle[0] = pages
    return Look(at_s * SECOND, 1, resident, idle, none, counts, 0)


def told(returned: Returned, target: int = 1) -> dict[int, int]:
    """Bytes by window, of the windows that have any."""
    found = returned.of(target)
    assert found is not None
    return {window: int(size) for window, size in zip(WINDOWS_S, after(found, WINDOWS_S), strict=True) if size}


def test_each_page_of_a_panel_stands_for_ten_and_counts_for_all_shorter_times() -> None:
    returned = Returned()
    assert returned.of(1) is None
    note(returned, look(1, {0: 5, 12: 1, 60: 2}))
    assert told(returned) == {
        **dict.fromkeys((1, 2, 5, 10), 30 * PAGE), **dict.fromkeys((20, 30, 60), 20 * PAGE),
    }  # fmt: skip
    before = returned.of(1)
    note(returned, look(2, {86400: 1}))
    assert told(returned)[86400] == 10 * PAGE
    assert told(returned)[1] == 40 * PAGE
    assert before is not None
    assert after(before, [1]) == [30 * PAGE]  # who holds what was told keeps it


def test_a_look_without_pages_tells_nothing() -> None:
    returned = Returned()
    note(returned, look(1, {60: 1}, pages=0))
    assert returned.of(1) is None


def snapshot(at_s: float, *regions: tuple[int, int, int, float], **more: Any) -> Snapshot:
    """Regions: start and end in pages, accesses, and for how many seconds so."""
    start, end, accesses, age_s = (np.array(column) for column in zip(*regions, strict=True))
    end_ns = int(at_s * SECOND)
    return Snapshot(
        1, end_ns - SECOND // 10, end_ns, 5000, 100_000, (start * PAGE).astype(np.uint64),
        (end * PAGE).astype(np.uint64), accesses.astype(np.uint32), (age_s * 10).astype(np.uint32), **more,
    )  # fmt: skip


def test_regions_that_were_idle_and_have_been_accessed_since_came_back() -> None:
    returned = Returned()
    returned.note_regions(snapshot(100, (0, 10, 0, 100), (10, 30, 0, 15), (30, 40, 5, 1)))
    returned.note_regions(snapshot(105, (0, 40, 5, 1)))  # too soon to look again
    assert returned.of(1) is None
    # Of the first 5 pages are in use; of the second 8 have been idle for 3 s, and so were accessed since.
    returned.note_regions(snapshot(110, (0, 5, 9, 1), (5, 12, 0, 110), (12, 20, 0, 3), (20, 40, 0, 25)))
    assert told(returned) == {
        **dict.fromkeys((1, 2, 5, 10), 13 * PAGE), **dict.fromkeys((20, 30, 60), 5 * PAGE),
    }  # fmt: skip


def test_of_regions_what_is_resident_counts() -> None:
    returned = Returned()
    returned.note_regions(snapshot(100, (0, 10, 0, 100)))
    resident = np.array([4 * PAGE], np.uint64)
    returned.note_regions(snapshot(110, (0, 20, 3, 1), resident=resident))
    assert told(returned)[60] == 2 * PAGE  # half of the region, which has 4 resident pages, was idle


def test_targets_that_are_gone_are_forgotten() -> None:
    returned = Returned()
    note(returned, look(1, {60: 1}))
    returned.only([2])
    assert returned.of(1) is None


def test_the_sum_is_that_of_a_plain_computation() -> None:
    """Random regions, page by page."""
    draw = np.random.default_rng(3)
    for _ in range(20):
        edges = [np.unique(draw.integers(0, 400, 12)) for _ in range(2)]
        idle = [draw.choice([0, 5, 40, 700], len(each) - 1) for each in edges]
        shots = []
        for at_s, each, ages in zip((1000, 1020), edges, idle, strict=True):
            rows = [
                (int(a), int(b), 0 if age else 4, float(age or 1))
                for a, b, age in zip(each[:-1], each[1:], ages, strict=True)
            ]
            shots.append((snapshot(at_s, *rows), rows))
        returned = Returned()
        for shot, _ in shots:
            returned.note_regions(shot)
        pages = [
            {page: age_s if not hits else -1 for start, end, hits, age_s in rows for page in range(start, end)}
            for _, rows in shots
        ]
        found = returned.of(1)
        assert found is not None
        for window_s, size in zip(WINDOWS_S, after(found, WINDOWS_S), strict=True):
            plain = sum(then >= window_s and pages[1].get(page, 1e9) < 20 for page, then in pages[0].items())
            assert size == pytest.approx(plain * PAGE, abs=1)


def test_what_came_back_between_two_looks_falls_with_the_idle_time_to_the_byte() -> None:
    """A page of 37 stands for parts of a byte; each minute other idle times end. A row that rises is left out."""
    draw = np.random.default_rng(1)
    returned = Returned()
    before = np.zeros(len(WINDOWS_S), np.int64)
    for minute in range(200):
        ended = {bound: int(draw.integers(0, 3)) for bound in draw.choice(BOUNDS_S, 2, replace=False).tolist()}
        note(returned, look(60 * minute, ended, pages=37, resident=1001 * PAGE))
        found = returned.of(1)
        assert found is not None
        now = np.array(after(found, WINDOWS_S))
        assert (np.diff(now - before) <= 0).all()
        assert abs(int(now[0]) - found[BOUNDS_S.index(WINDOWS_S[0]) :].sum()) <= len(BOUNDS_S) / 2
        before = now
