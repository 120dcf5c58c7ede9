"""Idle page tracking: one bit per page frame in ``/sys/kernel/mm/page_idle/bitmap``.

Setting a frame's bit clears the accessed bits of all its mappings; the bit reads as set for as long as none of them was
used. Needs root and CONFIG_IDLE_PAGE_TRACKING. Format: the kernel's Documentation/admin-guide/mm/idle_page_tracking.rst
and mm/page_idle.c.

What it cannot tell: only frames on an LRU list have a bit (no hugetlb, device or kernel memory, nothing that was
faulted in moments ago). A large folio has one bit, that of its head frame, so one access makes all of it look accessed.
As in the kernel's DAMON, the processor's cached translations are not dropped: accesses to a page go unseen as long as
its translation stays cached.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import pagemap
from pydamon.linux.causes import cause
from pydamon.linux.frames import Flags, FrameInfo, Frames, on_lru

BITMAP = "/sys/kernel/mm/page_idle/bitmap"

_WORD, _IN_BYTES = 8, np.uint64(3)  # bytes; the file takes whole words only
_WORD_SHIFT, _WORD_BITS = np.uint64(6), np.uint64(63)
_ONE = np.uint64(1)
_TAIL, _HEAD = np.uint64(1 << 16), np.uint64(1 << 15)  # of /proc/kpageflags
_CHUNK = np.uint64(512)  # words: sysfs takes no more in one call
_FEW = 64  # frames: a call for each takes less than looking for neighbours
_NO_GAP, _GAP = 1, 8  # distance of words that share a call: reading visits 64 frames a word, writing only marked ones
_MAX_ORDER = 9  # 2 MiB: the largest folio on an LRU list that a process maps
_PROBE_PAGES = 128  # more than a processor's batch of pages that are not on an LRU list yet

# What `FrameWatch.mark` says of a frame.
UNMARKABLE = 0  # the bitmap refused, or knows no such frame: nothing is known
UNLISTED = 1  # free, or not on an LRU list: it has no bit
MARKED = 2

# What a look at the struct page of a frame's folio says.
LISTED = 1  # on an LRU list: it has an idle bit
IDLE = 2  # marked as idle, and not seen accessed since: the page tables are not asked
OWN = 4  # a small page of anonymous memory, mapped once: its only page-table entry says all there is to say...
YOUNG = 8  # ...and shows an access


class IdleBitmap:
    """The bitmap, read and written for many frames at once. Raises MachineError if it cannot be opened.

    A refusal later on (EIO, EPERM, …) is no exception: what it concerns is unknown, ``refused`` counts the calls, and
    ``trouble`` says it in a line, once.
    """

    def __init__(self, path: str = BITMAP) -> None:
        self.path = path
        self.calls = 0
        self.refused = 0
        self.trouble: str | None = None
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise MachineError(
                "does not exist; it needs a kernel with CONFIG_IDLE_PAGE_TRACKING and a mounted /sys", where=path
            ) from None
        except OSError as error:
            raise MachineError(
                f"cannot be opened: {cause(error, 'run as root, outside of containers that protect /sys')}", where=path
            ) from None

    def read(self, frames: Frames) -> tuple[Flags, Flags]:
        """Whether each frame's bit is set, and whether that could be read; shape (n,) each.

        The kernel looks at the page tables for each bit that is set in the words it reads, so only words that hold one
        of ``frames`` are read; neighbouring ones in one call (up to 512). There are never more calls than frames.
        """
        if len(frames) <= _FEW and (single := self._read_each(frames)) is not None:
            return (single >> (frames & _WORD_BITS) & _ONE).view(np.int64) != 0, np.ones(len(frames), np.bool_)
        words, inverse = np.unique(frames >> _WORD_SHIFT, return_inverse=True)
        values, known = np.zeros(len(words), np.uint64), np.zeros(len(words), np.bool_)
        begins, ends = _runs(words, _NO_GAP)
        runs = list(zip(begins.tolist(), ends.tolist(), (words[begins] << _IN_BYTES).tolist(), strict=True))
        chunks = self._read_all(runs)
        self.calls += len(runs)
        data = b"".join(chunks)
        if len(data) == len(words) * _WORD:
            values, known = np.frombuffer(data, np.uint64), np.ones(len(words), np.bool_)
        else:
            for (begin, _, _), got in zip(runs, chunks, strict=True):
                count = len(got) // _WORD  # fewer at the end of memory
                values[begin : begin + count] = np.frombuffer(got, np.uint64, count)
                known[begin : begin + count] = True
        idle: Flags = (values[inverse] >> (frames & _WORD_BITS) & _ONE).astype(np.bool_)
        return idle, known[inverse]

    def _read_each(self, frames: Frames) -> NDArray[np.uint64] | None:
        """The word of each frame; None if one cannot be read."""
        fd, pread = self._fd, os.pread
        try:
            data = b"".join([pread(fd, _WORD, offset) for offset in (frames >> _WORD_SHIFT << _IN_BYTES).tolist()])
        except (OSError, OverflowError):
            return None
        self.calls += len(frames)
        return np.frombuffer(data, np.uint64) if len(data) == _WORD * len(frames) else None

    def _read_all(self, runs: list[tuple[int, int, int]]) -> list[bytes]:
        fd, pread = self._fd, os.pread
        try:
            return [pread(fd, (end - begin) * _WORD, offset) for begin, end, offset in runs]
        except (OSError, OverflowError):  # one by one, to find out which
            return [self._read_one((end - begin) * _WORD, offset) for begin, end, offset in runs]

    def _read_one(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except (OSError, OverflowError) as error:
            self._refuse("reading", error)
            return b""

    def mark(self, frames: Frames) -> Flags:
        """Set the bits of ``frames``, and no others. Returns which the kernel took; shape (n,).

        Words that are near each other share a call (a 0 in what is written leaves its bit alone); there are never more
        calls than frames.
        """
        if len(frames) <= _FEW:
            offsets, data = (frames >> _WORD_SHIFT << _IN_BYTES).tolist(), (_ONE << (frames & _WORD_BITS)).tobytes()
            starts = range(0, len(data), _WORD)
            self.calls += len(frames)
            done: Flags = np.array(self._write_all(data, starts, [_WORD] * len(frames), offsets), np.intp) == _WORD
            return done
        words, inverse = np.unique(frames >> _WORD_SHIFT, return_inverse=True)
        begins, ends = _runs(words, _GAP)
        sizes = (words[ends - 1] - words[begins]).astype(np.intp) + 1
        first = np.cumsum(sizes) - sizes  # of each run, in what is written
        run = np.repeat(np.arange(len(begins)), ends - begins)
        at = first[run] + (words - words[begins][run]).astype(np.intp)
        values = np.zeros(int(sizes.sum()), np.uint64)
        np.bitwise_or.at(values, at[inverse], _ONE << (frames & _WORD_BITS))
        offsets = (words[begins] << _IN_BYTES).tolist()
        counts = self._write_all(values.tobytes(), (first * _WORD).tolist(), (sizes * _WORD).tolist(), offsets)
        self.calls += len(begins)
        taken: Flags = at < (first + np.array(counts, np.intp) // _WORD)[run]
        return taken[inverse]

    def _write_all(self, data: bytes, begins: Sequence[int], sizes: list[int], offsets: list[int]) -> list[int]:
        """Write runs of ``data``, all in bytes; returns how much of each was taken."""
        fd, pwrite = self._fd, os.pwrite
        counts = [0] * len(begins)
        for at, (begin, size, offset) in enumerate(zip(begins, sizes, offsets, strict=True)):
            try:
                counts[at] = pwrite(fd, data[begin : begin + size], offset)
            except (OSError, OverflowError) as error:
                self._refuse("writing", error)
        return counts

    def _refuse(self, what: str, error: OSError | OverflowError) -> None:
        if isinstance(error, OverflowError) or error.errno == errno.ENXIO:  # beyond the end of memory
            return
        self.refused += 1
        if self.trouble is None:
            self.trouble = f"{self.path}: {what} was refused ({error.strerror}); what it concerns counts as unknown"

    def close(self) -> None:
        """Release the file. Bits that are set stay set: they mean nothing to anybody else."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FlagSource(Protocol):
    """What is needed of `FrameInfo`."""

    def flags(self, frames: Frames) -> NDArray[np.uint64]:
        """The bits of /proc/kpageflags of each frame; shape (n,)."""
        ...

    def close(self) -> None:
        """Release the files."""
        ...


class PageSource(Protocol):
    """What is needed of `StructPages`, which looks at many frames in one system call."""

    def look(self, frames: Frames) -> tuple[Frames, NDArray[np.uint8]]:
        """The first frame of each frame's folio, and its LISTED, IDLE, OWN and YOUNG; shape (n,) each."""
        ...

    def refresh(self) -> None:
        """Memory may have been added."""
        ...


class BeforeMark(Protocol):
    """Who wants to look before frames are marked."""

    def before_mark(self, heads: Frames) -> None:
        """These are about to be."""
        ...


class FrameWatch:
    """Marks frames as idle and tells later which were used; a frame inside a folio answers through its head.

    ``pages`` looks at frames if given, else /proc/kpageflags, which takes a system call for each; ``panels`` is told
    what is about to be marked. Raises MachineError if the bitmap, or what is to look, cannot be used.
    """

    def __init__(
        self, bitmap: IdleBitmap | None = None, info: FlagSource | None = None, pages: PageSource | None = None
    ) -> None:
        if info is None and pages is None:
            require_frame_flags()
        self.bitmap = IdleBitmap() if bitmap is None else bitmap
        self.pages = pages
        self.panels: BeforeMark | None = None
        self._info = FrameInfo() if info is None else info

    def look(self, frames: Frames) -> tuple[Frames, NDArray[np.uint8]]:
        """The frame whose bit speaks for each frame (its folio's head), and what is known of it: LISTED at least.

        With ``pages`` there is one system call for 1,024 frames; else one for each, ten for one inside a folio.
        """
        if self.pages is not None:
            return self.pages.look(frames)
        heads, listed = self._by_flags(frames)
        return heads, listed.view(np.uint8) * np.uint8(LISTED)

    def locate(self, frames: Frames) -> tuple[Frames, Flags]:
        """The frame whose bit speaks for each frame, and whether it has one; shape (n,) each."""
        heads, kinds = self.look(frames)
        listed: Flags = (kinds & np.uint8(LISTED)) != 0
        return heads, listed

    def _by_flags(self, frames: Frames) -> tuple[Frames, Flags]:
        heads = frames.copy()
        flags = self._info.flags(frames)
        tails = np.flatnonzero((flags & _TAIL) != 0)
        if len(tails):
            inside, inverse = np.unique(frames[tails], return_inverse=True)
            found, found_flags = self._heads(inside)
            heads[tails] = found[inverse]
            flags = flags.copy()
            flags[tails] = found_flags[inverse]
        return heads, on_lru(flags)

    def _heads(self, tails: Frames) -> tuple[Frames, NDArray[np.uint64]]:
        """The head of each tail frame and its flags, 0 if there is none; shape (n,).

        A folio's size is a power of two and it begins at a multiple of it: rounding down step by step, the first head
        that is met is its own.
        """
        heads, flags = tails.copy(), np.zeros(len(tails), np.uint64)
        left = np.arange(len(tails))
        for order in range(1, _MAX_ORDER + 1):
            size = np.uint64(1 << order)
            start = tails[left] & ~(size - _ONE)
            unique, inverse = np.unique(start, return_inverse=True)  # neighbours round down to the same frame
            looked = self._info.flags(unique)[inverse]
            found = (looked & _HEAD) != 0
            heads[left[found]], flags[left[found]] = start[found], looked[found]
            left = left[~found]
            if not len(left):
                break
        return heads, flags

    def mark(self, frames: Frames) -> tuple[Frames, NDArray[np.uint8]]:
        """Mark frames as idle. Returns the frame that answers for each, and UNMARKABLE, UNLISTED or MARKED."""
        heads, listed = self.locate(frames)
        return heads, self.mark_heads(heads, listed)

    def mark_heads(self, heads: Frames, listed: Flags) -> NDArray[np.uint8]:
        """Mark the frames ``heads`` that are ``listed``; UNMARKABLE, UNLISTED or MARKED for each."""
        states = np.full(len(heads), UNLISTED, np.uint8)
        index = np.flatnonzero(listed)
        if len(index):
            if self.panels is not None:
                self.panels.before_mark(heads[index])
            states[index] = np.where(self.bitmap.mark(heads[index]), np.uint8(MARKED), np.uint8(UNMARKABLE))
        return states

    def refresh(self) -> None:
        """Memory may have been added."""
        if self.pages is not None:
            self.pages.refresh()

    def close(self) -> None:
        """Release the files."""
        self.bitmap.close()
        self._info.close()


def require_frame_flags(path: str = "/proc/kpageflags") -> None:
    """Raise MachineError if this user cannot read the flags of page frames."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MachineError("does not exist; it needs a kernel with CONFIG_PROC_PAGE_MONITOR", where=path) from None
    except OSError as error:
        raise MachineError(f"cannot be opened: {cause(error, 'run as root')}", where=path) from None
    os.close(fd)


def probe() -> None:
    """Raise MachineError with the reason if idle page tracking does not work here.

    Tried on memory of this process: an idle bitmap that can be opened may still refuse. Takes a millisecond.
    """
    pagemap.probe()
    watch = FrameWatch()
    own = pagemap.Pagemap("self")
    try:
        size = _PROBE_PAGES * mmap.PAGESIZE
        with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory[:] = bytes(size)
            view = ctypes.c_char.from_buffer(memory)
            start = ctypes.addressof(view)
            del view  # a mapping that is looked at cannot be closed
            entries = own.span(start, start + size)
            frames = pagemap.frames_of(entries[pagemap.is_present(entries)])
            watch.mark(frames)
            # Some are not on an LRU list yet, and the kernel may use others: one that took its mark is enough.
            idle, _ = watch.bitmap.read(watch.locate(frames)[0])
        if watch.bitmap.trouble is not None:
            raise MachineError(watch.bitmap.trouble.removeprefix(f"{BITMAP}: ").partition(";")[0], where=BITMAP)
        if not idle.any():
            raise MachineError("takes no marks: it can be opened but bits do not stay set", where=BITMAP)
    finally:
        own.close()
        watch.close()


def _runs(words: NDArray[np.uint64], near: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Runs of sorted words that are at most ``near`` apart, none across a chunk: indices of begin and end."""
    if not len(words):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    apart = (words[1:] - words[:-1] > np.uint64(near)) | (words[1:] // _CHUNK != words[:-1] // _CHUNK)
    begins = np.concatenate([np.zeros(1, np.intp), np.flatnonzero(apart) + 1])
    return begins, np.append(begins[1:], len(words))
