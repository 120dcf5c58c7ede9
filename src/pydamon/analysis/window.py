"""Looking at only a part of a record: some of the time, some of the addresses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pydamon.core import columns
from pydamon.records.batch import RegionBatch
from pydamon.spec.units import U64_MAX


@dataclass(frozen=True, slots=True)
class Window:
    """Snapshots that end after ``start_ns`` and begin before ``end_ns``; of those what lies in [low, high) (bytes)."""

    start_ns: int | None = None
    end_ns: int | None = None
    low: int = 0
    high: int = U64_MAX

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self.start_ns is None and self.end_ns is None and self.low == 0 and self.high == U64_MAX

    def of(self, batches: Iterable[RegionBatch]) -> Iterator[RegionBatch]:
        """The batches, cut to the window; those with nothing in it are left out.

        A snapshot whose regions are all outside of the addresses is left out with them.
        """
        if self.everything:
            yield from batches
            return
        for batch in batches:
            wanted = np.ones(len(batch), np.bool_)
            if self.start_ns is not None:
                wanted &= batch.end_ns > self.start_ns
            if self.end_ns is not None:
                wanted &= batch.start_ns < self.end_ns
            if not wanted.any():
                continue
            batch = batch.select(wanted)
            if self.low or self.high < U64_MAX:
                batch = clip(batch, self.low, self.high)
            if len(batch):
                yield batch


def clip(batch: RegionBatch, low: int, high: int) -> RegionBatch:
    """What lies in [low, high) bytes; regions that reach beyond are cut, snapshots with none are left out."""
    bottom, top = np.uint64(low), np.uint64(high)
    kept = batch.regions((batch.end > bottom) & (batch.start < top))
    cut = columns.cut(kept.columns, slice(None), np.maximum(kept.start, bottom), np.minimum(kept.end, top))
    return RegionBatch(kept.heads, kept.offsets, cut)
