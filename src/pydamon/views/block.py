"""Pieces of bytes with their times in one block of memory that is there from the start: the oldest give way.

What is kept grows and shrinks with what is monitored; the memory that it takes does not.
"""

from __future__ import annotations

import numpy as np

_LEAST_PIECE = 512  # bytes: of smaller ones fewer are kept than there would be room for


class Block:
    """So many bytes, all of them taken at once, and a list of what lies where. Not for several threads."""

    def __init__(self, size: int) -> None:
        self._bytes = bytearray(b"\xff") * size  # written to, so that it is there
        # Time, where it begins and where it ends, and its number, in a ring.
        self._index = np.full((max(size // _LEAST_PIECE, 1), 4), -1, np.int64)
        self._first = 0
        self._count = 0
        self._end = 0

    def __len__(self) -> int:
        return self._count

    def add(self, time_ns: int, piece: bytes, number: int = -1) -> int:
        """Keep it, which is not empty, as the last; the oldest go, and if it is larger than the block, it and all.

        Returns the time of the last that has gone, or -1.
        """
        gone_ns = -1
        begin = self._end if self._end + len(piece) <= len(self._bytes) else 0
        while self._count and (self._count == len(self._index) or self._in_the_way(begin, len(piece))):
            gone_ns = self.time_ns(0)
            self.drop()
        self._end = begin
        if len(piece) > len(self._bytes):
            return time_ns
        self._end += len(piece)
        self._bytes[begin : self._end] = piece
        self._index[(self._first + self._count) % len(self._index)] = time_ns, begin, self._end, number
        self._count += 1
        return gone_ns

    def _in_the_way(self, begin: int, size: int) -> bool:
        """Whether the oldest piece lies where a new one is to be, or was jumped over on the way there."""
        low, high = map(int, self._index[self._first, 1:3])
        jumped = begin < self._end and low >= self._end
        return jumped or (low < begin + size and begin < high)

    def drop(self) -> None:
        """Let go of the oldest."""
        self._first = (self._first + 1) % len(self._index)
        self._count -= 1

    def time_ns(self, at: int) -> int:
        """The time of a piece, by its place: 0 is the oldest. Raises IndexError."""
        return int(self._index[self._row(at), 0])

    def piece(self, at: int) -> bytes:
        """A piece by its place. Raises IndexError."""
        low, high = map(int, self._index[self._row(at), 1:3])
        return bytes(self._bytes[low:high])

    def of(self, number: int) -> bytes:
        """The piece with this number. Raises IndexError."""
        rows = np.flatnonzero(self._index[:, 3] == number)
        places = (rows - self._first) % len(self._index)
        return self.piece(int(places[places < self._count][-1]))

    def _row(self, at: int) -> int:
        if not 0 <= at < self._count:
            raise IndexError(at)
        return (self._first + at) % len(self._index)
