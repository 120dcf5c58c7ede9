"""The engine ``kernel``: what a context has beside its targets and schemes, as newer kernels have files for it."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from tests.helpers.waiting import wait_until
from tests.unit.engines.kernel_fake import FakeTree

from pydamon.engines.kernel import targets
from pydamon.engines.kernel.engine import KernelEngine
from pydamon.errors import MachineError, RequestError
from pydamon.linux.damon_sysfs import Roots, find_occupants
from pydamon.spec import Spec, from_builtins

CONTEXT = "kdamonds/0/contexts/0"


def spec_of(refresh_ms: int = 0, **context: Any) -> Spec:
    context.setdefault("intervals", {"sample_us": 500, "aggr_us": 10_000})
    context.setdefault("targets", [{"pid": os.getpid()}])
    return from_builtins({"kdamonds": [{"contexts": [context], "refresh_ms": refresh_ms}]})


def test_a_pause_is_committed_and_nobody_asks_what_is_tried_in_it(
    roots: Roots, start: Callable[..., KernelEngine]
) -> None:
    # The kernel cancels such a command in a pause (the notes on DAMON of 2026-11-25, section 4); statistics it tells.
    tree = FakeTree(roots, (7, 2))
    engine = start(tree, spec_of(schemes=[{"action": "stat"}]))
    monitor = engine.monitor()
    next(monitor)
    engine.commit(replace(engine.context, pause=True))
    assert tree.read(f"{CONTEXT}/pause") == "Y"
    tree.refuse["update_schemes_tried_regions"] = errno.ECANCELED
    asked = len(tree.commands)
    wait_until(lambda: tree.commands[asked:].count("update_schemes_stats") >= 12)
    assert tree.commands[asked:].count("update_schemes_tried_regions") <= 1  # one that was under way
    tried = engine.schemes()[0].stats.nr_tried
    wait_until(lambda: engine.schemes()[0].stats.nr_tried > tried)
    del tree.refuse["update_schemes_tried_regions"]
    engine.commit(replace(engine.context, pause=False))
    assert tree.read(f"{CONTEXT}/pause") == "N"
    assert next(monitor)
    engine.stop()
    list(monitor)


def test_a_pause_that_is_refused_is_taken_back(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots, (7, 2))
    engine = start(tree, spec_of())
    monitor = engine.monitor()
    next(monitor)
    tree.refuse["commit"] = errno.EINVAL
    with pytest.raises(MachineError, match="refuses 'commit'"):
        engine.commit(replace(engine.context, pause=True))
    assert tree.read(f"{CONTEXT}/pause") == "N"
    assert not engine.context.pause
    engine.stop()
    list(monitor)


def test_the_kernel_refreshes_as_often_as_is_asked_for(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    tree = FakeTree(roots, (6, 18))
    start(tree, spec_of(refresh_ms=250))
    assert tree.read("kdamonds/0/refresh_ms") == "250"


@pytest.fixture(autouse=True)
def ram_fixture(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose RAM is 1 MiB from 0 on, and another from 16 MiB on, told to anybody."""
    monkeypatch.setattr(targets, "read_as_root", lambda _: "")
    monkeypatch.setattr(targets, "system_ram", lambda _: np.array([[0, 1 << 20], [16 << 20, 17 << 20]], np.uint64))
    monkeypatch.setattr(targets, "node_spans", lambda _: [])


def test_physical_memory_in_units_of_several_bytes(roots: Roots, start: Callable[..., KernelEngine]) -> None:
    """All that the kernel is told and tells is in units of 8 bytes (damon-newest.md 4); what we say is in bytes."""
    tree = FakeTree(roots, (6, 18))
    tree.regions = {0: [(0, 512, 3, 5), (512, 1 << 17, 0, 9)]}
    scheme = {
        "action": "pageout",
        "access_pattern": {"sz_bytes": {"min": 4096, "max": 1 << 20}},
        "quotas": {"sz_bytes": 1 << 16, "reset_interval_ms": 1000},
        "filters": [{"filter_type": "addr", "address_range": {"start": 4096, "end": 8192}}],
    }
    engine = start(tree, spec_of(ops="paddr", targets=[{}], addr_unit=8, schemes=[scheme]))
    here = f"{CONTEXT}/schemes/0"
    assert tree.read(f"{CONTEXT}/addr_unit") == "8"
    told = [tree.read_int(f"{CONTEXT}/targets/0/regions/{n}/{end}") for n in (0, 1) for end in ("start", "end")]
    assert told == [0, (1 << 20) // 8, (16 << 20) // 8, (17 << 20) // 8]
    assert tree.read_int(f"{here}/access_pattern/sz/min") == 512
    assert tree.read_int(f"{here}/access_pattern/sz/max") == (1 << 20) // 8
    assert tree.read_int(f"{here}/quotas/bytes") == (1 << 16) // 8
    assert (tree.read_int(f"{here}/core_filters/0/addr_start"), tree.read_int(f"{here}/core_filters/0/addr_end")) == (
        512,
        1024,
    )
    monitor = engine.monitor()
    (snapshot,) = next(monitor)
    assert list(zip(snapshot.start.tolist(), snapshot.end.tolist(), strict=True)) == [(0, 4096), (4096, 1 << 20)]
    wait_until(lambda: engine.schemes()[0].tried and engine.schemes()[0].stats.sz_tried)
    state = engine.schemes()[0]
    assert state.tried[0].end.tolist() == [4096, 1 << 20]
    assert state.stats.sz_tried == 2 * state.stats.nr_tried * 8  # the fake adds 1 and 2 at a time, in units
    engine.stop()
    list(monitor)


def test_a_target_that_became_obsolete_is_taken_out_and_the_others_keep_their_numbers(
    roots: Roots, start: Callable[..., KernelEngine], processes: None
) -> None:
    tree = FakeTree(roots, (7, 0))
    children = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
    try:
        pids = [child.pid for child in children]
        tree.regions = {n: [(4096 * (n + 1), 1 << 20, 3, 5)] for n in range(3)}
        filters = [{"filter_type": "target", "damon_target_idx": n, "allow": True} for n in (2, 1)]
        schemes = [{"action": "stat", "filters": filters}]
        engine = start(tree, spec_of(targets=[{"pid": pid} for pid in pids], schemes=schemes))
        monitor = engine.monitor()
        assert [snapshot.target for snapshot in next(monitor)] == [0, 1, 2]
        assert tree.running == pids
        now = engine.context
        without = replace(now, targets=(now.targets[0], replace(now.targets[1], obsolete=True), now.targets[2]))

        tree.refuse["commit"] = errno.EINVAL
        with pytest.raises(MachineError, match="refuses 'commit'"):
            engine.commit(without)
        assert [tree.read(f"{CONTEXT}/targets/{n}/obsolete_target") for n in range(3)] == ["N"] * 3
        assert engine.living() == dict(enumerate(pids))
        del tree.refuse["commit"]

        engine.commit(without)
        assert tree.running == [pids[0], pids[2]]
        # What stands there now is what runs: the next commit pairs with that.
        assert [tree.read_int(f"{CONTEXT}/targets/{n}/pid_target") for n in range(2)] == [pids[0], pids[2]]
        assert tree.read_int(f"{CONTEXT}/targets/nr_targets") == 2
        assert engine.living() == {0: pids[0], 2: pids[2]}
        here = f"{CONTEXT}/schemes/0/core_filters"
        # The kernel's second target is our third; ours that is gone is none of the kernel's.
        assert [tree.read_int(f"{here}/{n}/damon_target_idx") for n in (0, 1)] == [1, 2]
        found = next(group for group in monitor if len(group) == 2)
        assert [snapshot.target for snapshot in found] == [0, 2]
        assert found[1].start.tolist() == [4096 * 2]  # what the kernel says of its second

        engine.commit(replace(engine.context, nr_regions=replace(engine.context.nr_regions, max=500)))
        assert tree.running == [pids[0], pids[2]]
        with pytest.raises(RequestError, match=r"targets\[1\].obsolete: must stay true"):
            engine.commit(now)
        engine.stop()
        list(monitor)
    finally:
        for child in children:
            child.kill()
            child.wait()


def test_a_kernel_that_takes_no_target_out_is_named(
    roots: Roots, start: Callable[..., KernelEngine], processes: None
) -> None:
    tree = FakeTree(roots, (6, 18))
    child = subprocess.Popen(["sleep", "600"])
    try:
        engine = start(tree, spec_of(targets=[{"pid": os.getpid()}, {"pid": child.pid}]))
        monitor = engine.monitor()
        next(monitor)
        now = engine.context
        with pytest.raises(MachineError) as caught:
            engine.commit(replace(now, targets=(now.targets[0], replace(now.targets[1], obsolete=True))))
        assert str(caught.value) == (
            "kdamonds[0].contexts[0].targets[1].obsolete: this kernel's DAMON has no file targets/1/obsolete_target "
            "for it (Linux 6.19 has it); nearest: the user engine"
        )
        assert engine.living() == {0: os.getpid(), 1: child.pid}
        engine.stop()
        list(monitor)
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            spec_of(pause=True),
            "kdamonds[0].contexts[0].pause: this kernel's DAMON has no file pause for it (Linux 7.2 has it); nearest: "
            "to stop it, or the user engine",
        ),
        (
            spec_of(ops="paddr", targets=[{"regions": [{"start": 0, "end": 1 << 20}]}], addr_unit=8),
            "kdamonds[0].contexts[0].addr_unit: this kernel's DAMON has no file addr_unit for it (Linux 6.18 has it); "
            "nearest: 1, or the user engine",
        ),
        (
            spec_of(refresh_ms=250),
            "kdamonds[0].refresh_ms: this kernel's DAMON has no file refresh_ms for it (Linux 6.17 has it); nearest: "
            "0, for pydamon asks by itself",
        ),
    ],
)
def test_what_an_old_kernel_lacks_is_named(
    roots: Roots, start: Callable[..., KernelEngine], spec: Spec, message: str
) -> None:
    with pytest.raises(MachineError) as caught:
        start(FakeTree(roots, (6, 12)), spec)
    assert str(caught.value) == message
    assert find_occupants(roots) == []


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (
            {"targets": [{"pid": os.getpid()}, {"pid": 1, "obsolete": True}]},
            "targets[1].obsolete: is true, but nothing runs yet that it could be taken out of: leave the target out",
        ),
    ],
)
def test_what_it_does_not_do_is_a_wrong_request(
    roots: Roots, start: Callable[..., KernelEngine], context: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError) as caught:
        start(FakeTree(roots, (7, 3)), spec_of(**context))
    assert str(caught.value) == f"kdamonds[0].contexts[0].{message}"
