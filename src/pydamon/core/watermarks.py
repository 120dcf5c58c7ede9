"""When a scheme is active: by a metric and three watermarks, with hysteresis (docs/algorithms.md 2.13)."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydamon.spec.schemes import Watermarks


def activated(marks: Watermarks, value_permil: int, before: bool) -> bool:
    """Whether the scheme is active at this value of the metric, ``before`` being whether it was.

    Above ``high`` there is no need to act, below ``low`` no room to: inactive. Activated below ``mid``; in between it
    stays as it was.
    """
    if value_permil > marks.high_permil or value_permil < marks.low_permil:
        return False
    return before or value_permil < marks.mid_permil


@dataclass(slots=True)
class WatermarkState:
    """The watermarks of one running scheme. It begins inactive, until the metric was looked at."""

    activated: bool = False
    _due_ns: int | None = field(default=None, init=False)

    def due(self, marks: Watermarks, now_ns: int) -> bool:
        """Whether the metric is to be looked at."""
        return marks.metric != "none" and (self._due_ns is None or now_ns >= self._due_ns)

    def update(self, marks: Watermarks, value_permil: int | None, now_ns: int) -> None:
        """Decide by the metric's value; None (it cannot be read) leaves it as it is."""
        if marks.metric == "none":
            self.activated = True
            return
        if value_permil is not None:
            self.activated = activated(marks, value_permil, self.activated)
        self._due_ns = now_ns + marks.interval_us * 1000

    def change(self) -> None:
        """The user has set other watermarks: look at once."""
        self._due_ns = None

    def wait_ns(self, now_ns: int) -> int:
        """Until the metric is looked at next."""
        return max((self._due_ns or now_ns) - now_ns, 0)
