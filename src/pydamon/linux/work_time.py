"""How long a thread has worked: time that passes, less the time for which it was ready and got no CPU.

What it waits for (a disk, a lock, the kernel's compression) is part of its work; that others had the CPU is not, and
says nothing of what it does (/proc/thread-self/schedstat: on a CPU, waiting for one, turns; ns).
"""

from __future__ import annotations

import time

from pydamon.linux.texts import read_bytes

_TOLD = "/proc/thread-self/schedstat"


class WorkTime:
    """The work of the thread that makes it, from then on; all time that passes where the kernel tells no more."""

    def __init__(self, told: str = _TOLD) -> None:
        self._told = told
        self._waited_ns = self._waited()
        self._began_ns = time.perf_counter_ns()

    def spent_ns(self) -> int:
        """In the same thread: its work so far."""
        passed_ns = time.perf_counter_ns() - self._began_ns
        before_ns, now_ns = self._waited_ns, self._waited()
        if before_ns is None or now_ns is None:
            return passed_ns
        return max(passed_ns - (now_ns - before_ns), 0)

    def _waited(self) -> int | None:
        try:
            return int(read_bytes(self._told).split()[1])
        except (OSError, ValueError, IndexError):
            return None
