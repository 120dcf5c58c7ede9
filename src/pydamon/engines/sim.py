"""The ``sim`` engine: our core over a simulated process, in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pydamon.core.callbacks import Callbacks
from pydamon.core.clock import VirtualClock
from pydamon.engines.base import Choice, Kind, Rows
from pydamon.engines.on_core import OnCore, only_context
from pydamon.ops.sim.machine import Machine
from pydamon.ops.sim.ops import DEFAULT_ACCESSES_PER_S, SimOps
from pydamon.spec import Spec
from pydamon.spec.machine import MachineSpec
from pydamon.workload.model import Workload
from pydamon.workload.program import Program

if TYPE_CHECKING:
    from pydamon.core.damos import Damos


class SimEngine(OnCore):
    """Runs a sim spec on a workload, or several at once; ends with the last of them. Equal seeds, equal results.

    ``name`` is what the only workload is called, ``panel`` the number of pages of the page panel. Raises RequestError.
    """

    kind: Kind = "sim"
    ops: SimOps

    def __init__(
        self,
        spec: Spec,
        workload: Workload | Program | Sequence[Workload | Program],
        *,
        name: str = "",
        mapping: str = "separate",
        callbacks: Callbacks | None = None,
        seed: int = 0,
        accesses_per_s: int = DEFAULT_ACCESSES_PER_S,
        clock: VirtualClock | None = None,
        machine: MachineSpec | None = None,
        repeat: int = 1,
        panel: int = 0,
    ) -> None:
        context = only_context(spec, "sim")
        clock = clock if clock is not None else VirtualClock()
        programs = list(workload) if isinstance(workload, Sequence) else [workload]
        names = [getattr(program, "name", name) if len(programs) > 1 else name for program in programs]
        self._joined: Rows = [
            {"target": number, "command": f"workload {one}".rstrip()} for number, one in enumerate(names)
        ]
        super().__init__(
            context,
            ops=SimOps(
                programs,
                clock,
                mapping=mapping,
                seed=seed,
                accesses_per_s=accesses_per_s,
                machine=machine,
                repeat=repeat,
            ),
            clock=clock,
            choice=Choice("sim", "the pattern is known"),
            callbacks=callbacks,
            rng=np.random.default_rng(seed),
            panel=panel,
        )

    @property
    def simulated(self) -> Machine:
        """The machine as it is now: a new one each time that monitoring begins."""
        return self.ops.machine

    def _new_damos(self) -> Damos:
        from pydamon.core.damos import Damos

        return Damos(self.ops, self.clock, self.ops)

    def swap_bytes(self) -> int | None:
        """That of the simulated machine."""
        return self.ops.machine.swap_bytes

    def moved_back_bytes(self) -> int | None:
        """On the simulated machine."""
        return self.ops.machine.round_trips.bytes

    def joined(self) -> Rows:
        """The simulated process, once."""
        joined, self._joined = self._joined, []
        return joined
