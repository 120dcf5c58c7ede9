"""Which processes are listed: all that there are, or a part of them; read in turn, those that are seen more often."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable

import msgspec

from pydamon.linux.process_table import (
    ProcessStat,
    cgroup_of,
    command_line,
    owner_of,
    process_ids,
    stat_of,
)
from pydamon.linux.texts import read_text
from pydamon.views.processes import Process, Processes

_TURNS = 5  # of what is not seen a part is read each time, so that all was read after that many
_MAX_NAME = 200
WINDOW_S, IDLE_S = 10, 60


class Selection(msgspec.Struct, frozen=True):
    """Which processes are wanted: each that is set narrows it. ``parent``: a process and what descends from it."""

    uid: int | None = None
    words: str = ""
    parent: int | None = None


class Known(msgspec.Struct, eq=False):
    """What is known of one process. ``stat`` is replaced when it is read again."""

    stat: ProcessStat
    name: str
    uid: int
    cgroup: str

    @property
    def key(self) -> tuple[int, int]:
        """Who it is: a pid may be used again."""
        return self.stat.pid, self.stat.start_ticks

    def row(self) -> Process:
        """What is told of it before it is asked."""
        return Process(
            pid=self.stat.pid,
            start_ticks=self.stat.start_ticks,
            name=self.name,
            uid=self.uid,
            cgroup=self.cgroup,
            resident_bytes=self.stat.resident_bytes,
        )


class Listing:
    """The processes of a `Selection`; ``ids`` lists all there are. Threads of the kernel and zombies are left out."""

    def __init__(self, selection: Selection, ids: Callable[[], Iterable[int]] = process_ids) -> None:
        self.selection = selection
        self._ids = ids
        self._all: dict[int, Known | None] = {}  # None: of no interest for ever
        self._turn = 0

    def refresh(self, seen: Collection[int] = ()) -> list[Known]:
        """Those that are wanted now. Of pids in ``seen`` all is as of now, of others as of a few calls ago at most."""
        self._turn = (self._turn + 1) % _TURNS
        now = set(self._ids())
        for pid in self._all.keys() - now:
            del self._all[pid]
        for pid in now:
            known = self._all.get(pid)
            if pid not in self._all:
                self._all[pid] = self._read(pid)
            elif pid in seen or pid % _TURNS == self._turn:
                self._all[pid] = self._again(pid, known)
        found = [known for known in self._all.values() if known is not None and not known.stat.ended]
        return [known for known in found if self._wanted(known)]

    def _read(self, pid: int) -> Known | None:
        stat = stat_of(pid)
        if stat is None or stat.kernel:
            return None
        uid = owner_of(pid)
        return Known(stat, _name(pid, stat), -1 if uid is None else uid, cgroup_of(pid))

    def _again(self, pid: int, known: Known | None) -> Known | None:
        if known is None:
            return None
        stat = stat_of(pid)
        if stat is None:
            return None
        if (stat.start_ticks, stat.name) != (known.stat.start_ticks, known.stat.name):
            return self._read(pid)  # another process, or another program
        known.stat = stat
        return known

    def _wanted(self, known: Known) -> bool:
        wanted = self.selection
        if wanted.uid is not None and known.uid != wanted.uid:
            return False
        if wanted.words and wanted.words.casefold() not in known.name.casefold():
            return False
        return wanted.parent is None or self._descends(known, wanted.parent)

    def _descends(self, known: Known, parent: int) -> bool:
        passed: set[int] = set()
        pid = known.stat.pid
        while pid != parent:
            above = self._all.get(pid)
            if above is None or pid in passed:
                return False
            passed.add(pid)
            pid = above.stat.ppid
        return True


def _name(pid: int, stat: ProcessStat) -> str:
    return (command_line(pid) or f"[{stat.name}]")[:_MAX_NAME]


def listed(listing: Listing) -> Processes:
    """Who there is, before anybody is asked: that is known soonest."""
    total, available = memory()
    return Processes(
        time_unix_ns=time.time_ns(),
        window_s=WINDOW_S,
        idle_s=IDLE_S,
        processes=[known.row() for known in listing.refresh()],
        total_bytes=total,
        available_bytes=available,
    )


def memory() -> tuple[int, int]:
    """Bytes of the machine's memory, and of what is available; 0 if that is not told."""
    found = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in read_text("/proc/meminfo").split("\n")[:6]:
            name, _, value = line.partition(":")
            found[name] = int(value.split()[0]) * 1024
    return found.get("MemTotal", 0), found.get("MemAvailable", 0)
