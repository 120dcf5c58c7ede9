"""Whole snapshots as flat arrays: what the reader yields and the analyses take in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot

_Number = TypeVar("_Number", bound=np.integer)


def distinct(values: NDArray[_Number]) -> NDArray[_Number]:
    """The values, sorted, each once: np.unique without the masked arrays that it imports (9 ms)."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


@dataclass(frozen=True, slots=True, eq=False)
class RegionBatch:
    """The regions of consecutive whole snapshots.

    Per region: ``start``/``end`` (bytes, uint64), ``nr_accesses`` and ``age`` (uint32; ``age`` reads as 0 where the
    reader was asked to leave it out). Per snapshot: ``target``, ``start_ns``, ``end_ns``, ``sample_us``, ``aggr_us``
    (int64), and ``offsets`` (int64, one more than snapshots): snapshot i is the regions ``offsets[i]:offsets[i + 1]``.
    Within a snapshot the regions are sorted and disjoint.
    """

    target: NDArray[np.int64]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    sample_us: NDArray[np.int64]
    aggr_us: NDArray[np.int64]
    offsets: NDArray[np.int64]
    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    nr_accesses: NDArray[np.uint32]
    age: NDArray[np.uint32]

    def __len__(self) -> int:
        """Number of snapshots."""
        return len(self.target)

    @property
    def max_nr_accesses(self) -> NDArray[np.int64]:
        """Samples per aggregation of each snapshot, as `core.snapshot.max_nr_accesses`."""
        return np.maximum(self.aggr_us // np.maximum(self.sample_us, 1), 1)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of regions of each snapshot."""
        return np.diff(self.offsets)

    @property
    def targets(self) -> list[int]:
        """The targets that the snapshots are of, in order, each once."""
        if len(self) and (self.target == self.target[0]).all():
            return [int(self.target[0])]
        return [int(number) for number in distinct(self.target)]

    def select(self, wanted: NDArray[np.bool_]) -> RegionBatch:
        """The batch with only those snapshots; itself, uncopied, where all are wanted."""
        if wanted.all():
            return self
        counts = self.counts
        rows = np.repeat(wanted, counts)
        offsets = np.zeros(int(wanted.sum()) + 1, dtype=np.int64)
        np.cumsum(counts[wanted], out=offsets[1:])
        return RegionBatch(
            self.target[wanted],
            self.start_ns[wanted],
            self.end_ns[wanted],
            self.sample_us[wanted],
            self.aggr_us[wanted],
            offsets,
            self.start[rows],
            self.end[rows],
            self.nr_accesses[rows],
            self.age[rows],
        )

    def of_target(self, target: int) -> RegionBatch:
        """The batch with only the snapshots of that target."""
        return self.select(self.target == target)

    def snapshot(self, index: int) -> Snapshot:
        """One snapshot; its arrays are views."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return Snapshot(
            int(self.target[index]),
            int(self.start_ns[index]),
            int(self.end_ns[index]),
            int(self.sample_us[index]),
            int(self.aggr_us[index]),
            self.start[rows],
            self.end[rows],
            self.nr_accesses[rows],
            self.age[rows],
        )

    def snapshots(self) -> Iterator[Snapshot]:
        """The snapshots in their order; their arrays are views."""
        for index in range(len(self)):
            yield self.snapshot(index)

    @classmethod
    def of(cls, snapshots: Iterable[Snapshot]) -> RegionBatch:
        """The batch that holds copies of these snapshots (at least one)."""
        held = list(snapshots)
        offsets = np.zeros(len(held) + 1, dtype=np.int64)
        np.cumsum([len(s.start) for s in held], out=offsets[1:])
        return cls(
            np.array([s.target for s in held], dtype=np.int64),
            np.array([s.start_ns for s in held], dtype=np.int64),
            np.array([s.end_ns for s in held], dtype=np.int64),
            np.array([s.sample_us for s in held], dtype=np.int64),
            np.array([s.aggr_us for s in held], dtype=np.int64),
            offsets,
            np.concatenate([s.start for s in held]).astype(np.uint64, copy=False),
            np.concatenate([s.end for s in held]).astype(np.uint64, copy=False),
            np.concatenate([s.nr_accesses for s in held]).astype(np.uint32, copy=False),
            np.concatenate([s.age for s in held]).astype(np.uint32, copy=False),
        )
