"""PAGEMAP_SCAN: which parts of a process's address space are in memory, by one system call (Linux 6.7).

``ioctl(pagemap, PAGEMAP_SCAN, struct pm_scan_arg)``; include/uapi/linux/fs.h and the kernel's
Documentation/admin-guide/mm/pagemap.rst. It skips what is not mapped without looking at each page, so terabytes of
reserved addresses cost nothing. It is only asked here, nothing is written or protected.
"""

from __future__ import annotations

import fcntl
import functools
import struct
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

_PAGEMAP_SCAN = 3 << 30 | 96 << 16 | ord("f") << 8 | 16  # _IOWR('f', 16, struct pm_scan_arg)
_PRESENT, _ZERO_PAGE = 1 << 3, 1 << 5
_ARGUMENT = struct.Struct("=12Q")  # size flags start end walk_end vec vec_len max_pages inverted mask anyof return
_WALK_END_AT = 4
_REGION_WORDS = 3  # start, end, categories
_REGIONS = 4096
_USER_END = (1 << 47) - 4096
_USER_END_OF_FIVE_LEVELS = (1 << 56) - 4096  # for those who ask for such addresses

Look = Callable[[int, int], tuple[NDArray[np.uint64], int]]  # what a call found in a range, and where it stopped


def resident_ranges(pagemap_fd: int) -> NDArray[np.uint64]:
    """Ranges of pages in memory, without zero pages: shape (n, 2), bytes, sorted.

    OSError if the kernel does not know the call (ENOTTY) or the process has ended (ESRCH).
    """
    return in_parts(lambda start, end: resident_part(pagemap_fd, start, end), 0, _user_end())


def in_parts(look: Look, start: int, end: int) -> NDArray[np.uint64]:
    """All of [start, end), however often ``look`` has to go on: what it found, start and end, (n, 2)."""
    found: list[NDArray[np.uint64]] = []
    while start < end:
        runs, walked = look(start, end)
        found.append(runs[:, :2])
        if walked <= start:
            break
        start = walked
    return np.concatenate(found) if found else np.empty((0, 2), np.uint64)


@functools.cache
def _user_end() -> int:
    """Where the addresses of processes end at most on this machine: the kernel refuses ranges beyond."""
    with open("/proc/self/pagemap", "rb") as pagemap:
        try:
            resident_part(pagemap.fileno(), _USER_END, _USER_END_OF_FIVE_LEVELS)
        except OSError:
            return _USER_END
    return _USER_END_OF_FIVE_LEVELS


def resident_part(pagemap_fd: int, start: int, end: int) -> tuple[NDArray[np.uint64], int]:
    """One call of `resident_ranges`, for [start, end): what it found (n, 2), and up to where the kernel has looked.

    That is ``end``, or before it when there are very many ranges.
    """
    regions = np.empty(_REGIONS * _REGION_WORDS, np.uint64)
    vector = regions.ctypes.data
    anyof = _PRESENT | _ZERO_PAGE  # of the inverted second: present, and no zero page
    argument = bytearray(
        _ARGUMENT.pack(_ARGUMENT.size, 0, start, end, 0, vector, _REGIONS, 0, _ZERO_PAGE, anyof, 0, _PRESENT)
    )
    count = fcntl.ioctl(pagemap_fd, _PAGEMAP_SCAN, argument)
    # The kernel collects 512 ranges at a time, and where it stopped for that is what it says in the end (seen on 6.18).
    walked: int = end if count < _REGIONS else _ARGUMENT.unpack(argument)[_WALK_END_AT]
    return regions[: count * _REGION_WORDS].reshape(-1, _REGION_WORDS)[:, :2].copy(), walked


# Categories of a page in what `populated` returns (PAGE_IS_ in include/uapi/linux/fs.h).
FILE, PRESENT, SWAPPED, ZERO_PAGE, HUGE = 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 6


def populated(pagemap_fd: int, start: int, end: int, most: int) -> tuple[NDArray[np.uint64], int]:
    """Ranges in [start, end) (page-aligned bytes) of pages of one kind each that are in memory or in swap.

    Result: (n, 3) uint64, start, end and categories (FILE, PRESENT, SWAPPED, ZERO_PAGE, HUGE), sorted; and where the
    kernel stopped: ``end``, or before it when there are ``most`` pages or very many ranges. OSError as above.
    """
    regions = np.empty(_REGIONS * _REGION_WORDS, np.uint64)
    wanted = PRESENT | SWAPPED
    told = FILE | PRESENT | SWAPPED | ZERO_PAGE | HUGE
    vector = regions.ctypes.data
    argument = bytearray(_ARGUMENT.pack(_ARGUMENT.size, 0, start, end, 0, vector, _REGIONS, most, 0, 0, wanted, told))
    count = fcntl.ioctl(pagemap_fd, _PAGEMAP_SCAN, argument)
    found = regions[: count * _REGION_WORDS].reshape(-1, _REGION_WORDS).copy()
    all_seen = count < _REGIONS and int((found[:, 1] - found[:, 0]).sum()) >> 12 < most  # see `resident_part`
    walked: int = end if all_seen else _ARGUMENT.unpack(argument)[_WALK_END_AT]
    return found, walked


ACCESSED = 1 << 9  # of memory that a userfaultfd protects against any access (Linux 7.3)


def accessed(pagemap_fd: int, start: int, end: int) -> NDArray[np.uint64]:
    """Ranges in [start, end) (page-aligned bytes) of pages that were accessed since they were protected, or came later.

    Result: (n, 2) uint64, sorted. For memory under `userfaultfd.ReadWriteProtection`. OSError (EINVAL) if the kernel
    does not know the category.
    """
    return in_parts(lambda start, end: _accessed_part(pagemap_fd, start, end), start, end)


def _accessed_part(pagemap_fd: int, start: int, end: int) -> tuple[NDArray[np.uint64], int]:
    regions = np.empty(_REGIONS * _REGION_WORDS, np.uint64)
    vector = regions.ctypes.data
    argument = bytearray(
        _ARGUMENT.pack(_ARGUMENT.size, 0, start, end, 0, vector, _REGIONS, 0, 0, ACCESSED, 0, ACCESSED)
    )
    count = fcntl.ioctl(pagemap_fd, _PAGEMAP_SCAN, argument)
    walked: int = end if count < _REGIONS else _ARGUMENT.unpack(argument)[_WALK_END_AT]
    return regions[: count * _REGION_WORDS].reshape(-1, _REGION_WORDS)[:, :2].copy(), walked
