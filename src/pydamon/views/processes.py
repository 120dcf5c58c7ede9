"""What is shown of many processes: how much of its memory each has used lately, and how sure that is."""

from __future__ import annotations

from typing import Annotated

import msgspec

from pydamon.views.fields import View, counter, fact, gauge


class Use(View):
    """Bytes of one process's memory; ``low`` and ``high`` hold in 95 of 100 cases."""

    bytes: Annotated[int, gauge("bytes", "the estimate; with at_least, what was seen so far")]
    low_bytes: Annotated[int, gauge("bytes", "it is at least that, in 95 of 100 cases together with high_bytes")]
    high_bytes: Annotated[int, gauge("bytes", "it is at most that")]
    at_least: Annotated[bool, fact("whether it may be any more, as less than the window is known yet")] = False

    @property
    def error_bytes(self) -> int:
        """What stands behind ±."""
        return (self.high_bytes - self.low_bytes + 1) // 2


class Process(View):
    """One process at one time."""

    pid: Annotated[int, fact("its process id")]
    start_ticks: Annotated[int, fact("when it was started, in clock ticks since the boot: with the pid, who it is")]
    name: Annotated[str, fact("its command line, or its name in brackets")]
    uid: Annotated[int, fact("the user that it runs as")]
    cgroup: Annotated[str, fact("its cgroup (version 2)")]
    resident_bytes: Annotated[int, gauge("bytes", "how much of it is in memory")]
    used: Use | None = None
    idle: Use | None = None
    pages: Annotated[int, gauge("", "how many of its pages are looked at")] = 0
    through: Annotated[str, fact("the primitive that its pages are asked through; empty: they are not")] = ""
    why_not: Annotated[str, fact("why its pages are not asked")] = ""
    cost_bp: Annotated[int, gauge("bp", "CPU time that asking about it takes")] = 0
    disturb_bp: Annotated[int, gauge("bp", "for how much of the time asking holds it up")] = 0
    trend: Annotated[tuple[int, ...], fact("what was used at the looks of the last minute, in bytes", "bytes")] = ()


class Processes(View):
    """Many processes at one time."""

    time_unix_ns: Annotated[int, fact("when, in ns since 1970", "ns")]
    window_s: Annotated[int, fact("used means: accessed within so many seconds")]
    idle_s: Annotated[int, fact("idle means: not accessed for at least so many seconds")]
    processes: list[Process]
    total_bytes: Annotated[int, fact("how much memory the machine has", "bytes")] = 0
    available_bytes: Annotated[int, gauge("bytes", "how much of it could be had without swapping")] = 0
    pages: Annotated[int, gauge("", "how many pages are looked at, of all processes together")] = 0
    every_ns: Annotated[int, gauge("ns", "how long it is from one look to the next")] = 0
    cpu_ns: Annotated[int, counter("ns", "CPU time of looking so far")] = 0
    cpu_bp: Annotated[int, gauge("bp", "CPU time of looking since the last time")] = 0
    notices: Annotated[list[str], fact("what there is to say of how it is looked")] = msgspec.field(
        default_factory=list
    )
