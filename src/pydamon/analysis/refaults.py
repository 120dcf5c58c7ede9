"""How many bytes would come back of memory that is paged out once it was idle for some time: from a page panel.

Whatever ends an idle time of at least the wanted age would be a refault of a policy that pages out at that age ("cold
age" and "promotion" histograms of software-defined far memory, Lagar-Cavilla et al. 2019). Each of the panel's pages
stands for as many bytes as were drawn from for one page. It is an open loop: what is paged out does not change when it
is used again.

The interval is the score interval of a Poisson count. Idle times of one page are much alike, and all of its returns
come with the page, so what counts as drawn is how many pages have returned: the returns, divided by how many of such
idle times one page can have in the time that was seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.panel import Estimate, Z, used_within
from pydamon.analysis.together import Together
from pydamon.core.panel import BOUNDS_S, PAGE_SIZE, Look
from pydamon.modules.controller import ColdBytes
from pydamon.spec import Scheme
from pydamon.spec.words.refaults import USUAL_BP, most_per_minute, refault_words, taken_at_s, thrash_words

WORKING_SET_S = 120  # of software-defined far memory: what was used within this time
_WINDOWS_S = (WORKING_SET_S, 60, 30, 10, 5, 1)  # the next best where less was recorded
_BOUNDS = np.array(BOUNDS_S, np.float64)
_MIDDLES = (_BOUNDS + np.append(_BOUNDS[1:], 1.5 * _BOUNDS[-1])) / 2
# The weight of all accesses in idle regions beside the first of each page, see `Woken` (`benchmarks what-if-accuracy`).
EVERY = 0.2
_SECOND_NS, _MINUTE_S, _BP = 1_000_000_000, 60, 10_000


@dataclass(frozen=True, slots=True)
class Woken:
    """What would come back of memory that is taken region by region, in bytes per minute, of ``hits`` accesses.

    ``every``: each access to a page whose region was idle for long enough counts; ``once``: only if the page was, too.
    A page that is accessed again and again in a region that stays idle comes back each time that the region was taken
    in between; but it is soon noticed, since little else of the region is left in memory. The truth lies between.
    """

    every: float
    once: float
    hits: int


@dataclass(frozen=True, slots=True)
class Expected:
    """What would come back per minute of what is paged out at ``age_s``, as was seen for ``seen_s``.

    ``hits`` are the returns of single pages that were seen; ``cold`` the bytes that were idle for that long, and so
    away; ``working_set`` the bytes used within ``window_s``, None where the panel does not tell. ``by_regions``
    is None where the looks do not tell how long regions were idle.
    """

    age_s: float
    seen_s: float
    hits: int
    per_minute: Estimate
    cold_bytes: int
    working_set: Estimate | None
    window_s: int
    by_regions: Woken | None = None

    @property
    def share_bp(self) -> float | None:
        """The share of the working set that would come back per minute, in 1/10,000."""
        if self.working_set is None or not self.working_set.bytes:
            return None
        return self.per_minute.bytes * _BP / self.working_set.bytes

    @property
    def least_share_bp(self) -> float | None:
        """The same at least, in 95 of 100 cases."""
        share = self.share_bp
        return None if share is None else share * self.per_minute.low_bytes / max(self.per_minute.bytes, 1)


def expected(looks: Mapping[int, Sequence[Look]], age_s: float) -> Expected | None:
    """What would come back of all targets; None if less was recorded than it takes to see memory that old return."""
    return PanelReturns(looks).at(age_s)


class PanelReturns:
    """What looks at a panel (by target) tell for any age."""

    def __init__(self, looks: Mapping[int, Sequence[Look]]) -> None:
        self._seen = [Seen(mine) for mine in looks.values()]
        self._working_set, self._window_s = _working_set(looks)

    def at(self, age_s: float) -> Expected | None:
        """See `expected`."""
        parts = [part for seen in self._seen if (part := seen.returns(age_s)) is not None]
        if not parts:
            return None
        size, below, above = 0.0, 0.0, 0.0
        for part in parts:
            low, high = part.interval()
            each = _MINUTE_S / part.seen_s
            size += part.bytes * each
            below = math.hypot(below, (part.bytes - low) * each)
            above = math.hypot(above, (high - part.bytes) * each)
        return Expected(
            age_s=age_s,
            seen_s=max(part.seen_s for part in parts),
            hits=sum(part.hits for part in parts),
            per_minute=Estimate(round(size), max(math.floor(size - below), 0), math.ceil(size + above)),
            cold_bytes=round(sum(part.cold_bytes for part in parts)),
            working_set=self._working_set,
            window_s=self._window_s,
            by_regions=_by_regions(parts),
        )

    def lowest_s(self, limit_bp: float) -> int | None:
        """See `lowest_age_s`."""
        for bound in BOUNDS_S[1:]:
            found = self.at(bound)
            if found is None:
                return None
            if found.share_bp is not None and found.share_bp <= limit_bp:
                return bound
        return None


def foretold(looks: Mapping[int, Sequence[Look]], scheme: Scheme) -> list[str]:
    """Lines for people: what a scheme that pages out would bring back, and whether it would thrash. Else none."""
    age_s = taken_at_s(scheme)
    if age_s is None:
        return []
    found = expected(looks, age_s)
    if found is None:
        return [
            f"what would come back cannot be told: the panel was not looked at for longer than the age of {age_s:g} s"
        ]
    most = most_per_minute(scheme)
    size, share = found.per_minute, found.least_share_bp
    if most is not None and size.bytes > most:
        share = None if share is None else share * most / size.bytes
        size = Estimate(most, min(size.low_bytes, most), max(size.high_bytes, most))
    used = found.working_set.bytes if found.working_set is not None else None
    lines = [refault_words(size.bytes, size.half_width_bytes, used, found.window_s, found.hits, found.seen_s)]
    if share is not None and share > USUAL_BP:
        lines.append(thrash_words(share, lowest_age_s(looks, USUAL_BP)))
    return lines


def returned_bytes(looks: Sequence[Look]) -> NDArray[np.float64]:
    """Bytes of one target whose idle time of at least each of `BOUNDS_S` has ended in these looks. Shape (bounds,)."""
    found = np.zeros(len(BOUNDS_S))
    for look in looks:
        found += look.ended * _page_bytes(look)
    result: NDArray[np.float64] = np.cumsum(found[::-1])[::-1]
    return result


def lowest_age_s(looks: Mapping[int, Sequence[Look]], limit_bp: float) -> int | None:
    """The lowest of `BOUNDS_S` at which no more than that share of the working set would come back per minute.

    None where the record is too short to tell, or none is high enough.
    """
    return PanelReturns(looks).lowest_s(limit_bp)


def returned(looks: Sequence[Look]) -> tuple[ColdBytes, ...]:
    """What was used again in these looks, of all targets, by how long it had been idle: for controllers."""
    by_target: dict[int, list[Look]] = {}
    for look in looks:
        by_target.setdefault(look.target, []).append(look)
    if not by_target:
        return ()
    total = np.sum([returned_bytes(mine) for mine in by_target.values()], axis=0)
    return tuple(
        ColdBytes(bound * 1_000_000, round(size)) for bound, size in zip(BOUNDS_S, total.tolist(), strict=True)
    )


def shares_of_bins(age_s: float | NDArray[np.float64], bounds_s: NDArray[np.float64] = _BOUNDS) -> NDArray[np.float64]:
    """Of each bin the share of its idle times that are at least that long, evenly spread in it.

    ``bounds_s``: where the bins begin, as `BOUNDS_S`. Of an array of ages a column for each.
    """
    shape = (-1, *(1,) * np.ndim(age_s))
    begins, ends = bounds_s.reshape(shape), np.append(bounds_s[1:], np.inf).reshape(shape)
    inside = (ends - age_s) / np.where(np.isinf(ends), 1.0, ends - begins)
    found: NDArray[np.float64] = np.where(age_s <= begins, 1.0, np.where(np.isinf(ends), 1.0, np.clip(inside, 0, 1)))
    return found


@dataclass(frozen=True, slots=True)
class _Part:
    """The returns of one target: how many were seen, what they stand for, and of how many draws they count as."""

    seen_s: float
    hits: int
    bytes: float
    draws: float
    page_bytes: float
    cold_bytes: float
    asked: float  # the share of the memory that was asked
    woken_hits: int
    woken_bytes: float
    returned_bytes: float
    tells_woken: bool

    def interval(self) -> tuple[float, float]:
        """Bytes that come back at least and at most, in 95 of 100 cases."""
        low, high = _poisson(self.draws)
        each = self.bytes / self.draws if self.draws else self.page_bytes
        rest = math.sqrt(max(1 - self.asked, 0))  # of a finite population
        return self.bytes - (self.bytes - low * each) * rest, self.bytes + (high * each - self.bytes) * rest


class Seen:
    """The looks at one target's panel as arrays, one element (or row of bins) per look that had an answer."""

    def __init__(self, looks: Sequence[Look]) -> None:
        looks = [look for look in looks if look.pages]
        self.looks = looks
        self.after_s = np.array([(look.time_ns - looks[0].time_ns) / _SECOND_NS for look in looks])
        self.ended = np.array([look.ended for look in looks], np.float64).reshape(-1, len(BOUNDS_S))
        self.idle = np.array([look.idle + look.unseen for look in looks], np.float64).reshape(-1, len(BOUNDS_S))
        self.page_bytes = np.array([_page_bytes(look) for look in looks])
        nothing = np.zeros(len(BOUNDS_S), np.int64)
        self.tells_woken = all(look.woken is not None for look in looks)
        self.woken, self.returned = (
            np.array([nothing if one is None else one for one in counts], np.float64).reshape(-1, len(BOUNDS_S))
            for counts in ([look.woken for look in looks], [look.returned for look in looks])
        )
        unseen = np.array([look.unseen.sum() for look in looks], np.float64)
        pages = np.array([look.pages for look in looks])
        # Pages that were never seen used before, and were now: their idle time was as long as the record, or longer.
        # Not told while pages leave the panel, since these may be the same.
        first = np.maximum(-np.diff(unseen, prepend=unseen[:1]), 0)
        self.first = np.where(np.diff(pages, prepend=pages[:1]) >= 0, first, 0)

    def returns(self, age_s: float) -> _Part | None:
        """None if no time was seen in which memory of that age could have returned."""
        seen_s = float(self.after_s[-1]) - age_s if len(self.after_s) else 0.0
        if seen_s <= 0:
            return None
        shares, late = shares_of_bins(age_s), self.after_s > age_s
        first = np.where(late, self.first, 0)
        hits = self.ended @ shares + first
        idle_s = float((self.ended @ (shares * np.maximum(_MIDDLES, age_s)) + first * age_s).sum())
        often = (
            max(seen_s * float(hits.sum()) / idle_s, 1.0) if idle_s else 1.0
        )  # times that one page may have returned
        last = self.looks[-1]
        woken, returned = (np.where(late, counts @ shares, 0) for counts in (self.woken, self.returned))
        return _Part(
            seen_s=seen_s,
            hits=round(float(hits.sum())),
            bytes=float((hits * self.page_bytes).sum()),
            draws=float(hits.sum()) / often,
            page_bytes=float(self.page_bytes[-1]),
            cold_bytes=float(((self.idle @ shares) * self.page_bytes)[late].mean()),
            asked=last.pages * PAGE_SIZE / max(last.resident_bytes, 1),
            woken_hits=round(float(woken.sum())),
            woken_bytes=float(woken @ self.page_bytes),
            returned_bytes=float(returned @ self.page_bytes),
            tells_woken=self.tells_woken,
        )


def _by_regions(parts: Sequence[_Part]) -> Woken | None:
    if not all(part.tells_woken for part in parts):
        return None
    every, once = (
        sum(found * _MINUTE_S / part.seen_s for found, part in zip(of_parts, parts, strict=True))
        for of_parts in ([part.woken_bytes for part in parts], [part.returned_bytes for part in parts])
    )
    return Woken(every, once, sum(part.woken_hits for part in parts))


def _page_bytes(look: Look) -> float:
    """What one page of the panel stands for."""
    return look.resident_bytes / look.pages if look.pages else 0.0


def _poisson(count: float) -> tuple[float, float]:
    """The 95 % score interval of the mean of a Poisson count."""
    spread = Z * math.sqrt(count + Z * Z / 4)
    return max(count + Z * Z / 2 - spread, 0.0), count + Z * Z / 2 + spread


def _working_set(looks: Mapping[int, Sequence[Look]]) -> tuple[Estimate | None, int]:
    together = Together(looks) if len(looks) > 1 else None
    for window_s in _WINDOWS_S:
        if together is not None:
            found = together.used(window_s)
        else:
            found = used_within(next(iter(looks.values())), window_s)
        if found is not None:
            return found, window_s
    return None, 0
