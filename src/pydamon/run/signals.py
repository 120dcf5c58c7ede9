"""What wakes monitoring from a sleep, and signals that ask it to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Waker:
    """Wakes a loop that sleeps: ``wake_fd`` becomes readable. ``on_stop`` is called by who calls ``stop``."""

    def __init__(self) -> None:
        self.stopped = False
        self.on_stop: Callable[[], None] = lambda: None
        self.wake_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.RLock()  # a signal handler may come in between

    def stop(self) -> None:
        """As a signal would; from any thread."""
        self.stopped = True
        self.on_stop()
        self.wake()

    def wake(self) -> None:
        """The loop looks up from its sleep; from any thread, also when all is over."""
        with self._lock, contextlib.suppress(BlockingIOError):  # full: it wakes up anyway
            if self._write_fd >= 0:
                os.write(self._write_fd, b"\0")

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """What is done in here may wait for long, as for a FIFO's other end."""
        yield

    def close(self) -> None:
        """Nobody is woken any more; once is enough."""
        with self._lock:
            fds = self.wake_fd, self._write_fd
            self.wake_fd = self._write_fd = -1
            for fd in fds:
                if fd >= 0:
                    os.close(fd)


class Signals(Waker):
    """SIGINT and SIGTERM (and SIGHUP) ask the monitoring to end, in the main thread; they also wake it.

    A context manager, which closes it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._old: dict[int, Any] = {}

    def _handle(self, _number: int, _frame: object) -> None:
        self.stopped = True
        self.on_stop()

    def __enter__(self) -> Signals:
        self._old_wakeup = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # What nohup or a shell's background job has set to be ignored stays ignored.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        self.close()

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """What is done in here may wait for long (for a FIFO's other end): a signal raises KeyboardInterrupt."""

        def interrupt() -> None:
            raise KeyboardInterrupt

        before, self.on_stop = self.on_stop, interrupt
        try:
            if self.stopped:
                interrupt()
            yield
        finally:
            self.on_stop = before

    @contextlib.contextmanager
    def undisturbed(self) -> Iterator[None]:
        """What is done in here, within `interruptible`, is done whole: a signal waits for its end."""
        before, self.on_stop = self.on_stop, lambda: None
        try:
            yield
        finally:
            self.on_stop = before
        if self.stopped:
            before()
