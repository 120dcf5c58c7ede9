"""Which processes have a name: that of the program that they run now, as ``ps`` and ``pgrep -x`` show it."""

from __future__ import annotations

import os

_COMM_BYTES = 15  # what the kernel keeps of a name (TASK_COMM_LEN without the NUL)
_PF_KTHREAD = 0x00200000  # among the flags in field 9 of /proc/PID/stat


def processes_named(name: str) -> list[int]:
    """The pids of the processes that are called ``name``, sorted; not this one, kernel threads, or what has ended.

    A name that the kernel has cut is told by the first word of the command line.
    """
    wanted, own = os.fsencode(name), os.getpid()
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isascii() and entry.isdigit())
    return sorted(pid for pid in pids if pid != own and _is_named(pid, wanted))


def _is_named(pid: int, name: bytes) -> bool:
    text = _read(pid, "stat")
    begin, end = text.find(b"("), text.rfind(b")")  # a name may have parentheses in it
    if begin < 0 or text[begin + 1 : end] != name[:_COMM_BYTES]:
        return False
    fields = text[end + 2 :].split()
    if fields[0] in b"ZXx" or int(fields[9 - 3]) & _PF_KTHREAD:
        return False
    if len(name) < _COMM_BYTES:
        return True
    command = _read(pid, "cmdline").partition(b"\0")[0]
    return command.rpartition(b"/")[2].partition(b" ")[0] == name or len(name) == _COMM_BYTES


def _read(pid: int, file: str) -> bytes:
    """Nothing of a process that has ended, or is not to be looked at."""
    try:
        with open(f"/proc/{pid}/{file}", "rb", buffering=0) as opened:
            return opened.read(4096)
    except OSError:
        return b""
