"""Operations set for the virtual address spaces of processes that come and go."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError, RequestError
from pydamon.linux.process import EndedProcess, Mapping, Process
from pydamon.ops.base import Addresses, Ranges
from pydamon.ops.membership import Membership, command_of, program_of
from pydamon.ops.vaddr import Closable, VaddrOps, check_readable, troubles
from pydamon.primitives.base import UNKNOWN, Answers, Primitive, PrimitiveCost

MAX_LIVE = 1024
MAX_TARGETS = 16384  # that joined over time: bounds the record's list of them, and what is kept of those that ended
_FILES_PER_TARGET = 5  # file descriptors: the pidfd, what a primitive opens, and a pagemap for probes
_FILES_LEFT = 64
_MOST_FOLLOWED = 16  # targets that are looked at for another program


class VaddrGroupOps(VaddrOps):
    """Monitors the members of a group; at each update those that joined become targets.

    A target stands for one process for ever: one that has ended, has left or cannot be looked at any more is never
    valid again, and its primitive is closed. At most ``max_live`` targets at a time (less where the limit of open
    files is low), ``max_targets`` in all; others are left out, and the membership says so once.

    ``initial`` gives ranges to begin with for the first targets, as in `VaddrOps`. ``membership`` is taken over and
    closed in the end. Raises MachineError if a process that was named may not be monitored, or none of those that
    belong; RequestError if more were named than ``max_live``.
    """

    def __init__(
        self,
        membership: Membership,
        open_primitive: Callable[[Process], Primitive],
        *,
        initial: Sequence[Ranges] = (),
        rng: np.random.Generator | None = None,
        max_live: int = MAX_LIVE,
        max_targets: int = MAX_TARGETS,
        shared: Closable | None = None,
    ) -> None:
        super().__init__([], open_primitive, initial=initial, rng=rng, shared=shared)
        self.membership = membership
        files = _file_room()
        self._max_live = min(max_live, MAX_LIVE, files, membership.most)
        limits = {membership.most: "match.most", files: "the limit of open files (ulimit -n)"}
        limit = limits.get(self._max_live, "the maximum number of regions")
        membership.room_hint = f": {limit} allows for {self._max_live} at a time"
        self._max_targets = max_targets
        self._targets: dict[int, int] = {}  # pid of a member → its target
        self._monitored: dict[int, None] = {}  # targets whose primitive is open, in order
        self._ended_cost = PrimitiveCost()
        self._joined: list[dict[str, Any]] = []
        self._programs: dict[int, tuple[int, int] | None] = {}  # what named targets ran when it was looked at last
        try:
            named = len(membership.roots)
            if named > self._max_live:
                raise RequestError(f"{named} processes are too many{membership.room_hint}", where="pid")
            self._follow()
            if not self.nr_targets and membership.refused:
                raise MachineError(membership.notices[0])
        except BaseException:
            self.cleanup()
            raise

    # -- for who records ------------------------------------------------------------------------------------------

    def take_joined(self) -> list[dict[str, Any]]:
        """Who has joined, or runs another program, since the last call (rows of the table ``targets``)."""
        joined, self._joined = self._joined, []
        return joined

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        notices = self.membership.notices + self._residencies.take_notices()
        self.membership.notices.clear()
        return notices

    def remarks(self) -> list[str]:
        """What to say at the end about who was not monitored, and where the kernel refused."""
        group = self.membership
        found = self.whole_refusal() + list(dict.fromkeys(troubles(self.primitives)))
        if group.too_short:
            found.append(f"{_processes(group.too_short)} lived too short to be monitored")
        if group.refused:
            found.append(f"{_processes(group.refused)} could not be monitored")
        if group.left_out:
            found.append(f"{_processes(group.left_out)} found no room at the end")
        return found

    def live_pids(self) -> dict[int, int]:
        """The pid of each target that is valid now."""
        return self._pids()

    def _pids(self) -> dict[int, int]:
        return {target: self.processes[target].pid for target in self._monitored if self.target_valid(target)}

    # -- the operations set ---------------------------------------------------------------------------------------

    def update(self) -> list[Ranges | None]:
        """Target ranges now, also of processes that have just joined; None for those that ended or show nothing."""
        self._follow()
        self._look_for_other_programs()
        self._update_sampler()
        shown = []
        for target in list(self._monitored):
            if self._update_target(target):
                shown.append(target)
            if target in self.lost:
                self._end(target)
        ranges = self._target_ranges(shown)
        return [ranges.get(target) for target in range(self.nr_targets)]

    def target_valid(self, target: int) -> bool:
        """Whether the process lives, belongs to the group, and may be looked at."""
        return target in self._monitored and super().target_valid(target)

    def may_grow(self) -> bool:
        """Whether there may be targets again although none is valid now."""
        return self.nr_targets < self._max_targets and self.membership.may_grow()

    def cost(self) -> PrimitiveCost:
        """What the primitives of all targets have cost so far, also of those that have ended."""
        total = PrimitiveCost()
        total.add(self._ended_cost)
        for target in self._monitored:
            total.add(self.primitives[target].cost)
        self._add_sampler_cost(total)
        return total

    def cleanup(self) -> None:
        """Close primitives, processes and the membership."""
        super().cleanup()
        for process in (*self.membership.roots, *self.membership.members.values()):
            process.close()
        self.membership.close()

    # -- who comes and goes ---------------------------------------------------------------------------------------

    def _follow(self) -> None:
        change = self.membership.update(self._max_live, self._max_targets - self.nr_targets)
        for process in change.left:  # first: a pid may have left and joined anew
            target = self._targets.pop(process.pid, None)
            if target is not None and target in self._monitored:
                self._end(target)
            if process not in self.membership.roots:  # their ends may be watched by who named them
                process.close()
        for process in change.joined:
            self._admit(process)
        if self.nr_targets >= self._max_targets:
            self.membership.say("targets", f"{self._max_targets} processes have been monitored; no more are added")

    def _admit(self, process: Process) -> None:
        command = command_of(process)
        try:
            check_readable(process)
            primitive = self._open_primitive(process)
        except MachineError as error:
            if process in self.membership.roots:
                raise
            self.membership.refuse(process, error.message)
            return
        target = self.nr_targets
        self.processes.append(process)
        self._add_target(primitive)
        self._targets[process.pid] = target
        self._monitored[target] = None
        self._joined.append(_row(target, process, command))
        if self.events is not None:
            self.events.join(target, process.pid)
        if process in self.membership.roots:
            if len(self._programs) < _MOST_FOLLOWED:
                self._programs[target] = program_of(process)
            if process.stopped():
                self.membership.say(
                    f"stopped {process.pid}", f"process {process.pid} is stopped: it accesses nothing until it goes on"
                )

    def _look_for_other_programs(self) -> None:
        """What was named, or launched, is called by what it runs now: a script may have become another program."""
        for target, program in self._programs.copy().items():
            process = self.processes[target]
            now = program_of(process) if target in self._monitored else None
            if now not in (None, program):
                self._programs[target] = now
                self._joined.append(_row(target, process, command_of(process)))

    def _end(self, target: int) -> None:
        """Forget all about the target but what it has cost; named ones keep their process, whose end may be watched."""
        del self._monitored[target]
        self._programs.pop(target, None)
        primitive = self.primitives[target]
        primitive.close()
        self._ended_cost.add(primitive.cost)
        self.primitives[target] = _ENDED
        self._mappings[target] = _NO_MAPPINGS
        if self.processes[target] not in self.membership.roots:
            self.processes[target] = _NOBODY
        if self.nr_targets > 1:  # what became of a single one is told in the end
            self.lost.pop(target, None)
        self._residencies.forget(target)
        self.sampler.forget(target)
        if self._panel is not None:
            self._panel.forget(target)
        if self._sharing is not None:
            self._sharing.forget(target)
        if self._attributes is not None:
            self._attributes.forget(target)
        if self.events is not None:
            self.events.forget(target)


def _row(target: int, process: Process, command: str) -> dict[str, Any]:
    """Of the side table ``targets``."""
    return {"target": target, "pid": process.pid, "command": command, "start_ticks": process.start_ticks}


class _Ended:
    """Stands for the primitive of a target that has ended: keeps nothing, knows nothing."""

    name = "ended"

    def __init__(self) -> None:
        self.cost = PrimitiveCost()
        self._asked = 0

    def prepare(self, addresses: Addresses) -> NDArray[np.bool_]:
        self._asked = len(addresses)
        return np.zeros(len(addresses), np.bool_)

    def replace(self, index: NDArray[np.intp], addresses: Addresses) -> NDArray[np.bool_]:
        return np.zeros(len(index), np.bool_)

    def check(self) -> Answers:
        return np.full(self._asked, UNKNOWN, np.uint8)

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass


_ENDED: Primitive = _Ended()
_NOBODY = EndedProcess()
_NO_MAPPINGS: list[Mapping] = []  # one for all that have ended


def _file_room() -> int:
    """How many targets the limit of open files has room for, at least one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_LIVE
    return max((soft - len(os.listdir("/proc/self/fd")) - _FILES_LEFT) // _FILES_PER_TARGET, 1)


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count:,} processes"
