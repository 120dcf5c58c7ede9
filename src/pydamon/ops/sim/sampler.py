"""The sampler of simulated processes: the windows of many samples are asked at once, where that changes no answer.

Who accesses what does not depend on what happens meanwhile, so the pages of a whole aggregation can be drawn and looked
up together: the same dice, and the same answers, as one after another (`PageSampler`, which it falls back to where
probes are asked: those are about the machine as it is at each sample).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.base import Addresses, BatchEnd, Spans, sample_addresses
from pydamon.ops.counts import Counts
from pydamon.ops.pace import Pace
from pydamon.ops.sampling import PageOps, PageSampler

_MOST_PAGES = 1 << 16  # that are looked up at once


class WindowOps(PageOps, Protocol):
    """What it needs of an operations set."""

    def ends_ns(self, targets: Sequence[int]) -> NDArray[np.int64]:
        """When each target ends; the largest number there is for one that never does."""
        ...

    def accessed_in(self, target: int, addresses: Addresses, windows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each page (shape (k, n)) is accessed in the window of its row (ns, shape (k, 2))."""
        ...

    def dice(self, target: int) -> np.random.Generator:
        """What draws the pages of a target."""
        ...


class WindowSampler(PageSampler):
    """Sleeps from sample to sample, and then counts them all."""

    def __init__(self, ops: WindowOps) -> None:
        super().__init__(ops, ops.dice)
        self._windows_ops = ops

    def sample(
        self, targets: Sequence[int], regions: Sequence[Spans], counts: Sequence[Counts], n: int, pace: Pace
    ) -> tuple[int, BatchEnd]:
        """Up to ``n`` samples of all targets, see `Sampler`."""
        if self.probes:
            return super().sample(targets, regions, counts, n, pace)
        ends_ns = self._windows_ops.ends_ns(targets)
        windows, end = _windows(n, pace, ends_ns)
        if len(windows):
            for target, end_ns, spans, counted in zip(targets, ends_ns.tolist(), regions, counts, strict=True):
                self._count_all(target, end_ns, spans, counted, windows)
        return len(windows), end

    def _count_all(self, target: int, end_ns: int, spans: Spans, counted: Counts, windows: NDArray[np.int64]) -> None:
        n = len(spans.start)
        if not n:
            return
        rows = max(_MOST_PAGES // n, 1)
        for first in range(0, len(windows), rows):
            some = windows[first : first + rows]
            drawn = sample_addresses(spans.start, spans.end, self._windows_ops.dice(target), len(some)).reshape(-1, n)
            alive = int(some[:, 1].searchsorted(end_ns))  # a process that has ended does not answer
            if alive:
                found = self._windows_ops.accessed_in(target, drawn[:alive], some[:alive])
                counted.accessed += np.count_nonzero(found, axis=0)
            if alive < len(some):
                counted.unknown += len(some) - alive


def _windows(n: int, pace: Pace, ends_ns: NDArray[np.int64]) -> tuple[NDArray[np.int64], BatchEnd]:
    """The windows of up to ``n`` samples (ns, shape (k, 2)), and why there are no more."""
    clock, found, end = pace.clock, list[tuple[int, int]](), BatchEnd.DONE
    now_ns = clock.now_ns()
    next_end_ns = int(ends_ns[ends_ns > now_ns].min(initial=np.iinfo(np.int64).max))
    for done in range(n):
        if done:
            if pace.over():
                end = BatchEnd.INTERRUPTED
                break
            if now_ns >= next_end_ns:
                end = BatchEnd.TARGET_ENDED
                break
        since_ns = clock.now_ns()
        if not pace.sleep():
            end = BatchEnd.WOKEN
            break
        now_ns = clock.now_ns()
        found.append((since_ns, now_ns))
    return np.array(found, np.int64).reshape(-1, 2), end
