"""The targets of a context that the kernel monitors: which processes, what they have mapped, whether they live."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import numpy as np

from pydamon.errors import MachineError, PydamonError, RequestError
from pydamon.linux.process import Mapping, Process
from pydamon.linux.texts import read_as_root
from pydamon.ops.base import Ranges
from pydamon.ops.membership import command_of
from pydamon.ops.paddr import IOMEM, ZONEINFO, describe, intersection, node_spans, system_ram
from pydamon.spec import Context, Target

_NONE: Ranges = np.empty((0, 2), np.uint64)


class KernelTargets:
    """What an operations set tells of its targets, but for the sampling, which the kernel does.

    Raises RequestError for a process that does not exist, MachineError if physical memory cannot be told.
    """

    def __init__(self, context: Context) -> None:
        self.name = context.ops
        self.nr_targets = len(context.targets)
        self.processes: list[Process] = []
        self.obsolete: frozenset[int] = frozenset()  # those that were taken out
        self._mappings: dict[int, list[Mapping]] = {}
        self._looked_ns: dict[int, int] = {}
        self._every_ns = max(context.intervals.ops_update_us, 1_000_000) * 1000
        self.ranges = [_wanted(target) for target in context.targets]
        try:
            if context.ops == "paddr":
                self._look_at_memory()
            else:
                for number, target in enumerate(context.targets):
                    self._open(number, target)
        except BaseException:
            self.close()
            raise
        self._joined = [self._row(number) for number in range(self.nr_targets)]

    def _open(self, number: int, target: Target) -> None:
        try:
            self.processes.append(Process(target.pid or 0))
        except RequestError as error:
            raise RequestError(error.message, where=f"targets[{number}].pid") from None

    def _look_at_memory(self) -> None:
        """All System RAM, or of the wanted ranges what is; the kernel would monitor nothing by itself."""
        ram = system_ram(read_as_root(IOMEM))
        if len(self.ranges[0]):
            ram = intersection(ram, self.ranges[0])
            if not len(ram):
                raise RequestError(f"have no System RAM in them; see {IOMEM}", where="targets[0].regions")
        self.ranges = [ram]
        nodes = []
        with contextlib.suppress(MachineError):
            nodes = node_spans(read_as_root(ZONEINFO))
        self._mappings[0] = describe(ram, nodes)

    def _row(self, number: int) -> dict[str, Any]:
        if not self.processes:
            return {"target": number, "command": "physical memory"}
        process = self.processes[number]
        return {
            "target": number,
            "pid": process.pid,
            "command": command_of(process),
            "start_ticks": process.start_ticks,
        }

    def target_valid(self, target: int) -> bool:
        """Whether the process lives; physical memory always does."""
        return not self.processes or (target not in self.obsolete and self.processes[target].alive())

    def mappings(self, target: int) -> list[Mapping]:
        """What the target has mapped, looked up again after an update interval; the same list if it is the same."""
        now_ns = time.monotonic_ns()
        known = self._mappings.get(target, [])
        if not self.processes or now_ns < self._looked_ns.get(target, -1):
            return known
        self._looked_ns[target] = now_ns + self._every_ns
        with contextlib.suppress(PydamonError):
            found = self.processes[target].mappings()
            if found and found != known:
                self._mappings[target] = known = found
        return known

    def live_pids(self) -> dict[int, int]:
        """The pid of each target that lives."""
        return {number: one.pid for number, one in enumerate(self.processes) if self.target_valid(number)}

    def take_joined(self) -> list[dict[str, Any]]:
        """Rows of the table ``targets``, once."""
        joined, self._joined = self._joined, []
        return joined

    def close(self) -> None:
        """Release the processes."""
        for process in self.processes:
            process.close()


def _wanted(target: Target) -> Ranges:
    if not target.regions:
        return _NONE
    return np.array([(region.start, region.end) for region in target.regions], np.uint64)
