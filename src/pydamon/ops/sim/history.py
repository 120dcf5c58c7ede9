"""How much memory of a simulated machine was used, over time: means, and points to draw."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pydamon.ops.sim.target import SimTarget

_MOST_POINTS = 2000


class Machine(Protocol):
    """What is to be known of the machine."""

    now_ns: int
    targets: list[SimTarget]

    def node_used(self) -> NDArray[np.int64]:
        """Used bytes per node."""
        ...

    def kept_bytes(self) -> int:
        """What swapped memory takes of this machine's."""
        ...


class History:
    """Means from ``start_ns`` on, in bytes: of the machine what is used, and compressed, of each target in memory.

    ``points``: ns since the start, bytes in memory, bytes used; of a long run every second, fourth, … window.
    ``nodes`` is what was used of each node when there were processes last.
    """

    def __init__(self, machine: Machine) -> None:
        self._start_ns = self._at_ns = machine.now_ns
        self._used = self._kept = 0
        self._resident = [0] * len(machine.targets)
        self._every, self._windows = 1, 0
        self.nodes = machine.node_used().tolist()
        used, kept = sum(self.nodes), machine.kept_bytes()
        self.points = [(0, used - kept, used)]

    def note(self, machine: Machine) -> None:
        """The machine at the end of a window."""
        passed_ns, self._at_ns = machine.now_ns - self._at_ns, machine.now_ns
        if all(target.ended for target in machine.targets):
            self._start_ns += passed_ns  # that is no part of the run any more
            return
        self.nodes = machine.node_used().tolist()
        used, kept = sum(self.nodes), machine.kept_bytes()
        self._used += used * passed_ns
        self._kept += kept * passed_ns
        for number, target in enumerate(machine.targets):
            self._resident[number] += target.extents.bytes_of(target.extents.resident) * passed_ns
        self._windows += 1
        if self._windows % self._every == 0:
            self.points.append((self.passed_ns, used - kept, used))
            if len(self.points) > _MOST_POINTS:
                self.points, self._every = self.points[::2], 2 * self._every

    @property
    def passed_ns(self) -> int:
        """How long there were processes."""
        return self._at_ns - self._start_ns

    @property
    def used_bytes(self) -> int:
        """The mean of what is used, with what is compressed in it."""
        return self._used // max(self.passed_ns, 1)

    @property
    def kept_bytes(self) -> int:
        """The mean of what compressed memory takes."""
        return self._kept // max(self.passed_ns, 1)

    def resident_bytes(self, target: int) -> int:
        """The mean of what a target has in memory."""
        return self._resident[target] // max(self.passed_ns, 1)
