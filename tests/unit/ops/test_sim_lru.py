"""Reclaim by two lists, against an example worked by hand and against what it must bring about."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core.clock import VirtualClock
from pydamon.ops.sim.extents import ACTIVE, ANON, MAPPED, NODE_SHIFT, PAGE_SIZE, REFERENCED, STAMPS, Extents, stamp_of
from pydamon.ops.sim.lru import TwoLists, watermarks
from pydamon.ops.sim.ops import SimOps
from pydamon.spec.costs import Costs
from pydamon.spec.machine import MachineSpec
from pydamon.workload import model

MIB = 1 << 20
MS = 1_000_000
S = 1000 * MS
THERE = ANON | MAPPED | 1 << NODE_SHIFT


def memory(states: list[int]) -> Extents:
    """One page per state, with gaps in between so that none are joined."""
    start = np.arange(len(states)) * 2 * PAGE_SIZE
    return Extents(np.stack([start, start + PAGE_SIZE], axis=1), np.array(states, np.uint32))


def lists_of(extents: Extents) -> tuple[list[int], list[int], list[int]]:
    """The pages on the active and the inactive list, the tail first, and those that are out."""
    order = sorted(range(len(extents)), key=lambda page: (stamp_of(extents.state)[page], page))
    active, there = extents.has(ACTIVE), extents.resident
    return (
        [page for page in order if there[page] and active[page]],
        [page for page in order if there[page] and not active[page]],
        [page for page in range(len(extents)) if not there[page]],
    )


def test_an_example_worked_by_hand() -> None:
    """Eight pages on the inactive list in the order 0 to 7; 1 and 2 were accessed since. Two are to be taken.

    From the tail: 0 goes; 1 and 2 were accessed and go to the active list; 3 goes, and that is enough. Then all that
    is left is accessed, and three more are to go. The lists are [1, 2 | 4, 5, 6, 7], the inactive one long enough. 4 to
    7 go to the active list: [1, 2, 4, 5, 6, 7 | ]. Now three of the active ones, 1, 2, 4, are moved to the inactive
    list and lose their mark there; all three go.
    """
    lists, extents = TwoLists(), memory([THERE] * 8)
    lists.put([extents], [np.ones(8, np.bool_)])
    extents.state[[1, 2]] |= np.uint32(REFERENCED)
    took = lists.reclaim([extents], 2 * PAGE_SIZE, room=1 << 30)
    assert lists_of(extents) == ([1, 2], [4, 5, 6, 7], [0, 3])
    assert (took.scanned, took.taken) == (4, 2)
    extents.state[extents.resident] |= np.uint32(REFERENCED)
    took = lists.reclaim([extents], 3 * PAGE_SIZE, room=1 << 30)
    assert lists_of(extents) == ([5, 6, 7], [], [0, 1, 2, 3, 4])
    assert (took.scanned, took.taken) == (4 + 3, 3)


def test_no_swap_no_anonymous_memory() -> None:
    lists, extents = TwoLists(), memory([THERE, THERE & ~ANON, THERE, THERE & ~ANON])
    took = lists.reclaim([extents], 4 * PAGE_SIZE, room=PAGE_SIZE)
    assert (took.taken, took.files) == (3, 2)
    assert lists_of(extents)[2] == [0, 1, 3]
    assert lists.reclaim([extents], PAGE_SIZE, room=1 << 30, files_only=True).taken == 0


def test_part_of_a_range_goes() -> None:
    lists = TwoLists()
    extents = Extents(np.array([[0, 100 * PAGE_SIZE]]), np.array([THERE], np.uint32))
    assert lists.reclaim([extents], 30 * PAGE_SIZE + 1, room=1 << 30).taken == 31
    assert extents.bytes_of(extents.resident) == 69 * PAGE_SIZE


def test_the_order_survives_more_steps_than_are_kept() -> None:
    lists, extents = TwoLists(), memory([THERE] * 40)
    turns = [*range(40)] * 20  # the last one that was put is the latest
    for page in turns:
        lists.put([extents], [np.arange(40) == page])
    assert len(turns) > 2 * STAMPS
    order = lists_of(extents)[1]
    assert sorted(order[:20]) == list(range(20))  # neighbours may have become one step


def test_watermarks_are_those_of_the_kernel() -> None:
    # 16 GiB: sqrt(16,777,216 KiB * 16) = 16,384 KiB; a quarter of it is less than 1/1000 of the memory, 16,777 KiB.
    # 17,179,869 bytes: so far apart, in whole pages.
    assert watermarks(16 << 30) == (16 << 20, (16 << 20) + 4194 * 4096, (16 << 20) + 8388 * 4096)


def sweep(spec: MachineSpec, text: str, seconds: int, rate: int = 10**6) -> SimOps:
    clock = VirtualClock()
    ops = SimOps(model.parse(text, source="x"), clock, mapping="one", accesses_per_s=rate, machine=spec)
    ops.init()
    for _ in range(seconds * 10):
        clock.sleep_ns(100 * MS)
        ops.reset_aggregated()
    return ops


def test_what_is_used_stays_though_more_is_read_once() -> None:
    """16 MiB that are always used, 48 MiB swept every 12 s, 40 MiB of memory: the sweep only pushes itself out."""
    text = "hot, 16 MiB\nsweep, 48 MiB\n\np\n600000\nhot, 0, 4096, 1000\nsweep, 0, 4096, 1\n"
    ops = sweep(MachineSpec(node_bytes=(40 * MIB,), reclaim="two-list"), text, 60)
    base = ops.mappings(0)[0].start
    before = ops.summary()
    low, high = np.array([[base], [base + 16 * MIB]], np.uint64)
    assert ops.node_bytes(0, low, high, 0) == 16 * MIB
    counters = ops.machine.counters
    assert counters.pgsteal_kswapd > 10_000
    assert counters.pgscan_kswapd >= counters.pgsteal_kswapd
    assert before.faults * PAGE_SIZE > 3 * 48 * MIB  # a sweep over more than there is room for finds none of it
    assert counters.pswpin == counters.workingset_refault_anon == before.faults


def test_background_reclaim_keeps_memory_free_and_nobody_waits() -> None:
    text = "a, 100 MiB\n\np\n600000\na, 0, 4096, 1\n"
    spec = MachineSpec(node_bytes=(64 * MIB,), reclaim="two-list", costs=Costs(zram_in_ns=0))
    ops = sweep(spec, text, 30, rate=2_000)
    lowest, low, _ = watermarks(64 * MIB)
    assert ops.machine.free_bytes() >= low
    assert ops.machine.counters.pgscan_direct < ops.machine.counters.pgscan_kswapd
    assert ops.machine.times.reclaim_ns > 0
    assert lowest < low


def test_who_needs_more_than_background_reclaim_can_do_waits() -> None:
    text = "a, 100 MiB\n\np\n600000\na, 0, 4096, 1\n"
    spec = MachineSpec(node_bytes=(64 * MIB,), reclaim="two-list", costs=Costs(zram_in_ns=0, zram_out_ns=10 * MS))
    ops = sweep(spec, text, 30, rate=2_000)
    assert ops.machine.counters.pgsteal_direct > 0
    assert ops.summary().stall_ns > 0


def test_zram_takes_memory_of_the_machine() -> None:
    text = "a, 64 MiB\n\np\n600000\na, 0, 4096, 1\n"
    clock = VirtualClock()
    spec = MachineSpec(swap="zram", costs=Costs(zram_ratio_permil=4000))
    ops = SimOps(model.parse(text, source="x"), clock, mapping="one", machine=spec)
    ops.init()
    assert ops.machine.free_bytes() == 64 * MIB
    assert ops.machine.take(16 * MIB, ops.machine.targets, files_only=False) == 16 * MIB
    assert ops.machine.free_bytes() == 64 * MIB + 12 * MIB
    assert ops.machine.kept_bytes() == 4 * MIB


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_random_accesses_miss_as_often_as_memory_is_short(ratio: int) -> None:
    """AET of equally likely pages: with memory for a share of them, the rest misses, whatever the policy."""
    pages = 4096
    room = pages * (ratio - 1) // ratio if ratio > 1 else pages
    text = f"a, {pages * PAGE_SIZE}\n\np\n600000\na, 1, 4096, 1\n"
    spec = MachineSpec(node_bytes=((room + 64) * PAGE_SIZE,), reclaim="two-list")
    ops = sweep(spec, text, 40, rate=2_000)
    resident = ops.summary().resident_bytes / PAGE_SIZE
    expected = 2_000 * 40 * (1 - resident / pages)
    assert ops.summary().faults == pytest.approx(expected, rel=0.15, abs=200)
