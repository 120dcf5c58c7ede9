"""Memory cgroups (version 2): by path to a directory, its inode (as in /proc/kpagecgroup), and its memory by node."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from pydamon.errors import MachineError
from pydamon.linux.causes import cause
from pydamon.linux.mounts import mounts
from pydamon.linux.texts import read_lines


def directory(path: str, below: Sequence[Path] | None = None) -> Path:
    """The directory of the cgroup ``path``: as mounted, or as the kernel names it, from the root of cgroup v2.

    ``below`` (the mounts of cgroup v2) is for tests. Raises MachineError if there is none.
    """
    roots = [Path(os.path.realpath(root)) for root in (mounts("cgroup2") if below is None else below)]
    if not roots:
        raise MachineError("no cgroup v2 is mounted on this machine", where=path)
    if "\0" in path:
        raise MachineError("is not a path", where=repr(path))
    for name in (path, *(f"{root}/{path}" for root in roots)):
        found = Path(os.path.realpath(name)) if name.startswith("/") else None
        if found is not None and any(found.is_relative_to(root) for root in roots) and found.is_dir():
            return found
    raise MachineError(f"there is no such cgroup below {roots[0]}", where=path)


def inode(path: str, below: Sequence[Path] | None = None) -> int:
    """The inode of the cgroup's directory, by which /proc/kpagecgroup names it. Raises MachineError."""
    found = directory(path, below)
    try:
        return found.stat().st_ino
    except OSError as error:
        raise MachineError(f"cannot be looked at ({error.strerror})", where=str(found)) from None


_LRU_LISTS = frozenset({"inactive_anon", "active_anon", "inactive_file", "active_file"})


def lru_bytes_by_node(path: str, below: Sequence[Path] | None = None) -> dict[int, int]:
    """Bytes of the cgroup and those below it on the active and inactive lists of each NUMA node.

    From memory.numa_stat, one line a list: ``active_anon N0=4096 N1=0``. Raises MachineError where it is not told.
    """
    file = directory(path, below) / "memory.numa_stat"
    try:
        lines = read_lines(file)
    except OSError as error:
        needs = "it needs the memory controller in this cgroup, and CONFIG_NUMA"
        raise MachineError(f"cannot be read: {cause(error, missing=needs)}", where=str(file)) from None
    total: dict[int, int] = {}
    try:
        for line in lines:
            name, *values = line.split()
            if name in _LRU_LISTS:
                for word in values:
                    node, _, amount = word.partition("=")
                    total[int(node[1:])] = total.get(int(node[1:]), 0) + int(amount)
    except ValueError:
        raise MachineError("is not as the kernel documents it", where=str(file)) from None
    return total


def inodes_above(path: str, below: Sequence[Path] | None = None) -> list[int]:
    """The inodes of the cgroups above the cgroup ``path``, the root of the hierarchy last. Raises MachineError."""
    return _upward(directory(path, below).parent, below)


def inodes_below(path: str, below: Sequence[Path] | None = None) -> list[int]:
    """The inodes of all cgroups below the cgroup ``path``. Raises MachineError."""
    found = []
    for parent, names, _ in os.walk(directory(path, below)):
        for name in names:
            with contextlib.suppress(OSError):  # it was removed meanwhile
                found.append(os.stat(os.path.join(parent, name)).st_ino)
    return found


def inodes_of(pid: int, below: Sequence[Path] | None = None) -> list[int]:
    """The inodes of the cgroup that a process is in, and of those above it; none without cgroup v2, or process."""
    with contextlib.suppress(OSError, MachineError):
        for line in read_lines(Path(f"/proc/{pid}/cgroup")):
            if line.startswith("0::/"):
                return _upward(directory(line.removeprefix("0::").rstrip() or "/", below), below)
    return []


def _upward(found: Path, below: Sequence[Path] | None) -> list[int]:
    roots = [Path(os.path.realpath(root)) for root in (mounts("cgroup2") if below is None else below)]
    inodes = []
    with contextlib.suppress(OSError):
        while any(found.is_relative_to(root) for root in roots):
            inodes.append(found.stat().st_ino)
            found = found.parent
    return inodes
