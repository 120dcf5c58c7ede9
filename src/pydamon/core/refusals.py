"""Memory that refused an action (no swap, locked) is left alone for a while, longer each time.

A quota gets to other memory meanwhile, and little time is spent on trying in vain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.core.regions import U64
from pydamon.spans import bytes_below

_LONGEST = 64  # passes
_MOST = 1024  # spans that are remembered: the latest
_REFUSED = np.uint64(16)  # less than that part of what was there has worked out


class Refusals:
    """The spans of addresses in which one scheme achieved next to nothing, and for how many passes each is let be."""

    def __init__(self) -> None:
        self._pass = 0
        self._target = np.empty(0, np.int64)
        self._spans: U64 = np.empty((0, 2), np.uint64)
        self._wait = np.empty(0, np.int64)
        self._until = np.empty(0, np.int64)  # the last pass in which it is left alone

    def begin_pass(self) -> None:
        """Another pass."""
        self._pass += 1

    def left_alone(self, target: int, start: U64, end: U64) -> NDArray[np.bool_]:
        """Which regions [start, end) have refused, at least half of each, and are not to be tried in this pass."""
        spans = self._spans[(self._target == target) & (self._until >= self._pass)]
        if not len(spans):
            return np.zeros(len(start), np.bool_)
        spans = spans[np.argsort(spans[:, 0], kind="stable")]
        covered = bytes_below(spans, end) - bytes_below(spans, start)
        return covered >= (end - start + np.uint64(1)) // np.uint64(2)

    def note(self, target: int, start: U64, end: U64, there: U64, applied: U64) -> None:
        """``applied`` bytes of ``there`` in each region [start, end) have worked out (sorted, shape (n,))."""
        tried = there > 0
        refused = tried & (applied < (there + (_REFUSED - np.uint64(1))) // _REFUSED)
        mine = np.flatnonzero(self._target == target)
        if not len(mine) and not refused.any():
            return
        # Of what is known about these addresses, the regions say something newer.
        mine = mine[np.argsort(self._spans[mine, 0], kind="stable")]
        low, high = self._spans[mine, 0], self._spans[mine, 1]
        old = mine[np.searchsorted(start, high, "left") > np.searchsorted(end, low, "right")]
        bounds = np.stack([np.searchsorted(high, start, "right"), np.searchsorted(low, end, "left")], axis=1)
        before = np.maximum.reduceat(np.append(self._wait[mine], 0), bounds.ravel())[::2]
        wait = np.clip(2 * np.where(bounds[:, 1] > bounds[:, 0], before, 0), 1, _LONGEST)[refused]
        keep = np.ones(len(self._target), np.bool_)
        keep[old] = False
        self._target = np.concatenate([self._target[keep], np.full(len(wait), target)])[-_MOST:]
        new = np.stack([start[refused], end[refused]], axis=1)
        self._spans = np.concatenate([self._spans[keep], new])[-_MOST:]
        self._wait = np.concatenate([self._wait[keep], wait])[-_MOST:]
        self._until = np.concatenate([self._until[keep], self._pass + wait])[-_MOST:]
