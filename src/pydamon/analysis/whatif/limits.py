"""The lowest age that keeps within a limit, the memory that few refaults need, what a fast tier could hold at best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.whatif.answers import FEW_HITS, Answers, Row
from pydamon.analysis.whatif.costs import cpu, lost
from pydamon.spec.costs import Backing, Costs

F64 = NDArray[np.float64]
_MINUTE_S = 60
Burden = Callable[[Row, float], float]


@dataclass(frozen=True, slots=True)
class Lowest:
    """The row of the lowest age that keeps within a limit; None where none of the recording does.

    ``least_s`` and ``most_s`` are the ages that would do if as many returns fewer, or more, were to be expected as the
    square root of those that were seen; None where none does. ``few``: too few returns were seen to trust it.
    """

    row: Row | None
    least_s: float | None
    most_s: float | None

    @property
    def few(self) -> bool:
        """Whether it rests on fewer than `FEW_HITS` returns."""
        return self.row is not None and self.row.hits is not None and self.row.hits < FEW_HITS


def for_share(found: Answers, share: float) -> Lowest:
    """Such that at most this share of the working set comes back in a minute."""
    return _lowest(found, share, lambda row, times: found.share(row.refaults * times))


def for_slowdown(found: Answers, share: float, costs: Costs, backing: Backing) -> Lowest:
    """Such that a program loses at most this share of its time."""
    return _lowest(found, share, lambda row, times: slowdown(row, costs, backing, times))


def slowdown(row: Row, costs: Costs, backing: Backing, times: float = 1.0) -> float:
    """The share of its time that a program loses, if so many times as much comes back as is estimated."""
    return lost(costs, backing, row.refaults * times / _MINUTE_S, row.out * times / _MINUTE_S)


def cpu_share(row: Row, costs: Costs, backing: Backing) -> float:
    """The share of one CPU that it takes."""
    return cpu(costs, backing, row.refaults / _MINUTE_S, row.out / _MINUTE_S)


def _lowest(found: Answers, limit: float, burden: Burden) -> Lowest:
    row = next((one for one in found.rows if burden(one, 1.0) <= limit), None)
    least = next((one.age_s for one in found.rows if burden(one, 1 - one.error()) <= limit), None)
    most = next((one.age_s for one in found.rows if burden(one, 1 + one.error()) <= limit), None)
    return Lowest(row, least, most)


def miss_curve(found: Answers) -> tuple[F64, F64]:
    """(bytes of memory, bytes a second that come back) where the longest idle goes first when memory is full.

    The average eviction time (Hu et al. 2016) of a size is the idle time at which memory goes; the size is what was
    used within the lowest age, and what comes back from there on, over all ages up to that time.
    """
    ages = np.array([row.age_s for row in found.rows])
    back = np.array([row.refaults for row in found.rows]) / _MINUTE_S
    if not len(ages):
        return np.zeros(0), np.zeros(0)
    first = found.ages.resident - found.rows[0].cold
    grown = np.concatenate([np.zeros(1), np.cumsum(np.diff(ages) * (back[1:] + back[:-1]) / 2)])
    return np.minimum(first + grown, found.ages.resident), back


def memory_for(found: Answers, bytes_per_s: float) -> float | None:
    """The least memory in bytes with which no more comes back in a second; None where no age of the recording tells."""
    sizes, back = miss_curve(found)
    enough = np.flatnonzero(back <= bytes_per_s)
    if not len(enough):
        return None
    at = int(enough[0])
    if at == 0 or back[at - 1] <= back[at]:
        return float(sizes[at])
    share = (back[at - 1] - bytes_per_s) / (back[at - 1] - back[at])
    return float(sizes[at - 1] + share * (sizes[at] - sizes[at - 1]))


def fast_curve(found: Answers) -> tuple[F64, F64]:
    """(bytes of a fast tier, share of the accesses found that it could hold at best), from nothing to all in use."""
    ages = found.ages
    sizes = np.concatenate([np.zeros(1), np.cumsum(ages.rate_bytes)])
    hits = np.concatenate([np.zeros(1), np.cumsum(ages.rate_bytes * ages.rates)])
    return sizes, hits / hits[-1] if hits[-1] else hits


def fast_share(found: Answers, size: float) -> float:
    """The share of the accesses found that the hottest ``size`` bytes have: no placement has more."""
    sizes, shares = fast_curve(found)
    return float(np.interp(size, sizes, shares))
