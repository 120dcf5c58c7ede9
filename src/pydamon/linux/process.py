"""A process as a target: its identity (pidfd plus start time) and its mappings.

A pid alone is no identity: it may be reused. The pidfd refers to one process for ever, and the start time read after
opening it proves that what ``/proc/PID`` shows is that process.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable

import msgspec

from pydamon.errors import MachineError, PydamonError, RequestError

_PF_KTHREAD = 0x00200000  # among the flags in field 9 of /proc/PID/stat


class ProcessGone(PydamonError):
    """The process has ended (or its pid belongs to another process by now)."""


class Mapping(msgspec.Struct, frozen=True):
    """One line of ``/proc/PID/maps``; ``end`` is exclusive, both in bytes."""

    start: int
    end: int
    perms: str
    offset: int
    inode: int
    name: str


def parse_maps(lines: Iterable[str]) -> list[Mapping]:
    """Parse the text of ``/proc/PID/maps`` (format: proc_pid_maps(5)); lines of another form raise ValueError."""
    mappings = []
    for line in lines:
        fields = line.rstrip("\n").split(maxsplit=5)
        if len(fields) < 5:
            raise ValueError(f"not a line of /proc/PID/maps: {line[:80]!r}")
        start, _, end = fields[0].partition("-")
        name = fields[5] if len(fields) == 6 else ""
        mappings.append(Mapping(int(start, 16), int(end, 16), fields[1], int(fields[2], 16), int(fields[4]), name))
    return mappings


def start_ticks(pid: int) -> int:
    """Start time of ``pid`` in clock ticks since boot: field 22 of ``/proc/PID/stat`` (proc_pid_stat(5))."""
    return int(_stat_fields(pid)[22 - 3])


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of ``/proc/PID/stat`` from the third on."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        text = file.read()
    # The command may contain spaces and parentheses: count the fields from the last ")".
    return text[text.rindex(b")") + 2 :].split()


class Process:
    """One live process, held by a pidfd. Raises RequestError if there is no such process."""

    def __init__(self, pid: int) -> None:
        if pid <= 0:
            raise RequestError(f"{pid} is not a process id; it must be a positive number", where="pid")
        try:
            self.pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise RequestError(f"no process has the id {pid}", where="pid") from None
        except OverflowError:
            raise RequestError(f"{pid} is not a process id", where="pid") from None
        except OSError as error:
            # EINVAL: a thread id that is not a process's; ENOSYS: before Linux 5.3.
            raise RequestError(f"cannot open process {pid}: {error.strerror}", where="pid") from None
        self.pid = pid
        try:
            fields = _stat_fields(pid)
        except OSError as error:
            os.close(self.pidfd)
            raise RequestError(f"process {pid} ended just now ({error.strerror})", where="pid") from None
        if int(fields[9 - 3]) & _PF_KTHREAD:
            os.close(self.pidfd)
            raise RequestError(f"process {pid} is a kernel thread; it has no memory of its own", where="pid")
        self.start_ticks = int(fields[22 - 3])

    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not. Costs about a microsecond; safe from any thread."""
        if self.pidfd < 0:
            return False
        poll = select.poll()  # one of its own: two threads cannot use one at the same time
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def mappings(self) -> list[Mapping]:
        """The process's mappings in address order.

        Raises ProcessGone if it has ended, MachineError if this user may not look at it. A process that is just
        exec'ing may show none.
        """
        try:
            with open(f"/proc/{self.pid}/maps", encoding="utf-8", errors="replace") as file:
                mappings = parse_maps(file)
        except PermissionError:
            if not self.alive():  # the files of a zombie are root's
                raise ProcessGone(f"process {self.pid} has ended", where="pid") from None
            raise MachineError(
                f"no permission to read /proc/{self.pid}/maps; run as its owner or as root", where="pid"
            ) from None
        except (FileNotFoundError, ProcessLookupError):
            raise ProcessGone(f"process {self.pid} has ended", where="pid") from None
        if not self.alive():
            raise ProcessGone(f"process {self.pid} has ended", where="pid")
        return mappings

    def close(self) -> None:
        """Release the pidfd."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
