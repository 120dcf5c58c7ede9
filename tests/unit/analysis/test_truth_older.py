"""What `benchmarks truth --older` calls no worse."""

from __future__ import annotations

import pytest
from benchmarks.truth_older import MEASURES, judge, measured

ERROR, _, PRECISION, _ = MEASURES


@pytest.mark.parametrize(
    ("this", "no_worse"),
    [([0.2, 0.2, 0.2], True), ([0.1, 0.4, 0.29], True), ([0.31, 0.31, 0.31], False), ([0.0, 0.5, 0.6], False)],
)
def test_an_error_may_be_larger_by_what_two_runs_differ_by(this: list[float], no_worse: bool) -> None:
    found = judge(ERROR, [(0.15, 0.25), (0.25, 0.15), (0.15, 0.25)], this)
    assert found.older == pytest.approx(0.2)
    assert found.differ == pytest.approx(0.1)
    assert found.no_worse is no_worse


def test_less_precision_is_worse_and_more_is_not() -> None:
    runs = [(0.95, 0.96), (0.95, 0.96)]
    assert not judge(PRECISION, runs, [0.9]).no_worse
    assert judge(PRECISION, runs, [1.0]).no_worse


def test_where_two_runs_are_equal_only_what_is_not_shown_may_differ() -> None:
    assert judge(ERROR, [(0.0, 0.0)], [0.0004]).no_worse
    assert not judge(ERROR, [(0.0, 0.0)], [0.0006]).no_worse


def test_what_is_never_found_counts_as_found_after_the_last_snapshot() -> None:
    phase: dict[str, object] = {"wss_error": 0.5, "precision": 1.0, "recall": 0.5, "snapshots": 9}
    assert measured([{**phase, "found_after": None}, {**phase, "found_after": 2}]) == (0.5, 6.0, 1.0, 0.5)
