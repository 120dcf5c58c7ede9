"""The lowest access rate that a scheme takes lowers itself as long as nothing is found: from what can be reached down.

The steps are those of the kernel's draft DAMON_HUGEPAGE (mm/damon/hugepage.c, RFC v3): 10 samples while it is above 50,
5 above 15, else 1; never below 1. What no region reaches now is passed over at once.
"""

from __future__ import annotations

import msgspec

from pydamon.modules.controller import Decision, Observations, SetMinRate

_HIGHEST = 90  # samples: where the kernel's draft begins
_STEPS = ((50, 10), (15, 5), (1, 1))  # above so many samples, by so many
LEAST = 1


class ThresholdRule(msgspec.Struct, frozen=True, kw_only=True):
    """Per ``interval_us`` a step, if ``scheme`` was not applied to anything meanwhile."""

    scheme: str
    interval_us: int = 5_000_000


def lowered(samples: int) -> int:
    """The threshold after this one."""
    return max(next((samples - step for above, step in _STEPS if samples > above), LEAST), LEAST)


class ThresholdController:
    """Decides on the lowest rate of a scheme that begins with what a region that is always used has."""

    needs_accesses = True

    def __init__(self, rule: ThresholdRule) -> None:
        self.rule = rule
        self.interval_us = rule.interval_us
        self.samples: int | None = None
        self._applied_bytes = 0
        self._stepped_ns = 0

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """A new lowest rate, if nothing was applied since the last step, though there is a newer snapshot."""
        seen = observations
        if seen.max_nr_accesses is None or seen.snapshot_ns is None or seen.snapshot_ns <= self._stepped_ns:
            return ()  # nothing was aggregated since: it is not yet known what this threshold finds
        self._stepped_ns = seen.now_ns
        applied, before = seen.applied.get(self.rule.scheme, 0), self._applied_bytes
        self._applied_bytes = applied
        present = min(_HIGHEST if self.samples is None else self.samples, seen.max_nr_accesses)
        found = present
        if applied == before and seen.active and seen.hottest_nr_accesses:  # of what nobody uses nothing is to be found
            found = min(lowered(present), seen.hottest_nr_accesses)
        if found == self.samples:
            return ()
        self.samples = found
        return (SetMinRate(scheme=self.rule.scheme, samples=found),)
