"""Scores of answers against a known pattern, by hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.analysis.accuracy import score_phases
from pydamon.core.snapshot import Snapshot

HOT = np.array([[100, 200]], np.uint64)


def snapshot(at: int, rows: list[tuple[int, int, int]]) -> Snapshot:
    start, end, nr = (np.array(column) for column in zip(*rows, strict=True))
    return Snapshot(
        0, at * 100, at * 100 + 100, 5, 100, start.astype(np.uint64), end.astype(np.uint64),
        nr.astype(np.uint32), np.zeros(len(rows), np.uint32),
    )  # fmt: skip


def test_scores_of_one_phase() -> None:
    snapshots = [
        snapshot(0, [(0, 150, 20), (150, 400, 0)]),  # half of it found
        snapshot(1, [(0, 100, 1), (100, 200, 20), (200, 400, 0)]),  # found, and 100 bytes too much with one access
        snapshot(2, [(0, 90, 0), (90, 200, 20), (200, 400, 0)]),
        snapshot(3, [(0, 100, 0), (100, 200, 20), (200, 400, 0)]),
    ]
    (score,) = score_phases(snapshots, lambda _: HOT)
    assert score.hot_bytes == 100
    assert score.snapshots == 4
    assert score.wss_error == pytest.approx(np.median([0.5, 1.0, 0.1, 0.0]))
    assert score.found_after == 2
    assert score.precision == pytest.approx((100 / 110 + 1) / 2)  # of the last two
    assert score.recall == 1.0


def test_snapshots_in_which_the_pattern_changes_are_left_out() -> None:
    other = np.array([[300, 400]], np.uint64)
    snapshots = [snapshot(at, [(100, 200, 20), (200, 400, 0)]) for at in range(3)]
    scores = score_phases(snapshots, lambda t: HOT if t < 150 else other)
    assert [score.snapshots for score in scores] == [1, 1]
    assert scores[1].found_after is None
    assert scores[1].recall == 0.0


def test_outside_the_window_nothing_counts() -> None:
    (score,) = score_phases([snapshot(0, [(0, 200, 20)])], lambda _: HOT, window=(100, 400))
    assert score.wss_error == 0.0
    assert score.precision == 1.0


def test_times_without_a_known_pattern_are_left_out() -> None:
    assert score_phases([snapshot(0, [(0, 200, 20)])], lambda _: np.empty((0, 2), np.uint64)) == []
