"""DAMOS: find the regions that schemes are for, and have the operations set act on them, within their quotas.

All schemes of a context (`Damos`) are looked at after each sampling interval; each is applied when its own apply
interval is over. What one of them does then is in `core.passes`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pydamon.core.goals import GoalState, Metrics
from pydamon.core.passes import Index, Pass, apply_interval_us
from pydamon.core.quota import QuotaState
from pydamon.core.regions import U64, Regions
from pydamon.core.scheme_state import SchemeState, user_goals
from pydamon.core.speed import Speed
from pydamon.core.taken import Taken
from pydamon.errors import MachineError, RequestError, located
from pydamon.ops.base import PAGE_SIZE, ActingOperationsSet
from pydamon.ops.pace import Clock
from pydamon.spec import Intervals, Scheme
from pydamon.spec.metrics import METRICS
from pydamon.spec.schemes import Goal, Quotas, Watermarks


@dataclass(slots=True)
class Damos:
    """The schemes of one context. ``notices`` are lines for the user, each once.

    ``on_apply`` is called before each application with the scheme's number, the target and its regions' index (the
    kernel's ``damos_before_apply``); ``on_pass`` after each pass of a scheme over all regions, with its number.
    ``hot`` gives the ranges of a target that are to be treated as accessed in every sample, (n, 2) bytes.
    ``by_memory``: quotas are for memory and not for addresses (`core.weights`), and each window of one is used.
    ``by_clock``: ages that are given as times, and those of priorities, are by the clock, not intervals x their number.
    ``merge_back`` puts together regions of a target, each of a mask and the one before it, if nothing tells them apart.
    ``dry_run``: the operations set does nothing, so regions stay as without schemes, and watermarks do not pause the
    monitoring; what a scheme has "taken" is left out of it until it is accessed again (`core.taken`).
    """

    ops: ActingOperationsSet
    clock: Clock
    metrics: Metrics | None = None
    min_region: int = PAGE_SIZE
    on_apply: Callable[[int, int, Regions, Index], object] | None = None
    on_pass: Callable[[int], object] | None = None
    hot: Callable[[int], U64] | None = None
    merge_back: Callable[[int, Regions, NDArray[np.bool_]], Regions] | None = None
    by_memory: bool = False
    by_clock: bool = False
    dry_run: bool = False
    states: list[SchemeState] = field(default_factory=list, init=False)
    notices: list[str] = field(default_factory=list, init=False)
    _aggregated_at: int = field(default=-1, init=False)
    _said: set[str] = field(default_factory=set, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    # -- what a user of the loop does ---------------------------------------------------------------------------

    def check(self, schemes: tuple[Scheme, ...]) -> None:
        """Raise RequestError or MachineError if one of ``schemes`` cannot be applied here."""
        for number, scheme in enumerate(schemes):
            with located(f"schemes[{number}]"):
                self.ops.check_scheme(scheme)
                self._check_quotas(scheme.quotas)
                if scheme.watermarks.metric == "free_mem_rate":
                    with located("watermarks.metric", ": "):
                        _free_permil(self._need_metrics(), scheme.watermarks)

    def _check_quotas(self, quotas: Quotas) -> None:
        if 0 < quotas.sz_bytes < self.min_region:
            text = f"is {quotas.sz_bytes} bytes; the smallest region has {self.min_region}"
            raise RequestError(text, where="quotas.sz_bytes")
        for index, goal in enumerate(quotas.goals):
            with located(f"quotas.goals[{index}].metric", ": "):
                self._check_metric(goal)

    def set_goal(self, name: str, value: int) -> None:
        """Give the value of the ``user_input`` goals of that name, or of one by ``scheme.goal`` numbers like ``0.0``.

        Safe from any thread. Raises RequestError if there is no such goal.
        """
        with self._lock:
            for _, _, goal in user_goals(self.states, name, value):
                goal.current_value = value

    # -- what the loop does -------------------------------------------------------------------------------------

    def start(self, schemes: tuple[Scheme, ...], intervals: Intervals) -> None:
        """Begin with ``schemes``, each to be applied first after its apply interval."""
        self.states = [self._new_state(scheme) for scheme in schemes]
        for state in self.states:
            state.next_apply = self._apply_samples(state.scheme, intervals)
            self._begin_goals(state)

    def change(
        self, schemes: tuple[Scheme, ...], passed: int, intervals: Intervals, aggregation_at: int | None = None
    ) -> None:
        """Go on with ``schemes`` (as `check` lets pass) after ``passed`` samples; results come at ``aggregation_at``.

        A scheme that stands at the same place with the same action, or has the same name, goes on with its
        statistics and its quota's state.
        """
        with self._lock:  # nobody gives a goal a value meanwhile
            states = []
            for scheme, state in zip(schemes, _successors(schemes, self.states), strict=True):
                if state is None:
                    state = self._new_state(scheme)
                    state.next_apply = passed + self._apply_samples(scheme, intervals)
                else:
                    state.change(scheme)
                self._schedule(state, passed, intervals, aggregation_at)
                self._begin_goals(state)
                states.append(state)
            self.states = states

    def _new_state(self, scheme: Scheme) -> SchemeState:
        does = scheme.does
        taken = Taken(hot=does.prefers == "hot") if self.dry_run and does.acts else None
        return SchemeState(scheme, taken=taken, quota=QuotaState(speed=Speed() if self.by_memory else None))

    def reschedule(self, passed: int, intervals: Intervals, aggregation_at: int | None = None) -> None:
        """The intervals have changed: none waits longer than its apply interval is now."""
        for state in self.states:
            self._schedule(state, passed, intervals, aggregation_at)

    def wait_ns(self) -> int:
        """Look at the watermarks that are due; for how long monitoring can pause as no scheme is active (else 0)."""
        now_ns = self.clock.now_ns()
        wait: int | None = None
        for state in self.states:
            marks = state.scheme.watermarks
            if marks.metric == "none":
                state.watermarks.activated = True
            elif state.watermarks.due(marks, now_ns):
                state.watermarks.update(marks, self._free_mem_permil(marks), now_ns)
            if state.active:
                wait = 0
            elif wait != 0:
                due_ns = state.watermarks.wait_ns(now_ns)
                wait = due_ns if wait is None else min(wait, due_ns)
        return 0 if self.dry_run else wait or 0

    def look_due(self) -> bool:
        """Whether the watermarks of some scheme are to be looked at (`wait_ns`)."""
        now_ns = self.clock.now_ns()
        return any(state.watermarks.due(state.scheme.watermarks, now_ns) for state in self.states)

    def next_apply(self) -> int | None:
        """After how many samples `apply` has something to do; None without schemes."""
        return min((state.next_apply for state in self.states), default=None)

    def aggregated(self, passed: int, targets: list[int], regions: list[Regions], window: int) -> None:
        """An aggregation of ``window`` samples ends with sample ``passed``; its counts are in the regions."""
        self._aggregated_at = passed
        for state in self.states:
            if state.taken is not None:
                state.taken.look(targets, regions, window)

    def apply(self, passed: int, intervals: Intervals, targets: list[int], regions: list[Regions]) -> None:
        """Apply the schemes that are due; ``regions`` (parallel to ``targets``) are cut where need be, in the list."""
        for number, state in enumerate(self.states):
            if passed < state.next_apply:
                continue
            state.next_apply = passed + self._apply_samples(state.scheme, intervals)
            if state.finished or not state.active:
                continue
            seen = list(regions) if self.dry_run else regions
            Pass(self, number, state, intervals, targets, seen, whole=passed == self._aggregated_at).run()
            if self.on_pass is not None:
                self.on_pass(number)

    def _schedule(self, state: SchemeState, passed: int, intervals: Intervals, aggregation_at: int | None) -> None:
        """When it is applied next: with the aggregation, if it has no interval of its own, for it sees whole counts."""
        own = state.scheme.apply_interval_us or self._apply_us(state.scheme, intervals) != intervals.aggr_us
        if aggregation_at is not None and not own:
            state.next_apply = aggregation_at
        else:
            state.next_apply = min(state.next_apply, passed + self._apply_samples(state.scheme, intervals))

    def _apply_us(self, scheme: Scheme, intervals: Intervals) -> int:
        return apply_interval_us(scheme, intervals, self.by_memory)

    def _apply_samples(self, scheme: Scheme, intervals: Intervals) -> int:
        return max(self._apply_us(scheme, intervals) // intervals.sample_us, 1)

    def say(self, key: str, line: str) -> None:
        """A line for the user, once for each ``key``."""
        if key not in self._said:
            self._said.add(key)
            self.notices.append(line)

    # -- metrics ------------------------------------------------------------------------------------------------

    def _need_metrics(self) -> Metrics:
        if self.metrics is None:
            raise MachineError("cannot be used: there are no metrics of the machine here")
        return self.metrics

    def _check_metric(self, goal: Goal) -> None:
        source = METRICS[goal.metric].source
        if source == "machine":
            GoalState(goal).measure(self._need_metrics())
        elif source == "targets":
            self._need_metrics().refaulted_bytes()

    def _begin_goals(self, state: SchemeState) -> None:
        for goal in state.goals:
            if self.metrics is not None:
                try:
                    goal.begin(self.metrics)
                    if METRICS[goal.goal.metric].source == "targets":
                        goal.share_back(self.clock.now_ns(), self.metrics.refaulted_bytes(), 1)
                except MachineError as error:
                    self.say(f"goal {goal.goal.metric}", f"{goal.goal.metric}: {error}")

    def _free_mem_permil(self, marks: Watermarks) -> int | None:
        if self.metrics is None:
            return None
        try:
            return _free_permil(self.metrics, marks)
        except MachineError as error:
            self.say("free_mem_rate", f"free_mem_rate cannot be read; schemes stay as they are: {error}")
            return None

    def measure(self, state: SchemeState, eligible: Callable[[int], int], working_set: Callable[[], int]) -> int | None:
        """The score of the goal that is furthest reached; None without goals.

        ``eligible(node)`` is in 1/10,000, ``working_set()`` in bytes.
        """
        for goal in state.goals:
            try:
                source = METRICS[goal.goal.metric].source
                if source == "scheme":
                    goal.current_value = eligible(goal.goal.nid or 0)
                elif source == "targets" and self.metrics is not None:
                    goal.share_back(self.clock.now_ns(), self.metrics.refaulted_bytes(), working_set())
                elif self.metrics is not None:
                    goal.measure(self.metrics)
            except MachineError as error:
                self.say(f"goal {goal.goal.metric}", f"{goal.goal.metric} keeps its last value: {error}")
        return max((goal.score for goal in state.goals), default=None)


def _free_permil(metrics: Metrics, marks: Watermarks) -> int:
    """What watermarks go by: free memory of the machine or of a node, in 1/1000. Raises MachineError."""
    if marks.nid is None:
        return metrics.free_mem_permil()
    return metrics.measure("node_mem_free_bp", marks.nid, "") // 10


def _successors(schemes: tuple[Scheme, ...], states: list[SchemeState]) -> list[SchemeState | None]:
    """For each of ``schemes`` the state that it goes on with: first by the name, then by the place; both need the same
    action. A scheme never goes on as one that is called differently."""
    left: list[SchemeState | None] = list(states)
    result: list[SchemeState | None] = [None] * len(schemes)
    for number, scheme in enumerate(schemes):
        for place, state in enumerate(left):
            same = state is not None and scheme.name is not None and state.scheme.name == scheme.name
            if same and state is not None and state.scheme.action == scheme.action:
                result[number], left[place] = state, None
                break
    for number, scheme in enumerate(schemes[: len(left)]):
        state = left[number]
        if result[number] is not None or state is None or state.scheme.action != scheme.action:
            continue
        if state.scheme.name is None or scheme.name is None:
            result[number], left[number] = state, None
    return result
