"""process_madvise: advice about the memory of another process, in batches of ranges.

process_madvise(2); include/uapi/asm-generic/mman-common.h for the numbers. Needs CAP_SYS_NICE and the right to look at
the process (ptrace). The kernel lets another process be advised with COLD, PAGEOUT, WILLNEED and COLLAPSE only.
"""

from __future__ import annotations

import ctypes
import errno
import os

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.process import Process

MADV_WILLNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 3, 14, 15
MADV_COLD, MADV_PAGEOUT, MADV_COLLAPSE = 20, 21, 25

Ranges = NDArray[np.uint64]
Flags = NDArray[np.bool_]

_SYS_PROCESS_MADVISE = 440
_IOV_MAX = 1024
_MAX_BYTES = 0x7FFF_F000  # MAX_RW_COUNT: the kernel silently cuts off what is beyond
_MAX_RANGE = 1 << 30
_MAX_INTERRUPTIONS = 100
_IOVEC = np.dtype([("base", np.uint64), ("length", np.uint64)])
_NEEDS = "it needs CAP_SYS_NICE and CAP_SYS_PTRACE (root)"

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_int, ctypes.c_uint)
_madvise = _libc.madvise
_madvise.restype = ctypes.c_int
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def advise(
    process: Process,
    ranges: Ranges,
    advice: int,
    mapping: NDArray[np.intp] | None = None,
    *,
    errors: NDArray[np.int32] | None = None,
) -> Flags:
    """Give ``advice`` on each of the ranges, (n, 2) page-aligned bytes; which the kernel has accepted, shape (n,).

    A range that is refused is left out. ``mapping`` tells which mapping each range is in: where the kernel refuses one
    range for what its mapping is (locked, hugetlb, device memory), the mapping's others are not tried. Returns what was
    accepted so far if the process ends meanwhile or may no longer be looked at. Raises MachineError without permission.
    ``errors``, shape (n,), gets the number of the error of each that was refused.
    """
    errors = np.zeros(len(ranges), np.int32) if errors is None else errors
    accepted = np.zeros(len(ranges), np.bool_)
    if process.pid == os.getpid():
        for at, (start, end) in enumerate(ranges.tolist()):
            accepted[at] = _madvise(start, end - start, advice) == 0
            if not accepted[at]:
                errors[at] = ctypes.get_errno()
        return accepted
    pieces, owner = _pieces(ranges)
    refused = np.zeros(len(ranges), np.bool_)
    lengths = pieces[:, 1] - pieces[:, 0]
    todo = np.arange(len(pieces))
    interruptions = 0
    while len(todo):
        part = todo[:_IOV_MAX]
        total = np.cumsum(lengths[part])
        part = part[: max(int(np.searchsorted(total, np.uint64(_MAX_BYTES), "right")), 1)]
        advised, number = _call(process.pidfd, pieces[part, 0], lengths[part], advice)
        if advised > 0:
            # Whole ranges are counted: the first ones, up to the one that was refused.
            whole = int(np.searchsorted(total[: len(part)], np.uint64(advised), "right"))
            if not whole:  # not even one, and it would be the same again
                refused[owner[todo[0]]] = True
            todo = todo[max(whole, 1) :]
            continue
        if number == errno.EINTR and interruptions < _MAX_INTERRUPTIONS:
            interruptions += 1
            continue
        first = owner[todo[0]]
        if number in (errno.ESRCH, errno.EACCES) or not process.alive():
            refused[owner[todo]] = True
            break
        if number in (errno.EPERM, errno.ENOSYS):
            raise MachineError(_refusal(number, process.pid), where="process_madvise")
        refused[first] = True
        errors[first] = number
        if number == errno.EINVAL and mapping is not None:
            same = np.flatnonzero(mapping[owner[todo]] == mapping[first])
            refused[owner[todo[same]]] = True
            todo = np.delete(todo, same)
        else:
            todo = todo[1:]
    return ~refused


def require(process: Process, advice: int) -> None:
    """Raise MachineError if this user may not give this advice to that process; changes nothing.

    A call without ranges is checked like any other.
    """
    if process.pid == os.getpid():
        return
    done, number = _call(process.pidfd, np.empty(0, np.uint64), np.empty(0, np.uint64), advice)
    if done < 0 and number != errno.ESRCH:
        raise MachineError(_refusal(number, process.pid), where="process_madvise")


def _refusal(number: int, pid: int) -> str:
    if number == errno.ENOSYS:
        return "this kernel has no such call; it needs Linux 5.10 with CONFIG_ADVISE_SYSCALLS"
    if number == errno.EINVAL:
        return f"this kernel does not take this advice for another process (here {pid})"
    return f"no permission to advise process {pid} ({os.strerror(number)}); {_NEEDS}"


def _call(pidfd: int, starts: NDArray[np.uint64], lengths: NDArray[np.uint64], advice: int) -> tuple[int, int]:
    vectors = np.empty(len(starts), _IOVEC)
    vectors["base"], vectors["length"] = starts, lengths
    done: int = _syscall(_SYS_PROCESS_MADVISE, pidfd, vectors.ctypes.data, len(vectors), advice, 0)
    return done, ctypes.get_errno() if done <= 0 else 0


def _pieces(ranges: Ranges) -> tuple[Ranges, NDArray[np.intp]]:
    """The ranges cut into pieces that one call can take; and for each piece the index of its range."""
    size = ranges[:, 1] - ranges[:, 0]
    count = -(-size.astype(np.int64) // _MAX_RANGE)
    owner = np.repeat(np.arange(len(ranges)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    start = ranges[owner, 0] + offset.astype(np.uint64) * np.uint64(_MAX_RANGE)
    return np.stack([start, np.minimum(start + np.uint64(_MAX_RANGE), ranges[owner, 1])], axis=1), owner
