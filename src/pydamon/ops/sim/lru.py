"""The kernel's way of making room, over ranges of pages: two lists, an active and an inactive one. Pure.

Memory is taken from the tail of the inactive list: what was accessed since it came onto the list goes to the head of
the active one instead. Before that the tail of the active list is moved to the head of the inactive one, unless the
inactive list is long enough. The order on a list is kept in `STEPS` steps, and by address within one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.sim.extents import (
    ACTIVE,
    ANON,
    INCOMING,
    KEPT,
    PAGE_SIZE,
    REFERENCED,
    STAMP_SHIFT,
    STAMPS,
    Extents,
    Mask,
    stamp_of,
)

_ROUNDS = 12  # as the kernel has priorities; in the last ones nothing is in use any more


@dataclass(slots=True)
class Took:
    """What reclaim did, in pages: looked at, taken (of these: of files)."""

    scanned: int = 0
    taken: int = 0
    files: int = 0


def watermarks(total_bytes: int) -> tuple[int, int, int]:
    """Free bytes below which allocations reclaim themselves, and between which background reclaim works (kernel's)."""
    low_bytes = min(max(math.isqrt(total_bytes // 1024 * 16), 128), 262_144) * 1024
    # On a machine that is smaller than these numbers are meant for.
    lowest = min(low_bytes, total_bytes // 32)
    step = max(lowest // 4, total_bytes // 1000)
    return tuple(size // PAGE_SIZE * PAGE_SIZE for size in (lowest, lowest + step, lowest + 2 * step))  # type: ignore[return-value]


class TwoLists:
    """The lists of all memory, whose order is in the extents' states."""

    def __init__(self) -> None:
        self._last = 0  # the latest stamp

    def stamp(self, memory: Sequence[Extents]) -> np.uint32:
        """Bits for what comes onto a list now: behind all that is on one."""
        self._last += 1
        if self._last >= STAMPS:
            self._renumber(memory)
        return np.uint32(self._last << STAMP_SHIFT)

    def _renumber(self, memory: Sequence[Extents]) -> None:
        """Half as many steps, of twice the memory: neighbours become one."""
        used = np.unique(np.concatenate([stamp_of(extents.state) for extents in memory]))
        for extents in memory:
            rank = np.searchsorted(used, stamp_of(extents.state)) // 2
            extents.state &= np.uint32(~((STAMPS - 1) << STAMP_SHIFT) & 0xFFFFFFFF)
            extents.state |= (rank << STAMP_SHIFT).astype(np.uint32)
        self._last = len(used) // 2 + 1

    def put(self, memory: Sequence[Extents], which: Sequence[Mask]) -> None:
        """The extents of these masks come to the heads of their lists."""
        bits = self.stamp(memory)
        for extents, mask in zip(memory, which, strict=True):
            extents.state[mask] = _stamped(extents.state[mask], bits)

    def reclaim(self, memory: Sequence[Extents], wanted: int, room: int, *, files_only: bool = False) -> Took:
        """Take ``wanted`` bytes, anonymous ones only as far as swap has ``room``; what was done."""
        took = Took()
        wanted_pages = -(-wanted // PAGE_SIZE)
        for _ in range(_ROUNDS):
            if took.taken >= wanted_pages:
                break
            self._balance(memory)
            left = (wanted_pages - took.taken) * PAGE_SIZE
            room -= self._shrink(memory, left, 0 if files_only else room, took)
        for extents in memory:
            extents.settle()
        return took

    def _balance(self, memory: Sequence[Extents]) -> None:
        """Move the tail of the active list to the inactive one until that is long enough."""
        active = sum(extents.bytes_of(extents.resident & extents.has(ACTIVE)) for extents in memory)
        inactive = sum(extents.bytes_of(extents.resident & ~extents.has(ACTIVE)) for extents in memory)
        ratio = max(math.isqrt(10 * ((active + inactive) >> 30)), 1)
        missing = -(-(active - inactive * ratio) // (1 + ratio))
        if missing <= 0:
            return
        lists = _Gathered(memory, active=True)
        before = np.cumsum(lists.size) - lists.size
        moved = np.clip(missing - before, 0, lists.size)
        bits = self.stamp(memory)
        gone = np.uint32(~(ACTIVE | REFERENCED) & 0xFFFFFFFF)
        for extents, mask in lists.parts(-(-moved // PAGE_SIZE) * PAGE_SIZE):
            extents.state[mask] = _stamped(extents.state[mask] & gone, bits)

    def _shrink(self, memory: Sequence[Extents], wanted: int, room: int, took: Took) -> int:
        """Once through the inactive list, from its tail until ``wanted`` bytes are taken; bytes of swap that took."""
        lists = _Gathered(memory, active=False)
        used, anon = (lists.state & np.uint32(REFERENCED)) != 0, (lists.state & np.uint32(ANON)) != 0
        possible = np.where(used, 0, lists.size)
        to_swap = np.where(anon, possible, 0)
        possible = np.where(anon, np.clip(room - (np.cumsum(to_swap) - to_swap), 0, possible), possible)
        before = np.cumsum(possible) - possible
        taken = np.clip(wanted - before, 0, possible)
        reached = before < wanted
        scanned = np.where(taken < possible, taken, lists.size)
        took.scanned += int(scanned[reached].sum()) // PAGE_SIZE
        took.taken += int(taken.sum()) // PAGE_SIZE
        took.files += int(taken[~anon].sum()) // PAGE_SIZE
        bits = self.stamp(memory)
        kept = np.uint32(~REFERENCED & 0xFFFFFFFF)
        amounts = [np.where(reached & used, lists.size, 0), taken]
        for index, amount in enumerate(amounts):
            for extents, mask in lists.parts(amount):
                if index == 0:
                    extents.state[mask] = _stamped(extents.state[mask] & kept | np.uint32(ACTIVE), bits)
                else:
                    extents.state[mask] &= KEPT
        return int(taken[anon].sum())


def _stamped(state: NDArray[np.uint32], bits: np.uint32) -> NDArray[np.uint32]:
    return state & np.uint32(~((STAMPS - 1) << STAMP_SHIFT) & 0xFFFFFFFF) | bits


class _Gathered:
    """The extents on one list, the tail first: parallel arrays. ``parts`` gives amounts of them back, per target."""

    def __init__(self, memory: Sequence[Extents], *, active: bool) -> None:
        self._memory = memory
        self._sizes = [len(extents) for extents in memory]
        state = np.concatenate([extents.state for extents in memory])
        size = np.concatenate([extents.size for extents in memory])
        there = np.concatenate([extents.resident & ~extents.has(INCOMING) for extents in memory])
        on = np.flatnonzero(there & (((state & np.uint32(ACTIVE)) != 0) == active))
        self._order = on[np.argsort(stamp_of(state[on]), kind="stable")]
        self.state, self.size = state[self._order], size[self._order]

    def parts(self, amount: NDArray[np.int64]) -> list[tuple[Extents, Mask]]:
        """The first ``amount`` bytes of each (whole pages), as masks of the targets' extents.

        They are cut there: amounts of parts come last.
        """
        whole = np.zeros(sum(self._sizes), np.int64)
        whole[self._order] = amount
        found, first = [], 0
        for extents, count in zip(self._memory, self._sizes, strict=True):
            found.append((extents, extents.first_parts(whole[first : first + count])))
            first += count
        return found
