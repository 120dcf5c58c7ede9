"""What was known at one time of what is monitored (`Moment`), and how one goes through such times (`History`)."""

from __future__ import annotations

from collections.abc import Mapping as Dict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.summary import Layout
from pydamon.core.panel import Look
from pydamon.core.snapshot import Snapshot
from pydamon.linux.containers import Container
from pydamon.linux.process import Mapping
from pydamon.run.found import Origin

# The bounds of idle times that are told, in seconds: what people ask for, of those that panels (`core.panel.BOUNDS_S`)
# and regions (`analysis.distribution`) have both.
WINDOWS_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
LOOKS = 3  # at a panel: an early one is left out for short windows (`analysis.panel.in_time`)


class Mapped:
    """The mappings of a target, with what is worked out of them once."""

    def __init__(self, mappings: Sequence[Mapping]) -> None:
        self.mappings = mappings

    @cached_property
    def layout(self) -> Layout:
        """As `analysis.summary.holdings` takes them."""
        return Layout(self.mappings)


class Known(msgspec.Struct, eq=False):
    """What was known of one target at one time.

    ``looks`` are the last ones at its page panel (none: it has none, or none yet), the first of all was at
    ``first_look_ns``; ``footprint`` is a row of that side table, None where it is not told.
    ``returned`` are the bytes that came back since the start (`views.returned`); None where that is not known: of
    moments that are kept, and those of a record.
    """

    target: int
    snapshot: Snapshot
    mapped: Mapped
    pid: int | None = None
    command: str | None = None
    place: Container | None = None
    looks: tuple[Look, ...] = ()
    first_look_ns: int | None = None
    footprint: Dict[str, Any] | None = None
    returned: NDArray[np.float64] | None = None


class Moment(msgspec.Struct, frozen=True, eq=False):
    """What was known at ``time_ns`` (the time of snapshots) of the targets that lived, by their numbers.

    ``schemes`` and ``cost`` are the last rows of these side tables; ``began_ns`` is when monitoring began.
    """

    time_ns: int
    origin: Origin
    targets: Dict[int, Known]
    schemes: Sequence[Dict[str, Any]] = ()
    cost: Dict[str, Any] | None = None
    began_ns: int | None = None


class History(Protocol):
    """Moments in the order of time."""

    def latest(self) -> Moment | None:
        """The last one there is; None if there is none."""
        ...

    def at(self, time_ns: int) -> Moment | None:
        """As it was known at that time: the last moment that is not later, else the first; None if there is none."""
        ...

    def step(self, moment: Moment, by: int) -> Moment | None:
        """The moment so many steps later (negative: earlier), or the outermost there is; None if there is none."""
        ...

    def span(self) -> tuple[int, int] | None:
        """The times of the first and the last moment, in ns."""
        ...
