"""Controllers are stepped, and what they decide is bounded, counted, carried out: on what looks like a cgroup."""

from __future__ import annotations

import mmap
import time
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.fake_cgroup import fake_cgroup
from tests.helpers.waiting import wait_until

from pydamon.core.panel import BOUNDS_S, Look
from pydamon.errors import MachineError
from pydamon.linux.memcg_control import Cgroup
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.refaults import of_cgroup
from pydamon.linux.zram import Zram
from pydamon.modules.controller import (
    Change,
    Compact,
    Controller,
    Decision,
    Observations,
    ReclaimBytes,
    SetMemoryLow,
    SetMinAge,
    SetQuota,
    ZramWriteback,
)
from pydamon.modules.pressure import PressureController, PressureRule
from pydamon.modules.refaults import RefaultController, RefaultRule
from pydamon.modules.registry import parse
from pydamon.run.acts import left
from pydamon.run.acts.hands import MachineHands
from pydamon.run.acts.loop import Acts

MIB = 1 << 20
SECOND = 1_000_000_000


class Says:
    """A controller that decides what it was told to, every second."""

    interval_us = 1_000_000
    needs_accesses = False

    def __init__(self, *decisions: Decision) -> None:
        self.decisions = decisions
        self.seen: list[Observations] = []

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        self.seen.append(observations)
        return self.decisions


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State files of tests are not those of this user."""
    base = tmp_path / "runtime"
    base.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(base))


class Bench:
    """A loop over a cgroup that is none; ``said`` is what the user got, ``changed`` what schemes did."""

    def __init__(self, root: Path, path: Path, *controllers: Controller, dry_run: bool = False) -> None:
        self.path = path
        self.said: list[str] = []
        self.planned: list[str] = []
        self.changed: list[Change] = []
        self.clock = Clock()
        self.acts = Acts(
            [("reclaim", controller) for controller in controllers],
            MachineHands(
                Cgroup(str(path), (root,)), counters=lambda: of_cgroup(str(path), below=(root,)), below=(root,)
            ),
            now_ns=self.clock,
            say=self.said.append,
            plan=self.planned.append,
            dry_run=dry_run,
            change=self.changed.append,
        )

    def step(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.acts.step()
            self.clock.now += SECOND
        self.acts.step()

    def read(self, name: str) -> str:
        return (self.path / name).read_text().split("\n")[0]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    found = tmp_path / "cgroup"
    found.mkdir()
    return found


def test_the_pressure_rule_asks_the_kernel(root: Path) -> None:
    bench = Bench(root, fake_cgroup(root), PressureController(PressureRule(interval_us=1_000_000)))
    bench.acts.step()
    assert bench.read("memory.reclaim") == ""  # the first interval is not over
    bench.step()
    assert bench.read("memory.reclaim") == str(MIB)
    (done,) = bench.acts.done()
    assert (done.kind, done.count, done.asked_bytes, done.done_bytes) == ("ReclaimBytes", 1, MIB, 0)
    assert bench.said == ["module reclaim: ask the kernel to reclaim 1.0 MiB"]
    (bench.path / "memory.pressure").write_text("some avg10=0.20 avg60=0.00 avg300=0.00 total=9\n")
    bench.step(5)
    assert bench.acts.done()[0].count == 1


def test_large_amounts_are_asked_for_in_batches_and_cut_short(root: Path) -> None:
    path = fake_cgroup(root, current_bytes=1000 * MIB)
    ended: list[bool] = []
    hands = MachineHands(Cgroup(str(path), (root,)), stopped=lambda: bool(ended), below=(root,))
    hands.do(ReclaimBytes(bytes=100 * MIB), 0)
    assert (path / "memory.reclaim").read_text().split()[0] == str(4 * MIB)  # 3 x 32 MiB were before it
    ended.append(True)
    (path / "memory.reclaim").write_text("")
    hands.do(ReclaimBytes(bytes=100 * MIB), 0)
    assert (path / "memory.reclaim").read_text() == ""


def test_each_step_takes_at_most_a_tenth_and_an_hour_ten_times_the_size(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(root, fake_cgroup(root, current_bytes=1000 * MIB), Says(ReclaimBytes(bytes=900 * MIB)))
    monkeypatch.setattr(MachineHands, "do", lambda self, decision, now_ns: decision.bytes)
    bench.step(150)
    (done,) = bench.acts.done()
    assert (done.count, done.bounded) == (100, 150)  # 100 x 100 MiB are ten times the size
    assert done.done_bytes == 10_000 * MIB
    bench.clock.now += 3600 * SECOND
    bench.step()
    assert bench.acts.done()[0].count > 100


def test_protection_and_writing_back_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Decision] = []

    def do(self: MachineHands, decision: Decision, now_ns: int) -> int:
        asked.append(decision)
        return 0

    monkeypatch.setattr(MachineHands, "do", do)
    low, back = SetMemoryLow(bytes=1 << 60), ZramWriteback(device="zram0")
    bench = Bench(root, fake_cgroup(root), Says(low, back))
    bench.step()
    machine = MachineMetrics().memory_bytes()
    assert machine is not None
    assert isinstance(asked[0], SetMemoryLow)
    assert machine[1] * 0.79 < asked[0].bytes <= machine[1] * 0.8
    assert asked[1] == ZramWriteback(device="zram0", limit_bytes=1 << 30)


def test_a_dry_run_only_says(root: Path) -> None:
    decisions = ReclaimBytes(bytes=MIB), SetMemoryLow(bytes=5 * MIB), SetMinAge(scheme="reclaim", min_age_us=5_000_000)
    bench = Bench(root, fake_cgroup(root), Says(*decisions), dry_run=True)
    bench.step()
    assert bench.planned == [
        "1 s: module reclaim would ask the kernel to reclaim 1.0 MiB",
        "1 s: module reclaim would protect 5.0 MiB (memory.low)",
        "1 s: module reclaim would set the minimum age of scheme reclaim to 5 s",
    ]
    assert (bench.read("memory.reclaim"), bench.read("memory.low")) == ("", "0")
    assert (bench.changed, left.left()) == ([], [])
    assert bench.acts.finish() == []
    assert bench.said[0] == "module reclaim: would ask the kernel to reclaim 1.0 MiB (once)"


def test_memory_low_is_put_back(root: Path) -> None:
    says = Says(SetMemoryLow(bytes=5 * MIB))
    bench = Bench(root, fake_cgroup(root), says)
    (bench.path / "memory.low").write_text("4096\n")
    bench.step()
    assert bench.read("memory.low") == str(5 * MIB)
    says.decisions = (SetMemoryLow(bytes=6 * MIB),)
    bench.step()
    assert bench.read("memory.low") == str(6 * MIB)
    assert bench.acts.finish() == [f"memory.low of {bench.path} is 4096 again"]
    assert bench.read("memory.low") == "4096"
    assert bench.acts.finish() == []


def test_what_somebody_else_has_set_stays(root: Path) -> None:
    says = Says(SetMemoryLow(bytes=5 * MIB))
    bench = Bench(root, fake_cgroup(root), says)
    bench.step()
    (bench.path / "memory.low").write_text("max\n")
    says.decisions = (SetMemoryLow(bytes=6 * MIB),)
    bench.step()
    assert bench.said[-1] == (
        f"module reclaim cannot protect 6.0 MiB (memory.low): {bench.path}/memory.low: "
        "was set to max by somebody else; it stays"
    )
    assert bench.acts.finish() == [f"memory.low of {bench.path} was changed by somebody else; it stays max"]
    assert bench.read("memory.low") == "max"


def test_a_cgroup_that_is_removed_lets_modules_rest(root: Path) -> None:
    says = Says(SetMemoryLow(bytes=5 * MIB))
    bench = Bench(root, fake_cgroup(root), says)
    bench.step()
    bench.path.rename(root / "other")
    bench.step(3)
    assert len(says.seen) == 1
    assert bench.said[1:] == [f"modules rest: {bench.path}: was removed"]
    assert bench.acts.finish() == [f"memory.low of {bench.path}: the cgroup was removed"]


def test_a_refusal_is_said_once_and_counted(root: Path) -> None:
    bench = Bench(root, fake_cgroup(root), Says(ReclaimBytes(bytes=MIB)))
    (bench.path / "memory.reclaim").unlink()
    bench.step(3)
    (done,) = bench.acts.done()
    assert (done.count, done.refused) == (0, 3)
    (said,) = bench.said
    assert said.startswith(f"module reclaim cannot ask the kernel to reclaim 1.0 MiB: {bench.path}/memory.reclaim: ")
    assert done.refusal is not None
    assert done.refusal in said


def test_schemes_are_changed(root: Path) -> None:
    quota, age = SetQuota(scheme="reclaim", sz_bytes=MIB), SetMinAge(scheme="reclaim", min_age_us=9_000_000)
    bench = Bench(root, fake_cgroup(root), Says(quota, age))
    bench.step()
    assert bench.changed == [quota, age]


def test_what_a_controller_sees(root: Path) -> None:
    says = Says()
    bench = Bench(root, fake_cgroup(root), says)
    (bench.path / "memory.swap.max").write_text("1048576\n")
    bench.step()
    (seen,) = says.seen
    assert seen.current_bytes == 100 * MIB
    assert seen.memory is not None
    assert seen.memory.total_us == 15437
    assert seen.back_bytes == 7 * mmap.PAGESIZE
    assert seen.swap_total_bytes is not None
    assert seen.swap_total_bytes <= MIB
    assert seen.resident_bytes is None


def test_controllers_of_one_module_are_stepped_each_in_its_interval(root: Path) -> None:
    """One per 6 s asks for 1 %; the other, per 10 s, gets all that returned meanwhile."""
    refaults, pressure = RefaultController(RefaultRule(scheme="reclaim")), PressureController(PressureRule())
    bench = Bench(root, fake_cgroup(root), refaults, pressure)
    nothing = np.zeros(len(BOUNDS_S), np.int64)
    ended = np.where(np.array(BOUNDS_S) == 10, 256, nothing)
    for _ in range(30):
        bench.acts.note((), [Look(0, 0, MIB, ended, nothing, ended, 0)])
        bench.step()
    (done,) = bench.acts.done()
    assert (done.kind, done.count) == ("ReclaimBytes", 5)
    assert refaults._returned[10_000_000] == 30 * MIB


def test_a_thread_of_its_own_steps_until_it_is_to_end(root: Path) -> None:
    says = Says()
    says.interval_us = 100_000
    path = fake_cgroup(root)
    acts = Acts(
        [("reclaim", says)],
        MachineHands(Cgroup(str(path), (root,)), below=(root,)),
        now_ns=time.monotonic_ns,
        say=print,
        change=print,
    )
    acts.start()
    wait_until(lambda: len(says.seen) >= 3)
    acts.finish()
    count = len(says.seen)
    assert acts.stopped()
    assert count == len(says.seen)


def test_an_error_in_a_controller_ends_the_run(root: Path) -> None:
    class Fails(Says):
        def step(self, observations: Observations) -> tuple[Decision, ...]:
            raise ZeroDivisionError

    bench = Bench(root, fake_cgroup(root), Fails())
    bench.acts.step()
    bench.clock.now += SECOND
    bench.acts.start()

    def told() -> bool:
        try:
            bench.acts.note((), ())
        except ZeroDivisionError:
            return True
        return False

    wait_until(told)
    bench.acts.finish()


def test_a_cgroup_that_is_not_there_is_named(root: Path) -> None:
    with pytest.raises(MachineError, match="there is no such cgroup"):
        Cgroup("nowhere", (root,))


@pytest.fixture
def block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What looks like zram0 in /sys/block; it knows since when pages are idle."""
    path = tmp_path / "block" / "zram0"
    path.mkdir(parents=True)
    texts = {"backing_dev": "/dev/loop0", "writeback": "", "idle": "", "writeback_limit_enable": "0"}
    for name, text in (texts | {"writeback_limit": "7", "bd_stat": "0 0 0"}).items():
        (path / name).write_text(text)
    for module in ("hands", "left"):
        monkeypatch.setattr(f"pydamon.run.acts.{module}.Zram", lambda name: Zram(name, path.parent))
    return path


def test_writing_back_is_limited_and_the_limit_put_back(root: Path, block: Path) -> None:
    bench = Bench(root, fake_cgroup(root), Says(ZramWriteback(device="zram0", idle_age_s=60, limit_bytes=8 * MIB)))
    bench.step()
    texts = {name: (block / name).read_text() for name in ("idle", "writeback", "writeback_limit_enable")}
    assert texts == {"idle": "60", "writeback": "idle", "writeback_limit_enable": "1"}
    assert (block / "writeback_limit").read_text() == "2048"
    assert bench.acts.finish() == ["the limit of writing back of zram0 is as before"]
    assert [(block / name).read_text() for name in ("writeback_limit_enable", "writeback_limit")] == ["0", "7"]


def test_where_ages_are_not_known_idle_is_what_stays_marked(
    root: Path, block: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked: list[int | None] = []

    def mark_idle(self: Zram, age_s: int | None) -> bool:
        if age_s is None:
            marked.append(age_s)
        return age_s is None

    monkeypatch.setattr(Zram, "mark_idle", mark_idle)
    bench = Bench(root, fake_cgroup(root), Says(ZramWriteback(device="zram0", idle_age_s=5, limit_bytes=MIB)))
    bench.step(5)
    assert (len(marked), (block / "writeback").read_text()) == (1, "")  # marked after a second, 4 are over
    bench.step()
    assert (len(marked), (block / "writeback").read_text()) == (1, "idle")
    (done,) = bench.acts.done()
    assert (done.count, done.refused) == (1, 0)


def test_zram_without_a_backing_device_is_refused(root: Path, block: Path) -> None:
    (block / "backing_dev").write_text("none")
    bench = Bench(root, fake_cgroup(root), Says(ZramWriteback(device="zram0")))
    bench.step()
    assert bench.acts.done()[0].refusal == f"{block}: has no backing device; it is set before the size"


def test_compaction_is_asked_for_at_most_every_five_seconds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("pydamon.linux.compaction.compact", lambda: asked.append(1))
    bench = Bench(root, fake_cgroup(root), Says(Compact(pieces_bytes=MIB)))
    bench.step(12)
    assert len(asked) == 3
    (done,) = bench.acts.done()
    assert (done.kind, done.count, done.bounded) == ("Compact", 3, 9)


def test_goals_of_controllers_can_be_given_another_value(root: Path) -> None:
    (loop,) = parse("autoscale").controllers("physical")
    bench = Bench(root, fake_cgroup(root), loop, Says())
    assert bench.acts.goals() == ["target"]
    bench.acts.set_goal("target", 512 * MIB)
    assert getattr(loop, "target_bytes", None) == 512 * MIB
