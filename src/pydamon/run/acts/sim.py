"""The hands of controllers on a simulated machine: the same decisions, in its time and on its memory."""

from __future__ import annotations

import math
from collections.abc import Callable

from pydamon.errors import MachineError
from pydamon.modules.controller import Decision, Observations, Pressure, ReclaimBytes
from pydamon.ops.base import PAGE_SIZE
from pydamon.ops.sim.machine import Machine

_AVERAGES_S = (10.0, 60.0)


class _Average:
    """Shares of the last seconds in which somebody waited, weighted as the kernel's PSI does it: exponentially."""

    def __init__(self) -> None:
        self._total_us = 0
        self._at_ns: int | None = None
        self._percent = [0.0 for _ in _AVERAGES_S]

    def look(self, now_ns: int, total_us: int) -> Pressure:
        """The pressure now, when they have waited ``total_us`` in all."""
        if self._at_ns is not None and now_ns > self._at_ns:
            passed_s = (now_ns - self._at_ns) / 1e9
            share = 100.0 * (total_us - self._total_us) / 1e6 / passed_s
            for at, of_s in enumerate(_AVERAGES_S):
                old = math.exp(-passed_s / of_s)
                self._percent[at] = self._percent[at] * old + share * (1.0 - old)
        self._total_us, self._at_ns = total_us, now_ns
        return Pressure(total_us=total_us, avg10_percent=self._percent[0], avg60_percent=self._percent[1])


class SimHands:
    """Those on what ``machine`` gives, whose targets are in the one cgroup that is asked.

    It can be asked to give memory; memory.low and zram are not simulated.
    """

    def __init__(self, machine: Callable[[], Machine]) -> None:
        self._machine = machine
        self._memory, self._io, self._cpu = _Average(), _Average(), _Average()

    def observe(self, now_ns: int) -> Observations:
        """The machine as it is at ``now_ns``."""
        machine = self._machine()
        machine.advance(now_ns)
        return Observations(
            now_ns=now_ns,
            memory=self._memory.look(now_ns, machine.some_mem_psi_us()),
            io=self._io.look(now_ns, machine.some_io_psi_us()),
            cpu=self._cpu.look(now_ns, machine.some_cpu_psi_us()),
            current_bytes=machine.summary().resident_bytes,
            swap_total_bytes=machine.swap_bytes,
            swap_free_bytes=machine.swap_free(),
            back_bytes=machine.fault_bytes(),
            machine_bytes=machine.total_bytes,
            page_bytes=PAGE_SIZE,
        )

    def do(self, decision: Decision, now_ns: int) -> int | None:
        """Take memory; raises MachineError for what is not simulated."""
        if not isinstance(decision, ReclaimBytes):
            raise MachineError("is not simulated")
        machine = self._machine()
        return machine.take(decision.bytes, machine.targets, files_only=decision.swappiness == 0)

    def finish(self) -> list[str]:
        """Nothing stays."""
        return []
