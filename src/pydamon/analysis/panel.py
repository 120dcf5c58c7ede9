"""How much memory was used within a window, and how much has been idle, with 95 % intervals: from a page panel.

Each page of a panel is drawn with the same chance from what is resident, so the share of its pages that were accessed
within the window estimates the share of the resident bytes. The interval is Wilson's score interval (E. B. Wilson 1927)
with the correction for a finite population: a panel that has all pages has no error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.core.panel import BOUNDS_S, PAGE_SIZE, Look, Once

_EARLY_NS = 900_000_000  # looks come once a second, or less often
_SHORT_S = 3
_MORE_UNKNOWN = 0.05  # of the pages
MOST_UNDETERMINED = 0.05  # of the pages
_ONCE = ("weighed", "weights", "squares", "once_idle", "once_unseen", "once_squares")
SECOND_NS = 1_000_000_000
Z = 1.959964  # the 97.5th percentile of the normal distribution


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number of bytes: between ``low_bytes`` and ``high_bytes`` in 95 of 100 cases."""

    bytes: int
    low_bytes: int
    high_bytes: int

    @property
    def half_width_bytes(self) -> int:
        """Half of the interval's width: what stands behind ±."""
        return (self.high_bytes - self.low_bytes + 1) // 2

    def of_rest(self, total_bytes: int) -> Estimate:
        """Of all but that: idle bytes from used ones."""
        return Estimate(total_bytes - self.bytes, total_bytes - self.high_bytes, total_bytes - self.low_bytes)


def share_interval(hits: float, asked: float, population: float) -> tuple[float, float]:
    """The 95 % interval of a share of which ``hits`` of ``asked`` were found, drawn from ``population`` without return.

    Wilson's interval for the number of independent draws that have the same variance.
    """
    if asked <= 0:
        return 0.0, 1.0
    if asked >= population:
        return hits / asked, hits / asked
    return wilson(hits / asked, asked * (population - 1) / (population - asked))


def wilson(share: float, draws: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share that was found in so many independent draws."""
    square = Z * Z
    centre = (share + square / (2 * draws)) / (1 + square / draws)
    spread = Z * math.sqrt(share * (1 - share) / draws + square / (4 * draws * draws))
    spread /= 1 + square / draws
    return max(centre - spread, 0.0), min(centre + spread, 1.0)


@cache
def bound_of(window_s: float) -> int:
    """The bin of `BOUNDS_S` at which a window ends: the nearest bound."""
    bounds = np.array(BOUNDS_S[1:], np.float64)
    return 1 + int(np.argmin(np.abs(np.log(bounds) - math.log(max(window_s, BOUNDS_S[1])))))


def in_time(time_ns: NDArray[np.int64], window_s: float) -> NDArray[np.bool_]:
    """Which looks, at these times, tell of a window that short: not those that came early, as the last one may.

    What the look before has found is not as old then as it seems, since an access counts for one just before a look.
    """
    gaps = np.diff(time_ns, prepend=time_ns[:1] - _EARLY_NS)
    kept: NDArray[np.bool_] = gaps >= _EARLY_NS
    return kept if window_s < _SHORT_S and kept.any() else np.ones(len(time_ns), np.bool_)


def answered(unknown: Sequence[int], pages: Sequence[int]) -> NDArray[np.bool_]:
    """Which looks had an answer about nearly as many pages as the best of them; ``pages`` are those that had one.

    What had none is no random part: pages that others map, too, are cleared seldom. Shape (n,).
    """
    had = np.array(pages, np.float64)
    share = 1 - had / np.maximum(had + np.array(unknown, np.float64), 1)
    kept: NDArray[np.bool_] = share <= share.min(initial=1.0) + _MORE_UNKNOWN
    return kept


def _answered_of(looks: Sequence[Look]) -> list[Look]:
    return list(compress(looks, answered([look.unknown for look in looks], [look.pages for look in looks])))


def used_within(looks: Sequence[Look], window_s: float) -> Estimate | None:
    """Bytes of one target that were accessed within the window before each look: the mean over the looks.

    None if no look tells: as long as less than the window was recorded, nothing is known about pages that were not
    seen accessed. The looks are of the same pages, so that there being many does not make the interval narrower.
    """
    bound = bound_of(window_s)
    used, asked, population, resident = [], [], [], []
    for look in _answered_of([look for look in looks if look.unseen[:bound].sum() <= MOST_UNDETERMINED * look.pages]):
        within = int(look.idle[:bound].sum())
        longer = int(look.idle[bound:].sum() + look.unseen[bound:].sum())
        if within + longer == 0:
            continue
        used.append(within)
        asked.append(within + longer)
        population.append(look.resident_bytes / PAGE_SIZE)
        resident.append(look.resident_bytes)
    if not used:
        return None
    total = float(np.mean(resident))
    share = float(np.mean(np.array(used) / np.array(asked)))
    count = float(np.mean(asked))
    low, high = share_interval(share * count, count, float(np.mean(population)))
    return Estimate(round(share * total), math.floor(low * total), math.ceil(high * total))


def idle_for(looks: Sequence[Look], window_s: float) -> Estimate | None:
    """Bytes of one target that have not been accessed for at least that long; None as in `used_within`."""
    used = used_within(looks, window_s)
    if used is None:
        return None
    return used.of_rest(round(float(np.mean([look.resident_bytes for look in looks]))))


def touched(looks: Sequence[Look]) -> Estimate | None:
    """Bytes that were accessed (or faulted in) at all since the panel knows them, of what was resident at the last look
    that was `answered`."""
    look = _answered_of(looks)[-1]
    if not look.pages:
        return None
    seen = int(look.idle.sum())
    low, high = share_interval(seen, look.pages, look.resident_bytes / PAGE_SIZE)
    size = look.resident_bytes
    return Estimate(round(seen / look.pages * size), math.floor(low * size), math.ceil(high * size))


def estimate(looks: Sequence[Look], window_s: float, first_ns: int | None = None) -> Estimate | None:
    """The working set of a window: from the looks that come at least so long after the first one.

    ``first_ns`` is when the first look was, where the looks (at least one) are not from the beginning on.
    """
    time_ns = np.array([look.time_ns for look in looks], np.int64)
    began_ns = time_ns[0] if first_ns is None else first_ns
    which = (time_ns - began_ns >= (window_s - 1.5) * SECOND_NS) & in_time(time_ns, window_s)
    settled = [looks[at] for at in np.flatnonzero(which).tolist()]
    return used_within(settled, window_s) if settled else None


def estimates(look: Look, windows_s: Sequence[int], first_ns: int) -> list[Estimate | None]:
    """As `estimate` of this look (which did not come early) alone, for several windows at once."""
    within, undetermined = np.cumsum(look.idle).tolist(), np.cumsum(look.unseen).tolist()
    pages, resident = within[-1] + undetermined[-1], look.resident_bytes
    found: list[Estimate | None] = []
    for window_s in windows_s:
        place = bound_of(window_s) - 1
        asked = pages - undetermined[place]
        settled = look.time_ns - first_ns >= (window_s - 1.5) * SECOND_NS
        if not settled or undetermined[place] > MOST_UNDETERMINED * pages or not asked:
            found.append(None)
            continue
        low, high = share_interval(within[place], asked, resident / PAGE_SIZE)
        size = round(within[place] / asked * resident)
        found.append(Estimate(size, math.floor(low * resident), math.ceil(high * resident)))
    return found


def latest(looks: Sequence[Look]) -> Sequence[Look]:
    """The last of the last looks that did not come early (see `in_time`), as a sequence of one; none of none."""
    early = len(looks) > 1 and looks[-1].time_ns - looks[-2].time_ns < _EARLY_NS
    return looks[-2:-1] if early else looks[-1:]


def look_of(row: Mapping[str, Any]) -> Look | None:
    """The look that a row of the side table ``panel`` tells of; None if it has other bins than ours."""
    idle, unseen, ended = (np.array(row[name], np.int64) for name in ("idle", "unseen", "ended"))
    if any(len(one) != len(BOUNDS_S) for one in (idle, unseen, ended)):
        return None
    head = (row["time_ns"], row["target"], row["resident_bytes"])
    told = [row.get(name) for name in ("woken", "returned")]
    woken, returned = (
        np.array(one, np.int64) if one is not None and len(one) == len(BOUNDS_S) else None for one in told
    )
    return Look(*head, idle, unseen, ended, row["unknown"], _once_of(row), woken, returned)


def _once_of(row: Mapping[str, Any]) -> Once | None:
    """What a look says of memory that targets share; None if nothing, or nothing that can be."""
    if any(row.get(name) is None for name in _ONCE):
        return None
    idle, unseen = (np.array(row[name], np.float64) for name in ("once_idle", "once_unseen"))
    numbers = np.array([row[name] for name in ("weights", "squares", "once_squares")], np.float64)
    values = np.concatenate([idle, unseen, numbers])
    if len(idle) != len(BOUNDS_S) or len(unseen) != len(BOUNDS_S) or not ((values >= 0) & (values < 2**53)).all():
        return None
    return Once(row["weighed"], float(numbers[0]), float(numbers[1]), idle, unseen, float(numbers[2]))
