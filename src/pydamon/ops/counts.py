"""What an operations set has counted for the regions of one target within one aggregation; the core judges it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Count = NDArray[np.integer[Any]]


class Counts:
    """For each of ``n`` regions, the samples of this aggregation with an access, without an answer, and with probes.

    ``accessed``, ``unknown`` and ``probed`` (asked about attributes) have the shape (n,), ``hits`` (had the attribute)
    (probes, n). All are arrays of integers, of any width, and may be strided views into memory that somebody else owns:
    a sampler may put its own arrays in the place of these. So they are read as they are now, and changed in place.
    ``last_hits`` are the hits of the aggregation before, which the core keeps here.
    """

    __slots__ = ("accessed", "hits", "last_hits", "probed", "unknown")

    def __init__(self, accessed: Count, unknown: Count, probed: Count, hits: Count, last_hits: Count) -> None:
        self.accessed = accessed
        self.unknown = unknown
        self.probed = probed
        self.hits = hits
        self.last_hits = last_hits

    @classmethod
    def zeros(cls, n: int, nr_probes: int = 0) -> Counts:
        """Nothing counted yet."""
        accessed, unknown, probed = np.zeros((3, n), np.int64)
        return cls(accessed, unknown, probed, *np.zeros((2, nr_probes, n), np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Counts]) -> Counts:
        """Those of several targets, one behind the other, in arrays of their own."""
        hits, last = (np.concatenate([getattr(part, name) for part in parts], axis=1) for name in ("hits", "last_hits"))
        accessed, unknown, probed = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("accessed", "unknown", "probed")
        )
        return cls(accessed, unknown, probed, hits, last)

    def part(self, place: slice) -> Counts:
        """Those of some regions, as views."""
        hits, last = self.hits[:, place], self.last_hits[:, place]
        return Counts(self.accessed[place], self.unknown[place], self.probed[place], hits, last)

    def select(self, index: NDArray[np.intp]) -> Counts:
        """The counts of the regions ``index`` in arrays of their own; -1 begins with zeros."""
        if not len(self.accessed):
            return Counts.zeros(len(index), len(self.hits))
        nr_probes = len(self.hits)
        counted = np.zeros((3 + 2 * nr_probes, len(index)), np.int64)
        counted[0], counted[1] = self.accessed[index], self.unknown[index]
        behind = 3 + nr_probes
        if nr_probes:
            counted[2], counted[3:behind] = self.probed[index], self.hits[:, index]
            counted[behind:] = self.last_hits[:, index]
        new = index < 0
        if new.any():
            counted[:, new] = 0
        return Counts(counted[0], counted[1], counted[2], counted[3:behind], counted[behind:])

    def reset(self) -> None:
        """Begin to count anew; hits become the last ones."""
        self.start_over(self.hits)

    def start_over(self, last_hits: Count) -> None:
        """Begin to count anew, after an aggregation that had ``last_hits``."""
        self.accessed[:] = 0
        self.unknown[:] = 0
        if len(self.hits):  # else nothing is counted
            self.last_hits[:] = last_hits
            self._reset_hits()

    def _reset_hits(self) -> None:
        self.probed[:] = 0
        self.hits[:] = 0

    def reset_probes(self) -> None:
        """Begin to count the probes anew: they are others."""
        if len(self.hits):
            self._reset_hits()
            self.last_hits[:] = 0

    def set_nr_probes(self, nr_probes: int) -> None:
        """Count for that many probes from now on; their counts begin at 0 unless their number stays."""
        if nr_probes != len(self.hits):
            self.probed = np.zeros(len(self.accessed), np.int64)
            self.hits, self.last_hits = np.zeros((2, nr_probes, len(self.accessed)), np.int64)
