"""A trace as a program of the simulator: what was accessed how often, by page and stretch of time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon import spans as arithmetic
from pydamon.errors import RequestError
from pydamon.ops.reported.sources.base import Block, Source
from pydamon.workload.field import Epoch, FieldProgram
from pydamon.workload.layout import PAGE_SIZE, Place

_PAGE_SHIFT = np.uint64(PAGE_SIZE.bit_length() - 1)
_MOST_EPOCHS = 128
_FIRST_EPOCH_NS = 100_000
MOST_PAIRS = 16_000_000  # of pages and epochs: some 300 MB
_MOST_MAPPINGS = 256
_PAGE_BITS = np.uint64(52)
_PAGES = np.uint64((1 << 52) - 1)


def program_of(source: Source, name: str, *, most: int = MOST_PAIRS) -> FieldProgram:
    """Read the source to its end, and close it. Raises RequestError if it is none, or too much to hold: of ``most``.

    Pages that were accessed about as often (within a factor of the square root of two) in a stretch have one rate.
    """
    counted = _Counted(most)
    try:
        while (block := source.read()) is not None:
            counted.add(block)
    finally:
        source.close()
    if not len(counted.pairs):
        raise RequestError("has no access in it", where=name)
    return FieldProgram(name, counted.mappings(), counted.epochs())


class _Counted:
    """Accesses by page and epoch: sorted numbers epoch << 52 | page, with their counts."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.pairs: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._counts: NDArray[np.int64] = np.empty(0, np.int64)
        self._epoch_ns = _FIRST_EPOCH_NS
        self._end_ns = 0
        self._origin_ns: int | None = None  # when the first access was

    def add(self, block: Block) -> None:
        """More accesses; one that crosses pages counts for its first."""
        if not len(block.address):
            return
        if self._origin_ns is None:
            self._origin_ns = int(block.when_ns[0])
        when_ns = np.maximum(block.when_ns - self._origin_ns, 0)
        self._end_ns = max(self._end_ns, int(when_ns[-1]) + 1)
        while self._end_ns > self._epoch_ns * _MOST_EPOCHS:
            self._halve()
        epoch = (when_ns // self._epoch_ns).astype(np.uint64)
        pairs = epoch << _PAGE_BITS | block.address >> _PAGE_SHIFT
        new, counts = np.unique(pairs, return_counts=True)
        self._take(np.concatenate([self.pairs, new]), np.concatenate([self._counts, counts]))

    def _halve(self) -> None:
        """Epochs of twice the length."""
        self._epoch_ns *= 2
        epoch, page = self.pairs >> _PAGE_BITS, self.pairs & _PAGES
        self._take(epoch // np.uint64(2) << _PAGE_BITS | page, self._counts)

    def _take(self, pairs: NDArray[np.uint64], counts: NDArray[np.int64]) -> None:
        self.pairs, _, place = arithmetic.places_of_distinct(pairs)
        if len(self.pairs) > self._most:
            raise RequestError(f"accesses more than {self._most:,} pages and stretches of time: too much to hold")
        self._counts = np.bincount(place, counts, len(self.pairs)).astype(np.int64)

    def mappings(self) -> list[Place]:
        """What was accessed at any time; of more than a few hundred ranges the nearest are one."""
        pages = np.unique(self.pairs & _PAGES) << _PAGE_SHIFT
        ranges = arithmetic.joined(np.stack([pages, pages + np.uint64(PAGE_SIZE)], axis=1))
        return [Place("trace", low, high) for low, high in arithmetic.coarser(ranges, _MOST_MAPPINGS).tolist()]

    def epochs(self) -> list[Epoch]:
        """All of them, those in which nothing was accessed, too."""
        epoch = (self.pairs >> _PAGE_BITS).astype(np.int64)
        start = (self.pairs & _PAGES).astype(np.int64) * PAGE_SIZE
        rate = self._counts * (1e9 / self._epoch_ns)
        rate = 2.0 ** (np.rint(2 * np.log2(rate)) / 2)
        found = []
        for number in range(-(-self._end_ns // self._epoch_ns)):
            mine = slice(*np.searchsorted(epoch, [number, number + 1]).tolist())
            found.append(Epoch(self._epoch_ns, *_joined(start[mine], rate[mine])))
        return found


def _joined(start: NDArray[np.int64], rate: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pages (sorted) as ranges of one rate."""
    if not len(start):
        return np.empty((0, 2), np.int64), rate
    begins = np.ones(len(start), np.bool_)
    begins[1:] = (start[1:] != start[:-1] + PAGE_SIZE) | (rate[1:] != rate[:-1])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(start)) - 1
    return np.stack([start[first], start[last] + PAGE_SIZE], axis=1), rate[first]
