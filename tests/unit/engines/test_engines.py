"""Engines: clocks that can be woken, intervals that can be afforded, specs that fit."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.helpers.waiting import GENEROUS_S

from pydamon.engines.clock import MachineClock
from pydamon.engines.sim import SimEngine
from pydamon.engines.user.engine import UserEngine
from pydamon.engines.user.fit import DisturbanceFloor
from pydamon.errors import RequestError
from pydamon.ops.membership import Children
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec import Spec, from_builtins
from pydamon.workload.builtin import load

MS = 1_000_000


def spec(*contexts: dict[str, Any]) -> Spec:
    return from_builtins({"kdamonds": [{"contexts": [context]} for context in contexts]})


class TestMachineClock:
    def test_sleeps_about_as_long_as_asked(self) -> None:
        clock = MachineClock()
        began = clock.now_ns()
        clock.sleep_ns(5 * MS)
        assert clock.now_ns() - began >= 5 * MS

    def test_a_write_to_the_wake_descriptor_ends_a_sleep(self) -> None:
        read_fd, write_fd = os.pipe()
        clock = MachineClock(wake_fd=read_fd)
        threading.Timer(0.02, os.write, (write_fd, b"x")).start()
        began = time.monotonic()
        clock.sleep_ns(600_000 * MS)
        assert time.monotonic() - began < GENEROUS_S
        os.close(read_fd)
        os.close(write_fd)

    @pytest.mark.usefixtures("processes")
    def test_the_end_of_a_process_ends_one_sleep_and_not_the_next(self) -> None:
        with subprocess.Popen(["sleep", "0.05"]) as child:
            pidfd = os.pidfd_open(child.pid)
            clock = MachineClock()
            clock.watch_ends([pidfd])
            began = time.monotonic()
            assert not clock.sleep_ns(600_000 * MS)
            assert time.monotonic() - began < GENEROUS_S
            again = clock.now_ns()
            clock.sleep_ns(5 * MS)
            assert clock.now_ns() - again >= 5 * MS
            os.close(pidfd)


class TestDisturbanceFloor:
    def test_a_sample_disturbs_for_a_twentieth_of_its_interval_at_most(self) -> None:
        floor = DisturbanceFloor()
        floor.update(PrimitiveCost(disturb_ns=40 * MS), 20)
        assert floor.sample_us == 40_000  # 2 ms a sample
        floor.update(PrimitiveCost(disturb_ns=40 * MS), 20)  # nothing new
        assert floor.sample_us == 40_000
        for samples in range(40, 400, 20):
            floor.update(PrimitiveCost(disturb_ns=40 * MS + (samples - 20) * MS), samples)
        assert floor.sample_us == pytest.approx(20_000, rel=0.01)  # it has become cheaper

    def test_what_costs_nothing_has_no_floor(self) -> None:
        floor = DisturbanceFloor()
        floor.update(PrimitiveCost(), 20)
        assert floor.sample_us == 0


def test_the_simulation_is_reproducible() -> None:
    def run(seed: int) -> list[list[int]]:
        engine = SimEngine(spec({"ops": "sim", "targets": [{}]}), load("zigzag"), seed=seed)
        return [s[0].start.tolist() for s, _ in zip(engine.monitor(), range(20), strict=False)]

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_a_spec_for_another_engine_is_refused_by_field() -> None:
    with pytest.raises(RequestError, match="this engine runs vaddr") as caught:
        UserEngine(spec({"ops": "sim", "targets": [{}]}))
    assert caught.value.where == "kdamonds[0].contexts[0].ops"


def test_several_kdamonds_are_refused() -> None:
    context = {"targets": [{"pid": os.getpid()}]}
    with pytest.raises(RequestError, match="has 2 entries"):
        UserEngine(spec(context, context))


def test_a_process_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RequestError, match="no process has the id"):
        UserEngine(spec({"targets": [{"pid": 2**22 + 5}], "primitive": "smaps"}))


@pytest.mark.usefixtures("processes")
def test_one_of_several_processes_ends_and_the_others_go_on() -> None:
    with subprocess.Popen(["sleep", "600"]) as short, subprocess.Popen(["sleep", "600"]) as long:
        request = {
            "targets": [{"pid": short.pid}, {"pid": long.pid}],
            "primitive": "smaps",
            "intervals": {"sample_us": 10_000, "aggr_us": 50_000},
        }
        engine = UserEngine(spec(request))
        seen: list[list[int]] = []
        for snapshots in engine.monitor():  # each ends once it was seen
            seen.append([s.target for s in snapshots])
            (short if 0 in seen[-1] else long).kill()
    assert seen[0] == [0, 1]
    assert seen[-1] == [1]
    assert not engine.stop_requested


@pytest.mark.usefixtures("processes")
def test_a_group_is_monitored_instead_of_the_processes_of_the_spec() -> None:
    script = "sleep 1000; sleep 1001 & wait"  # the test ends each once it is seen
    seen: set[int] = set()
    with subprocess.Popen(["sh", "-c", script]) as root:
        request = {
            "targets": [{"pid": root.pid}],
            "primitive": "smaps",
            "intervals": {"sample_us": 10_000, "aggr_us": 50_000, "ops_update_us": 50_000},
        }
        engine = UserEngine(spec(request), group=Children(root.pid, min_age_ns=500 * MS))  # by then it is a sleep
        for snapshots in engine.monitor():
            new = {s.target for s in snapshots if len(s.start)} - seen
            seen |= new
            if new & {1, 2}:
                (child,) = Path(f"/proc/{root.pid}/task/{root.pid}/children").read_text().split()
                os.kill(int(child), signal.SIGKILL)
    assert seen == {0, 1, 2}
    joined = engine.joined()
    assert [row["target"] for row in joined] == [0, 1, 2]
    assert [row["command"] for row in joined[1:]] == ["sleep 1000", "sleep 1001"]


def test_more_processes_than_regions_allow_for_are_refused() -> None:
    request = {"targets": [{"pid": os.getpid()}, {"pid": os.getppid()}], "nr_regions": {"min": 3, "max": 5}}
    with pytest.raises(RequestError, match="the maximum number of regions allows for 1 at a time"):
        UserEngine(spec(request | {"primitive": "smaps"}))


@pytest.mark.parametrize(("goal", "floor_us"), [({}, 38_000), (None, 5_000)])
def test_where_intervals_are_tuned_what_smaps_costs_is_their_floor(
    monkeypatch: pytest.MonkeyPatch, goal: dict[str, int] | None, floor_us: int
) -> None:
    request = {"targets": [{"pid": os.getpid()}], "primitive": "smaps", "intervals": {"intervals_goal": goal}}
    engine = UserEngine(spec(request))
    # 2 ms a sample: 5 % of 40 ms
    samples = lambda: PrimitiveCost(disturb_ns=engine.kdamond.passed_samples * 2 * MS)  # noqa: E731
    monkeypatch.setattr(engine.ops, "cost", samples)
    first, *others = [snapshots[0].sample_us for snapshots in itertools.islice(engine.monitor(), 4)]
    assert first == 5_000
    assert set(others) == {5_000} if goal is None else min(others) >= floor_us
    present = engine.context.intervals.intervals_goal
    assert present is None if goal is None else present is not None and present.min_sample_us == 40_000


@pytest.mark.usefixtures("processes")
def test_the_user_engine_monitors_until_its_process_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
        request = {"targets": [{"pid": child.pid}], "primitive": "smaps", "intervals": {"aggr_us": 50_000}}
        engine = UserEngine(spec(request))
        snapshots = []
        for found in engine.monitor():
            snapshots += found
            if len(snapshots) == 3:
                child.kill()
    assert len(snapshots) >= 3
    assert not engine.stop_requested
    assert engine.cost().checks > 0
    assert all((s.start < s.end).all() for s in snapshots)
