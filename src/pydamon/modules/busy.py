"""Less is done while the machine is busy: quotas follow how long tasks wait for a CPU, and the bandwidth in use.

What is looked at is told in shares of what is allowed. Up to 1 the quotas are whole; beyond they fall at once, by the
square, so that twice what is allowed leaves a quarter; they come back by doubling, step by step.
"""

from __future__ import annotations

import msgspec

from pydamon.modules.controller import Decision, Observations, SetQuota

LEAST = 1 / 64  # of a quota: something has to be tried, so that it is noticed when it gets better
_WORTH = 0.1  # a change by less is none
_MOST_RISE = 2.0
_COST_ALLOWED = 3.0  # times what a byte took at best
_LEAST_MOVED = 4 << 20  # bytes, from which the cost of one can be told
_NS_PER_US = 1000


class BusyRule(msgspec.Struct, frozen=True, kw_only=True):
    """The whole quota of each scheme per window (``sz_bytes``, ``time_ms``; 0 is none), and what is allowed.

    ``cpu_percent``: tasks wait that share of the time for a CPU; ``bandwidth_percent``: that share of the memory's
    bandwidth is used. 0 is not looked at. Where neither is told, what it goes by is the time that a moved byte takes.
    """

    schemes: tuple[str, ...]
    sz_bytes: int = 0
    time_ms: int = 0
    cpu_percent: float = 20.0
    bandwidth_percent: float = 80.0
    interval_us: int = 2_000_000


def allowed_share(load: float) -> float:
    """How much of a quota there is at a load, which is 1 where all is just allowed."""
    return 1.0 if load <= 1 else max(1 / load**2, LEAST)


class BusyController:
    """Decides on quotas. Where nothing is told of how busy the machine is, they stay as they are."""

    needs_accesses = False

    def __init__(self, rule: BusyRule) -> None:
        self.rule = rule
        self.interval_us = rule.interval_us
        self.share = 1.0  # of the quotas
        self._set = 1.0
        self._waited: tuple[int, int] | None = None  # when, and how long (us) tasks had waited for a CPU
        self._moved = (0, 0)  # bytes, ns
        self._best: float | None = None  # ns for a byte

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """New quotas for all its schemes, if they differ enough from those that are set."""
        load = self._load(observations)
        if load is None:
            return ()
        wanted = allowed_share(load)
        self.share = min(wanted, self.share * _MOST_RISE) if wanted > self.share else wanted
        if abs(self.share - self._set) <= _WORTH * self._set and (self.share < 1 or self._set == 1):
            return ()
        self._set = self.share
        return tuple(self._decision(scheme, observations.page_bytes) for scheme in self.rule.schemes)

    def _decision(self, scheme: str, page_bytes: int) -> SetQuota:
        rule = self.rule
        size = max(int(rule.sz_bytes * self.share) // page_bytes, 1) * page_bytes if rule.sz_bytes else None
        time = max(round(rule.time_ms * self.share), 1) if rule.time_ms else None
        return SetQuota(scheme=scheme, sz_bytes=size, time_ms=time)

    def _load(self, seen: Observations) -> float | None:
        """The worst of what is told; None: nothing is."""
        rule, found = self.rule, []
        waiting = self._waiting_percent(seen)
        if rule.cpu_percent and waiting is not None:
            found.append(waiting / rule.cpu_percent)
        if rule.bandwidth_percent and seen.bandwidth_permil is not None:
            found.append(seen.bandwidth_permil / 10 / rule.bandwidth_percent)
        told = (rule.cpu_percent and seen.cpu is not None) or (
            rule.bandwidth_percent and seen.bandwidth_permil is not None
        )
        cost = self._cost(seen)
        if not told and cost is not None:
            found.append(cost)
        return max(found, default=None)

    def _waiting_percent(self, seen: Observations) -> float | None:
        """How much of the time since the last step some task waited for a CPU."""
        if seen.cpu is None:
            return None
        before, self._waited = self._waited, (seen.now_ns, seen.cpu.total_us)
        if before is None or seen.now_ns <= before[0]:
            return None
        waited_us = max(seen.cpu.total_us - before[1], 0)
        return min(100.0 * waited_us * _NS_PER_US / (seen.now_ns - before[0]), 100.0)

    def _cost(self, seen: Observations) -> float | None:
        """What a byte takes that was moved since the last time, in shares of what is allowed; None if too few were."""
        applied = sum(seen.applied.values())
        moved, spent = applied - self._moved[0], seen.spent_ns - self._moved[1]
        if moved < _LEAST_MOVED or spent <= 0:
            return None
        self._moved = (applied, seen.spent_ns)
        each = spent / moved
        self._best = each if self._best is None else min(each, self._best)
        return each / (self._best * _COST_ALLOWED)
