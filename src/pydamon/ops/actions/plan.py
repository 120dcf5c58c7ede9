"""What a dry run would have done: a bounded list of ranges for who prints it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pydamon.ops.actions.pages import Pages, Segments, runs
from pydamon.ops.base import Ranges
from pydamon.spec import Scheme

MAX_RANGES = 1000  # of one application
MAX_PLANS = 100  # that are kept until they are taken; of more, the latest


@dataclass(frozen=True, slots=True)
class PlannedRange:
    """Addresses [start, end) of a target, in bytes, that would be acted on, and whose they are."""

    target: int
    start: int
    end: int
    size: int
    owner: str


@dataclass(slots=True)
class Plan:
    """One application. ``bytes`` of all ranges together, ``omitted`` of how many only that is told."""

    scheme: Scheme
    target: int
    ranges: list[PlannedRange]
    bytes: int = 0
    omitted: int = 0
    _all: list[Ranges] = field(default_factory=list)

    def add(self, ranges: Ranges, owners: list[str], which: list[int]) -> None:
        """Ranges (k, 2) that belong to ``owners[which[i]]``."""
        self._all.append(ranges)
        room = max(MAX_RANGES - len(self.ranges), 0)
        for (start, end), owner in zip(ranges[:room].tolist(), which[:room], strict=True):
            self.ranges.append(PlannedRange(self.target, start, end, end - start, owners[owner]))
        self.omitted += max(len(ranges) - room, 0)
        self.bytes += int((ranges[:, 1] - ranges[:, 0]).sum(dtype=np.uint64))

    def take_all(self) -> list[Ranges]:
        """All ranges that were added, for once: only those that are told are kept."""
        ranges, self._all = self._all, []
        return ranges

    def add_pages(self, pages: Pages, owners: list[str]) -> None:
        """Pages, whose owners are told by mapping."""
        ranges, mapping, _ = runs(pages)
        self.add(ranges, owners, mapping.tolist())

    def add_segments(self, segments: Segments, owners: list[str]) -> None:
        """Segments, whose owners are told by mapping."""
        self.add(segments.ranges, owners, segments.mapping.tolist())
