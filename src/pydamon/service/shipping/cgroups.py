"""What the kernel tells of a cgroup (version 2): its bounds, how long its tasks waited, and what came back."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pydamon.linux.mounts import mounts
from pydamon.linux.texts import decode

_REFAULTS = re.compile(r"^workingset_refault_(?:anon|file) (\d+)$", re.MULTILINE)
_TOTAL = re.compile(r"^(some|full) .*\btotal=(\d+)$", re.MULTILINE)
_MOST = (1 << 50) - 1
_MOST_READ = 1 << 16
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Facts(msgspec.Struct, frozen=True):
    """Bytes and us, each None where it is not told; ``psi_…`` and ``refaulted`` only grow."""

    limit_bytes: int | None = None
    request_bytes: int | None = None
    psi_some_us: int | None = None
    psi_full_us: int | None = None
    refaulted: int | None = None


class Cgroups:
    """Those of this machine. ``below`` (the mounts of cgroup v2) is for tests.

    Five files of each are read once a minute, which is most of what shipping does: nothing is looked up twice.
    """

    def __init__(self, below: Sequence[Path] | None = None) -> None:
        self._below = below
        self._roots: list[int] | None = None  # their directories, as long as this lives

    def facts(self, path: str) -> Facts:
        """Of the cgroup ``path``; nothing of one that is gone, or is not of version 2."""
        folder = self._folder(path)
        if folder is None:
            return Facts()
        try:
            asked = [_number(folder, f"memory.{name}") for name in ("min", "low")]
            waited = {name: int(value) for name, value in _TOTAL.findall(_text(folder, "memory.pressure"))}
            pages = _REFAULTS.findall(_text(folder, "memory.stat"))
            return Facts(
                limit_bytes=_number(folder, "memory.max"),
                request_bytes=max((each for each in asked if each), default=None),
                psi_some_us=waited.get("some"),
                psi_full_us=waited.get("full"),
                refaulted=sum(map(int, pages)) * mmap.PAGESIZE if pages else None,
            )
        finally:
            os.close(folder)

    def _folder(self, path: str) -> int | None:
        """A descriptor of its directory."""
        if ".." in path.split("/") or "\0" in path:
            return None
        if self._roots is None:
            places = mounts("cgroup2") if self._below is None else self._below
            self._roots = [os.open(place, _FLAGS | os.O_DIRECTORY) for place in places if place.is_dir()]
        for root in self._roots:
            try:
                return os.open(path.strip("/") or ".", _FLAGS | os.O_DIRECTORY, dir_fd=root)
            except (OSError, ValueError):
                continue
        return None


def _text(folder: int, name: str) -> str:
    try:
        fd = os.open(name, _FLAGS, dir_fd=folder)
    except OSError:
        return ""
    try:
        return decode(os.read(fd, _MOST_READ))
    except OSError:
        return ""
    finally:
        os.close(fd)


def _number(folder: int, name: str) -> int | None:
    """None: there is no bound."""
    text = _text(folder, name).strip()
    return min(int(text), _MOST) if text.isascii() and text.isdecimal() else None
