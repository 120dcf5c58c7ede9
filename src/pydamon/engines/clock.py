"""The machine's clock for the sampling loop, with ways to be woken."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable
from typing import Protocol

from pydamon.core.clock import VirtualClock

_FD_SETSIZE = 1024  # select(2) takes no file descriptor beyond it


class Served(Protocol):
    """Something that has work in the middle of a sleep."""

    def fileno(self) -> int:
        """A descriptor that is readable when there is some; -1: there will be none any more."""
        ...

    def wake(self) -> None:
        """Do it; the descriptor is not readable after that."""
        ...


class MachineClock:
    """CLOCK_MONOTONIC. A sleep ends early if a watched file descriptor becomes readable.

    ``ends`` are pidfds (readable once, when the process has ended), ``wake_fd`` is written to by whoever wants the
    loop to look up, e.g. Python's signal handling.
    """

    # Both are asked several times in each sample: the functions themselves, without a call of Python's around them.
    now_ns = staticmethod(time.monotonic_ns)
    """Nanoseconds of CLOCK_MONOTONIC."""
    cpu_ns = staticmethod(time.process_time_ns)
    """Nanoseconds of CPU time that this process has spent."""

    def __init__(self, *, wake_fd: int | None = None) -> None:
        self._wake_fd = wake_fd
        self._beyond = wake_fd is not None and wake_fd >= _FD_SETSIZE
        self._watched: list[int] = [wake_fd] if wake_fd is not None else []
        self._served: list[Served] = []

    def watch_ends(self, pidfds: Iterable[int]) -> None:
        """Let the end of these processes end a sleep."""
        self._watched += [fd for fd in pidfds if fd < _FD_SETSIZE]

    def serve(self, served: Served) -> None:
        """Call its ``wake`` whenever it is readable in the middle of a sleep, which goes on after that."""
        self._served.append(served)

    def sleep_ns(self, duration_ns: int) -> bool:
        """Sleep; False if woken."""
        watched = self._watched
        if self._served:
            return self._sleep_and_serve(duration_ns)
        if not watched:
            time.sleep(duration_ns / 1e9)
            return True
        # select(2) is used because poll(2) has only milliseconds.
        ready = self._poll(duration_ns) if self._beyond else select.select(watched, (), (), duration_ns / 1e9)[0]
        self._note(ready)
        return not ready

    def _note(self, ready: Iterable[int]) -> None:
        for fd in ready:
            if fd == self._wake_fd:
                os.read(fd, 4096)
            else:
                self._watched.remove(fd)  # it stays readable for ever: once is enough

    def _sleep_and_serve(self, duration_ns: int) -> bool:
        """As `sleep_ns`, in as many pieces as something is to be done in between."""
        end_ns = self.now_ns() + duration_ns
        while True:
            served = {fd: one for one in self._served if (fd := one.fileno()) >= 0}
            left_ns = max(end_ns - self.now_ns(), 0)
            waited = [*self._watched, *served]
            beyond = any(fd >= _FD_SETSIZE for fd in waited)
            ready = self._poll(left_ns, waited) if beyond else select.select(waited, (), (), left_ns / 1e9)[0]
            woken = [fd for fd in ready if fd not in served]
            self._note(woken)
            for fd in ready:
                if fd in served:
                    served[fd].wake()
            if woken or not ready or self.now_ns() >= end_ns:
                return not woken

    def _poll(self, duration_ns: int, watched: Iterable[int] | None = None) -> list[int]:
        """The watched descriptors that can be read, in a program with very many open files: whole milliseconds, and the
        rest of the time without being woken."""
        poll = select.poll()
        for fd in self._watched if watched is None else watched:
            poll.register(fd, select.POLLIN)
        milliseconds, rest_ns = divmod(duration_ns, 1_000_000)
        ready = [fd for fd, _ in poll.poll(milliseconds)]
        if not ready:
            time.sleep(rest_ns / 1e9)
        return ready


class PacedClock(VirtualClock):
    """Virtual time that passes as fast as the machine's: a simulation that can be watched and tuned while it runs."""

    def __init__(self, pace: MachineClock) -> None:
        super().__init__()
        self._pace = pace
        self._began_ns = pace.now_ns()

    def sleep_ns(self, duration_ns: int) -> bool:
        """Until the machine's clock has come as far; always for the whole virtual duration."""
        super().sleep_ns(duration_ns)
        ahead_ns = self._began_ns + self.now_ns() - self._pace.now_ns()
        if ahead_ns > 0:
            self._pace.sleep_ns(ahead_ns)
        return True
