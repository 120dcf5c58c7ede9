"""Choosing regions of a snapshot."""

from __future__ import annotations

import math

import pytest
from tests.unit.records.record_samples import snapshot

from pydamon.analysis.choose import Wanted, order

# Four pages: hot for long, hot since now, idle for 0.9 s, warm; aggregations are 100 ms, 20 samples.
ONE = snapshot(0, [(0, 4096, 20, 8), (4096, 8192, 20, 0), (8192, 16384, 0, 9), (16384, 20480, 5, 3)])


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Wanted(), [True] * 4),
        (Wanted(size=(4097, math.inf)), [False, False, True, False]),
        (Wanted(size=(8192, 8192)), [False, False, True, False]),
        (Wanted(rate=(25, 100)), [True, True, False, True]),
        (Wanted(rate=(0, 0)), [False, False, True, False]),
        (Wanted(age=(300_000_000, 800_000_000)), [True, False, False, True]),
        (Wanted(rate=(1, 100), age=(0, 0)), [False, True, False, False]),
    ],
)
def test_bounds_are_inclusive_and_all_must_hold(wanted: Wanted, expected: list[bool]) -> None:
    assert wanted.of(ONE).tolist() == expected


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("address", [0, 1, 2, 3]),
        ("hottest", [0, 1, 3, 2]),  # 100 % for 0.8 s, 100 % since now, 25 %, none
        ("coldest", [2, 3, 0, 1]),  # idle, then by rate; what is alike by address
        ("recency", [0, 1, 3, 2]),
        ("temperature", [0, 1, 3, 2]),  # 10,080, 10,000, 2,530, -90
    ],
)
def test_orders(by: str, expected: list[int]) -> None:
    assert order(ONE, by).tolist() == expected


def test_picked_regions_keep_their_columns_together() -> None:
    found = ONE.select(order(ONE, "coldest")[:2])
    assert (found.start.tolist(), found.end.tolist()) == ([8192, 16384], [16384, 20480])
    assert (found.nr_accesses.tolist(), found.age.tolist(), found.end_ns) == ([0, 5], [9, 3], ONE.end_ns)
