"""What is known of a running scheme: its statistics, its quota, its goals, and what it tried last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pydamon.core.goals import GoalState
from pydamon.core.quota import QuotaState
from pydamon.core.refusals import Refusals
from pydamon.core.regions import I64, U64
from pydamon.core.taken import Taken
from pydamon.core.watermarks import WatermarkState
from pydamon.errors import RequestError
from pydamon.spec import Scheme
from pydamon.spec.schemes import Goal
from pydamon.spec.statistics import STATISTICS


@dataclass(slots=True)
class SchemeStats:
    """What a scheme did since its start; what each field is, and its unit, is in `pydamon.spec.statistics`."""

    nr_tried: int = 0
    sz_tried: int = 0
    nr_applied: int = 0
    sz_applied: int = 0
    sz_ops_filter_passed: int = 0
    qt_exceeds: int = 0
    nr_snapshots: int = 0
    sz_added: int = 0
    sz_refused: int = 0

    @classmethod
    def of(cls, values: Mapping[str, int | None]) -> SchemeStats:
        """From values by their names; what is not known is 0."""
        return cls(**{name: values.get(name) or 0 for name in STATISTICS})

    def by_name(self) -> dict[str, int]:
        """All values by their names."""
        return {name: getattr(self, name) for name in STATISTICS}


@dataclass(frozen=True, slots=True, eq=False)
class Tried:
    """Regions of one target that an action was tried on in one pass; parallel arrays, sizes in bytes.

    ``probe_hits`` has the shape (probes, regions).
    """

    target: int
    start: U64
    end: U64
    nr_accesses: I64
    age: I64
    sz_applied: U64
    sz_filter_passed: U64
    probe_hits: I64 = field(default_factory=lambda: np.empty((0, 0), np.int64))


@dataclass(slots=True)
class SchemeState:
    """One running scheme: what it did, its quota, and what it tried in its last pass.

    ``passes`` counts how often it has gone over the regions, ``failed`` says why it can no longer be applied at all.
    """

    scheme: Scheme
    stats: SchemeStats = field(default_factory=SchemeStats)
    quota: QuotaState = field(default_factory=QuotaState)
    watermarks: WatermarkState = field(default_factory=WatermarkState)
    goals: list[GoalState] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)
    refusals: Refusals = field(default_factory=Refusals)
    taken: Taken | None = None  # in a dry run
    passes: int = 0
    failed: str | None = None
    next_apply: int = 0

    def __post_init__(self) -> None:
        self.goals = [GoalState(goal) for goal in self.scheme.quotas.goals]

    @property
    def finished(self) -> bool:
        """Whether it has seen as many snapshots as it was to, or cannot be applied any more."""
        limit = self.scheme.max_nr_snapshots
        return self.failed is not None or (0 < limit <= self.stats.nr_snapshots)

    @property
    def active(self) -> bool:
        """Whether its watermarks let it act."""
        return self.watermarks.activated

    def change(self, scheme: Scheme) -> None:
        """Go on as ``scheme``; statistics and what the quota has learned stay."""
        old, self.scheme = self.scheme, scheme
        if old.quotas != scheme.quotas:
            before = self.goals
            self.goals = [_with_history(goal, before) for goal in scheme.quotas.goals]
            self.quota.change(scheme.quotas)
        if old.watermarks != scheme.watermarks:
            self.watermarks.change()
        self.failed = None


def user_goals(states: Sequence[SchemeState], name: str, value: int = 0) -> list[tuple[int, int, GoalState]]:
    """The ``user_input`` goals that ``name`` and ``value`` are for, with the numbers of scheme and goal.

    Those of that name, or the one of the numbers ``scheme.goal`` like ``0.0``. Raises RequestError if there is none, or
    if the value cannot be one.
    """
    if value < 0:
        raise RequestError(f"is {value}; it must not be below 0", where=f"goal {name}")
    goals = [
        (s, g, goal)
        for s, state in enumerate(states)
        for g, goal in enumerate(state.goals)
        if goal.goal.metric == "user_input"
    ]
    meant = [found for found in goals if found[2].goal.name == name]
    meant = meant or [(s, g, goal) for s, g, goal in goals if f"{s}.{g}" == name]
    if meant:
        return meant
    known = dict.fromkeys(goal.goal.name or f"{s}.{g}" for s, g, goal in goals)
    hint = f"there are: {', '.join(known)}" if known else "no scheme has a goal of the metric user_input"
    raise RequestError(f"there is no such goal; {hint}", where=f"goal {name}")


def _with_history(goal: Goal, before: list[GoalState]) -> GoalState:
    """The state of a goal whose target or value alone may have changed: what it has measured stays.

    Taken out of ``before``. A user's value stays, too, unless the spec gives another one than before.
    """
    for place, state in enumerate(before):
        if (state.goal.metric, state.goal.nid, state.goal.memcg_path) == (goal.metric, goal.nid, goal.memcg_path):
            old, state.goal = state.goal, goal
            if goal.current_value != old.current_value:
                state.current_value = goal.current_value
            return before.pop(place)
    return GoalState(goal)
