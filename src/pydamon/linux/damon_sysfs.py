"""The files of the kernel's own DAMON below ``/sys/kernel/mm/damon/admin``, and who is using it.

The tree is documented in the kernel's ``Documentation/admin-guide/mm/damon/usage.rst``. There is one for the whole
machine: `find_occupants` says who is there before anybody writes. Nothing in this module writes but `Tree.write`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from pydamon.errors import MachineError
from pydamon.linux.texts import decode
from pydamon.spec.modules import MODULES

KDAMONDS = "kdamonds"
NR_KDAMONDS = "kdamonds/nr_kdamonds"
_BUSY_S = 10.0  # another command is under way: it takes at most an aggregation interval, as a rule
_BUSY_READ_S = 1.0
_MAX_FILE = 1 << 16
_MAX_LISTED = 1024
_T = TypeVar("_T")
_PF_KTHREAD = 0x00200000  # among the flags in field 9 of /proc/PID/stat


@dataclass(frozen=True, slots=True)
class Roots:
    """Where the kernel's interfaces are; other directories are for tests and for damonfs."""

    damon: str = "/sys/kernel/mm/damon/admin"
    modules: str = "/sys/module"
    tracing: str = "/sys/kernel/tracing"
    proc: str = "/proc"


@dataclass(frozen=True, slots=True)
class Thread:
    """A kernel thread, for ever: its pid and its start time in clock ticks since boot."""

    pid: int
    start_ticks: int


class Tree:
    """The files below one directory, by their path relative to it. Reads and writes whole short files."""

    def __init__(self, root: str) -> None:
        self.root = root

    def path(self, name: str) -> str:
        """The absolute path of a file."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file or directory."""
        return os.path.exists(self.path(name))

    def list(self, name: str) -> list[str]:
        """The names in a directory; none if it is not there."""
        try:
            return sorted(os.listdir(self.path(name)))
        except OSError:
            return []

    def read(self, name: str, patience_s: float = _BUSY_READ_S) -> str:
        """The text of a file without the newline at its end. Raises OSError; EBUSY only once ``patience_s`` is over."""
        return _patiently(lambda: self._read(name), patience_s)

    def _read(self, name: str) -> str:
        fd = os.open(self.path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return decode(os.read(fd, _MAX_FILE)).rstrip("\n")
        finally:
            os.close(fd)

    def read_int(self, name: str, default: int = 0, patience_s: float = _BUSY_READ_S) -> int:
        """A file that holds one number; ``default`` where there is none. ``patience_s`` as for `read`."""
        try:
            return int(self.read(name, patience_s))
        except (OSError, ValueError):
            return default

    def write(self, name: str, value: str | int, patience_s: float | None = None) -> None:
        """Write a value. Raises OSError; EBUSY (another command is under way) only after a long wait."""
        _patiently(lambda: self._write(name, str(value)), _BUSY_S if patience_s is None else patience_s)

    def _write(self, name: str, value: str) -> None:
        # Not O_TRUNC or O_CREAT: a missing file must be an error, not a new file.
        fd = os.open(self.path(name), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, f"{value}\n".encode())
        finally:
            os.close(fd)

    def settings(self, name: str = "") -> Iterator[tuple[str, str]]:
        """Path and text of every file below ``name`` that its owner may write, in order."""
        for directory, directories, files in os.walk(self.path(name)):
            directories.sort()
            for file in sorted(files):
                path = os.path.relpath(os.path.join(directory, file), self.root)
                try:
                    if os.stat(self.path(path)).st_mode & 0o200:
                        yield path, self.read(path)
                except OSError:
                    continue  # removed meanwhile


def _patiently(act: Callable[[], _T], patience_s: float) -> _T:
    """What ``act`` gives; as long as a file is busy (another command is under way), again and again."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return act()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Occupant:
    """Somebody who uses the kernel's DAMON: a kdamond of the tree, a module, or a thread of neither."""

    what: str  # "kdamond 0", "module damon_reclaim", "thread kdamond.3"
    state: str = "on"
    thread: Thread | None = None
    ops: str | None = None
    targets: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    detail: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        parts = [f"pid {self.thread.pid}" if self.thread is not None else self.state]
        if self.ops:
            parts.append(self.ops)
        if self.targets:
            more = f" and {len(self.targets) - 2} more" if len(self.targets) > 2 else ""
            parts.append(f"target {', '.join(self.targets[:2])}{more}")
        if self.schemes:
            parts.append(f"scheme {', '.join(self.schemes[:3])}" + (" …" if len(self.schemes) > 3 else ""))
        return f"{self.what} ({'; '.join(parts)})"


def find_occupants(roots: Roots) -> list[Occupant]:
    """Everybody who uses the kernel's DAMON: kdamonds of the sysfs tree, enabled modules, other kdamond threads.

    Reads only. Raises MachineError if the kernel has no DAMON to ask, or does not let this user look.
    """
    tree = Tree(roots.damon)
    try:
        count = int(tree.read(NR_KDAMONDS))
    except (FileNotFoundError, NotADirectoryError):
        raise MachineError("has no DAMON (CONFIG_DAMON_SYSFS)", where="this kernel") from None
    except PermissionError:
        raise MachineError("needs root: no permission to read its files", where="the kernel's DAMON") from None
    except (OSError, ValueError) as error:
        raise MachineError(f"cannot be read: {error}", where=tree.path(NR_KDAMONDS)) from None
    found = [_kdamond(tree, number, roots) for number in range(min(count, _MAX_LISTED))]
    found += [occupant for name in MODULES if (occupant := _module(name, roots)) is not None and occupant.state == "on"]
    known = {occupant.thread.pid for occupant in found if occupant.thread is not None}
    found += [
        Occupant(f"thread {name}", thread=thread) for thread, name in _kdamond_threads(roots) if thread.pid not in known
    ]
    return found


def modules(roots: Roots) -> list[Occupant]:
    """DAMON's special-purpose modules that this kernel has, running or not, with all their parameters."""
    return [module for name in MODULES if (module := _module(name, roots)) is not None]


def kdamond_thread(tree: Tree, number: int, roots: Roots, patience_s: float = _BUSY_READ_S) -> Thread | None:
    """The thread of a kdamond of the tree; None if it does not run, or is busy for longer than ``patience_s``."""
    pid = tree.read_int(f"{KDAMONDS}/{number}/pid", -1, patience_s)
    return thread_of(pid, roots) if pid > 0 else None


def thread_of(pid: int, roots: Roots) -> Thread | None:
    """The kernel thread with this id; None if there is none."""
    fields = _stat(pid, roots)
    return None if fields is None else Thread(pid, int(fields[22 - 3]))


def cpu_ns(thread: Thread, roots: Roots) -> int | None:
    """CPU time of a kernel thread in nanoseconds; None if it has ended."""
    fields = _stat(thread.pid, roots)
    if fields is None or int(fields[22 - 3]) != thread.start_ticks:
        return None
    ticks = int(fields[14 - 3]) + int(fields[15 - 3])
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _stat(pid: int, roots: Roots) -> list[bytes] | None:
    """The fields of a kernel thread's stat from the third on (proc_pid_stat(5)); None if there is no such thread."""
    try:
        with open(f"{roots.proc}/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(4096)
        fields = text[text.rindex(b")") + 2 :].split()
        return fields if int(fields[9 - 3]) & _PF_KTHREAD else None
    except (OSError, ValueError, IndexError):
        return None


def _kdamond_threads(roots: Roots) -> Iterator[tuple[Thread, str]]:
    for name in os.listdir(roots.proc):
        if not name.isdigit():
            continue
        try:
            with open(f"{roots.proc}/{name}/comm", "rb", buffering=0) as file:
                command = decode(file.read(64)).strip()
        except OSError:
            continue
        # Anybody may call a process so; only a kernel thread is one.
        if command.startswith("kdamond.") and (thread := thread_of(int(name), roots)) is not None:
            yield thread, command


def _kdamond(tree: Tree, number: int, roots: Roots) -> Occupant:
    here = f"{KDAMONDS}/{number}"
    context = f"{here}/contexts/0"
    state = _read(tree, f"{here}/state") or "?"
    targets = tuple(
        _target(tree, f"{context}/targets/{t}")
        for t in range(min(tree.read_int(f"{context}/targets/nr_targets"), _MAX_LISTED))
    )
    schemes = tuple(
        _read(tree, f"{context}/schemes/{s}/action") or "?"
        for s in range(min(tree.read_int(f"{context}/schemes/nr_schemes"), _MAX_LISTED))
    )
    return Occupant(
        f"kdamond {number}",
        state=state,
        thread=kdamond_thread(tree, number, roots),
        ops=_read(tree, f"{context}/operations"),
        targets=targets,
        schemes=schemes,
        detail=tuple(
            (name, text)
            for name, path in (
                ("sample_us", "intervals/sample_us"),
                ("aggr_us", "intervals/aggr_us"),
                ("update_us", "intervals/update_us"),
                ("min_nr_regions", "nr_regions/min"),
                ("max_nr_regions", "nr_regions/max"),
            )
            if (text := _read(tree, f"{context}/monitoring_attrs/{path}")) is not None
        ),
    )


def _target(tree: Tree, here: str) -> str:
    pid = tree.read_int(f"{here}/pid_target")
    if pid:
        return f"pid {pid}"
    count = tree.read_int(f"{here}/regions/nr_regions")
    if not count:
        return "without regions"
    first = tree.read_int(f"{here}/regions/0/start")
    last = tree.read_int(f"{here}/regions/{count - 1}/end")
    return f"{first:#x}-{last:#x}"


def _module(name: str, roots: Roots) -> Occupant | None:
    tree = Tree(f"{roots.modules}/{name}/parameters")
    enabled = _read(tree, "enabled")
    if enabled is None:
        return None
    pid = tree.read_int("kdamond_pid", -1)
    return Occupant(
        f"module {name}",
        state="on" if enabled in ("Y", "y", "1") else "off",
        thread=thread_of(pid, roots) if pid > 0 else None,
        detail=tuple((parameter, _read(tree, parameter) or "") for parameter in tree.list("")),
    )


def _read(tree: Tree, name: str) -> str | None:
    try:
        return tree.read(name)
    except OSError:
        return None
