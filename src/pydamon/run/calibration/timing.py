"""How costs are measured: again and again within a bound of time, and of all results the middle and the spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from pydamon.errors import MachineError
from pydamon.spec.costs import Cost, Spread

LEAST = 5  # results, however long they take
MOST = 200
_PATIENCE_NS = 1_500_000_000  # for as many results as are needed, beyond the time there is


class Clock(Protocol):
    """What time it is, in ns, and how much CPU time this thread has used."""

    def now_ns(self) -> int: ...

    def cpu_ns(self) -> int: ...


class RealClock:
    """The clocks of this machine."""

    def now_ns(self) -> int:
        """Since some moment."""
        return time.monotonic_ns()

    def cpu_ns(self) -> int:
        """Of this thread."""
        return time.thread_time_ns()


class Bench:
    """Where something is measured: ``memory`` bytes and the folder of a file may be used, and ``share_ns`` of time.

    ``most`` results are enough.
    """

    def __init__(
        self, memory: int, directory: str, share_ns: int, *, clock: Clock | None = None, most: int = MOST
    ) -> None:
        self.memory = memory
        self.directory = directory
        self.clock: Clock = RealClock() if clock is None else clock
        self._share_ns = share_ns
        self._most = most

    def repeated(self, once: Callable[[], Sequence[float]]) -> list[float]:
        """The results of ``once``, which is called until its time is over or there are enough, `LEAST` at least.

        The first call warms up. Raises what it raises; MachineError if it finds too little in a second and a half more.
        """
        began_ns = self.clock.now_ns()
        once()
        found: list[float] = []
        while len(found) < self._most:
            passed_ns = self.clock.now_ns() - began_ns
            if passed_ns >= self._share_ns and len(found) >= LEAST:
                break
            if passed_ns >= self._share_ns + _PATIENCE_NS:
                raise MachineError(f"took so long that there are {len(found)} measurements; {LEAST} are needed")
            found += once()
        return found

    def timed_ns(self, act: Callable[[], object]) -> int:
        """How long it takes."""
        began_ns = self.clock.now_ns()
        act()
        return self.clock.now_ns() - began_ns

    def cpu_timed_ns(self, act: Callable[[], object]) -> int:
        """How much CPU time it takes."""
        began_ns = self.clock.cpu_ns()
        act()
        return self.clock.cpu_ns() - began_ns


def spread(row: Cost, values: Sequence[float]) -> Spread:
    """The median, 10th and 90th percentile of what was measured, as whole numbers within the bounds of the cost."""
    low, middle, high = np.percentile(np.asarray(values, np.float64), [10, 50, 90]).tolist()
    bounded = [min(max(round(value), row.low), row.high) for value in (low, middle, high)]
    return Spread(value=bounded[1], low=bounded[0], high=bounded[2], samples=len(values))
