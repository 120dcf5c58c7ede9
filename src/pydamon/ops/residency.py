"""Which pages of a process are in memory, so that those are sampled: ours, the kernel's DAMON samples any page.

In a mapping of which every eighth page is in memory (a heap after frees, a sparse table) seven of eight samples find
nothing, however hot it is. PAGEMAP_SCAN tells what is there in one call, at 3.5 ms per GiB resident; it is made again
when that took a small share of the time since. In between the list is only a hint: it replaces samples that hit an
absent page, so pages that are new are sampled as well.
"""

from __future__ import annotations

import os
import time

import numpy as np
from numpy.typing import NDArray

from pydamon.linux.pagemap_scan import resident_ranges
from pydamon.linux.process import Process
from pydamon.ops.base import PAGE_SIZE, Addresses

_SHARE = 500  # a scan is made again after that many times what it took
_MAX_RUNS = 1 << 18  # of pages: 6 MiB; a list that is longer is not kept
_MAX_RESIDENT = 16 << 30  # bytes: monitoring waits for the scan, and 60 ms are enough


class Residency:
    """The resident pages of one process, as of the last `refresh`. Without the right to look, or the call, none."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._due_ns = 0
        self._start: Addresses = np.empty(0, np.uint64)
        self._before: Addresses = np.zeros(1, np.uint64)  # pages in the runs before each one, and of all

    def refresh(self) -> None:
        """Look again, unless looking has just taken a while."""
        began_ns = time.perf_counter_ns()
        if began_ns < self._due_ns:
            return
        runs = self._scan()
        self._start = runs[:, 0].copy()
        pages = (runs[:, 1] - runs[:, 0]) // np.uint64(PAGE_SIZE)
        self._before = np.concatenate([np.zeros(1, np.uint64), np.cumsum(pages, dtype=np.uint64)])
        now_ns = time.perf_counter_ns()
        self._due_ns = now_ns + _SHARE * (now_ns - began_ns)

    def _scan(self) -> Addresses:
        """Runs of resident pages: shape (n, 2), bytes. None if there are too many, or it is not to be had."""
        none = np.empty((0, 2), np.uint64)
        try:
            with open(f"/proc/{self._process.pid}/statm", "rb") as file:
                if int(file.read().split()[1]) * PAGE_SIZE > _MAX_RESIDENT:
                    return none
            fd = os.open(f"/proc/{self._process.pid}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
            try:
                runs = resident_ranges(fd)
            finally:
                os.close(fd)
        except (OSError, IndexError):  # before Linux 6.7, no permission, or it has ended
            return none
        # Between the looks another process may have got this pid.
        return runs if len(runs) <= _MAX_RUNS and self._process.alive() else none

    def sample(self, start: Addresses, end: Addresses, rng: np.random.Generator) -> tuple[NDArray[np.intp], Addresses]:
        """A resident page of each range [start, end) that has one: which ranges these are, and the addresses."""
        if not len(self._start):
            return np.empty(0, np.intp), np.empty(0, np.uint64)
        low, high = self._rank(start), self._rank(end)
        index = np.flatnonzero(high > low)
        low, count = low[index], (high - low)[index]
        page = low + np.minimum((rng.random(len(index)) * count).astype(np.uint64), count - np.uint64(1))
        run = np.searchsorted(self._before, page, "right") - 1
        return index, self._start[run] + (page - self._before[run]) * np.uint64(PAGE_SIZE)

    def of_regions(self, start: Addresses, end: Addresses) -> tuple[Addresses, Addresses, Addresses, Addresses] | None:
        """What there is of the ranges [start, end): starts of the runs of resident pages, pages before each run (and of
        all), and per range the number of its first resident page and how many it has. None if nothing is known.

        The first two are the same objects until the next `refresh` that has looked again.
        """
        if not len(self._start):
            return None
        low = self._rank(start)
        return self._start, self._before, low, self._rank(end) - low

    def _rank(self, address: Addresses) -> Addresses:
        """How many resident pages lie below each address."""
        run = np.searchsorted(self._start, address, "right") - 1
        known = np.maximum(run, 0)
        inside = (address - np.minimum(self._start[known], address)) // np.uint64(PAGE_SIZE)
        rank: Addresses = self._before[known] + np.minimum(inside, self._before[known + 1] - self._before[known])
        return rank
