"""The kernels that damonfs can look like; which of them has which file is said by `pydamon.spec.damon_files`.

``mm`` is what waited in the memory management tree for a release when its documents described it.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.errors import RequestError
from pydamon.spec.damon_files import COMMANDS, File, Version

_MM: Version = (7, 2)

NEWEST = "mm"
NAMES = ("6.12", "6.14", "6.15", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", NEWEST)


@dataclass(frozen=True, slots=True)
class Level:
    """A kernel that damonfs looks like."""

    version: Version

    def has(self, file: File) -> bool:
        """Whether that kernel has ``file``, if it has the file's directory."""
        return self._reached(file.since)

    def knows(self, command: str) -> bool:
        """Whether ``command`` may be written to ``state``."""
        return self._reached(COMMANDS[command])

    def words(self, file: File) -> list[str]:
        """The words that may be written to a file of that kind."""
        return [word for word, since in file.words.items() if self._reached(since)]

    def _reached(self, since: Version | None) -> bool:
        return since is None or self.version >= since


def level(name: str) -> Level:
    """The level called ``name`` (one of `NAMES`); raises RequestError."""
    if name not in NAMES:
        raise RequestError(f"{name!r} is not known; there are {', '.join(NAMES)}", where="level")
    if name == NEWEST:
        return Level(_MM)
    major, _, minor = name.partition(".")
    return Level((int(major), int(minor)))
