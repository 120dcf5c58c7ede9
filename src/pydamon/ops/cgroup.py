"""The processes of a cgroup (version 2) and of those below it, as a membership."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from pathlib import Path

from pydamon.errors import MachineError, RequestError
from pydamon.linux.mounts import mounts
from pydamon.ops.membership import MAX_LOOKS, Membership, Stat, read_stat

_FIELD = "cgroup"
_MAX_CGROUPS = 4096  # looked through in one update: 20 us each
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def resolve(path: str, below: Sequence[Path]) -> Path:
    """The directory of the cgroup ``path``: absolute below one of the mounts ``below``, or relative to the first.

    Raises RequestError if it is not a cgroup v2 directory, MachineError if there is no mount.
    """
    if not below:
        raise MachineError("no cgroup v2 is mounted on this machine", where=_FIELD)
    if not path or "\0" in path:
        raise RequestError(f"{path!r} is not a path", where=_FIELD)
    found = Path(os.path.realpath(below[0] / path))
    if not any(found.is_relative_to(mount) for mount in below):
        raise RequestError(
            f"{path} is not below the cgroup v2 mount {below[0]}; give a path there, or one relative to it",
            where=_FIELD,
        )
    if not found.is_dir():
        reason = "is not a directory" if found.exists() else "does not exist"
        raise RequestError(f"{found} {reason}; name a cgroup v2 directory", where=_FIELD)
    if not (found / "cgroup.procs").exists():
        raise RequestError(f"{found} has no cgroup.procs; it is not a cgroup v2 directory", where=_FIELD)
    return found


class Cgroup(Membership):
    """The processes in a cgroup and in all cgroups below it, as they come and go.

    A process that moves out of it has left; when it comes back it joins as if it were new. A cgroup that is made anew
    under the same name is another one. ``below`` (the mounts of cgroup v2) is for tests. Raises RequestError naming
    ``cgroup``, MachineError if there is no cgroup v2.
    """

    def __init__(self, path: str, min_age_ns: int = 100_000_000, *, below: Sequence[Path] | None = None) -> None:
        super().__init__(min_age_ns)
        self.path = resolve(
            path, mounts("cgroup2") if below is None else [Path(os.path.realpath(mount)) for mount in below]
        )
        self.what = f"the cgroup {self.path}"
        self._listed: set[int] = set()
        try:
            self._fd = os.open(self.path, _DIRECTORY)
        except OSError as error:
            raise RequestError(f"{self.path} cannot be opened: {error.strerror}", where=_FIELD) from None
        try:
            self._procs(self._fd)
        except OSError as error:
            os.close(self._fd)
            # EOPNOTSUPP: the processes of a threaded cgroup are listed where the threaded subtree begins.
            threaded = error.errno == errno.EOPNOTSUPP
            reason = "is threaded; name the cgroup that holds its processes" if threaded else error.strerror
            raise RequestError(f"{self.path} {reason}", where=_FIELD) from None

    def may_grow(self) -> bool:
        """While the cgroup is there."""
        try:
            os.stat("cgroup.procs", dir_fd=self._fd)
        except OSError:
            self.say("removed", f"{self.what} was removed")
            return False
        return True

    def close(self) -> None:
        """Close the directory."""
        super().close()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _still_belongs(self, pid: int) -> bool:
        return pid in self._listed

    def _belonging(self) -> dict[int, Stat]:
        self._listed = set()
        left = self._collect(self._fd, _MAX_CGROUPS)
        self.may_grow()  # says so if it was removed
        if left <= 0:
            self.say("cgroups", f"{self.what} has more than {_MAX_CGROUPS} cgroups below it; not all are looked at")
        if 0 in self._listed:  # how the kernel shows a process that has no number here
            self._listed.remove(0)
            self.say("namespace", f"{self.what} has processes of another pid namespace; they are left out")
        new = sorted(self._listed - self.members.keys(), key=lambda pid: (not self._is_known(pid), pid))
        if len(new) > MAX_LOOKS:
            self.say("looks", f"{self.what} has more than {MAX_LOOKS} new processes at once; not all are looked at")
        stats = ((pid, read_stat(pid)) for pid in new[:MAX_LOOKS])
        return {pid: stat for pid, stat in stats if stat is not None}

    def _collect(self, fd: int, left: int) -> int:
        """List the processes of the cgroup ``fd`` and below, of ``left`` cgroups at most; returns how many remain."""
        with contextlib.suppress(OSError):  # removed, or a threaded one, whose processes are listed further up
            self._listed.update(self._procs(fd))
        left -= 1
        try:
            with os.scandir(fd) as entries:
                below = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            below = []
        for name in below:
            if left <= 0:
                break
            try:
                child = os.open(name, _DIRECTORY, dir_fd=fd)
            except OSError:
                continue
            try:
                left = self._collect(child, left)
            finally:
                os.close(child)
        return left

    @staticmethod
    def _procs(fd: int) -> list[int]:
        procs = os.open("cgroup.procs", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        with open(procs, "rb", buffering=0) as file:
            return [int(line) for line in file.readall().split()]
