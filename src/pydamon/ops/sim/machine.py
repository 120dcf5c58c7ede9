"""The simulated machine: memory on NUMA nodes, swap, what the workloads' accesses and the schemes make of them.

What it assumes is in docs/simulator.md. It is brought up to date (`Machine.advance`) whenever somebody looks at it, and
after each aggregation; the time in between is one window. Pure: it is told the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, RequestError
from pydamon.ops.round_trips import RoundTrips
from pydamon.ops.sim.extents import (
    ACTIVE,
    ANON,
    HUGE,
    INCOMING,
    MAPPED,
    NODE_SHIFT,
    PAGE_SIZE,
    REFERENCED,
    YOUNG,
    Extents,
    Mask,
)
from pydamon.ops.sim.history import History
from pydamon.ops.sim.reclaim import Reclaimer
from pydamon.ops.sim.slowdown import count_places
from pydamon.ops.sim.summary import Counters, Summary, Times
from pydamon.ops.sim.target import SimTarget
from pydamon.spec.machine import MachineSpec
from pydamon.spec.units import format_size
from pydamon.workload.layout import Layout
from pydamon.workload.program import Accesses
from pydamon.workload.truth import Schedule

_STEP_NS = 100_000_000  # the longest window with the kernel's reclaim


class Machine:
    """The machine with its processes, from ``start_ns`` on, when they fill their memory in the order of its addresses.

    ``targets``: layout, accesses and schedule of each. Raises RequestError if they do not fit, or if the spec names
    what is not there.
    """

    def __init__(self, spec: MachineSpec, targets: Sequence[tuple[Layout, Accesses, Schedule]], start_ns: int) -> None:
        self.spec = spec
        needed = sum(place.end - place.start for layout, _, _ in targets for place in layout.regions)
        self.node_bytes = np.array(spec.node_bytes or (2 * needed,), np.int64)
        self.swap_bytes = needed if spec.swap_bytes is None else spec.swap_bytes
        self.now_ns = self._start_ns = start_ns
        self._psi_ns = self._io_psi_ns = self._full_ns = 0
        self.counters = Counters()
        self.times = Times()
        self._reclaimer = Reclaimer(self)
        self.round_trips = RoundTrips()  # of what schemes have moved
        _check_names(spec, [place.name for layout, _, _ in targets for place in layout.regions], len(targets))
        self.targets = [
            SimTarget(layout, model, schedule, _memcg(spec, index), _new_memory(layout, spec.file_regions))
            for index, (layout, model, schedule) in enumerate(targets)
        ]
        anon = sum(target.extents.bytes_of(target.extents.has(ANON)) for target in self.targets)
        room = self.total_bytes + self.swap_bytes - spec.kept_bytes(min(self.swap_bytes, anon))
        if anon > room:
            inside = " in it" if spec.swap == "zram" else ""
            swap = f"{format_size(self.swap_bytes)} of swap{inside}" if self.swap_bytes else "no swap"
            memory = f"{format_size(self.total_bytes)} of memory"
            raise RequestError(
                f"{format_size(anon)} of workloads do not fit into {memory} and {swap}",
                where="machine.node_bytes" if spec.node_bytes else "machine.swap_bytes",
            )
        self._admit()
        self.history = History(self) if spec.history else None

    # -- what there is ------------------------------------------------------------------------------------------

    @property
    def total_bytes(self) -> int:
        """Memory of all nodes."""
        return int(self.node_bytes.sum())

    def node_used(self) -> NDArray[np.int64]:
        """Used bytes per node; what is compressed in memory takes the lowest node."""
        used = np.zeros(len(self.node_bytes), np.int64)
        for target in self.targets:
            used += target.extents.node_bytes(len(used))
        used[0] += self.kept_bytes()
        return used

    def kept_bytes(self) -> int:
        """What swapped memory takes of this machine's."""
        return self.spec.kept_bytes(self.swap_bytes - self.swap_free()) if self.spec.swap == "zram" else 0

    def swap_free(self) -> int:
        """Free bytes of swap."""
        used = 0
        for target in self.targets:
            extents = target.extents
            used += extents.bytes_of(extents.has(ANON) & ~extents.resident & ~extents.has(INCOMING))
        return self.swap_bytes - used

    def free_bytes(self) -> int:
        """Free memory."""
        return self.total_bytes - int(self.node_used().sum())

    def summary(self, target: int | None = None) -> Summary:
        """The state as it was brought up to date last, of everything or of one target."""
        chosen = self.targets if target is None else [self.targets[target]]
        nodes = np.zeros(len(self.node_bytes), np.int64)
        swapped = dropped = huge = active = 0
        for one in chosen:
            extents = one.extents
            nodes += extents.node_bytes(len(nodes))
            away, anon = ~extents.resident, extents.has(ANON)
            swapped += extents.bytes_of(away & anon)
            dropped += extents.bytes_of(away & ~anon)
            huge += extents.bytes_of(extents.has(HUGE))
            active += extents.bytes_of(extents.has(ACTIVE))
        faults = sum(one.counts.faults for one in chosen)
        return Summary(
            time_ns=self.now_ns,
            resident_bytes=int(nodes.sum()),
            swapped_bytes=swapped,
            dropped_bytes=dropped,
            node_resident_bytes=tuple(nodes.tolist()),
            huge_bytes=huge,
            active_bytes=active,
            faults=faults,
            fault_bytes=faults * PAGE_SIZE,
            first_touches=sum(one.counts.first_touches for one in chosen),
            reclaimed_bytes=sum(one.counts.reclaimed for one in chosen) * PAGE_SIZE,
            stall_ns=sum(one.counts.stall_ns for one in chosen),
        )

    def fault_bytes(self) -> int:
        """What accesses have brought back so far."""
        return sum(target.counts.faults for target in self.targets) * PAGE_SIZE

    # -- metrics of goals and watermarks; see `core.goals.Metrics` -----------------------------------------------

    def free_mem_permil(self) -> int:
        """Free memory in 1/1000 of all."""
        return self.free_bytes() * 1000 // self.total_bytes

    def some_mem_psi_us(self) -> int:
        """Time in us in which some workload waited for memory; never more than has passed."""
        return self._psi_ns // 1000

    def full_mem_psi_us(self) -> int:
        """Time in us in which all workloads waited for memory at once."""
        return self._full_ns // 1000

    def some_io_psi_us(self) -> int:
        """Time in us in which some workload waited for files to be read; swap is in memory and needs no io."""
        return self._io_psi_ns // 1000

    def some_cpu_psi_us(self) -> int:
        """Time in us in which some task waited for a CPU, as the spec says."""
        now_s = (self.now_ns - self._start_ns) / 1e9
        waits = self.spec.cpu_waits
        ends = [at_s for at_s, _ in waits[1:]] + [now_s]
        waited = sum(max(min(end, now_s) - at_s, 0) * permil for (at_s, permil), end in zip(waits, ends, strict=False))
        return int(waited * 1000)

    def hugepage_bp(self) -> int:
        """What is in huge pages, in 1/10,000 of all that is not free."""
        used = self.total_bytes - self.free_bytes()
        return self.summary().huge_bytes * 10_000 // used if used > 0 else 10_000

    def node_mem_bp(self, nid: int, *, used: bool) -> int:
        """Used or free memory of a node in 1/10,000 of it; MachineError if there is no such node."""
        self.check_node(nid)
        total, taken = int(self.node_bytes[nid]), int(self.node_used()[nid])
        return (taken if used else total - taken) * 10_000 // total

    def node_memcg_bp(self, nid: int, path: str, *, used: bool) -> int:
        """What a cgroup and those below it use of a node, or the rest of the node, in 1/10,000 of the node."""
        self.check_node(nid)
        self.check_memcg(path)
        inside = path.rstrip("/")
        total, taken = int(self.node_bytes[nid]), 0
        for target in self.targets:
            if target.memcg == inside or target.memcg.startswith(inside + "/"):
                taken += int(target.extents.node_bytes(len(self.node_bytes))[nid])
        return (taken if used else total - taken) * 10_000 // total

    def active_bp(self, *, active: bool) -> int:
        """Active or inactive memory in 1/10,000 of both; 0 of nothing."""
        both = there = 0
        for target in self.targets:
            resident, marked = target.extents.resident, target.extents.has(ACTIVE)
            both += target.extents.bytes_of(resident)
            there += target.extents.bytes_of(resident & (marked == active))
        return there * 10_000 // both if both else 0

    def check_node(self, nid: int) -> None:
        """Raise MachineError if there is no NUMA node ``nid``."""
        if not 0 <= nid < len(self.node_bytes):
            text = f"NUMA node {nid} is not there; the simulated machine has nodes 0 to {len(self.node_bytes) - 1}"
            raise MachineError(text)

    def check_memcg(self, path: str) -> None:
        """Raise MachineError if no target is in the cgroup ``path`` or below it."""
        inside = path.rstrip("/")
        if not any(target.memcg == inside or target.memcg.startswith(inside + "/") for target in self.targets):
            known = ", ".join(sorted({target.memcg or "/" for target in self.targets}))
            raise MachineError(f"no cgroup {path!r} in the simulated machine; there are: {known}")

    # -- time ---------------------------------------------------------------------------------------------------

    def advance(self, now_ns: int) -> None:
        """What the workloads have accessed until ``now_ns`` comes back into memory; those that ended give theirs up."""
        # The kernel's reclaim does not wait until somebody looks.
        step_ns = _STEP_NS if self.spec.reclaim == "two-list" else now_ns - self.now_ns
        while self.now_ns < now_ns:
            self._advance(min(self.now_ns + step_ns, now_ns))

    def _advance(self, now_ns: int) -> None:
        """One window."""
        start_ns, self.now_ns = self.now_ns, now_ns
        before = [(target.counts.stall_ns, target.counts.io_stall_ns) for target in self.targets]
        for target in self.targets:
            if not target.ended:
                self._touch(target, start_ns, now_ns)
        self._admit(now_ns - start_ns)
        self._count_pressure(now_ns - start_ns, before)
        if len(self.node_bytes) > 1 or any(target.extents.has(HUGE).any() for target in self.targets):
            count_places(self.targets, self.spec.costs, len(self.node_bytes), start_ns, now_ns)
        if self.history is not None:
            self.history.note(self)
        for target in self.targets:
            end_ns = target.schedule.end_ns
            if not target.ended and end_ns is not None and end_ns <= now_ns:
                target.ended, target.left = True, target.extents.spans(target.extents.resident)
                target.extents = Extents(np.empty((0, 2), np.int64), np.empty(0, np.uint32))

    def _count_pressure(self, window_ns: int, before: Sequence[tuple[int, int]]) -> None:
        """Waits at the same time count once; workloads are taken not to wait at the same time, unless they must.

        All of them wait (``full``) as long as that happens by chance.
        """
        waited = [target.counts.stall_ns - was for target, (was, _) in zip(self.targets, before, strict=True)]
        for_io = [target.counts.io_stall_ns - was for target, (_, was) in zip(self.targets, before, strict=True)]
        self._psi_ns += min(sum(waited), window_ns)
        self._io_psi_ns += min(sum(for_io), window_ns)
        living = [ns for ns, target in zip(waited, self.targets, strict=True) if not target.ended]
        shares = [min(ns / window_ns, 1.0) for ns in living]
        self._full_ns += int(math.prod(shares) * window_ns) if shares else 0

    def _touch(self, target: SimTarget, start_ns: int, end_ns: int) -> None:
        """Mark what the target accesses in the window, and count what it waits for it."""
        extents = target.extents
        quiet = np.uint32(MAPPED | YOUNG | (REFERENCED if self.spec.reclaim == "two-list" else 0))
        open_ = (extents.state & quiet) != quiet  # for the others an access changes nothing
        if not open_.any():
            return
        touched = target.model.touched(extents.spans(open_), target.schedule, start_ns, end_ns, self.spec.max_pieces)
        if not len(touched):
            return
        touched = extents.widen(touched)
        extents.cut(touched.ravel())
        hit = extents.within(touched) >= 0
        back = hit & ~extents.resident
        target.counts.first_touches += (first := extents.bytes_of(hit & ~back & ~extents.has(MAPPED)) // PAGE_SIZE)
        target.counts.stall_ns += first * self.spec.costs.minor_fault_ns
        self._count_faults(target, back)
        extents.state[hit] |= quiet
        extents.state[back] |= np.uint32(INCOMING | ACTIVE)
        extents.settle()

    def _count_faults(self, target: SimTarget, back: Mask) -> None:
        """Those extents come back, and are waited for; neighbours that are read ahead are waited for once."""
        extents, spec, counts, counters = target.extents, self.spec, target.counts, self.counters
        anon = extents.has(ANON)
        swapped, files = back & anon, back & ~anon
        waits = _reads(extents, swapped, spec.costs.readahead(spec.backing))
        reads = _reads(extents, files, spec.costs.file_readahead)
        swap_ns, file_ns = waits * spec.costs.in_ns(spec.backing), reads * spec.costs.file_in_ns
        counts.stall_ns += swap_ns + file_ns
        counts.io_stall_ns += file_ns + (swap_ns if spec.swap == "ssd" else 0)
        counts.faults += extents.bytes_of(back) // PAGE_SIZE
        counters.pswpin += extents.bytes_of(swapped) // PAGE_SIZE
        counters.workingset_refault_anon += extents.bytes_of(swapped) // PAGE_SIZE
        counters.workingset_refault_file += extents.bytes_of(files) // PAGE_SIZE
        counters.pgmajfault += waits + reads

    # -- making room --------------------------------------------------------------------------------------------

    def _admit(self, window_ns: int = 0) -> None:
        """Give memory to what is INCOMING, after making room for it; so much time has passed."""
        incoming = sum(target.extents.bytes_of(target.extents.has(INCOMING)) for target in self.targets)
        lists = self._reclaimer.lists
        if not incoming and lists is None:
            return
        self._reclaimer.make_room(incoming, window_ns)
        for target in self.targets:
            extents = target.extents
            mask = self.place(target, extents.has(INCOMING))
            if lists is not None:
                lists.put([extents], [mask])
            target.extents.state[mask] &= ~np.uint32(INCOMING)
            target.extents.settle()

    def place(self, target: SimTarget, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Put the extents of ``mask`` (they are not in memory) on nodes with room, the lowest first; the mask after it.

        What finds no room stays out, and is not in the mask that is returned.
        """
        extents = target.extents
        room = np.cumsum(np.maximum(self.node_bytes - self.node_used(), 0))
        mask = mask[extents.cut_at_bytes(mask, np.unique(room))]
        counted = np.cumsum(np.where(mask, extents.size, 0))
        node = np.searchsorted(room, counted, "left")
        mask = mask & (node < len(room))
        extents.state[mask] |= ((node[mask] + 1) << NODE_SHIFT).astype(np.uint32)
        return mask

    def take(self, wanted: int, targets: Sequence[SimTarget], *, files_only: bool) -> int:
        """Take up to ``wanted`` bytes of these targets, as the kernel does that is asked to; how many it took.

        What is in use stays; nobody waits for it.
        """
        before = sum(target.counts.reclaimed for target in targets)
        self._reclaimer.take(wanted, targets, files_only=files_only)
        return (sum(target.counts.reclaimed for target in targets) - before) * PAGE_SIZE


def _reads(extents: Extents, mask: Mask, readahead: int) -> int:
    """How often is waited for the extents of ``mask``: one read brings so many neighbours."""
    spans = extents.spans(mask)
    pages = (spans[:, 1] - spans[:, 0]) // PAGE_SIZE
    return int((-(-pages // readahead)).sum())


def _new_memory(layout: Layout, file_regions: tuple[str, ...]) -> Extents:
    spans = np.array([(place.start, place.end) for place in layout.regions], np.int64)
    file = np.array([place.name in file_regions for place in layout.regions], np.bool_)
    state = np.where(file, 0, ANON) | (MAPPED | YOUNG | INCOMING)
    return Extents(spans, state.astype(np.uint32))


def _memcg(spec: MachineSpec, index: int) -> str:
    return spec.memcgs[index].rstrip("/") if spec.memcgs else f"/sim/{index}"


def _check_names(spec: MachineSpec, names: list[str], nr_targets: int) -> None:
    for index, name in enumerate(spec.file_regions):
        if name not in names:
            known = ", ".join(dict.fromkeys(names))
            raise RequestError(
                f"no region is called {name!r}; there are: {known}", where=f"machine.file_regions[{index}]"
            )
    if spec.memcgs and len(spec.memcgs) != nr_targets:
        text = f"has {len(spec.memcgs)} entries for {nr_targets} targets; it needs one each, or none"
        raise RequestError(text, where="machine.memcgs")


# How each metric is measured, by its name in `pydamon.spec.metrics`; of a node and a cgroup.
MEASURED: dict[str, Callable[[Machine, int, str], int]] = {
    "some_mem_psi_us": lambda machine, nid, path: machine.some_mem_psi_us(),
    "io_psi_us": lambda machine, nid, path: machine.some_io_psi_us(),
    "node_mem_used_bp": lambda machine, nid, path: machine.node_mem_bp(nid, used=True),
    "node_mem_free_bp": lambda machine, nid, path: machine.node_mem_bp(nid, used=False),
    "node_memcg_used_bp": lambda machine, nid, path: machine.node_memcg_bp(nid, path, used=True),
    "node_memcg_free_bp": lambda machine, nid, path: machine.node_memcg_bp(nid, path, used=False),
    "active_mem_bp": lambda machine, nid, path: machine.active_bp(active=True),
    "inactive_mem_bp": lambda machine, nid, path: machine.active_bp(active=False),
    "hugepage_mem_bp": lambda machine, nid, path: machine.hugepage_bp(),
}
