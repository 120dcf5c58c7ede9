"""A hundredth of `python -m benchmarks robustness`: the same attempts from the same seed, and nothing may fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from benchmarks.robustness_faults import VERBS, faults_of, make_inputs
from benchmarks.robustness_kills import kills
from benchmarks.robustness_tally import Tally


def _assert_held(*rows: Tally) -> None:
    assert all(row.count for row in rows)
    assert [row.line() for row in rows if row.failed] == []


def test_recordings_that_are_killed(tmp_path: Path) -> None:
    _assert_held(*kills(0.015, tmp_path))


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("verb", VERBS)
def test_system_calls_that_fail(verb: str, tmp_path: Path) -> None:
    make_inputs(tmp_path)
    _assert_held(faults_of(verb, 2, tmp_path))
