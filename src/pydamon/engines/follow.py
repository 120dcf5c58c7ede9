"""What our core does with schemes, as the trace events that the kernel has for it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from pydamon.core.regions import Regions
from pydamon.core.scheme_state import SchemeState
from pydamon.engines.base import Tell
from pydamon.linux.damon_trace import BEFORE_APPLY, ESZ, STAT


class Follower:
    """Tells of those ``events`` that are wanted."""

    def __init__(self, events: Collection[str], tell: Tell) -> None:
        self._wanted = frozenset(events)
        self._tell = tell
        self._esz: dict[int, int | None] = {}  # of each scheme, as told last

    def before_apply(self, time_ns: int, scheme: int, target: int, regions: Regions, index: NDArray[np.intp]) -> None:
        """The scheme is about to be applied to these regions of the target."""
        if BEFORE_APPLY in self._wanted and len(index):
            self._tell(
                BEFORE_APPLY, time_ns, scheme=scheme, target=target, nr_regions=len(regions),
                start=regions.start[index], end=regions.end[index],
                nr_accesses=regions.moving_sum[index], age=regions.age[index],
            )  # fmt: skip

    def after_pass(self, time_ns: int, scheme: int, state: SchemeState) -> None:
        """The scheme has gone over all regions."""
        if ESZ in self._wanted and state.scheme.quotas.limited and self._esz.get(scheme, -1) != state.quota.esz:
            self._esz[scheme] = state.quota.esz
            self._tell(ESZ, time_ns, scheme=scheme, esz=state.quota.esz)
        if STAT in self._wanted:
            self._tell(STAT, time_ns, scheme=scheme, stats=state.stats)
