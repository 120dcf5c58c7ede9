"""Which pages of an address space are in memory: runs of pages, and how many bytes of any range they are.

A measurement, made piece by piece: what was not looked at yet is unknown, not absent. Counting the bytes of n ranges
takes two binary searches for all of them, however many runs there are.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
_Number = TypeVar("_Number", bound=np.integer)

NO_RUNS: U64 = np.empty((0, 2), np.uint64)


class ResidentRuns:
    """Sorted, disjoint runs [start, end) in bytes, and the spans of addresses that were looked at."""

    def __init__(self) -> None:
        self._runs = _Spans(NO_RUNS)
        self._seen = _Spans(NO_RUNS)

    def __len__(self) -> int:
        return len(self._runs.spans)

    @property
    def runs(self) -> U64:
        """The runs: shape (n, 2), uint64, bytes; the same object until they are others. Not to be changed."""
        return self._runs.spans

    @property
    def seen(self) -> U64:
        """The spans that were looked at: likewise."""
        return self._seen.spans

    def note(self, low: int, high: int, runs: U64) -> None:
        """In [low, high) these ``runs`` (shape (n, 2), sorted, inside of it) are resident, and nothing else."""
        if high <= low:
            return
        self._runs = self._runs.changed_to(_put(self._runs.spans, low, high, runs))
        self._seen = self._seen.changed_to(_put(self._seen.spans, low, high, np.array([[low, high]], np.uint64)))

    def keep_only(self, spans: U64) -> None:
        """Forget what lies outside of ``spans`` (shape (n, 2), sorted, disjoint): it is not mapped any more."""
        self._runs = self._runs.changed_to(clipped(self._runs.spans, spans))
        self._seen = self._seen.changed_to(clipped(self._seen.spans, spans))

    def resident_bytes(self, start: U64, end: U64) -> U64:
        """How many bytes of each range [start, end) are known to be resident; shape (n,)."""
        return self._runs.between(start, end)

    def seen_bytes(self, start: U64, end: U64) -> U64:
        """How many bytes of each range [start, end) were looked at; shape (n,)."""
        return self._seen.between(start, end)

    def total_bytes(self) -> int:
        """The bytes of all runs."""
        return int(self._runs.before[-1])

    def at(self, offset: U64) -> U64:
        """The address of each byte of the runs, counted from 0 through all of them; shape (n,)."""
        return self._runs.at(offset)

    def rank(self, address: U64) -> U64:
        """How many resident bytes lie below each address; shape (n,). The inverse of `at`."""
        return self._runs.below(address)


class _Spans:
    """Sorted, disjoint spans, with the bytes that lie before each."""

    __slots__ = ("before", "spans")

    def __init__(self, spans: U64) -> None:
        self.spans = spans
        self.before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(spans[:, 1] - spans[:, 0], dtype=np.uint64)])

    def changed_to(self, spans: U64) -> _Spans:
        """Itself where these are its spans."""
        return self if np.array_equal(spans, self.spans) else _Spans(spans)

    def below(self, address: U64) -> U64:
        """Bytes of the spans below each address."""
        if not len(self.spans):
            return np.zeros(len(address), np.uint64)
        bounds = self.spans.ravel()
        place = bounds.searchsorted(address, "right")  # odd inside of a span
        reached = (address - bounds[place - 1]) * (place & 1).astype(np.uint64)
        result: U64 = self.before[place >> 1] + reached
        return result

    def between(self, start: U64, end: U64) -> U64:
        """Bytes of the spans in each range [start, end)."""
        below = self.below(np.concatenate([start, end]))
        result: U64 = below[len(start) :] - below[: len(start)]
        return result

    def at(self, offset: U64) -> U64:
        """The address at each offset into the spans' bytes."""
        place = np.searchsorted(self.before, offset, "right") - 1
        result: U64 = self.spans[place, 0] + (offset - self.before[place])
        return result


def _put(spans: U64, low: int, high: int, new: U64) -> U64:
    """``spans`` with those in [low, high) replaced by ``new``; spans that touch become one."""
    left, right = np.uint64(low), np.uint64(high)
    first = int(np.searchsorted(spans[:, 1], left, "right"))  # the first that reaches beyond low
    last = int(np.searchsorted(spans[:, 0], right, "left"))  # the first that begins at high or behind it
    kept = []
    if first < last:
        if spans[first, 0] < left:
            kept.append(np.array([[spans[first, 0], left]], np.uint64))
        after = [np.array([[right, spans[last - 1, 1]]], np.uint64)] if spans[last - 1, 1] > right else []
    else:
        after = []
    return joined(np.concatenate([spans[:first], *kept, new, *after, spans[last:]]))


def joined(spans: U64) -> U64:
    """Sorted spans with those that touch made one; shape (n, 2)."""
    if len(spans) < 2:
        return spans
    apart = spans[1:, 0] > spans[:-1, 1]
    if apart.all():
        return spans
    begins = np.flatnonzero(np.append(True, apart))
    ends = np.append(begins[1:], len(spans)) - 1
    return np.stack([spans[begins, 0], spans[ends, 1]], axis=1)


def bytes_below(spans: U64, address: U64) -> U64:
    """How many bytes of sorted, disjoint ``spans`` lie below each address; shape (n,)."""
    return _Spans(spans).below(address)


def clipped(spans: U64, within: U64) -> U64:
    """The parts of ``spans`` that lie inside of ``within`` (both sorted and disjoint)."""
    if not len(spans) or not len(within):
        return NO_RUNS
    first = np.searchsorted(within[:, 1], spans[:, 0], "right")
    beyond = np.searchsorted(within[:, 0], spans[:, 1], "left")
    count = np.maximum(beyond - first, 0)
    index = np.repeat(np.arange(len(spans)), count)
    offset = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
    other = first[index] + offset
    return np.stack(
        [np.maximum(spans[index, 0], within[other, 0]), np.minimum(spans[index, 1], within[other, 1])], axis=1
    )


def without(spans: U64, others: U64) -> U64:
    """The parts of ``spans`` that no span of ``others`` covers (both sorted and disjoint)."""
    if not len(others):
        return spans
    low, high = np.uint64(0), np.uint64(np.iinfo(np.uint64).max)
    gaps = np.stack([np.append(low, others[:, 1]), np.append(others[:, 0], high)], axis=1)
    return clipped(spans, gaps[gaps[:, 0] < gaps[:, 1]])


def union(spans: U64, others: U64) -> U64:
    """What either covers (both sorted and disjoint)."""
    if not len(spans) or not len(others):
        return joined(others if len(others) else spans)
    return joined(np.sort(np.concatenate([spans, without(others, spans)]), axis=0))


def coarser(spans: U64, most: int) -> U64:
    """At most so many spans: those with the smallest gaps between them become one."""
    if len(spans) <= most:
        return spans
    gaps = spans[1:, 0] - spans[:-1, 1]
    kept = (
        np.sort(np.argpartition(gaps, len(gaps) - most)[len(gaps) - most + 1 :]) if most > 1 else gaps[:0].astype(int)
    )
    return np.stack([spans[np.append(0, kept + 1), 0], spans[np.append(kept, len(spans) - 1), 1]], axis=1)


def distinct(values: NDArray[_Number]) -> NDArray[_Number]:
    """The values, sorted, each once: np.unique without the masked arrays that it imports (12 ms)."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def places_of_distinct(values: NDArray[_Number]) -> tuple[NDArray[_Number], NDArray[np.intp], NDArray[np.intp]]:
    """The values, sorted, each once; where each is first, and for each of ``values`` its place among the distinct ones.

    As np.unique with its indices, and as `distinct` without the masked arrays.
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    inverse = np.empty(len(values), np.intp)
    inverse[order] = np.cumsum(first) - 1
    return ordered[first], order[first], inverse


def bytes_of_nodes(spans: Sequence[tuple[int, int, int]], start: U64, end: U64, nodes: Collection[int]) -> int:
    """Bytes of the ranges [start, end) that are memory of ``nodes``, by ``spans`` (low, high, node)."""
    total = 0
    for low, high, node in spans:
        if node in nodes:
            first, last = np.maximum(start, np.uint64(low)), np.minimum(end, np.uint64(high))
            total += int((last - first)[last > first].sum(dtype=np.uint64))
    return total
