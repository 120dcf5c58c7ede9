"""The kernels that damonfs can look like; which of them has which file is said by `pydamon.spec.damon_files`.

``mm`` is what waited for a release after 7.3, in the memory management tree or in DAMON's own, as of November 2026.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.errors import RequestError
from pydamon.spec.damon_files import COMMANDS, File, Version

_MM: Version = (7, 4)

NEWEST = "mm"
NAMES = ("6.12", "6.14", "6.15", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", "7.2", "7.3", NEWEST)


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

    @property
    def tries_first(self) -> bool:
        """Whether ``on`` and ``commit`` are tried on a context beside the one that runs, with all checks (7.3).

        Such a kernel also knows what one that has ended is: it can be turned off, and other commands are canceled.
        """
        return self.version >= (7, 3)

    @property
    def refuses_zero_targets(self) -> bool:
        """Whether a goal must have a target value, also when it is committed."""
        return self.version >= (7, 4)

    @property
    def bounds_probes(self) -> bool:
        """Whether more probes than can be counted are refused when they are made, not when they are turned on."""
        return self.version < (7, 4)

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
