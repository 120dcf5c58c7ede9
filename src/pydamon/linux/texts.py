"""Texts of /proc, /sys and cgroupfs: read as bytes, lines end at a newline and nowhere else, names may be any bytes.

Python's text mode ends lines at a carriage return, too, and `str.splitlines` at eight more characters; all of them may
stand in names that others choose (of files, programs, cgroups). Bytes that are not UTF-8 become surrogates.
"""

from __future__ import annotations

import threading
from collections import Counter
from os import PathLike

from pydamon.errors import MachineError
from pydamon.linux.causes import cause
from pydamon.plain import printable

_SHOWN = 80  # characters of a line that is not understood


def decode(raw: bytes) -> str:
    """The text, which encodes to the same bytes again with ``surrogateescape``."""
    return raw.decode("utf-8", "surrogateescape")


def lines_of(raw: bytes) -> list[str]:
    """Its lines, without their newlines."""
    lines = decode(raw).split("\n")
    return lines if lines[-1] else lines[:-1]


def read_bytes(path: str | PathLike[str]) -> bytes:
    """All of a file. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return file.readall()


def read_text(path: str | PathLike[str]) -> str:
    """All of a file. Raises OSError."""
    return decode(read_bytes(path))


def read_lines(path: str | PathLike[str]) -> list[str]:
    """The lines of a file. Raises OSError."""
    return lines_of(read_bytes(path))


def read_needed(path: str, permission: str = "", missing: str = "") -> str:
    """The same of a file without which it does not work; raises MachineError with what would help, as `cause` says."""
    try:
        return read_text(path)
    except OSError as error:
        raise MachineError(f"cannot be read: {cause(error, permission, missing)}", where=path) from None


def read_as_root(path: str) -> str:
    """As `read_needed`, of a file below /proc that only root may read."""
    return read_needed(path, "it needs root", "it needs /proc")


class Misread:
    """Lines that were not understood, by the kind of the file; each kind is said once. Safe from any thread."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._said: set[str] = set()
        self._new: dict[str, str] = {}
        self._lock = threading.Lock()

    def note(self, kind: str, line: str) -> None:
        """A line of a file of that kind, for example ``/proc/PID/maps``, is left out."""
        with self._lock:
            self.counts[kind] += 1
            if kind not in self._said:
                self._said.add(kind)
                self._new[kind] = line[:_SHOWN]

    def take_notices(self) -> list[str]:
        """One line for the user for each kind that is new since the last call."""
        with self._lock:
            new, self._new = self._new, {}
            return [
                f"{kind}: lines are not understood and left out ({self.counts[kind]} so far), the first: "
                f"{printable(line)!r}"
                for kind, line in new.items()
            ]


MISREAD = Misread()  # of this process: what the kernel says is the same for all who read it
