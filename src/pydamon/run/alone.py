"""That a module runs once on a target: names that are held for as long as we live, and that all on this machine see.

A name is that of an abstract Unix socket: it is gone with us, however we end, and leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from pydamon.errors import RequestError
from pydamon.linux import memcg
from pydamon.linux.texts import read_lines
from pydamon.ops.membership import read_stat

_PREFIX = "pydamon/module"
_LISTED = Path("/proc/net/unix")
_NAME_COLUMN = 7


class Alone:
    """The targets that modules are held for, until it is closed. Raises RequestError for one that is held already."""

    def __init__(self) -> None:
        self._held = contextlib.ExitStack()

    def physical(self, module: str) -> None:
        """Hold physical memory."""
        self._hold(module, "memory", "physical memory")

    def process(self, module: str, pid: int) -> None:
        """Hold a process, which is this one and no later one of its id; refused in a cgroup that is held, too."""
        stat = read_stat(pid)
        if stat is None:
            return  # whoever opens it says so
        self._hold(module, f"process-{pid}-{stat.start_ticks}", f"process {pid}")
        held = _held(module)
        if any(f"cgroup-{inode}" in held for inode in memcg.inodes_of(pid)):
            _refuse(module, f"the cgroup that process {pid} is in")

    def cgroup(self, module: str, path: str) -> None:
        """Hold a cgroup; refused where one above or below it, or a process in it, is held, too."""
        inode = memcg.inode(path)
        self._hold(module, f"cgroup-{inode}", f"the cgroup {path}")
        held = _held(module)
        if any(f"cgroup-{above}" in held for above in memcg.inodes_above(path)):
            _refuse(module, f"a cgroup above {path}")
        for name in held:
            kind, _, rest = name.partition("-")
            pid, _, start = rest.partition("-")
            if kind == "process" and _lives(pid, start) and inode in memcg.inodes_of(int(pid)):
                _refuse(module, f"process {pid} of the cgroup {path}")
        if any(f"cgroup-{below}" in held for below in memcg.inodes_below(path)):
            _refuse(module, f"a cgroup below {path}")

    def close(self) -> None:
        """Let go of all."""
        self._held.close()

    def _hold(self, module: str, name: str, shown: str) -> None:
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            held.bind(f"\0{_PREFIX}/{module}/{name}")
        except OSError:
            held.close()
            _refuse(module, shown)
        self._held.enter_context(held)


def _refuse(module: str, shown: str) -> None:
    text = f"runs on {shown} already; stop that one first (pydamon status), or change it (pydamon tune)"
    raise RequestError(text, where=f"modules {module}")


def _held(module: str) -> set[str]:
    """The names that are held for a module, ours among them; none where the kernel does not list them."""
    prefix, found = f"@{_PREFIX}/{module}/", set()
    with contextlib.suppress(OSError):
        for line in read_lines(_LISTED):
            name = (line.split(maxsplit=_NAME_COLUMN) + [""] * (_NAME_COLUMN + 1))[_NAME_COLUMN].rstrip()
            if name.startswith(prefix):
                found.add(name.removeprefix(prefix))
    return found


def _lives(pid: str, start: str) -> bool:
    """Whether a name of a process is of one that lives; others may bind names, too, of whatever text."""
    stat = read_stat(int(pid)) if pid.isascii() and pid.isdigit() and len(pid) < 10 else None
    return stat is not None and str(stat.start_ticks) == start
