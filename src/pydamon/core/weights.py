"""How much of a region counts for a scheme's quota: its memory, unless the kernel's way is asked for.

A region is a range of addresses. What is charged for it in the kernel is its size, so that a quota may be spent on
addresses where there is nothing. Here it is what an action can find there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.core.regions import U64
from pydamon.spans import bytes_below, distinct, joined

_UNKNOWN = np.uint64(np.iinfo(np.uint64).max)
# These bring memory in or are advice about addresses: what is mapped counts for them, whether it is there or not.
_ABOUT_ADDRESSES = frozenset({"willneed", "hugepage", "nohugepage"})
_COUNTING = frozenset({"stat"})
_POINTS = 256  # asked at once when a place is looked for
# Where the kernel is asked for a part of a large folio, it splits it; of a file, that takes all its pages out of the
# page tables, so that the other part is not found any more, and stays in the page cache.
_LARGE = 2 << 20


class Span(Protocol):
    """What is mapped somewhere: ``start`` and exclusive ``end`` in bytes."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...


class Memory(Protocol):
    """What is needed of the operations set."""

    def resident_bytes(self, target: int, start: U64, end: U64) -> U64 | None:
        """See `OperationsSet`."""
        ...

    def mappings(self, target: int) -> Sequence[Span]:
        """See `OperationsSet`."""
        ...


class Weights:
    """Weighs the regions of one pass for ``action``; with ``by_memory`` False by their sizes."""

    def __init__(self, memory: Memory, action: str, *, by_memory: bool) -> None:
        self._memory = memory
        self._by_memory = by_memory
        self._resident = action not in _ABOUT_ADDRESSES
        self._needs_memory = by_memory and self._resident and action not in _COUNTING
        self._mapped: dict[int, U64] = {}

    @property
    def by_memory(self) -> bool:
        """Whether it is not the size that counts."""
        return self._by_memory

    def of(self, target: int, start: U64, end: U64) -> U64:
        """What counts of each region [start, end) of ``target``, in bytes; shape (n,).

        That is what is resident, or for some actions what is mapped; where the first is not known, the second.
        """
        if not self._by_memory:
            return end - start
        found = self._memory.resident_bytes(target, start, end) if self._resident else None
        if found is None:
            return self._mapped_bytes(target, start, end)
        unknown = found == _UNKNOWN
        if unknown.any():
            found = np.where(unknown, self._mapped_bytes(target, start, end), found)
        weights: U64 = np.minimum(found, end - start)
        return weights

    def nothing(self, weights: U64) -> NDArray[np.bool_]:
        """Which regions of these weights the action finds nothing in."""
        empty: NDArray[np.bool_] = weights == 0
        return empty & self._needs_memory

    def _mapped_bytes(self, target: int, start: U64, end: U64) -> U64:
        if target not in self._mapped:
            mappings = self._memory.mappings(target)
            found = np.array([(mapping.start, mapping.end) for mapping in mappings], np.uint64).reshape(-1, 2)
            self._mapped[target] = joined(found[np.argsort(found[:, 0], kind="stable")])
        spans = self._mapped[target]
        return bytes_below(spans, end) - bytes_below(spans, start) if len(spans) else end - start

    def cut_at(self, target: int, start: int, end: int, most: int, unit: int) -> int:
        """The last multiple of ``unit`` up to which [start, end) counts at most ``most``; one unit at the least.

        Of memory the last one of 2 MiB, if that is not much less.
        """
        if not self._by_memory:
            return start + most // unit * unit
        low, high = start // unit, end // unit
        while high - low > 1:
            points = distinct(np.linspace(low, high, min(_POINTS, high - low) + 1).astype(np.uint64))
            points = points[(points > low) & (points < high)]
            if not len(points):
                break
            ends = points * np.uint64(unit)
            over = np.flatnonzero(self.of(target, np.full(len(ends), start, np.uint64), ends) > np.uint64(most))
            first = int(over[0]) if len(over) else len(points)
            high = int(points[first]) if first < len(points) else high
            low = int(points[first - 1]) if first else low
        at = max(low, start // unit + 1) * unit
        whole = at // _LARGE * _LARGE
        return whole if unit < _LARGE and 2 * (whole - start) > at - start else at
