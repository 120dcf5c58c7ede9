"""The page panel: pages drawn at random that are looked at one by one, beside the regions.

Regions tell where hot and cold memory is; a panel tells how much there is, with an error. Its pages are drawn by a hash
of their number: every resident page has the same chance, and which ones it are stays the same over a run, as long as
they are resident. Of each page it is known since when it was not accessed, or, until it was first seen accessed or
faulted in, only since when nothing was seen: a lower bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.spec.defaults import PANEL_PAGES

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

PAGE_SIZE = 4096
LEAST = 64  # of one target
# Idle times are told apart by these bounds, in seconds: about 8 to a decade, and what people ask for.
BOUNDS_S = (
    0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 180, 240, 300, 400, 500, 600, 800,
    1000, 1200, 1500, 1800, 2400, 3000, 3600, 5400, 7200, 10800, 14400, 21600, 28800, 43200, 64800, 86400,
)  # fmt: skip
_BOUNDS_NS = np.array(BOUNDS_S, np.int64) * 1_000_000_000
_CHUNK = 1 << 18  # pages that are hashed together
_LESS, _MORE = 1 / 1.1, 1.4  # the number of pages may be that many times what is wanted before the chance is changed
_EVEN = 25 / 32  # of all pages are drawn from all targets with one chance: 800 of 1,024, ± 3.5 % of what is resident
_ALL = float(1 << 64)
_ROUGH_BITS = 4


def hashes(pages: U64, seed: int) -> U64:
    """A number of 64 random-looking bits for each page number (the finalizer of SplitMix64; Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        found = pages + np.uint64((seed * 0x9E3779B97F4A7C15) & (2**64 - 1))
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        result: U64 = found ^ (found >> np.uint64(31))
    return result


def drawn(runs: U64, chance: float, seed: int) -> U64:
    """The addresses of those pages of ``runs`` (shape (n, 2), bytes) that are drawn, each with the same ``chance``.

    Sorted. With a lower chance it is a subset: a panel can be thinned and filled up without drawing anew.
    """
    if not len(runs) or chance <= 0:
        return np.empty(0, np.uint64)
    limit = np.uint64(min(int(chance * _ALL), 2**64 - 1))
    first = runs[:, 0] // np.uint64(PAGE_SIZE)
    counts = ((runs[:, 1] - runs[:, 0]) // np.uint64(PAGE_SIZE)).astype(np.int64)
    behind = np.cumsum(counts)
    found = []
    for begin in range(0, int(behind[-1]), _CHUNK):
        offset = np.arange(begin, min(begin + _CHUNK, int(behind[-1])))
        run = np.searchsorted(behind, offset, "right")
        pages = first[run] + (offset - (behind[run] - counts[run])).astype(np.uint64)
        found.append(pages[hashes(pages, seed) <= limit])
    return np.concatenate(found) * np.uint64(PAGE_SIZE)


def shares(resident_pages: dict[int, int], size: int = PANEL_PAGES, least: int = LEAST) -> dict[int, float]:
    """How many pages of each target there are to be, on average.

    Most of ``size`` is in proportion to what is resident, so that all targets together are known as well as one would
    be. The rest makes up for ``least`` pages of each (if it has them), the largest first, as far as it goes.
    """
    total = sum(resident_pages.values())
    if not total:
        return {}
    alone = len(resident_pages) == 1
    chance = min((1.0 if alone else _EVEN) * size / total, 1.0)
    found = {target: chance * pages for target, pages in resident_pages.items() if pages}
    room = size - sum(found.values())
    for target in sorted(found, key=lambda target: -resident_pages[target]):
        more = min(least, resident_pages[target]) - found[target]
        if 0 < more <= room:
            found[target] += more
            room -= more
    return {
        target: min(count + room * resident_pages[target] / total, resident_pages[target])
        for target, count in found.items()
    }


def at_least(resident_pages: dict[int, int], size: int, least: int) -> dict[int, float]:
    """As `shares`, but ``least`` pages of each target that has them, whatever that makes of all together.

    ``size`` pages are in proportion to what is resident; who has fewer by that gets the rest on top. What is resident
    together counts roughly, so that the numbers stay while little changes: other numbers mean drawing anew.
    """
    total = sum(resident_pages.values())
    step = 1 << max(total.bit_length() - _ROUGH_BITS, 0)
    total = -(-total // step) * step
    return {
        target: float(min(max(size * pages / total, least), pages)) for target, pages in resident_pages.items() if pages
    }


class Once(msgspec.Struct, eq=False):
    """The pages of a `Look`, each of which counts for 1 / the number of targets that map it: together they count once.

    ``weighed``: of how many pages that number is known; ``weights`` is the sum of what they count for, ``squares`` that
    of its squares. ``idle`` and ``unseen`` are as in `Look`, but sums of weights, and accesses are those of any target
    that maps the page; ``told`` is the sum of the squares of these weights.
    """

    weighed: int
    weights: float
    squares: float
    idle: F64
    unseen: F64
    told: float


class Look(msgspec.Struct, eq=False):
    """What is known of one target's panel at one time: numbers of pages, by the bins of `BOUNDS_S` (the last is open).

    ``idle``: not accessed for that long. ``unseen``: not accessed for at least that long; since when is not known.
    ``ended``: idle times that an access has ended since the look before. ``unknown`` pages could not be asked.
    ``resident_bytes`` is what the panel stands for. ``once`` is None where nobody knows what targets share.
    ``woken``: pages accessed since the look before, by how long their regions have been idle at most since they were
    accessed last, as long as any was; ``returned`` counts them by how long they were idle themselves if that is less,
    so that one that is accessed again and again in an idle region is there once for a long time: together they say what
    would have come back of memory that is taken region by region. None where nobody knows regions.
    """

    time_ns: int
    target: int
    resident_bytes: int
    idle: I64
    unseen: I64
    ended: I64
    unknown: int
    once: Once | None = None
    woken: I64 | None = None
    returned: I64 | None = None

    @property
    def pages(self) -> int:
        """How many pages were asked, with an answer."""
        return int(self.idle.sum() + self.unseen.sum())


@dataclass(slots=True)
class Watched:
    """Pages of one target that are asked. All arrays are parallel; times in ns of the monitoring's clock."""

    address: U64 = field(default_factory=lambda: np.empty(0, np.uint64), init=False)
    since_ns: I64 = field(default_factory=lambda: np.empty(0, np.int64), init=False)  # not accessed since then
    known: Mask = field(default_factory=lambda: np.empty(0, np.bool_), init=False)  # else it may be longer
    unknown: Mask = field(default_factory=lambda: np.empty(0, np.bool_), init=False)  # the last look had no answer
    region_idle_ns: I64 = field(
        default_factory=lambda: np.empty(0, np.int64), init=False
    )  # at most, since it was accessed; -1: never

    def __len__(self) -> int:
        return len(self.address)

    def only(self, address: U64, now_ns: int, faulted: U64 | None = None) -> None:
        """Watch these pages; what is known of those that stay, stays. ``faulted`` spans were accessed just now."""
        self._keep(np.isin(self.address, address, assume_unique=True))
        new = address[~np.isin(address, self.address, assume_unique=True)]
        fresh = np.zeros(len(new), np.bool_) if faulted is None or not len(faulted) else _inside(new, faulted)
        self.address = np.concatenate([self.address, new])
        self.since_ns = np.concatenate([self.since_ns, np.full(len(new), now_ns, np.int64)])
        self.known = np.concatenate([self.known, fresh])
        self.unknown = np.concatenate([self.unknown, np.zeros(len(new), np.bool_)])
        self.region_idle_ns = np.concatenate([self.region_idle_ns, np.full(len(new), -1, np.int64)])

    def observe(self, accessed: Mask, unknown: Mask, now_ns: int) -> None:
        """What was found of each page since the last look; an access is taken for one of just now."""
        self.since_ns[accessed] = now_ns
        self.known |= accessed
        self.unknown = unknown & ~accessed

    def _keep(self, which: Mask) -> None:
        self.address, self.since_ns = self.address[which], self.since_ns[which]
        self.known, self.unknown = self.known[which], self.unknown[which]
        self.region_idle_ns = self.region_idle_ns[which]


@dataclass(slots=True)
class TargetPanel(Watched):
    """The panel's pages of one target.

    ``idle_of_regions`` tells of addresses for how long the regions that they are in have been idle (ns); -1 where one
    is in use.
    """

    target: int
    seed: int
    chance: float = 0.0
    idle_of_regions: Callable[[U64], I64] | None = None
    _ended: I64 = field(default_factory=lambda: np.zeros(len(BOUNDS_S), np.int64))
    _woken: I64 = field(default_factory=lambda: np.zeros(len(BOUNDS_S), np.int64))
    _returned: I64 = field(default_factory=lambda: np.zeros(len(BOUNDS_S), np.int64))

    def follow(self, runs: U64, wanted: float, now_ns: int, faulted: U64 | None = None) -> None:
        """Draw from the resident ``runs`` about ``wanted`` pages; those that were drawn before stay.

        ``faulted``: what of ``runs`` was surely not resident at the last call: it was accessed since.
        """
        pages = int((runs[:, 1] - runs[:, 0]).sum()) // PAGE_SIZE
        if not pages or not wanted:
            self._keep(np.zeros(len(self), np.bool_))
            self.chance = 0.0
            return
        expected = self.chance * pages
        if not wanted * _LESS <= expected <= wanted * _MORE:
            self.chance = min(wanted / pages, 1.0)
        self.only(drawn(runs, self.chance, self.seed), now_ns, faulted)

    def observe(self, accessed: Mask, unknown: Mask, now_ns: int) -> None:
        """See `Watched.observe`; the lengths of idle times that end are kept until the next `look`."""
        ended = accessed & self.known
        np.add.at(self._ended, bins_of(now_ns - self.since_ns[ended]), 1)
        if self.idle_of_regions is not None:
            # Not by the regions of now: what was taken stays out when another page ends the idle time of its region.
            found = accessed & (self.region_idle_ns >= 0)
            woken_ns = self.region_idle_ns[found]
            self._woken += np.bincount(bins_of(woken_ns), minlength=len(BOUNDS_S))
            returned_ns = np.minimum(woken_ns, now_ns - self.since_ns[found])
            self._returned += np.bincount(bins_of(returned_ns), minlength=len(BOUNDS_S))
            now_idle_ns = self.idle_of_regions(self.address)
            self.region_idle_ns = np.where(accessed, now_idle_ns, np.maximum(self.region_idle_ns, now_idle_ns))
        Watched.observe(self, accessed, unknown, now_ns)

    def look(self, resident_bytes: int, now_ns: int) -> Look:
        """How long the pages have been idle now; what has ended since the last call is told once."""
        answered = ~self.unknown
        bins = bins_of(now_ns - self.since_ns)
        idle, unseen = (np.bincount(bins[which], minlength=len(BOUNDS_S)) for which in
                        (answered & self.known, answered & ~self.known))  # fmt: skip
        ended, self._ended = self._ended, np.zeros(len(BOUNDS_S), np.int64)
        (woken, returned), tells = (self._woken, self._returned), self.idle_of_regions is not None
        self._woken, self._returned = np.zeros((2, len(BOUNDS_S)), np.int64)
        unknown = int(np.count_nonzero(self.unknown))
        return Look(
            now_ns, self.target, resident_bytes, idle, unseen, ended, unknown,
            woken=woken if tells else None, returned=returned if tells else None,
        )  # fmt: skip


def bins_of(idle_ns: I64) -> NDArray[np.intp]:
    """The bin of `BOUNDS_S` of each idle time."""
    return np.maximum(np.searchsorted(_BOUNDS_NS, idle_ns, "right") - 1, 0)


def _inside(addresses: U64, spans: U64) -> Mask:
    """Which addresses lie in one of the sorted, disjoint ``spans``."""
    at = np.searchsorted(spans[:, 0], addresses, "right") - 1
    found: Mask = (at >= 0) & (addresses < spans[np.maximum(at, 0), 1])
    return found
