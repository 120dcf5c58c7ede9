"""Several targets together: sums of what each of them has at the same moment, not of percentiles or means.

The moments are the ends of all snapshots. A target has what its snapshot says that covers the moment; where there is
none, it was not there (or not looked at) and has nothing. Memory that targets share counts for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pydamon.spans import distinct

I64 = NDArray[np.int64]
TOTAL = -1  # the number of what is not a target, but all of them together
_Number = TypeVar("_Number", bound=np.number)


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """``start_ns`` and ``end_ns`` of each (parallel); ``picks``: of each target, its snapshot there, -1 for none."""

    start_ns: I64
    end_ns: I64
    picks: list[NDArray[np.intp]]


def moments(spans: Sequence[tuple[I64, I64]]) -> Moments:
    """The moments of several targets, each given by (start, end) in ns of its snapshots, in the order of time."""
    end_ns = distinct(np.concatenate([end for _, end in spans]))
    start_ns = end_ns.copy()
    picks = []
    for starts, ends in spans:
        place = np.searchsorted(ends, end_ns, "left")
        held = np.minimum(place, len(ends) - 1)
        place[(place == len(ends)) | (starts[held] >= end_ns)] = -1
        picks.append(place)
        here = place >= 0
        start_ns[here] = np.minimum(start_ns[here], starts[place[here]])
    start_ns[1:] = np.maximum(start_ns[1:], end_ns[:-1])
    return Moments(start_ns, end_ns, picks)


def picked(values: NDArray[_Number], place: NDArray[np.intp]) -> NDArray[_Number]:
    """The values at the places; 0 where there is none."""
    found = np.zeros(len(place), values.dtype)
    here = place >= 0
    found[here] = values[place[here]]
    return found


def covered_ns(start_ns: I64, end_ns: I64) -> int:
    """How long at least one of the spans lasts."""
    order = np.argsort(start_ns, kind="stable")
    start, reach = start_ns[order], np.maximum.accumulate(end_ns[order])
    begin = np.maximum(start[1:], reach[:-1])
    rest = np.maximum(reach[1:] - begin, 0)
    return int(reach[0] - start[0]) + int(rest.sum()) if len(start) else 0
