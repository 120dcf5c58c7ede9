"""What quotas are tuned towards: metrics of the machine or of the user, and how far they are from their targets."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from pydamon.spec.metrics import METRICS
from pydamon.spec.schemes import Goal

GOAL_SCORE = 10_000
_BP, _MINUTE_NS = 10_000, 60_000_000_000


class Metrics(Protocol):
    """Where values of the machine come from; each raises MachineError where the machine does not tell."""

    def free_mem_permil(self) -> int:
        """Free memory in 1/1000 of all."""
        ...

    def refaulted_bytes(self) -> int:
        """What has come back of the targets' memory so far; it only grows."""
        ...

    def measure(self, metric: str, nid: int, memcg_path: str) -> int:
        """A metric of the machine (`pydamon.spec.metrics`) in its unit, of a NUMA node or a cgroup if it is of one."""
        ...


@dataclass(slots=True)
class GoalState:
    """One goal of a running scheme; ``current_value`` is what was measured last."""

    goal: Goal
    current_value: int = 0
    _last_total: int | None = field(default=None, init=False)
    _came_back: deque[tuple[int, int]] = field(default_factory=deque, init=False)  # when, and how many bytes by then

    def __post_init__(self) -> None:
        self.current_value = self.goal.current_value

    def begin(self, metrics: Metrics) -> None:
        """Note what a metric that only grows has reached; the kernel starts from 0, and the first window sees all of
        the time since the boot."""
        if METRICS[self.goal.metric].grows and self._last_total is None:
            self._last_total = self._measured(metrics)

    def measure(self, metrics: Metrics) -> None:
        """Update ``current_value`` from the machine; raises MachineError. (What is eligible, `Damos.measure` knows.)"""
        metric = METRICS[self.goal.metric]
        if metric.source != "machine":
            return
        self.begin(metrics)
        value = self._measured(metrics)
        if metric.grows:
            self.current_value, self._last_total = max(value - (self._last_total or 0), 0), value
        else:
            self.take(value)

    def take(self, value: int) -> None:
        """The metric's ``value`` is this now: update ``current_value``, which may be what is left of the whole."""
        most = METRICS[self.goal.metric].most
        self.current_value = max(most - value, 0) if self.goal.complement and most is not None else value

    def share_back(self, now_ns: int, total_bytes: int, working_set_bytes: int) -> None:
        """Update ``current_value`` from what has come back by now: the share of the working set in the last minute."""
        self._came_back.append((now_ns, total_bytes))
        while len(self._came_back) > 1 and now_ns - self._came_back[1][0] >= _MINUTE_NS:
            self._came_back.popleft()
        back = max(total_bytes - self._came_back[0][1], 0)
        self.current_value = back * _BP // max(working_set_bytes, 1)

    def _measured(self, metrics: Metrics) -> int:
        return metrics.measure(self.goal.metric, self.goal.nid or 0, self.goal.memcg_path or "")

    @property
    def score(self) -> int:
        """How much of the target has been reached, in 1/10,000."""
        return self.current_value * GOAL_SCORE // max(self.goal.target_value, 1)
