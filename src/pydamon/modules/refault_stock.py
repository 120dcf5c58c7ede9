"""What was taken and is still out: how much of it comes back per minute, and how soon what is taken next will.

What one step took is a tranche. The share of it that comes back per minute (its hazard) is the mean of a Gamma
posterior: at first that of what was taken before it, then bytes that came back by bytes x minutes that were out. The
kernel counts all tranches together, so that a count is divided among them by what was expected of each.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

_FORGET_MINUTES = 3.0  # memory changes: what was seen so long ago counts for a third
_RECENT_MINUTES = 2.0  # what is taken next is like what was taken within this time
_AS_OLD = 0.7  # ... if that was idle for no longer than 1 / so many times as long
_MOST_TRUST = 16.0  # no memory is taken for better than its worst by more, however well what was taken before stays out
_PRIOR_PAGES = 0.5  # what is known of a share counts as much as so many pages that came back
_SURELY = 2.0  # standard deviations of a count
_BIAS_MINUTES = 0.5
_LEAST_BIAS, _MOST_BIAS = 0.5, 4.0
_MOST_TRANCHES = 120


@dataclass
class _Tranche:
    """``left`` bytes are out; ``back`` bytes came back of ``exposure`` bytes x minutes. ``worst`` as it was taken."""

    taken_min: float
    worst: float
    left: float
    back: float
    exposure: float

    @property
    def hazard(self) -> float:
        return self.back / self.exposure


class Stock:
    """All that is out. Times are in minutes and sizes in bytes, both counted from any beginning; shares per minute."""

    def __init__(self, page_bytes: int = 4096) -> None:
        self._page = page_bytes
        self._tranches: deque[_Tranche] = deque()
        self._counts: deque[tuple[float, int]] = deque()  # when, and what had come back: of the last minute
        self._taken: int | None = None
        self._seen = self._foretold = 0.0  # what came back of late, and what was expected to

    def look(self, now_min: float, taken: int, back: int, worst: float) -> None:
        """Note what was taken and what came back in all; ``worst``: the share of what was taken since the last look
        that comes back per minute at the most."""
        before, self._taken = self._taken, taken
        self._counts.append((now_min, back))
        while now_min - self._counts[0][0] > 1 and len(self._counts) > 2:
            self._counts.popleft()
        if before is None:
            return
        last_min, last_back = self._counts[-2]
        self._came_back(max(back - last_back, 0), max(now_min - last_min, 1e-6))
        if taken > before:
            prior = self._page * _PRIOR_PAGES / 2
            self._tranches.append(_Tranche(now_min, worst, taken - before, prior, prior / self.marginal(worst)))
        while len(self._tranches) > _MOST_TRANCHES:
            oldest, second = self._tranches.popleft(), self._tranches[0]
            second.left += oldest.left
            second.back += oldest.back
            second.exposure += oldest.exposure

    def _came_back(self, back: float, minutes: float) -> None:
        expected = [one.left * -math.expm1(-one.hazard * minutes) for one in self._tranches]
        total = sum(expected)
        of_late = math.exp(-minutes / _BIAS_MINUTES)
        self._seen = self._seen * of_late + back
        self._foretold = self._foretold * of_late + total
        kept = math.exp(-minutes / _FORGET_MINUTES)
        for one, share in zip(self._tranches, expected, strict=True):
            mine = min(back * share / total, one.left) if total else 0.0
            one.back = one.back * kept + mine
            one.exposure = one.exposure * kept + (one.left - mine / 2) * minutes
            one.left -= mine

    def per_minute(self, ahead_min: float = 0.0) -> float:
        """The bytes that come back per minute of what is out now, in that time from now."""
        prior = self._page * _PRIOR_PAGES
        bias = min(max((self._seen + prior) / (self._foretold + prior), _LEAST_BIAS), _MOST_BIAS)
        return bias * sum(one.left * one.hazard * math.exp(-one.hazard * ahead_min) for one in self._tranches)

    def surely_per_minute(self) -> float:
        """The bytes that have come back per minute at the least, in any time up to now within the last minute."""
        if not self._counts:
            return 0.0
        now_min, back = self._counts[-1]
        least = (
            self._at_least(back - before, 1.0) / (now_min - at_min)
            for at_min, before in self._counts
            if at_min < now_min
        )
        return max(least, default=0.0)

    def marginal(self, worst: float) -> float:
        """The share of what is taken next that comes back per minute, by what was taken of late and was no older.

        Of the last tranche, of the last two, and so on what is highest for certain, or that of all of them.
        """
        now_min = self._counts[-1][0] if self._counts else 0.0
        certain = back = exposure = 0.0
        for one in reversed(self._tranches):
            if now_min - one.taken_min > _RECENT_MINUTES:
                break
            if one.worst < worst * _AS_OLD:
                continue
            back += one.back
            exposure += one.exposure
            certain = max(certain, self._at_least(back, _SURELY) / exposure)
        prior = self._page * _PRIOR_PAGES
        return max((back + prior) / (exposure + prior / worst), certain, worst / _MOST_TRUST)

    def _at_least(self, back: float, deviations: float) -> float:
        """Of a Poisson count of pages."""
        return max(back - deviations * math.sqrt(max(back, 0.0) * self._page), 0.0)
