"""A simulated process that plays a recording again: a program with a field of rates, and the operations set of it."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.linux.process import Mapping
from pydamon.ops.base import Ranges
from pydamon.ops.pace import Clock
from pydamon.ops.sim.field import RateField
from pydamon.ops.sim.ops import SimOps
from pydamon.workload.intervals import Spans
from pydamon.workload.layout import Layout, Place
from pydamon.workload.truth import Schedule, scaled_ns


@dataclass(frozen=True, slots=True)
class Played:
    """What is played, a `Program`: ``field`` for ``lasting_ms``, over ``memory`` (bytes, sorted, disjoint), all of
    which is there from the beginning. ``ranges`` are what is monitored, ``mappings`` what was mapped."""

    field: RateField
    memory: Spans
    ranges: Ranges
    mappings: list[Mapping]
    lasting_ms: int
    name: str = "recording"

    def place(self, base: int, mapping: str) -> Layout:
        """Where it was."""
        places = tuple(Place("memory", start, end) for start, end in self.memory.tolist())
        return Layout(places, places)

    def schedule(self, start_ns: int, *, repeat: int, time_scale: float) -> Schedule:
        """One phase."""
        return Schedule.in_turn([scaled_ns(self.lasting_ms, time_scale)], start_ns, repeat)

    def accesses(self, layout: Layout, accesses_per_s: int, seed: int) -> RateField:
        """See `Program`."""
        return self.field


class ReplayOps(SimOps):
    """One process that plays a recording; what is monitored and mapped is as it was, not as its memory lies."""

    def __init__(self, played: Played, clock: Clock, *, seed: int) -> None:
        super().__init__(played, clock, seed=seed)
        self._played = played

    def mappings(self, target: int) -> list[Mapping]:
        """What was mapped."""
        return self._played.mappings

    def _range(self, target: int) -> Ranges:
        return self._played.ranges
