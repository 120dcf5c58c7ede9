"""Transparent huge pages: when the kernel makes them by itself, how much memory is in them, and who gets none unasked.

Documentation/admin-guide/mm/transhuge.rst, proc_pid_smaps(5), PR_SET_THP_DISABLE(2const). Settings of the machine are
read only.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydamon.linux.texts import read_text

_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_CHOSEN = re.compile(r"\[(\w+)\]")
_OF_PROCESS = re.compile(r"^(?:AnonHugePages|ShmemPmdMapped|FilePmdMapped): +(\d+) kB$", re.MULTILINE)
_OF_CGROUP = re.compile(r"^(?:anon|shmem|file)_thp (\d+)$", re.MULTILINE)
_OF_MACHINE = re.compile(r"^(?:AnonHugePages|ShmemHugePages|FileHugePages): +(\d+) kB$", re.MULTILINE)
_PR_SET_THP_DISABLE, _PR_GET_THP_DISABLE = 41, 42
_PR_THP_DISABLE_EXCEPT_ADVISED = 1 << 1  # Linux 6.18

_prctl = ctypes.CDLL(None, use_errno=True).prctl
_prctl.restype = ctypes.c_int
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def mode(path: Path = _ENABLED) -> str | None:
    """Where the kernel makes huge pages by itself: ``always``, ``madvise`` or ``never``; None: it has none at all."""
    try:
        found = _CHOSEN.search(read_text(path))
    except OSError:
        return None
    return None if found is None else found[1]


def of_process(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Bytes of a process that are mapped by huge pages; None where that is not told (to this user)."""
    return _sum(_OF_PROCESS, proc / str(pid) / "smaps_rollup", 1024)


def of_cgroup(directory: Path) -> int | None:
    """Bytes of a cgroup of version 2 that are in huge pages; None where that is not told."""
    return _sum(_OF_CGROUP, directory / "memory.stat", 1)


def of_machine(proc: Path = Path("/proc")) -> int | None:
    """Bytes of the machine's memory that are in huge pages; hugetlbfs is another thing."""
    return _sum(_OF_MACHINE, proc / "meminfo", 1024)


def _sum(lines: re.Pattern[str], path: Path, unit: int) -> int | None:
    try:
        found = lines.findall(read_text(path))
    except OSError:
        return None
    return sum(map(int, found)) * unit if found else None


@contextmanager
def only_advised() -> Iterator[bool]:
    """What is started meanwhile gets huge pages where it has advised so (or who else makes them), and nowhere else.

    It is kept over exec and handed on to what that starts. Yields False where the kernel cannot do it.
    """
    before = _prctl(_PR_GET_THP_DISABLE, 0, 0, 0, 0)
    able = before == 0 and _prctl(_PR_SET_THP_DISABLE, 1, _PR_THP_DISABLE_EXCEPT_ADVISED, 0, 0) == 0
    try:
        yield able
    finally:
        if able:
            _prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)


def can_be_only_advised() -> bool:
    """Whether `only_advised` would do anything; changes nothing."""
    with only_advised() as able:
        return able
