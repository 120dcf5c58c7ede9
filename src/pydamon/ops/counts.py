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
    """

    __slots__ = ("accessed", "hits", "probed", "unknown")

    def __init__(self, accessed: Count, unknown: Count, probed: Count, hits: Count) -> None:
        self.accessed = accessed
        self.unknown = unknown
        self.probed = probed
        self.hits = hits

    @classmethod
    def zeros(cls, n: int, nr_probes: int = 0) -> Counts:
        """Nothing counted yet."""
        accessed, unknown, probed = np.zeros((3, n), np.int64)
        return cls(accessed, unknown, probed, np.zeros((nr_probes, n), np.int64))

    @classmethod
    def joined(cls, parts: Sequence[Counts]) -> Counts:
        """Those of several targets, one behind the other, in arrays of their own."""
        hits = np.concatenate([part.hits for part in parts], axis=1)
        accessed, unknown, probed = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("accessed", "unknown", "probed")
        )
        return cls(accessed, unknown, probed, hits)

    def part(self, place: slice) -> Counts:
        """Those of some regions, as views."""
        return Counts(self.accessed[place], self.unknown[place], self.probed[place], self.hits[:, place])

    def select(self, index: NDArray[np.intp]) -> Counts:
        """The counts of the regions ``index`` in arrays of their own; -1 begins with zeros."""
        if not len(self.accessed):
            return Counts.zeros(len(index), len(self.hits))
        nr_probes = len(self.hits)
        counted = np.zeros((3 + nr_probes, len(index)), np.int64)
        counted[0], counted[1] = self.accessed[index], self.unknown[index]
        if nr_probes:
            counted[2], counted[3:] = self.probed[index], self.hits[:, index]
        new = index < 0
        if new.any():
            counted[:, new] = 0
        return Counts(counted[0], counted[1], counted[2], counted[3:])

    def reset(self) -> None:
        """Begin to count anew."""
        self.accessed[:] = 0
        self.unknown[:] = 0
        self.reset_probes()

    def reset_probes(self) -> None:
        """Begin to count the probes anew."""
        if len(self.hits):  # else nothing is counted
            self.probed[:] = 0
            self.hits[:] = 0

    def set_nr_probes(self, nr_probes: int) -> None:
        """Count for that many probes from now on; their counts begin at 0 unless their number stays."""
        if nr_probes != len(self.hits):
            self.probed = np.zeros(len(self.accessed), np.int64)
            self.hits = np.zeros((nr_probes, len(self.accessed)), np.int64)
