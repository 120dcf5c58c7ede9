"""Operations set of a simulated process that plays a recording again: `SimOps` with a field of rates."""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.linux.process import Mapping
from pydamon.ops.base import Ranges
from pydamon.ops.pace import Clock
from pydamon.ops.sim.field import RateField
from pydamon.ops.sim.ops import SimOps
from pydamon.spec.machine import MachineSpec
from pydamon.workload.intervals import Spans
from pydamon.workload.layout import PAGE_SIZE, Layout, Place
from pydamon.workload.model import Access, Phase, Workload, WorkloadRegion


@dataclass(frozen=True, slots=True)
class Played:
    """What is played: ``field`` for ``lasting_ms``, over ``memory`` (bytes, sorted, disjoint), all of which is there
    from the beginning. ``ranges`` are what is monitored, ``mappings`` what was mapped."""

    field: RateField
    memory: Spans
    ranges: Ranges
    mappings: list[Mapping]
    lasting_ms: int


class ReplayOps(SimOps):
    """One process that plays a recording."""

    def __init__(self, played: Played, clock: Clock, *, seed: int, machine: MachineSpec | None = None) -> None:
        size = int((played.memory[:, 1] - played.memory[:, 0]).sum())
        quiet = Phase("recording", played.lasting_ms, (Access(0, False, PAGE_SIZE, 0),))
        super().__init__(Workload((WorkloadRegion("memory", size),), (quiet,)), clock, seed=seed, machine=machine)
        places = tuple(Place("memory", start, end) for start, end in played.memory.tolist())
        self._ranges = played.ranges
        self._layouts = [Layout(places, places)]
        self._mappings = [played.mappings]
        self._models = [played.field]
        self._machine = self._new_machine()

    def _range(self, target: int) -> Ranges:
        return self._ranges
