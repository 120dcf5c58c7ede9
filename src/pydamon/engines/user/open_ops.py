"""The operations set that a spec asks for, over this machine's processes or its physical memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from pydamon.engines.base import Choice, Rows
from pydamon.engines.user.access import Access
from pydamon.engines.user.choose import choose
from pydamon.errors import MachineError, RequestError, located
from pydamon.linux.process import Process
from pydamon.ops.base import ActingOperationsSet, Addresses, ProbingOperationsSet, Ranges
from pydamon.ops.membership import Children, Membership, Pids
from pydamon.ops.vaddr import NO_RANGES, VaddrOps
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec import ONLY_CONTEXT, Context, Target
from pydamon.spec.primitives import serving
from pydamon.spec.probes import attributes_only, event_of

if TYPE_CHECKING:
    from pydamon.ops.actions.common import Actions
    from pydamon.ops.reported.reports import AccessFilter
    from pydamon.ops.reported.sources.base import LiveSource

PROCESS_OPS = ("vaddr", "fvaddr")
LIVE_OPS = (*PROCESS_OPS, "paddr")


class LiveOps(ActingOperationsSet, ProbingOperationsSet, Protocol):
    """What the operations sets of running processes and of physical memory tell beside their contract."""

    processes: list[Process]
    lost: dict[int, str]
    dry_run: bool
    remember_homes: bool
    faithful: bool

    def take_joined(self) -> list[dict[str, Any]]:
        """Who has become a target since the last call (rows of the table ``targets``)."""
        ...

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        ...

    def remarks(self) -> list[str]:
        """What to say at the end."""
        ...

    def side_rows(self, start: Addresses, end: Addresses) -> dict[str, Rows]:
        """Rows of further side tables about regions [start, end) of target 0, by table, if there are new ones."""
        ...

    def live_pids(self) -> dict[int, int]:
        """The pid of each target that is valid now."""
        ...

    @property
    def actions(self) -> Actions:
        """What applies schemes."""
        ...

    def cost(self) -> PrimitiveCost:
        """What asking has cost so far."""
        ...


def choose_for(context: Context) -> Choice:
    """The primitive for ``context``. Raises MachineError if it cannot be used, RequestError if it does not fit."""
    if context.ops != "paddr":
        return choose(context.primitive)
    (only,) = serving("paddr")
    if context.primitive not in ("auto", only):
        raise RequestError(
            f"asks processes; physical memory is asked through {only}", where=f"primitive {context.primitive}"
        )
    try:
        choice = choose(only)
    except MachineError as error:
        raise MachineError(error.message, where="ops paddr") from None
    return Choice(choice.name, "the primitive for physical memory")


def check_attributes(context: Context) -> None:
    """Raise MachineError, naming the filter, if this user cannot be told the attributes that the probes count."""
    if context.probes:
        from pydamon.linux import perf_pmu
        from pydamon.ops.attributes import Attributes

        for number, probe in enumerate(context.probes):
            if (event := event_of(probe)) is not None:
                with located(f"{ONLY_CONTEXT}.probes[{number}].filters[0].perf_event"):
                    perf_pmu.event(event)

        attributes = Attributes()
        try:
            with located(f"{ONLY_CONTEXT}.probes"):
                attributes.check(context.probes, (), virtual=context.ops != "paddr")
        finally:
            attributes.close()


class Beside(NamedTuple):
    """Reports beside sampling: what opens the live source for processes by pid, and which accesses count."""

    open: Callable[[list[int]], LiveSource]
    accept: AccessFilter


def open_ops(
    context: Context,
    choice: Choice,
    rng: np.random.Generator,
    group: Membership | None = None,
    beside: Beside | None = None,
) -> tuple[LiveOps, list[Process]]:
    """The operations set, and the processes that the user named, whose ends are worth waking up for.

    ``group`` (taken over) replaces the processes that a vaddr context names; ``beside`` is for those that are named.
    Raises RequestError or MachineError; nothing is left open then.
    """
    if context.ops == "paddr":
        return _physical(context, rng), []
    clears_first = not attributes_only(context.probes)  # else it would clear what they ask for
    access = Access(choice, resident_only=not context.faithful, clears_first=clears_first)
    try:
        if context.ops == "fvaddr":
            return _fixed(context, access, rng, beside)
        return _virtual(context, access, rng, group, beside)
    except BaseException:
        access.close()
        if group is not None:
            group.close()
        raise


def _virtual(
    context: Context, access: Access, rng: np.random.Generator, group: Membership | None, beside: Beside | None
) -> tuple[LiveOps, list[Process]]:
    from pydamon.ops.vaddr_group import VaddrGroupOps

    group = members(context.targets) if group is None else group
    roots = list(group.roots)
    try:
        ops = VaddrGroupOps(
            group,
            access.open,
            initial=[_ranges(target) for target in context.targets],
            rng=rng,
            # Each takes three regions at least; beyond, the maximum would not bound the overhead.
            max_live=max(context.nr_regions.max // 3, 1),
            shared=access,
        )
        _sample(ops, access, rng, context, beside)
    except BaseException:
        group.close()
        raise
    # Those that join later come and go all the time: their ends should not cut samples short.
    return ops, roots


def _sample(ops: VaddrOps, access: Access, rng: np.random.Generator, context: Context, beside: Beside | None) -> None:
    """Samples of all targets at once; one by one where reports are to complete each."""
    if beside is None:
        access.sample_whole(ops, rng)
        return
    from pydamon.ops.beside import BesideSampler

    try:
        source = beside.open([target.pid or 0 for target in context.targets])
    except BaseException:
        for primitive in ops.primitives:
            primitive.close()
        raise
    ops.sampler = BesideSampler(ops, lambda target: rng, source, beside.accept)
    access.also_closes(source)


def _fixed(
    context: Context, access: Access, rng: np.random.Generator, beside: Beside | None
) -> tuple[LiveOps, list[Process]]:
    from pydamon.ops.fvaddr import FvaddrOps

    processes: list[Process] = []
    try:
        for target in context.targets:
            processes.append(Process(target.pid or 0))
        ranges = [_ranges(target) for target in context.targets]
        ops = FvaddrOps(processes, access.open, ranges=ranges, rng=rng, shared=access)
        _sample(ops, access, rng, context, beside)
    except BaseException:
        for process in processes:
            process.close()
        raise
    return ops, processes


def _physical(context: Context, rng: np.random.Generator) -> LiveOps:
    from pydamon.ops import reverse_map
    from pydamon.ops.paddr import PaddrOps

    owners: reverse_map.ReverseMap | None = None
    try:
        reverse_map.probe()
        owners = reverse_map.ReverseMap()
    except MachineError:
        pass  # monitoring works without; nobody knows whose memory it is then
    return PaddrOps(ranges=_ranges(context.targets[0]), reverse_map=owners, rng=rng)


def members(targets: Sequence[Target]) -> Membership:
    """The processes that the targets of a vaddr context stand for."""
    if targets[0].match is not None:
        from pydamon.ops.matching import Matching

        return Matching(targets[0].match)
    if targets[0].cgroup is not None:
        from pydamon.ops.cgroup import Cgroup

        return Cgroup(targets[0].cgroup)
    pids = [target.pid or 0 for target in targets]
    return Children(pids) if targets[0].include_children else Pids(pids)


def _ranges(target: Target) -> Ranges:
    if not target.regions:
        return NO_RANGES
    return np.array([(region.start, region.end) for region in target.regions], np.uint64)
