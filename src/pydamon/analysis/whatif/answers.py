"""What taking memory of each age would save and bring back: from regions and a page panel together.

Regions say what is idle and where, and miss what comes back one page at a time: after merging, a few accesses in a
large idle region are rounded away. Panel pages are seen one by one, and of each that was accessed it is known how long
its region had been idle, by which schemes take it: what comes back lies between all of these accesses and those to
pages that were idle themselves for as long (`Woken`), and so does the bracket, with the error of what was seen.

Older records do not tell of regions. Some pages that are idle lie in regions that are in use, which no scheme takes: so
refaults are estimated from the panel's returns, by the share of its idle memory that regions call idle, too. What
regions take at an age, pages reach somewhat sooner or later: the bracket is what comes back at ages that are `_FUZZY`
times longer and shorter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.panel import touched
from pydamon.analysis.refaults import EVERY, Expected, PanelReturns
from pydamon.analysis.whatif.ages import Ages
from pydamon.core.panel import BOUNDS_S, Look

F64 = NDArray[np.float64]

FEW_HITS = 10
_MINUTE_S = 60
# By `python -m benchmarks what-if-accuracy`:
_EVERY_HIGH = 0.8  # as `EVERY`, for the upper end of the bracket
_MODEL_LOW, _MODEL_HIGH = 0.2, 0.05  # of its ends, beside the error of the hits
_FUZZY = 1.35
_MODEL = 0.25  # of the bracket's ends, beside the error of the hits
_DWELL = 0.5  # of the age: how long what comes back unnoticed in an idle region stays until the region's next turn
_WORKING_SET_S = 120.0
_DIFFERS = 0.3


@dataclass(frozen=True, slots=True)
class Row:
    """Of memory that is taken once it was idle for ``age_s``. Bytes, the mean over time; refaults in bytes per minute.

    ``saved`` is out of memory, ``cold`` is idle by regions; ``regions`` is what comes back by regions alone. ``high``
    and ``hits`` (returns of single pages that were seen) are None without a panel, or below its first bound of a
    second; then ``refaults`` is what regions say, at least. ``slope``: Denning's, the second, independent estimate.
    """

    age_s: float
    seen_s: float
    saved: float
    cold: float
    regions: float
    low: float
    refaults: float
    high: float | None
    hits: int | None
    slope: float

    @property
    def out(self) -> float:
        """Bytes a minute that are paged out: what comes back goes again, and once all that is idle."""
        return self.refaults + self.saved * _MINUTE_S / max(self.seen_s, 1.0)

    def error(self) -> float:
        """The share of the estimate that the square root of its hits leaves open; 0 where nothing is known of it."""
        return 1 / math.sqrt(self.hits) if self.hits else 0.0

    @property
    def slope_differs(self) -> bool:
        """Whether Denning's slope is farther from the estimate than it should be."""
        most = max(self.slope, self.refaults)
        return most > 0 and abs(self.slope - self.refaults) > _DIFFERS * most


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Of all thresholds, ascending; ``working_set`` in bytes, of what was used within ``window_s``.

    ``panel_pages`` is 0 without a page panel. ``untouched_panel``: bytes that no page of the panel saw used, and the
    least and the most of it.
    """

    ages: Ages
    rows: tuple[Row, ...]
    working_set: float
    window_s: float
    panel_pages: int
    untouched_panel: tuple[int, int, int] | None

    def share(self, per_minute: float) -> float:
        """What comes back in a minute as a share of the working set."""
        return per_minute / self.working_set if self.working_set else 0.0


def answers(ages: Ages, looks: Mapping[int, Sequence[Look]]) -> Answers:
    """What regions and the looks at a panel (by target; none without) say together."""
    returns = PanelReturns(looks) if looks else None
    slopes = _slopes(ages)
    rows = []
    working_set, window_s = _of_regions(ages)
    for at, age in enumerate(ages.thresholds_s.tolist()):
        if ages.seen_s[at] <= 0:
            break
        alone = float(ages.per_second[at]) * _MINUTE_S
        cold, seen_s, slope = float(ages.cold[at]), float(ages.seen_s[at]), float(slopes[at])
        found = returns.at(age) if returns is not None and age >= BOUNDS_S[1] else None
        if found is None or returns is None:
            rows.append(Row(age, seen_s, cold, cold, alone, alone, alone, None, None, slope))
            continue
        if found.working_set is not None:
            working_set, window_s = float(found.working_set.bytes), float(found.window_s)
        beside = returns.at(age * _FUZZY), returns.at(age / _FUZZY)
        row = Row(age, seen_s, cold, cold, alone, 0, 0, 0, found.hits, slope)
        rows.append(_together(row, found, beside) if found.by_regions is None else _by_regions(row, found))
    pages = sum(mine[-1].pages for mine in looks.values())
    return Answers(ages, tuple(rows), working_set, window_s, pages, _untouched(looks))


def _by_regions(row: Row, found: Expected) -> Row:
    """The row with what the panel says of regions that were idle for long enough."""
    woken = found.by_regions
    assert woken is not None
    row = replace(row, hits=woken.hits)
    estimate, most = (woken.every * share + woken.once * (1 - share) for share in (EVERY, _EVERY_HIGH))
    low = estimate * max(1 - math.hypot(row.error(), _MODEL_LOW), 0.0)
    high = max(most, row.regions) * (1 + math.hypot(row.error(), _MODEL_HIGH))
    if not woken.hits:
        high = max(high, float(found.per_minute.high_bytes))
    saved = _saved(row, found, estimate)
    return replace(row, saved=saved, low=low, refaults=estimate, high=high)


def _together(row: Row, found: Expected, beside: tuple[Expected | None, Expected | None]) -> Row:
    """The row with what the panel says: ``found`` of its age, ``beside`` of a longer and of a shorter one."""
    both = min(row.cold / found.cold_bytes, 1.0) if found.cold_bytes else 1.0
    estimate = found.per_minute.bytes * both
    error = math.hypot(row.error(), _MODEL)
    longer, shorter = (found if one is None else one for one in beside)
    low = min(longer.per_minute.bytes * both, estimate) * max(1 - error, 0.0)
    high = max(shorter.per_minute.bytes, estimate, row.regions) * (1 + error)
    if not found.hits:
        high = max(high, float(found.per_minute.high_bytes))
    return replace(row, saved=_saved(row, found, estimate), low=low, refaults=estimate, high=high)


def _saved(row: Row, found: Expected, estimate: float) -> float:
    """What is out of memory: what regions call idle, less what has come back of that unnoticed."""
    unnoticed = max(estimate - row.regions, 0.0) / _MINUTE_S * row.age_s * _DWELL
    return min((max(row.cold - unnoticed, 0.0) + found.cold_bytes) / 2, row.cold)


def _of_regions(ages: Ages) -> tuple[float, float]:
    """The working set as regions have it: what is resident and was used within the longest window up to two minutes."""
    fits = np.flatnonzero((ages.thresholds_s <= _WORKING_SET_S) & (ages.seen_s > 0))
    if not len(fits):
        return ages.resident, 0.0
    at = int(fits[-1])
    return max(ages.resident - float(ages.cold[at]), 0.0), float(ages.thresholds_s[at])


def _slopes(ages: Ages) -> F64:
    """The slope of the working set of a window with the window, in bytes per minute: how fast memory gets that old."""
    if len(ages.thresholds_s) < 2:
        return np.zeros(len(ages.thresholds_s))
    found: F64 = np.maximum(-np.gradient(ages.cold, ages.thresholds_s), 0.0) * _MINUTE_S
    return found


def _untouched(looks: Mapping[int, Sequence[Look]]) -> tuple[int, int, int] | None:
    found = [(mine[-1].resident_bytes, touched(mine)) for mine in looks.values() if mine]
    known = [(resident, one) for resident, one in found if one is not None]
    if not known:
        return None
    size = sum(resident - one.bytes for resident, one in known)
    low = math.hypot(*(one.high_bytes - one.bytes for _, one in known))
    high = math.hypot(*(one.bytes - one.low_bytes for _, one in known))
    return size, max(round(size - low), 0), round(size + high)
