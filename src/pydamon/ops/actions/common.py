"""What the actions on virtual and on physical memory have in common."""

from __future__ import annotations

from collections import deque

import numpy as np

from pydamon.ops.actions.collapsing import Collapsed
from pydamon.ops.actions.filters import PageFilters
from pydamon.ops.actions.homes import Homes, Undone
from pydamon.ops.actions.plan import MAX_PLANS, Plan
from pydamon.ops.base import Ranges
from pydamon.spans import NO_RUNS, joined
from pydamon.spec import Scheme


class Actions:
    """Page filters, what a dry run would have done, and where migrated pages came from.

    With ``dry_run`` everything is found out and nothing is touched: applied is what would be, and `take_plans` tells
    the ranges. With ``remember_homes`` it is remembered where migrated pages came from, for `undo`.
    """

    def __init__(self, *, dry_run: bool, remember_homes: bool) -> None:
        self.dry_run = dry_run
        self.collapsed = Collapsed()
        self._filters = PageFilters(dry_run=dry_run)
        self._homes = Homes(remember=remember_homes)
        self._plans: deque[Plan] = deque(maxlen=MAX_PLANS)
        self._acted: list[Ranges] = []
        self._notices: dict[str, bool] = {}  # lines for the user, and whether they were taken

    def note(self, line: str) -> None:
        """A line for the user, once."""
        self._notices.setdefault(line, False)

    def take_notices(self) -> list[str]:
        """Those since the last call."""
        found = [line for line, taken in self._notices.items() if not taken]
        self._notices |= dict.fromkeys(found, True)
        return found

    def undo(self, scheme: Scheme) -> Undone:
        """Bring back what can be: migrated pages (with ``remember_homes``) and huge-page advice."""
        return self._homes.undo(scheme)

    @property
    def moved_back_bytes(self) -> int:
        """What was moved back within a minute to the NUMA node that it had been moved from."""
        return self._homes.round_trips.bytes

    def _keep(self, plan: Plan) -> None:
        """What a part of a dry run's application would have done."""
        self._acted += plan.take_all()
        if plan.ranges:
            self._plans.append(plan)

    def _take_acted(self) -> Ranges | None:
        """What one application of a dry run would have acted on, sorted and disjoint; None if it is none."""
        ranges, self._acted = self._acted, []
        if not self.dry_run:
            return None
        found = np.concatenate([NO_RUNS, *ranges])
        return joined(found[np.argsort(found[:, 0], kind="stable")])

    def take_plans(self) -> list[Plan]:
        """What a dry run would have done since the last call; of very many applications the latest."""
        plans = list(self._plans)
        self._plans.clear()
        return plans

    def close(self) -> None:
        """Release files; nothing is undone."""
        self._filters.close()
