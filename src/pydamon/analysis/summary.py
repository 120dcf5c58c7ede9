"""What one screen says of a target: which mappings hold its memory, and how hot that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import idle_s, rate_percent
from pydamon.core import columns
from pydamon.core.snapshot import Snapshot
from pydamon.linux.mapping_names import mapping_name
from pydamon.linux.process import Mapping
from pydamon.records.batch import RegionBatch
from pydamon.spans import distinct

U64 = NDArray[np.uint64]

WARM_S = 10.0  # what was accessed within that time and is not hot is warm
RECENT_S = 600.0  # what was accessed within that time is missed when it is taken away
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
    rate_percent: float = 0.0  # of samples that found an access: the mean over its memory
    idle_s: float = 0.0  # for how long none of its memory was accessed
    recent: int = 0  # accessed within `RECENT_S`

    @property
    def memory(self) -> int:
        """All of which it is known how hot it is."""
        return self.hot + self.warm + self.cold


class Layout:
    """Mappings as arrays, in address order; ``group`` (intp) is the place of each in ``names``: (name, kind).

    The last name is that of memory that is not mapped any more. To make one takes longer than to look at a snapshot
    with it.
    """

    __slots__ = ("bounds", "ends", "group", "names", "starts")

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        numbers: dict[tuple[str, str], int] = {}
        held = sorted(mappings, key=lambda mapping: mapping.start)
        group = [numbers.setdefault((mapping_name(m), kind_of(m)), len(numbers)) for m in held]
        self.starts = np.array([m.start for m in held], np.uint64)
        self.ends = np.array([m.end for m in held], np.uint64)
        self.bounds = distinct(np.concatenate([self.starts, self.ends]))
        self.group = np.array([*group, len(numbers)], np.intp)
        self.names = [*numbers, (UNMAPPED, "anonymous")]


def kind_of(mapping: Mapping) -> str:
    """``shared`` (several processes may write it), ``file`` or ``anonymous``."""
    if "s" in mapping.perms[3:4]:
        return "shared"
    return "file" if mapping.name.startswith("/") else "anonymous"


def holdings(snapshot: Snapshot, mappings: Sequence[Mapping] | Layout) -> list[Holding]:
    """Which mappings hold the memory of a snapshot, the largest first.

    Regions that reach over several are divided at their bounds, what is resident of them by size.
    """
    layout = mappings if isinstance(mappings, Layout) else Layout(mappings)
    return holdings_of([(snapshot, layout)])[0]


def holdings_of(looked_at: Sequence[tuple[Snapshot, Layout]]) -> list[list[Holding]]:
    """As `holdings`, of several snapshots (at least one) at once: that takes a fraction of the time."""
    whole = RegionBatch.of([snapshot for snapshot, _ in looked_at])
    indices, lows, highs, groups, first_row, first_group = [], [], [], [], 0, 0
    for snapshot, layout in looked_at:
        index, low, high = _pieces(snapshot, layout.bounds)
        indices.append(index + first_row)
        lows.append(low)
        highs.append(high)
        groups.append(_groups(layout, low) + first_group)
        first_row += len(snapshot.start)
        first_group += len(layout.names)
    pieces = columns.cut(whole.columns, np.concatenate(indices), np.concatenate(lows), np.concatenate(highs))
    offsets = np.concatenate([[0], np.cumsum([len(index) for index in indices])])
    names = [name for _, layout in looked_at for name in layout.names]
    held = _held(RegionBatch(whole.heads, offsets, pieces), np.concatenate(groups), names)
    bounds = np.cumsum([0, *(len(layout.names) for _, layout in looked_at)]).tolist()
    return [
        [one for _, one in sorted(filter(None, held[first:behind]), key=lambda entry: (-entry[1].memory, entry[0]))]
        for first, behind in pairwise(bounds)
    ]


def _held(
    batch: RegionBatch, group: NDArray[np.intp], names: Sequence[tuple[str, str]]
) -> list[tuple[int, Holding] | None]:
    """Of each name and kind its first piece, and what it holds; None if nothing. ``group`` of each piece is a name."""
    memory, unknown = batch.memory, batch.unknown_memory
    since_s, accessed = idle_s(batch), batch.nr_accesses > 0

    def add_up(values: NDArray[Any], which: NDArray[np.bool_] | bool = True) -> list[float]:
        sums: list[float] = np.bincount(group, np.where(which, values, 0), len(names)).tolist()
        return sums

    warm = ~accessed & (since_s < WARM_S)
    told = [add_up(memory, which) for which in (accessed, warm, ~accessed & ~warm, since_s < RECENT_S)]
    rates = add_up(memory * rate_percent(batch))
    idle = np.full(len(names), np.inf)
    np.minimum.at(idle, group[memory > 0], since_s[memory > 0])
    first = np.full(len(names), len(group))
    np.minimum.at(first, group, np.arange(len(group)))
    held: list[tuple[int, Holding] | None] = []
    for place, (name, kind), hot, mild, cold, recent, blind, rate, least_s in zip(
        first.tolist(), names, *told, add_up(unknown), rates, idle.tolist(), strict=True
    ):
        size = hot + mild + cold
        if not size and not blind:
            held.append(None)
            continue
        one = Holding(name, kind, int(hot), int(mild), int(cold), int(blind), recent=int(recent))
        if size:
            one.rate_percent, one.idle_s = rate / size, least_s
        held.append((place, one))
    return held


def divided(snapshot: Snapshot, layout: Layout) -> tuple[RegionBatch, NDArray[np.intp]]:
    """The regions of a snapshot, divided at the bounds of mappings, in address order; of each the place of its mapping
    in the ``names`` of the layout, shape (n,)."""
    index, low, high = _pieces(snapshot, layout.bounds)
    pieces = columns.cut(snapshot.columns, index, low, high)
    return RegionBatch.of([Snapshot.of(snapshot.head, pieces)]), _groups(layout, low)


def _groups(layout: Layout, low: U64) -> NDArray[np.intp]:
    """Of pieces that begin at ``low`` the places of their mappings in the ``names`` of the layout."""
    owner = np.searchsorted(layout.starts, low, "right") - 1  # -1 is none, and the group behind those of mappings
    owner[(owner >= 0) & (low >= np.append(layout.ends, np.uint64(0))[owner])] = -1
    return layout.group[owner]


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
