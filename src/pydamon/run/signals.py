"""Signals that ask monitoring to end, and what wakes it from a sleep."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


class Signals:
    """SIGINT and SIGTERM (and SIGHUP) ask the monitoring to end; they also wake it from a sleep, as ``wake`` does.

    A context manager. ``on_stop`` is called, in the main thread or by whoever calls ``stop``; ``wake_fd`` becomes
    readable.
    """

    def __init__(self) -> None:
        self.stopped = False
        self.on_stop: Callable[[], None] = lambda: None
        self.wake_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old: dict[int, Any] = {}
        self._open = True
        self._lock = threading.Lock()

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
        with self._lock:
            self._open = False
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self.wake_fd)
        os.close(self._write_fd)

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

    def stop(self) -> None:
        """As a signal would; from any thread."""
        self._handle(0, None)
        self.wake()

    def wake(self) -> None:
        """The loop looks up from its sleep; from any thread."""
        with self._lock, contextlib.suppress(BlockingIOError):
            if self._open:
                os.write(self._write_fd, b"\0")
