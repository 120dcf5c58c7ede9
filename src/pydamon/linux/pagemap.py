"""``/proc/PID/pagemap``: where each page of a process is, and whether it was written since soft-dirty was cleared.

One 64-bit entry per page; format: the kernel's Documentation/admin-guide/mm/pagemap.rst. Frame numbers are shown to
root (CAP_SYS_ADMIN) only, others see 0. A read costs 0.4 µs from Python, so neighbouring pages share one.
"""

from __future__ import annotations

import ctypes
import mmap
import os

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.causes import cause
from pydamon.linux.frames import Flags, Frames
from pydamon.linux.word_files import Addresses, span, words_at

PagemapEntries = NDArray[np.uint64]

_PAGE_SHIFT = np.uint64(12)
_FRAME = np.uint64((1 << 55) - 1)
_SOFT_DIRTY, _FILE, _SWAPPED, _PRESENT = (np.uint64(1 << bit) for bit in (55, 61, 62, 63))
_SHIFT = 12
_NEAR = 8  # pages; reading this many entries in vain costs less than another call


class Pagemap:
    """One process's pagemap. Raises MachineError if this user may not open it.

    ``path`` names another file, relative to the open directory ``dir_fd`` if that is given. The file stays with the
    address space that the process had when it was opened: after an exec it tells nothing any more.
    """

    def __init__(self, pid: int | str, *, path: str | None = None, dir_fd: int | None = None) -> None:
        self.path = path if path is not None else f"/proc/{pid}/pagemap"
        self._fd = -1
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
        except (FileNotFoundError, ProcessLookupError):
            reason = "the process has ended" if os.path.exists("/proc/self/pagemap") else "it needs a kernel with /proc"
            raise MachineError(f"does not exist; {reason}", where=self.path) from None
        except OSError as error:
            raise MachineError(
                f"cannot be opened: {cause(error, 'run as its owner or as root')}", where=self.path
            ) from None

    def entries(self, addresses: Addresses) -> tuple[PagemapEntries, Flags]:
        """The entry of the page of each address (bytes; uint64, shape (n,)), and whether it could be read."""
        return words_at(self._fd, addresses >> _PAGE_SHIFT, _NEAR)

    def span(self, start: int, end: int) -> PagemapEntries:
        """The entries of all pages in [start, end), page-aligned bytes; fewer if the process does not tell them all."""
        first, count = start >> _SHIFT, (end - start) >> _SHIFT
        return np.frombuffer(span(self._fd, first, count), np.uint64)

    def fileno(self) -> int:
        """The open file, for PAGEMAP_SCAN."""
        return self._fd

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def frames_of(entries: PagemapEntries) -> Frames:
    """The page frame number in each entry; 0 if the page is not present or the user may not see it. Shape (n,)."""
    frames: Frames = np.where(is_present(entries), entries & _FRAME, np.uint64(0))
    return frames


def is_present(entries: PagemapEntries) -> Flags:
    """Whether each page is in memory and mapped."""
    present: Flags = (entries & _PRESENT) != 0
    return present


def is_swapped(entries: PagemapEntries) -> Flags:
    """Whether each page is in swap (or just being moved from one frame to another)."""
    swapped: Flags = (entries & _SWAPPED) != 0
    return swapped


def is_file(entries: PagemapEntries) -> Flags:
    """Whether each page is of a file or of shared memory."""
    of_file: Flags = (entries & _FILE) != 0
    return of_file


def is_soft_dirty(entries: PagemapEntries) -> Flags:
    """Whether each page was written since soft-dirty was cleared; also set for all of a new mapping, even its holes."""
    dirty: Flags = (entries & _SOFT_DIRTY) != 0
    return dirty


def probe() -> None:
    """Raise MachineError with the reason if this user does not see frame numbers; changes nothing."""
    with mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as page:
        page[0] = 1
        view = ctypes.c_char.from_buffer(page)
        address = ctypes.addressof(view)
        del view  # a mapping that is looked at cannot be closed
        pagemap = Pagemap("self")
        try:
            entries, known = pagemap.entries(np.array([address], np.uint64))
        finally:
            pagemap.close()
    if not known[0]:
        raise MachineError("cannot be read; it needs a kernel with CONFIG_PROC_PAGE_MONITOR", where="/proc/PID/pagemap")
    if not frames_of(entries)[0]:
        raise MachineError("shows no frame numbers; run as root (CAP_SYS_ADMIN)", where="/proc/PID/pagemap")
