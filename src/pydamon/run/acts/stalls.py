"""How long others waited for memory: the machine's pressure, less the time in which the kernel was reclaiming for us.

Whoever asks the kernel to reclaim waits for it, and that counts as pressure of the machine: a loop that goes by PSI
would be stopped by its own work (0.1 % of a minute are 60 ms). So the time of our own requests is left out: shares are
of what is between them. What others wait for during one is not seen; what they wait for as its consequence is.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from pydamon.modules.controller import Pressure

_FAST_NS, _SLOW_NS = 10e9, 60e9


class Stalls:
    """Averages over 10 s and 60 s as the kernel's; ``read`` tells the machine's pressure, None where it does not."""

    def __init__(self, read: Callable[[], Pressure | None]) -> None:
        self._read = read
        self._own_us = 0  # within our own requests
        self._own_ns = 0  # how long these took since the last look
        self._last_ns = 0
        self._last_us: int | None = None
        self._fast = self._slow = 0.0

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """A request of ours, from its begin to its end."""
        before, began_ns = self._read(), time.monotonic_ns()
        try:
            yield
        finally:
            after = self._read()
            if before is not None and after is not None:
                self._own_us += max(after.total_us - before.total_us, 0)
                self._own_ns += time.monotonic_ns() - began_ns

    def observe(self, now_ns: int) -> Pressure | None:
        """What others waited, and its shares; those of the kernel until something was asked for."""
        told = self._read()
        if told is None:
            return None
        others_us = max(told.total_us - self._own_us, 0)
        passed_ns = now_ns - self._last_ns - self._own_ns
        if self._last_us is None or not self._own_us:
            self._fast, self._slow = told.avg10_percent, told.avg60_percent
        elif passed_ns > 0:
            share = min(100 * max(others_us - self._last_us, 0) * 1000 / passed_ns, 100.0)
            self._fast += (share - self._fast) * -math.expm1(-passed_ns / _FAST_NS)
            self._slow += (share - self._slow) * -math.expm1(-passed_ns / _SLOW_NS)
        self._last_ns, self._last_us, self._own_ns = now_ns, others_us, 0
        return Pressure(total_us=others_us, avg10_percent=self._fast, avg60_percent=self._slow)
