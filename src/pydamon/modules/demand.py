"""How much memory is wanted: the largest of a slow and a fast average and of what is used just now.

As in VMware's ESX server (Waldspurger, OSDI'02, section 5.3): it follows at once when more is used, slowly when less.
"""

from __future__ import annotations

import math


class Demand:
    """The estimate, in bytes, of what has been used so far. An average takes over 63 % of a change in its seconds."""

    def __init__(self, slow_s: float = 60.0, fast_s: float = 10.0) -> None:
        self._slow_s, self._fast_s = slow_s, fast_s
        self._slow = self._fast = self._now = 0.0
        self._at_ns: int | None = None

    def note(self, now_ns: int, used_bytes: int) -> int:
        """What is used now; the estimate."""
        if self._at_ns is None:
            self._slow = self._fast = used_bytes
        else:
            passed_s = max(now_ns - self._at_ns, 0) / 1e9
            self._slow += (used_bytes - self._slow) * -math.expm1(-passed_s / self._slow_s)
            self._fast += (used_bytes - self._fast) * -math.expm1(-passed_s / self._fast_s)
        self._at_ns, self._now = now_ns, used_bytes
        return round(max(self._slow, self._fast, self._now))
