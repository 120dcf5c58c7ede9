"""The contract of engines (`engines.base`): the same assertions over all that there are."""

from __future__ import annotations

import inspect
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from msgspec.structs import replace
from tests.helpers.waiting import GENEROUS_S
from tests.unit.engines.kernel_fake import FakeTree

from pydamon.core.callbacks import Callbacks, Loop
from pydamon.engines.base import Engine
from pydamon.engines.clock import MachineClock, PacedClock
from pydamon.engines.kernel.engine import KernelEngine
from pydamon.engines.reported import ReportedEngine
from pydamon.engines.sim import SimEngine
from pydamon.engines.user.engine import UserEngine
from pydamon.errors import RequestError
from pydamon.linux.damon_sysfs import Roots, find_occupants
from pydamon.linux.damon_trace import OF_SCHEMES, STAT
from pydamon.ops.reported.sources.valgrind import open_trace
from pydamon.spec import Context, Intervals, Kdamond, NrRegions, Scheme, Spec, Target
from pydamon.spec.schemes import Goal, Quotas
from pydamon.workload.builtin import load

INTERVALS = Intervals(sample_us=1_000, aggr_us=10_000, ops_update_us=100_000)
PAGE = 4096


class Open(Protocol):
    """Makes an engine; what it monitors goes on for long."""

    def __call__(self, callbacks: Callbacks | None = None, **context: Any) -> Engine: ...


@dataclass
class Kind:
    """A kind of engine: how one is made, and whether nothing of it is left."""

    name: str
    open: Open
    left: Callable[[], object]


def _spec(ops: Any, target: Target, **context: Any) -> Spec:
    given: dict[str, Any] = {"ops": ops, "targets": (target,), "intervals": INTERVALS} | context
    return Spec(kdamonds=(Kdamond(contexts=(Context(**given),)),))


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _trace(path: Path) -> str:
    """Accesses to 64 pages, one after the other, for long."""
    lines = "".join(f" L {0x5000000 + page * PAGE:08x},8\nI  00400000,4\n" for page in range(64))
    path.write_text(lines * 5_000)
    return str(path)


@pytest.fixture
def sleeper(processes: None) -> Iterator[int]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture(params=["user", "sim", "reported", "kernel"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, sleeper: int, roots: Roots, own: int) -> Kind:
    if request.param == "user":

        def user(callbacks: Callbacks | None = None, **context: Any) -> Engine:
            return UserEngine(_spec("vaddr", Target(pid=sleeper), primitive="smaps", **context), callbacks=callbacks)

        before = _descriptors()
        return Kind("user", user, lambda: _descriptors() - before)
    if request.param == "sim":

        def sim(callbacks: Callbacks | None = None, **context: Any) -> Engine:
            clock = PacedClock(MachineClock())
            return SimEngine(_spec("sim", Target(), **context), load("stairs"), callbacks=callbacks, clock=clock)

        return Kind("sim", sim, list)
    if request.param == "reported":
        path = _trace(tmp_path / "trace")

        def reported(callbacks: Callbacks | None = None, **context: Any) -> Engine:
            source = open_trace(path, ns_per_instruction=10_000)
            return ReportedEngine(_spec("reported", Target(), **context), source, seed=1, callbacks=callbacks)

        before = _descriptors()
        return Kind("reported", reported, lambda: _descriptors() - before)
    tree = FakeTree(roots)

    def kernel(callbacks: Callbacks | None = None, **context: Any) -> Engine:
        spec = _spec("vaddr", Target(pid=sleeper), **context)
        return KernelEngine(spec, directory_fd=own, roots=roots, tree=tree, callbacks=callbacks)

    return Kind("kernel", kernel, lambda: find_occupants(roots))


def members() -> list[str]:
    """What the contract has."""
    return sorted(name for name in {*vars(Engine), *Engine.__annotations__} if not name.startswith("_"))


def test_every_member_is_there_and_no_engine_inherits_from_another(kind: Kind) -> None:
    engine = kind.open()
    for name in members():
        assert hasattr(engine, name), name
        if callable(vars(Engine).get(name)):
            wanted = list(inspect.signature(getattr(Engine, name)).parameters)
            assert ["self", *inspect.signature(getattr(engine, name)).parameters] == wanted, name
    engines = {UserEngine, SimEngine, ReportedEngine, KernelEngine}
    assert not engines.intersection(type(engine).__mro__[1:])
    assert engine.kind == kind.name
    engine.close()


def test_it_is_given_back_once_also_if_it_never_ran(kind: Kind) -> None:
    engine = kind.open()
    engine.close()
    engine.close()
    assert not kind.left()
    assert list(engine.monitor()) == []
    assert not kind.left()


def test_snapshots_come_until_it_is_stopped(kind: Kind) -> None:
    engine = kind.open()
    for number, snapshots in enumerate(engine.monitor()):
        assert [snapshot.target for snapshot in snapshots] == [0]
        assert snapshots is engine.kdamond.snapshots
        assert engine.kdamond.targets == [0]
        assert engine.living().keys() == {0}
        assert isinstance(engine.mappings(0), list)
        assert not engine.stop_requested
        if number == 2:
            break
    engine.stop()
    assert engine.stop_requested
    engine.close()
    assert not kind.left()


def test_it_ends_when_its_time_is_over(kind: Kind) -> None:
    engine = kind.open()
    first = True
    for _ in engine.monitor():
        if first:
            engine.end_ns = engine.clock.now_ns() + 50_000_000
            first = False
    assert engine.end_ns is not None
    assert engine.stop_requested
    assert not kind.left()


def test_a_stop_from_another_thread_ends_it(kind: Kind) -> None:
    engine = kind.open()
    began = time.monotonic()
    stopper = threading.Thread(target=engine.stop)
    for number, _ in enumerate(engine.monitor()):
        if number == 0:
            stopper.start()
    assert time.monotonic() - began < GENEROUS_S
    stopper.join()  # a trace may have come to its end before
    assert engine.stop_requested
    assert not kind.left()


def test_who_is_monitored_is_told_once(kind: Kind) -> None:
    engine = kind.open()
    (row,) = engine.joined()
    assert row["target"] == 0
    assert {"pid", "command"} & row.keys()
    assert engine.joined() == []
    assert engine.nr_targets == 1
    assert engine.living().keys() == {0}
    pid = engine.living()[0]
    assert pid is None or pid == row["pid"]
    engine.close()


def test_what_there_is_to_tell_is_lists_of_lines(kind: Kind) -> None:
    engine = kind.open()
    for snapshots in engine.monitor():
        assert engine.side_rows(snapshots) == {}
        assert engine.plans() == []
        assert all(isinstance(line, str) for line in engine.notices())
        engine.stop()
    assert all(isinstance(line, str) for line in engine.remarks())
    assert engine.fate() == "the target ended"
    cost = engine.cost()
    assert (cost is None) == (kind.name in ("sim", "reported"))
    if cost is not None:
        assert cost.check_ns > 0
        assert (cost.kdamond_ns is not None) == (kind.name == "kernel")
    assert (engine.reports is None) == (kind.name != "reported")


def test_a_commit_takes_effect_as_a_whole(kind: Kind) -> None:
    engine = kind.open(schemes=(Scheme(action="stat", name="first"),))
    wanted, seen = None, []
    for number, _ in enumerate(engine.monitor()):
        seen.append(engine.context)
        if number == 1:
            wanted = replace(
                engine.asked,
                intervals=Intervals(sample_us=2_000, aggr_us=20_000, ops_update_us=100_000),
                nr_regions=NrRegions(min=5, max=50),
                schemes=(Scheme(action="stat", name="second"),),
            )
            engine.commit(wanted)
            assert engine.asked == replace(wanted, faithful=engine.context.faithful)
        if number > 1 and not engine.commit_pending:
            break
    assert wanted is not None
    assert engine.context.intervals == wanted.intervals
    assert engine.context.nr_regions == wanted.nr_regions
    assert [state.scheme.name for state in engine.schemes()] == ["second"]
    # Either all of the one or all of the other.
    assert {(c.intervals.aggr_us, c.nr_regions.max, c.schemes[0].name) for c in [*seen, engine.context]} == {
        (10_000, 1000, "first"),
        (20_000, 50, "second"),
    }
    engine.close()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"targets": (Target(pid=1),)}, "targets"),
        ({"nr_regions": NrRegions(min=5, max=2)}, "nr_regions"),
        ({"intervals": Intervals(sample_us=0, aggr_us=1)}, "intervals.sample_us"),
    ],
)
def test_a_commit_that_is_refused_changes_nothing(kind: Kind, change: dict[str, Any], where: str) -> None:
    engine = kind.open()
    next(monitor := engine.monitor())
    before, ops = engine.context, engine.context.ops
    with pytest.raises(RequestError) as caught:
        engine.commit(replace(before, **({"nr_regions": NrRegions(min=7, max=70)} | change)))
    assert (caught.value.where or "").startswith(where)
    other = "paddr" if ops != "paddr" else "vaddr"
    with pytest.raises(RequestError) as caught:
        engine.commit(replace(before, ops=other))
    assert caught.value.where == "ops"
    assert engine.context == before
    assert not engine.commit_pending
    engine.stop()
    for _ in monitor:
        assert engine.context == before


def test_a_bound_on_the_cpu_time_is_kept_or_refused(kind: Kind) -> None:
    engine = kind.open()
    next(monitor := engine.monitor())
    if kind.name == "user":
        engine.bound_cpu(1e-6)  # so little that nothing is left but the longest interval
        intervals = engine.context.intervals
        assert any(engine.context.intervals.sample_us > 2 * intervals.sample_us for _ in monitor)
    else:
        with pytest.raises(RequestError, match="monitoring") as caught:
            engine.bound_cpu(0.01)
        assert caught.value.where == "max_cpu"
    engine.stop()
    for _ in monitor:
        pass


def test_goals_get_their_values(kind: Kind) -> None:
    engine = kind.open()
    assert engine.schemes() == []
    with pytest.raises(RequestError, match="there is no such goal"):
        engine.set_goal("latency", 3)
    engine.close()
    goal = Goal(metric="user_input", target_value=100, name="latency")
    engine = kind.open(schemes=(Scheme(action="stat", quotas=Quotas(sz_bytes=1 << 20, goals=(goal,))),))
    for number, _ in enumerate(engine.monitor()):
        if number == 0:
            engine.set_goal("latency", 90)
            with pytest.raises(RequestError, match="there are: latency"):
                engine.set_goal("speed", 1)
            engine.stop()
    (state,) = engine.schemes()
    assert state.goals[0].current_value == 90


def test_events_of_schemes_are_told_or_said_not_to_be_had(kind: Kind) -> None:
    engine = kind.open(schemes=(Scheme(action="stat"),))
    told: list[tuple[str, dict[str, Any]]] = []
    missing = engine.follow(OF_SCHEMES, lambda event, time_ns, **values: told.append((event, values)))
    assert engine.follow((), lambda event, time_ns, **values: None) == []
    for number, _ in enumerate(engine.monitor()):
        if number == 3:
            engine.stop()
    if kind.name == "kernel":  # there is no tracefs
        assert sorted(missing) == sorted(OF_SCHEMES)
        assert told == []
    else:
        assert missing == []
        assert {"stats", "scheme"} == next(values for event, values in told if event == STAT).keys()


def test_callbacks_see_the_loop(kind: Kind) -> None:
    called: list[str] = []

    def note(name: str) -> Callable[[Loop], object]:
        def called_back(loop: Loop) -> bool:
            assert len(loop.targets) == 1
            assert loop.intervals == loop.context.intervals == INTERVALS
            assert loop.nr_regions == loop.context.nr_regions
            assert loop.clock.now_ns() > 0 or name == "start"
            called.append(name)
            return name == "aggregated"

        return called_back

    callbacks = Callbacks(
        before_start=note("start"), after_aggregation=note("aggregated"), before_terminate=note("end")
    )
    engine = kind.open(callbacks)
    assert len(list(engine.monitor())) >= 1  # one that returned something true ended it
    assert called[:2] == ["start", "aggregated"]
    assert "end" in called
    assert engine.stop_requested


def test_what_cannot_be_undone_is_said(kind: Kind) -> None:
    said: list[str] = []
    scheme = Scheme(action="stat")

    def end(loop: Loop) -> None:
        said.extend(engine.undo([scheme]))

    engine = kind.open(Callbacks(before_terminate=end), schemes=(scheme,))
    for _ in engine.monitor():
        engine.stop()
    assert len(said) == 1
    assert said[0].startswith("nothing: ")


def test_another_engine_of_its_kind_can_go_on(kind: Kind) -> None:
    scheme = Scheme(action="stat", name="mine")
    first = kind.open(schemes=(scheme,))
    for number, _ in enumerate(first.monitor()):
        if number == 2:
            first.stop()
    passes = first.schemes()[0].stats.nr_snapshots
    handed = first.handover()

    second = kind.open(Callbacks(before_start=lambda loop: second.take_over(handed)), schemes=(scheme,))
    for _ in second.monitor():
        second.stop()
    (state,) = second.schemes()
    if kind.name == "kernel":  # it begins anew
        assert handed.schemes == []
    else:
        assert state is first.schemes()[0]
        assert state.stats.nr_snapshots >= passes
    assert (len(handed.regions) == 1) == (kind.name == "user")
