"""The simulated machine: memory on NUMA nodes, swap, what the workloads' accesses and the schemes make of them.

What it assumes is in docs/simulator.md. It is brought up to date (`Machine.advance`) whenever somebody looks at it, and
after each aggregation; the time in between is one window. Pure: it is told the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, RequestError
from pydamon.ops.round_trips import RoundTrips
from pydamon.ops.sim.extents import ACTIVE, ANON, HUGE, INCOMING, KEPT, MAPPED, NODE_SHIFT, PAGE_SIZE, YOUNG, Extents
from pydamon.spec.schemes import MAX_NODE
from pydamon.spec.units import format_size
from pydamon.workload.closed_form import MAX_PIECES, AccessModel
from pydamon.workload.intervals import Spans, union
from pydamon.workload.layout import Layout
from pydamon.workload.truth import Schedule

MAX_BYTES = 1 << 50
# How long memory was not accessed is known in these steps (s) when the machine makes room; below the first: in use.
_IDLE_STEPS_S = (1, 4, 16, 64, 256, 1024, 4096)
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Costs:
    """What things take, in ns: assumptions, of the order of a 3 GHz machine with compressed swap in memory.

    ``region`` is per region of an application, ``look`` per page in memory that it looks at. The others are per page of
    4 KiB that is really moved or marked, ``fault`` per page that an access of the workload brings back.
    """

    region: int = 500
    look: int = 20
    pageout: int = 2_500
    willneed: int = 5_000
    mark: int = 100
    collapse: int = 300
    migrate: int = 1_500
    fault: int = 20_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            value = getattr(self, name)
            if not 0 <= value <= _NS_PER_S:
                raise RequestError(f"is {value} ns; it must be 0 to {_NS_PER_S}", where=f"machine.costs.{name}")


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """What the simulated machine has.

    ``node_bytes``: memory of NUMA node 0, 1, ...; by default one node with twice what the workloads need.
    ``swap_bytes``: by default as much as the workloads need. ``file_regions``: names of the regions of workloads that
    are files mapped to memory, never written: dropped instead of swapped. ``memcgs``: the cgroup of each target, by
    default ``/sim/0``, ``/sim/1``, ... ``max_pieces``: see `AccessModel.touched`. ``cpu_waits``: from how many
    seconds on tasks wait for a CPU for how many 1/1000 of the time; before the first they do not. Raises RequestError.
    """

    node_bytes: tuple[int, ...] = ()
    swap_bytes: int | None = None
    file_regions: tuple[str, ...] = ()
    memcgs: tuple[str, ...] = ()
    costs: Costs = field(default_factory=Costs)
    max_pieces: int = MAX_PIECES
    cpu_waits: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if len(self.node_bytes) > MAX_NODE + 1:
            text = f"has {len(self.node_bytes)} nodes; the most is {MAX_NODE + 1}"
            raise RequestError(text, where="machine.node_bytes")
        for node, size in enumerate(self.node_bytes):
            _check_size(size, PAGE_SIZE, f"machine.node_bytes[{node}]")
        if self.swap_bytes is not None:
            _check_size(self.swap_bytes, 0, "machine.swap_bytes")
        for index, path in enumerate(self.memcgs):
            if not path.startswith("/"):
                raise RequestError(
                    f"{path!r} is no path of a cgroup; it begins with /", where=f"machine.memcgs[{index}]"
                )
        for index, (at_s, permil) in enumerate(self.cpu_waits):
            if not 0 <= permil <= 1000 or at_s < (self.cpu_waits[index - 1][0] if index else 0):
                text = f"is {at_s} s, {permil}; times must not fall, and 0 to 1000 be waited"
                raise RequestError(text, where=f"machine.cpu_waits[{index}]")
        if not 1 <= self.max_pieces <= 1 << 20:
            raise RequestError(f"is {self.max_pieces}; it must be 1 to {1 << 20}", where="machine.max_pieces")


def _check_size(size: int, low: int, where: str) -> None:
    if not low <= size <= MAX_BYTES or size % PAGE_SIZE:
        raise RequestError(f"is {size} bytes; it must be {low} to {MAX_BYTES}, in pages of {PAGE_SIZE}", where=where)


@dataclass(frozen=True, slots=True)
class Summary:
    """The machine, or one target on it, at ``time_ns``. Bytes unless said; counters are since the start.

    ``swapped_bytes`` is anonymous memory in swap, ``dropped_bytes`` memory of files that would have to be read again.
    ``faults`` are pages that an access brought back, ``first_touches`` pages that were in memory (after ``willneed``)
    when they were accessed again. ``stall_ns`` is what the workloads waited for memory in all.
    ``reclaimed_bytes`` were moved out by the machine itself to make room, not by a scheme.
    """

    time_ns: int
    resident_bytes: int
    swapped_bytes: int
    dropped_bytes: int
    node_resident_bytes: tuple[int, ...]
    huge_bytes: int
    active_bytes: int
    faults: int
    fault_bytes: int
    first_touches: int
    reclaimed_bytes: int
    stall_ns: int


@dataclass(slots=True)
class _Counts:
    """What has happened to one target, in pages and ns."""

    faults: int = 0
    first_touches: int = 0
    reclaimed: int = 0
    stall_ns: int = 0
    io_stall_ns: int = 0  # of that, until files were read


@dataclass(slots=True)
class SimTarget:
    """One simulated process: where its memory lies, and how it accesses it. ``left`` is what it had when it ended."""

    layout: Layout
    model: AccessModel
    schedule: Schedule
    memcg: str
    extents: Extents
    counts: _Counts = field(default_factory=_Counts)
    ended: bool = False
    left: Spans | None = None


class Machine:
    """The machine with its processes, from ``start_ns`` on, when they fill their memory in the order of its addresses.

    ``targets``: layout, accesses and schedule of each. Raises RequestError if they do not fit, or if the spec names
    what is not there.
    """

    def __init__(
        self, spec: MachineSpec, targets: Sequence[tuple[Layout, AccessModel, Schedule]], start_ns: int
    ) -> None:
        self.spec = spec
        needed = sum(place.end - place.start for layout, _, _ in targets for place in layout.regions)
        self.node_bytes = np.array(spec.node_bytes or (2 * needed,), np.int64)
        self.swap_bytes = needed if spec.swap_bytes is None else spec.swap_bytes
        self.now_ns = self._start_ns = start_ns
        self._psi_ns = self._io_psi_ns = 0
        self.round_trips = RoundTrips()  # of what schemes have moved
        _check_names(spec, [place.name for layout, _, _ in targets for place in layout.regions], len(targets))
        self.targets = [
            SimTarget(layout, model, schedule, _memcg(spec, index), _new_memory(layout, spec.file_regions))
            for index, (layout, model, schedule) in enumerate(targets)
        ]
        anon = sum(target.extents.bytes_of(target.extents.has(ANON)) for target in self.targets)
        if anon > self.total_bytes + self.swap_bytes:
            raise RequestError(
                f"{format_size(anon)} of workloads do not fit into {format_size(self.total_bytes)} of memory and "
                f"{format_size(self.swap_bytes)} of swap",
                where="machine.node_bytes" if spec.node_bytes else "machine.swap_bytes",
            )
        self._admit()

    # -- what there is ------------------------------------------------------------------------------------------

    @property
    def total_bytes(self) -> int:
        """Memory of all nodes."""
        return int(self.node_bytes.sum())

    def node_used(self) -> NDArray[np.int64]:
        """Used bytes per node."""
        used = np.zeros(len(self.node_bytes), np.int64)
        for target in self.targets:
            used += target.extents.node_bytes(len(used))
        return used

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

    def some_io_psi_us(self) -> int:
        """Time in us in which some workload waited for files to be read; swap is in memory and needs no io."""
        return self._io_psi_ns // 1000

    def some_cpu_psi_us(self) -> int:
        """Time in us in which some task waited for a CPU, as the spec says."""
        now_s = (self.now_ns - self._start_ns) / _NS_PER_S
        waits = self.spec.cpu_waits
        ends = [at_s for at_s, _ in waits[1:]] + [now_s]
        waited = sum(max(min(end, now_s) - at_s, 0) * permil for (at_s, permil), end in zip(waits, ends, strict=False))
        return int(waited * 1000)

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
        if now_ns <= self.now_ns:
            return
        start_ns, self.now_ns = self.now_ns, now_ns
        io_before_ns = sum(target.counts.io_stall_ns for target in self.targets)
        stall_ns = sum(self._touch(target, start_ns, now_ns) for target in self.targets if not target.ended)
        stall_ns += self._admit()
        # Waits at the same time count once; workloads are taken not to wait at the same time, unless they must.
        self._psi_ns += min(stall_ns, now_ns - start_ns)
        io_ns = sum(target.counts.io_stall_ns for target in self.targets) - io_before_ns
        self._io_psi_ns += min(io_ns, now_ns - start_ns)
        for target in self.targets:
            end_ns = target.schedule.end_ns
            if not target.ended and end_ns is not None and end_ns <= now_ns:
                target.ended, target.left = True, target.extents.spans(target.extents.resident)
                target.extents = Extents(np.empty((0, 2), np.int64), np.empty(0, np.uint32))

    def _touch(self, target: SimTarget, start_ns: int, end_ns: int) -> int:
        """Mark what the target accesses in the window; the time in ns that it waits for it."""
        extents = target.extents
        quiet = np.uint32(MAPPED | YOUNG)
        open_ = (extents.state & quiet) != quiet  # for the others an access changes nothing
        if not open_.any():
            return 0
        touched = target.model.touched(extents.spans(open_), target.schedule, start_ns, end_ns, self.spec.max_pieces)
        if not len(touched):
            return 0
        touched = extents.widen(touched)
        extents.cut(touched.ravel())
        hit = extents.within(touched) >= 0
        back = hit & ~extents.resident
        faults = extents.bytes_of(back) // PAGE_SIZE
        reads = extents.bytes_of(back & ~extents.has(ANON)) // PAGE_SIZE
        first = extents.bytes_of(hit & ~back & ~extents.has(MAPPED)) // PAGE_SIZE
        extents.state[hit] |= quiet
        extents.state[back] |= np.uint32(INCOMING | ACTIVE)
        extents.settle()
        costs, counts = self.spec.costs, target.counts
        stall_ns = faults * costs.fault
        counts.faults += faults
        counts.first_touches += first
        counts.stall_ns += stall_ns
        counts.io_stall_ns += reads * costs.fault
        return stall_ns

    # -- making room --------------------------------------------------------------------------------------------

    def _admit(self) -> int:
        """Give memory to what is INCOMING, after making room for it; the time in ns that somebody waited for that."""
        incoming = sum(target.extents.bytes_of(target.extents.has(INCOMING)) for target in self.targets)
        if not incoming:
            return 0
        missing = incoming - self.free_bytes()
        stall_ns = self._reclaim(missing) if missing > 0 else 0
        for target in self.targets:
            extents = target.extents
            mask = self.place(target, extents.has(INCOMING))
            target.extents.state[mask] &= ~np.uint32(INCOMING)
            target.extents.settle()
        return stall_ns

    def place(self, target: SimTarget, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Put the extents of ``mask`` (they are not in memory) on nodes with room, the lowest first; the mask after it.

        What finds no room stays out, and is not in the mask that is returned.
        """
        extents = target.extents
        room = np.cumsum(self.node_bytes - self.node_used())
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
        self._make_room(wanted, targets, files_only=files_only, spare=True)
        return (sum(target.counts.reclaimed for target in targets) - before) * PAGE_SIZE

    def _reclaim(self, missing: int) -> int:
        """Take ``missing`` bytes of what is in memory or INCOMING; the time in ns that the workloads wait for that."""
        before_ns = sum(target.counts.stall_ns for target in self.targets)
        self._make_room(missing, self.targets, files_only=False, spare=False)
        return sum(target.counts.stall_ns for target in self.targets) - before_ns

    def _make_room(self, missing: int, targets: Sequence[SimTarget], *, files_only: bool, spare: bool) -> None:
        """First what was not accessed for a second, then (unless ``spare``) the rest; in each, inactive before active,
        the longest idle first, then in the order of targets and addresses. Anonymous memory only as far as swap has
        room."""
        idle = [self._idle(target) for target in targets]
        owner = np.repeat(np.arange(len(targets)), [len(target.extents) for target in targets])
        place = np.concatenate([np.arange(len(target.extents)) for target in targets])
        state = np.concatenate([target.extents.state for target in targets])
        size = np.concatenate([target.extents.size for target in targets])
        age = np.concatenate(idle)
        in_use = (age == 0) | ((state & np.uint32(INCOMING)) != 0)
        candidate = ((state >> NODE_SHIFT) != 0) | ((state & np.uint32(INCOMING)) != 0)
        candidate &= ~(in_use & spare)
        order = np.lexsort((place, owner, -age, (state & np.uint32(ACTIVE)) != 0, in_use))
        order = order[candidate[order]]

        anon = (state[order] & np.uint32(ANON)) != 0
        ordered = size[order]
        room = 0 if files_only else self.swap_free()  # what is INCOMING has given up its place there
        before = np.cumsum(np.where(anon, ordered, 0)) - np.where(anon, ordered, 0)
        possible = np.where(anon, np.clip(room - before, 0, ordered), ordered)
        taken = np.clip(missing - (np.cumsum(possible) - possible), 0, possible)
        amount = np.zeros(len(size), np.int64)
        amount[order] = taken

        for index, target in enumerate(targets):
            extents, mine = target.extents, amount[owner == index]
            partly = (mine > 0) & (mine < extents.size)
            origin = extents.cut(extents.start[partly] + mine[partly])
            # Of one that was cut the first part goes.
            goes = (mine[origin] > 0) & ~(partly[origin] & np.append(False, origin[1:] == origin[:-1]))
            moved = goes & extents.resident
            extents.state[goes] &= KEPT
            pages = extents.bytes_of(moved) // PAGE_SIZE
            target.counts.reclaimed += pages
            target.counts.stall_ns += 0 if spare else pages * self.spec.costs.pageout

    def _idle(self, target: SimTarget) -> NDArray[np.int64]:
        """Cut the extents by how long they were not accessed: 0 in use, 1, 2, ... by the steps. One number each."""
        extents, now_ns = target.extents, self.now_ns
        left = extents.spans(extents.resident | extents.has(INCOMING))
        layers: list[Spans] = []
        for step_s in reversed(_IDLE_STEPS_S):
            left = target.model.touched(
                left, target.schedule, now_ns - step_s * _NS_PER_S, now_ns, self.spec.max_pieces
            )
            left = union(left)
            layers.append(left)
        extents.cut(np.concatenate([layer.ravel() for layer in layers]))
        age = np.full(len(extents), len(layers), np.int64)
        for number, layer in enumerate(layers):
            age[extents.within(layer) >= 0] = len(layers) - 1 - number
        return age


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
}
