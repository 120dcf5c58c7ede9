"""Operations set for simulated processes, in virtual time.

Each target is a process that plays a workload. Nothing is touched or stored per page: whether a page was accessed
between ``prepare`` and ``check`` is computed from the pattern for the asked pages only (``workload.closed_form``), so
that the cost depends on the number of regions, not on the memory.

Schemes act on a simulated machine (`sim_machine`): where memory is, what accesses bring back, what that costs. It
changes nothing in what is accessed when.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import RequestError, located
from pydamon.linux.process import Mapping
from pydamon.ops.base import Addresses, Applied, Hits, Ranges
from pydamon.ops.pace import Clock
from pydamon.ops.sim import actions
from pydamon.ops.sim.machine import MEASURED, Machine
from pydamon.ops.sim.replay import Played
from pydamon.ops.sim.sampler import WindowSampler
from pydamon.ops.sim.summary import Summary
from pydamon.ops.vaddr import three_ranges
from pydamon.primitives.base import ACCESSED, UNKNOWN, Answers, PrimitiveCost
from pydamon.spec import Probe, Scheme
from pydamon.spec.machine import MachineSpec
from pydamon.spec.schemes import FILTERS_OF_PROBES_ONLY
from pydamon.workload.layout import Layout
from pydamon.workload.model import Workload
from pydamon.workload.program import Phases, Program
from pydamon.workload.truth import GroundTruth, Schedule

# What our own runner makes of one CPU (2 GHz class, one NumPy thread): 85-140 million/s at a stride of 4 KiB within
# 100 MiB, 40-65 million/s within 1 GiB, 15-35 million/s at random. One number has to do for all: the middle.
DEFAULT_ACCESSES_PER_S = 50_000_000
# Where the first region lies: where processes have mappings, and with room for the largest workload below 2**47.
BASE_ADDRESS = 0x7000_0000_0000
_NEVER = int(np.iinfo(np.int64).max)


class SimPages:
    """The primitive of one simulated process: any page can be watched, and nothing is disturbed by it."""

    name = "sim"

    def __init__(self, ops: SimOps, target: int, clock: Clock) -> None:
        self.cost = PrimitiveCost()
        self._ops = ops
        self._target = target
        self._clock = clock
        self._since_ns = 0
        self._addresses: Addresses = np.empty(0, np.uint64)

    def prepare(self, addresses: Addresses) -> NDArray[np.bool_]:
        """The windows of the pages begin now."""
        self._since_ns, self._addresses = self._clock.now_ns(), addresses
        return np.ones(len(addresses), np.bool_)

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> NDArray[np.bool_]:
        """Other pages instead of those at ``index``; their windows began with the others'."""
        self._addresses[index] = addresses
        return np.ones(len(index), np.bool_)

    def check(self) -> Answers:
        """Exact for the windows since ``prepare``."""
        return self._ops.answers(self._target, self._addresses, self._since_ns)

    def not_idle(self, addresses: Addresses) -> NDArray[np.bool_]:
        """Whether these pages were accessed since they were prepared; so were those of which nobody has made a note."""
        if not np.array_equal(addresses, self._addresses):
            return np.ones(len(addresses), np.bool_)
        found: NDArray[np.bool_] = self.check() == ACCESSED
        return found

    def update(self) -> None:
        """Mappings stay."""

    def close(self) -> None:
        """Nothing to give back."""


class SimOps:
    """Simulated processes, a target per workload or other program, that start at ``init``, end after their last phase.

    ``mapping`` is ``separate`` or ``one`` as for a real workload process, ``repeat`` 0 plays for ever, ``time_scale``
    multiplies the phases' durations. Equal arguments give equal answers. Raises RequestError for nonsense ones.

    A target's range is the span from its first to its last mapping, as ``vaddr`` sees a real workload process: the
    small gaps between mappings belong to it and are never accessed. So there is one range, however many mappings. That
    of another program has up to three, around its two largest gaps; a recording has those that were monitored.

    ``machine`` is what all targets run on; from the beginning their memory is there as far as it fits. The metrics of
    goals and watermarks are methods of this class, and say how the machine is now.

    ``shared`` names regions that are the same memory in all targets that have one of that name: of processes that map
    it together. Each of them accesses it as its own workload says; for the machine it is memory of each.
    """

    name = "sim"

    def __init__(
        self,
        workloads: Workload | Program | Sequence[Workload | Program],
        clock: Clock,
        *,
        mapping: str = "separate",
        seed: int = 0,
        accesses_per_s: int = DEFAULT_ACCESSES_PER_S,
        repeat: int = 1,
        time_scale: float = 1.0,
        machine: MachineSpec | None = None,
        shared: Collection[str] = (),
    ) -> None:
        if accesses_per_s <= 0:
            raise RequestError(f"{accesses_per_s} accesses per second; it must be positive", where="accesses_per_s")
        if repeat < 0 or not 0 < time_scale <= 1e6:
            raise RequestError(f"repeat {repeat}, time scale {time_scale}: negative or not finite", where="workload")
        given = list(workloads) if isinstance(workloads, Sequence) else [workloads]
        self._programs = [Phases(one) if isinstance(one, Workload) else one for one in given]
        self.nr_targets = len(self._programs)
        self.truths: list[GroundTruth] = []  # per target that is a workload of phases, from ``init`` on
        self._schedules: list[Schedule] = []  # per target, from ``init`` on
        self._clock = clock
        self._repeat = repeat
        self._time_scale = time_scale
        self._layouts = [program.place(BASE_ADDRESS, mapping) for program in self._programs]
        self._mappings = [
            _mappings(program, layout) for program, layout in zip(self._programs, self._layouts, strict=True)
        ]
        self._models = [
            program.accesses(layout, accesses_per_s, seed + index)
            for index, (program, layout) in enumerate(zip(self._programs, self._layouts, strict=True))
        ]
        self._dice = [np.random.default_rng((seed, index)) for index in range(self.nr_targets)]
        self.primitives = [SimPages(self, target, clock) for target in range(self.nr_targets)]
        self.sampler = WindowSampler(self)
        self._panels: dict[int, tuple[Addresses, int]] = {}  # pages that were asked about last, and when
        self._shared = [
            {place.name: place for place in layout.regions if place.name in shared} for layout in self._layouts
        ]
        self._machine_spec = machine if machine is not None else MachineSpec()
        self._machine = self._new_machine()

    def init(self) -> list[Ranges]:
        """Start the processes now, on the clock."""
        self._machine = self._new_machine()
        self._schedules = [target.schedule for target in self._machine.targets]
        self.truths = [
            GroundTruth(program.workload, target.layout, target.schedule)
            for program, target in zip(self._programs, self._machine.targets, strict=True)
            if isinstance(program, Phases)
        ]
        return [self._range(target) for target in range(self.nr_targets)]

    def _new_machine(self) -> Machine:
        """The machine with the processes that start now."""
        now_ns = self._clock.now_ns()
        schedules = [
            program.schedule(now_ns, repeat=self._repeat, time_scale=self._time_scale) for program in self._programs
        ]
        return Machine(self._machine_spec, list(zip(self._layouts, self._models, schedules, strict=True)), now_ns)

    def update(self) -> list[Ranges | None]:
        """The same ranges all the time; None for a process that has ended."""
        return [self._range(target) if self.target_valid(target) else None for target in range(self.nr_targets)]

    def _range(self, target: int) -> Ranges:
        layout, program = self._layouts[target], self._programs[target]
        if isinstance(program, Phases):
            return np.array([[layout.start, layout.end]], dtype=np.uint64)
        if isinstance(program, Played):
            return program.ranges
        return three_ranges(self._mappings[target])

    def answers(self, target: int, addresses: Addresses, since_ns: int) -> Answers:
        """Exact for the window from ``since_ns`` to now; UNKNOWN once the process has ended: no page is left."""
        if not self.target_valid(target):
            return np.full(len(addresses), UNKNOWN, dtype=np.uint8)
        return self.accessed(target, addresses, since_ns, self._clock.now_ns()).astype(np.uint8)

    def residency(self, target: int) -> None:
        """Pages are asked as they come: what the pattern accesses is there."""

    def resident_bytes(self, target: int, start: Addresses, end: Addresses) -> NDArray[np.uint64]:
        """How much of each region is in the machine's memory now: exact."""
        return actions.resident_bytes(self.machine, target, start, end)

    def accessed(self, target: int, addresses: Addresses, start_ns: int, end_ns: int) -> NDArray[np.bool_]:
        """Whether the page of each address (uint64, shape (n,)) is accessed in [start_ns, end_ns), past or future."""
        return self._models[target].accessed(addresses, self._schedules[target], start_ns, end_ns)

    def accessed_in(self, target: int, addresses: Addresses, windows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The same of pages of shape (k, n), each in the window of its row (shape (k, 2)); as many calls of it."""
        return self._models[target].accessed_in(addresses, self._schedules[target], windows)

    def ends_ns(self, targets: Sequence[int]) -> NDArray[np.int64]:
        """When each of the targets ends; the largest number for one that never does."""
        ends = [self._schedules[target].end_ns if self._schedules else None for target in targets]
        return np.array([_NEVER if end is None else min(end, _NEVER) for end in ends], np.int64)

    def dice(self, target: int) -> np.random.Generator:
        """What draws the pages that are sampled."""
        return self._dice[target]

    def resident(self, target: int) -> tuple[Ranges, Ranges]:
        """What of the process is in memory, as of the last aggregation, and all that it has mapped."""
        extents, layout = self._machine.targets[target].extents, self._layouts[target]
        mapped = np.array([(place.start, place.end) for place in layout.regions], np.uint64)
        return extents.spans(extents.resident).astype(np.uint64), mapped

    def look_at_panel(self, target: int, addresses: Addresses) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Exact, and nothing is unknown."""
        now_ns = self._clock.now_ns()
        before, since_ns = self._panels.get(target, (addresses[:0], now_ns))
        self._panels[target] = addresses, now_ns
        asked = np.isin(addresses, before)
        accessed = np.zeros(len(addresses), np.bool_)
        accessed[asked] = self.accessed(target, addresses[asked], since_ns, now_ns)
        return accessed, np.zeros(len(addresses), np.bool_)

    def also_mapped(self, owner: NDArray[np.intp], addresses: Addresses, target: int) -> Addresses:
        """Exact: shared regions, as far as they are in memory for ``target``."""
        found = np.zeros(len(addresses), np.uint64)
        for other in np.unique(owner[owner != target]).tolist():
            for name in self._shared[target].keys() & self._shared[other].keys():
                here, there = self._shared[target][name], self._shared[other][name]
                size = min(here.end - here.start, there.end - there.start)
                low, high = np.uint64(there.start), np.uint64(there.start + size)
                mine = (owner == other) & (addresses >= low) & (addresses < high)
                found[mine] = addresses[mine] - low + np.uint64(here.start)
        runs, _ = self.resident(target)
        starts = np.concatenate([np.zeros(1, np.uint64), runs[:, 0]])
        ends = np.concatenate([np.zeros(1, np.uint64), runs[:, 1]])
        found[found >= ends[np.searchsorted(starts, found, "right") - 1]] = 0
        return found

    def panel_cpu_ns(self) -> int:
        """It takes no virtual time."""
        return 0

    def reset_aggregated(self) -> None:
        """The machine is brought up to date: memory comes back when it is accessed, not when somebody looks."""
        self._machine.advance(self._clock.now_ns())

    def target_valid(self, target: int) -> bool:
        """Whether the workload still has a phase to play."""
        if not self._schedules:
            return True  # it has not begun
        end_ns = self._schedules[target].end_ns
        return end_ns is None or self._clock.now_ns() < end_ns

    def may_grow(self) -> bool:
        """All targets are there from the beginning."""
        return False

    def cleanup(self) -> None:
        """Nothing to give back."""

    def mappings(self, target: int) -> list[Mapping]:
        """What ``/proc/PID/maps`` of the process would show; the same list each time."""
        return self._mappings[target]

    def pid(self, target: int) -> int | None:
        """None: a simulated process has no id."""
        return None

    # -- probes and schemes ---------------------------------------------------------------------------------------

    def check_probes(self, probes: Sequence[Probe]) -> None:
        """Raise MachineError if a filter names a cgroup that the machine does not have."""
        for number, probe in enumerate(probes):
            with located(f"[{number}]"):
                actions.check_filters(self._machine, probe.filters)

    def prepare_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> None:
        """The pages at ``addresses`` are idle from now on, until they are accessed."""
        self.primitives[target].prepare(addresses)

    def apply_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> Hits:
        """Which of the pages at ``addresses`` have which attribute, as the machine is now."""
        accessed = np.ones(len(addresses), np.bool_)
        if any(item.filter_type in FILTERS_OF_PROBES_ONLY for probe in probes for item in probe.filters):
            accessed = self.primitives[target].not_idle(addresses)
        return actions.attributes(self.machine, target, addresses, probes, accessed)

    def check_scheme(self, scheme: Scheme) -> None:
        """Raise MachineError if ``scheme`` names a NUMA node or a cgroup that the machine does not have."""
        actions.check_scheme(self._machine, scheme)

    def apply_scheme(
        self, target: int, scheme: Scheme, start: Addresses, end: Addresses, allowed: NDArray[np.bool_]
    ) -> Applied:
        """Apply the scheme's action now; exact, see docs/simulator.md. Nothing for a process that has ended."""
        return actions.apply_scheme(self.machine, target, scheme, start, end, allowed)

    def node_bytes(self, target: int, start: Addresses, end: Addresses, nid: int) -> int:
        """Resident bytes of the ranges that are on the NUMA node ``nid``."""
        return actions.node_bytes(self.machine, target, start, end, nid)

    @property
    def machine(self) -> Machine:
        """The machine as it is now."""
        self._machine.advance(self._clock.now_ns())
        return self._machine

    def summary(self, target: int | None = None) -> Summary:
        """Where memory is now and what was waited for, of everything or of one target."""
        return self.machine.summary(target)

    def free_mem_permil(self) -> int:
        """Free memory in 1/1000 of all."""
        return self.machine.free_mem_permil()

    def refaulted_bytes(self) -> int:
        """What accesses have brought back of what was out."""
        return self.machine.fault_bytes()

    def measure(self, metric: str, nid: int, memcg_path: str) -> int:
        """A metric of the simulated machine in its unit; MachineError if there is no such node or cgroup."""
        return MEASURED[metric](self.machine, nid, memcg_path)


def _mappings(program: Program, layout: Layout) -> list[Mapping]:
    if isinstance(program, Played) and program.mappings:
        return program.mappings
    return [Mapping(place.start, place.end, "rw-p", 0, 0, place.name) for place in layout.mappings]
