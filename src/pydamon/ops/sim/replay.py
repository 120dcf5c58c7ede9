"""A recording as a program of the simulator: a field of rates, from its beginning for each process that plays it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from pydamon.linux.process import Mapping
from pydamon.ops.base import Ranges
from pydamon.ops.sim.field import CELLS, Piece, RateField
from pydamon.workload.intervals import Spans
from pydamon.workload.layout import Layout, Place
from pydamon.workload.truth import Schedule, scaled_ns


@dataclass(frozen=True, slots=True)
class Played:
    """What is played, a `Program`: ``pieces`` (from anew each time that it is called) for ``lasting_ms``.

    It is over ``memory`` (bytes, sorted, disjoint), all of which is there from the beginning, in about ``cells`` cells.
    ``ranges`` are what is monitored, ``mappings`` what was mapped.
    """

    pieces: Callable[[], Iterable[Piece]]
    memory: Spans
    ranges: Ranges
    mappings: list[Mapping]
    lasting_ms: int
    name: str = "recording"
    cells: int = CELLS

    def place(self, base: int, mapping: str) -> Layout:
        """Where it was."""
        places = tuple(Place("memory", start, end) for start, end in self.memory.tolist())
        return Layout(places, places)

    def schedule(self, start_ns: int, *, repeat: int, time_scale: float) -> Schedule:
        """One phase."""
        return Schedule.in_turn([scaled_ns(self.lasting_ms, time_scale)], start_ns, repeat)

    def accesses(self, layout: Layout, accesses_per_s: int, seed: int) -> RateField:
        """See `Program`."""
        return RateField(self._again_and_again(), self.memory, self.cells)

    def _again_and_again(self) -> Iterator[Piece]:
        """Whoever plays it but once does not come to the second time."""
        nothing = np.zeros(1, np.int64)
        for turn in count():
            begins_ns = turn * self.lasting_ms * 1_000_000
            yield Piece(begins_ns, nothing, nothing, nothing)  # until its first snapshot
            for piece in self.pieces():
                yield piece.later(begins_ns)
