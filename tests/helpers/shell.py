"""A shell on a terminal of its own, as somebody types into it."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Sequence
from types import TracebackType

import pyte
from tests.helpers.waiting import GENEROUS_S, wait_until


class Shell:
    """``arguments`` on a screen of 100 columns and 40 lines, unless it is said otherwise; ended with the block."""

    def __init__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        directory: str,
        size: tuple[int, int] = (100, 40),
    ) -> None:
        columns, lines = size
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._fd, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._process = subprocess.Popen(
            arguments, stdin=child, stdout=child, stderr=child, env=environment, cwd=directory, start_new_session=True
        )
        os.close(child)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._fd)

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._fd, text.encode())

    def resize(self, columns: int, lines: int) -> None:
        """The window becomes larger, or smaller. It is nobody's controlling terminal: the signal comes from here."""
        self._screen.resize(lines, columns)
        self._screen.reset()
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._process.send_signal(signal.SIGWINCH)

    def wait_for_end(self, seconds: float = GENEROUS_S) -> int:
        """Until what runs in it has ended; its status."""

        def ended() -> bool:
            self._shown()
            return self._process.poll() is not None

        wait_until(ended, seconds)
        return self._process.wait()

    def wait_for(self, text: str, seconds: float = GENEROUS_S) -> str:
        """Until the screen has ``text``; returns what is on it."""
        try:
            wait_until(lambda: text in self._shown(), seconds)
        except AssertionError:
            raise AssertionError(f"{text!r} is not on the screen:\n{self._shown()}") from None
        return self._shown()

    def wait_without(self, text: str) -> None:
        """Until the screen does not have ``text`` any more."""
        wait_until(lambda: text not in self._shown())

    def _shown(self) -> str:
        while select.select([self._fd], [], [], 0.02)[0]:
            try:
                self._stream.feed(os.read(self._fd, 65536))
            except OSError:  # the shell has ended
                break
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip()
