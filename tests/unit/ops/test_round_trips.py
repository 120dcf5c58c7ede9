"""Ping-pong between NUMA nodes; worked by hand, in pages."""

from __future__ import annotations

import numpy as np

from pydamon.ops.base import Ranges
from pydamon.ops.round_trips import RoundTrips

SECOND, PAGE = 1_000_000_000, 4096


def spans(*pages: tuple[int, int]) -> Ranges:
    return np.array(pages, np.uint64).reshape(-1, 2) * np.uint64(PAGE)


def test_what_comes_back_within_a_minute_counts_once() -> None:
    trips = RoundTrips()
    trips.note(0, "a", spans((0, 10), (20, 30)), 0, 1)
    trips.note(30 * SECOND, "a", spans((5, 25)), 1, 0)
    assert trips.bytes == 10 * PAGE  # 5 to 10, and 20 to 25
    trips.note(40 * SECOND, "a", spans((5, 6)), 1, 0)  # as if it had gone again meanwhile, unseen
    assert trips.bytes == 10 * PAGE


def test_what_comes_back_later_or_from_elsewhere_or_is_anothers_does_not_count() -> None:
    trips = RoundTrips()
    trips.note(0, "a", spans((0, 10)), 0, 1)
    trips.note(1, "b", spans((0, 10)), 1, 0)
    trips.note(2, "a", spans((0, 10)), 2, 0)
    trips.note(61 * SECOND, "a", spans((0, 10)), 1, 0)
    assert trips.bytes == 0


def test_going_to_and_fro_counts_each_time() -> None:
    trips = RoundTrips()
    for number in range(5):
        trips.note(number * SECOND, "a", spans((0, 4)), number % 2, 1 - number % 2)
    assert trips.bytes == 4 * 4 * PAGE
