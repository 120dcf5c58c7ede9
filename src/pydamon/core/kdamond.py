"""The monitoring loop: one context, run the way DAMON's design document describes it.

``Kdamond.monitor`` is that document's pseudo-code; everything clever lives in ``adjust`` and ``regions`` (how regions
follow the pattern) or in the operations set (how pages are asked).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pydamon.core import adjust, boundaries, cut_short
from pydamon.core.adjusting import Adjusting
from pydamon.core.blindness import Blindness
from pydamon.core.callbacks import Callback, Callbacks
from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot, max_nr_accesses
from pydamon.core.tuner import rescale_age
from pydamon.core.tuning import Tuning
from pydamon.errors import RequestError, located
from pydamon.ops.base import PAGE_SIZE, OperationsSet, PanelOps, ProbingOperationsSet
from pydamon.ops.pace import Clock, Pace, Sampled
from pydamon.spec import Context, Intervals, NrRegions, Probe, validate_attrs, validate_context

if TYPE_CHECKING:  # starting up counts against the bound on the overhead, and most kdamonds have no schemes
    from pydamon.core.damos import Damos
    from pydamon.core.panel_watch import PanelWatch


@dataclass(slots=True, eq=False, repr=False)
class Kdamond:
    """Monitors the targets of an operations set as ``context`` says, and has schemes applied to them by ``damos``.

    ``context`` is what runs now: its intervals as tuned, its schemes and probes as committed. It is replaced, never
    changed, so that any thread may read it. Without ``damos``, ``make_damos`` makes it once there are schemes; without
    either there can be none.

    ``regions`` holds the regions of each target that lives, ``targets`` their numbers, in parallel: one that has ended
    costs nothing any more. ``passed_samples`` counts sampling intervals: as in the kernel all intervals are counted in
    samples, not read from the clock. The monitoring ends when the clock reaches ``end_ns``. Unless the context is
    ``faithful``, regions end where large mappings end (`core.boundaries`), what counts of a region is its memory:
    snapshots say how much of it is resident; and ages are by the clock, too. With ``by_addresses`` all of a region
    counts, and ages are counted only, as in the kernel. Unless ``faithful``, a page panel of ``panel_size`` pages
    (`core.panel`, drawn by ``panel_seed``) is looked at once a second, where the operations set can do that. Where a
    region counts by its memory, the aggregation that the end cuts short is yielded, too, as one of fewer samples.
    """

    ops: OperationsSet
    context: Context
    clock: Clock
    callbacks: Callbacks = field(default_factory=Callbacks)
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    min_region: int = PAGE_SIZE
    end_ns: int | None = None
    by_addresses: bool = False
    damos: Damos | None = None
    make_damos: Callable[[], Damos] | None = None
    panel_size: int = 0
    panel_seed: int = 0
    panel: PanelWatch | None = field(default=None, init=False)
    tuning: Tuning = field(default_factory=Tuning, init=False)
    targets: list[int] = field(default_factory=list, init=False)
    regions: list[Regions] = field(default_factory=list, init=False)
    snapshots: list[Snapshot] = field(default_factory=list, init=False)
    passed_samples: int = field(default=0, init=False)
    _next_aggregation: int = field(default=0, init=False)
    _next_update: int = field(default=0, init=False)
    _update_step: int = field(default=0, init=False)
    _aggregation_start_ns: int = field(default=0, init=False)
    _aged_ns: int = field(default=0, init=False)  # when the regions became older last, without what was paused since
    _pace: Pace = field(init=False)
    blindness: Blindness = field(init=False)
    _adjusting: Adjusting = field(init=False)
    _stop: bool = field(default=False, init=False)
    _pending: tuple[Context, Damos | None] | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        validate_attrs(self.intervals, self.nr_regions)
        self._check_probes(self.probes)
        if self.panel_size and not self.faithful and isinstance(self.ops, PanelOps):
            from pydamon.core.panel_watch import PanelWatch

            self.panel = PanelWatch(
                self.ops, self.clock, lambda: self.targets, size=self.panel_size, seed=self.panel_seed,
                idle_of_regions=lambda target, at: self.regions[self.targets.index(target)].idle_ns_at(at),
            )  # fmt: skip
        self.blindness = Blindness(getattr(self.ops, "why_unseen", None))
        self._adjusting = Adjusting(self.min_region, self.rng)
        self._pace = Pace(self.clock, self, meanwhile=self.panel)
        if self.context.schemes and self.damos is None:
            self.damos = self._new_damos()

    # -- what a user of the loop does ---------------------------------------------------------------------------

    def run(self) -> None:
        """Monitor until told to stop or until no target is valid any more."""
        for _ in self.monitor():
            pass

    def stop(self) -> None:
        """End the monitoring after the current iteration; safe from any thread and from signal handlers."""
        self._stop = True

    def _new_damos(self) -> Damos:
        if self.make_damos is None:
            raise RequestError("cannot be applied by this operations set", where="schemes")
        return self.make_damos()

    def _check_probes(self, probes: tuple[Probe, ...]) -> None:
        if probes:
            if not isinstance(self.ops, ProbingOperationsSet):
                raise RequestError("cannot be applied by this operations set", where="probes")
            with located("probes"):
                self.ops.check_probes(probes)

    def commit(self, context: Context) -> None:
        """Go on as ``context`` says without losing regions: with all of it between two iterations, or none of it.

        Operations set and targets must be those that run; ``primitive`` and ``faithful`` stay what they were. Start
        from `asked` to change a part. Schemes that are the very tuple of `asked` are left alone; any other tuple is a
        commit of schemes, also if it is equal: one that has failed is tried again. Safe from any thread. Raises
        RequestError or MachineError, and changes nothing, if that is not possible.
        """
        for name in ("ops", "targets"):
            if getattr(context, name) != getattr(self.context, name):
                raise RequestError("cannot be changed while it is monitored", where=name)
        validate_context(context)
        with self._lock:
            before, damos = (self.context, self.damos) if self._pending is None else self._pending
        if context.probes != before.probes:
            self._check_probes(context.probes)
        if context.schemes is not before.schemes:
            if context.schemes and damos is None:
                damos = self._new_damos()
            if damos is not None:
                damos.check(context.schemes)
        context = msgspec.structs.replace(context, primitive=before.primitive, faithful=before.faithful)
        with self._lock:
            self._pending = (context, damos)

    @property
    def asked(self) -> Context:
        """What was committed last if the loop is still to take it, else what runs: what a change starts from."""
        pending = self._pending
        return self.context if pending is None else pending[0]

    @property
    def intervals(self) -> Intervals:
        """Those in force, as tuned by now."""
        return self.context.intervals

    @property
    def nr_regions(self) -> NrRegions:
        """The bounds in force."""
        return self.context.nr_regions

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Those that are asked now."""
        return self.context.probes

    @property
    def faithful(self) -> bool:
        """Whether regions are the kernel's, without regard to mappings."""
        return self.context.faithful

    @property
    def counts_memory(self) -> bool:
        """Whether a region counts by what of it is resident, not by its size."""
        return not (self.faithful or self.by_addresses)

    @property
    def stop_requested(self) -> bool:
        """Whether the loop ended, or will, because it was told to and not because its targets ended."""
        return self._stop

    def interrupted(self) -> bool:
        """Whether something is to be done before the next sample (of `ops.pace.Until`)."""
        return self._stop or self._pending is not None or (self.damos is not None and self.damos.look_due())

    @property
    def sampled(self) -> Sampled:
        """How many samples there were, and whether they came in time."""
        return self._pace.sampled

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        return self.blindness.take_notices()

    @property
    def commit_pending(self) -> bool:
        """Whether the last `commit` is still to be taken by the loop."""
        return self._pending is not None

    @property
    def window(self) -> int:
        """Samples per aggregation: the largest possible nr_accesses."""
        return max_nr_accesses(self.intervals.sample_us, self.intervals.aggr_us)

    # -- the loop -----------------------------------------------------------------------------------------------

    def monitor(self) -> Generator[list[Snapshot], None, None]:
        """Run the loop; yields one snapshot per living target after each aggregation interval."""
        try:
            self._init_regions()
            self._call(self.callbacks.before_start)
            while not self._need_stop():
                self._apply_commit()
                if not self._wait_for_watermarks():
                    continue
                if not self._check_accesses():
                    continue  # woken before the first sample was over
                self._call(self.callbacks.after_sampling)

                aggregated = self.passed_samples >= self._next_aggregation
                if aggregated:
                    self._retire_ended()
                    if self.damos is not None:
                        self.damos.aggregated(self.passed_samples, self.targets, self.regions, self.window)
                    self._merge_regions()
                    self._take_snapshots(self.intervals.aggr_us)
                    self._call(self.callbacks.after_aggregation)
                    yield self.snapshots
                self._apply_schemes()
                if aggregated:
                    self._tune_intervals()
                    self._reset_aggregated()
                    self._split_regions()

                if self._update_due(aggregated):
                    self._update_regions()
            if self.panel is not None:
                self.panel.end()
            if self._cut_short():
                self._call(self.callbacks.after_aggregation)
                yield self.snapshots
        finally:
            try:
                self._call(self.callbacks.before_terminate)
            finally:
                self.ops.cleanup()

    # -- its steps ----------------------------------------------------------------------------------------------

    def _call(self, callback: Callback | None) -> None:
        if callback is not None and callback(self):
            self._stop = True

    def _need_stop(self) -> bool:
        if self.end_ns is not None and self.clock.now_ns() >= self.end_ns:
            self._stop = True
        return self._stop or not (any(map(self.ops.target_valid, self.targets)) or self.ops.may_grow())

    def _wait_for_watermarks(self) -> bool:
        """Without an active scheme, monitoring pauses until one's watermarks are looked at next; False after that."""
        wait_ns = self.damos.wait_ns() if self.damos is not None else 0
        if not wait_ns:
            return True
        if self.end_ns is not None:
            wait_ns = min(wait_ns, max(self.end_ns - self.clock.now_ns(), 0))
        began_ns = self.clock.now_ns()
        self.clock.sleep_ns(wait_ns)
        paused_ns = self._pace.restart() - began_ns
        self._aggregation_start_ns += paused_ns  # the pause belongs to no snapshot
        self._aged_ns += paused_ns
        self.tuning.began_ns += paused_ns
        return False

    def _prepare(self, damos: Damos) -> None:
        damos.by_memory = damos.by_clock = self.counts_memory
        damos.merge_back = partial(self._adjusting.merge_back, at_mappings=not self.faithful)

    def _apply_schemes(self) -> None:
        if self.damos is not None:
            self.damos.apply(self.passed_samples, self.intervals, self.targets, self.regions)

    def _init_regions(self) -> None:
        self._leave_out_gaps(self.ops.nr_targets)
        ranges = self.ops.init()
        self.targets = list(range(len(ranges)))
        self.regions = self._adjusting.initial(ranges, self.nr_regions.min)
        self._ask_probes()
        self._limit_sizes()
        self._cut_at_mappings()
        if self.panel is not None:
            self.panel.begin()
        self.tuning.began_ns = self._aggregation_start_ns = self._aged_ns = self._pace.restart()
        self._next_aggregation = self.window
        # A process changes most right after its start: look again after one aggregation interval, then after twice as
        # long each time, until that is the update interval. (The kernel waits a full update interval at once.)
        self._update_step = min(self.window, self._samples_per_update())
        self._next_update = self._update_step
        if self.damos is not None:
            self._prepare(self.damos)
            self.damos.start(self.context.schemes, self.intervals)

    def _ask_probes(self) -> None:
        for regions in self.regions:
            regions.counts.set_nr_probes(len(self.probes))
        self.ops.sampler.probes = self.probes

    def _samples_per_update(self) -> int:
        return max(self.intervals.ops_update_us // self.intervals.sample_us, 1)

    def _update_due(self, aggregated: bool) -> bool:
        """Whether to look what is mapped: early, if regions are loaded anyway and would be again so soon."""
        early = self.window // 4 if aggregated and self.counts_memory else 0
        return self.passed_samples + early >= self._next_update

    def _limit_sizes(self) -> None:
        """At the start and after merging, as in the kernel; ours when ranges or bounds have changed, too."""
        self.regions = self._adjusting.limit_sizes(self.regions, self.nr_regions, exactly=not self.counts_memory)

    def _leave_out_gaps(self, nr_targets: int) -> None:
        """What is not mapped is no memory; few operations sets know of gaps (see `OperationsSet`)."""
        leave_out = getattr(self.ops, "leave_out_gaps", None)
        if leave_out is not None and self.counts_memory:
            leave_out(boundaries.most_gaps(self.nr_regions.max, nr_targets))

    def _cut_at_mappings(self) -> None:
        """Look where mappings end, and let regions end there."""
        if not self.faithful:
            mapped = {target: self.ops.mappings(target) for target in self.targets}
            nr_gaps = getattr(self.ops, "gaps_left_out", 0)
            self.regions = self._adjusting.cut_at_mappings(mapped, self.regions, self.nr_regions.max, nr_gaps)

    def _check_accesses(self) -> int:
        """Have accesses counted, a sampling interval each time, until there is something else to do; how often."""
        pace, counts = self._pace, [regions.counts for regions in self.regions]
        pace.sample_ns = self.intervals.sample_us * 1000
        done, _ = self.ops.sampler.sample(self.targets, self.regions, counts, self._samples_ahead(), pace)
        self.passed_samples += done
        for regions in self.regions:
            regions.count_samples(done, self.window)
        return done

    def _samples_ahead(self) -> int:
        """How many samples there are until the core has to look up: to aggregate, to update, to apply schemes."""
        if self.callbacks.after_sampling is not None or not any(map(self.ops.target_valid, self.targets)):
            return 1  # whoever may come or go without being a target is looked for each time
        until = min(self._next_aggregation, self._next_update)
        applied = self.damos.next_apply() if self.damos is not None else None
        return max((until if applied is None else min(until, applied)) - self.passed_samples, 1)

    def _retire_ended(self) -> None:
        """Drop the targets that have ended, unless that is all there is: then the loop is about to end."""
        valid = [self.ops.target_valid(target) for target in self.targets]
        if not all(valid) and (any(valid) or self.ops.may_grow()):
            self.targets = list(compress(self.targets, valid))
            self.regions = list(compress(self.regions, valid))

    def _merge_regions(self) -> None:
        now_ns = self.clock.now_ns()
        elapsed_ns, self._aged_ns = now_ns - self._aged_ns, now_ns
        for regions in self.regions:
            regions.settle_unknown(self.window)
        self.regions = self._adjusting.merge(
            self.targets,
            self.regions,
            self.nr_regions.max,
            self.window,
            at_mappings=not self.faithful,
            elapsed_ns=elapsed_ns,
        )
        self._limit_sizes()

    def _cut_short(self) -> bool:
        """Take snapshots of the aggregation that the end cuts short; False if there is none."""
        samples = self.window - (self._next_aggregation - self.passed_samples)
        if not self.counts_memory or samples <= 0:
            return False
        self._retire_ended()
        aggr_us = samples * self.intervals.sample_us
        elapsed_ns = self.clock.now_ns() - self._aged_ns
        for regions in self.regions:
            cut_short.settle(regions, self.window, samples, self.intervals.aggr_us, aggr_us, elapsed_ns)
        self._take_snapshots(aggr_us)
        return True

    def _take_snapshots(self, aggr_us: int) -> None:
        now_ns = self.clock.now_ns()
        start_ns, sample_us = self._aggregation_start_ns, self.intervals.sample_us
        self.snapshots = []
        for target, regions in zip(self.targets, self.regions, strict=True):
            columns = regions.columns(by_clock=self.counts_memory, probed=bool(self.probes))
            if self.counts_memory:
                columns["resident"] = self.ops.resident_bytes(target, regions.start, regions.end)
            self.snapshots.append(Snapshot(target, start_ns, now_ns, sample_us, aggr_us, **columns))
        self._aggregation_start_ns = now_ns
        self.blindness.look(self.snapshots, max_nr_accesses(self.intervals.sample_us, aggr_us))

    def _tune_intervals(self) -> None:
        old = self.intervals
        now_ns = self.clock.now_ns()
        intervals = self.tuning.tuned(old, self.snapshots, now_ns, self.end_ns, limited=self.counts_memory)
        if intervals != old:
            self.context = msgspec.structs.replace(self.context, intervals=intervals)
            # The window stays, so the counts keep their meaning; ages and what is scheduled are counted in time.
            rescale_age(self.regions, old.aggr_us, self.intervals.aggr_us)
            self._update_step = self._samples_per_update()
            self._next_update = min(self._next_update, self.passed_samples + self._update_step)
            if self.damos is not None:
                self.damos.reschedule(self.passed_samples, self.intervals, self.passed_samples + self.window)

    def _reset_aggregated(self) -> None:
        for regions in self.regions:
            regions.reset_aggregated()
        self.ops.reset_aggregated()
        self._next_aggregation = self.passed_samples + self.window

    def _split_regions(self) -> None:
        self.regions = self._adjusting.split(self.regions, self.nr_regions.max)

    def _update_regions(self) -> None:
        known = self.ops.nr_targets
        self._leave_out_gaps(len(self.targets))
        all_ranges = self.ops.update()
        for target in range(known, len(all_ranges)):
            self.targets.append(target)
            self.regions.append(Regions.empty())
        self._ask_probes()
        self._retire_ended()
        for place, target in enumerate(self.targets):
            ranges = all_ranges[target]
            if ranges is not None:
                self.regions[place] = adjust.set_ranges(self.regions[place], ranges, self.min_region)
            if target >= known:
                # The samples of this aggregation before it joined were not answered, not answered by "no".
                self.regions[place].counts.unknown[:] = self.window - (self._next_aggregation - self.passed_samples)
        if self.counts_memory:
            self._limit_sizes()
        self._cut_at_mappings()
        self._update_step = min(2 * self._update_step, self._samples_per_update())
        self._next_update = self.passed_samples + self._update_step

    def _apply_commit(self) -> None:
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is None:
            return
        before, old_window = self.context, self.window
        self.context, damos = pending
        self.damos = self.damos or damos
        if self.probes != before.probes:
            for regions in self.regions:
                regions.counts.reset_probes()
            self._ask_probes()
        if self.intervals != before.intervals:
            self._apply_intervals(before.intervals, old_window)
        if self.damos is not None:
            self._prepare(self.damos)
        if self.damos is not None and self.context.schemes is not before.schemes:
            self.damos.change(self.context.schemes, self.passed_samples, self.intervals, self._next_aggregation)
        if self.counts_memory:
            self._limit_sizes()

    def _apply_intervals(self, old: Intervals, old_window: int) -> None:
        for regions in self.regions:
            regions.rescale(
                old_window=old_window,
                new_window=self.window,
                old_aggr_us=old.aggr_us,
                new_aggr_us=self.intervals.aggr_us,
            )
        self._aggregation_start_ns = self.clock.now_ns()
        self._next_aggregation = self.passed_samples + self.window
        self._update_step = self._samples_per_update()
        self._next_update = min(self._next_update, self.passed_samples + self._update_step)  # not put off
        if self.damos is not None:
            self.damos.reschedule(self.passed_samples, self.intervals, self._next_aggregation)
