"""How large a process is, from ``/proc/PID/status`` and ``/proc/PID/statm`` (proc_pid_status(5), proc_pid_statm(5))."""

from __future__ import annotations

import os
import re

from pydamon.linux.texts import read_bytes

_FIELDS = re.compile(rb"^Vm(Size|RSS|Swap):\s+(\d+) kB$", re.MULTILINE)
_NAMES = {b"Size": "virtual_bytes", b"RSS": "resident_bytes", b"Swap": "swap_bytes"}


def read_footprint(pid: int) -> dict[str, int] | None:
    """``virtual_bytes``, ``resident_bytes`` and ``swap_bytes`` of a process; None if it has ended. About 30 us."""
    try:
        fd = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 1 << 14)
    except OSError:  # it ended between open and read
        return None
    finally:
        os.close(fd)
    found = {_NAMES[name]: int(size) * 1024 for name, size in _FIELDS.findall(text)}
    return found if len(found) == len(_NAMES) else None


def resident_pages(pid: int) -> int:
    """The resident pages of a process; 0 if it has ended. About 10 us."""
    try:
        return int(read_bytes(f"/proc/{pid}/statm").split()[1])
    except (OSError, IndexError):
        return 0
