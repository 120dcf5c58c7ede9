"""/proc/kpageflags and /proc/kpagecgroup for many page frames at once, and the folios that frames are parts of.

Format: the kernel's Documentation/admin-guide/mm/pagemap.rst; root only (CAP_SYS_ADMIN). `frames` reads single ones.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.causes import cause
from pydamon.linux.frames import Frames
from pydamon.linux.word_files import words_at

FLAGS = "/proc/kpageflags"
CGROUPS = "/proc/kpagecgroup"

# Bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h).
LRU, ACTIVE, MMAP, ANON = (np.uint64(1 << bit) for bit in (5, 6, 11, 12))
_HEAD, _TAIL = np.uint64(1 << 15), np.uint64(1 << 16)

_MAX_ORDER = 18  # 1 GiB, the largest hugetlb page
_NEAR = 64  # frames: reading them in vain costs less than another call


class FrameFile:
    """One of these files: a 64-bit word per page frame. Raises MachineError if it cannot be opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            config = "CONFIG_PROC_PAGE_MONITOR" + (" and CONFIG_MEMCG" if path == CGROUPS else "")
            raise MachineError(f"does not exist; it needs a kernel with {config}", where=path) from None
        except OSError as error:
            raise MachineError(f"cannot be opened: {cause(error, 'run as root')}", where=path) from None

    def read(self, frames: Frames) -> NDArray[np.uint64]:
        """The word of each frame, shape (n,); 0 for a frame that does not exist. Neighbours share a read."""
        return words_at(self._fd, frames, _NEAR)[0]

    def read_known(self, frames: Frames) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """The same, and which frames exist; shape (n,) each."""
        return words_at(self._fd, frames, _NEAR)

    def close(self) -> None:
        """Release the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def folio_heads(file: FrameFile, frames: Frames, flags: NDArray[np.uint64]) -> tuple[Frames, NDArray[np.uint64]]:
    """The first frame of the folio that each frame is part of, and that one's flags; shape (n,).

    ``flags`` are the frames' own. A folio's size is a power of two and it begins at a multiple of it: rounding down
    step by step, the first head that is met is its own.
    """
    heads, head_flags = frames.copy(), flags.copy()
    left = np.flatnonzero((flags & _TAIL) != 0)
    for order in range(1, _MAX_ORDER + 1):
        if not len(left):
            break
        start = frames[left] & ~np.uint64((1 << order) - 1)
        looked = file.read(start)
        found = (looked & _HEAD) != 0
        heads[left[found]], head_flags[left[found]] = start[found], looked[found]
        left = left[~found]
    return heads, head_flags


def folio_bytes(file: FrameFile, heads: Frames, head_flags: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The size in bytes of the folio of each first frame, 4096 for a single page; shape (n,)."""
    orders = np.zeros(len(heads), np.uint64)
    left = np.flatnonzero((head_flags & _HEAD) != 0)
    orders[left] = 1
    for order in range(1, _MAX_ORDER):
        if not len(left):
            break
        behind = file.read(heads[left] + np.uint64(1 << order))
        left = left[(behind & _TAIL) != 0]
        orders[left] = order + 1
    return np.uint64(4096) << orders
