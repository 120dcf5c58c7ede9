"""What came back that had been taken, and what waiting for it cost: counters of a cgroup, of processes, of the machine.

memory.stat and memory.pressure of cgroup v2, /proc/PID/stat, /proc/vmstat, /proc/pressure (cgroup-v2.rst, proc(5)). The
kernel counts a refault where a page comes back while its shadow entry is still known, for files and for swap.
"""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from pydamon.errors import MachineError
from pydamon.linux import memcg, psi
from pydamon.linux.texts import read_text

_COUNTER = re.compile(r"^(workingset_refault_\w+|pgmajfault|pswpin) (\d+)$", re.MULTILINE)
_MAJFLT = 9  # place of majflt behind the command's name in /proc/PID/stat


class Refaults(msgspec.Struct, frozen=True):
    """Counters that only grow; each None where it is not told. Bytes, faults, us.

    ``swapped_in_bytes`` and the waiting are the whole machine's where the target is no cgroup.
    """

    refaulted_bytes: int | None = None
    major_faults: int | None = None
    swapped_in_bytes: int | None = None
    memory_stall_us: int | None = None
    io_stall_us: int | None = None

    @property
    def back_bytes(self) -> int | None:
        """What came back: by the refaults, or else a page for each major fault."""
        if self.refaulted_bytes is not None:
            return self.refaulted_bytes
        return None if self.major_faults is None else self.major_faults * mmap.PAGESIZE

    def since(self, before: Refaults) -> Refaults:
        """By how much they have grown; None where either is not known."""
        names = self.__struct_fields__
        pairs = {name: (getattr(self, name), getattr(before, name)) for name in names}
        return Refaults(**{name: max(now - then, 0) for name, (now, then) in pairs.items() if None not in (now, then)})


def of_cgroup(path: str, *, below: Sequence[Path] | None = None) -> Refaults:
    """Of a cgroup and those below it; nothing of one that is gone, or is not of version 2.

    ``below`` (the mounts of cgroup v2) is for tests.
    """
    try:
        found = memcg.directory(path, below)
    except MachineError:
        return Refaults()
    return _told(found / "memory.stat", found / "memory.pressure", found / "io.pressure")


def of_machine(*, proc: Path = Path("/proc")) -> Refaults:
    """Of all memory."""
    return _told(proc / "vmstat", proc / "pressure/memory", proc / "pressure/io")


def _told(counters: Path, memory: Path, io: Path) -> Refaults:
    """What these files tell, in pages and PSI's words."""
    told = _counters(counters)
    refaulted = [told[name] for name in ("workingset_refault_anon", "workingset_refault_file") if name in told]
    return Refaults(
        refaulted_bytes=sum(refaulted) * mmap.PAGESIZE if refaulted else None,
        major_faults=told.get("pgmajfault"),
        swapped_in_bytes=told["pswpin"] * mmap.PAGESIZE if "pswpin" in told else None,
        memory_stall_us=_some_us(memory),
        io_stall_us=_some_us(io),
    )


class OfProcesses:
    """Of processes that come and go: the major faults of those that have ended stay counted.

    A refault is not told of a process. ``pids`` gives those that live.
    """

    def __init__(self, pids: Callable[[], Iterable[int]], *, proc: Path = Path("/proc")) -> None:
        self._pids = pids
        self._proc = proc
        self._last: dict[int, int] = {}
        self._faults = 0

    def read(self) -> Refaults:
        """What has come back since the first call, and for how long the machine has waited."""
        last = {}
        for pid in self._pids():
            with contextlib.suppress(OSError, ValueError, IndexError):  # it has ended meanwhile
                behind = read_text(self._proc / str(pid) / "stat").rpartition(")")[2].split()
                last[pid] = int(behind[_MAJFLT])
                self._faults += max(last[pid] - self._last.get(pid, last[pid]), 0)
        self._last = last
        machine = of_machine(proc=self._proc)
        return msgspec.structs.replace(machine, refaulted_bytes=None, major_faults=self._faults)


def of_targets(cgroup: str | None, *, physical: bool, pids: Callable[[], Iterable[int]]) -> Callable[[], Refaults]:
    """Where to read those of what is monitored: a cgroup, physical memory, or the processes that ``pids`` gives."""
    if physical:
        return of_machine
    return OfProcesses(pids).read if cgroup is None else lambda: of_cgroup(cgroup)


def _counters(path: Path) -> dict[str, int]:
    try:
        return {name: int(value) for name, value in _COUNTER.findall(read_text(path))}
    except OSError:
        return {}


def _some_us(path: Path) -> int | None:
    try:
        return psi.read_file(path).total_us
    except MachineError:  # no PSI, or it is switched off
        return None
