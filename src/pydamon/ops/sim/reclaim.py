"""Who makes room on a simulated machine: the ideal, which knows what was idle longest, or two lists. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.sim.extents import ACTIVE, ANON, INCOMING, KEPT, PAGE_SIZE, node_of
from pydamon.ops.sim.lru import Took, TwoLists, watermarks
from pydamon.ops.sim.summary import Counters, Times
from pydamon.ops.sim.target import SimTarget
from pydamon.spec.machine import MachineSpec
from pydamon.workload.intervals import Spans, union

# How long memory was not accessed is known in these steps (s) when the machine makes room; below the first: in use.
_IDLE_STEPS_S = (1, 4, 16, 64, 256, 1024, 4096)
_NS_PER_S = 1_000_000_000
_TRIES = 4  # what is compressed takes memory, too


class Machine(Protocol):
    """What is to be known of the machine."""

    spec: MachineSpec
    targets: list[SimTarget]
    counters: Counters
    times: Times
    now_ns: int

    @property
    def total_bytes(self) -> int:
        """Memory of all nodes."""
        ...

    def free_bytes(self) -> int:
        """Free memory."""
        ...

    def swap_free(self) -> int:
        """Free bytes of swap."""
        ...


class Reclaimer:
    """Takes memory of the machine's targets."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.lists = TwoLists() if machine.spec.reclaim == "two-list" else None

    def make_room(self, incoming: int, window_ns: int) -> None:
        """So that ``incoming`` bytes find room, at the end of a window of that length; who waits is counted."""
        machine = self._machine
        if self.lists is not None and window_ns:
            self._by_lists(self.lists, incoming, window_ns)
        missing = incoming - machine.free_bytes()
        if missing > 0:
            self.ideal(missing, machine.targets, files_only=False, spare=False)

    def take(self, wanted: int, targets: Sequence[SimTarget], *, files_only: bool) -> None:
        """Take up to ``wanted`` bytes as asked to; nobody waits for it."""
        if self.lists is None:
            self.ideal(wanted, targets, files_only=files_only, spare=True)
            return
        took = self._taken(self.lists, wanted, targets, files_only=files_only)
        counters = self._machine.counters
        counters.pgscan_direct += took.scanned
        counters.pgsteal_direct += took.taken

    # -- two lists ------------------------------------------------------------------------------------------------

    def _by_lists(self, lists: TwoLists, incoming: int, window_ns: int) -> None:
        """In the background from the low watermark on, up to the high one; what that has no time for, at once."""
        machine = self._machine
        lowest, low, high = watermarks(machine.total_bytes)
        counters, costs = machine.counters, machine.spec.costs
        page_ns = max(costs.look_ns + costs.out_ns(machine.spec.backing), 1)
        if machine.free_bytes() - incoming < low:
            budget = window_ns // page_ns * PAGE_SIZE
            took = self._until(lists, incoming + high, budget)
            counters.pgscan_kswapd += took.scanned
            counters.pgsteal_kswapd += took.taken
            machine.times.reclaim_ns += self._spent_ns(took)
        if incoming and machine.free_bytes() - incoming < lowest:
            took = self._until(lists, incoming + lowest, machine.total_bytes)
            counters.pgscan_direct += took.scanned
            counters.pgsteal_direct += took.taken
            _share_out(self._spent_ns(took), machine.targets)

    def _until(self, lists: TwoLists, free: int, budget: int) -> Took:
        """Until that much is free, or ``budget`` bytes are taken."""
        machine, total, ratio = self._machine, Took(), self._machine.spec.costs.zram_ratio_permil
        for _ in range(_TRIES):
            missing = free - machine.free_bytes()
            wanted = min(missing, budget - total.taken * PAGE_SIZE)
            if wanted <= 0:
                break
            if machine.spec.swap == "zram" and ratio > 1000:
                wanted = min(wanted * ratio // (ratio - 1000), budget - total.taken * PAGE_SIZE)
            took = self._taken(lists, wanted, machine.targets, files_only=False)
            total.scanned += took.scanned
            total.taken += took.taken
            total.files += took.files
            if not took.taken:
                break
        return total

    def _taken(self, lists: TwoLists, wanted: int, targets: Sequence[SimTarget], *, files_only: bool) -> Took:
        machine, memory = self._machine, [target.extents for target in targets]
        before = [extents.bytes_of(extents.resident) for extents in memory]
        took = lists.reclaim(memory, wanted, machine.swap_free(), files_only=files_only)
        for target, extents, there in zip(targets, memory, before, strict=True):
            target.counts.reclaimed += (there - extents.bytes_of(extents.resident)) // PAGE_SIZE
        machine.counters.pswpout += took.taken - took.files
        return took

    def _spent_ns(self, took: Took) -> int:
        costs, backing = self._machine.spec.costs, self._machine.spec.backing
        swapped = took.taken - took.files
        return took.scanned * costs.look_ns + swapped * costs.out_ns(backing) + took.files * costs.file_out_ns

    # -- the ideal ------------------------------------------------------------------------------------------------

    def ideal(self, missing: int, targets: Sequence[SimTarget], *, files_only: bool, spare: bool) -> None:
        """First what was not accessed for a second, then (unless ``spare``) the rest; in each, inactive before active,
        the longest idle first, then in the order of targets and addresses. Anonymous memory only as far as swap has
        room. Of what is in memory, or INCOMING; the targets wait for it unless ``spare``."""
        idle = [self._idle(target) for target in targets]
        owner = np.repeat(np.arange(len(targets)), [len(target.extents) for target in targets])
        place = np.concatenate([np.arange(len(target.extents)) for target in targets])
        state = np.concatenate([target.extents.state for target in targets])
        size = np.concatenate([target.extents.size for target in targets])
        age = np.concatenate(idle)
        in_use = (age == 0) | ((state & np.uint32(INCOMING)) != 0)
        candidate = (node_of(state) != 0) | ((state & np.uint32(INCOMING)) != 0)
        candidate &= ~(in_use & spare)
        order = np.lexsort((place, owner, -age, (state & np.uint32(ACTIVE)) != 0, in_use))
        order = order[candidate[order]]

        anon = (state[order] & np.uint32(ANON)) != 0
        ordered = size[order]
        room = 0 if files_only else self._machine.swap_free()  # what is INCOMING has given up its place there
        before = np.cumsum(np.where(anon, ordered, 0)) - np.where(anon, ordered, 0)
        possible = np.where(anon, np.clip(room - before, 0, ordered), ordered)
        taken = np.clip(missing - (np.cumsum(possible) - possible), 0, possible)
        amount = np.zeros(len(size), np.int64)
        amount[order] = taken
        for index, target in enumerate(targets):
            self._take_out(target, amount[owner == index], spare=spare)

    def _take_out(self, target: SimTarget, amount: NDArray[np.int64], *, spare: bool) -> None:
        """The first bytes of each extent leave memory."""
        extents, costs = target.extents, self._machine.spec.costs
        goes = extents.first_parts(amount)
        moved = goes & extents.resident
        pages = extents.bytes_of(moved) // PAGE_SIZE
        swapped = extents.bytes_of(moved & extents.has(ANON)) // PAGE_SIZE
        extents.state[goes] &= KEPT
        target.counts.reclaimed += pages
        counters = self._machine.counters
        counters.pgscan_direct += pages
        counters.pgsteal_direct += pages
        counters.pswpout += swapped
        if not spare:
            out_ns = swapped * costs.out_ns(self._machine.spec.backing) + (pages - swapped) * costs.file_out_ns
            target.counts.stall_ns += out_ns

    def _idle(self, target: SimTarget) -> NDArray[np.int64]:
        """Cut the extents by how long they were not accessed: 0 in use, 1, 2, ... by the steps. One number each."""
        extents, now_ns = target.extents, self._machine.now_ns
        left = extents.spans(extents.resident | extents.has(INCOMING))
        layers: list[Spans] = []
        for step_s in reversed(_IDLE_STEPS_S):
            since_ns = now_ns - step_s * _NS_PER_S
            left = target.model.touched(left, target.schedule, since_ns, now_ns, self._machine.spec.max_pieces)
            left = union(left)
            layers.append(left)
        extents.cut(np.concatenate([layer.ravel() for layer in layers]))
        age = np.full(len(extents), len(layers), np.int64)
        for number, layer in enumerate(layers):
            age[extents.within(layer) >= 0] = len(layers) - 1 - number
        return age


def _share_out(stall_ns: int, targets: Sequence[SimTarget]) -> None:
    """Each target waits for its part of the memory that is asked for."""
    asked = [target.extents.bytes_of(target.extents.has(INCOMING)) for target in targets]
    for target, amount in zip(targets, asked, strict=True):
        target.counts.stall_ns += stall_ns * amount // max(sum(asked), 1)
