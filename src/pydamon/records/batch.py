"""Whole snapshots as flat arrays: what the reader yields and the analyses take in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pydamon.core import columns
from pydamon.core.columns import Array
from pydamon.core.snapshot import Snapshot
from pydamon.spans import distinct

_Number = TypeVar("_Number", bound=np.integer)
_UNKNOWN = np.uint64(2**64 - 1)  # `columns.Column.unknown` of bytes
_NO_SAMPLES = np.uint32(2**32 - 1)  # … of samples
# The optional columns that say which bytes count: see `RegionBatch.memory`.
MEMORY = ("resident", "unknown")


class RegionBatch(columns.PerRegion):
    """The regions of consecutive whole snapshots.

    Per region: ``columns`` as of a snapshot (``age`` reads as 0 where the reader was asked to leave it out). Per
    snapshot: ``heads``, by name (`columns.PER_SNAPSHOT`, int64), and ``offsets`` (int64, one more than snapshots):
    snapshot i is the regions ``offsets[i]:offsets[i + 1]``. Within a snapshot the regions are sorted and disjoint.
    """

    __slots__ = ("columns", "heads", "offsets")

    def __init__(
        self, heads: Mapping[str, NDArray[np.int64]], offsets: NDArray[np.int64], columns: Mapping[str, Array]
    ) -> None:
        self.heads = heads
        self.offsets = offsets
        self.columns = columns

    @property
    def target(self) -> NDArray[np.int64]:
        """The target of each snapshot."""
        return self.heads["target"]

    @property
    def start_ns(self) -> NDArray[np.int64]:
        """When each snapshot begins."""
        return self.heads["start_ns"]

    @property
    def end_ns(self) -> NDArray[np.int64]:
        """When each snapshot ends."""
        return self.heads["end_ns"]

    @property
    def sample_us(self) -> NDArray[np.int64]:
        """The sampling interval of each snapshot."""
        return self.heads["sample_us"]

    @property
    def aggr_us(self) -> NDArray[np.int64]:
        """The aggregation interval of each snapshot."""
        return self.heads["aggr_us"]

    def __len__(self) -> int:
        """Number of snapshots."""
        return len(self.offsets) - 1

    @property
    def max_nr_accesses(self) -> NDArray[np.int64]:
        """Samples per aggregation of each snapshot, as `core.snapshot.max_nr_accesses`."""
        return np.maximum(self.aggr_us // np.maximum(self.sample_us, 1), 1)

    @property
    def memory(self) -> NDArray[np.uint64]:
        """The bytes of each region that count as memory: what was resident; all, in a snapshot that does not tell.

        0 for a region of which it is not known although it is of others, and for one that cannot be watched: no sample
        of it had an answer (`unknown_memory`).
        """
        known, told = self._residency()
        size: NDArray[np.uint64] = self.end - self.start
        if known is not None:
            size = np.where(known, self.columns["resident"], np.where(told, np.uint64(0), size))
        blind = self.blind
        return size if blind is None else np.where(blind, np.uint64(0), size)

    @property
    def unknown_memory(self) -> NDArray[np.uint64]:
        """The bytes of each region that may be in use or not, and are neither used nor idle.

        All of one of which it is not known how much was resident, but of others it is; the memory of one that cannot be
        watched.
        """
        known, told = self._residency()
        nothing, size = np.zeros(len(self.start), np.uint64), self.end - self.start
        if known is not None:
            nothing, size = np.where(told & ~known, size, nothing), np.where(known, self.columns["resident"], size)
        blind = self.blind
        return nothing if blind is None else np.where(blind, size, nothing)

    def per_snapshot(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """Values of the regions, added up over each snapshot."""
        found: NDArray[_Number] = np.add.reduceat(values, self.offsets[:-1])
        return found

    @property
    def blind(self) -> NDArray[np.bool_] | None:
        """Which regions no sample had an answer for; None where that is not told."""
        without = self.column("unknown")
        if without is None:
            return None
        samples = np.repeat(self.max_nr_accesses, self.counts)
        found: NDArray[np.bool_] = (without != _NO_SAMPLES) & (without >= samples) & (self.nr_accesses == 0)
        return found

    def _residency(self) -> tuple[NDArray[np.bool_] | None, NDArray[np.bool_]]:
        """For each region whether it is known what of it was resident, and whether that is of any in its snapshot."""
        found = self.column("resident")
        if found is None or not len(found):
            return None, np.zeros(len(self.start), np.bool_)
        known: NDArray[np.bool_] = found != _UNKNOWN
        return known, np.repeat(np.logical_or.reduceat(known, self.offsets[:-1]), self.counts)

    def without(self, column: str) -> RegionBatch:
        """The batch without an optional column, as if it had never been there; itself if it is not."""
        if column not in self.columns:
            return self
        left = {name: array for name, array in self.columns.items() if name != column}
        return RegionBatch(self.heads, self.offsets, left)

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
        """The batch with only those snapshots; uncopied where they stand side by side."""
        if wanted.all():
            return self
        if len(run := np.flatnonzero(wanted)) and run[-1] - run[0] + 1 == len(run):  # in one run: views will do
            return self._run(int(run[0]), int(run[-1]) + 1)
        rows = np.repeat(wanted, self.counts)
        heads = {name: values[wanted] for name, values in self.heads.items()}
        return RegionBatch(heads, _offsets(self.counts[wanted]), columns.select(self.columns, rows))

    def _run(self, first: int, behind: int) -> RegionBatch:
        """The snapshots first to before behind, as views."""
        begin, end = int(self.offsets[first]), int(self.offsets[behind])
        heads = {name: values[first:behind] for name, values in self.heads.items()}
        offsets = self.offsets[first : behind + 1] - begin
        return RegionBatch(heads, offsets, columns.select(self.columns, slice(begin, end)))

    def regions(self, kept: NDArray[np.bool_]) -> RegionBatch:
        """The batch with only those regions, without the snapshots that have none of them."""
        running = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept, dtype=np.int64)])
        counts = running[self.offsets[1:]] - running[self.offsets[:-1]]
        some = counts > 0
        heads = {name: values[some] for name, values in self.heads.items()}
        return RegionBatch(heads, _offsets(counts[some]), columns.select(self.columns, kept))

    def of_target(self, target: int) -> RegionBatch:
        """The batch with only the snapshots of that target."""
        return self.select(self.target == target)

    def snapshot(self, index: int) -> Snapshot:
        """One snapshot; its arrays are views. Columns of which it knows nothing are absent."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        head = {name: int(values[index]) for name, values in self.heads.items()}
        return Snapshot.of(head, columns.without_unknown(columns.select(self.columns, rows)))

    def snapshots(self) -> Iterator[Snapshot]:
        """The snapshots in their order; their arrays are views."""
        for index in range(len(self)):
            yield self.snapshot(index)

    @classmethod
    def of(cls, snapshots: Iterable[Snapshot]) -> RegionBatch:
        """The batch that holds these snapshots (at least one); what only some of them have is unknown of the others."""
        held = list(snapshots)
        heads = {
            column.name: np.array([getattr(one, column.name) for one in held], dtype=np.int64)
            for column in columns.PER_SNAPSHOT
        }
        return cls(heads, _offsets([len(one.start) for one in held]), columns.concatenate([s.columns for s in held]))


def _offsets(counts: NDArray[np.int64] | Sequence[int]) -> NDArray[np.int64]:
    """Where each snapshot of so many regions begins, and where the last one ends."""
    found = np.zeros(len(counts) + 1, dtype=np.int64)
    np.cumsum(counts, out=found[1:])
    return found
