"""Operations set for fixed ranges of processes' virtual address spaces (the kernel's ``fvaddr``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pydamon.errors import RequestError
from pydamon.linux.process import Process
from pydamon.ops.base import PAGE_SIZE, Ranges
from pydamon.ops.membership import command_of
from pydamon.ops.vaddr import Closable, VaddrOps, troubles
from pydamon.primitives.base import Primitive
from pydamon.spans import clipped


class FvaddrOps(VaddrOps):
    """Monitors given ranges of processes, and only those, whatever is mapped there.

    ``ranges`` has one array per process. They are widened to whole pages; those that touch or overlap become one.
    Raises RequestError for a process without ranges.
    """

    name = "fvaddr"

    def __init__(
        self,
        processes: Sequence[Process],
        open_primitive: Callable[[Process], Primitive],
        *,
        ranges: Sequence[Ranges],
        rng: np.random.Generator | None = None,
        shared: Closable | None = None,
    ) -> None:
        if len(ranges) != len(processes):
            raise RequestError(
                f"got ranges for {len(ranges)} of {len(processes)} processes; each needs some", where="ops fvaddr"
            )
        fixed = [whole_pages(given) for given in ranges]
        for process, kept in zip(processes, fixed, strict=True):
            if not len(kept):
                raise RequestError(
                    f"process {process.pid} has no range to monitor; it needs some, each with start and end",
                    where="ops fvaddr",
                )
        super().__init__(processes, open_primitive, initial=fixed, rng=rng, shared=shared)
        self._joined = [
            {
                "target": target,
                "pid": process.pid,
                "command": command_of(process),
                "start_ticks": process.start_ticks,
            }
            for target, process in enumerate(processes)
        ]

    def update(self) -> list[Ranges | None]:
        """The ranges stay (None for each target); mappings and primitives are brought up to date."""
        return [None for _ in super().update()]

    def leave_out_gaps(self, most: int) -> None:
        """The ranges stay what they were given as."""

    def resident(self, target: int) -> tuple[Ranges, Ranges] | None:
        """What of the ranges is in memory, and what was looked at for that, see `PanelOps`."""
        found = super().resident(target)
        if found is None:
            return None
        runs, seen = (clipped(spans, self._initial[target]) for spans in found)
        return runs, seen

    def take_joined(self) -> list[dict[str, Any]]:
        """All targets at the first call, nobody later: target, pid, command, start_ticks."""
        joined, self._joined = self._joined, []
        return joined

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        return self._residencies.take_notices()

    def remarks(self) -> list[str]:
        """What to say at the end: where the kernel refused."""
        return self.whole_refusal() + list(dict.fromkeys(troubles(self.primitives)))

    def live_pids(self) -> dict[int, int]:
        """The pid of each target that is valid now."""
        return self._pids()


def whole_pages(ranges: Ranges) -> Ranges:
    """``ranges`` widened to page boundaries, sorted, and joined where they touch; empty ones are left out."""
    size = PAGE_SIZE
    joined: list[list[int]] = []
    for start, end in sorted((start // size * size, -(-end // size) * size) for start, end in ranges.tolist()):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return np.array(joined, np.uint64).reshape(-1, 2)
