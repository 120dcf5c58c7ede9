"""What came of a run on a simulated machine."""

from __future__ import annotations

from typing import Any

import msgspec


class ProcessResult(msgspec.Struct, kw_only=True):
    """Of one process: bytes in memory on average, what came back, and by how much it was slowed down (a share)."""

    name: str
    resident_bytes: int
    refault_bytes: int
    stall_ns: int
    slowdown: float


class SchemeResult(msgspec.Struct, kw_only=True):
    """Of one scheme: its statistics, by their names (see `spec.statistics`)."""

    name: str
    stats: dict[str, int]


class Result(msgspec.Struct, kw_only=True):
    """Of one run of ``duration_ns``.

    Bytes on average over the run: ``used_bytes`` of the machine's memory, of that ``kept_bytes`` compressed;
    ``saved_bytes``: less used than without a policy. ``node_bytes`` at the end, per node. ``refault_bytes`` is what
    accesses brought back. ``slowdown`` is the share by which the programs took longer, the mean of the processes, and
    ``parts`` what it is made of. ``monitor_share``, ``scheme_share`` and ``reclaim_share`` are of one CPU. ``psi``:
    shares of the time in which some, or all, waited. ``counters`` are the kernel's. ``timeline``: seconds, bytes in
    memory, bytes used.
    """

    label: str
    duration_ns: int
    used_bytes: int
    kept_bytes: int
    saved_bytes: int = 0
    resident_bytes: int
    node_bytes: list[int]
    refault_bytes: int
    stall_ns: int
    slowdown: float
    parts: dict[str, float]
    monitor_share: float
    scheme_share: float
    reclaim_share: float
    psi: dict[str, float]
    counters: dict[str, int]
    processes: list[ProcessResult]
    schemes: list[SchemeResult]
    timeline: list[tuple[float, int, int]]

    @property
    def refaults_per_minute(self) -> float:
        """Bytes that came back in a minute."""
        return self.refault_bytes * 60e9 / max(self.duration_ns, 1)

    def values(self) -> dict[str, Any]:
        """For JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found | {"refault_bytes_per_minute": self.refaults_per_minute}


THRASHING = 0.05  # from that slowdown on the accesses of a program that waits would come so much later that it counts
