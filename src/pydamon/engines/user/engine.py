"""The ``user`` engine: our core, in this process, over what the machine offers user space."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, cast

import msgspec
import numpy as np

from pydamon.core.callbacks import Callbacks
from pydamon.core.snapshot import Snapshot
from pydamon.core.steadiness import Steadiness
from pydamon.engines.base import Choice, Cost, Identity, Kind, Rows, all_ended
from pydamon.engines.clock import MachineClock
from pydamon.engines.on_core import OnCore, only_context
from pydamon.engines.user.open_ops import LIVE_OPS, PROCESS_OPS, Beside, LiveOps, choose_for, open_ops
from pydamon.engines.user.spending import Spending
from pydamon.linux.swap import swap_bytes
from pydamon.linux.texts import MISREAD
from pydamon.ops.membership import Membership
from pydamon.ops.vaddr import VaddrOps
from pydamon.spec import Context, Scheme, Spec
from pydamon.spec.primitives import facts
from pydamon.spec.probes import attributes_only

if TYPE_CHECKING:
    from pydamon.core.damos import Damos
    from pydamon.ops.actions.plan import Plan
    from pydamon.ops.beside import BesideSampler


class UserEngine(OnCore):
    """Runs a vaddr, fvaddr or paddr spec on this machine.

    Raises RequestError for a process that does not exist, MachineError if it may not be monitored or the primitive
    cannot be used. Intervals that are tuned have a floor: what a primitive that walks all memory (``smaps``) may cost
    the targets, and ``usual_cpu``, a share of one CPU that is usual. With ``max_cpu`` (e.g. 0.01) the whole process's
    CPU time is kept below that share.
    With ``dry_run`` schemes find out what they would do, and do nothing; with ``remember_homes`` it is remembered where
    migrated pages came from, so that `undo` brings them back.
    Unless the spec is ``faithful``, what the machine tells for free is used: regions end where large mappings end
    (`core.boundaries`), resident pages are preferred to absent ones, and regions count by what of them is resident
    (`ops.residency`), unless ``by_addresses`` says that all of a region counts. A page panel of ``panel`` pages is
    asked where the primitive can do that.
    With ``beside`` a live source reports beside the sampling of processes that are named (`ops.beside`).
    With vaddr, ``group`` (taken over, and closed in the end) replaces the processes that the spec names.
    """

    kind: Kind = "user"
    ops: LiveOps
    clock: MachineClock

    def __init__(
        self,
        spec: Spec,
        *,
        callbacks: Callbacks | None = None,
        clock: MachineClock | None = None,
        seed: int | None = None,
        max_cpu: float | None = None,
        usual_cpu: float | None = None,
        group: Membership | None = None,
        dry_run: bool = False,
        remember_homes: bool = False,
        by_addresses: bool = False,
        panel: int = 0,
        beside: Beside | None = None,
    ) -> None:
        context = only_context(spec, *LIVE_OPS)
        clock = clock if clock is not None else MachineClock()
        choice = choose_for(context)
        if beside is not None:
            choice = Choice(choice.name, f"{choice.reason}; a source reports beside it")
        rng = np.random.default_rng(seed)
        ops, watched = open_ops(context, choice, rng, group, beside)
        ops.dry_run = dry_run
        ops.remember_homes = remember_homes
        ops.faithful = context.faithful
        self._wanted = context.intervals
        self._steadiness = Steadiness() if usual_cpu is not None and max_cpu is None else None
        self._cgroup, self._physical = context.cgroup, context.ops == "paddr"
        self._commit_lock = threading.Lock()
        self._own_notices: list[str] = []
        self._reported_beside = None if beside is None else cast("BesideSampler", ops.sampler)
        sees_pages = context.ops in PROCESS_OPS and facts(choice.name).has_panel
        if attributes_only(context.probes):
            panel = 0  # it would clear what the probes ask for
        if self._reported_beside is not None:
            clock.serve(self._reported_beside)
        if isinstance(ops, VaddrOps):
            ops.on_events = clock.serve
        try:
            clock.watch_ends(process.pidfd for process in watched)
            walks_all = facts(choice.name).walks_all
            self._spending = Spending(context, clock, max_cpu=max_cpu, usual_cpu=usual_cpu, walks_all=walks_all)
            intervals = self._spending.first()
        except BaseException:
            ops.cleanup()
            raise
        super().__init__(
            msgspec.structs.replace(context, intervals=intervals),
            ops=ops,
            clock=clock,
            choice=choice,
            callbacks=callbacks,
            rng=rng,
            panel=panel if sees_pages else 0,
        )
        self.kdamond.by_addresses = by_addresses
        if panel and not sees_pages and not context.faithful:
            self._own_notices.append(f"there is no page panel: {choice.name} asks no single pages of processes")

    def _new_damos(self) -> Damos:
        # Only where there are schemes: starting up counts against the bound on the overhead.
        from pydamon.core.damos import Damos
        from pydamon.linux.metrics import MachineMetrics
        from pydamon.linux.refaults import of_targets

        counters = of_targets(self._cgroup, physical=self._physical, pids=self._pids)
        return Damos(self.ops, self.clock, MachineMetrics(counters=counters), dry_run=self.ops.dry_run)

    def _pids(self) -> list[int]:
        return [pid for pid in self.living().values() if pid is not None]

    def _monitor(self) -> Generator[list[Snapshot], None, None]:
        for snapshots in self.kdamond.monitor():
            yield snapshots
            if self._steadiness is not None:
                self._steadiness.look(snapshots)
            with self._commit_lock:
                if self.kdamond.commit_pending:
                    continue  # what the user has just asked for comes first
                self._fit()

    def commit(self, context: Context) -> None:
        """`Kdamond.commit` for a user: the bound on the CPU share keeps to what is asked for now.

        Intervals that are the present ones leave it to the engine how they go on.
        """
        with self._commit_lock:
            before = self.kdamond.intervals
            self.kdamond.commit(context)
            if context.intervals != before:
                self._wanted = context.intervals
            self._spending.change(self._wanted, context.nr_regions)

    def bound_cpu(self, share: float) -> None:
        """Keep this process's CPU time below that share of one CPU from now on."""
        with self._commit_lock:
            self._spending.bound(share)

    def _fit(self) -> None:
        """Keep to what monitoring may cost."""
        kdamond = self.kdamond
        steady = self._steadiness is not None and self._steadiness.steady
        intervals, nr_regions = self._spending.fitted(kdamond, self.ops.cost(), steady=steady)
        if (intervals, nr_regions) != (kdamond.intervals, kdamond.nr_regions):
            kdamond.commit(msgspec.structs.replace(kdamond.context, intervals=intervals, nr_regions=nr_regions))

    # -- what there is to tell ----------------------------------------------------------------------------------------

    def fate(self) -> str:
        """Why it has ended though nobody has stopped it; of one process what has become of it."""
        lost = self.ops.lost if self.nr_targets == 1 else {}
        return next(iter(lost.values()), all_ended(self.nr_targets))

    def living(self) -> dict[int, int | None]:
        """The number and the process of each target that can be monitored now."""
        if self.context.ops == "paddr":
            return super().living()
        gone = self._obsolete()
        return {target: pid for target, pid in self.ops.live_pids().items() if target not in gone}

    def joined(self) -> Rows:
        """Who has become a target since the last call."""
        return self.ops.take_joined()

    def side_rows(self, snapshots: list[Snapshot]) -> dict[str, Rows]:
        """The page panel, and whose the physical memory is, each time that was looked up anew."""
        rows = super().side_rows(snapshots)
        if self._reported_beside is not None and snapshots:
            rows["answers"] = self._reported_beside.take_rows(snapshots[0].end_ns)
        return rows | self.ops.side_rows(snapshots[0].start, snapshots[0].end) if snapshots else rows

    def notices(self) -> list[str]:
        """Who came, went, or was left out; and what there is to say of schemes."""
        own, self._own_notices = self._own_notices, []
        if self.kdamond.damos is not None:
            own += self.ops.actions.take_notices()
        return own + self.ops.take_notices() + MISREAD.take_notices() + super().notices()

    def plans(self) -> list[Plan]:
        """What a dry run would have done since the last call."""
        return self.ops.actions.take_plans() if self.ops.dry_run and self.kdamond.damos is not None else []

    def remarks(self) -> list[str]:
        """Who was not monitored, where the kernel refused, what looking up owners has cost; how the tuning went."""
        own = [] if self.kdamond.damos is None else self.ops.actions.collapsed.remarks()
        own += [] if self._reported_beside is None else self._reported_beside.remarks()
        if isinstance(self.ops, VaddrOps) and self.ops.events is not None:
            own += self.ops.events.remarks()
        return own + self.ops.remarks() + super().remarks() + self._spending.remarks()

    def swap_bytes(self) -> int | None:
        """That of this machine."""
        return swap_bytes()

    def moved_back_bytes(self) -> int | None:
        """By what was moved through each process."""
        return 0 if self.kdamond.damos is None else self.ops.actions.moved_back_bytes

    def cost(self) -> Cost:
        """What the primitives of all targets have cost so far, and whether samples came in time."""
        spent, sampled = self.ops.cost(), self.kdamond.sampled
        return Cost(
            spent.checks,
            spent.check_ns,
            spent.clears,
            spent.clear_ns,
            spent.disturb_ns,
            samples=sampled.samples,
            asked_ns=sampled.asked_ns,
            sampled_ns=sampled.sampled_ns,
        )

    # -- at its end, and beyond it ------------------------------------------------------------------------------------

    def undo(self, schemes: Iterable[Scheme]) -> list[str]:
        """Bring back migrated pages (with ``remember_homes``), and reverse advice."""
        if self.kdamond.damos is None or self.ops.dry_run:
            return ["nothing: no scheme was applied"]
        from pydamon.engines.user.undo import undo

        return undo(self.ops.actions, schemes)

    def _identities(self) -> dict[int, Identity]:
        if self.context.ops != "vaddr":
            return {}  # ranges that are given are begun anew
        processes = enumerate(self.ops.processes)
        return {number: (process.pid, process.start_ticks) for number, process in processes if process.pid}
