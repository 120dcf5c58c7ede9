"""What a monitoring loop calls while it runs, and what it shows of itself then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot
from pydamon.ops.pace import Clock
from pydamon.spec import Context, Intervals, NrRegions


class Loop(Protocol):
    """A kdamond as callbacks see it: ours (`core.kdamond`), or the kernel's as far as the kernel tells.

    ``regions`` holds the regions of each target that lives, ``targets`` their numbers, in parallel. ``snapshots`` are
    those of the last aggregation. ``passed_samples`` stays 0 where that is not told.
    """

    targets: list[int]
    regions: list[Regions]
    snapshots: list[Snapshot]
    passed_samples: int

    @property
    def clock(self) -> Clock:
        """The loop's time."""
        ...

    @property
    def context(self) -> Context:
        """What runs now."""
        ...

    @property
    def intervals(self) -> Intervals:
        """Those in force, as tuned by now."""
        ...

    @property
    def nr_regions(self) -> NrRegions:
        """The bounds in force."""
        ...

    @property
    def stop_requested(self) -> bool:
        """Whether it ends, or has ended, because it was told to."""
        ...

    def stop(self) -> None:
        """End after the current iteration; safe from any thread and from signal handlers."""
        ...


Callback = Callable[[Loop], object]


class Callbacks(msgspec.Struct):
    """Called by the monitoring loop; one that returns something true ends it after the current iteration.

    ``after_aggregation`` sees the aggregated results (``Loop.snapshots``); after it they are reset.
    ``after_sampling`` is not called where the kernel samples.
    """

    before_start: Callback | None = None
    after_sampling: Callback | None = None
    after_aggregation: Callback | None = None
    before_terminate: Callback | None = None
