"""How many bytes may be taken per minute so that what comes back stays within a limit: little first, more as it holds.

What was never taken cannot come back. So the first minute takes no more than may come back in one; each full minute
then multiplies that by (what may come back / the upper limit of what does), up to twice; too much ends it at once.
"""

from __future__ import annotations

import math
from collections import deque

MINUTE_NS = 60_000_000_000
_MOST_GROWTH = 2.0  # what is taken next is younger, and comes back sooner


def upper_bytes(back_bytes: int, page_bytes: int) -> float:
    """What may well come back per minute where ``back_bytes`` did: of a Poisson count, two standard deviations more."""
    pages = back_bytes / page_bytes
    return (pages + 2 * math.sqrt(pages + 1)) * page_bytes


def next_budget(budget: float, back_bytes: int, allowed: float, page_bytes: int) -> float:
    """The bytes of the next minute, after one in which ``back_bytes`` came back while ``allowed`` may.

    Beyond what is allowed: it falls as far as that was exceeded, to what could all come back or below.
    """
    if back_bytes > allowed:
        return min(budget, allowed) * allowed / back_bytes
    grown = budget * min(allowed / upper_bytes(back_bytes, page_bytes), _MOST_GROWTH)
    return max(grown, min(allowed, budget + allowed / 4))  # where it had fallen, it rises by steps


class Budget:
    """What is left to be taken now; ``look`` is told what was taken and what came back, counted from any beginning."""

    def __init__(self) -> None:
        self.per_minute: float | None = None
        self._looks: deque[tuple[int, int, int]] = deque()  # when, bytes taken, bytes back: those of a minute
        self._changed_ns = 0

    def look(self, now_ns: int, taken: int, back: int, allowed: float, page_bytes: int) -> float:
        """The bytes that may still be taken; 0 while more comes back than is ``allowed`` per minute."""
        self._looks.append((now_ns, taken, back))
        while len(self._looks) > 2 and now_ns - self._looks[1][0] >= MINUTE_NS:
            self._looks.popleft()
        _, taken_before, back_before = self._looks[0]
        back_now = max(back - back_before, 0)
        if self.per_minute is None:
            self.per_minute, self._changed_ns = allowed, now_ns
        excess = back_now > allowed
        if now_ns - self._changed_ns >= MINUTE_NS or (excess and self.per_minute > allowed):
            used = taken - taken_before >= self.per_minute / 2  # what was not tried is not confirmed
            if excess or used or self.per_minute < allowed:
                self.per_minute = next_budget(self.per_minute, back_now, allowed, page_bytes)
            self._changed_ns = now_ns
        return 0 if excess else max(self.per_minute - (taken - taken_before), 0)
