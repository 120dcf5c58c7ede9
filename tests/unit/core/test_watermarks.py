"""Watermarks: the hysteresis between high, mid and low, and when the metric is looked at."""

from __future__ import annotations

import pytest

from pydamon.core.watermarks import WatermarkState, activated
from pydamon.spec.schemes import Watermarks

MARKS = Watermarks(metric="free_mem_rate", interval_us=5_000_000, high_permil=500, mid_permil=400, low_permil=200)


@pytest.mark.parametrize(
    ("value", "was_inactive", "was_active"),
    [
        (1000, False, False),
        (501, False, False),  # above high: no need
        (500, False, True),  # high itself: stays as it is
        (400, False, True),  # mid itself: not yet
        (399, True, True),
        (200, True, True),  # low itself: active
        (199, False, False),  # below low: no room to act
        (0, False, False),
    ],
)
def test_what_is_active_at_which_value(value: int, was_inactive: bool, was_active: bool) -> None:
    assert activated(MARKS, value, before=False) is was_inactive
    assert activated(MARKS, value, before=True) is was_active


def test_hysteresis_over_a_course_of_free_memory() -> None:
    state, course = WatermarkState(), []
    for time_s, value in enumerate([450, 399, 450, 500, 501, 450, 250, 150, 250, 450]):
        state.update(MARKS, value, time_s * 10**9)
        course.append(state.activated)
    #      between  below    rises   at high above  between  below   low    back   rises
    assert course == [False, True, True, True, False, False, True, False, True, True]


def test_the_metric_is_looked_at_every_interval() -> None:
    state = WatermarkState()
    assert state.due(MARKS, 0)
    state.update(MARKS, 300, 0)
    assert not state.due(MARKS, 4_999_999_999)
    assert state.wait_ns(4_999_999_999) == 1
    assert state.due(MARKS, 5_000_000_000)
    assert state.wait_ns(6_000_000_000) == 0


def test_a_value_that_cannot_be_read_changes_nothing() -> None:
    state = WatermarkState()
    state.update(MARKS, 300, 0)
    state.update(MARKS, None, 5_000_000_000)
    assert state.activated
    assert state.wait_ns(5_000_000_000) == 5_000_000_000


def test_other_watermarks_are_looked_at_once() -> None:
    state = WatermarkState()
    state.update(MARKS, 300, 0)
    state.change()
    assert state.due(MARKS, 1)


def test_without_metric_always_active() -> None:
    state = WatermarkState()
    state.update(Watermarks(), None, 0)
    assert state.activated
    assert not state.due(Watermarks(), 10**18)
