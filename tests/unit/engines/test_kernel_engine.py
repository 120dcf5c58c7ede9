"""The engine ``kernel`` over a kernel in a directory: what is written where, what is read, what is left."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.unit.engines.kernel_fake import PID, FakeTree

from pydamon.core.callbacks import Callbacks
from pydamon.engines.kernel.engine import KernelEngine
from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.damon_sysfs import Roots, find_occupants
from pydamon.spec import Intervals, NrRegions, Spec, from_builtins
from pydamon.spec.probes import parse_probe
from pydamon.spec.schemes import Scheme

CONTEXT = "kdamonds/0/contexts/0"
SCHEME = f"{CONTEXT}/schemes/0"


def spec_of(*, pids: tuple[int, ...] = (0,), ops: str = "vaddr", **context: Any) -> Spec:
    """Of this process, unless it is said of which; 10 ms aggregations so that the test is quick."""
    context.setdefault("intervals", {"sample_us": 500, "aggr_us": 10_000})
    targets = [{"pid": pid or os.getpid()} for pid in pids]
    return from_builtins({"kdamonds": [{"contexts": [{"ops": ops, "targets": targets, **context}]}]})


def test_the_spec_becomes_files(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots, (6, 18))
    scheme = {
        "action": "pageout",
        "access_pattern": {
            "sz_bytes": {"min": "4K", "max": "max"},
            "nr_accesses": {"min": "0 %", "max": "10 %"},
            "age": {"min": "1s", "max": "max"},
        },
        "apply_interval_us": "50ms",
        "quotas": {
            "time_ms": 20,
            "sz_bytes": "8M",
            "reset_interval_ms": "2s",
            "goals": [{"metric": "node_mem_free_bp", "target_value": 50, "nid": 1}],
            "weights": {"sz_permil": 1, "nr_accesses_permil": 2, "age_permil": 3},
        },
        "watermarks": {
            "metric": "free_mem_rate",
            "interval_us": "5s",
            "high_permil": 500,
            "mid_permil": 400,
            "low_permil": 200,
        },
        "filters": [
            {"filter_type": "anon", "matching": False},
            {"filter_type": "addr", "allow": True, "address_range": {"start": 4096, "end": 8192}},
            {"filter_type": "hugepage_size", "hugepage_size": {"min": "2M", "max": "4M"}},
        ],
    }
    goal = {"access_bp": 400, "aggrs": 3, "min_sample_us": 5000, "max_sample_us": 10_000_000}
    spec = spec_of(
        intervals={"sample_us": 5_000, "aggr_us": 100_000, "ops_update_us": 2_000_000, "intervals_goal": goal},
        nr_regions={"min": 20, "max": 500},
        schemes=[scheme],
    )
    start(tree, spec)
    written = dict(tree.settings(CONTEXT))
    expected = {
        "operations": "vaddr",
        "monitoring_attrs/intervals/sample_us": "5000",
        "monitoring_attrs/intervals/aggr_us": "100000",
        "monitoring_attrs/intervals/update_us": "2000000",
        **{f"monitoring_attrs/intervals/intervals_goal/{name}": str(value) for name, value in goal.items()},
        "monitoring_attrs/nr_regions/min": "20",
        "monitoring_attrs/nr_regions/max": "500",
        "targets/nr_targets": "1",
        "targets/0/pid_target": str(os.getpid()),
        "schemes/0/action": "pageout",
        "schemes/0/access_pattern/sz/min": "4096",
        "schemes/0/access_pattern/sz/max": str(2**64 - 1),
        "schemes/0/access_pattern/nr_accesses/min": "0",
        "schemes/0/access_pattern/nr_accesses/max": "2",  # 10 % of 20 samples
        "schemes/0/access_pattern/age/min": "10",  # 1 s of 100 ms
        "schemes/0/access_pattern/age/max": str(2**32 - 1),
        "schemes/0/apply_interval_us": "50000",
        "schemes/0/quotas/ms": "20",
        "schemes/0/quotas/bytes": str(8 << 20),
        "schemes/0/quotas/reset_interval_ms": "2000",
        "schemes/0/quotas/weights/sz_permil": "1",
        "schemes/0/quotas/weights/nr_accesses_permil": "2",
        "schemes/0/quotas/weights/age_permil": "3",
        "schemes/0/quotas/goals/0/target_metric": "node_mem_free_bp",
        "schemes/0/quotas/goals/0/target_value": "50",
        "schemes/0/quotas/goals/0/nid": "1",
        "schemes/0/watermarks/metric": "free_mem_rate",
        "schemes/0/watermarks/interval_us": "5000000",
        "schemes/0/watermarks/high": "500",
        "schemes/0/watermarks/mid": "400",
        "schemes/0/watermarks/low": "200",
        # Core filters and page filters, each in their order.
        "schemes/0/core_filters/nr_filters": "1",
        "schemes/0/core_filters/0/type": "addr",
        "schemes/0/core_filters/0/allow": "Y",
        "schemes/0/core_filters/0/addr_end": "8192",
        "schemes/0/ops_filters/nr_filters": "2",
        "schemes/0/ops_filters/0/type": "anon",
        "schemes/0/ops_filters/0/matching": "N",
        "schemes/0/ops_filters/1/type": "hugepage_size",
        "schemes/0/ops_filters/1/max": str(4 << 20),
        "schemes/0/filters/nr_filters": "0",
    }
    assert {name: written[f"{CONTEXT}/{name}"] for name in expected} == expected


@pytest.mark.parametrize(
    ("context", "where", "text"),
    [
        ({"intervals": {"intervals_goal": {}}}, "intervals.intervals_goal", "6.15 has it); nearest: fixed intervals"),
        ({"schemes": [{"action": "collapse"}]}, "schemes[0].action", "knows no 'collapse' here; nearest: hugepage"),
        (
            {"schemes": [{"action": "stat", "filters": [{"filter_type": "anon", "allow": True}]}]},
            "schemes[0].filters[0].allow",
            "Linux 6.14 has it); nearest: to reject what is not of the type (matching: false, allow: false)",
        ),
        (
            {"schemes": [{"action": "stat", "filters": [{"filter_type": "active"}]}]},
            "schemes[0].filters[0].filter_type",
            "knows no 'active'",
        ),
        ({"schemes": [{"action": "stat", "max_nr_snapshots": 3}]}, "schemes[0].max_nr_snapshots", "7.0"),
        (
            {"schemes": [{"action": "stat", "quotas": {"sz_bytes": 1 << 20, "goal_tuner": "temporal"}}]},
            "schemes[0].quotas.goal_tuner",
            "Linux 7.1 has it); nearest: consist",
        ),
        (
            {"schemes": [{"action": "stat", "quotas": {"goals": [{"metric": "active_mem_bp", "target_value": 5000}]}}]},
            "schemes[0].quotas.goals[0].metric",
            "knows no 'active_mem_bp' here; nearest: user_input",
        ),
        (
            {"ops": "paddr", "pids": (), "schemes": [{"action": "migrate_cold", "dests": [{"id": 0}, {"id": 1}]}]},
            "schemes[0].dests",
            "Linux 6.17 has it); nearest: one node: target_nid",
        ),
        (
            {"probes": [{"filters": [{"filter_type": "anon", "allow": True}]}]},
            "probes",
            "no file monitoring_attrs/probes/nr_probes for it (Linux 7.2 has it); nearest: the user engine",
        ),
    ],
)
def test_what_an_old_kernel_lacks_is_named_and_nothing_is_left(
    roots: Roots, start: Callable[..., KernelEngine], context: dict[str, Any], where: str, text: str
) -> None:
    if context.get("ops") == "paddr":
        if os.geteuid() != 0:
            pytest.skip("only root sees the addresses of System RAM")
        targets: dict[str, Any] = {"targets": [{}]}
        context = {key: value for key, value in context.items() if key != "pids"}
        spec = from_builtins({"kdamonds": [{"contexts": [{**targets, **context}]}]})
    else:
        spec = spec_of(**context)
    with pytest.raises(MachineError) as error:
        start(FakeTree(roots, (6, 12)), spec)
    assert error.value.where == f"kdamonds[0].contexts[0].{where}"
    assert text in error.value.message
    assert find_occupants(roots) == []


@pytest.mark.parametrize(
    ("context", "where"),
    [
        ({"targets": [{"cgroup": "/x"}]}, "targets[0].cgroup"),
        ({"targets": [{"pid": 1, "include_children": True}]}, "targets[0].include_children"),
        ({"targets": [{"pid": 1}], "primitive": "bpf"}, "primitive"),
        ({"ops": "sim", "targets": [{}]}, "ops"),
        ({"targets": [{"pid": 2**22 + 1}]}, "targets[0].pid"),
        ({"targets": [{"pid": 1}], "schemes": [{"action": "lru_prio"}]}, "schemes[0].action"),
    ],
)
def test_what_no_kernels_damon_can_do_is_a_wrong_request(
    roots: Roots, start: Callable[..., KernelEngine], context: dict[str, Any], where: str
) -> None:
    with pytest.raises(RequestError) as error:
        start(FakeTree(roots), from_builtins({"kdamonds": [{"contexts": [context]}]}))
    assert error.value.where == f"kdamonds[0].contexts[0].{where}"
    assert find_occupants(roots) == []


def test_a_kernel_with_other_ops_names_those_that_it_has(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    class OnlyPhysical(FakeTree):
        def _context(self, here: str) -> None:
            super()._context(here)
            self._put(f"{here}/avail_operations", "paddr", 0o400)

    with pytest.raises(MachineError, match=r"ops: is vaddr; this kernel's DAMON has only paddr; nearest: the user"):
        start(OnlyPhysical(roots), spec_of())


def test_snapshots_come_from_tried_regions_where_there_is_no_tracefs(
    roots: Roots, start: Callable[..., KernelEngine]
) -> None:
    tree = FakeTree(roots)
    engine = start(tree, spec_of())
    assert engine.choice.name == "tried_regions"
    assert "tracefs" in engine.choice.reason
    seen = []
    for snapshots in engine.monitor():
        seen.append(snapshots)
        if len(seen) == 3:
            engine.stop()
    first = seen[0][0]
    assert first.start.tolist() == [4096, 8192]
    assert first.end.tolist() == [8192, 65536]
    assert first.nr_accesses.tolist() == [3, 0]
    assert first.age.tolist() == [5, 9]
    assert (first.target, first.sample_us, first.aggr_us) == (0, 500, 10_000)
    assert all(0 < s.end_ns - s.start_ns <= 10_000_000 for (s,) in seen)
    assert engine.schemes() == []  # the scheme that looks is not the user's
    assert engine.cost().check_ns == 420_000_000  # 30 + 12 ticks of 10 ms in the thread's stat
    assert find_occupants(roots) == []


def test_probes_are_written_and_their_hits_read(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots, (7, 2))
    tree.hits = [[20, 0], [1, 19]]
    probes = [{"filters": [{"filter_type": "anon", "allow": True}]}, {"filters": [{"filter_type": "anon"}]}]
    engine = start(tree, spec_of(probes=probes))
    assert "which tells the hits of probes" in engine.choice.reason
    here = f"{CONTEXT}/monitoring_attrs/probes"
    written = {path.removeprefix(f"{here}/"): value for path, value in tree.settings(here)}
    assert written == {
        "nr_probes": "2",
        "0/filters/nr_filters": "1",
        "0/filters/0/type": "anon",
        "0/filters/0/matching": "Y",
        "0/filters/0/allow": "Y",
        "0/filters/0/path": "",
        "1/filters/nr_filters": "1",
        "1/filters/0/type": "anon",
        "1/filters/0/matching": "Y",
        "1/filters/0/allow": "N",
        "1/filters/0/path": "",
    }
    for ((snapshot,),) in zip(engine.monitor(), strict=False):
        assert snapshot.probe_hits.tolist() == tree.hits
        engine.stop()


def test_probes_are_changed_while_it_runs(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots, (7, 3))
    tree.hits = [[20, 0]]
    engine = start(tree, spec_of(probes=[{"filters": [{"filter_type": "anon", "allow": True}]}]))
    monitor = engine.monitor()
    next(monitor)
    engine.commit(replace(engine.context, probes=(parse_probe("memcg=/"), parse_probe("anon weight=7"))))
    here = f"{CONTEXT}/monitoring_attrs/probes"
    assert [tree.read(f"{here}/{name}") for name in ("nr_probes", "0/filters/0/type", "1/weight")] == [
        "2",
        "memcg",
        "7",
    ]
    assert "commit" in tree.commands
    before = dict(tree.settings())
    with pytest.raises(MachineError, match=r"probes\[0\]\.filters\[0\]\.filter_type: .*knows no 'active' here"):
        engine.commit(replace(engine.context, probes=(parse_probe("active"),)))
    assert dict(tree.settings()) == before
    with pytest.raises(MachineError, match=r"has no file .*preps.*Linux 7\.4 has it"):
        engine.commit(replace(engine.context, probes=(parse_probe("set_pgidle anon"),)))
    assert dict(tree.settings()) == before
    engine.stop()
    list(monitor)


def test_a_probe_that_the_kernel_does_not_know_is_named(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    probes = [{"filters": [{"filter_type": "active", "allow": True}]}]
    with pytest.raises(MachineError, match=r"probes\[0\]\.filters\[0\]\.filter_type: .*knows no 'active' here"):
        start(FakeTree(roots, (7, 2)), spec_of(probes=probes))
    assert find_occupants(roots) == []


@pytest.mark.usefixtures("processes")
def test_targets_are_told_apart_by_filters(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots)
    tree.regions = {0: [(4096, 8192, 1, 1)], 1: [(4096, 12288, 2, 2)]}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        engine = start(tree, spec_of(pids=(0, other.pid)))
        filters = dict(tree.settings(f"{CONTEXT}/schemes"))
        assert filters[f"{CONTEXT}/schemes/1/filters/0/damon_target_idx"] == "1"
        assert filters[f"{CONTEXT}/schemes/1/filters/0/matching"] == "N"  # what is not of target 1 is out
        monitor = engine.monitor()
        group = next(monitor)
        assert [(s.target, s.end.tolist()) for s in group] == [(0, [8192]), (1, [12288])]
        engine.stop()
        list(monitor)


def test_statistics_of_the_users_schemes_are_read(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots)
    schemes = [{"action": "cold", "quotas": {"sz_bytes": "1M"}, "name": "mine"}]
    engine = start(tree, spec_of(schemes=schemes))
    assert tree.read(f"{CONTEXT}/schemes/nr_schemes") == "2"  # and the one that looks
    damos = engine.kdamond.schemes
    for _ in engine.monitor():
        if damos.states[0].tried:
            engine.stop()
    (state,) = damos.states
    assert (state.scheme.name, state.active) == ("mine", True)
    looks = tree.commands.count("update_schemes_stats")
    # The fake kernel adds 1, 2, … 5 to nr_tried, sz_tried, nr_applied, sz_applied and qt_exceeds each time.
    read = state.stats.nr_tried
    assert 1 <= read <= looks
    assert (state.stats.sz_tried, state.stats.qt_exceeds) == (2 * read, 5 * read)
    assert state.stats.nr_snapshots >= 1
    assert "update_schemes_effective_quotas" in tree.commands
    (tried,) = state.tried
    assert tried.start.tolist() == [4096, 8192]
    assert tried.sz_filter_passed.tolist() == [4096, 57344]  # this kernel says nothing of filters: all of it


def test_a_commit_changes_files_and_a_refused_one_changes_nothing(
    roots: Roots, start: Callable[..., KernelEngine]
) -> None:
    tree = FakeTree(roots)
    engine = start(tree, spec_of(schemes=[{"action": "stat", "access_pattern": {"age": {"min": "1s", "max": "max"}}}]))
    monitor = engine.monitor()
    next(monitor)
    engine.commit(
        replace(
            engine.context,
            intervals=Intervals(sample_us=1000, aggr_us=50_000),
            nr_regions=NrRegions(min=5, max=50),
        )
    )
    assert tree.read(f"{CONTEXT}/monitoring_attrs/nr_regions/max") == "50"
    assert tree.read(f"{SCHEME}/access_pattern/age/min") == "20"  # 1 s is 20 aggregations by now, and was 100
    assert "commit" in tree.commands
    assert engine.context.intervals.aggr_us == 50_000
    before = dict(tree.settings())
    for wanted in (Scheme(action="collapse"), Scheme(action="lru_prio")):
        with pytest.raises((MachineError, RequestError), match=r"schemes\[0\]\.action"):
            engine.commit(replace(engine.context, intervals=Intervals(), nr_regions=NrRegions(), schemes=(wanted,)))
        assert dict(tree.settings()) == before
    tree.refuse["commit"] = errno.EINVAL
    with pytest.raises(MachineError, match="refuses 'commit'"):
        engine.commit(replace(engine.context, intervals=Intervals(), nr_regions=NrRegions()))
    assert dict(tree.settings()) == before
    assert engine.context.intervals.aggr_us == 50_000
    engine.stop()
    list(monitor)


def test_watermarks_of_a_node_are_refused_with_the_nearest(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    marks = {"metric": "free_mem_rate", "nid": 0}
    spec = spec_of(schemes=[{"action": "stat", "watermarks": marks}])
    with pytest.raises(RequestError, match=r"schemes\[0\]\.watermarks\.nid: .*; the engine user has those of a node"):
        start(FakeTree(roots), spec)


def test_a_metric_that_is_ours_is_refused_with_the_nearest(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    goals = [{"metric": "refault_bp", "target_value": 20}]
    spec = spec_of(schemes=[{"action": "pageout", "quotas": {"sz_bytes": "1M", "goals": goals}}])
    with pytest.raises(RequestError, match=r"goals\[0\]\.metric: is refault_bp, .* nearest: the user engine"):
        start(FakeTree(roots), spec)


def test_a_goals_value_is_given_to_the_kernel(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots)
    goals = [{"metric": "user_input", "target_value": 100, "name": "slowness"}]
    engine = start(tree, spec_of(schemes=[{"action": "cold", "quotas": {"sz_bytes": "1M", "goals": goals}}]))
    monitor = engine.monitor()
    next(monitor)
    engine.set_goal("slowness", 90)
    assert tree.read(f"{SCHEME}/quotas/goals/0/current_value") == "90"
    assert "commit_schemes_quota_goals" in tree.commands
    with pytest.raises(RequestError, match="there are: slowness"):
        engine.set_goal("speed", 1)
    engine.stop()
    list(monitor)


def test_a_kdamond_that_somebody_else_has_stopped_is_a_failure(
    roots: Roots, start: Callable[..., KernelEngine]
) -> None:
    tree = FakeTree(roots)
    engine = start(tree, spec_of())
    monitor = engine.monitor()
    next(monitor)
    tree.stop()
    with pytest.raises(PydamonError, match="stopped by somebody else"):
        list(monitor)


def test_a_tree_that_somebody_else_has_taken_over_is_left_alone(
    roots: Roots, start: Callable[..., KernelEngine]
) -> None:
    tree = FakeTree(roots)
    engine = start(tree, spec_of())
    monitor = engine.monitor()
    next(monitor)
    tree.stop()
    tree.write(f"{CONTEXT}/monitoring_attrs/nr_regions/max", 77)
    tree.start_ticks = 778
    tree.write("kdamonds/0/state", "on")
    tree._put("kdamonds/0/pid", str(PID + 1), 0o400)  # another thread
    commands = list(tree.commands)
    with pytest.raises(PydamonError, match="stopped by somebody else"):
        list(monitor)
    assert "off" not in tree.commands[len(commands) :]
    assert tree.read("kdamonds/0/state") == "on"
    assert engine.remarks() == ["the kernel's DAMON is used by somebody else by now; left alone"]


@pytest.mark.usefixtures("processes")
def test_the_end_of_the_process_ends_it(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        engine = start(FakeTree(roots), spec_of(pids=(other.pid,)))
        monitor = engine.monitor()
        next(monitor)
        other.kill()
        list(monitor)
    assert not engine.stop_requested
    assert find_occupants(roots) == []


def test_callbacks_are_called_as_by_the_user_engine(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    called: list[str] = []

    def note(name: str) -> Callable[[Any], None]:
        return lambda kdamond: called.append(f"{name} {len(kdamond.snapshots)} {sum(map(len, kdamond.regions))}")

    callbacks = Callbacks(
        before_start=note("start"), after_aggregation=note("aggregated"), before_terminate=note("end")
    )
    engine = start(FakeTree(roots), spec_of(), callbacks=callbacks)
    for _ in engine.monitor():
        engine.stop()
    assert called[:2] == ["start 0 0", "aggregated 1 2"]
    assert "end 1 2" in called
    # And it ends by itself when the time is over.
    engine = start(FakeTree(roots), spec_of())
    engine.end_ns = engine.clock.now_ns() + 50_000_000
    list(engine.monitor())
    assert engine.stop_requested


def test_an_engine_that_never_ran_leaves_nothing(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots)
    engine = start(tree, spec_of())
    assert len(find_occupants(roots)) == 1
    engine.close()
    engine.close()  # once is enough
    assert find_occupants(roots) == []
    assert tree.commands == []


def test_a_kernel_that_cannot_start_it_says_why(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots)
    tree.refuse["on"] = errno.EINVAL
    engine = start(tree, spec_of())
    with pytest.raises(MachineError, match=r"refuses 'on': Invalid argument"):
        list(engine.monitor())
    assert find_occupants(roots) == []
    assert np.all([not process.pidfd >= 0 for process in engine.ops.processes])
