"""Operations set for the virtual address spaces of processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.process import Mapping, Process, ProcessGone
from pydamon.ops.applying import Applying
from pydamon.ops.base import Addresses, Applied, Hits, Ranges
from pydamon.ops.gaps import Gaps
from pydamon.ops.residency import Residencies, Residency
from pydamon.ops.sampling import PageSampler
from pydamon.primitives.base import Primitive, PrimitiveCost
from pydamon.spec import Probe, Scheme
from pydamon.spec.probes import event_of

if TYPE_CHECKING:  # needed only where there are schemes or probes
    from pydamon.ops.actions import VirtualActions
    from pydamon.ops.attributes import VirtualAttributes
    from pydamon.ops.event_hits import EventHits
    from pydamon.ops.panel import ProcessPanel
    from pydamon.ops.sharing import Sharing
    from pydamon.ops.whole_samples import WholeSampler
    from pydamon.primitives.bpf_sampler import BpfSampler

NO_RANGES: Ranges = np.empty((0, 2), np.uint64)


def three_ranges(mappings: Sequence[Mapping]) -> Ranges:
    """The ranges around the two largest gaps between mappings: usually program and heap, mmap area, stack.

    DAMON calls them three regions (docs/algorithms.md 2.8). Result: (3, 2) uint64; of two gaps of one size the lower
    counts. With fewer than two gaps there are fewer ranges (the kernel gives up there); without mappings, none.
    """
    # The vsyscall page stands in the file for every process but belongs to no address space.
    spans = sorted((m.start, m.end) for m in mappings if m.name != "[vsyscall]")
    if not spans:
        return NO_RANGES
    start = np.array([s for s, _ in spans], np.uint64)
    end = np.array([e for _, e in spans], np.uint64)
    gap = start[1:] - end[:-1]
    # A stable sort by descending size keeps the lower of equal gaps first.
    largest = np.argsort(np.iinfo(np.uint64).max - gap, kind="stable")[:2]
    cuts = np.sort(largest[gap[largest] > 0])
    lower = np.concatenate([start[:1], start[cuts + 1]])
    upper = np.concatenate([end[cuts], end[-1:]])
    return np.stack([lower, upper], axis=1)


class Closable(Protocol):
    """Something that is held open."""

    def close(self) -> None:
        """Give it back; a second time does nothing."""
        ...


class VaddrOps(Applying["VirtualActions"]):
    """Monitors processes through one primitive each (``open_primitive(process)``).

    ``initial`` gives, per target, ranges to begin with; as in the kernel, the first update replaces them by what is
    mapped. ``shared`` (what the primitives share) is closed with this.
    """

    name = "vaddr"
    on_events: Callable[[EventHits], None] | None = None  # is told what counts events of probes, once there is such
    faithful = True  # or resident pages are preferred where the primitive tells which are

    def __init__(
        self,
        processes: Sequence[Process],
        open_primitive: Callable[[Process], Primitive],
        *,
        initial: Sequence[Ranges] = (),
        rng: np.random.Generator | None = None,
        shared: Closable | None = None,
    ) -> None:
        self.nr_targets = 0
        self.processes = list(processes)
        self.primitives: list[Primitive] = []
        self.lost: dict[int, str] = {}  # target → why it cannot be monitored any more
        self._open_primitive = open_primitive
        self._shared = shared
        self._initial = list(initial)
        self._mappings: list[list[Mapping]] = []
        dice = rng if rng is not None else np.random.default_rng()
        self.sampler: PageSampler | WholeSampler = PageSampler(self, lambda target: dice)
        self._whole: WholeSampler | None = None
        self._residencies = Residencies()
        self._gaps: Gaps | None = None
        self._attributes: VirtualAttributes | None = None
        self.events: EventHits | None = None
        self._panel: ProcessPanel | None = None
        self._sharing: Sharing | None = None
        self._stepping_ns = 0  # CPU time of looking for resident memory
        try:
            for process in processes:
                check_readable(process)
                self._add_target(open_primitive(process))
        except BaseException:
            self.cleanup()
            raise

    def sample_whole(self, sampler: BpfSampler) -> None:
        """Take samples of all targets at once from now on; all primitives are `bpf`. ``sampler`` is taken over."""
        from pydamon.ops.whole_samples import WholeSampler

        assert isinstance(self.sampler, PageSampler)
        self.sampler = self._whole = WholeSampler(self, self.sampler, sampler)

    def whole_refusal(self) -> list[str]:
        """Why samples are not taken of all targets at once any more, if that is so."""
        refusal = None if self._whole is None else self._whole.refusal
        return [] if refusal is None else [f"samples are taken page by page: {refusal}"]

    def _add_target(self, primitive: Primitive) -> None:
        """The next target begins to be monitored through ``primitive``."""
        self.primitives.append(primitive)
        self._mappings.append([])
        self.nr_targets += 1

    def init(self) -> list[Ranges]:
        """Target ranges to begin with. Raises MachineError if a target may not be looked at."""
        given = dict(enumerate(ranges for ranges in self._initial[: self.nr_targets]))
        for target, process in enumerate(self.processes):
            with contextlib.suppress(ProcessGone):  # target_valid says so
                self._read_mappings(target, process.mappings())
        found = self._target_ranges([t for t in range(self.nr_targets) if not len(given.get(t, NO_RANGES))])
        return [found[target] if target in found else given[target] for target in range(self.nr_targets)]

    def update(self) -> list[Ranges | None]:
        """Target ranges now; None for a target that has ended or shows nothing (it may be exec'ing)."""
        self._update_sampler()
        ranges = self._target_ranges([target for target in range(self.nr_targets) if self._update_target(target)])
        return [ranges.get(target) for target in range(self.nr_targets)]

    def _update_sampler(self) -> None:
        if self._whole is not None:
            self._whole.update()

    def _update_target(self, target: int) -> bool:
        """Look what is mapped now; whether that is anything."""
        try:
            mappings = self.processes[target].mappings()
        except ProcessGone:
            mappings = []
        except MachineError as error:
            # A set-user-id program was executed, for example.
            self.lost[target] = str(error)
            mappings = []
        except OSError:  # too many open files, no memory: what is known stays until the next update
            mappings = []
        if mappings:
            self._read_mappings(target, mappings)
            if self._attributes is not None:
                self._attributes.forget(target)
        self.primitives[target].update()
        return bool(mappings)

    def _target_ranges(self, targets: Sequence[int]) -> dict[int, Ranges]:
        """What to monitor of these ``targets``, by what is mapped."""
        if self._gaps is None:
            return {target: three_ranges(self._mappings[target]) for target in targets}
        return self._gaps.of_mappings({target: self._mappings[target] for target in targets})

    def leave_out_gaps(self, most: int) -> None:
        """Leave out that many gaps between mappings in all, from the next init or update on (`ops.gaps`)."""
        if self._gaps is None:
            self._gaps = Gaps(most)
        self._gaps.most = most

    @property
    def gaps_left_out(self) -> int:
        """How many are, beside the two of each target that always are."""
        return 0 if self._gaps is None else self._gaps.left_out

    def _read_mappings(self, target: int, mappings: list[Mapping]) -> None:
        if mappings is not self._mappings[target] and mappings != self._mappings[target]:
            self._mappings[target] = mappings

    def residency(self, target: int) -> Residency | None:
        """Which pages of the process are there, as far as was looked; None if the kernel's way is asked for."""
        if self.faithful:
            return None
        residency = self._residencies.of(target, self.processes[target], self._mappings[target])
        self._residencies.step()
        return residency

    def resident_bytes(self, target: int, start: Addresses, end: Addresses) -> Addresses | None:
        """How much of each region is in memory, as `OperationsSet` says."""
        residency = self._residencies.of(target, self.processes[target], self._mappings[target])
        self._residencies.step()
        return residency.scan.resident_bytes(start, end)

    def why_unseen(self, target: int, start: Addresses, end: Addresses) -> dict[str, int]:
        """Why regions [start, end) cannot be watched: resident bytes by the reason, most first. Slow: for once."""
        from pydamon.ops.unseen import reasons

        def count(low: Addresses, high: Addresses) -> Addresses:
            found = self.resident_bytes(target, low, high)
            return high - low if found is None else np.minimum(found, high - low)

        return reasons(self.processes[target].pid, start, end, count)

    def check_probes(self, probes: Sequence[Probe]) -> None:
        """Raise MachineError, naming the filter, if an attribute cannot be told, or an event not be sampled, here."""
        if any(event_of(probe) is not None for probe in probes):
            self._count_events().check(probes)
        self._tell_attributes().check(probes, self.primitives, virtual=True)

    def prepare_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> None:
        """Mark the pages at ``addresses`` as not accessed: all that probes can want so far."""
        self._tell_attributes().prepare_process(target, self.processes[target], addresses, self.primitives[target])

    def apply_probes(self, target: int, addresses: Addresses, probes: Sequence[Probe]) -> Hits:
        """Which of the pages at ``addresses`` have which attribute."""
        process, primitive = self.processes[target], self.primitives[target]
        return self._tell_attributes().of_process(target, process, addresses, probes, primitive)

    def _count_events(self) -> EventHits:
        if self.events is None:
            from pydamon.ops.event_hits import EventHits

            self.events = self.sampler.events = EventHits(self._pids)
            if self.on_events is not None:
                self.on_events(self.events)
        return self.events

    def _pids(self) -> dict[int, int]:
        """The pid of each target that can be monitored now."""
        return {t: process.pid for t, process in enumerate(self.processes) if self.target_valid(t)}

    def _tell_attributes(self) -> VirtualAttributes:
        if self._attributes is None:
            from pydamon.ops.attributes import VirtualAttributes

            self._attributes = VirtualAttributes()
        return self._attributes

    def reset_aggregated(self) -> None:
        """Nothing is kept here between aggregations."""

    def target_valid(self, target: int) -> bool:
        """Whether the process lives and may be looked at."""
        return target not in self.lost and self.processes[target].alive()

    def may_grow(self) -> bool:
        """The processes are those that were given."""
        return False

    def cost(self) -> PrimitiveCost:
        """What the primitives of all targets have cost so far, also of those that have ended."""
        total = PrimitiveCost()
        for primitive in self.primitives:
            total.add(primitive.cost)
        self._add_sampler_cost(total)
        return total

    def _add_sampler_cost(self, total: PrimitiveCost) -> None:
        if self._whole is not None:
            total.add(self._whole.cost)

    def side_rows(self, start: Addresses, end: Addresses) -> dict[str, list[dict[str, Any]]]:
        """Nothing: the regions are the processes' own."""
        return {}

    def mappings(self, target: int) -> list[Mapping]:
        """What the process had mapped at the last init or update."""
        return self._mappings[target]

    # -- the page panel, of targets whose primitive is `bpf` --------------------------------------------------------

    def resident(self, target: int) -> tuple[Ranges, Ranges] | None:
        """What of the process is in memory, and what was looked at for that, see `PanelOps`."""
        residency = self._residencies.of(target, self.processes[target], self._mappings[target])
        began_ns = time.thread_time_ns()
        self._residencies.step()
        self._stepping_ns += time.thread_time_ns() - began_ns
        scan = residency.scan
        return None if scan.obstacle is not None else (scan.runs.runs, scan.runs.seen)

    def look_at_panel(self, target: int, addresses: Addresses) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which pages were accessed since the last call, and of which that is not known, see `PanelOps`."""
        if self._panel is None:
            from pydamon.ops.panel import ProcessPanel

            self._panel = ProcessPanel(self, self._whole)
        return self._panel.look(target, addresses)

    def also_mapped(self, owner: NDArray[np.intp], addresses: Addresses, target: int) -> Addresses | None:
        """Where ``target`` maps pages of others, see `PanelOps`."""
        if self._sharing is None:
            from pydamon.ops.sharing import Sharing

            self._sharing = Sharing(self)
        return self._sharing.also_mapped(owner, addresses, target)

    def panel_cpu_ns(self) -> int:
        """CPU time of this thread, without that of looking for resident memory, which has a bound of its own."""
        return time.thread_time_ns() - self._stepping_ns

    def apply_scheme(
        self, target: int, scheme: Scheme, start: Addresses, end: Addresses, allowed: NDArray[np.bool_]
    ) -> Applied:
        """Apply the scheme's action to regions of a process, as `ActingOperationsSet` says."""
        if self._panel is not None and not self.dry_run:
            self._panel.before_action(target, start, end)
        return super().apply_scheme(target, scheme, start, end, allowed)

    # -- schemes (see `pydamon.ops.actions`) ------------------------------------------------------------------------

    def _make_actions(self) -> VirtualActions:
        from pydamon.ops.actions import VirtualActions

        return VirtualActions(self, dry_run=self.dry_run, remember_homes=self.remember_homes)

    def cleanup(self) -> None:
        """Close primitives and processes."""
        self.close_actions()
        if self._attributes is not None:
            self._attributes.close()
        if self.events is not None:
            self.events.close()
        if self._whole is not None:
            self._whole.close()
        for primitive in self.primitives:
            primitive.close()
        for process in self.processes:
            process.close()
        if self._shared is not None:
            self._shared.close()


def check_readable(process: Process) -> None:
    """Raise MachineError if this user may not look at what the process has mapped."""
    with contextlib.suppress(ProcessGone):  # that shows elsewhere
        process.check_readable()


def troubles(primitives: Sequence[Primitive]) -> list[str]:
    """What primitives have to say about refusals of the kernel; most have nothing."""
    found = [getattr(primitive, "trouble", None) for primitive in primitives]
    return [line for line in found if line]
