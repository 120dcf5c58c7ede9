"""The machine's clock for the sampling loop, with ways to be woken."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable

_FD_SETSIZE = 1024  # select(2) takes no file descriptor beyond it


class MachineClock:
    """CLOCK_MONOTONIC. A sleep ends early if a watched file descriptor becomes readable.

    ``ends`` are pidfds (readable once, when the process has ended), ``wake_fd`` is written to by whoever wants the
    loop to look up, e.g. Python's signal handling.
    """

    def __init__(self, *, wake_fd: int | None = None) -> None:
        self._wake_fd = wake_fd
        self._watched: list[int] = [wake_fd] if wake_fd is not None else []

    def watch_ends(self, pidfds: Iterable[int]) -> None:
        """Let the end of these processes end a sleep."""
        self._watched += [fd for fd in pidfds if fd < _FD_SETSIZE]

    def now_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def sleep_ns(self, duration_ns: int) -> bool:
        """Sleep; False if woken. select(2) is used because poll(2) has only milliseconds."""
        if not self._watched:
            time.sleep(duration_ns / 1e9)
            return True
        ready, _, _ = select.select(self._watched, (), (), duration_ns / 1e9)
        for fd in ready:
            if fd == self._wake_fd:
                os.read(fd, 4096)
            else:
                self._watched.remove(fd)  # it stays readable for ever: once is enough
        return not ready
