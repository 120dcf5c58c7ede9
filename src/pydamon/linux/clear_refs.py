"""Clearing the accessed bits of a whole process through ``/proc/PID/clear_refs`` (proc_pid_clear_refs(5)).

Writing 1 clears the bits in the page tables but leaves the processor's translation caches (TLB) alone: as long as an
entry stays cached there, an access does not set the bit again, so a small hot set (a few MiB) looks colder than it is.
Writing 4 (soft-dirty) flushes the TLB as a side effect. Where the kernel tracks soft-dirty (CONFIG_MEM_SOFT_DIRTY) that
would also write-protect all pages and take the bits from whoever uses them, so it is done only where it does not.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import os

_SOFT_DIRTY = 1 << 55


def clear(fd: int) -> None:
    """Clear all accessed bits of the process whose ``clear_refs`` is open as ``fd``; OSError if it has ended."""
    os.write(fd, b"1")
    if not tracks_soft_dirty():
        os.write(fd, b"4")


@functools.cache
def tracks_soft_dirty() -> bool:
    """Whether this kernel has CONFIG_MEM_SOFT_DIRTY: tried on a page of our own; True if that cannot be told."""
    with mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0] = 1
        view = ctypes.c_char.from_buffer(page)
        address = ctypes.addressof(view)
        del view  # a mapping that is looked at cannot be closed
        try:
            with open("/proc/self/pagemap", "rb", buffering=0) as file:
                entry = os.pread(file.fileno(), 8, address // mmap.PAGESIZE * 8)
        except OSError:
            return True
    return len(entry) < 8 or bool(int.from_bytes(entry, "little") & _SOFT_DIRTY)
