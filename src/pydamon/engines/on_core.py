"""What the engines have in common that run our own core: everything that the kdamond and its operations set tell."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pydamon.core.callbacks import Callbacks
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Choice, Cost, Handover, Identity, Rows, Tell, all_ended, check_none_obsolete
from pydamon.errors import RequestError, located
from pydamon.linux.process import Mapping
from pydamon.ops.base import OperationsSet
from pydamon.ops.pace import Clock
from pydamon.spec import ONLY_CONTEXT, Context, Scheme, Spec, validate

if TYPE_CHECKING:  # starting up counts against the bound on the CPU share, and most kdamonds have no schemes
    from pydamon.core.damos import Damos
    from pydamon.core.panel import Look
    from pydamon.core.scheme_state import SchemeState
    from pydamon.engines.follow import Follower
    from pydamon.ops.actions.plan import Plan
    from pydamon.ops.reported.reports import AccessReports
    from pydamon.ops.sim.machine import Machine

_MOST_LOOKS = 4096  # at the page panel, that nobody has asked for yet; of more the oldest are dropped


def only_context(spec: Spec, *ops: str) -> Context:
    """The one context of ``spec``; raises RequestError if there are several, or one of other ``ops``."""
    validate(spec)
    if len(spec.kdamonds) != 1:
        raise RequestError(f"has {len(spec.kdamonds)} entries; this engine runs one at a time", where="kdamonds")
    context = spec.context
    with located(ONLY_CONTEXT):
        if context.ops not in ops:
            raise RequestError(f"is {context.ops!r}; this engine runs {', '.join(ops)}", where="ops")
        if not context.targets:
            raise RequestError("must have at least one target", where="targets")
        check_none_obsolete(context)
    return context


def _seed_of(rng: np.random.Generator) -> int:
    """A number for the page panel that is the same whenever ``rng`` is; nothing is drawn from that."""
    entropy = getattr(rng.bit_generator.seed_seq, "entropy", None)
    return entropy & (1 << 63) - 1 if isinstance(entropy, int) else 0


def panel_row(look: Look) -> dict[str, Any]:
    """The row of the side table ``panel``."""
    row: dict[str, Any] = {"time_ns": look.time_ns, "target": look.target, "resident_bytes": look.resident_bytes}
    row |= {"pages": look.pages, "unknown": look.unknown}
    row |= {name: getattr(look, name).tolist() for name in ("idle", "unseen", "ended")}
    once = look.once
    if once is not None:
        row |= {"weighed": once.weighed, "weights": once.weights, "squares": once.squares, "once_squares": once.told}
        row |= {"once_idle": once.idle.tolist(), "once_unseen": once.unseen.tolist()}
    if look.woken is not None and look.returned is not None:
        row |= {"woken": look.woken.tolist(), "returned": look.returned.tolist()}
    return row


class OnCore:
    """An `Engine`, but for ``kind``, over a `Kdamond`; ``ops`` are given back when the monitoring ends, or by `close`.

    A subclass makes what applies schemes (`_new_damos`), and tells what its operations set has to tell.
    """

    reports: AccessReports | None = None

    def __init__(
        self,
        context: Context,
        *,
        ops: OperationsSet,
        clock: Clock,
        choice: Choice,
        callbacks: Callbacks | None,
        rng: np.random.Generator,
        panel: int = 0,
    ) -> None:
        self.choice = choice
        self.clock = clock
        self.ops = ops
        self._followers: list[Follower] = []
        # Looks at the page panel that are in no rows yet, and those that `looks` has not told yet, once it was asked.
        self._looks_for_rows: deque[Look] = deque(maxlen=_MOST_LOOKS)
        self._looks_for_others: deque[Look] | None = None
        self._loop: Generator[list[Snapshot], None, None] | None = None
        self._ended = self._closed = False
        try:
            with located(ONLY_CONTEXT):
                self.kdamond = Kdamond(
                    ops=ops,
                    context=context,
                    clock=clock,
                    callbacks=callbacks if callbacks is not None else Callbacks(),
                    rng=rng,
                    min_region=context.min_region,
                    make_damos=self._make_damos,
                    panel_size=panel,
                    panel_seed=_seed_of(rng),
                )
                if self.kdamond.damos is not None:
                    self.kdamond.damos.check(context.schemes)
        except BaseException:
            self._give_back()
            raise

    @property
    def simulated(self) -> Machine | None:
        """None: the targets run on this machine."""
        return None

    # -- running ------------------------------------------------------------------------------------------------------

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Monitor; yields one snapshot per target after each aggregation, until stopped or all targets ended."""
        if self._closed:
            return
        self._loop = self._monitor()
        try:
            yield from self._loop
        finally:
            self._ended = True

    def _monitor(self) -> Generator[list[Snapshot], None, None]:
        yield from self.kdamond.monitor()

    @property
    def end_ns(self) -> int | None:
        """When it is to end, by its clock."""
        return self.kdamond.end_ns

    @end_ns.setter
    def end_ns(self, value: int | None) -> None:
        self.kdamond.end_ns = value

    def stop(self) -> None:
        """End after the current iteration; safe from any thread and from signal handlers."""
        self.kdamond.stop()

    @property
    def stop_requested(self) -> bool:
        """Whether it ends, or has ended, because it was told to or its time was over."""
        return self.kdamond.stop_requested

    def fate(self) -> str:
        """Why it has ended though nobody has stopped it."""
        return all_ended(self.nr_targets)

    def close(self) -> None:
        """Give everything back; what runs in another thread does that itself, and is told to end."""
        if self._closed:
            return
        self._closed = True
        if self._loop is None:
            self._give_back()
        elif not self._ended:
            self.stop()
            with contextlib.suppress(ValueError):  # another thread is in it
                self._loop.close()

    def _give_back(self) -> None:
        self.ops.cleanup()

    # -- what runs, and changing it -----------------------------------------------------------------------------------

    @property
    def context(self) -> Context:
        """What runs now."""
        return self.kdamond.context

    @property
    def asked(self) -> Context:
        """What was committed last, or runs."""
        return self.kdamond.asked

    def commit(self, context: Context) -> None:
        """Go on as ``context`` says; raises RequestError or MachineError, and changes nothing then."""
        self.kdamond.commit(context)

    def bound_cpu(self, share: float) -> None:
        """Raises RequestError: what is simulated or reported is not asked in real time."""
        raise RequestError("is for monitoring running processes or physical memory", where="max_cpu")

    @property
    def commit_pending(self) -> bool:
        """Whether the last `commit` is still to take effect."""
        return self.kdamond.commit_pending

    def _new_damos(self) -> Damos:
        raise NotImplementedError

    def _make_damos(self) -> Damos:
        damos = self._new_damos()
        damos.on_apply, damos.on_pass = self._on_apply, self._on_pass
        return damos

    def schemes(self) -> list[SchemeState]:
        """The schemes with their statistics, also after the end."""
        damos = self.kdamond.damos
        return [] if damos is None else list(damos.states)

    def set_goal(self, name: str, value: int) -> None:
        """Give the value of ``user_input`` goals. Raises RequestError if there is no such goal."""
        damos = self.kdamond.damos
        if damos is None:
            raise RequestError("there is no such goal; there are no schemes", where=f"goal {name}")
        damos.set_goal(name, value)

    def follow(self, events: Collection[str], tell: Tell) -> list[str]:
        """Have ``tell`` hear of these events of schemes; it has all of them."""
        from pydamon.engines.follow import Follower

        if events:
            self._followers.append(Follower(events, tell))
        return []

    def _on_apply(self, scheme: int, target: int, regions: Regions, index: NDArray[np.intp]) -> None:
        for follower in self._followers:
            follower.before_apply(self.clock.now_ns(), scheme, target, regions, index)

    def _on_pass(self, scheme: int) -> None:
        for follower in self._followers:
            follower.after_pass(self.clock.now_ns(), scheme, self.schemes()[scheme])

    # -- who is monitored ---------------------------------------------------------------------------------------------

    @property
    def nr_targets(self) -> int:
        """How many targets there have been so far."""
        return self.ops.nr_targets

    def living(self) -> dict[int, int | None]:
        """The number of each target that can be monitored now."""
        return {target: None for target in range(self.ops.nr_targets) if self.ops.target_valid(target)}

    def _obsolete(self) -> set[int]:
        return {number for number, target in enumerate(self.context.targets) if target.obsolete}

    def mappings(self, target: int) -> list[Mapping]:
        """What the target has mapped."""
        return self.ops.mappings(target)

    # -- what there is to tell ----------------------------------------------------------------------------------------

    def joined(self) -> Rows:
        """Nobody joins."""
        return []

    def side_rows(self, snapshots: list[Snapshot]) -> dict[str, Rows]:
        """The page panel, if there is one, and what cannot be watched."""
        blind = [asdict(found) for found in self.kdamond.blindness.take_found()]
        rows: dict[str, Rows] = {"blind": blind} if blind else {}
        if self.kdamond.panel is None:
            return rows
        self._take_looks()
        found = [panel_row(look) for look in self._looks_for_rows]
        self._looks_for_rows.clear()
        return rows | {"panel": found}

    def looks(self) -> list[Look]:
        """The looks at the page panel since the last call."""
        if self._looks_for_others is None:
            self._looks_for_others = deque(maxlen=_MOST_LOOKS)
        self._take_looks()
        found = list(self._looks_for_others)
        self._looks_for_others.clear()
        return found

    def _take_looks(self) -> None:
        found = [] if self.kdamond.panel is None else self.kdamond.panel.take_looks()
        self._looks_for_rows.extend(found)
        if self._looks_for_others is not None:
            self._looks_for_others.extend(found)

    def notices(self) -> list[str]:
        """What there is to say of schemes, of the page panel, and of memory that cannot be watched."""
        damos, panel, lines = self.kdamond.damos, self.kdamond.panel, self.kdamond.take_notices()
        while panel is not None and panel.notices:
            lines.append(panel.notices.pop(0))
        while damos is not None and damos.notices:
            lines.append(damos.notices.pop(0))
        return lines

    def plans(self) -> list[Plan]:
        """No dry run."""
        return []

    def remarks(self) -> list[str]:
        """Whether the intervals had found their place, where they were tuned."""
        remark = self.kdamond.tuning.remark(self.kdamond.intervals)
        return [] if remark is None else [remark]

    def swap_bytes(self) -> int | None:
        """There is no memory that schemes act on."""
        return None

    def moved_back_bytes(self) -> int | None:
        """There is no memory that schemes act on."""
        return None

    def cost(self) -> Cost | None:
        """Nobody is asked."""
        return None

    # -- at its end, and beyond it ------------------------------------------------------------------------------------

    def undo(self, schemes: Iterable[Scheme]) -> list[str]:
        """Nothing can be."""
        if self.kdamond.damos is None:
            return ["nothing: no scheme was applied"]
        return [f"nothing: that is not possible with ops {self.context.ops}"]

    def _identities(self) -> dict[int, Identity]:
        """Which processes the targets are whose regions another engine can go on with."""
        return {}

    def handover(self) -> Handover:
        """The regions of processes, and the schemes."""
        kdamond, who = self.kdamond, self._identities()
        pairs = zip(kdamond.targets, kdamond.regions, strict=True)
        regions = {who[target]: regions for target, regions in pairs if target in who}
        return Handover(regions, kdamond.window, kdamond.intervals.aggr_us, self.schemes())

    def take_over(self, before: Handover) -> None:
        """Go on with the regions of processes that both monitor, and with the schemes."""
        kdamond, who = self.kdamond, self._identities()
        for place, target in enumerate(kdamond.targets):
            regions = before.regions.get(who[target]) if target in who else None
            if regions is not None and len(regions):
                if not regions.age_ns.any():  # the kernel counts aggregations only
                    regions.age_ns[:] = regions.age * before.aggr_us * 1000
                regions.rescale(
                    old_window=before.window,
                    new_window=kdamond.window,
                    old_aggr_us=before.aggr_us,
                    new_aggr_us=kdamond.intervals.aggr_us,
                )
                regions.counts.set_nr_probes(len(kdamond.probes))
                kdamond.regions[place] = regions
        damos = kdamond.damos
        if damos is not None and before.schemes:
            damos.states = before.schemes
            for state in damos.states:
                state.next_apply = kdamond.window
            damos.change(kdamond.context.schemes, kdamond.passed_samples, kdamond.intervals, kdamond.window)
