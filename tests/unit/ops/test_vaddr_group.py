"""Targets that come and go: an index is one process for ever, and what has ended costs nothing and holds nothing."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from pydamon.errors import MachineError, RequestError
from pydamon.linux.process import Process
from pydamon.ops.cgroup import Cgroup
from pydamon.ops.membership import Children, Pids
from pydamon.ops.sampling import PageSampler
from pydamon.ops.vaddr_group import VaddrGroupOps
from pydamon.primitives.base import ACCESSED, UNKNOWN, PrimitiveCost


class CountingPrimitive:
    """Every page was accessed; remembers what is open."""

    name = "counting"
    open_now: ClassVar[set[int]] = set()

    def __init__(self, process: Process) -> None:
        self.cost = PrimitiveCost()
        self.pid = process.pid
        self.asked = 0
        self.open_now.add(self.pid)

    def prepare(self, addresses: np.ndarray) -> np.ndarray:
        self.asked = len(addresses)
        return np.ones(self.asked, np.bool_)

    def replace(self, index: np.ndarray, addresses: np.ndarray) -> np.ndarray:
        return np.ones(len(index), np.bool_)

    def check(self) -> np.ndarray:
        self.cost.checks += self.asked
        return np.full(self.asked, ACCESSED, np.uint8)

    def update(self) -> None:
        pass

    def close(self) -> None:
        self.open_now.discard(self.pid)


@pytest.fixture
def sleepers(processes: None) -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(4)]
    CountingPrimitive.open_now.clear()
    yield started
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def cgroup(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.procs").write_text("")
    return tmp_path


def put(cgroup: Path, *pids: int) -> None:
    (cgroup / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


def group(cgroup: Path, **options: Any) -> VaddrGroupOps:
    return VaddrGroupOps(Cgroup(str(cgroup), 0, below=[cgroup]), CountingPrimitive, **options)


def ask(ops: VaddrGroupOps, target: int) -> list[int]:
    start = np.array([0x1000, 0x9000], np.uint64)
    assert isinstance(ops.sampler, PageSampler)
    ops.sampler.prepare_access_checks(target, start, start + np.uint64(0x1000))
    return ops.sampler.check_accesses(target).tolist()


def test_an_index_is_never_used_for_another_process(sleepers: list[subprocess.Popen[bytes]], cgroup: Path) -> None:
    a, b, c = (process.pid for process in sleepers[:3])
    put(cgroup, a, b)
    ops = group(cgroup)
    assert len(ops.init()) == ops.nr_targets == 2
    assert ops.live_pids() == {0: a, 1: b}
    assert ask(ops, 0) == [ACCESSED, ACCESSED]

    put(cgroup, b, c)  # a leaves, though it lives; c joins
    ranges = ops.update()
    assert [r is not None and len(r) == 3 for r in ranges] == [False, True, True]
    assert ops.live_pids() == {1: b, 2: c}
    assert [ops.target_valid(target) for target in range(3)] == [False, True, True]
    assert ask(ops, 0) == [UNKNOWN, UNKNOWN]
    assert ops.mappings(0) == []
    assert CountingPrimitive.open_now == {b, c}
    assert ops.cost().checks == 2

    put(cgroup, a, b, c)  # back again: a target of its own
    ops.update()
    assert ops.live_pids() == {1: b, 2: c, 3: a}
    assert [(row["target"], row["pid"]) for row in ops.take_joined()] == [(0, a), (1, b), (2, c), (3, a)]
    assert ops.take_joined() == []
    ops.cleanup()
    assert CountingPrimitive.open_now == set()


def test_who_joined_is_described(sleepers: list[subprocess.Popen[bytes]]) -> None:
    ops = VaddrGroupOps(Pids([sleepers[0].pid]), CountingPrimitive)
    (row,) = ops.take_joined()
    process = ops.processes[0]
    assert row == {"target": 0, "pid": process.pid, "command": "sleep 600", "start_ticks": process.start_ticks}
    ops.cleanup()


@pytest.mark.usefixtures("processes")
def test_nothing_stays_open_of_processes_that_ended(sleepers: list[subprocess.Popen[bytes]], cgroup: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ops = group(cgroup)
    idle = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        with subprocess.Popen(["sleep", "600"]) as child:
            put(cgroup, child.pid)
            ops.update()
            assert ops.live_pids() == {ops.nr_targets - 1: child.pid}
            child.kill()
        assert not ops.target_valid(ops.nr_targets - 1)
        ops.update()
    assert ops.nr_targets == 30
    assert len(os.listdir("/proc/self/fd")) == idle
    ops.cleanup()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.usefixtures("processes")
def test_nothing_is_kept_of_processes_that_ended(sleepers: list[subprocess.Popen[bytes]], cgroup: Path) -> None:
    ops = group(cgroup)
    kept: list[weakref.ref[Any]] = []
    gc.disable()  # what is in a ring of objects stays for long, too
    try:
        for _ in range(10):
            with subprocess.Popen(["sleep", "600"]) as child:
                put(cgroup, child.pid)
                ops.update()
                kept += [weakref.ref(ops.processes[-1]), weakref.ref(ops.primitives[-1])]
                ops.take_joined()
                child.kill()
            ops.update()
        assert [one() for one in kept] == [None] * 20
    finally:
        gc.enable()
    each = list(zip(ops.processes, ops.primitives, map(ops.mappings, range(10)), strict=True))
    assert len({tuple(map(id, one)) for one in each}) == 1  # what stands for one stands for all
    ops.cleanup()


def test_named_processes_keep_their_pidfd_until_the_end(sleepers: list[subprocess.Popen[bytes]]) -> None:
    ops = VaddrGroupOps(Pids([process.pid for process in sleepers[:2]]), CountingPrimitive)
    sleepers[0].kill()
    sleepers[0].wait()
    ops.update()
    assert ops.live_pids() == {1: sleepers[1].pid}
    assert ops.processes[0].pidfd >= 0  # the clock may be watching it
    ops.cleanup()
    assert ops.processes[0].pidfd == ops.processes[1].pidfd == -1


def test_it_may_grow_while_the_cgroup_is_there(cgroup: Path) -> None:
    ops = group(cgroup)
    assert ops.init() == []
    assert ops.may_grow()
    (cgroup / "cgroup.procs").unlink()
    assert not ops.may_grow()
    assert ops.update() == []
    assert not ops.may_grow()
    assert ops.take_notices() == [f"the cgroup {cgroup} was removed"]
    assert ops.take_notices() == []
    ops.cleanup()


class TestBounds:
    def test_live_targets(self, sleepers: list[subprocess.Popen[bytes]], cgroup: Path) -> None:
        pids = sorted(process.pid for process in sleepers)
        put(cgroup, *pids)
        ops = group(cgroup, max_live=3)
        assert ops.live_pids() == dict(enumerate(pids[:3]))
        assert ops.take_notices() == [
            f"the cgroup {cgroup} has 1 processes more than can be monitored: "
            "the maximum number of regions allows for 3 at a time"
        ]
        assert ops.remarks() == ["1 process found no room at the end"]
        put(cgroup, *pids[1:])
        ops.update()
        assert ops.live_pids() == {1: pids[1], 2: pids[2], 3: pids[3]}
        assert ops.take_notices() == ops.remarks() == []
        ops.cleanup()

    def test_targets_in_all(self, sleepers: list[subprocess.Popen[bytes]], cgroup: Path) -> None:
        a, b, c = (process.pid for process in sleepers[:3])
        put(cgroup, a, b)
        ops = group(cgroup, max_targets=2)
        put(cgroup, c)
        ops.update()
        assert ops.nr_targets == 2
        assert any("2 processes have been monitored; no more" in line for line in ops.take_notices())
        assert not ops.may_grow()
        ops.cleanup()

    def test_the_limit_of_open_files(
        self, sleepers: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        used = len(os.listdir("/proc/self/fd"))
        monkeypatch.setattr("pydamon.ops.vaddr_group.resource.getrlimit", lambda _: (used + 64 + 4 * 3 + 2, 1 << 20))
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(
            RequestError, match=r"4 processes are too many: the limit of open files .* allows for [123]"
        ):
            VaddrGroupOps(Pids([process.pid for process in sleepers]), CountingPrimitive)
        assert len(os.listdir("/proc/self/fd")) == before


class TestRefusal:
    @staticmethod
    def refuse(pid: int) -> object:
        def opener(process: Process) -> CountingPrimitive:
            if process.pid == pid:
                raise MachineError("no permission")
            return CountingPrimitive(process)

        return opener

    def test_one_that_may_not_be_monitored_is_said_once_and_not_tried_again(
        self, sleepers: list[subprocess.Popen[bytes]], cgroup: Path
    ) -> None:
        a, b = (process.pid for process in sleepers[:2])
        put(cgroup, a, b)
        ops = VaddrGroupOps(Cgroup(str(cgroup), 0, below=[cgroup]), self.refuse(a))  # type: ignore[arg-type]
        for _ in range(3):
            assert ops.live_pids() == {0: b}
            ops.update()
        assert ops.take_notices() == [
            f"a process of the cgroup {cgroup} is left out, and others like it: no permission"
        ]
        assert ops.remarks() == ["1 process could not be monitored"]
        ops.cleanup()

    def test_if_none_may_be_monitored_it_fails(self, sleepers: list[subprocess.Popen[bytes]], cgroup: Path) -> None:
        put(cgroup, sleepers[0].pid)
        with pytest.raises(MachineError, match="no permission"):
            VaddrGroupOps(Cgroup(str(cgroup), 0, below=[cgroup]), self.refuse(sleepers[0].pid))  # type: ignore[arg-type]

    def test_one_that_was_named_fails_and_nothing_stays_open(self, sleepers: list[subprocess.Popen[bytes]]) -> None:
        before = len(os.listdir("/proc/self/fd"))
        pids = [process.pid for process in sleepers]
        with pytest.raises(MachineError, match="no permission"):
            VaddrGroupOps(Children(pids), self.refuse(pids[2]))  # type: ignore[arg-type]
        assert len(os.listdir("/proc/self/fd")) == before
        assert CountingPrimitive.open_now == set()


# Starts children that live for a moment, one after the other.
STORM = "while :; do sleep 0.001; done"


@pytest.mark.usefixtures("processes")
def test_a_storm_of_short_children_is_counted_and_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with subprocess.Popen(["sh", "-c", STORM], start_new_session=True, stderr=subprocess.DEVNULL) as root:
        try:
            ops = VaddrGroupOps(Children(root.pid, min_age_ns=100_000_000), CountingPrimitive)
            for _ in range(1000):
                time.sleep(0.05)
                ops.update()
                assert len(os.listdir("/proc/self/fd")) == before + len(ops.membership.members)
                if ops.membership.too_short > 5:
                    break
            assert ops.remarks() == [f"{ops.membership.too_short} processes lived too short to be monitored"]
            assert ops.target_valid(0)
        finally:
            os.killpg(root.pid, signal.SIGKILL)
    ops.cleanup()
