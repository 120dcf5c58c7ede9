"""cachestat: how many pages of a mapped file are in the page cache (Linux 6.5), for another process's mapping.

The file is opened through /proc/PID/map_files, which root may do (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE): also a
file that was deleted, and shared memory without a name.
"""

from __future__ import annotations

import ctypes
import os
import stat

from pydamon.linux.process import Mapping

_SYS_CACHESTAT = 451
_PAGE = 4096

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint)


class MappedFile:
    """The file behind one mapping of a process; nothing is known about one that is not a regular file."""

    def __init__(self, pid: int, mapping: Mapping) -> None:
        self._mapping = mapping
        self._fd = -1
        if mapping.inode:
            name = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
            try:
                if stat.S_ISREG(os.stat(name).st_mode):  # opening a device may do something
                    self._fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError:
                self._fd = -1

    def cached(self, start: int, end: int) -> int | None:
        """Bytes of [start, end), addresses in the mapping, that the page cache holds; None if that is not told."""
        if self._fd < 0:
            return None
        wanted = (ctypes.c_uint64 * 2)(start - self._mapping.start + self._mapping.offset, end - start)
        found = (ctypes.c_uint64 * 5)()  # nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted
        if _syscall(_SYS_CACHESTAT, self._fd, wanted, found, 0):
            return None
        return min(int(found[0]) * _PAGE, end - start)

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
