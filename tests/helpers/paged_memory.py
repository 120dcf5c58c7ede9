"""Memory of which each page is used by chance at a rate of its own: what a monitor sees of it, and what a scheme takes.

Blocks of pages stand for regions: one is as old as the last time at which a sampled page of it was used. How much of
what was taken comes back is so known exactly (`Memory.back_per_minute`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pydamon.core.panel import BOUNDS_S
from pydamon.modules.controller import ColdBytes, Observations, SetMinAge, SetQuota
from pydamon.modules.refaults import RefaultController, RefaultRule, working_set_bytes

PAGE = 4096
SCHEME = "reclaim"
_BLOCK = 64
_PANEL = 1024
_LIMIT = 0.002  # of the working set comes back per minute
Rates = NDArray[np.float64]


class Memory:
    """``rates``: uses per second of each page, a multiple of 64 of them."""

    def __init__(self, rates: Rates, seed: int = 1) -> None:
        self._rng = np.random.default_rng(seed)
        self.rates = rates
        self.here = np.ones(len(rates), np.bool_)
        self.taken = self.back = 0
        self.min_age_s, self.quota = 120.0, 128 << 20
        self._block_s = np.zeros(len(rates) // _BLOCK)
        self._idle_s = np.zeros(len(rates))
        self._panel = self._rng.random(len(rates)) < _PANEL / len(rates)
        self._returned: list[NDArray[np.float64]] = []

    def back_per_minute(self) -> float:
        """Pages of what is away that come back in a minute, as it is to be expected."""
        return float(self.rates[~self.here].sum()) * 60

    @property
    def out_mib(self) -> float:
        """What is away."""
        return float(np.count_nonzero(~self.here)) * PAGE / (1 << 20)

    def second(self) -> None:
        """A second passes."""
        used = self._rng.random(len(self.rates)) < -np.expm1(-self.rates)
        back = used & ~self.here
        self.back += int(np.count_nonzero(back))
        self.here |= used
        seen = np.where(self.here, self.rates, 0).reshape(-1, _BLOCK).mean(axis=1)
        hit = self._rng.random(len(seen)) < -np.expm1(-seen)
        self._block_s = np.where(hit, 0, self._block_s + 1)
        self._returned.append(self._idle_s[used & ~back & self._panel])
        self._idle_s = np.where(used, 0, self._idle_s + 1)
        self._take()

    def _take(self) -> None:
        left = self.quota // PAGE
        old = np.flatnonzero(self._block_s >= self.min_age_s)
        for block in old[np.argsort(-self._block_s[old], kind="stable")].tolist():
            if left <= 0:
                return
            pages = block * _BLOCK + np.flatnonzero(self.here[block * _BLOCK : (block + 1) * _BLOCK])[:left]
            if len(pages):
                self.here[pages] = False
                self.taken += len(pages)
                left -= len(pages)
                self._block_s[block] = 0

    def look(self, now_s: int) -> Observations:
        """What there is to see now."""
        here = self.here.reshape(-1, _BLOCK).sum(axis=1)
        idle = np.concatenate([*self._returned, np.empty(0)])
        self._returned = []
        each = int(np.count_nonzero(self.here)) * PAGE / max(int(np.count_nonzero(self._panel & self.here)), 1)
        return Observations(
            now_ns=now_s * 10**9,
            resident_bytes=int(np.count_nonzero(self.here)) * PAGE,
            cold=tuple(ColdBytes(age * 10**6, int(here[self._block_s >= age].sum()) * PAGE) for age in BOUNDS_S[1:36]),
            returned=tuple(
                ColdBytes(age * 10**6, round(int(np.count_nonzero(idle >= age)) * each)) for age in BOUNDS_S[1:36]
            ),
            back_bytes=self.back * PAGE,
            applied={SCHEME: self.taken * PAGE},
        )


def zipf(used: int, pages: int, uses_per_s: float) -> Rates:
    """Of the first ``used`` pages the n-th is used 1/n as often as the first; the others are never used."""
    rates = 1 / np.arange(1.0, used + 1)
    return np.concatenate([rates * (uses_per_s / rates.sum()), np.zeros(pages - used)])


@dataclass(frozen=True)
class Minute:
    """One minute: pages that came back, and that were to be expected back at its end; how many may; MiB away."""

    back: int
    expected: float
    allowed: float
    out_mib: float
    min_age_s: float


def driven(
    memory: Memory,
    minutes: int,
    each_second: Callable[[Memory, int], object] = lambda memory, now_s: None,
) -> list[Minute]:
    """Minutes of the memory with the refaults driver, which decides on the scheme's age and quota."""
    controller, found, before = RefaultController(RefaultRule(scheme=SCHEME, most_bytes=128 << 20)), [], 0
    for now_s in range(minutes * 60 + 1):
        each_second(memory, now_s)
        if now_s % max(controller.interval_us // 1_000_000, 1) == 0:
            seen = memory.look(now_s)
            for decision in controller.step(seen):
                if isinstance(decision, SetQuota) and decision.sz_bytes is not None:
                    memory.quota = decision.sz_bytes
                if isinstance(decision, SetMinAge):
                    memory.min_age_s = decision.min_age_us / 1e6
            if now_s and now_s % 60 == 0:
                allowed = (working_set_bytes(seen) or 0) * _LIMIT / PAGE
                minute = Minute(
                    memory.back - before, memory.back_per_minute(), allowed, memory.out_mib, memory.min_age_s
                )
                found.append(minute)
                before = memory.back
        memory.second()
    return found
