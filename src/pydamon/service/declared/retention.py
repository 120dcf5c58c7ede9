"""Which of a monitor's recordings stay: the oldest go beyond so many files, bytes, or so long a time.

What is old is told by when it was seen first, on a clock that does not jump: setting the time removes nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import time

from pydamon.service.declared.file import Keep

# What `recording_name` and the parts of a recording are called; nothing else is ever removed.
_PART = re.compile(r"\d{8}T\d{6}Z\.\d{4,}\.damon", re.ASCII)


def recording_name(wall_ns: int) -> str:
    """What a recording that begins then is called: its parts sort by time."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall_ns // 1_000_000_000)) + ".damon"


class Retention:
    """Removes what need not be kept in ``directory``; the newest file always stays, it is being written to."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._since_ns: dict[str, int] = {}  # since when each is there (CLOCK_MONOTONIC), oldest first

    def apply(self, keep: Keep, monotonic_ns: int, wall_ns: int) -> list[str]:
        """The files that were removed, which is all beyond ``keep``. Raises OSError if they cannot be looked at."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sizes = self._look(fd, monotonic_ns, wall_ns)
            removed = beyond(keep, [(name, sizes[name], monotonic_ns - self._since_ns[name]) for name in sizes])
            for name in removed:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=fd)
            return removed
        finally:
            os.close(fd)

    def _look(self, fd: int, monotonic_ns: int, wall_ns: int) -> dict[str, int]:
        """The size of each file, oldest first."""
        found: dict[str, os.stat_result] = {}
        with os.scandir(fd) as entries:
            for entry in entries:
                if _PART.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):
                        found[entry.name] = entry.stat(follow_symlinks=False)
        self._since_ns = {name: since_ns for name, since_ns in self._since_ns.items() if name in found}
        # Of those that are new, what was written last is the newest: only at first there are several.
        for name in sorted(found.keys() - self._since_ns.keys(), key=lambda name: (found[name].st_mtime_ns, name)):
            age_ns = max(wall_ns - found[name].st_mtime_ns, 0)
            self._since_ns[name] = monotonic_ns - age_ns
        return {name: found[name].st_size for name in self._since_ns}


def beyond(keep: Keep, files: list[tuple[str, int, int]]) -> list[str]:
    """Which of the ``files`` (name, bytes, age in ns; oldest first) are to go: never the last."""
    removed = []
    total = sum(size for _, size, _ in files)
    for index, (name, size, age_ns) in enumerate(files[:-1]):
        too_many = keep.files is not None and len(files) - index > keep.files
        too_large = keep.size_bytes is not None and total > keep.size_bytes
        too_old = keep.age_ns is not None and age_ns > keep.age_ns
        if not (too_many or too_large or too_old):
            break
        removed.append(name)
        total -= size
    return removed
