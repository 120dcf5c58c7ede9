"""Which minutes were told already, for ever and in little room: a minute is never shipped twice.

Not only the last one is known: a clock that was set to 2040 and back does not end shipping until then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

MINUTE_S = 60
MOST = 1024  # spans; beyond it the two oldest become one, with what is between them


class Minutes:
    """A set of minutes (seconds since 1970, multiples of 60), kept as spans."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        for first, last in sorted(spans):
            if self._last and first <= self._last[-1] + MINUTE_S:
                self._last[-1] = max(self._last[-1], last)
            else:
                self._first.append(first)
                self._last.append(last)
        self._bound()

    def __contains__(self, minute: int) -> bool:
        at = bisect_right(self._first, minute) - 1
        return at >= 0 and minute <= self._last[at]

    def add(self, minute: int) -> None:
        """From now on it is in."""
        if minute in self:
            return
        at = bisect_right(self._first, minute)
        joins_before = at > 0 and self._last[at - 1] + MINUTE_S == minute
        joins_after = at < len(self._first) and minute + MINUTE_S == self._first[at]
        if joins_before and joins_after:
            self._last[at - 1] = self._last.pop(at)
            del self._first[at]
        elif joins_before:
            self._last[at - 1] = minute
        elif joins_after:
            self._first[at] = minute
        else:
            self._first.insert(at, minute)
            self._last.insert(at, minute)
        self._bound()

    def spans(self) -> list[tuple[int, int]]:
        """First and last minute of each span, in order."""
        return list(zip(self._first, self._last, strict=True))

    def _bound(self) -> None:
        while len(self._first) > MOST:
            del self._first[1]
            del self._last[0]
