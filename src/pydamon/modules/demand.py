"""How much memory is wanted: the largest of a slow and a fast average and of what is used just now.

As in VMware's ESX server (Waldspurger, OSDI'02, section 5.3): it follows at once when more is used, slowly when less.
"""

from __future__ import annotations

import math

_SLOW_S, _FAST_S = 60.0, 10.0  # in which an average takes over 63 % of a change


class Demand:
    """The estimate, in bytes, of what has been used so far; None before the first."""

    def __init__(self) -> None:
        self._slow = self._fast = self._now = 0.0
        self._at_ns: int | None = None

    def note(self, now_ns: int, used_bytes: int) -> int:
        """What is used now; the estimate."""
        if self._at_ns is None:
            self._slow = self._fast = used_bytes
        else:
            passed_s = max(now_ns - self._at_ns, 0) / 1e9
            self._slow += (used_bytes - self._slow) * -math.expm1(-passed_s / _SLOW_S)
            self._fast += (used_bytes - self._fast) * -math.expm1(-passed_s / _FAST_S)
        self._at_ns, self._now = now_ns, used_bytes
        return round(max(self._slow, self._fast, self._now))
