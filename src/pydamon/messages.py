"""The one writer of messages to people, on standard error: it never fails, and nothing in them drives a terminal.

Standard error may be closed, on a full disk, or a pipe that nobody reads any more; the work goes on, and its status
says how it went.
"""

from __future__ import annotations

import contextlib
import select
import sys

from pydamon.plain import printable

_PIECE = 1000  # characters, at most 4 bytes each: a pipe that takes anything takes 4096 bytes
_PATIENCE_MS = 1000


class _Reader:
    """Whoever reads our messages; once it has kept us waiting, it does so no more until it reads again."""

    def __init__(self) -> None:
        self._patience_ms = _PATIENCE_MS

    def takes(self, fd: int) -> bool:
        """Whether a piece can be written without waiting for long."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        ready = bool(poll.poll(self._patience_ms))
        self._patience_ms = _PATIENCE_MS if ready else 0
        return ready


_reader = _Reader()


def say(message: str) -> None:
    """One line about what goes on: ``pydamon: MESSAGE``."""
    tell(f"pydamon: {message}")


def tell(line: str) -> None:
    """One line as it is, but for what would drive the terminal."""
    _write(printable(line) + "\n")


def draw(text: str) -> None:
    """Text that moves the cursor of a terminal (see `on_terminal`): nothing in it may come from outside."""
    _write(text)


def on_terminal() -> bool:
    """Whether a terminal shows the messages."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except (OSError, ValueError):
        return False


def _write(text: str) -> None:
    stream = sys.stderr
    if stream is None:  # it was closed when the process began
        return
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed, or a character that its encoding lacks
        fd = _descriptor()
        for at in range(0, len(text), _PIECE):
            if fd is not None and not _reader.takes(fd):
                return
            stream.write(text[at : at + _PIECE])
            stream.flush()


def _descriptor() -> int | None:
    try:
        return sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # a program has put something else in its place
        return None
