"""How much free memory lies in whole blocks of 2 MiB, and asking the kernel to move pages so that more does.

/proc/buddyinfo and /proc/sys/vm/compact_memory (proc(5), Documentation/admin-guide/sysctl/vm.rst). Writing there moves
movable pages of all zones; it changes no setting.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from pydamon.errors import MachineError
from pydamon.linux.causes import cause
from pydamon.linux.texts import read_lines

_ORDER = 9  # 2 MiB of pages of 4 KiB: what free page reporting gives back, and a huge page takes
_PAGE = 4096
_BUDDYINFO = Path("/proc/buddyinfo")
_COMPACT = Path("/proc/sys/vm/compact_memory")
_FLAGS = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Free(msgspec.Struct, frozen=True):
    """Free memory in bytes, and what of it lies in blocks of 2 MiB or more."""

    all_bytes: int
    whole_bytes: int


def free(path: Path = _BUDDYINFO) -> Free | None:
    """Of all zones; None where that is not told."""
    total = whole = 0
    try:
        for line in read_lines(path):
            # Node 0, zone   Normal   12   7 …: free blocks of 1, 2, 4, … pages
            blocks = [int(word) for word in line.partition("zone")[2].split()[1:]]
            sizes = [count * (_PAGE << order) for order, count in enumerate(blocks)]
            total, whole = total + sum(sizes), whole + sum(sizes[_ORDER:])
    except (OSError, ValueError):
        return None
    return Free(total, whole) if total else None


def require(path: Path = _COMPACT) -> None:
    """Raise MachineError unless this user may ask for it; changes nothing."""
    try:
        os.close(os.open(path, _FLAGS))
    except OSError as error:
        raise _refused(error, path) from None


def compact(path: Path = _COMPACT) -> None:
    """Have the kernel compact all zones; returns when it is done. Raises MachineError."""
    try:
        fd = os.open(path, _FLAGS)
        try:
            os.write(fd, b"1\n")
        finally:
            os.close(fd)
    except OSError as error:
        raise _refused(error, path) from None


def _refused(error: OSError, path: Path) -> MachineError:
    reason = cause(error, "it needs root", "this kernel cannot compact memory (CONFIG_COMPACTION)")
    return MachineError(f"cannot be used: {reason}", where=str(path))
