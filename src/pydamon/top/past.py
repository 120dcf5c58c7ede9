"""What was seen of many processes, kept for a while so that one can go back to it."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque

from pydamon.views.processes import Processes

MOST_ROWS = 40_000  # of processes that differ from one time to the next: about 25 MiB
MOST = 3600


class Past:
    """The last `Processes`, oldest first, as many as hold ``most_rows`` different rows, and ``most`` at the most.

    One thread adds, any may ask. Times are ns since 1970.
    """

    def __init__(self, *, most_rows: int = MOST_ROWS, most: int = MOST) -> None:
        self._most_rows = most_rows
        self._most = most
        self._lock = threading.Lock()
        self._kept: deque[tuple[Processes, int]] = deque()
        self._rows = 0

    def add(self, seen: Processes) -> None:
        """Keep it; rows that are the same object as the last time hold nothing.

        If the clock was set back, what would be later than this is forgotten.
        """
        with self._lock:
            while self._kept and self._kept[-1][0].time_unix_ns >= seen.time_unix_ns:
                self._rows -= self._kept.pop()[1]
            before = {id(row) for row in self._kept[-1][0].processes} if self._kept else set()
            new = sum(id(row) not in before for row in seen.processes)
            self._kept.append((seen, new))
            self._rows += new
            while len(self._kept) > 1 and (self._rows > self._most_rows or len(self._kept) > self._most):
                self._rows -= self._kept.popleft()[1]

    def latest(self) -> Processes | None:
        """The last one; None if there is none."""
        with self._lock:
            return self._kept[-1][0] if self._kept else None

    def at(self, time_ns: int) -> Processes | None:
        """As it was at that time: the last that is not later, else the first; None if there is none."""
        kept = self._all()
        place = bisect_right(kept, time_ns, key=lambda one: one.time_unix_ns)
        return kept[max(place - 1, 0)] if kept else None

    def step(self, time_ns: int, by: int) -> Processes | None:
        """So many steps later (negative: earlier) than that of this time, or the outermost there is."""
        kept = self._all()
        place = bisect_right(kept, time_ns, key=lambda one: one.time_unix_ns) - 1 + by
        return kept[min(max(place, 0), len(kept) - 1)] if kept else None

    def span(self) -> tuple[int, int] | None:
        """The times of the first and the last."""
        kept = self._all()
        return (kept[0].time_unix_ns, kept[-1].time_unix_ns) if kept else None

    def _all(self) -> list[Processes]:
        with self._lock:
            return [seen for seen, _ in self._kept]
