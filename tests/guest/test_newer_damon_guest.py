"""The engine ``kernel`` on what newer kernels' DAMON has: tuned intervals, probes, tuners of quotas, damon_stat.

Each test looks for the files that it is about, and is skipped on a kernel without them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.helpers.command import pydamon
from tests.helpers.kernel_engine import run, spec_of
from tests.helpers.kernel_files import need_file
from tests.helpers.programs import program
from tests.helpers.waiting import wait_until

from pydamon.engines.kernel import modules
from pydamon.linux.damon_sysfs import Roots, Tree, find_occupants
from pydamon.run.kernel import open_kernel_engine

pytestmark = pytest.mark.guest

MIB = 1 << 20
PROBES = "monitoring_attrs/probes/nr_probes"
ANON = {"filter_type": "anon", "matching": True, "allow": True}
# Writes to 32 MiB all the time; 64 MiB more are filled once.
PROGRAM = """
import mmap, os
area = mmap.mmap(-1, 32 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
cold = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
cold.write(os.urandom(1 << 20) * 64)
print("ready", flush=True)
while True:
    for at in range(0, len(area), 4096):
        area[at] = 1
"""


@pytest.fixture(name="pid")
def pid_fixture() -> Iterator[int]:
    """A process with hot and cold memory."""
    with program(PROGRAM) as pid:
        yield pid


@pytest.fixture(autouse=True)
def _left_as_found() -> Iterator[None]:
    assert find_occupants(Roots()) == []
    yield
    assert find_occupants(Roots()) == []


@pytest.mark.parametrize("results", ["trace", "tried"])
def test_tuned_intervals_are_followed(pid: int, results: Any) -> None:
    need_file("monitoring_attrs/intervals/intervals_goal/access_bp")
    goal = {"access_bp": 400, "aggrs": 2, "min_sample_us": 5_000, "max_sample_us": 400_000}
    engine = open_kernel_engine(spec_of([pid], intervals={"intervals_goal": goal}), results=results)
    engine.end_ns = engine.clock.now_ns() + 60_000_000_000
    seen = set()
    for group in engine.monitor():
        last = group[0]
        seen.add(last.sample_us)
        assert last.max_nr_accesses == 20
        assert (last.nr_accesses <= 20).all()
        if len(seen) >= 3:
            engine.stop()
    assert len(seen) >= 3
    # What runs may be ahead of the last snapshot: it was aggregated before the intervals were tuned again.
    assert engine.context.intervals.sample_us != 5_000
    assert all(5_000 <= sample_us <= 400_000 for sample_us in seen)


def test_probes_tell_anonymous_memory_from_files(pid: int) -> None:
    """Most of the guest's used memory is page cache or free; this process' is anonymous."""
    need_file(PROBES)
    probes = [{"filters": [ANON]}, {"filters": [{"filter_type": "anon", "matching": False, "allow": True}]}]
    intervals = {"sample_us": "20ms", "aggr_us": "400ms"}
    engine = open_kernel_engine(spec_of([], "paddr", probes=probes, intervals=intervals))
    assert engine.choice.name == "tried_regions"
    found = run(engine, 8)
    assert len(found) == 8
    for snapshot in found:
        assert snapshot.probe_hits.shape == (2, len(snapshot.start))
        assert (snapshot.probe_hits <= snapshot.probe_samples).all()
    hits = np.concatenate([snapshot.probe_hits for snapshot in found[2:]], axis=1).astype(int).sum(axis=1)
    assert (hits > 0).all()
    # Each sampled page has one of the two attributes.
    whole = found[-1].probe_hits.astype(int).sum(axis=0)
    assert abs(np.median(whole) - 20) <= 2


def test_probes_are_recorded_and_reported(tmp_path: Path) -> None:
    need_file(PROBES)
    out = str(tmp_path / "probes.damon")
    done = pydamon("record", "--engine", "kernel", "--ops", "paddr", "--probe", "anon", "--probe", "memcg=/", "-o", out,
                   "--duration", "5s", "--sample", "20ms", "--aggr", "400ms")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = pydamon("report", "attrs", "-i", out)
    assert report.returncode == 0, report.stderr
    assert "anon" in report.stdout


def test_a_quota_that_a_temporal_tuner_drives_ends_with_its_goal(pid: int) -> None:
    need_file("schemes/0/quotas/goal_tuner")
    goal = {"metric": "user_input", "target_value": 100, "name": "asked"}
    quotas = {"sz_bytes": "8M", "reset_interval_ms": "500ms", "goals": [goal], "goal_tuner": "temporal"}
    engine = open_kernel_engine(spec_of([pid], schemes=[{"action": "stat", "quotas": quotas}]), results="trace")
    engine.end_ns = engine.clock.now_ns() + 60_000_000_000
    reached = False
    for _ in engine.monitor():
        (state,) = engine.schemes()
        if state.stats.nr_tried and not reached:
            assert state.quota.esz == 8 * MIB
            engine.set_goal("asked", 100)
            reached = True
        if reached and state.quota.esz == 0:
            engine.stop()
    assert engine.schemes()[0].quota.esz == 0


def test_failures_are_charged_as_asked(pid: int) -> None:
    """``stat`` applies nothing: charged in full, a quota of 4 MiB is full at once; charged by 1/1024, it never is."""
    need_file("schemes/0/quotas/fail_charge_num")
    done = {}
    for denom in (0, 1024):
        quotas = {"sz_bytes": "4M", "reset_interval_ms": "1s", "fail_charge_num": 1 if denom else 0,
                  "fail_charge_denom": denom}  # fmt: skip
        engine = open_kernel_engine(spec_of([pid], schemes=[{"action": "stat", "quotas": quotas}]))
        run(engine, 10_000, seconds=6)
        done[denom] = engine.schemes()[0].stats
    assert done[0].qt_exceeds > 0
    assert done[1024].qt_exceeds == 0
    assert done[1024].sz_tried > done[0].sz_tried


def test_the_kernel_counts_snapshots_and_stops_at_the_most(pid: int) -> None:
    need_file("schemes/0/stats/max_nr_snapshots")
    engine = open_kernel_engine(spec_of([pid], schemes=[{"action": "stat", "max_nr_snapshots": 7}]))
    run(engine, 60, seconds=30)
    assert engine.schemes()[0].stats.nr_snapshots == 7


def test_hot_memory_is_collapsed(pid: int) -> None:
    need_file("action=collapse")
    scheme = {"action": "collapse", "access_pattern": {"sz_bytes": {"min": "2M", "max": "max"}}}
    engine = open_kernel_engine(spec_of([pid], schemes=[scheme]))
    engine.end_ns = engine.clock.now_ns() + 60_000_000_000
    for _ in engine.monitor():
        if huge_kib(pid) > 16 << 10:
            engine.stop()
    assert huge_kib(pid) > 16 << 10


def huge_kib(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("AnonHugePages:")[2].split()[0])


def test_memory_of_a_process_is_migrated_to_two_nodes_by_weight(pid: int) -> None:
    need_file("schemes/0/dests/nr_dests")
    scheme = {"action": "migrate_hot", "dests": [{"id": 0, "weight": 1}, {"id": 1, "weight": 3}]}
    engine = open_kernel_engine(spec_of([pid], schemes=[scheme]))
    engine.end_ns = engine.clock.now_ns() + 60_000_000_000
    for _ in engine.monitor():
        if on_node(pid, 1) > 4000:
            engine.stop()
    assert on_node(pid, 1) > 4000
    assert engine.schemes()[0].stats.sz_applied > 0


def on_node(pid: int, node: int) -> int:
    words = Path(f"/proc/{pid}/numa_maps").read_text().split()
    return sum(int(word.partition("=")[2]) for word in words if word.startswith(f"N{node}="))


# -- damon_stat -------------------------------------------------------------------------------------------------------

STAT = Path("/sys/module/damon_stat/parameters")
needs_stat = pytest.mark.skipif(not STAT.exists(), reason="this kernel has no damon_stat")


@needs_stat
def test_damon_stat_is_started_looked_at_and_stopped(tmp_path: Path) -> None:
    own = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        thread = modules.start("damon_stat", {}, directory_fd=own)
        (occupant,) = find_occupants(Roots())
        assert (occupant.what, occupant.thread) == ("module damon_stat", thread)
        assert {"estimated_memory_bandwidth", "memory_idle_ms_percentiles"} <= dict(occupant.detail).keys()
        wait_until(lambda: int((STAT / "estimated_memory_bandwidth").read_text()) > 0, every_s=0.5)
        percentiles = [int(value) for value in (STAT / "memory_idle_ms_percentiles").read_text().split(",")]
        assert len(percentiles) == 101
        assert percentiles == sorted(percentiles)
        modules.stop("damon_stat", directory_fd=own)
    finally:
        os.close(own)


@needs_stat
def test_damon_stat_on_the_command_line_is_somebodys(tmp_path: Path) -> None:
    spec = tmp_path / "stat.yaml"
    spec.write_text("modules:\n  damon_stat: {}\n")
    started = pydamon("start", "--engine", "kernel", "--spec", str(spec))
    assert started.returncode == 0, started.stderr
    try:
        assert "module damon_stat: on, started by pydamon" in pydamon("status").stdout
        refused = pydamon("record", "--engine", "kernel", "--ops", "paddr", "-o", str(tmp_path / "x.damon"))
        assert (refused.returncode, "left alone: module damon_stat" in refused.stderr) == (3, True)
    finally:
        stopped = pydamon("stop", "damon_stat")
    assert stopped.returncode == 0, stopped.stderr
    assert Tree(str(STAT)).read("enabled") == "N"
