"""A hundredth of `python -m benchmarks robustness`: the same attempts from the same seed, and nothing may fail."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from benchmarks.robustness_damage import damage
from benchmarks.robustness_faults import VERBS, faults_of, make_inputs
from benchmarks.robustness_fuzz import fuzz
from benchmarks.robustness_kills import kills
from benchmarks.robustness_strings import names, shown
from benchmarks.robustness_tally import Tally


def _may_trace() -> bool:
    """Whether there is a strace, and it may look at a process here (containers often forbid it)."""
    command = ["strace", "-f", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=openat", "true"]
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _assert_held(*rows: Tally) -> None:
    assert all(row.count for row in rows)
    assert [row.line() for row in rows if row.failed] == []


def test_recordings_that_are_killed(tmp_path: Path) -> None:
    _assert_held(*kills(0.015, tmp_path))


@pytest.mark.skipif(not _may_trace(), reason="needs a strace that may trace")
@pytest.mark.parametrize("verb", VERBS)
def test_system_calls_that_fail(verb: str, tmp_path: Path) -> None:
    make_inputs(tmp_path)
    _assert_held(faults_of(verb, 2, tmp_path))


def test_damaged_records(tmp_path: Path) -> None:
    _assert_held(*damage(0.01, tmp_path))


def test_nonsense_where_something_is_read(tmp_path: Path) -> None:
    _assert_held(*fuzz(0.01, tmp_path))


@pytest.mark.parametrize("number", range(4))
def test_hostile_names_through_every_output(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four names that together have all pieces."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = list(shown(list(names(4))[number], tmp_path))
    assert len(found) > 70
    assert [failure for _, failure in found if failure] == []
