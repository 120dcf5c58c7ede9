"""Arithmetic on sets of ranges: int64 arrays of shape (n, 2), start and exclusive end, sorted and disjoint. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Spans = NDArray[np.int64]
NOTHING: Spans = np.empty((0, 2), np.int64)


def union(spans: Spans) -> Spans:
    """The same bytes as any ``spans`` (empty and overlapping ones, too, in any order); those that touch become one."""
    spans = spans[spans[:, 0] < spans[:, 1]]
    if len(spans) < 2:
        return spans
    if (spans[1:, 0] < spans[:-1, 0]).any():
        spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(spans[:, 1])
    begins = np.concatenate([[True], spans[1:, 0] > reach[:-1]])
    first = np.flatnonzero(begins)
    last = np.append(first[1:], len(spans)) - 1
    return np.stack([spans[first, 0], reach[last]], axis=1)


def intersection(left: Spans, right: Spans) -> Spans:
    """What is in both; one range per pair of ranges that meet."""
    if not len(left) or not len(right):
        return NOTHING
    _, _, common = meetings(left, right)
    return common


def meetings(left: Spans, right: Spans) -> tuple[NDArray[np.int64], NDArray[np.int64], Spans]:
    """The pairs of ranges that meet: the index of each in ``left``, in ``right``, and what is in both."""
    low = np.searchsorted(right[:, 1], left[:, 0], "right")
    high = np.searchsorted(right[:, 0], left[:, 1], "left")
    owner, number = pieces(np.maximum(high - low, 0))
    other = low[owner] + number
    common = np.stack(
        [np.maximum(left[owner, 0], right[other, 0]), np.minimum(left[owner, 1], right[other, 1])],
        axis=1,
    )
    return owner, other, common


def pieces(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For owner i with ``counts[i]`` pieces: who owns each piece, and which of its pieces (0, 1, ...) it is."""
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owner, number


def split(spans: Spans, origin: int, unit: int) -> Spans:
    """``spans`` cut at ``origin``, ``origin + unit``, ``origin + 2 * unit``, ..."""
    first = (spans[:, 0] - origin) // unit
    last = (spans[:, 1] - 1 - origin) // unit
    owner, number = pieces(last - first + 1)
    start = origin + (first[owner] + number) * unit
    return np.stack([np.maximum(start, spans[owner, 0]), np.minimum(start + unit, spans[owner, 1])], axis=1)


def power_of_two(value: int) -> int:
    """The smallest power of two that is ``value`` or more."""
    return 1 << max(value - 1, 0).bit_length()
