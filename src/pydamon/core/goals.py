"""What quotas are tuned towards: metrics of the machine or of the user, and how far they are from their targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from pydamon.spec.schemes import Goal

GOAL_SCORE = 10_000


class Metrics(Protocol):
    """Where values of the machine come from; each raises MachineError where the machine does not tell."""

    def free_mem_permil(self) -> int:
        """Free memory in 1/1000 of all."""
        ...

    def some_mem_psi_us(self) -> int:
        """Time in us, since the boot, in which some task waited for memory."""
        ...

    def node_mem_bp(self, nid: int, *, used: bool) -> int:
        """Used (or free) memory of a NUMA node in 1/10,000 of its memory."""
        ...

    def node_memcg_bp(self, nid: int, path: str, *, used: bool) -> int:
        """What a cgroup uses of a NUMA node, or the rest of the node, in 1/10,000 of its memory."""
        ...

    def active_bp(self, *, active: bool) -> int:
        """Active (or inactive) memory in 1/10,000 of both."""
        ...


@dataclass(slots=True)
class GoalState:
    """One goal of a running scheme; ``current_value`` is what was measured last."""

    goal: Goal
    current_value: int = 0
    _last_total: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.current_value = self.goal.current_value

    def begin(self, metrics: Metrics) -> None:
        """Note what a metric that only grows has reached; the kernel starts from 0, and the first window sees all of
        the time since the boot."""
        if self.goal.metric == "some_mem_psi_us" and self._last_total is None:
            self._last_total = metrics.some_mem_psi_us()

    def measure(self, metrics: Metrics) -> None:
        """Update ``current_value`` from the machine; raises MachineError. (What is eligible, `Damos.measure` knows.)"""
        goal = self.goal
        metric = goal.metric
        if metric == "some_mem_psi_us":
            self.begin(metrics)
            total = metrics.some_mem_psi_us()
            self.current_value = max(total - (self._last_total or 0), 0)
            self._last_total = total
        elif metric in ("node_mem_used_bp", "node_mem_free_bp"):
            self.current_value = metrics.node_mem_bp(goal.nid or 0, used=metric == "node_mem_used_bp")
        elif metric in ("node_memcg_used_bp", "node_memcg_free_bp"):
            used = metric == "node_memcg_used_bp"
            self.current_value = metrics.node_memcg_bp(goal.nid or 0, goal.memcg_path or "", used=used)
        elif metric in ("active_mem_bp", "inactive_mem_bp"):
            self.current_value = metrics.active_bp(active=metric == "active_mem_bp")

    @property
    def score(self) -> int:
        """How much of the target has been reached, in 1/10,000."""
        return self.current_value * GOAL_SCORE // max(self.goal.target_value, 1)
