"""The simulated machine is what a literal simulation of single pages is, for random machines, workloads and schemes."""

from __future__ import annotations

import itertools
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tests.unit.ops import sim_naive

from pydamon.core.clock import VirtualClock
from pydamon.ops.base import Applied
from pydamon.ops.sim import actions
from pydamon.ops.sim import extents as sim_extents
from pydamon.ops.sim.machine import Machine
from pydamon.ops.sim.ops import SimOps
from pydamon.spec import Scheme
from pydamon.spec.machine import MachineSpec
from pydamon.spec.schemes import Dest, Filter, SizeRange
from pydamon.workload import model

PAGE = 4096
HUGE = 4 * PAGE  # so that a few dozen pages hold several huge ones
MS = 1_000_000


@st.composite
def workloads(draw: st.DrawFn) -> model.Workload:
    regions = [
        model.WorkloadRegion(f"r{number}", draw(st.integers(1, 20)) * PAGE - draw(st.sampled_from([0, 1, 4000])))
        for number in range(draw(st.integers(1, 3)))
    ]
    access = st.builds(
        model.Access,
        region=st.integers(0, len(regions) - 1),
        random=st.booleans(),
        stride_bytes=st.sampled_from([64, 4096, 8192, 10_000]),
        probability=st.integers(1, 3),
    )
    phases = [
        model.Phase(f"p{number}", draw(st.integers(5, 200)), tuple(draw(st.lists(access, min_size=1, max_size=3))))
        for number in range(draw(st.integers(1, 3)))
    ]
    return model.Workload(tuple(regions), tuple(phases))


def filters(kind: str) -> st.SearchStrategy[Filter]:
    sizes = st.sampled_from([SizeRange(min=0, max=PAGE), SizeRange(min=HUGE, max=HUGE), SizeRange()])
    return st.builds(
        Filter,
        filter_type=st.just(kind),
        matching=st.booleans(),
        allow=st.booleans(),
        memcg_path=st.sampled_from(["/sim/0", "/sim"]) if kind == "memcg" else st.none(),
        hugepage_size=sizes if kind == "hugepage_size" else st.none(),
        nid=st.just(0) if kind == "node" else st.none(),
    )


@st.composite
def schemes(draw: st.DrawFn, nr_nodes: int) -> Scheme:
    action: Any = draw(
        st.sampled_from(["pageout", "willneed", "cold", "lru_prio", "lru_deprio", "collapse", "hugepage", "nohugepage"])
        | st.sampled_from(["stat", "migrate_hot", "migrate_cold", "pageout", "collapse"])
    )
    kinds = st.sampled_from(["anon", "active", "memcg", "young", "hugepage_size", "unmapped", "node"])
    # One young filter at most: it is looked at once.
    chosen = draw(st.lists(kinds, max_size=3, unique=True))
    dests: tuple[Dest, ...] = ()
    if action.startswith("migrate"):
        dest = st.builds(Dest, id=st.integers(0, nr_nodes - 1), weight=st.integers(1, 3))
        dests = tuple(draw(st.lists(dest, min_size=1, max_size=3)))
    return Scheme(action=action, filters=tuple(draw(filters(kind)) for kind in chosen), dests=dests)


@st.composite
def areas(draw: st.DrawFn, start: int, end: int) -> list[tuple[int, int]]:
    edges = st.integers(0, (end - start) // PAGE).map(lambda page: start + page * PAGE)
    points = sorted(draw(st.lists(edges, min_size=2, max_size=8, unique=True)))
    pairs = list(itertools.pairwise(points))
    return [pair for pair in pairs if draw(st.integers(0, 3))] or pairs[:1]


def state_of(machine: Machine) -> list[tuple[object, ...]]:
    """What each page is in, of the machine under test."""
    extents, result = machine.targets[0].extents, []
    for start, end, state in zip(extents.start.tolist(), extents.end.tolist(), extents.state.tolist(), strict=True):
        node = (state >> sim_extents.NODE_SHIFT) - 1
        bits = [bool(state & bit) for bit in (sim_extents.MAPPED, sim_extents.HUGE, sim_extents.ACTIVE)]
        bits += [bool(state & sim_extents.YOUNG)]
        advice = "yes" if state & sim_extents.ADVISED else "no" if state & sim_extents.REFUSED else ""
        result += [(address, None if node < 0 else node, *bits, advice) for address in range(start, end, PAGE)]
    return result


def state_of_naive(naive: sim_naive.NaiveMachine) -> list[tuple[object, ...]]:
    return [
        (p.address, p.node, p.mapped and p.node is not None, p.huge, p.active, p.young, p.advice) for p in naive.pages
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(st.data())
@pytest.mark.slow
def test_ranges_are_what_single_pages_are(data: st.DataObject) -> None:
    workload = data.draw(workloads())
    pages = sum(-(-region.size_bytes // PAGE) for region in workload.regions)
    nodes = tuple(n * PAGE for n in data.draw(st.lists(st.integers(1, pages + 4), min_size=1, max_size=3)))
    swap = data.draw(st.integers(0, pages)) * PAGE
    files = tuple(region.name for region in workload.regions if data.draw(st.booleans()))
    assume(sum(nodes) + swap >= pages * PAGE)
    spec = MachineSpec(node_bytes=nodes, swap_bytes=swap, file_regions=files)
    with (
        mock.patch.object(sim_extents, "HUGE_SIZE", HUGE),
        mock.patch.object(actions, "HUGE_SIZE", HUGE),
        mock.patch.object(sim_naive, "HUGE", HUGE),
    ):
        clock = VirtualClock()
        ops = SimOps(
            workload,
            clock,
            mapping=data.draw(st.sampled_from(["one", "separate"])),
            accesses_per_s=data.draw(st.sampled_from([100, 3000, 10**6])),
            repeat=0,
            machine=spec,
        )
        (span,) = ops.init()[0].tolist()
        target = ops.machine.targets[0]
        naive = sim_naive.NaiveMachine(spec, target.layout, target.model, target.schedule, 0)
        assert state_of(ops.machine) == state_of_naive(naive)
        for _ in range(data.draw(st.integers(1, 6))):
            clock.sleep_ns(data.draw(st.sampled_from([0, 1, 7, 100, 1500])) * MS)
            naive.advance(clock.now_ns())
            machine = ops.machine
            assert state_of(machine) == state_of_naive(naive)
            regions = data.draw(areas(*span))
            scheme = data.draw(schemes(len(nodes)))
            allowed = [data.draw(st.integers(0, 4)) == 0 for _ in regions]
            start, end = np.array(regions, np.uint64).T
            used = machine.node_used()
            done = ops.apply_scheme(0, scheme, start, end, np.array(allowed))
            applied, passed = naive.apply(scheme, regions, allowed)
            assert (done.passed.tolist(), done.applied.tolist()) == (passed, applied)
            assert state_of(machine) == state_of_naive(naive)
            check_invariants(ops, regions, done, used, scheme)
        summary = ops.summary()
        counted = (summary.faults, summary.first_touches, summary.reclaimed_bytes)
        assert counted == (naive.faults, naive.first_touches, naive.reclaimed * PAGE)


def check_invariants(
    ops: SimOps,
    regions: list[tuple[int, int]],
    done: Applied,
    used_before: np.ndarray[tuple[int], np.dtype[np.int64]],
    scheme: Scheme,
) -> None:
    """Bytes are conserved, memory and swap are not overfull, applied ≤ passed ≤ requested."""
    machine, summary = ops.machine, ops.summary()
    there = summary.resident_bytes + summary.swapped_bytes + summary.dropped_bytes
    assert there == sum(place.end - place.start for place in machine.targets[0].layout.regions)
    assert (machine.node_used() <= machine.node_bytes).all()
    assert summary.swapped_bytes <= machine.swap_bytes
    assert summary.huge_bytes % HUGE == 0
    requested = np.array([end - start for start, end in regions], np.uint64)
    assert (done.applied <= done.passed).all()
    assert (done.passed <= requested).all()
    change = int(machine.node_used().sum() - used_before.sum())
    moved = int(done.applied.sum())
    expected = {"pageout": -moved, "willneed": moved}.get(scheme.action, 0)
    assert change == expected
