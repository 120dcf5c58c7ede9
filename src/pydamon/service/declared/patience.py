"""How long to wait before a process is started anew: longer each time, unless it has run for long."""

from __future__ import annotations

_SECOND_NS = 1_000_000_000
_FIRST_NS = _SECOND_NS
_MOST_NS = 300 * _SECOND_NS
_LONG_NS = 60 * _SECOND_NS  # what has run so long was no failed start


class Patience:
    """Of one process."""

    def __init__(self) -> None:
        self._next_ns = _FIRST_NS
        self._began_ns = 0

    def begin(self, now_ns: int) -> None:
        """It is started."""
        self._began_ns = now_ns

    def wait_ns(self, now_ns: int) -> int:
        """It has ended: how long to wait."""
        if now_ns - self._began_ns >= _LONG_NS:
            self._next_ns = _FIRST_NS
        wait_ns = self._next_ns
        self._next_ns = min(2 * wait_ns, _MOST_NS)
        return wait_ns

    def reset(self) -> None:
        """What comes next is no new attempt at the same."""
        self._next_ns = _FIRST_NS
