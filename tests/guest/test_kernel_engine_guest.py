"""The engine ``kernel`` against the real DAMON of the lab's kernel: records, schemes, tuning, whose kdamond it is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.helpers.command import pydamon
from tests.helpers.kernel_engine import run, spec_of
from tests.helpers.kernel_files import kernel_files
from tests.helpers.memory import swap_bytes
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

from pydamon.engines.kernel import modules
from pydamon.errors import MachineError, RequestError
from pydamon.linux.damon_sysfs import Roots, Tree, find_occupants
from pydamon.run.kernel import kernel_status, open_kernel_engine, status_lines
from pydamon.spec import Intervals, NrRegions, from_builtins

pytestmark = pytest.mark.guest

MIB = 1 << 20
# Sweeps more memory than the emulated TLB keeps, without pause (lab/README.md: an access can leave no trace).
SWEEPER = """
import ctypes, mmap, sys
area = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
print(ctypes.addressof(ctypes.c_char.from_buffer(area)), flush=True)
while True:
    for at in range(0, len(area), 4096):
        area[at] = 1
"""
COLD = 'import time\nheld = bytearray(64 << 20)\nprint("ready", flush=True)\ntime.sleep(1000)'


@pytest.fixture
def sweeper() -> Iterator[tuple[int, int]]:
    """(pid, address) of a process that writes to 32 MiB all the time."""
    child = subprocess.Popen([sys.executable, "-c", SWEEPER, str(32 * MIB)], stdout=subprocess.PIPE)
    assert child.stdout
    yield child.pid, int(child.stdout.readline())
    child.kill()
    child.communicate()


@pytest.fixture(autouse=True)
def _left_as_found() -> Iterator[None]:
    assert find_occupants(Roots()) == []
    yield
    assert find_occupants(Roots()) == []
    assert os.listdir("/sys/kernel/tracing/instances") == []


def hot_bytes(snapshot: Any, address: int) -> int:
    """Bytes of the sweeper's memory in regions that were found accessed."""
    low, high = address, address + 32 * MIB
    return sum(
        max(0, min(end, high) - max(start, low))
        for start, end, nr in zip(snapshot.start.tolist(), snapshot.end.tolist(), snapshot.nr_accesses, strict=True)
        if nr
    )


@pytest.mark.parametrize("results", ["trace", "tried"])
def test_the_memory_that_a_process_sweeps_is_found(sweeper: tuple[int, int], results: Any) -> None:
    pid, address = sweeper
    engine = open_kernel_engine(spec_of([pid]), results=results)
    wanted = 30 if results == "trace" else 8  # four files a region, in a tenth of a slow machine's time
    found = run(engine, wanted, seconds=120)
    assert engine.choice.name == {"trace": "damon_aggregated", "tried": "tried_regions"}[results]
    assert len(found) >= wanted
    assert max(hot_bytes(snapshot, address) for snapshot in found[wanted // 3 :]) > 16 * MIB
    last = found[-1]
    assert last.max_nr_accesses == 20
    assert (last.nr_accesses <= 20).all()
    assert 10 <= len(last.start) <= 1000
    assert (last.start[1:] >= last.end[:-1]).all()
    assert all(a.end_ns <= b.end_ns for a, b in pairwise(found))
    assert all(a.start_ns < a.end_ns for a in found)
    if results == "trace":  # every aggregation: one begins where the last ended
        assert all(a.end_ns == b.start_ns for a, b in pairwise(found))
        assert engine.remarks() == []
    assert engine.cost().check_ns > 0


def test_two_processes_are_told_apart_by_the_tried_regions(sweeper: tuple[int, int]) -> None:
    pid, address = sweeper
    engine = open_kernel_engine(spec_of([os.getpid(), pid]), results="tried")
    engine.end_ns = engine.clock.now_ns() + 60_000_000_000
    found = 0
    for group in engine.monitor():
        assert tuple(snapshot.target for snapshot in group) == (0, 1)
        found = hot_bytes(group[1], address)
        if found:
            engine.stop()
    assert found
    own = {m.start for m in engine.mappings(0)} or {0}
    assert len(own) > 0


def test_physical_memory_is_recorded_with_a_scheme_and_its_statistics(sweeper: tuple[int, int]) -> None:
    scheme = {"action": "stat", "access_pattern": {"nr_accesses": {"min": "1 samples", "max": "max"}}, "name": "hot"}
    spec = spec_of([], "paddr", intervals={"sample_us": "20ms", "aggr_us": "400ms"}, schemes=[scheme])
    engine = open_kernel_engine(spec, results="trace")
    found = run(engine, 1000, seconds=12)
    total = int((found[-1].end - found[-1].start).sum())
    assert total > 1 << 30  # the guest has 3 GiB
    (state,) = engine.schemes()
    assert state.stats.nr_tried > 0
    assert state.stats.sz_tried > MIB
    assert state.stats.sz_applied == 0  # stat applies nothing
    assert state.stats.nr_snapshots > 0  # on a kernel that does not count them: how often we have looked
    assert sum(len(tried.start) for tried in state.tried) > 0
    assert all((tried.nr_accesses >= 1).all() for tried in state.tried)


def test_a_pageout_scheme_pages_out_under_its_quota(sweeper: tuple[int, int]) -> None:
    scheme = {
        "action": "pageout",
        "access_pattern": {"nr_accesses": {"min": 0, "max": 0}, "age": {"min": "500ms", "max": "max"}},
        "quotas": {"sz_bytes": "8M", "reset_interval_ms": "1s"},
    }
    with program(COLD) as cold:
        engine = open_kernel_engine(spec_of([cold], schemes=[scheme]))
        engine.end_ns = engine.clock.now_ns() + 60_000_000_000
        swapped, began = 0, time.monotonic()
        for _ in engine.monitor():
            swapped = swap_bytes(cold)
            if swapped > 16 * MIB and engine.schemes()[0].stats.qt_exceeds:
                engine.stop()
        windows = time.monotonic() - began + 2
        (state,) = engine.schemes()
    assert swapped > 16 * MIB
    assert state.stats.qt_exceeds > 0
    assert state.quota.esz == 8 * MIB
    assert state.stats.sz_applied <= windows * 8 * MIB


def test_tuning_a_running_kdamond_keeps_it_running(sweeper: tuple[int, int]) -> None:
    knows_temporal = "schemes/0/quotas/goal_tuner" in kernel_files()
    engine = open_kernel_engine(spec_of([sweeper[0]]))
    engine.end_ns = engine.clock.now_ns() + 60_000_000_000
    found = []
    for snapshots in engine.monitor():
        found.append(snapshots[0])
        if len(found) == 10:
            pid = Tree(Roots().damon).read("kdamonds/0/pid")
            scheme = from_builtins(
                {"kdamonds": [{"contexts": [{"targets": [{"pid": 1}], "schemes": [{"action": "stat"}]}]}]}
            )
            changed = replace(
                engine.context,
                intervals=Intervals(sample_us=10_000, aggr_us=100_000),
                nr_regions=NrRegions(min=20, max=200),
                schemes=scheme.kdamonds[0].contexts[0].schemes,
            )
            engine.commit(changed)
            temporal = replace(changed, schemes=_with_temporal_goals())
            if knows_temporal:
                engine.commit(temporal)
                tuner = "kdamonds/0/contexts/0/schemes/0/quotas/goal_tuner"
                assert Tree(Roots().damon).read(tuner) == "temporal"
                engine.commit(changed)
            else:
                with pytest.raises(MachineError, match=r"schemes\[0\]\.quotas\.goal_tuner.*7\.1"):
                    engine.commit(temporal)
            assert Tree(Roots().damon).read("kdamonds/0/pid") == pid
        if len(found) == 40:
            engine.stop()
    assert (found[0].sample_us, found[0].aggr_us) == (5_000, 100_000)
    assert (found[-1].sample_us, found[-1].aggr_us) == (10_000, 100_000)
    assert 20 <= len(found[-1].start) <= 200
    assert found[-1].nr_accesses.max() <= 10
    assert engine.schemes()[0].stats.nr_tried > 0


def _with_temporal_goals() -> Any:
    goal = {"metric": "user_input", "target_value": 100}
    scheme = {"action": "cold", "quotas": {"goals": [goal], "goal_tuner": "temporal"}}
    return spec_of([1], schemes=[scheme]).kdamonds[0].contexts[0].schemes


def test_a_goal_gets_its_value_while_it_runs(sweeper: tuple[int, int]) -> None:
    goal = {"metric": "user_input", "target_value": 1000, "name": "slowness"}
    scheme = {"action": "stat", "quotas": {"sz_bytes": "16M", "goals": [goal]}}
    engine = open_kernel_engine(spec_of([sweeper[0]], schemes=[scheme]))
    engine.end_ns = engine.clock.now_ns() + 6_000_000_000
    for number, _ in enumerate(engine.monitor()):
        if number == 3:
            engine.set_goal("slowness", 900)
            current = "kdamonds/0/contexts/0/schemes/0/quotas/goals/0/current_value"
            assert Tree(Roots().damon).read(current) == "900"


@pytest.mark.parametrize(
    ("file", "ops", "context", "message"),
    [
        (
            "monitoring_attrs/intervals/intervals_goal/access_bp",
            "vaddr",
            {"intervals": {"intervals_goal": {}}},
            r"intervals\.intervals_goal: .*6\.15.*nearest: fixed intervals",
        ),
        (
            "schemes/0/filters/0/allow",
            "paddr",
            {"schemes": [{"action": "stat", "filters": [{"filter_type": "anon", "matching": True, "allow": True}]}]},
            r"schemes\[0\]\.filters\[0\]\.allow: .*6\.14",
        ),
        (
            "action=collapse",
            "vaddr",
            {"schemes": [{"action": "collapse"}]},
            r"schemes\[0\]\.action: .*knows no 'collapse'.*hugepage",
        ),
        (
            "monitoring_attrs/probes/nr_probes",
            "paddr",
            {"probes": [{"filters": [{"filter_type": "anon", "matching": True, "allow": True}]}]},
            r"probes: .*7\.2.*nearest: the user engine",
        ),
    ],
    ids=["intervals_goal", "allow", "collapse", "probes"],
)
def test_what_this_kernel_lacks_is_named_with_the_nearest_and_what_it_has_is_taken(
    sweeper: tuple[int, int], file: str, ops: str, context: dict[str, Any], message: str
) -> None:
    spec = spec_of([] if ops == "paddr" else [sweeper[0]], ops, **context)
    if file in kernel_files():
        assert run(open_kernel_engine(spec), 2)
        return
    with pytest.raises(MachineError, match=message):
        open_kernel_engine(spec)


def test_an_action_that_the_operations_set_has_not_is_refused(sweeper: tuple[int, int]) -> None:
    with pytest.raises(RequestError, match=r"schemes\[0\]\.action: is lru_prio; with vaddr"):
        open_kernel_engine(spec_of([sweeper[0]], schemes=[{"action": "lru_prio"}]))


def test_the_end_of_the_process_ends_the_monitoring(sweeper: tuple[int, int]) -> None:
    engine = open_kernel_engine(spec_of([sweeper[0]]))
    threading.Timer(4, os.kill, (sweeper[0], signal.SIGKILL)).start()
    began = time.monotonic()
    assert list(engine.monitor())
    assert time.monotonic() - began < 60
    assert not engine.stop_requested


def test_somebody_elses_kdamond_is_shown_and_left_alone(sweeper: tuple[int, int]) -> None:
    pid, _ = sweeper
    tree = Tree(Roots().damon)
    tree.write("kdamonds/nr_kdamonds", 1)
    try:
        tree.write("kdamonds/0/contexts/nr_contexts", 1)
        tree.write("kdamonds/0/contexts/0/operations", "vaddr")
        tree.write("kdamonds/0/contexts/0/targets/nr_targets", 1)
        tree.write("kdamonds/0/contexts/0/targets/0/pid_target", pid)
        tree.write("kdamonds/0/state", "on")
        before = dict(tree.settings())
        with pytest.raises(MachineError, match=rf"left alone: kdamond 0 \(pid \d+; vaddr; target pid {pid}\)"):
            open_kernel_engine(spec_of([pid]))
        assert dict(tree.settings()) == before
        assert tree.read("kdamonds/0/state") == "on"
        assert f"ops vaddr, target pid {pid}" in status_lines(kernel_status())[0]
    finally:
        tree.write("kdamonds/0/state", "off")
        tree.write("kdamonds/nr_kdamonds", 0)


def test_a_module_that_runs_is_somebody_elses() -> None:
    enabled = Path("/sys/module/damon_reclaim/parameters/enabled")
    enabled.write_text("Y")
    try:
        with pytest.raises(MachineError, match=r"left alone: module damon_reclaim \(pid \d+\)"):
            open_kernel_engine(spec_of([], "paddr"))
    finally:
        enabled.write_text("N")


KILLED = """
import json, os, sys
from pydamon.run.kernel import open_kernel_engine
from pydamon.spec import from_builtins
engine = open_kernel_engine(from_builtins(json.loads(sys.argv[1])))
for number, _ in enumerate(engine.monitor()):
    if number == 3:
        os.kill(os.getpid(), 9)
"""


def test_what_a_killed_pydamon_left_is_ended_by_the_next(sweeper: tuple[int, int]) -> None:
    pid, _ = sweeper
    request = {"kdamonds": [{"contexts": [{"ops": "vaddr", "targets": [{"pid": pid}]}]}]}
    killed = subprocess.run([sys.executable, "-c", KILLED, json.dumps(request)], check=False, timeout=120)
    assert killed.returncode == -9
    (left,) = find_occupants(Roots())
    assert left.state == "on"  # it goes on without anybody
    assert len(os.listdir("/sys/kernel/tracing/instances")) == 1
    engine = open_kernel_engine(spec_of([pid]))
    assert run(engine, 3)


def test_a_kdamond_that_only_looks_like_a_killed_ones_is_left_alone(sweeper: tuple[int, int]) -> None:
    pid, _ = sweeper
    request = {"kdamonds": [{"contexts": [{"ops": "vaddr", "targets": [{"pid": pid}]}]}]}
    subprocess.run([sys.executable, "-c", KILLED, json.dumps(request)], check=False, timeout=120)
    tree = Tree(Roots().damon)
    tree.write("kdamonds/0/state", "off")
    tree.write("kdamonds/0/contexts/0/monitoring_attrs/nr_regions/max", 77)
    tree.write("kdamonds/0/state", "on")
    try:
        with pytest.raises(MachineError, match="somebody else, and left alone"):
            open_kernel_engine(spec_of([pid]))
        assert tree.read("kdamonds/0/state") == "on"
    finally:
        tree.write("kdamonds/0/state", "off")
        tree.write("kdamonds/nr_kdamonds", 0)
        for instance in Path("/sys/kernel/tracing/instances").iterdir():
            instance.rmdir()


# -- the command ------------------------------------------------------------------------------------------------------


def test_record_with_the_kernel_and_trace_it_as_text(sweeper: tuple[int, int], tmp_path: Path) -> None:
    pid, _ = sweeper
    out = str(tmp_path / "kernel.damon")
    scheme = ["--scheme", "stat size>=4K rate>=5%"]
    done = pydamon("record", "--engine", "kernel", "-o", out, "--duration", "8s", *scheme, str(pid))
    print(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "through damon_aggregated: the kernel's DAMON, every aggregation traced" in done.stderr
    assert "in the kernel's kdamond" in done.stderr
    shown = pydamon("report", "access", "-i", out, "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout.splitlines()[0])["regions"]
    text = pydamon("trace", "-i", out, "-e", "all").stdout.splitlines()
    events = {line.split()[4] for line in text}
    assert events >= {
        "damon:damon_aggregated:",
        "damon:damos_before_apply:",
        "damon:damos_stat_after_apply_interval:",
    }


def test_what_schemes_are_tried_on_is_traced_as_the_kernel_prints_it(sweeper: tuple[int, int]) -> None:
    tracing = Path("/sys/kernel/tracing")
    event = tracing / "events/damon/damos_before_apply"
    if not event.exists():
        pytest.skip("this kernel has no such event")
    (tracing / "trace").write_text("")
    (event / "enable").write_text("1")
    try:
        scheme = "stat size>=4K rate=0% every=500ms"
        done = pydamon(
            "trace", "--engine", "kernel", "--duration", "5s", "-e", "all", "--scheme", scheme, str(sweeper[0])
        )
    finally:
        (event / "enable").write_text("0")
    assert done.returncode == 0, done.stderr
    printed = re.findall(r"damos_before_apply: (.+)", (tracing / "trace").read_text())
    lines = done.stdout.splitlines()
    ours = [line.partition("damos_before_apply: ")[2] for line in lines if "damos_before_apply" in line]
    assert len(ours) >= 5
    assert ours == printed
    times = [float(line.split()[3].rstrip(":")) for line in lines]
    assert times == sorted(times)
    # Events that came with later kernels are named.
    later = [name for name in ("damos_esz", "damos_stat_after_apply_interval") if not (event.parent / name).exists()]
    assert (f"{', '.join(later)}: not printed; this kernel's DAMON does not have it" in done.stderr) == bool(later)


def test_record_physical_memory_with_the_kernel(tmp_path: Path) -> None:
    out = str(tmp_path / "kernel.damon")
    done = pydamon("record", "--engine", "auto", "--ops", "paddr", "-o", out, "--duration", "4s", "--min-regions", "50")
    assert done.returncode == 0, done.stderr
    assert "monitoring physical memory through damon_aggregated" in done.stderr
    assert "free, and costs least" in done.stderr
    text = pydamon("trace", "-i", out).stdout
    assert text.count("damon:damon_aggregated: target_id=0") >= 50


def test_start_tune_status_and_stop_with_the_kernel(sweeper: tuple[int, int]) -> None:
    pid, _ = sweeper
    started = pydamon("start", "--engine", "kernel", "--name", "k", "--scheme", "stat size>=4K", str(pid))
    assert started.returncode == 0, started.stderr
    try:
        (occupant,) = find_occupants(Roots())
        assert occupant.targets == (f"pid {pid}",)
        refused = pydamon("record", "--engine", "kernel", "-o", "/tmp/refused.damon", str(pid))
        assert refused.returncode == 3
        assert "is in use by pydamon (pid " in refused.stderr
        tuned = pydamon("tune", "k", "--sample", "10ms", "--aggr", "200ms", "--max-regions", "99")
        assert tuned.returncode == 0, tuned.stderr
        assert Tree(Roots().damon).read("kdamonds/0/contexts/0/monitoring_attrs/nr_regions/max") == "99"

        def status_now() -> dict[str, Any]:
            return json.loads(pydamon("status", "k", "--json").stdout)["kdamonds"][0]

        wait_until(lambda: status_now()["schemes"][0]["stats"]["nr_tried"] > 0)
        status = status_now()
        assert (status["engine"], status["primitive"]) == ("kernel", "damon_aggregated")
        assert status["snapshots"] > 0
        assert status["intervals"]["aggr_us"] == 200_000
        assert status["schemes"][0]["stats"]["nr_tried"] > 0
        assert status["cost"]["kdamond_cpu_ns"] > 0
    finally:
        stopped = pydamon("stop", "k")
    assert stopped.returncode == 0, stopped.stderr
    assert "in the kernel's kdamond" in stopped.stdout


def test_reclaim_is_set_started_and_stopped(tmp_path: Path) -> None:
    own = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        values = {"min_age": 30_000_000, "quota_sz": 1 << 20}
        thread = modules.start("damon_reclaim", values, directory_fd=own)
        (occupant,) = find_occupants(Roots())
        assert (occupant.what, occupant.thread) == ("module damon_reclaim", thread)
        assert dict(occupant.detail)["min_age"] == "30000000"
        modules.tune("damon_reclaim", {"quota_sz": 2 << 20}, directory_fd=own)
        assert Tree(f"{Roots().modules}/damon_reclaim/parameters").read_int("quota_sz") == 2 << 20
        with pytest.raises(RequestError, match=r"damon_reclaim\.min_age: '-1' is refused"):
            modules.tune("damon_reclaim", {"min_age": -1}, directory_fd=own)
        modules.stop("damon_reclaim", directory_fd=own)
        assert find_occupants(Roots()) == []
    finally:
        os.close(own)


def test_a_spec_for_reclaim_on_the_command_line(tmp_path: Path) -> None:
    spec = tmp_path / "reclaim.yaml"
    spec.write_text("modules:\n  damon_reclaim:\n    min_age: 30s\n    quota_sz: 1 MiB\n")
    assert pydamon("start", "--spec", str(spec)).returncode == 2
    started = pydamon("start", "--engine", "auto", "--spec", str(spec))
    assert started.returncode == 0, started.stderr
    parameters = Tree(f"{Roots().modules}/damon_reclaim/parameters")
    try:
        assert (parameters.read_int("min_age"), parameters.read_int("quota_sz")) == (30_000_000, 1 << 20)
        assert "module damon_reclaim: on, started by pydamon" in pydamon("status").stdout
        refused = pydamon("record", "--engine", "kernel", "--ops", "paddr", "-o", str(tmp_path / "x.damon"))
        assert (refused.returncode, "left alone: module damon_reclaim" in refused.stderr) == (3, True)
        spec.write_text("modules:\n  damon_reclaim:\n    quota_sz: 2 MiB\n")
        assert pydamon("tune", "damon_reclaim", "--spec", str(spec)).returncode == 0
        assert parameters.read_int("quota_sz") == 2 << 20
    finally:
        stopped = pydamon("stop", "damon_reclaim")
    assert stopped.returncode == 0, stopped.stderr
    assert find_occupants(Roots()) == []
