"""Which intervals hold where none were said: tuned ones for processes and physical memory, else DAMON's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pydamon.cli import main
from pydamon.service.daemon import Started
from pydamon.spec import Intervals, IntervalsGoal, Spec, from_builtins, to_builtins
from pydamon.spec.defaults import DefaultGoal, has_default_goal, without_default_goal

PID = str(os.getpid())
FIXED = Intervals()
TUNED = Intervals(intervals_goal=DefaultGoal())
Asked = Callable[..., Intervals]


@pytest.fixture(params=["record", "start"])
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Asked:
    """The intervals that a verb makes of its options."""
    found: list[Spec] = []

    def run(_: Any, spec: Spec, how: Any = None) -> Started:
        found.append(spec)
        return Started("0", 1, "", [])

    def record(request: Any, spec: Spec) -> int:
        run(request, spec)
        return 0

    monkeypatch.setattr("pydamon.cli.recording.record", record)
    monkeypatch.setattr("pydamon.service.daemon.start", run)

    def ask(*args: str) -> Intervals:
        assert main([request.param, "-o", str(tmp_path / "x.damon"), *args]) == 0
        return found[-1].context.intervals

    return ask


@pytest.mark.parametrize(
    "args",
    [
        (PID,),
        ("--", "sleep", "600"),
        ("--cgroup", "/x"),
        ("--include-children", PID),
        ("--ops", "fvaddr", "--region", "0x1000-0x2000", PID),
        ("--ops", "paddr"),
        ("--primitive", "smaps", PID),
        ("--max-cpu", "1%", PID),
        ("--engine", "kernel", PID),  # which is asked for without the goal
    ],
)
def test_processes_and_physical_memory_are_monitored_at_intervals_that_fit(asked: Asked, args: tuple[str, ...]) -> None:
    assert asked(*args) == TUNED


def test_what_is_said_of_updates_leaves_the_rest_tuned(asked: Asked) -> None:
    assert asked("--update", "2s", PID) == Intervals(ops_update_us=2_000_000, intervals_goal=DefaultGoal())


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("--sample", "5ms", PID), FIXED),
        (("--aggr", "100ms", PID), FIXED),
        (("--sample", "50ms", PID), Intervals(sample_us=50_000, aggr_us=1_000_000)),
        (("--intervals", "fixed", PID), FIXED),
        (("--faithful", PID), FIXED),
        (("--faithful", "--ops", "paddr"), FIXED),
        (("--ops", "sim", "--workload", "stairs"), FIXED),
    ],
)
def test_what_was_said_is_fixed_and_what_is_not_real(asked: Asked, args: tuple[str, ...], expected: Intervals) -> None:
    assert asked(*args) == expected


@pytest.mark.parametrize("args", [(PID,), ("--faithful", PID), ("--ops", "sim", "--workload", "stairs")])
def test_tuning_that_was_asked_for_is_no_default(asked: Asked, args: tuple[str, ...]) -> None:
    assert asked("--intervals", "auto", *args) == Intervals(intervals_goal=IntervalsGoal())
    given = asked("--intervals", "auto", "--sample", "10ms", *args)
    assert given == Intervals(sample_us=10_000, aggr_us=200_000, intervals_goal=IntervalsGoal())


def test_reported_accesses_have_intervals_of_their_own(asked: Asked, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(" L 1000,8\n")
    intervals = asked("--ops", "reported", "--source", f"lackey:{tmp_path / 'trace'}")
    assert (intervals.sample_us, intervals.intervals_goal) == (50, None)


def test_a_spec_means_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[Spec] = []

    def start(_: Any, spec: Spec, how: Any) -> Started:
        found.append(spec)
        return Started("0", 1, "", [])

    monkeypatch.setattr("pydamon.service.daemon.start", start)
    path = tmp_path / "spec.json"
    path.write_text(f'{{"kdamonds": [{{"contexts": [{{"ops": "vaddr", "targets": [{{"pid": {PID}}}]}}]}}]}}')
    assert main(["start", "--spec", str(path)]) == 0
    assert found[0].context.intervals == FIXED


def test_trace_keeps_to_the_kernels_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Spec] = []
    monkeypatch.setattr("pydamon.cli.tracing.trace", lambda request, spec, events, **options: found.append(spec))
    assert main(["trace", PID]) == 0
    assert found[0].context.intervals == FIXED


def test_a_default_is_written_like_a_goal_that_was_said_and_can_be_dropped() -> None:
    context = {"ops": "vaddr", "targets": [{"pid": 1}], "intervals": {"intervals_goal": {}}}
    said = from_builtins({"kdamonds": [{"contexts": [context]}]})
    assert without_default_goal(said) is said
    unsaid = said.with_context(replace(said.context, intervals=TUNED))
    assert to_builtins(unsaid) == to_builtins(said)
    assert has_default_goal(unsaid.context.intervals)
    assert without_default_goal(unsaid).context.intervals == FIXED


@pytest.mark.parametrize(
    ("args", "least"),
    [(("--faithful",), "an aggregation interval (100 ms)"), (("--sample", "60ms"), "a sampling interval (60 ms)")],
)
def test_what_a_snapshot_takes_at_least_is_said_where_there_is_none(
    args: tuple[str, ...], least: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "r.damon")
    command = ["record", "--ops", "sim", "--workload", "stairs", "--duration", "50ms", "-o", out]
    assert main([*command, *args]) == 0
    assert f"no snapshot was completed: one takes {least}" in capsys.readouterr().err


def test_where_watermarks_let_no_scheme_act_that_is_why_there_is_no_snapshot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["record", "--ops", "sim", "--workload", "stairs", "--duration", "10s", "-o", str(tmp_path / "r.damon")]
    for marks, waits in (("free:10%:5%:0%", True), ("free:100%:100%:0%", False)):
        assert main([*command, "--force", "--module", f"reclaim watermarks={marks}"]) == 0
        said = capsys.readouterr().err
        assert ("monitoring waits until the watermarks let a scheme act" in said) == waits
