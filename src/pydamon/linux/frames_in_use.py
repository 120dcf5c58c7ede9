"""Which page frames of the machine are in use, looked through in steps at a bounded share of the time.

/proc/kpageflags says of each frame whether it is free (in the buddy allocator), offline, or no page at all. One without
any flag counts as free, too: seen on Linux 6.18, most of a free block has none, and what a driver has allocated without
further ado, which looks the same, cannot be watched for accesses anyway. Everything else is in use: of processes, the
page cache, the kernel. Root only (CAP_SYS_ADMIN). One bit is kept per frame.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.page_flags import FLAGS, FrameFile
from pydamon.linux.resident_scan import STEP_NS, UNKNOWN

U64 = NDArray[np.uint64]

# Bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h): free, no page, logically offline.
_UNUSED = np.uint64(1 << 10 | 1 << 20 | 1 << 23)
_SHARE = 500  # a step is made again after that many times what the last one took
_FIRST_SHARE = 10  # until all was looked at once
_PAGE_SHIFT, _BLOCK_SHIFT = np.uint64(12), np.uint64(21)
_BLOCK = 1 << 21  # bytes of memory whose frames are counted together
_FRAMES = _BLOCK >> 12
_READ = 32  # blocks at once
_ONES = np.array([bin(byte).count("1") for byte in range(256)], np.uint16)


class FramesInUse:
    """How much of any range of physical memory is in use, as far as the steps have come.

    ``obstacle`` says why nothing can be known; None as long as it can. ``spent_ns`` is the time that looking took.
    """

    def __init__(self, path: str = FLAGS) -> None:
        self.obstacle: str | None = None
        self.spent_ns = 0
        self._path = path
        self._ranges: U64 = np.empty((0, 2), np.uint64)
        self._due_ns = 0
        self._forget(self._ranges)

    def follow(self, ranges: U64) -> None:
        """There is memory at these ``ranges`` now: shape (n, 2), bytes, sorted. Others than before begin anew."""
        if not np.array_equal(ranges, self._ranges):
            self._ranges = ranges
            self._forget(ranges)

    def _forget(self, ranges: U64) -> None:
        blocks = np.stack(
            [ranges[:, 0] >> _BLOCK_SHIFT, (ranges[:, 1] + np.uint64(_BLOCK - 1)) >> _BLOCK_SHIFT], axis=1
        )
        numbers = [np.arange(low, high, dtype=np.uint64) for low, high in blocks]
        self._numbers: U64 = np.unique(np.concatenate([np.empty(0, np.uint64), *numbers]))
        self._bits = np.zeros((len(self._numbers), _FRAMES // 8), np.uint8)
        self._used = np.zeros(len(self._numbers) + 1, np.uint64)  # frames in use before each block, and in all
        self._unseen = np.arange(len(self._numbers) + 1)  # blocks before each, and of all, that were not looked at
        self._seen = np.zeros(len(self._numbers), np.bool_)
        self._cursor = 0

    def step(self, *, now_ns: int | None = None) -> None:
        """Look on, for about `STEP_NS` at the longest, unless the last step was just now. Never raises."""
        began_ns = time.perf_counter_ns()
        if now_ns is None:
            now_ns = began_ns
        if now_ns < self._due_ns or self.obstacle is not None or not len(self._numbers):
            return
        try:
            file = FrameFile(self._path)
        except MachineError as error:
            self.obstacle = str(error)
            return
        try:
            self._look(file, began_ns)
        except OSError as error:
            self.obstacle = f"{self._path}: {error.strerror}"
        finally:
            file.close()
        ones = _ONES[self._bits].sum(axis=1, dtype=np.uint64) if len(self._bits) else np.empty(0, np.uint64)
        np.cumsum(ones, out=self._used[1:])
        np.cumsum(~self._seen, out=self._unseen[1:])
        spent_ns = time.perf_counter_ns() - began_ns
        self.spent_ns += spent_ns
        self._due_ns = now_ns + (_FIRST_SHARE if self._unseen[-1] else _SHARE) * spent_ns

    def _look(self, file: FrameFile, began_ns: int) -> None:
        """Ahead from the cursor, until the time is over or the end is reached."""
        while True:
            numbers = self._numbers[self._cursor : self._cursor + _READ]
            frames: U64 = np.add.outer(numbers * np.uint64(_FRAMES), np.arange(_FRAMES, dtype=np.uint64)).ravel()
            words, known = file.read_known(frames)
            used = known & (words != 0) & (words & _UNUSED == 0)
            behind = self._cursor + len(numbers)
            self._bits[self._cursor : behind] = np.packbits(used.reshape(len(numbers), _FRAMES), axis=1)
            self._seen[self._cursor : behind] = True
            self._cursor = behind
            if behind == len(self._numbers):
                self._cursor = 0
            if not self._cursor or time.perf_counter_ns() - began_ns >= STEP_NS:
                return

    def resident_bytes(self, start: U64, end: U64) -> U64 | None:
        """The bytes in use of each range [start, end) of memory, shape (n,); None if nothing can be known.

        Of a range that was not looked at as a whole yet it is the largest number that there is.
        """
        if self.obstacle is not None:
            return None
        found: U64 = (self._below(end) - self._below(start)) << _PAGE_SHIFT
        first = np.searchsorted(self._numbers, start >> _BLOCK_SHIFT)
        behind = np.searchsorted(self._numbers, (end + np.uint64(_BLOCK - 1)) >> _BLOCK_SHIFT)
        found[self._unseen[behind] > self._unseen[first]] = UNKNOWN
        return found

    def _below(self, address: U64) -> U64:
        """How many frames in use lie below each address."""
        block = address >> _BLOCK_SHIFT
        place = np.searchsorted(self._numbers, block)
        found = self._used[place]
        inside = np.flatnonzero(place < len(self._numbers))
        inside = inside[self._numbers[place[inside]] == block[inside]]
        frame = (address[inside] >> _PAGE_SHIFT) & np.uint64(_FRAMES - 1)
        bits = np.unpackbits(self._bits[place[inside]], axis=1)
        found[inside] += (bits * (np.arange(_FRAMES, dtype=np.uint64) < frame[:, None])).sum(axis=1, dtype=np.uint64)
        return found
