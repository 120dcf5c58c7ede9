"""What a daemon says: lines with their time in a file, and the last ones for whoever asks for its status."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque

from pydamon.plain import printable

_KEPT = 20
_LONGEST = 1000


class Log:
    """Stands in for ``sys.stderr``: whole lines go to the file descriptor. Safe from any thread; never raises.

    A line begins with its time, or with ``head`` where that is given: whoever reads them has the time.
    """

    encoding = "utf-8"

    def __init__(self, fd: int, *, head: str | None = None) -> None:
        self._fd = fd
        self._head = head
        self._partial = ""
        self._last: deque[str] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Take ``text``; a line goes out when it is whole."""
        with self._lock:
            *lines, self._partial = (self._partial + text).split("\n")
            for line in lines:
                self._emit(line)
        return len(text)

    def _emit(self, line: str) -> None:
        plain = printable(line.removeprefix("pydamon: ").strip())[:_LONGEST]
        if not plain:
            return
        self._last.append(plain)
        with contextlib.suppress(OSError):  # a full disk must not end the monitoring
            head = time.strftime("%Y-%m-%d %H:%M:%S ") if self._head is None else self._head
            os.write(self._fd, f"{head}{plain}\n".encode(errors="replace"))

    def flush(self) -> None:
        """Nothing is kept back but incomplete lines."""

    def isatty(self) -> bool:
        """No: progress is not shown."""
        return False

    def fileno(self) -> int:
        """The file descriptor."""
        return self._fd

    def last(self) -> list[str]:
        """The last lines, oldest first."""
        with self._lock:
            return list(self._last)
