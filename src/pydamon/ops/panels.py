"""Processes that are asked for the pages of a page panel, and for nothing else: no regions, no samples.

So many of them can be looked at. Nothing is cleared but the pages of the panel that were accessed; and a process that
has not run since the last look is not asked: it has accessed nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.errors import PydamonError
from pydamon.linux.process import Mapping, Process
from pydamon.linux.process_table import run_time_ns, stat_of
from pydamon.ops.base import Addresses, Ranges
from pydamon.ops.panel import ProcessPanel
from pydamon.ops.residency import Residencies
from pydamon.primitives.base import Primitive

_MAPPINGS_NS = 5_000_000_000  # mappings are read anew after that long at the least,
_MAPPINGS_SHARE = 1000  # and after so many times what reading them took


class _Member(msgspec.Struct, eq=False):
    """A process. ``run_ns``: its run time when it was looked at last, None where that does not tell all of it."""

    process: Process
    mappings: list[Mapping] = msgspec.field(default_factory=list)
    due_ns: int = 0  # when its mappings are to be read again
    run_ns: int | None = None
    rested: bool = False  # it has not run between the last two looks
    asked: Addresses | None = None


class ProcessPanels:
    """Implements `PanelPages` for processes that are added and dropped; ``open_primitive`` opens what asks them.

    Targets are numbered from 0 on, never twice.
    """

    def __init__(self, open_primitive: Callable[[Process], Primitive]) -> None:
        self.primitives: dict[int, Primitive] = {}
        self._open_primitive = open_primitive
        self._members: dict[int, _Member] = {}
        self._next = 0
        self._residencies = Residencies()
        self._panel = ProcessPanel(self, None)
        self._stepping_ns = 0

    @property
    def targets(self) -> list[int]:
        """The numbers of those that are there."""
        return list(self._members)

    def add(self, process: Process) -> int:
        """Look at a process from now on (it is taken over); its number. Raises PydamonError where that cannot be."""
        try:
            process.check_readable()
            primitive = self._open_primitive(process)
        except BaseException:
            process.close()
            raise
        target, self._next = self._next, self._next + 1
        self.primitives[target], self._members[target] = primitive, _Member(process)
        return target

    def drop(self, target: int) -> None:
        """Look at it no more."""
        member, primitive = self._members.pop(target), self.primitives.pop(target)
        self._panel.forget(target)
        self._residencies.forget(target)
        primitive.close()
        member.process.close()

    def target_valid(self, target: int) -> bool:
        """See `PanelPages`."""
        return target in self._members and self._members[target].process.alive()

    def resident(self, target: int) -> tuple[Ranges, Ranges] | None:
        """See `PanelPages`. It is called once before each look."""
        member = self._members[target]
        self._note_run(member)
        self._read_mappings(target, member)
        residency = self._residencies.of(target, member.process, member.mappings)
        began_ns = time.thread_time_ns()
        self._residencies.step()
        self._stepping_ns += time.thread_time_ns() - began_ns
        scan = residency.scan
        return None if scan.obstacle is not None else (scan.runs.runs, scan.runs.seen)

    def extent(self, target: int) -> tuple[int, int] | None:
        """The addresses between which there is memory of it, as far as that was looked for; None: nothing is known."""
        member = self._members[target]
        runs = self._residencies.of(target, member.process, member.mappings).scan.runs.runs
        return (int(runs[0, 0]), int(runs[-1, 1])) if len(runs) else None

    def _note_run(self, member: _Member) -> None:
        """Whether it has run since the last time. Of several threads only the first one's time is told cheaply."""
        pid, before = member.process.pid, member.run_ns
        now_ns = run_time_ns(pid)
        member.rested = now_ns is not None and now_ns == before
        if not member.rested:
            stat = stat_of(pid)
            member.run_ns = now_ns if stat is not None and stat.threads == 1 else None

    def _read_mappings(self, target: int, member: _Member) -> None:
        now_ns = time.monotonic_ns()
        if now_ns < member.due_ns or (member.rested and member.mappings):
            return
        began_ns = time.thread_time_ns()
        try:
            member.mappings = member.process.mappings()
        except PydamonError:
            return
        primitive = self.primitives[target]
        primitive.update()
        member.due_ns = now_ns + max(_MAPPINGS_NS, _MAPPINGS_SHARE * (time.thread_time_ns() - began_ns))

    def look_at_panel(self, target: int, addresses: Addresses) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See `PanelPages`."""
        member = self._members[target]
        if member.rested and member.asked is addresses:
            nothing = np.zeros(len(addresses), np.bool_)
            return nothing, nothing
        member.asked = addresses
        return self._panel.look(target, addresses)

    def also_mapped(self, owner: NDArray[np.intp], addresses: Addresses, target: int) -> Addresses | None:
        """Nobody looks for it: processes are told one by one here."""
        return None

    def panel_cpu_ns(self) -> int:
        """CPU time of this thread, without that of looking for resident memory, which has a bound of its own."""
        return time.thread_time_ns() - self._stepping_ns

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        return self._residencies.take_notices()

    def close(self) -> None:
        """Look at none any more."""
        for target in list(self._members):
            self.drop(target)
