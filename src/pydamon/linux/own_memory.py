"""Memory of this process to try things on: anonymous, or that of a file without a name; and the faults it had.

mmap(2), madvise(2), mincore(2), posix_fadvise(2), getrusage(2). Nothing of other processes, no setting of the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import resource
import tempfile
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux.madvise import MADV_NOHUGEPAGE

PAGE_SIZE = 4096
HUGE_SIZE = 2 << 20
_PIECE = 1 << 20

_mincore = ctypes.CDLL(None, use_errno=True).mincore
_mincore.restype = ctypes.c_int
_mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)


class Faults(NamedTuple):
    """How many page faults this thread has had: without reading anything, and with."""

    minor: int
    major: int


def faults() -> Faults:
    """Up to now."""
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return Faults(used.ru_minflt, used.ru_majflt)


class _Held:
    """What is held for so long as a ``with`` lasts."""

    def close(self) -> None:
        """Give it back."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class OwnMemory(_Held):
    """A mapping of ``size`` bytes (a multiple of 2 MiB) that begins at a huge page; ``bytes`` is what is in it.

    A context manager. Raises MachineError if there is no such memory.
    """

    def __init__(self, size: int) -> None:
        try:
            self._map = mmap.mmap(-1, size + HUGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise MachineError(f"cannot be had: {error.strerror}", where=f"{size >> 20} MiB of memory") from None
        whole = np.frombuffer(self._map, np.uint8)
        self._first = -whole.ctypes.data % HUGE_SIZE
        self.bytes: NDArray[np.uint8] = whole[self._first : self._first + size]

    @property
    def address(self) -> int:
        """Of its first byte."""
        return self.bytes.ctypes.data

    def advise(self, advice: int, start: int = 0, size: int | None = None) -> None:
        """madvise(2) about all of it, or so many bytes from ``start`` on. Raises OSError."""
        self._map.madvise(advice, self._first + start, len(self.bytes) if size is None else size)

    def keep_small(self) -> None:
        """Have no huge pages in it; a kernel that has none refuses that word, and is none the worse. Raises OSError."""
        try:
            self.advise(MADV_NOHUGEPAGE)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def touch(self) -> None:
        """Write a byte of each page."""
        self.bytes[::PAGE_SIZE] = 1

    def resident_pages(self) -> int:
        """How many of its pages are in memory."""
        return int(resident(self.bytes).sum())

    def close(self) -> None:
        """Give it back."""
        del self.bytes
        self._map.close()


class OwnFile(_Held):
    """A file of ``size`` bytes (a multiple of 1 MiB) in ``directory``, full, on the disk, without a name.

    A context manager. Raises MachineError if it cannot be written there.
    """

    def __init__(self, size: int, directory: str) -> None:
        self._size = size
        try:
            self._file = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115 - it lives as long as this
            try:
                piece = np.random.default_rng(0).bytes(_PIECE)
                for number in range(size // _PIECE):
                    self._file.write(number.to_bytes(8, "little") + piece[8:])
                self._file.flush()
                os.fsync(self._file.fileno())
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            text = f"a file of {size >> 20} MiB cannot be written there: {error.strerror}"
            raise MachineError(text, where=directory) from None

    def mapped(self) -> MappedFile:
        """It, opened anew: the kernel knows nothing of how it was read so far."""
        fd = os.open(f"/proc/self/fd/{self._file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return MappedFile(mmap.mmap(fd, self._size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ))
        finally:
            os.close(fd)

    def drop(self) -> None:
        """Take it out of memory, as far as it is not mapped."""
        os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Nothing is left of it."""
        self._file.close()


class MappedFile(_Held):
    """The mapping of a file, to be read: ``bytes``. A context manager."""

    def __init__(self, mapping: mmap.mmap) -> None:
        self._map = mapping
        self.bytes: NDArray[np.uint8] = np.frombuffer(mapping, np.uint8)

    def advise(self, advice: int) -> None:
        """madvise(2) about all of it. Raises OSError."""
        self._map.madvise(advice)

    def resident(self) -> NDArray[np.bool_]:
        """Which of its pages are in memory."""
        return resident(self.bytes)

    def close(self) -> None:
        """Map it no more."""
        del self.bytes
        with contextlib.suppress(BufferError):  # somebody still has a view: it goes with that
            self._map.close()


def resident(mapped: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pages of a mapping of whole pages are in memory. Raises OSError."""
    found = np.zeros(-(-len(mapped) // PAGE_SIZE), np.uint8)
    if _mincore(mapped.ctypes.data, len(mapped), found.ctypes.data):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return (found & 1).astype(np.bool_)
