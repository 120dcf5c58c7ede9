"""The simulated memory of one target: ranges of pages that are in the same state, as sorted arrays. Pure.

Nothing is stored per page, so that the cost depends on how varied the memory is, not on how large.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.workload import intervals
from pydamon.workload.intervals import Spans

PAGE_SIZE = 4096
HUGE_SIZE = 2 << 20

# A state is one number: these bits, above them the NUMA node plus one, or 0 if it is not in memory, and above that, for
# reclaim by lists, whether it was accessed since it came onto its list, and when that was, in steps.
MAPPED = 1  # accessed since it came (back) into memory
HUGE = 2
ACTIVE = 4
ANON = 8
YOUNG = 16  # accessed since a young filter looked
ADVISED = 32  # hugepage
REFUSED = 64  # nohugepage
INCOMING = 128  # asked for, and about to get memory
NODE_SHIFT = 8
_NODE_BITS = 0x7FF
REFERENCED = 1 << 19
STAMP_SHIFT = 20
STAMPS = 1 << 8

Mask = NDArray[np.bool_]
Index = NDArray[np.intp]
# What stays when the memory behind an address goes.
KEPT = np.uint32(ANON | ADVISED | REFUSED)


def node_of(state: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The NUMA node plus one of each state; 0 of what is not in memory."""
    return (state >> NODE_SHIFT & _NODE_BITS).astype(np.int64)


def on_node(state: NDArray[np.uint32], node: int) -> NDArray[np.uint32]:
    """The states, but on that node."""
    return state & np.uint32(~(_NODE_BITS << NODE_SHIFT) & 0xFFFFFFFF) | np.uint32(node + 1 << NODE_SHIFT)


def stamp_of(state: NDArray[np.uint32]) -> NDArray[np.int64]:
    """When each came onto its list."""
    return (state >> STAMP_SHIFT & (STAMPS - 1)).astype(np.int64)


class Extents:
    """Parallel arrays ``start``, ``end`` (int64, bytes) and ``state`` (uint32), sorted and disjoint.

    They cover the same bytes for ever. A huge page is part of an extent that begins and ends at multiples of 2 MiB,
    whenever `settle` was called after a change.
    """

    def __init__(self, spans: Spans, state: NDArray[np.uint32]) -> None:
        self.start, self.end, self.state = spans[:, 0].copy(), spans[:, 1].copy(), state.copy()
        self.settle()

    def __len__(self) -> int:
        return len(self.start)

    @property
    def size(self) -> NDArray[np.int64]:
        """Bytes per extent."""
        return self.end - self.start

    @property
    def resident(self) -> Mask:
        """Which are in memory."""
        mask: Mask = (self.state & np.uint32(_NODE_BITS << NODE_SHIFT)) != 0
        return mask

    def has(self, bit: int) -> Mask:
        """Which have the bit."""
        mask: Mask = (self.state & np.uint32(bit)) != 0
        return mask

    def bytes_of(self, mask: Mask) -> int:
        """The size of those in ``mask``."""
        return int(self.size[mask].sum())

    def node_bytes(self, nr_nodes: int) -> NDArray[np.int64]:
        """Bytes in memory on each of the nodes."""
        result = np.zeros(nr_nodes + 1, np.int64)
        np.add.at(result, node_of(self.state), self.size)
        return result[1:]

    def spans(self, mask: Mask) -> Spans:
        """The ranges of those in ``mask``, joined where they touch."""
        return intervals.union(np.stack([self.start[mask], self.end[mask]], axis=1))

    def within(self, spans: Spans) -> Index:
        """For each extent the index of the range of ``spans`` that it begins in, or -1. Cut at the bounds first."""
        index = np.searchsorted(spans[:, 0], self.start, "right") - 1
        beyond = np.append(spans[:, 1], 0)[index]
        return np.where((index >= 0) & (self.start < beyond), index, -1)

    def cut(self, points: NDArray[np.int64]) -> Index:
        """Cut the extents at ``points`` (bytes, any order); for each extent, which one before it is (a part of)."""
        points = np.sort(points)
        points = points[np.append(True, points[1:] != points[:-1])] if len(points) else points
        index = np.searchsorted(self.end, points, "right")
        inside = index < len(self)
        points, index = points[inside], index[inside]
        inside = self.start[index] < points
        points, index = points[inside], index[inside]
        origin = np.arange(len(self))
        if len(points):
            self.start = np.insert(self.start, index + 1, points)
            self.end = np.insert(self.end, index, points)
            origin = np.insert(origin, index + 1, index)
            self.state = self.state[origin]
        return origin

    def cut_at_bytes(self, mask: Mask, offsets: NDArray[np.int64]) -> Index:
        """Cut where the bytes of ``mask``, counted from the lowest, are ``offsets`` many; result as of `cut`."""
        counted = np.cumsum(np.where(mask, self.size, 0))
        total = int(counted[-1]) if len(counted) else 0
        offsets = offsets[(offsets > 0) & (offsets < total)]
        at = np.searchsorted(counted, offsets, "left")
        return self.cut((self.end[at] - (counted[at] - offsets)).astype(np.int64))

    def first_bytes(self, mask: Mask, limit: int) -> tuple[Index, Mask]:
        """The first ``limit`` bytes of ``mask``: how the extents were cut (as of `cut`), and the mask."""
        origin = self.cut_at_bytes(mask, np.array([limit], np.int64))
        mask = mask[origin]
        return origin, mask & (np.cumsum(np.where(mask, self.size, 0)) <= limit)

    def first_parts(self, amount: NDArray[np.int64]) -> Mask:
        """Cut each extent behind its first ``amount`` bytes; the mask of those parts."""
        partly = (amount > 0) & (amount < self.size)
        origin = self.cut(self.start[partly] + amount[partly])
        mask: Mask = (amount[origin] > 0) & ~(partly[origin] & np.append(False, origin[1:] == origin[:-1]))
        return mask

    def widen(self, spans: Spans) -> Spans:
        """``spans`` with the whole of each huge page that they touch: one access bit stands for it."""
        huge = self.spans(self.has(HUGE))
        meet = intervals.intersection(spans, huge)
        if not len(meet):
            return spans
        meet = np.stack([meet[:, 0] // HUGE_SIZE * HUGE_SIZE, -(-meet[:, 1] // HUGE_SIZE) * HUGE_SIZE], axis=1)
        return intervals.union(np.concatenate([spans, meet]))

    def blocks(self, mask: Mask, key: NDArray[np.int64]) -> Spans:
        """The 2 MiB-aligned parts of the runs of contiguous extents in ``mask`` that have the same ``key``."""
        index = np.flatnonzero(mask)
        if not len(index):
            return intervals.NOTHING
        before, after = index[:-1], index[1:]
        breaks = (self.end[before] != self.start[after]) | (key[before] != key[after])
        first = index[np.concatenate([[True], breaks])]
        last = index[np.concatenate([breaks, [True]])]
        low = -(-self.start[first] // HUGE_SIZE) * HUGE_SIZE
        high = self.end[last] // HUGE_SIZE * HUGE_SIZE
        aligned: Spans = np.stack([low, high], axis=1)[low < high]
        return aligned

    def make_huge(self, spans: Spans) -> None:
        """Make ``spans`` (multiples of 2 MiB, in memory on one node each) huge pages; any part's bits become all's."""
        inner = self.start[self.within(spans) >= 0]
        mixed = inner[inner % HUGE_SIZE != 0] // HUGE_SIZE * HUGE_SIZE
        self.cut(np.concatenate([spans.ravel(), mixed, mixed + HUGE_SIZE]))
        inside = self.within(spans) >= 0
        group = np.flatnonzero(~inside | (self.start % HUGE_SIZE == 0))
        together = np.bitwise_or.reduceat(self.state, group) if len(group) else self.state
        spread = np.repeat(together, np.diff(np.append(group, len(self))))
        self.state = np.where(inside, spread | np.uint32(HUGE), self.state)

    def settle(self) -> None:
        """Join neighbours in the same state; a huge page that has come to be in two states is split."""
        self._join()
        huge = self.has(HUGE)
        if huge.any():
            low = -(-self.start[huge] // HUGE_SIZE) * HUGE_SIZE
            high = self.end[huge] // HUGE_SIZE * HUGE_SIZE
            broken = (self.start[huge] != low) | (self.end[huge] != high)
            if broken.any():
                whole = np.stack([low, high], axis=1)[low < high]
                self.cut(whole.ravel())
                gone = self.has(HUGE) & (self.within(whole) < 0)
                self.state[gone] &= ~np.uint32(HUGE)
                self._join()

    def _join(self) -> None:
        if len(self) < 2:
            return
        begins = np.concatenate([[True], (self.state[1:] != self.state[:-1]) | (self.start[1:] != self.end[:-1])])
        if begins.all():
            return
        first = np.flatnonzero(begins)
        self.end = self.end[np.append(first[1:], len(self)) - 1]
        self.start, self.state = self.start[first], self.state[first]
