"""Processes by name, as people know them: what a user types instead of a pid."""

from __future__ import annotations

import contextlib
import os

from pydamon.linux.texts import read_text

_COMM_MOST = 15  # characters of a name that the kernel keeps (TASK_COMM_LEN less the zero)


def processes_named(name: str) -> list[int]:
    """The pids of the processes that are called ``name``, sorted; not this one, kernel threads, or what has ended.

    A process is called what its main thread is called, what its program file is called, or what it was started as
    (whose names are not cut at 15 characters).
    """
    return [pid for pid in _pids() if pid != os.getpid() and name in names_of(pid)]


def own_processes() -> list[tuple[int, str]]:
    """(pid, name) of the processes that this user may look at; root: of all. Kernel threads are left out."""
    found = []
    euid = os.geteuid()
    for pid in _pids():
        with contextlib.suppress(OSError):
            if euid in (0, os.stat(f"/proc/{pid}").st_uid) and (names := names_of(pid)):
                found.append((pid, names[0]))
    return found


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isascii() and name.isdigit())


def names_of(pid: int) -> list[str]:
    """What it is called, the best name first; empty for one that has ended, and for a thread of the kernel."""
    started = os.path.basename(_command_line(pid).split("\0", 1)[0])
    try:
        comm = read_text(f"/proc/{pid}/comm").removesuffix("\n")
    except OSError:
        return []
    if not started:
        return []
    names = [comm, started]
    with contextlib.suppress(OSError):
        names.append(os.path.basename(os.readlink(f"/proc/{pid}/exe")).removesuffix(" (deleted)"))
    if len(comm) == _COMM_MOST and started.startswith(comm):
        names.remove(comm)  # it is cut, and may be that of others, too
    return [name for name in dict.fromkeys(names) if name]


def _command_line(pid: int) -> str:
    """Its arguments, with a zero byte behind each; empty if it cannot be told."""
    try:
        return read_text(f"/proc/{pid}/cmdline")
    except OSError:
        return ""
