"""What a source of accesses is, and reading its text in pieces."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.process import Mapping
from pydamon.plain import printable

BLOCK_BYTES = 1 << 20
MAX_LINE_BYTES = 1 << 16  # a longer line is garbage; it is not kept in memory

_PATIENCE_MS = 200  # how long a read waits, so that whoever asked can look up
_GATHER_STEP_S = 0.002  # a writer of single lines is given that time, and again, to write more of them
_GATHER_STEPS = 10


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive accesses, times ascending. Columns of shape (n,); None where the source does not tell it.

    ``end_ns``: everything that happened before it is in this block or an earlier one, but for ``lost`` accesses of
    which only their number is known.
    """

    address: NDArray[np.uint64]
    size: NDArray[np.uint64]
    when_ns: NDArray[np.int64]
    is_write: NDArray[np.bool_]
    end_ns: int
    target: NDArray[np.uint16] | None = None
    cpu: NDArray[np.int32] | None = None
    node: NDArray[np.int32] | None = None
    thread: NDArray[np.int32] | None = None
    lost: int = 0


@dataclass(slots=True)
class LineCounts:
    """What became of the lines of the source's output."""

    accesses: int = 0
    garbage: int = 0
    garbage_example: str = ""  # the first one, shortened
    skipped: int = 0  # understood, and of no use to us (another process, another event, the tool's own messages)

    def note_garbage(self, count: int, example: bytes) -> None:
        """``count`` lines could not be understood."""
        if not self.garbage:
            text = example[:60].decode("ascii", "backslashreplace")
            self.garbage_example = printable(text)
        self.garbage += count


class Source(Protocol):
    """A stream of accesses with times of its own."""

    name: str
    complete: bool  # it tells every access
    nr_targets: int
    counts: LineCounts

    def read(self) -> Block | None:
        """The next block, waiting for it a while (it may be without accesses if nothing came); None at the end.

        Raises RequestError if what comes is not what this source reads.
        """
        ...

    def close(self) -> None:
        """Close the stream and end what was started for it."""
        ...


@runtime_checkable
class LiveSource(Source, Protocol):
    """One whose times are the machine's (CLOCK_MONOTONIC): it is silent when nothing happens, and time passes."""

    def aim(self, until_ns: int) -> None:
        """Nobody needs the next block before that time has come."""
        ...

    def mappings(self, target: int) -> list[Mapping]:
        """What the target maps now; the same list, not to be changed, as long as that is the same."""
        ...

    def remarks(self) -> list[str]:
        """What a user should know of how it went, one line each."""
        ...


@runtime_checkable
class WakingSource(Protocol):
    """One that says when it should be read before its room is full."""

    def fileno(self) -> int:
        """Readable then, until it is read; -1 if that will not be any more."""
        ...


def readable(fd: int, timeout_ms: int) -> bool:
    """Whether there is something to read (or the end) within that time; poll(2), as descriptors may be beyond 1024."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout_ms))


class LineReader:
    """Whole lines from a file descriptor, as many as there are, up to ``BLOCK_BYTES``; owns the descriptor.

    ``ended`` is asked when nothing comes: True ends the stream although somebody still holds it open (a child that a
    traced program has left behind).
    """

    def __init__(self, fd: int, counts: LineCounts, *, ended: Callable[[], bool] | None = None) -> None:
        self._fd = fd
        self._counts = counts
        self._ended = ended
        self._rest = b""
        self._skipping = False  # within a line that was too long
        self.at_end = False  # all was read
        self._enough = 0  # bytes in a pipe that are worth a look; 0 if it is none
        with contextlib.suppress(OSError):  # not a pipe
            self._enough = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) // 4
            # More than this user may have is refused.
            self._enough = fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, BLOCK_BYTES) // 4

    def read(self) -> bytes | None:
        """At least one whole line unless they were too long; b"" if there is none (yet); None at the end."""
        if self.at_end:
            return None
        pieces: list[bytes] = []
        size = 0
        while size < BLOCK_BYTES:
            # The first read waits, the others take what is there.
            if not readable(self._fd, 0 if pieces else _PATIENCE_MS):
                if pieces or self._ended is None or not self._ended():
                    break
                # It ended between the two looks, perhaps with some last words.
                if not readable(self._fd, 0):
                    self.at_end = True
                    break
            if not pieces:
                self._gather()
            piece = os.read(self._fd, BLOCK_BYTES - size)
            if not piece:
                self.at_end = True
                break
            pieces.append(piece)
            size += len(piece)
        return self._lines(b"".join(pieces))

    def _gather(self) -> None:
        """Let more lines come together: looking at a handful costs as much as at thousands."""
        waiting = bytearray(4)
        for _ in range(_GATHER_STEPS if self._enough else 0):
            fcntl.ioctl(self._fd, termios.FIONREAD, waiting)
            if int.from_bytes(waiting, sys.byteorder) >= self._enough:
                break
            time.sleep(_GATHER_STEP_S)

    def _lines(self, data: bytes) -> bytes:
        if self._skipping:
            _, newline, data = data.partition(b"\n")
            if not newline:
                return b""
            self._skipping = False
        data = self._rest + data
        self._rest = b""
        if self.at_end:
            return data if not data or data.endswith(b"\n") else data + b"\n"
        whole = data.rfind(b"\n") + 1
        if len(data) - whole > MAX_LINE_BYTES:
            self._counts.note_garbage(1, data[whole : whole + 80])
            self._skipping = True
        else:
            self._rest = data[whole:]
        return data[:whole]

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
