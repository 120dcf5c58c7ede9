"""Which memory of processes is there: how many bytes of each region, and resident pages to sample.

In a mapping of which every eighth page is in memory (a heap after frees, a sparse table) seven of eight samples find
nothing, however hot it is, and a region's size says nothing about memory. The kernel's DAMON goes by addresses; this is
ours. Between two looks the list is a hint: it replaces samples that hit an absent page, so new pages are sampled, too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.process import Mapping, Process
from pydamon.linux.resident_scan import STEP_NS, ResidentScan
from pydamon.ops.base import PAGE_SIZE, Addresses

_SHARE = 100  # all targets together are looked through again after that many times what it took
_FIRST_SHARE = 10  # while some have parts that nobody has looked at
_PAUSE_NS = 10_000_000  # at the least
_MOST_SAID = 4  # of many processes the same may be said of each


class Residency:
    """The resident pages of one process, as far as `ResidentScan` has come. Without the right to look, none."""

    def __init__(self, process: Process) -> None:
        self.scan = ResidentScan(process)
        self._shown: Addresses | None = None  # the runs that the next two are of
        self._starts = self._before = np.empty(0, np.uint64)

    def sample(self, start: Addresses, end: Addresses, rng: np.random.Generator) -> tuple[NDArray[np.intp], Addresses]:
        """A resident page of each range [start, end) that has one: which ranges these are, and the addresses."""
        runs = self.scan.runs
        if not len(runs):
            return np.empty(0, np.intp), np.empty(0, np.uint64)
        low, high = runs.rank(start), runs.rank(end)
        index = np.flatnonzero(high > low)
        low, pages = low[index], (high - low)[index] // np.uint64(PAGE_SIZE)
        page = np.minimum((rng.random(len(index)) * pages).astype(np.uint64), pages - np.uint64(1))
        return index, runs.at(low + page * np.uint64(PAGE_SIZE))

    def of_regions(self, start: Addresses, end: Addresses) -> tuple[Addresses, Addresses, Addresses, Addresses] | None:
        """What there is of the ranges [start, end): starts of the runs of resident pages, pages before each run (and of
        all), and per range the number of its first resident page and how many it has. None if nothing is known.

        The first two are the same objects until something else was seen.
        """
        runs = self.scan.runs
        if not len(runs):
            return None
        if self._shown is not runs.runs:
            self._shown = runs.runs
            self._starts = runs.runs[:, 0].copy()
            pages = (runs.runs[:, 1] - runs.runs[:, 0]) // np.uint64(PAGE_SIZE)
            self._before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(pages, dtype=np.uint64)])
        low = runs.rank(start) // np.uint64(PAGE_SIZE)
        return self._starts, self._before, low, runs.rank(end) // np.uint64(PAGE_SIZE) - low


class Residencies:
    """The residency of each target that was asked about, looked through in turn at a bounded share of the time."""

    def __init__(self) -> None:
        self._known: dict[int, Residency] = {}  # who was looked at longest ago comes first
        self._due_ns = 0
        self._said: set[str] = set()
        self._notices: list[str] = []

    def of(self, target: int, process: Process, mappings: Sequence[Mapping]) -> Residency:
        """That of a target whose process has these mappings now; the same sequence as before costs nothing."""
        found = self._known.get(target)
        if found is None:
            found = self._known[target] = Residency(process)
            self._due_ns = 0
        found.scan.follow(mappings)
        return found

    def step(self) -> None:
        """Look on, for about `STEP_NS` at the longest, unless that was just now."""
        now_ns = time.perf_counter_ns()
        if now_ns < self._due_ns:
            return
        spent_ns = 0
        for target in sorted(self._known, key=lambda target: self._known[target].scan.swept):
            scan = self._known[target].scan
            before_ns = scan.spent_ns
            scan.step()
            self._say(scan.obstacle)
            if scan.spent_ns == before_ns:
                continue  # it was not due
            self._known[target] = self._known.pop(target)
            spent_ns += scan.spent_ns - before_ns
            if spent_ns >= STEP_NS:
                break
        swept = all(residency.scan.swept for residency in self._known.values())
        self._due_ns = now_ns + max((_SHARE if swept else _FIRST_SHARE) * spent_ns, _PAUSE_NS)

    def _say(self, obstacle: str | None) -> None:
        if obstacle is not None and obstacle not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(obstacle)
            self._notices.append(f"how much of the memory is resident is not known: {obstacle}")

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        notices, self._notices = self._notices, []
        return notices

    def forget(self, target: int) -> None:
        """The target has ended."""
        self._known.pop(target, None)
