"""Which processes belong to a group that comes and goes: several pids, a process tree, a cgroup.

A member is a `Process`, held by its pidfd from the moment it joins: a pid that is used again is another process and
joins anew. What lives only for a moment costs a look at its ``stat`` file and no more: a process younger than
``min_age_ns`` has to be seen twice before it joins; if it is gone by then it is counted in ``too_short``.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from pydamon.errors import RequestError
from pydamon.linux.process import Process
from pydamon.plain import printable

MAX_LOOKS = 2048  # processes looked at more closely in one update: bounds its time to some 40 ms
_PF_KTHREAD = 0x00200000
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
MAX_COMMAND = 200


class Stat(NamedTuple):
    """What ``/proc/PID/stat`` says about a process's place; ``start_ticks`` since boot."""

    ppid: int
    ended: bool  # a zombie, or on its way there
    kernel: bool  # a kernel thread: it has no memory of its own
    start_ticks: int


def read_stat(pid: int) -> Stat | None:
    """Fields 3, 4, 9 and 22 of ``/proc/PID/stat`` (proc_pid_stat(5)); None if there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:  # it ended between open and read
        return None
    finally:
        os.close(fd)
    # The command may contain spaces and parentheses: count the fields from the last ")".
    fields = text[text.rindex(b")") + 2 :].split()
    return Stat(int(fields[1]), fields[0] in b"ZXx", bool(int(fields[6]) & _PF_KTHREAD), int(fields[19]))


def command_of(process: Process) -> str:
    """Its command line, at most 200 characters; the name in brackets if it shows none, ``?`` if it has ended."""
    for name, form in (("cmdline", "{}"), ("comm", "[{}]")):
        try:
            with open(f"/proc/{process.pid}/{name}", "rb", buffering=0) as file:
                raw = file.read(4 * MAX_COMMAND).replace(b"\0", b" ").strip()
        except OSError:
            continue
        if raw and process.alive():  # or the pid may have been another process's when it was read
            text = printable(raw.decode(errors="replace"))
            return form.format(text if len(text) <= MAX_COMMAND else text[: MAX_COMMAND - 1] + "…")
    return "?"


def program_of(process: Process) -> tuple[int, int] | None:
    """Which file the process runs (device, inode): another one after it has called exec; None if that is not told."""
    try:
        found = os.stat(f"/proc/{process.pid}/exe")
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Change(msgspec.Struct):
    """What an update found: processes that belong from now on, and members that ended or went elsewhere.

    Who takes a process from ``joined`` closes it once it is in ``left``.
    """

    joined: list[Process] = msgspec.field(default_factory=list)
    left: list[Process] = msgspec.field(default_factory=list)


class Membership(ABC):
    """The members of a group by pid, brought up to date by `update`.

    ``roots`` are the processes that the user named; their pidfds may be watched until the end. ``too_short`` counts
    processes that were seen but ended before they could join, ``left_out`` those that now find no room, ``refused``
    those that may not be monitored. ``notices`` are lines for the user, each said once. ``room_hint`` goes into the one
    about room: what would make more.
    """

    what = "the group"
    most = 1 << 30  # members at a time

    def __init__(self, min_age_ns: int = 0) -> None:
        self.min_age_ns = min_age_ns
        self.room_hint = ""
        self.roots: list[Process] = []
        self.members: dict[int, Process] = {}
        self.too_short = 0
        self.left_out = 0
        self.refused = 0
        self.notices: list[str] = []
        self._said: set[str] = set()
        self._waiting: dict[int, int] = {}  # pid → start_ticks of those too young to join
        self._no_room: dict[int, int] = {}  # likewise, of those that wait for others to end
        self._barred: dict[int, int] = {}  # likewise, of those that are refused
        self._zombies: dict[int, int] = {}  # likewise, of those that were over when first seen
        self._roots_joined = False

    def update(self, max_members: int = 1 << 30, max_joined: int = 1 << 30) -> Change:
        """Who has left and who has joined since the last update, within these bounds (the roots join in any case)."""
        change = Change()
        if not self._roots_joined:
            self._roots_joined = True
            self.members = {process.pid: process for process in self.roots}
            change.joined += self.roots
            max_joined -= len(self.roots)
        belonging = self._belonging()
        for pid, process in list(self.members.items()):
            if not process.alive() or not self._still_belongs(pid):
                change.left.append(self.members.pop(pid))
        self._let_in(belonging, min(max_members - len(self.members), max_joined), change)
        return change

    def refuse(self, process: Process, why: str) -> None:
        """A process that has joined cannot be monitored: it is no member, and is not tried again. Closes it."""
        self.members.pop(process.pid, None)
        ended = not process.alive()
        process.close()
        if ended:  # that is why
            self.too_short += 1
            return
        self._barred[process.pid] = process.start_ticks
        self.refused += 1
        self.say("refused", f"a process of {self.what} is left out, and others like it: {why}")

    def say(self, key: str, line: str) -> None:
        """Add a notice, unless there was one with this key."""
        if key not in self._said:
            self._said.add(key)
            self.notices.append(line)

    def may_grow(self) -> bool:
        """Whether processes may join that no member stands for."""
        return False

    def close(self) -> None:
        """Give back what looking for members needs, and the roots if no `update` has handed them out."""
        if not self._roots_joined:
            for process in self.roots:
                process.close()

    @abstractmethod
    def _belonging(self) -> dict[int, Stat]:
        """Processes that belong now, by pid; members may be missing. Raises nothing for what ends meanwhile."""

    def _is_known(self, pid: int) -> bool:
        """Whether it was seen, and did not join, at the last update."""
        return pid in self._waiting or pid in self._no_room

    def _still_belongs(self, pid: int) -> bool:
        """Whether a member that lives still belongs, by the last ``_belonging``."""
        return True

    def _let_in(self, belonging: dict[int, Stat], room: int, change: Change) -> None:
        waiting, self._waiting = self._waiting, {}
        no_room, self._no_room = self._no_room, {}
        barred, self._barred = self._barred, {}
        zombies, self._zombies = self._zombies, {}
        # CLOCK_BOOTTIME is what start times are counted in.
        young_ticks = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self.min_age_ns) // _NS_PER_TICK
        own = os.getpid()
        for pid, stat in belonging.items():
            if pid in self.members or pid == own or stat.kernel:
                continue
            start = stat.start_ticks
            waited = waiting.get(pid) == start or no_room.get(pid) == start
            if stat.ended:
                self._zombies[pid] = start
                # One that waited is counted below.
                self.too_short += not waited and zombies.get(pid) != start
            elif barred.get(pid) == start:
                self._barred[pid] = start
            elif not waited and start > young_ticks and self.min_age_ns:
                self._waiting[pid] = start
            elif room <= 0:
                self._no_room[pid] = start
            elif (process := self._open(pid, start)) is not None:
                room -= 1
                self.members[pid] = process
                change.joined.append(process)
        self.left_out = len(self._no_room)
        if self.left_out:
            self.say("room", f"{self.what} has {self.left_out} processes more than can be monitored{self.room_hint}")
        for pid, start in waiting.items():
            seen = belonging.get(pid)
            self.too_short += seen is None or seen.ended or seen.start_ticks != start

    def _open(self, pid: int, start: int) -> Process | None:
        """The process that was seen with this start time; None, and it is counted, if it cannot be opened."""
        try:
            process = Process(pid)
        except RequestError as error:
            stat = read_stat(pid)
            if stat is not None and not stat.ended and stat.start_ticks == start:
                self._barred[pid] = start
                self.refused += 1
                self.say("refused", f"a process of {self.what} is left out, and others like it: {error.message}")
            else:
                self.too_short += 1
            return None
        if process.start_ticks != start or not process.alive():
            process.close()
            self.too_short += 1
            return None
        return process


def _open_all(pids: Iterable[int]) -> list[Process]:
    processes: list[Process] = []
    try:
        for pid in pids:
            if any(pid == process.pid for process in processes):
                raise RequestError(f"{pid} is given twice", where="pid")
            processes.append(Process(pid))
    except BaseException:
        for process in processes:
            process.close()
        raise
    return processes


class Pids(Membership):
    """The processes that were named, and no others. Raises RequestError for one that does not exist."""

    what = "the processes that were named"

    def __init__(self, pids: Sequence[int]) -> None:
        super().__init__()
        self.roots = _open_all(pids)

    def _belonging(self) -> dict[int, Stat]:
        return {}


class Children(Membership):
    """Processes and all that descend from them. Raises RequestError if one that was named does not exist.

    Once a member always a member: one whose parent ended (and that init adopted) stays. What cannot be told is a
    process whose parent came and ended between two updates. pydamon itself and what it starts is never a member
    unless it was named.
    """

    what = "the process tree"

    def __init__(self, pids: int | Sequence[int], min_age_ns: int = 100_000_000) -> None:
        super().__init__(min_age_ns)
        self.roots = _open_all([pids] if isinstance(pids, int) else pids)
        self._has_children_files = os.path.exists(f"/proc/self/task/{os.getpid()}/children")

    def may_grow(self) -> bool:
        """While a member lives (even one that is not monitored any more) or a young process waits to join."""
        return bool(self._waiting) or any(process.alive() for process in self.members.values())

    def _belonging(self) -> dict[int, Stat]:
        found: dict[int, Stat] = {}
        # Those that wait were descendants when they were first seen; their parents may have ended since.
        for pid, start in [*self._waiting.items(), *self._no_room.items()]:
            stat = read_stat(pid)
            if stat is not None and stat.start_ticks == start:
                found[pid] = stat
        children = self._children_by_files if self._files_are_cheaper() else self._children_by_scan()
        queue = [(process.pid, process.start_ticks) for process in self.members.values() if process.alive()]
        queue += [(pid, stat.start_ticks) for pid, stat in found.items()]
        own = os.getpid()
        while queue:
            parent, started = queue.pop()
            if len(found) >= MAX_LOOKS:
                self.say("looks", f"{self.what} has more than {MAX_LOOKS} new processes at once; not all are looked at")
                break
            new = {
                pid: stat
                for pid, stat in children(parent).items()
                # A child is no older than its parent: an older one is the child of who had the parent's pid before.
                if pid not in found and pid not in self.members and pid != own and stat.start_ticks >= started
            }
            # The pid meant the parent all the time only if it still does.
            if new and self._is_still(parent, started):
                found |= new
                queue += [(pid, stat.start_ticks) for pid, stat in new.items() if not stat.ended]
        return found

    def _is_still(self, pid: int, start: int) -> bool:
        member = self.members.get(pid)
        if member is not None:
            return member.alive()
        stat = read_stat(pid)
        return stat is not None and stat.start_ticks == start and not stat.ended

    def _files_are_cheaper(self) -> bool:
        """Asking each thread of the tree for its children, instead of all other processes for their parents.

        Measured: 22 us a thread, 17 us a process.
        """
        if not self._has_children_files:
            return False
        try:
            processes = os.stat("/proc").st_nlink
            threads = sum(_nr_threads(pid) for pid in [*self.members, *self._waiting, *self._no_room])
        except OSError:
            return False
        return threads < processes - len(self.members)

    def _children_by_files(self, parent: int) -> dict[int, Stat]:
        """From ``/proc/PID/task/TID/children`` (needs CONFIG_PROC_CHILDREN); one that it misses comes next time."""
        found: dict[int, Stat] = {}
        try:
            threads = os.listdir(f"/proc/{parent}/task")
        except OSError:
            return found
        for thread in threads:
            for text in _read(f"/proc/{parent}/task/{thread}/children").split()[:MAX_LOOKS]:
                pid = int(text)
                if pid in self.members:
                    continue
                stat = read_stat(pid)
                if stat is not None and stat.ppid == parent:
                    found[pid] = stat
        return found

    def _children_by_scan(self) -> Callable[[int], dict[int, Stat]]:
        """From the parents of all processes on the machine."""
        children: dict[int, dict[int, Stat]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and (pid := int(name)) not in self.members:
                stat = read_stat(pid)
                if stat is not None:
                    children.setdefault(stat.ppid, {})[pid] = stat
        return lambda parent: children.get(parent, {})


def _nr_threads(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/task").st_nlink - 2
    except OSError:
        return 0


def _read(path: str) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except OSError:
        return b""
