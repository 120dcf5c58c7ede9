"""Page frames: /proc/kpageflags and /proc/kpagecount, which only root may read (CAP_SYS_ADMIN).

Format: the kernel's Documentation/admin-guide/mm/pagemap.rst.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint64]  # page frame numbers
Flags = NDArray[np.bool_]

# Bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h).
_LRU, _MMAP, _HEAD, _TAIL = (np.uint64(1 << bit) for bit in (5, 11, 15, 16))
_HUGETLB, _NO_PAGE, _ZERO_PAGE = (np.uint64(1 << bit) for bit in (17, 20, 24))
_NOTHING = bytes(8)
_MAX_ORDER = 9  # 2 MiB: no larger folio is mapped by a page table
_ALL_FRAMES = 64


class FrameInfo:
    """What the kernel says of page frames. Where it says nothing (no permission, no memory there) every flag is off."""

    def __init__(self) -> None:
        self._flags_fd = self._count_fd = -1
        try:
            self._flags_fd = os.open("/proc/kpageflags", os.O_RDONLY | os.O_CLOEXEC)
            self._count_fd = os.open("/proc/kpagecount", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()

    def flags(self, frames: Frames) -> NDArray[np.uint64]:
        """The flags of each frame; shape (n,). About 1 µs a frame: scattered frames need a read each."""
        fd, pread = self._flags_fd, os.pread
        if fd < 0:
            return np.zeros(len(frames), np.uint64)
        return np.frombuffer(b"".join([pread(fd, 8, 8 * n) or _NOTHING for n in frames.tolist()]), np.uint64)

    def folio(self, frame: int) -> tuple[int, int]:
        """First frame and number of frames of the folio that ``frame`` is part of: (frame, 1) if it is a small one.

        A folio's size is a power of two and it begins at a multiple of it: a few reads of one frame each find both.
        """
        starts = (frame & -(1 << order) for order in range(_MAX_ORDER + 1))
        head = next((start for start in starts if self._has(start, _HEAD)), None)
        if head is None:
            return frame, 1
        for order in range(1, _MAX_ORDER):
            if not self._has(head + (1 << order), _TAIL):
                return head, 1 << order
        return head, 1 << _MAX_ORDER

    def mapped_once(self, frame: int, count: int) -> bool:
        """Whether each of ``count`` frames from ``frame`` is mapped exactly once, by all processes together.

        Of many frames only eight are looked at: reading all 512 of a huge page takes 100 µs.
        """
        if self._count_fd < 0:
            return False
        if count <= _ALL_FRAMES:
            read = os.pread(self._count_fd, 8 * count, 8 * frame)
        else:
            read = b"".join(os.pread(self._count_fd, 8, 8 * at) for at in range(frame, frame + count, count // 8))
        counts = np.frombuffer(read, np.uint64)
        return len(counts) > 0 and bool((counts == 1).all())

    def _has(self, frame: int, flag: np.uint64) -> bool:
        if self._flags_fd < 0:
            return False
        return bool(int.from_bytes(os.pread(self._flags_fd, 8, 8 * frame), "little") & int(flag))

    def close(self) -> None:
        """Release the file descriptors."""
        for fd in (self._flags_fd, self._count_fd):
            if fd >= 0:
                os.close(fd)
        self._flags_fd = self._count_fd = -1


def is_large(flags: NDArray[np.uint64]) -> Flags:
    """Whether a frame is part of a folio of several pages."""
    large: Flags = (flags & (_HEAD | _TAIL)) != 0
    return large


def on_lru(flags: NDArray[np.uint64]) -> Flags:
    """Whether a frame is on a list of pages to reclaim; a page that was faulted in just now may not be yet."""
    listed: Flags = (flags & _LRU) != 0
    return listed


def is_ordinary(flags: NDArray[np.uint64]) -> Flags:
    """Whether a frame is mapped memory as the kernel manages it: no hugetlb, device or zero page."""
    ordinary: Flags = ((flags & _MMAP) != 0) & ((flags & (_HUGETLB | _NO_PAGE | _ZERO_PAGE)) == 0)
    return ordinary
