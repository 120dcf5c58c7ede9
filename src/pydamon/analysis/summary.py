"""What one screen says of a target: which mappings hold its memory, and how hot that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import age_s
from pydamon.core import columns
from pydamon.core.snapshot import Snapshot
from pydamon.linux.mapping_names import mapping_name
from pydamon.linux.process import Mapping
from pydamon.records.batch import RegionBatch

U64 = NDArray[np.uint64]

WARM_S = 10.0  # what was accessed within that time and is not hot is warm
UNMAPPED = "(not mapped any more)"


@dataclass(slots=True)
class Holding:
    """The memory of the mappings of one name and kind, in bytes."""

    name: str
    kind: str  # "file", "anonymous" or "shared"
    hot: int = 0  # accessed in the snapshot
    warm: int = 0  # last accessed within `WARM_S`
    cold: int = 0
    unknown: int = 0  # of regions of which it is not known what is resident, or what was accessed

    @property
    def memory(self) -> int:
        """All of which it is known how hot it is."""
        return self.hot + self.warm + self.cold


def kind_of(mapping: Mapping) -> str:
    """``shared`` (several processes may write it), ``file`` or ``anonymous``."""
    if "s" in mapping.perms[3:4]:
        return "shared"
    return "file" if mapping.name.startswith("/") else "anonymous"


def holdings(snapshot: Snapshot, mappings: Sequence[Mapping]) -> list[Holding]:
    """Which mappings hold the memory of a snapshot, the largest first.

    Regions that reach over several are divided at their bounds, what is resident of them by size.
    """
    spans = sorted(((m.start, m.end, mapping_name(m), kind_of(m)) for m in mappings), key=lambda span: span[0])
    bounds = np.array(sorted({address for span in spans for address in span[:2]}), np.uint64)
    index, low, high = _pieces(snapshot, bounds)
    pieces = columns.cut(snapshot.columns, index, low, high)
    batch = RegionBatch.of([Snapshot.of(snapshot.head, pieces)])
    memory, unknown = batch.memory, batch.unknown_memory
    idle_s = age_s(batch)
    starts = np.array([span[0] for span in spans], np.uint64)
    owner = np.searchsorted(starts, low, "right") - 1
    found: dict[tuple[str, str], Holding] = {}
    for piece, at in enumerate(owner.tolist()):
        inside = at >= 0 and int(low[piece]) < spans[at][1]
        name, kind = (spans[at][2], spans[at][3]) if inside else (UNMAPPED, "anonymous")
        if not memory[piece] and not unknown[piece]:
            continue
        holding = found.setdefault((name, kind), Holding(name, kind))
        holding.unknown += int(unknown[piece])
        if batch.nr_accesses[piece]:
            holding.hot += int(memory[piece])
        elif idle_s[piece] < WARM_S:
            holding.warm += int(memory[piece])
        else:
            holding.cold += int(memory[piece])
    return sorted(found.values(), key=lambda one: -one.memory)


def _pieces(snapshot: Snapshot, bounds: U64) -> tuple[NDArray[np.intp], U64, U64]:
    """The regions of a snapshot, divided at ``bounds``: the region of each piece, and where it begins and ends."""
    first = np.searchsorted(bounds, snapshot.start, "right")
    last = np.searchsorted(bounds, snapshot.end, "left")
    count = np.maximum(last - first, 0) + 1
    index = np.repeat(np.arange(len(count)), count)
    rank = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
    low = snapshot.start[index].copy()
    high = snapshot.end[index].copy()
    inner = rank > 0
    low[inner] = bounds[(first[index] + rank - 1)[inner]]
    outer = rank < count[index] - 1
    high[outer] = bounds[(first[index] + rank)[outer]]
    return index, low, high
