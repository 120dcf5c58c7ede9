"""One pass of one scheme over all regions: which of them it is for, which its quota has room for, and acting on them.

Regions are taken in the order of targets and addresses; where a quota ends, the region is cut, and the next window goes
on after that place. What to do is decided for all regions of a target at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.core import filters, scores
from pydamon.core.regions import I64, U64, Regions
from pydamon.core.scheme_state import SchemeState, Tried
from pydamon.core.snapshot import max_nr_accesses
from pydamon.core.weights import Weights
from pydamon.errors import MachineError
from pydamon.ops.base import ActingOperationsSet
from pydamon.ops.pace import Clock
from pydamon.spans import distinct
from pydamon.spec import Intervals, Scheme
from pydamon.spec.actions import ACTIONS
from pydamon.spec.quantities import Age
from pydamon.spec.schemes import AccessPattern

# A time quota is looked after in steps of this share of the effective quota.
_TIME_STEPS = 8
# How often one pass may stop at what is left of the quota. Where failed bytes cost next to nothing, a small quota would
# otherwise cut all of memory into pieces of its size.
_MAX_STOPS = 64
# Which part of the time between two passes one may spend on memory where nothing works out, if there is a quota.
_IN_VAIN = 20
_WORKING_SET_US = 120_000_000  # what was used within this time is the working set
Index = NDArray[np.intp]


def apply_interval_us(scheme: Scheme, intervals: Intervals, by_memory: bool) -> int:
    """How often a scheme is applied: by default once per aggregation, and unless it is the kernel's way once per window
    of its quota, which would go unused else."""
    if scheme.apply_interval_us:
        return scheme.apply_interval_us
    if by_memory and scheme.quotas.limited:
        return min(intervals.aggr_us, scheme.quotas.reset_interval_ms * 1000)
    return intervals.aggr_us


class Acting(Protocol):
    """What a pass needs of `core.damos.Damos`."""

    ops: ActingOperationsSet
    clock: Clock
    min_region: int
    on_apply: Callable[[int, int, Regions, Index], object] | None
    hot: Callable[[int], U64] | None
    merge_back: Callable[[int, Regions, NDArray[np.bool_]], Regions] | None
    by_memory: bool
    by_clock: bool
    dry_run: bool

    def say(self, key: str, line: str) -> None:
        """A line for the user, once for each ``key``."""
        ...

    def measure(self, state: SchemeState, eligible: Callable[[int], int], working_set: Callable[[], int]) -> int | None:
        """See `Damos.measure`."""
        ...


class Pass:
    """One pass of one scheme over all regions, which are cut in the list where need be.

    ``whole``: an aggregation has just ended.
    """

    def __init__(
        self,
        damos: Acting,
        number: int,
        state: SchemeState,
        intervals: Intervals,
        targets: list[int],
        regions: list[Regions],
        *,
        whole: bool,
    ) -> None:
        self._damos = damos
        self._number = number
        self._state = state
        self._scheme = state.scheme
        self._quotas = state.scheme.quotas
        self._window = max_nr_accesses(intervals.sample_us, intervals.aggr_us)
        self._intervals = intervals
        self._targets = targets
        self._regions = regions
        self._whole = whole
        self._min_region = damos.min_region
        self._stops = 0
        self._weights = Weights(damos.ops, state.scheme.action, by_memory=damos.by_memory)
        self._weighed: dict[int, tuple[Regions, U64]] = {}
        self._in_vain_ns = 0
        self._most_in_vain_ns = apply_interval_us(state.scheme, intervals, damos.by_memory) * 1000 // _IN_VAIN
        self._acted: dict[int, list[U64]] = {}  # by the place of the target: starts of regions, in order
        self._quota_cuts: list[int] = []  # addresses where a quota ended, or paused, now or in the window before
        self._matched: list[tuple[int, Regions, NDArray[np.bool_]]] = []
        aggr_us, pattern = intervals.aggr_us, state.scheme.access_pattern
        self._rates = (
            pattern.nr_accesses.min.to_samples(self._window, aggr_us, upper=False),
            pattern.nr_accesses.max.to_samples(self._window, aggr_us, upper=True),
        )

    def run(self) -> None:
        """Find the regions, see what the quota allows, act."""
        state, quota = self._state, self._state.quota
        state.refusals.begin_pass()
        eligible = [self._with_memory(place, *self._eligible(place)) for place in range(len(self._targets))]
        now_ns = self._damos.clock.now_ns()
        if quota.window_due(self._quotas, now_ns):
            score = self._damos.measure(state, self._on_node_bp, self._working_set)
            quota.begin_window(self._quotas, now_ns, score, self._min_region)
            state.stats.qt_exceeds = quota.qt_exceeds
        state.tried = []
        if not quota.full(self._quotas, self._min_region):
            self._act_on(self._prioritized(eligible))
            self._merge_back()
        state.passes += 1

    # -- which regions ------------------------------------------------------------------------------------------

    def _eligible(self, place: int) -> tuple[Index, NDArray[np.bool_]]:
        """The regions of the target at ``place`` that match and that the core's filters let in (their index), and
        which of these a filter has let in explicitly; cuts them at the filters' bounds."""
        if not self._damos.ops.target_valid(self._targets[place]):
            return np.empty(0, np.intp), np.empty(0, np.bool_)
        if self._damos.hot is not None:
            # A smallest region that is partly hot is hot.
            hot, unit = self._damos.hot(self._targets[place]), np.uint64(self._min_region)
            bounds = np.concatenate([hot[:, 0] - hot[:, 0] % unit, hot[:, 1] + (unit - hot[:, 1] % unit) % unit])
            self._regions[place] = filters.cut(self._regions[place], distinct(bounds))
        matching = self._matching(place)
        if self._state.taken is not None:
            pieces = self._state.taken.cut_out(self._targets[place], self._regions[place], matching)
            self._regions[place], matching = pieces
        self._matched.append((self._targets[place], self._regions[place], matching))
        if not self._scheme.core_filters:
            index = np.flatnonzero(matching)
            return index, np.zeros(len(index), np.bool_)
        before = self._regions[place]
        after = filters.cut_at_filters(before, matching, self._scheme, self._min_region)
        if after is not before:
            # The pieces match as the whole did, whatever their size is.
            matching = matching[np.searchsorted(before.end, after.start, "right")]
            self._regions[place] = after
        passed, allowed = filters.decide(after, self._targets[place], self._scheme, self._min_region)
        index = np.flatnonzero(matching & passed)
        return index, allowed[index]

    def _with_memory(self, place: int, index: Index, allowed: NDArray[np.bool_]) -> tuple[Index, NDArray[np.bool_]]:
        """Those in which the action finds something, and that have not just refused it."""
        if not self._weights.by_memory or not len(index):
            return index, allowed
        regions = self._regions[place]
        kept = ~self._weights.nothing(self._weigh(place)[index])
        kept &= ~self._state.refusals.left_alone(self._targets[place], regions.start[index], regions.end[index])
        return index[kept], allowed[kept]

    def _weigh(self, place: int) -> U64:
        """What counts of each region of the target at ``place``, in bytes; asked once until regions are cut."""
        regions = self._regions[place]
        known = self._weighed.get(place)
        if known is None or known[0] is not regions:
            known = self._weighed[place] = (regions, self._weights.of(self._targets[place], regions.start, regions.end))
        return known[1]

    def _rate(self, place: int, regions: Regions) -> I64:
        """Accesses per aggregation: the moving sum, so that it means the same at any time (docs/algorithms.md 2.6)."""
        rate = regions.moving_sum
        if self._damos.hot is not None:
            ranges = self._damos.hot(self._targets[place])
            if len(ranges):
                at = np.searchsorted(ranges[:, 1], regions.start, "right")
                known = np.flatnonzero(at < len(ranges))
                known = known[ranges[at[known], 0] < regions.end[known]]
                rate[known] = self._window
        return rate

    def _matching(self, place: int) -> NDArray[np.bool_]:
        regions = self._regions[place]
        size, rate = regions.size, self._rate(place, regions)
        wanted = self._scheme.access_pattern.sz_bytes
        mask: NDArray[np.bool_] = (size >= np.uint64(wanted.min)) & (size <= np.uint64(wanted.max))
        mask &= (rate >= self._rates[0]) & (rate <= self._rates[1])
        ages = self._scheme.access_pattern.age
        mask &= self._age(regions, ages.min) >= self._bound(ages.min, upper=False)
        mask &= self._age(regions, ages.max) <= self._bound(ages.max, upper=True)
        # Unknown is not "not accessed": nobody knows a rate or an age then.
        pattern, cold = self._scheme.access_pattern, ACTIONS[self._scheme.action].prefers == "cold"
        if cold or (pattern.nr_accesses, pattern.age) != (AccessPattern().nr_accesses, AccessPattern().age):
            mask &= ~regions.blind(self._window)
        return mask

    def _in_time(self, bound: Age) -> bool:
        """Whether that bound of an age means the clock; a number of aggregations never does."""
        return self._damos.by_clock and bound.unit == "us"

    def _age(self, regions: Regions, bound: Age) -> I64:
        """The ages that ``bound`` is about, in ns or aggregations."""
        return regions.age_ns if self._in_time(bound) else regions.age

    def _bound(self, bound: Age, *, upper: bool) -> int:
        if not self._in_time(bound) or bound.value is None:
            return bound.to_aggregations(self._intervals.aggr_us, upper=upper)
        exact = bound.value * 1000
        return min(math.floor(exact) if upper else math.ceil(exact), 2**63 - 1)

    def _prioritized(self, eligible: list[tuple[Index, NDArray[np.bool_]]]) -> list[tuple[Index, NDArray[np.bool_]]]:
        """Those with the highest scores only, as many as the effective quota needs."""
        esz = self._state.quota.esz
        self._state.quota.min_score = 0
        if esz is None or not self._quotas.limited:
            return eligible
        found, by_clock = [], self._damos.by_clock
        for place, (index, _) in enumerate(eligible):
            regions = self._regions[place]
            hot = scores.hot_scores(
                self._rate(place, regions)[index],
                regions.age_ns[index] // 1000 if by_clock else regions.age[index],
                self._quotas.weights,
                window=self._window,
                aggr_us=1 if by_clock else self._intervals.aggr_us,
            )
            found.append(scores.scores(self._scheme.action, hot))
        if not found:
            return eligible
        sizes = [self._weigh(place)[index] for place, (index, _) in enumerate(eligible)]
        lowest = scores.lowest_score(np.concatenate(found), np.concatenate(sizes), esz)
        self._state.quota.min_score = lowest
        return [
            (index[score >= lowest], allowed[score >= lowest])
            for (index, allowed), score in zip(eligible, found, strict=True)
        ]

    def _from_where_it_ended(
        self, chosen: list[tuple[Index, NDArray[np.bool_]]]
    ) -> Iterator[tuple[int, tuple[Index, NDArray[np.bool_]]]]:
        """The places with their regions, beginning after what was charged last when a window was used up."""
        resume, self._state.quota.resume = self._state.quota.resume, None
        self._quota_cuts += [] if resume is None else [resume[1]]
        if resume is not None and self._weights.by_memory and not any(len(index) for index, _ in chosen):
            # What it does was changed so that nothing is to be done for now: with other memory it goes on then.
            quota = self._state.quota
            quota.resume, quota.rests = resume if quota.rests else self._behind_region(*resume), True
            return
        self._state.quota.rests = False
        if resume is not None:
            target, address = resume
            rest = []
            for place in range(len(self._targets)):
                if (self._targets[place], self._end(place)) <= resume:
                    continue
                index, allowed = chosen[place]
                if self._targets[place] == target:
                    index, allowed = self._behind(place, address, index, allowed)
                rest.append((place, (index, allowed)))
            if any(len(index) for _, (index, _) in rest):
                yield from rest
                return
            # Nothing is left after that place: from the beginning. (The kernel does so one application later.)
        yield from enumerate(chosen)

    def _end(self, place: int) -> int:
        """Where the last region of that target ends; 0 if it has none."""
        end = self._regions[place].end
        return int(end[-1]) if len(end) else 0

    def _behind_region(self, target: int, address: int) -> tuple[int, int]:
        """That place, or the end of the region around it."""
        if target in self._targets:
            regions = self._regions[self._targets.index(target)]
            at = int(np.searchsorted(regions.end, np.uint64(address), "right"))
            if at < len(regions.end) and regions.start[at] <= np.uint64(address):
                address = int(regions.end[at])
        return target, address

    def _behind(
        self, place: int, address: int, index: Index, allowed: NDArray[np.bool_]
    ) -> tuple[Index, NDArray[np.bool_]]:
        """Those of the regions ``index`` after ``address``; one that reaches over it is cut there."""
        regions = self._regions[place]
        wanted = regions.end[index] > np.uint64(address)
        index, allowed = index[wanted], allowed[wanted]
        if len(index) and regions.start[index[0]] < np.uint64(address):
            self._regions[place] = filters.cut(regions, np.array([address], np.uint64))
            index = index + 1
        return index, allowed

    def _on_node_bp(self, nid: int) -> int:
        """Which share of the bytes that match the access pattern is on a NUMA node, in 1/10,000.

        Filters do not count: a scheme whose address filter leaves it one node only is to see the others, too.
        """
        total = there = 0
        for target, regions, matching in self._matched:
            if matching.any():
                total += int(regions.size[matching].sum(dtype=np.uint64))
                start, end = regions.start[matching], regions.end[matching]
                there += self._damos.ops.node_bytes(target, start, end, nid)
        return there * 10_000 // total if total else 0

    def _working_set(self) -> int:
        """The bytes of all targets that are in use, or were within two minutes."""
        total = 0
        for place, regions in enumerate(self._regions):
            if self._damos.by_clock:
                young = regions.age_ns < _WORKING_SET_US * 1000
            else:
                young = regions.age.astype(np.int64) * self._intervals.aggr_us < _WORKING_SET_US
            used = young | (self._rate(place, regions) > 0)
            total += int(self._weigh(place)[used].sum(dtype=np.uint64))
        return total

    # -- acting -------------------------------------------------------------------------------------------------

    def _act_on(self, chosen: list[tuple[Index, NDArray[np.bool_]]]) -> None:
        """Act on one target after the other while the quota lasts, and count those whose last region was reached."""
        for place, index in self._from_where_it_ended(chosen):
            if self._state.finished:
                return
            more = self._act(place, index)
            there = len(self._regions[place]) > 0 and self._damos.ops.target_valid(self._targets[place])
            if there and (more or self._acted_on_last(place)):
                self._state.stats.nr_snapshots += 1
            if not more:
                return

    def _acted_on_last(self, place: int) -> bool:
        """Whether the last region of that target was acted on."""
        acted = self._acted.get(place)
        return acted is not None and bool(acted[-1][-1] == self._regions[place].start[-1])

    def _merge_back(self) -> None:
        """What was cut apart for the quota, and is the same again, becomes one region again.

        Not what filters have cut, which they would do again in the next pass.
        """
        damos = self._damos
        if damos.merge_back is None or damos.dry_run or not self._quota_cuts:
            return
        cuts = np.array(self._quota_cuts, np.uint64)
        for place, starts in self._acted.items():
            regions = self._regions[place]
            behind = np.isin(regions.start, np.intersect1d(np.concatenate(starts), cuts))
            self._regions[place] = damos.merge_back(self._targets[place], regions, behind)

    def _act(self, place: int, chosen: tuple[Index, NDArray[np.bool_]]) -> bool:
        """Act on the regions of one target, in order; False when the quota is used up or nothing works any more."""
        index, allowed = chosen
        quota = self._state.quota
        while len(index):
            remaining = quota.remaining(self._quotas)
            if remaining is not None and remaining < self._min_region:
                return False
            if remaining is not None and self._quotas.time_ms:
                remaining = min(remaining, max((quota.esz or remaining) // self._time_steps(), self._min_region))
            fitting = len(index)
            if remaining is not None:
                behind = np.cumsum(self._weigh(place)[index], dtype=np.uint64)
                # Behind one that uses it up there may be more that count nothing; they are for the next window.
                room = int(np.searchsorted(behind, np.uint64(remaining - self._min_region), "right")) + 1
                fitting = min(int(np.searchsorted(behind, np.uint64(remaining), "right")), room)
            if fitting < len(index):
                self._stops += 1
            if fitting == 0:
                assert remaining is not None
                first, regions = int(index[0]), self._regions[place]
                span = int(regions.start[first]), int(regions.end[first])
                at = self._weights.cut_at(self._targets[place], *span, remaining, self._min_region)
                self._regions[place] = filters.cut(regions, np.array([at], np.uint64))
                self._quota_cuts.append(at)
                # The piece is at `first` now, what is left of the region after it.
                index = np.concatenate([index[:1], index + 1])
                allowed = np.concatenate([allowed[:1], allowed])
                fitting = 1
            batch = index[:fitting]
            if not self._apply(place, batch, allowed[:fitting]):
                return False
            in_vain = remaining is not None and self._in_vain_ns > self._most_in_vain_ns
            if quota.full(self._quotas, self._min_region) or self._stops >= _MAX_STOPS or in_vain:
                quota.resume = (self._targets[place], int(self._regions[place].end[batch[-1]]))
                return False
            index, allowed = index[fitting:], allowed[fitting:]
        return True

    def _time_steps(self) -> int:
        speed = self._state.quota.speed
        return _TIME_STEPS if speed is None else speed.steps(self._quotas.time_ms * 1_000_000, _TIME_STEPS)

    def _apply(self, place: int, index: Index, allowed: NDArray[np.bool_]) -> bool:
        damos, state, target, regions = self._damos, self._state, self._targets[place], self._regions[place]
        if damos.on_apply is not None:
            damos.on_apply(self._number, target, regions, index)
        start, end, size = regions.start[index], regions.end[index], regions.size[index]
        weight = self._weigh(place)[index]
        began_ns = damos.clock.now_ns()
        try:
            done = damos.ops.apply_scheme(target, self._scheme, start, end, allowed)
        except MachineError as error:
            state.failed = str(error)
            name = self._scheme.name or f"{self._number} ({self._scheme.action})"
            damos.say(f"failed {self._number} {error}", f"scheme {name} is not applied any more: {error}")
            return False
        self._acted.setdefault(place, []).append(start)
        spent_ns = damos.clock.now_ns() - began_ns if done.spent_ns is None else done.spent_ns
        passed = done.passed
        counted = done.applied  # in a dry run the same bytes may be found again
        if state.taken is not None:
            counted = state.taken.take(target, start, end, done, whole=self._whole)
        if self._weights.by_memory:
            # What the filters stop costs nothing, and what was not there neither.
            size = np.maximum(weight, done.applied)
            passed = np.minimum(done.passed, size)
            looked = int(size.sum(dtype=np.uint64))
            state.quota.charge(self._quotas, passed, done.applied, spent_ns, looked_bytes=looked)
            if self._scheme.action != "stat":
                state.refusals.note(target, start, end, passed, done.applied)
                self._in_vain_ns += 0 if done.applied.any() else spent_ns
        else:
            state.quota.charge(self._quotas, size, done.applied, spent_ns)
        stats = state.stats
        stats.nr_tried += len(index)
        stats.sz_tried += int(size.sum(dtype=np.uint64))
        stats.nr_applied += int(np.count_nonzero(counted))
        stats.sz_applied += int(counted.sum(dtype=np.uint64))
        stats.sz_ops_filter_passed += int(passed.sum(dtype=np.uint64))
        stats.sz_added += done.added
        stats.sz_refused += done.refused
        state.tried.append(
            Tried(
                target=target,
                start=start,
                end=end,
                nr_accesses=regions.moving_sum[index],
                age=regions.age[index].copy(),
                sz_applied=done.applied,
                sz_filter_passed=passed,
                probe_hits=regions.probe_hits[:, index],
            )
        )
        if self._scheme.does.acts and not damos.dry_run:
            # What was acted on is to be judged anew. In the kernel that is all of it; where nothing has come of it,
            # memory is as idle as it was, and whoever goes by that is not to take it for used.
            anew = index[done.applied > 0] if self._weights.by_memory else index
            regions.age[anew] = regions.age_ns[anew] = 0
        return True
