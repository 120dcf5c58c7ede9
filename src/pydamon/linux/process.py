"""A process as a target: its identity (pidfd plus start time) and its mappings.

A pid alone is no identity: it may be reused. The pidfd refers to one process for ever, and the start time read after
opening it proves that what ``/proc/PID`` shows is that process.
"""

from __future__ import annotations

import errno
import os
import select

import msgspec

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.causes import cause
from pydamon.linux.texts import MISREAD, Misread, lines_of, read_bytes, read_lines

_PF_KTHREAD = 0x00200000  # among the flags in field 9 of /proc/PID/stat
_REAPED = -1
_END_OF_ADDRESSES = 2**64 - 1  # the last page is no memory anywhere


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


def parse_maps(text: bytes, misread: Misread = MISREAD) -> list[Mapping]:
    """Parse the text of ``/proc/PID/maps`` (format: proc_pid_maps(5)); lines of another form are noted and left out."""
    mappings = []
    for line in lines_of(text):
        try:
            mappings.append(_parse_line(line))
        except ValueError:
            misread.note("/proc/PID/maps", line)
    return mappings


def _parse_line(line: str) -> Mapping:
    """Raises ValueError if it is of another form. The kernel writes a newline in a name as ``\\012``."""
    span, perms, offset, _, inode, *rest = line.split(maxsplit=5)
    start, _, end = span.partition("-")
    low, high = int(start, 16), int(end, 16)
    if not 0 <= low < high <= _END_OF_ADDRESSES:
        raise ValueError("is no range of addresses")
    return Mapping(low, high, perms, int(offset, 16), int(inode), rest[0] if rest else "")


def start_ticks(pid: int) -> int:
    """Start time of ``pid`` in clock ticks since boot: field 22 of ``/proc/PID/stat`` (proc_pid_stat(5))."""
    return int(_stat_fields(pid)[22 - 3])


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of ``/proc/PID/stat`` from the third on."""
    text = read_bytes(f"/proc/{pid}/stat")
    # The command may contain spaces and parentheses: count the fields from the last ")".
    return text[text.rindex(b")") + 2 :].split()


def _pid_in_proc(pidfd: int) -> int:
    """What ``/proc`` calls the process of a pidfd: 0 if it does not show it, -1 if it has ended. Raises RequestError.

    The pidfd is of our own pid namespace, ``/proc`` of the one that it was mounted in.
    """
    path = f"/proc/self/fdinfo/{pidfd}"
    try:
        lines = read_lines(path)
    except OSError as error:
        lost = "; is /proc mounted?" if isinstance(error, FileNotFoundError) else ""
        raise MachineError(f"cannot read {path}: {cause(error, 'run as root')}{lost}", where="pid") from None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "Pid":
            return int(value)
    raise RequestError(f"{path} does not tell the process", where="pid")


class Process:
    """One live process, held by a pidfd.

    Raises RequestError if there is no such process, MachineError if this machine does not let it be held.
    """

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
            # EINVAL (newer: ENOENT): a thread id that is not a process's; ENOSYS: before Linux 5.3.
            wrong = error.errno in (errno.EINVAL, errno.ENOENT)
            kind = RequestError if wrong else MachineError
            raise kind(f"cannot open process {pid}: {cause(error, 'run as root')}", where="pid") from None
        self.pid = pid
        self._maps: tuple[bytes, list[Mapping]] = b"", []  # as last read
        try:
            self.start_ticks = self._identify()
        except BaseException:
            self.close()
            raise

    def _identify(self) -> int:
        """Its start time, once it is certain that ``/proc/PID`` shows the process of the pidfd. Raises RequestError."""
        shown = _pid_in_proc(self.pidfd)
        if shown not in (self.pid, _REAPED):
            raise RequestError(
                f"process {self.pid} is {shown or 'nobody'} in /proc, which is of another pid namespace; "
                "mount this namespace's own /proc",
                where="pid",
            )
        try:
            fields = _stat_fields(self.pid)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESRCH):
                raise RequestError(f"process {self.pid} ended just now", where="pid") from None
            raise MachineError(f"cannot read {error.filename}: {cause(error, 'run as root')}", where="pid") from None
        if int(fields[9 - 3]) & _PF_KTHREAD:
            raise RequestError(f"process {self.pid} is a kernel thread; it has no memory of its own", where="pid")
        # A command that was launched here, and was quick, is a target that has ended.
        if not self.alive() and int(fields[4 - 3]) != os.getpid():
            raise RequestError(f"process {self.pid} has ended, but its parent has not waited for it", where="pid")
        return int(fields[22 - 3])

    def alive(self) -> bool:
        """Whether the process still runs; a zombie does not. Costs about a microsecond; safe from any thread."""
        if self.pidfd < 0:
            return False
        poll = select.poll()  # one of its own: two threads cannot use one at the same time
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def stopped(self) -> bool:
        """Whether it was stopped by a signal (SIGSTOP, or a debugger), and waits for another to go on."""
        try:
            return _stat_fields(self.pid)[0] in (b"T", b"t")
        except OSError:
            return False

    def mappings(self) -> list[Mapping]:
        """The process's mappings in address order; the same list, not to be changed, as long as they are the same.

        Raises ProcessGone if it has ended, MachineError if this user may not look at it. A process that is just
        exec'ing may show none.
        """
        try:
            text = read_bytes(f"/proc/{self.pid}/maps")
        except OSError as error:
            raise self._refused(error) from None
        if not self.alive():
            raise ProcessGone(f"process {self.pid} has ended", where="pid")
        if text != self._maps[0]:  # to parse it costs several times as much as to read it
            self._maps = text, parse_maps(text)
        return self._maps[1]

    def check_readable(self) -> None:
        """Raise MachineError if this user may not look at its mappings, ProcessGone if it has ended."""
        try:
            os.close(os.open(f"/proc/{self.pid}/maps", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            raise self._refused(error) from None

    def _refused(self, error: OSError) -> PydamonError | OSError:
        """What is said instead of ``error``, of opening or reading its mappings."""
        if isinstance(error, (FileNotFoundError, ProcessLookupError)) or not self.alive():
            return ProcessGone(f"process {self.pid} has ended", where="pid")  # the files of a zombie are root's
        if isinstance(error, PermissionError):
            reason = f"no permission to read /proc/{self.pid}/maps; run as its owner or as root"
            return MachineError(reason, where="pid")
        return error

    def close(self) -> None:
        """Release the pidfd, and what is kept of its mappings."""
        self._maps = b"", []
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class EndedProcess(Process):
    """Stands for every process that has ended and of which nothing is to be kept: it has no pid."""

    def __init__(self) -> None:
        self.pidfd, self.pid, self.start_ticks = -1, 0, 0
        self._maps = b"", []
