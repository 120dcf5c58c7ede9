"""One process on a simulated machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydamon.ops.sim.extents import Extents
from pydamon.ops.sim.summary import Counts
from pydamon.workload.intervals import Spans
from pydamon.workload.layout import Layout
from pydamon.workload.program import Accesses
from pydamon.workload.truth import Schedule


@dataclass(slots=True)
class SimTarget:
    """One simulated process: where its memory lies, and how it accesses it. ``left`` is what it had when it ended."""

    layout: Layout
    model: Accesses
    schedule: Schedule
    memcg: str
    extents: Extents
    counts: Counts = field(default_factory=Counts)
    ended: bool = False
    left: Spans | None = None
