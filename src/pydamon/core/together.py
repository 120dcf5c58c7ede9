"""The regions of all targets as if they were those of one: what is done for all costs little more than for one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core.regions import Regions

Places = NDArray[np.intp]


class Together:
    """``regions``: those of the ``targets``, one target's behind the other's.

    ``ends`` says for each target where the next one's begin (shape (targets,), regions).
    """

    def __init__(self, targets: Sequence[Regions]) -> None:
        self._given = list(targets)
        self.regions = targets[0] if len(targets) == 1 else Regions.joined(targets)
        self.ends: Places = np.cumsum([len(regions) for regions in targets])

    @property
    def borders(self) -> Places:
        """The regions with which another target begins."""
        inner = self.ends[:-1]
        return inner[(inner > 0) & (inner < len(self.regions))]

    def exchange(self, regions: Regions, index: Places) -> None:
        """``regions`` take the place of the present ones; each comes from that of ``index``, which never falls."""
        if len(self.ends) > 1:
            self.ends = index.searchsorted(self.ends)
        self.regions = regions

    def parted(self) -> list[Regions]:
        """Each target's own again. Where there are as many as were given, their addresses are the same objects."""
        if len(self._given) == 1:
            return [self.regions]
        begins = [0, *self.ends.tolist()]
        pairs = zip(self._given, begins, begins[1:], strict=False)
        return [_part(self.regions, given, slice(begin, end)) for given, begin, end in pairs]


def _part(whole: Regions, given: Regions, place: slice) -> Regions:
    part = whole.part(place)
    if len(part) == len(given):  # nothing was merged or cut there
        part.start, part.end, part.counts = given.start, given.end, given.counts
    return part
