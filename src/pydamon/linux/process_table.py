"""Which processes there are, and what ``/proc`` says of each: for lists of many, as cheaply as that goes."""

from __future__ import annotations

import os
from typing import NamedTuple

from pydamon.linux.texts import decode

_PF_KTHREAD = 0x00200000
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_LONGEST = 4096  # bytes of a command line


class ProcessStat(NamedTuple):
    """One process, as ``/proc/PID/stat`` has it; ``pid`` and ``start_ticks`` tell it from all others since boot."""

    pid: int
    name: str  # whatever the process calls itself: at most 15 bytes
    ppid: int
    ended: bool  # a zombie
    kernel: bool  # a thread of the kernel: it has no memory of its own
    cpu_ns: int
    threads: int
    start_ticks: int
    resident_bytes: int


def process_ids() -> list[int]:
    """The ids of all processes that this user sees; none without /proc."""
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    return [int(name) for name in names if name[0] in "123456789" and name.isdigit()]


def stat_of(pid: int) -> ProcessStat | None:
    """What ``/proc/PID/stat`` says (proc_pid_stat(5)); None if there is no such process. About 25 us."""
    text = _read(pid, "stat")
    if not text:
        return None
    begin, end = text.index(b"(") + 1, text.rindex(b")")  # the name may contain both
    fields = text[end + 2 :].split()  # from the third on
    return ProcessStat(
        pid,
        decode(text[begin:end]),
        int(fields[1]),
        fields[0] in b"ZXx",
        bool(int(fields[6]) & _PF_KTHREAD),
        (int(fields[11]) + int(fields[12])) * _TICK_NS,
        int(fields[17]),
        int(fields[19]),
        int(fields[21]) * _PAGE,
    )


def owner_of(pid: int) -> int | None:
    """The user that a process runs as; None if there is no such process."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def command_line(pid: int) -> str:
    """Its command line, words with a space between them, as the process has it; empty if it shows none."""
    return decode(_read(pid, "cmdline")[:_LONGEST].replace(b"\0", b" ").strip())


def cgroup_of(pid: int) -> str:
    """The path of its cgroup (version 2, as seen from this one); empty if there is none."""
    for line in decode(_read(pid, "cgroup")).split("\n"):
        if line.startswith("0::"):
            return line[3:]
    return ""


def run_time_ns(pid: int) -> int | None:
    """For how long the first thread of a process has run (``/proc/PID/schedstat``); None if that is not told."""
    text = _read(pid, "schedstat")
    return int(text.split(None, 1)[0]) if text else None


def _read(pid: int, name: str) -> bytes:
    """A file of a process; nothing if it has ended, or may not be read."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, _LONGEST)
    except OSError:  # it ended between open and read
        return b""
    finally:
        os.close(fd)
