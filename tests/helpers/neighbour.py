"""A process beside another one on its CPU: the emulated guest's TLB is emptied by a switch of address spaces only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CPU = 0
_WAKES_UP = "import time\nwhile True: time.sleep(0.005)"


@contextmanager
def neighbour(pid: int) -> Iterator[None]:
    """The process ``pid`` shares its CPU with one that wakes up every 5 ms, as long as this lasts.

    Clearing accessed bits leaves the TLB alone where the kernel tracks soft-dirty; in the guest, a process that has a
    CPU to itself would then look idle.
    """
    with subprocess.Popen([sys.executable, "-S", "-c", _WAKES_UP]) as other:
        try:
            for each in (pid, other.pid):
                os.sched_setaffinity(each, {_CPU})
            yield
        finally:
            other.kill()
