"""Virtual time. The core never sleeps or reads a clock by itself: it is given one (`pydamon.ops.pace.Clock`)."""

from __future__ import annotations


class VirtualClock:
    """A clock that only sleeping moves: monitoring over it is simulation, as fast as the machine computes."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """Virtual nanoseconds."""
        return self._now_ns

    def sleep_ns(self, duration_ns: int) -> bool:
        """Advance the time by ``duration_ns``, at once."""
        self._now_ns += duration_ns
        return True
