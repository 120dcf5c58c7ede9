"""The ``kernel`` engine: the kernel's own DAMON does the monitoring; we ask for it and read what it found.

The kdamond is the machine's only one: see `kernel.owner` for whose it is.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pydamon.core.callbacks import Callbacks
from pydamon.core.scheme_state import SchemeState, SchemeStats
from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Choice, Cost, Handover, Kind, Rows, Tell, all_ended, check_none_obsolete
from pydamon.engines.clock import MachineClock
from pydamon.engines.kernel import owner
from pydamon.engines.kernel.kdamond import KernelKdamond
from pydamon.engines.kernel.layout import check_context
from pydamon.engines.kernel.results import SchemeEvent
from pydamon.engines.kernel.targets import KernelTargets
from pydamon.engines.kernel.tree import KernelTree
from pydamon.engines.kernel.watch import everything
from pydamon.errors import MachineError, RequestError, located
from pydamon.linux import damon_trace
from pydamon.linux.damon_sysfs import Roots, Tree
from pydamon.linux.damon_trace import BEFORE_APPLY, ESZ, TraceInstance
from pydamon.linux.process import Mapping
from pydamon.linux.swap import swap_bytes
from pydamon.linux.texts import MISREAD
from pydamon.spec import ONLY_CONTEXT, Context, Scheme, Spec, validate

if TYPE_CHECKING:
    from pydamon.core.panel import Look
    from pydamon.ops.actions.plan import Plan

Results = Literal["auto", "trace", "tried"]

_BYTES_PER_EVENT = 64


class KernelEngine:
    """Runs a vaddr, fvaddr or paddr spec on the kernel's DAMON: an `Engine`.

    ``directory_fd`` is a directory that only this user can write to: there it is written down that the kdamond is ours.
    ``results``: ``trace`` gives every aggregation, from the trace events; ``tried`` looks at a scheme's tried regions
    now and then; ``auto`` is the first of these that this machine has. ``roots`` says where the kernel's files are.

    Raises MachineError if somebody else uses the kernel's DAMON (nothing was written then), or if this kernel lacks
    what the spec asks for; RequestError if its DAMON cannot do that at all. Both name the spec's field.
    """

    kind: Kind = "kernel"
    reports = None  # it sees accesses itself
    simulated = None

    def __init__(
        self,
        spec: Spec,
        *,
        directory_fd: int,
        callbacks: Callbacks | None = None,
        clock: MachineClock | None = None,
        results: Results = "auto",
        roots: Roots | None = None,
        tree: Tree | None = None,
    ) -> None:
        roots = roots if roots is not None else Roots()
        tree = tree if tree is not None else Tree(roots.damon)
        with contextlib.ExitStack() as undo:
            claim = owner.take(directory_fd, roots, tree)
            undo.callback(claim.release)
            context = _only_context(spec)
            with located(ONLY_CONTEXT):
                self.ops = KernelTargets(context)
            undo.callback(self.ops.close)
            self.choice, instance = _open_results(results, context, roots)
            if instance is not None:
                undo.callback(instance.close)
                claim.note(instance=instance.name)
            files = KernelTree(tree, self.ops.ranges)
            if instance is None:
                files.extra = everything
            files.build(spec.kdamonds[0])
            undo.callback(files.clear)
            claim.note(fingerprint=owner.fingerprint(tree))
            self.clock = clock if clock is not None else MachineClock()
            self.clock.watch_ends(process.pidfd for process in self.ops.processes)
            self.kdamond = KernelKdamond(
                context, self.ops, files, claim, instance, roots, self.clock, callbacks or Callbacks()
            )
            undo.pop_all()

    # -- running ------------------------------------------------------------------------------------------------------

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Start the kernel's kdamond; yields one snapshot per target and aggregation until stopped, or targets end."""
        return iter(()) if self.kdamond.closed else self.kdamond.monitor()

    @property
    def end_ns(self) -> int | None:
        """When it is to end, by its clock."""
        return self.kdamond.end_ns

    @end_ns.setter
    def end_ns(self, value: int | None) -> None:
        self.kdamond.end_ns = value

    def stop(self) -> None:
        """End soon; safe from any thread and from signal handlers."""
        self.kdamond.stop()

    @property
    def stop_requested(self) -> bool:
        """Whether it ends, or has ended, because it was told to or its time was over."""
        return self.kdamond.stop_requested

    def fate(self) -> str:
        """Why it has ended though nobody has stopped it."""
        return all_ended(self.nr_targets)

    def close(self) -> None:
        """End the kdamond if it is still ours, and give everything back."""
        self.kdamond.close()

    # -- what runs, and changing it -----------------------------------------------------------------------------------

    @property
    def context(self) -> Context:
        """What runs now, with the intervals as the kernel has tuned them."""
        return self.kdamond.context

    @property
    def asked(self) -> Context:
        """What runs: `commit` waits until the kernel has taken it."""
        return self.kdamond.context

    def commit(self, context: Context) -> None:
        """Change a running kdamond, all or nothing; waits for the kernel. Raises RequestError or MachineError."""
        self.kdamond.commit(context)

    def bound_cpu(self, share: float) -> None:
        """Raises RequestError: the kernel's thread takes what it takes."""
        raise RequestError(
            "bounds pydamon's own monitoring; nearest: fewer regions, or intervals that tune themselves",
            where="max_cpu",
        )

    @property
    def commit_pending(self) -> bool:
        """Never: `commit` waits until the kernel has taken it."""
        return False

    def schemes(self) -> list[SchemeState]:
        """The schemes, as far as the kernel tells about them."""
        return list(self.kdamond.schemes.states)

    def set_goal(self, name: str, value: int) -> None:
        """Give the value of a ``user_input`` goal, here and in the kernel. Raises RequestError or MachineError."""
        if not self.kdamond.schemes.states:
            raise RequestError("there is no such goal; there are no schemes", where=f"goal {name}")
        for scheme, goal in self.kdamond.schemes.set_goal(name, value):
            self.kdamond.set_goal_value(scheme, goal, value)

    def follow(self, events: Collection[str], tell: Tell) -> list[str]:
        """Have ``tell`` hear of these events of schemes; returns those that this kernel has not, or that come untraced.

        Raises MachineError.
        """
        if not events:
            return []
        had = self.kdamond.trace_schemes(sorted(events), lambda event: tell_scheme_event(event, tell))
        return [event for event in sorted(events) if event not in had]

    # -- who is monitored ---------------------------------------------------------------------------------------------

    @property
    def nr_targets(self) -> int:
        """As many as were asked for."""
        return self.ops.nr_targets

    def living(self) -> dict[int, int | None]:
        """The number of each target that lives, with its process."""
        return dict(self.ops.live_pids()) if self.ops.processes else dict.fromkeys(range(self.nr_targets))

    def mappings(self, target: int) -> list[Mapping]:
        """What the target has mapped, looked up again after an update interval."""
        return self.ops.mappings(target)

    # -- what there is to tell ----------------------------------------------------------------------------------------

    def joined(self) -> Rows:
        """The targets, once."""
        return self.ops.take_joined()

    def side_rows(self, snapshots: list[Snapshot]) -> dict[str, Rows]:
        """Whose physical memory it is, is not looked up."""
        return {}

    def looks(self) -> list[Look]:
        """There is no page panel."""
        return []

    def notices(self) -> list[str]:
        """What of the processes was not understood."""
        return MISREAD.take_notices()

    def plans(self) -> list[Plan]:
        """The kernel's DAMON cannot only say what it would do."""
        return []

    def remarks(self) -> list[str]:
        """What was lost, and whose the kernel's DAMON is by now."""
        return self.kdamond.closing

    def swap_bytes(self) -> int | None:
        """That of this machine."""
        return swap_bytes()

    def moved_back_bytes(self) -> int | None:
        """The kernel does not say which pages it has moved."""
        return None

    def cost(self) -> Cost:
        """The CPU time of the kernel's thread."""
        cpu_ns = self.kdamond.cpu_ns()
        return Cost(check_ns=cpu_ns, kdamond_ns=cpu_ns)

    # -- at its end, and beyond it ------------------------------------------------------------------------------------

    def undo(self, schemes: Iterable[Scheme]) -> list[str]:
        """Nobody has noted what the kernel did."""
        if not self.kdamond.schemes.states:
            return ["nothing: no scheme was applied"]
        return ["nothing: what the kernel's DAMON did is not noted"]

    def handover(self) -> Handover:
        """Nothing: its regions are the kernel's."""
        return Handover()

    def take_over(self, before: Handover) -> None:
        """The kernel begins with regions of its own."""


def tell_scheme_event(event: SchemeEvent, tell: Tell) -> None:
    """Tell of an event with our names for the kernel's fields."""
    values = event.values
    told: dict[str, Any] = {"scheme": values["scheme_idx"]}
    if event.name == BEFORE_APPLY:
        told |= {"target": values["target_idx"], "nr_regions": values["nr_regions"]}
        told |= {name: np.array([values[name]], np.uint64) for name in ("start", "end", "nr_accesses", "age")}
    elif event.name == ESZ:
        told["esz"] = values["esz"]
    else:
        told["stats"] = SchemeStats.of(values)
    tell(event.name, event.time_ns, **told)


def _only_context(spec: Spec) -> Context:
    validate(spec)
    if len(spec.kdamonds) != 1:
        raise RequestError(f"has {len(spec.kdamonds)} entries; this engine runs one at a time", where="kdamonds")
    with located(ONLY_CONTEXT):
        check_context(spec.context)
        check_none_obsolete(spec.context)
    return spec.context


def _open_results(results: Results, context: Context, roots: Roots) -> tuple[Choice, TraceInstance | None]:
    """How results are read, and the tracing instance where they are traced."""
    why = "as asked for"
    if context.probes and results == "auto":
        results, why = "tried", "which tells the hits of probes"
    if results != "tried":
        # Room for what happens while we are busy elsewhere; all of it may be on one CPU.
        room = context.nr_regions.max * _BYTES_PER_EVENT * 8 // 1024
        try:
            instance = TraceInstance(
                f"pydamon-{os.getpid()}",
                root=roots.tracing,
                events=(damon_trace.AGGREGATED, damon_trace.TUNED),
                buffer_kib=min(max(room, 256), 8192),
            )
            return Choice("damon_aggregated", "the kernel's DAMON, every aggregation traced"), instance
        except MachineError as error:
            if results == "trace":
                raise
            return Choice("tried_regions", f"the kernel's DAMON, looked at now and then: {error}"), None
    return Choice("tried_regions", f"the kernel's DAMON, looked at now and then, {why}"), None
