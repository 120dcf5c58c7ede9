"""What plays on a simulated machine: a workload of phases, or whatever else knows what it accesses, and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.workload import layout as layouts
from pydamon.workload.closed_form import AccessModel
from pydamon.workload.intervals import Spans
from pydamon.workload.layout import Layout
from pydamon.workload.model import Workload
from pydamon.workload.truth import Schedule


class Accesses(Protocol):
    """Who accesses what, when. Equal arguments give equal answers; times in ns, addresses in bytes.

    ``schedule`` says when the phases (of a field: the epochs) run.
    """

    def accessed(
        self, addresses: NDArray[np.uint64], schedule: Schedule, start_ns: int, end_ns: int
    ) -> NDArray[np.bool_]:
        """For each address (shape (n,)): is its page accessed in [start_ns, end_ns)?"""
        ...

    def accessed_in(
        self, addresses: NDArray[np.uint64], schedule: Schedule, windows: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """The same for each address (shape (k, n)) in the window of its row (shape (k, 2), one after another)."""
        ...

    def touched(self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int, max_pieces: int) -> Spans:
        """Which parts of ``spans`` are accessed in [start_ns, end_ns); see `AccessModel.touched`."""
        ...

    def accesses(self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int) -> NDArray[np.float64]:
        """How many accesses each of ``spans`` gets in [start_ns, end_ns)."""
        ...


class Program(Protocol):
    """A process before it runs. ``name`` is for people."""

    @property
    def name(self) -> str: ...

    def place(self, base: int, mapping: str) -> Layout:
        """Where its memory lies; ``base`` and ``mapping`` are for one that does not know."""
        ...

    def schedule(self, start_ns: int, *, repeat: int, time_scale: float) -> Schedule:
        """When its phases run, from ``start_ns`` on."""
        ...

    def accesses(self, layout: Layout, accesses_per_s: int, seed: int) -> Accesses:
        """What it accesses; ``accesses_per_s`` is for one that does not know."""
        ...


@dataclass(frozen=True)
class Phases:
    """The program of a workload of phases."""

    workload: Workload
    name: str = "workload"

    def place(self, base: int, mapping: str) -> Layout:
        """See `Program`."""
        return layouts.place(self.workload, base, mapping)

    def schedule(self, start_ns: int, *, repeat: int, time_scale: float) -> Schedule:
        """See `Program`."""
        return Schedule.nominal(self.workload, start_ns, repeat=repeat, time_scale=time_scale)

    def accesses(self, layout: Layout, accesses_per_s: int, seed: int) -> Accesses:
        """See `Program`."""
        return AccessModel(self.workload, layout, accesses_per_s, seed)
