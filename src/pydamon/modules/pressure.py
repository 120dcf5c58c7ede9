"""Reclaim by pressure alone: as long as nobody waits, ask the kernel for a little more; no accesses are needed.

The rule is that of Senpai's ``immediate_backoff`` (facebookincubator/oomd, src/oomd/plugins/Senpai.cpp; TMO,
ASPLOS'22): nothing is set that stays, and above a bound nothing is done at all.
"""

from __future__ import annotations

import msgspec

from pydamon.modules.controller import Decision, Observations, ReclaimBytes

_SWAP_FULL_PERCENT = 80  # of it used: from there on anonymous memory stays


class PressureRule(msgspec.Struct, frozen=True, kw_only=True):
    """Per interval ``probe_permil`` of what is above ``floor_bytes``, while the pressures (percent) are below bounds.

    ``files_only``: anonymous memory stays. ``most_bytes`` in all, 0 is no bound.
    """

    interval_us: int = 6_000_000
    memory_percent: float = 0.1
    io_percent: float = 0.1
    probe_permil: int = 10
    floor_bytes: int = 0
    files_only: bool = False
    most_bytes: int = 0


class PressureController:
    """Decides by the pressure of now; where memory pressure or the size is not known it does nothing."""

    needs_accesses = False

    def __init__(self, rule: PressureRule) -> None:
        self.rule = rule
        self.interval_us = rule.interval_us

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """At most one request."""
        rule, seen = self.rule, observations
        if seen.memory is None or seen.current_bytes is None or seen.memory.worst_percent >= rule.memory_percent:
            return ()
        if seen.io is not None and seen.io.worst_percent >= rule.io_percent:
            return ()
        above = seen.current_bytes - rule.floor_bytes - seen.floor_bytes
        wanted = above * rule.probe_permil // 1000
        if rule.most_bytes:
            wanted = min(wanted, rule.most_bytes - seen.done_bytes)
        wanted -= wanted % seen.page_bytes
        if wanted <= 0:
            return ()
        return (ReclaimBytes(bytes=wanted, swappiness=0 if rule.files_only or _swap_is_full(seen) else None),)


def _swap_is_full(seen: Observations) -> bool:
    """Whether what is left of swap is to be left alone; without any the kernel takes no anonymous memory anyway."""
    total, free = seen.swap_total_bytes, seen.swap_free_bytes
    return total is not None and free is not None and free * 100 < total * (100 - _SWAP_FULL_PERCENT)
