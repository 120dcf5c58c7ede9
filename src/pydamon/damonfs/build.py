"""Makes the directories of a context, for one kernel level, from the table of the kernel's files."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable, Mapping
from typing import Any

from pydamon.damonfs.levels import Level
from pydamon.damonfs.nodes import (
    BOOL,
    INT,
    INT_OR_EINVAL,
    TEXT,
    UINT,
    ULONG,
    ULONG_NOT_0,
    ULONG_OR_EINVAL,
    Budget,
    Directory,
    Kind,
    Node,
    Numbered,
    Value,
    one_of,
)
from pydamon.spec.damon_files import FILES, File
from pydamon.spec.probes import MAX_PROBES
from pydamon.spec.schemes import MAX_SCHEMES

_KINDS: dict[str, Kind] = {
    "ulong": ULONG,
    "ulong_or_einval": ULONG_OR_EINVAL,
    "ulong_not_0": ULONG_NOT_0,
    "uint": UINT,
    "int": INT,
    "int_or_einval": INT_OR_EINVAL,
    "bool": BOOL,
    "text": TEXT,
    "cgroup": TEXT,
}
# How many users may make of a kind.
_MOST = {"targets/*/regions": 100_000, "schemes": MAX_SCHEMES}
_MOST_OF_OTHERS = 1024

Make = Callable[[], Node]


class Builder:
    """Makes directories by the patterns of the table (``schemes/*/quotas``), with what the kernel of ``level`` has.

    ``special`` are nodes that are more than a value, by their pattern. ``budget`` and ``guard`` are for directories
    that users make (`Numbered`).
    """

    def __init__(
        self, level: Level, budget: Budget, guard: Callable[[], Any], special: Mapping[str, Make] | None = None
    ) -> None:
        self._level = level
        self._budget = budget
        self._guard = guard
        self._special = dict(special or {})
        self._plans: dict[str, dict[str, Make]] = {}

    def directory(self, pattern: str) -> Directory:
        """A new directory; a numbered one if the table counts what is in it."""
        counter = _counter(pattern)
        if counter is None:
            return Directory({name: make() for name, make in self._plan(pattern).items()})
        below = f"{pattern}/*"
        bound = MAX_PROBES if pattern == "monitoring_attrs/probes" and self._level.bounds_probes else None
        return Numbered(
            counter.name,
            lambda _: self.directory(below),
            budget=self._budget,
            guard=self._guard,
            most=_MOST.get(pattern, _MOST_OF_OTHERS) if bound is None else bound,
            beyond=errno.ENOMEM if bound is None else errno.EINVAL,
        )

    def _plan(self, pattern: str) -> dict[str, Make]:
        """How the entries of a directory are made. Looked up once: there may be a great many of a kind."""
        if pattern not in self._plans:
            makers = {name: self._maker(f"{pattern}/{name}".lstrip("/")) for name in _CHILDREN[pattern]}
            self._plans[pattern] = {name: make for name, make in makers.items() if make is not None}
        return self._plans[pattern]

    def _maker(self, pattern: str) -> Make | None:
        """What makes one entry; None if the kernel does not have it."""
        file = _FILES.get(pattern) or _counter(pattern)
        if file is not None and not self._level.has(file):
            return None
        if pattern in self._special:
            return self._special[pattern]
        if pattern in _FILES:
            return self._value(_FILES[pattern])
        if file is None and not self._plan(pattern):
            return None
        return functools.partial(self.directory, pattern)

    def _value(self, file: File) -> Make:
        kind = one_of(self._level.words(file)) if file.kind == "word" else _KINDS[file.kind]
        return lambda: Value(kind, file.first, file.mode)


_FILES = {file.path: file for file in FILES}


def _children() -> dict[str, dict[str, None]]:
    """The names in each directory of the table, in its order."""
    found: dict[str, dict[str, None]] = {}
    for file in FILES:
        path = file.path
        while path:
            directory, _, name = path.rpartition("/")
            found.setdefault(directory, {})[name] = None
            path = directory
    return found


_CHILDREN = _children()
_COUNTERS = {file.directory: file for file in FILES if file.kind == "count"}
_counter = _COUNTERS.get
