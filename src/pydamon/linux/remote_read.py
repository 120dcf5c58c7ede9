"""process_vm_readv: one byte of each page is read, which marks the page as used on the kernel's LRU lists.

The kernel marks a page that it looks up for such a read with the same function that DAMON's ``lru_prio`` calls
(folio_mark_accessed, through FOLL_TOUCH); the accessed bit in the page table stays as it is. Needs the right to trace
the process.
"""

from __future__ import annotations

import ctypes
import errno
import os

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.process import Process
from pydamon.linux.word_files import Addresses

_IOV_MAX = 1024
_IOVEC = np.dtype([("base", np.uint64), ("length", np.uint64)])

_libc = ctypes.CDLL(None, use_errno=True)
_readv = _libc.process_vm_readv
_readv.restype = ctypes.c_ssize_t
_readv.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)


def mark_accessed(process: Process, addresses: Addresses) -> NDArray[np.bool_]:
    """Read one byte at each address (uint64, shape (n,)); whether it could be read.

    If the process ends, the rest is False. Raises MachineError without permission.
    """
    read = np.zeros(len(addresses), np.bool_)
    buffer = np.empty(_IOV_MAX, np.uint8)
    done = 0
    while done < len(addresses):
        part = addresses[done : done + _IOV_MAX]
        local = np.array([(buffer.ctypes.data, len(part))], _IOVEC)
        remote = np.empty(len(part), _IOVEC)
        remote["base"], remote["length"] = part, 1
        # The call takes a pid: it means this process as long as that has not ended.
        if not process.alive():
            break
        got = _readv(process.pid, local.ctypes.data, 1, remote.ctypes.data, len(part), 0)
        if got < 0:
            number = ctypes.get_errno()
            if number == errno.ESRCH or not process.alive():
                break
            if number in (errno.EPERM, errno.ENOSYS):
                raise MachineError(_refusal(process.pid), where="process_vm_readv")
            got = 0
        read[done : done + got] = True
        done += got + (got < len(part))  # it stops at the first that cannot be read: go on after that
    return read


def require(process: Process) -> None:
    """Raise MachineError if this user may not read that process's memory; changes nothing."""
    try:
        os.close(os.open(f"/proc/{process.pid}/mem", os.O_RDONLY | os.O_CLOEXEC))  # asks for the same right
    except OSError:
        if process.alive():
            raise MachineError(_refusal(process.pid), where="process_vm_readv") from None


def _refusal(pid: int) -> str:
    return f"no permission to read memory of process {pid}; run as root (CAP_SYS_PTRACE), or as its owner"
