"""The floor of the sampling interval where a sample walks all memory of a process, which is disturbed by that.

A primitive whose check costs more, the more memory there is, cannot be asked every 5 ms: where intervals are tuned,
they are at least so long that the targets lose 5 % of their time to it.
"""

from __future__ import annotations

from pydamon.primitives.base import PrimitiveCost

_SHARE = 20  # a sample may disturb for 1/20 of its interval
_SMOOTHING = 0.5


class DisturbanceFloor:
    """Follows what samples have cost the targets. ``sample_us`` is the shortest sampling interval that may be."""

    def __init__(self) -> None:
        self.sample_us = 0
        self._last = (0, 0)
        self._per_sample_ns: float | None = None

    def update(self, cost: PrimitiveCost, samples: int) -> None:
        """The targets were disturbed for ``cost.disturb_ns`` by ``samples`` samples, both since the start."""
        disturb_ns, before = cost.disturb_ns - self._last[0], samples - self._last[1]
        if before <= 0:
            return
        self._last = (cost.disturb_ns, samples)
        found, old = disturb_ns / before, self._per_sample_ns
        self._per_sample_ns = found if old is None else old + _SMOOTHING * (found - old)
        self.sample_us = int(self._per_sample_ns * _SHARE / 1000)
