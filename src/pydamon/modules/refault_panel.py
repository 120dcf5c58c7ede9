"""How much of what was idle for some time is used again per minute, as the page panel sees it: upper bounds.

A panel of a thousand pages sees few of those that return, and knows nothing of how memory is taken in pieces: so it
bounds what is expected (`PanelShares.worst`), and the counters of refaults decide (`modules/refault_stock.py`).
"""

from __future__ import annotations

import math

from pydamon.modules.controller import Observations
from pydamon.spec.defaults import PANEL_PAGES

MINUTE_US, MINUTE_NS = 60_000_000, 60_000_000_000
_FORGET_MINUTES = 5.0
_UNEVEN = 4.0  # a piece may be used so many times as often as the mean of all that is as old


class PanelShares:
    """What was cold and what of it returned, by idle time."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[float, float]] = {}  # by age (us): bytes that returned, bytes x minutes
        self._page_bytes = 0.0
        self._last_ns: int | None = None

    def look(self, seen: Observations) -> None:
        """Note it; without a panel nothing is known."""
        last_ns, self._last_ns = self._last_ns, seen.now_ns
        if last_ns is None or not seen.returned:
            return
        minutes = (seen.now_ns - last_ns) / MINUTE_NS
        kept = math.exp(-minutes / _FORGET_MINUTES)
        returned = {one.age_us: one.bytes for one in seen.returned}
        for one in seen.cold:
            if one.age_us in returned:
                back, exposure = self._of.get(one.age_us, (0.0, 0.0))
                self._of[one.age_us] = back * kept + returned[one.age_us], exposure * kept + one.bytes * minutes
        self._page_bytes = (seen.resident_bytes or 0) / PANEL_PAGES

    def worst(self, age_us: int) -> float:
        """The share of a piece of memory that was idle for so long that is used again per minute, at the most.

        Memory that was not used for a minute will hardly be used more than once in the next one.
        """
        of_age = MINUTE_US / age_us
        known = max((age for age in self._of if age <= age_us), default=None)
        if known is None:
            return of_age
        back, exposure = self._of[known]
        if exposure <= 0:
            return of_age
        upper = back + 2 * math.sqrt(back * self._page_bytes) + 2 * self._page_bytes
        return min(of_age, _UNEVEN * upper / exposure)
