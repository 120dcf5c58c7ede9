"""Files of 64-bit words below /proc, one per page or page frame: many of them at once, in few system calls."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

Addresses = NDArray[np.uint64]
Words = NDArray[np.uint64]

WORD = 8
_MOST = 1 << 16  # words in one read
_FEW = 512  # positions: a read for each (0.6 us) takes less than looking for neighbours


def words_at(fd: int, positions: NDArray[np.uint64], near: int) -> tuple[Words, NDArray[np.bool_]]:
    """The word at each of ``positions`` (numbers of words, any order; shape (n,)), and whether it could be read.

    Those that are at most ``near`` words apart share a read.
    """
    if len(positions) <= _FEW and (single := _one_by_one(fd, positions)) is not None:
        return single, np.ones(len(positions), np.bool_)
    words, known = np.zeros(len(positions), np.uint64), np.zeros(len(positions), np.bool_)
    order = np.argsort(positions, kind="stable")
    ordered = positions[order]
    begins = np.concatenate([np.zeros(1, np.intp), np.flatnonzero(np.diff(ordered) > near) + 1])
    ends = np.append(begins[1:], len(ordered))
    firsts = ordered[begins]
    counts = (ordered[ends - 1] - firsts).astype(np.intp) + 1
    chunks = _read_all(fd, firsts.tolist(), counts.tolist())
    got = np.array([len(chunk) for chunk in chunks], np.intp) // WORD  # fewer than asked for at an end
    read = np.frombuffer(b"".join(chunks), np.uint64)
    group = np.repeat(np.arange(len(begins)), ends - begins)
    offset = (ordered - firsts[group]).astype(np.intp)
    inside = offset < got[group]
    at = (np.cumsum(got) - got)[group] + offset
    words[order[inside]] = read[at[inside]]
    known[order[inside]] = True
    return words, known


def _one_by_one(fd: int, positions: NDArray[np.uint64]) -> Words | None:
    """Each word by a read of its own: less work than sorting where they are few. None if one cannot be read."""
    pread = os.pread
    try:
        data = b"".join([pread(fd, WORD, position * WORD) for position in positions.tolist()])
    except (OSError, OverflowError):
        return None
    return np.frombuffer(data, np.uint64).copy() if len(data) == WORD * len(positions) else None


def span(fd: int, first: int, count: int) -> bytes:
    """``count`` words from the word ``first`` on; fewer if the file ends, or cannot be read there."""
    chunks = []
    while count > 0:
        try:
            chunk = os.pread(fd, min(count, _MOST) * WORD, first * WORD)
        except (OSError, OverflowError):  # there is nothing (any more), or it is beyond what a file can have
            break
        chunk = chunk[: len(chunk) // WORD * WORD]
        if not chunk:
            break
        chunks.append(chunk)
        first, count = first + len(chunk) // WORD, count - len(chunk) // WORD
    return b"".join(chunks)


def _read_all(fd: int, firsts: list[int], counts: list[int]) -> list[bytes]:
    if max(counts) <= _MOST:
        pread = os.pread
        try:
            chunks = [pread(fd, count * WORD, first * WORD) for first, count in zip(firsts, counts, strict=True)]
            if not any(len(chunk) % WORD for chunk in chunks):
                return chunks
        except (OSError, OverflowError):  # one by one, to find out which
            pass
    return [span(fd, first, count) for first, count in zip(firsts, counts, strict=True)]
