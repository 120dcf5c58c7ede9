"""When the intervals of a running loop are tuned, how far they may grow, and whether they have found their place.

`core.tuner` says what one step is. Ours, and not the kernel's: an aggregation lasts at most a tenth of the whole
recording, so that there are ten at least.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydamon.core import tuner
from pydamon.core.snapshot import Snapshot, max_nr_accesses
from pydamon.spec import Intervals
from pydamon.spec.units import format_duration_ns

_SHARE = 10  # an aggregation may last 1/10 of the recording
_ENOUGH = 10  # aggregations at the intervals that fit
_APART = 1.5  # intervals that differ by less are the same: that is noise of the score


class Tuning:
    """The tuning of one loop, which began at ``began_ns`` by its clock, what was paused since left out.

    ``settled`` is the number of aggregations since the intervals have been about what they are now, ``growing`` whether
    the last step has made them longer than that, or wanted to, and it was too early.
    """

    def __init__(self) -> None:
        self.began_ns = 0
        self.settled = 0
        self.growing = False
        self._untuned = 0
        self._settled_us = 0  # the sampling interval at which they did

    def limit_us(self, end_ns: int) -> int:
        """The longest aggregation of a recording that ends at ``end_ns``, or has come so far."""
        return max(end_ns - self.began_ns, 0) // (1000 * _SHARE)

    def tuned(
        self, intervals: Intervals, snapshots: Sequence[Snapshot], now_ns: int, end_ns: int | None, *, limited: bool
    ) -> Intervals:
        """The intervals to go on with after an aggregation, of which these are the ``snapshots``.

        What is ``limited`` is so by ``end_ns``, where that is known, else by what was recorded until ``now_ns``.
        """
        goal = intervals.intervals_goal
        if goal is None or not goal.access_bp:
            return intervals
        self._untuned += 1
        self.settled += 1
        if self._untuned < goal.aggrs:
            return intervals
        self._untuned = 0
        window = max_nr_accesses(intervals.sample_us, intervals.aggr_us)
        score = tuner.access_score(snapshots, window, goal.access_bp)
        if score is None:
            return intervals
        free = new = tuner.tuned(intervals, goal, score)
        if limited:
            new = tuner.limited(free, intervals, self.limit_us(now_ns if end_ns is None else end_ns))
        self._settled_us = self._settled_us or intervals.sample_us
        held = new.sample_us < free.sample_us
        grown = new.sample_us > _APART * self._settled_us
        if grown or new.sample_us * _APART < self._settled_us:
            self.settled, self._settled_us = 0, new.sample_us
        self.growing = (grown and new.sample_us > intervals.sample_us) or (held and end_ns is None)
        return new

    def remark(self, intervals: Intervals) -> str | None:
        """What is to be said if it ends now; nothing if there was no aggregation at all."""
        if not self.settled and not self._settled_us:
            return None
        goal = intervals.intervals_goal
        if goal is None or not goal.access_bp or (self.settled >= _ENOUGH and not self.growing):
            return None
        lasting = format_duration_ns(intervals.aggr_us * 1000)
        if self.growing:
            return (
                f"the intervals were still being lengthened when it ended (an aggregation lasted {lasting} by then); "
                "a longer recording finds those that fit"
            )
        count = {0: "no aggregation", 1: "only 1 aggregation"}.get(self.settled, f"only {self.settled} aggregations")
        return f"{count} (of {lasting}) came after the intervals had settled; numbers are surer with 10 or more"
