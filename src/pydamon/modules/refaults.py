"""Reclaim so that no more than some share of the working set comes back per minute, by what really comes back.

The first minimum age is chosen as in software-defined far memory (Lagar-Cavilla et al., ASPLOS'19): each minute the
lowest age at which the pages of the panel that were used again would have kept the limit; of these a high percentile,
or the last one if that is higher. From then on the loop is closed by the counters of refaults, since a panel of a
thousand pages sees too few. What is out goes on coming back: so what is taken until the next step is what the limit
leaves beside what will come back of that in a minute, divided by the share of what is taken next that comes back
(`modules/refault_stock.py`). The oldest goes first; an integral takes out what the estimates are wrong by.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from pydamon.modules.controller import ColdBytes, Decision, Observations, SetMinAge, SetQuota
from pydamon.modules.refault_panel import MINUTE_NS, MINUTE_US, PanelShares
from pydamon.modules.refault_stock import Stock

WORKING_SET_US = 120_000_000  # what was used within this time
_BP = 10_000
_MOST_MINUTES = 480  # of which the percentile is
_MOST_US = 24 * 3600 * 1_000_000
# Per step the age becomes (what came back / what may) to such a power as many times what it was. Each minute's count is
# seen in several steps, so that little is enough.
_UP, _DOWN = 0.12, 0.03
_MOST_RATE, _LEAST_RATE = 4.0, 0.3
_AHEAD_MINUTES = 1.0
_INTEGRAL_PER_MINUTE = 0.2
_MOST_INTEGRAL = math.log(2)
_LEAST_SUPPLY = 1 << 20  # bytes
_FORGOTTEN_PER_MINUTE = 2.0  # what was asked for half a minute ago counts for a third
_AGE_STEP = 1.05
_NEARLY = 0.6
_WINDOW_STEP = 1.15


class RefaultRule(msgspec.Struct, frozen=True, kw_only=True):
    """At most ``limit_bp`` of the working set comes back per minute of what ``scheme`` takes.

    For ``watch_ns`` nothing is taken; ``first_us`` is the minimum age behind that where no panel tells a better one. It
    never falls below ``least_us``. ``window_us`` and ``most_bytes`` (0: any) are the scheme's quota, of which no more
    is given than what may still be taken.
    """

    scheme: str
    limit_bp: int = 20
    interval_us: int = 5_000_000
    first_us: int = 120_000_000
    least_us: int = 1_000_000
    watch_ns: int = 2 * MINUTE_NS
    percentile: int = 98
    window_us: int = 1_000_000
    most_bytes: int = 0


def lowest_age_us(returned: Iterable[ColdBytes], allowed_bytes: float) -> int | None:
    """The lowest age of which no more came back than is allowed; None: not even of the highest, or nothing is known.

    ``returned``: bytes that were used again after they had been idle for an age or longer.
    """
    return min((one.age_us for one in returned if one.bytes <= allowed_bytes), default=None)


def percentile_of(values: Sequence[int], percent: int) -> int:
    """The nearest rank: the smallest value that is not exceeded by that share of them."""
    return sorted(values)[max(math.ceil(len(values) * percent / 100), 1) - 1]


def working_set_bytes(seen: Observations) -> int | None:
    """What was used within two minutes: all but what was idle for longer; None where that is not known."""
    if seen.resident_bytes is None:
        return None
    idle = seen.idle_bytes(WORKING_SET_US)
    return seen.working_set_bytes if idle is None else max(seen.resident_bytes - idle, 0)


class RefaultController:
    """Decides on the minimum age of a scheme. Where nothing is counted that came back, it stays as the panel says."""

    needs_accesses = True

    def __init__(self, rule: RefaultRule) -> None:
        self.rule = rule
        self.interval_us = rule.interval_us
        self.min_age_us = max(rule.first_us, rule.watch_ns // 1000)  # no memory is known to be idle for longer
        self._began_ns: int | None = None
        self._minute_ns = 0  # since when what returned is gathered
        self._returned: dict[int, int] = {}  # bytes by age
        self._best: deque[int] = deque(maxlen=_MOST_MINUTES)  # lowest ages, minute by minute
        self._counted: deque[tuple[int, int]] = deque()  # when, and how many bytes had come back
        self._set_us = rule.first_us
        self._watched = False
        self._panel = PanelShares()
        self._stock = Stock()
        self._integral = 0.0  # of which the limit is exp() times what is aimed for
        self._quota = rule.most_bytes
        self._oldest_us = 0  # the highest age that enough memory has, times what it was lowered by
        self._lowered = 1.0
        self._per_window = 1.0  # so many times what would do if each window was used
        self._asked = self._got = 0.0  # bytes that were to be taken of late, and that were taken
        self._taken = 0
        self._left = 0.0  # bytes that may be taken until the next step
        self._resting = False  # nothing may be taken now
        self._exhausted = True  # whether there is less that is old enough than may be taken
        self._closed = False  # whether the loop goes by what really came back

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """A new minimum age, if it is another by a twentieth at least, and a new quota."""
        seen = observations
        if self._began_ns is None:
            self._began_ns = self._minute_ns = seen.now_ns
        self._gather(seen)
        self._panel.look(seen)
        watched = seen.now_ns - self._began_ns >= self.rule.watch_ns
        if watched and not self._watched:
            self._watched = True
            if not self._best:
                self.min_age_us = self.rule.first_us
        if not seen.active:  # that nothing comes back says nothing
            self._counted.clear()
        rate = self._rate(seen) if watched and seen.active else None
        if rate is not None:
            self._closed = True
            self._correct(rate, (seen.now_ns - self._began_ns) // 1000)
        quota = self._spend(seen, rate) if watched else ()
        if not watched:  # the scheme must not begin before its quota is set
            self._resting = self.rule.scheme in seen.applied and seen.back_bytes is not None
        age_us = _MOST_US if self._resting else max(self.min_age_us, self._oldest_us)
        if abs(age_us - self._set_us) * 20 < self._set_us:
            return quota
        self._set_us = age_us
        return (*quota, SetMinAge(scheme=self.rule.scheme, min_age_us=age_us))

    def _spend(self, seen: Observations, rate: float | None) -> tuple[Decision, ...]:
        """The quota that leaves until the next step what may be taken; a quota of nothing is one of no limit."""
        size, taken = working_set_bytes(seen), seen.applied.get(self.rule.scheme)
        if not size or taken is None or seen.back_bytes is None:
            return ()
        allowed = size * self.rule.limit_bp / _BP
        self._choose_age(seen, taken)
        worst = self._panel.worst(max(self.min_age_us, self._oldest_us))
        self._stock.look(seen.now_ns / MINUTE_NS, taken, seen.back_bytes, worst)
        self._left = self._may_take(allowed, worst, rate)
        quota = int(self._left * self._per_window * self.rule.window_us / self.rule.interval_us)
        self._resting = self._left < seen.page_bytes
        quota = max(min(quota, self.rule.most_bytes or quota), seen.page_bytes)
        if quota == self._quota or self._resting:
            return ()
        self._quota = quota
        return (SetQuota(scheme=self.rule.scheme, sz_bytes=quota),)

    def _may_take(self, allowed: float, worst: float, rate: float | None) -> float:
        """Bytes until the next step: in a minute what is allowed per minute comes back. 0 while surely more does."""
        steps_per_minute = MINUTE_US / self.rule.interval_us
        if rate is not None and self._stock.per_minute() > allowed / 2:  # else it has nothing to do with the estimates
            self._integral += (1 - min(rate, 2.0)) * _INTEGRAL_PER_MINUTE / steps_per_minute
            self._integral = min(max(self._integral, -_MOST_INTEGRAL), _MOST_INTEGRAL)
        if self._stock.surely_per_minute() > allowed:
            return 0.0
        gap = allowed * math.exp(self._integral) - self._stock.per_minute(_AHEAD_MINUTES)
        return max(gap, 0.0) / self._stock.marginal(worst) / steps_per_minute

    def _choose_age(self, seen: Observations, taken: int) -> None:
        """The highest age of which there is enough for a minute, lower step by step while not enough is taken.

        A machine that is slow, or busy, does not use each window of the quota: so first more is given per window. Then,
        not all that is old may be taken: filters may stop it, or it is what has just been refused.
        """
        steps_per_minute = MINUTE_US / self.rule.interval_us
        kept = math.exp(-_FORGOTTEN_PER_MINUTE / steps_per_minute)
        self._asked, self._got = self._asked * kept + self._left, self._got * kept + max(taken - self._taken, 0)
        self._taken = taken
        most = max(self.rule.interval_us / self.rule.window_us, 1.0)
        enough, too_little = self._got >= self._asked / 2, self._got < self._asked * _NEARLY
        self._per_window = min(max(self._per_window * (_WINDOW_STEP if too_little else 1 / _WINDOW_STEP), 1.0), most)
        enough = enough or self._per_window < most
        self._lowered = min(self._lowered * _AGE_STEP, 1.0) if enough else self._lowered / _AGE_STEP
        wanted = max(self._left * steps_per_minute, _LEAST_SUPPLY)
        oldest_us = max((one.age_us for one in seen.cold if one.bytes >= wanted), default=0)
        self._lowered = max(self._lowered, self.min_age_us / max(oldest_us, self.min_age_us))
        self._oldest_us = round(oldest_us * self._lowered)
        self._exhausted = not enough and self._oldest_us <= self.min_age_us

    def _gather(self, seen: Observations) -> None:
        """Each minute the lowest age that would have done; at the end of the watch the first minimum age follows."""
        for one in seen.returned:
            self._returned[one.age_us] = self._returned.get(one.age_us, 0) + one.bytes
        lasting_ns = seen.now_ns - self._minute_ns
        size = working_set_bytes(seen)
        if lasting_ns < MINUTE_NS or size is None or self._began_ns is None:
            return
        allowed = size * self.rule.limit_bp / _BP * lasting_ns / MINUTE_NS
        found = lowest_age_us((ColdBytes(age, size) for age, size in self._returned.items()), allowed)
        self._minute_ns, self._returned = seen.now_ns, {}
        if found is not None:
            self._best.append(found)
        if not self._closed and self._best and seen.now_ns - self._began_ns >= self.rule.watch_ns:
            self.min_age_us = self._kept(max(self._best[-1], percentile_of(self._best, self.rule.percentile)))

    def _rate(self, seen: Observations) -> float | None:
        """What came back in the last minute, as a multiple of what may; None if that is not known."""
        size = working_set_bytes(seen)
        if seen.back_bytes is None or not size:
            return None
        self._counted.append((seen.now_ns, seen.back_bytes))
        while len(self._counted) > 2 and seen.now_ns - self._counted[1][0] >= MINUTE_NS:
            self._counted.popleft()
        since_ns, before = self._counted[0]
        if seen.now_ns - since_ns < self.rule.interval_us * 1000 // 2:
            return None
        # In the first minute what was not seen yet counts as nothing: one page must not count for many.
        back = max(self._counted[-1][1] - before, 0) * MINUTE_NS / max(seen.now_ns - since_ns, MINUTE_NS)
        return back / (size * self.rule.limit_bp / _BP)

    def _correct(self, rate: float, watched_us: int) -> None:
        """Towards a rate of 1, per step; no memory is known to be idle for longer than it has been ``watched_us``."""
        if rate > 1:
            wanted = self.min_age_us * min(rate, _MOST_RATE) ** _UP
            self.min_age_us = max(self.min_age_us, self._kept(min(round(wanted), watched_us)))
        elif self._exhausted and self._counted[-1][0] - self._counted[0][0] >= MINUTE_NS:
            # Not sooner: what was taken just now has had no time to come back.
            self.min_age_us = self._kept(round(self.min_age_us * max(rate, _LEAST_RATE) ** _DOWN))

    def _kept(self, age_us: int) -> int:
        return min(max(age_us, self.rule.least_us), _MOST_US)
