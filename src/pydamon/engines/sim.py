"""The ``sim`` engine: our core over a simulated process, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Callbacks, Kdamond
from pydamon.core.snapshot import Snapshot
from pydamon.engines.user.choose import Choice
from pydamon.engines.user.engine import only_context
from pydamon.errors import located
from pydamon.ops.sim.machine import MachineSpec
from pydamon.ops.sim.ops import DEFAULT_ACCESSES_PER_S, SimOps
from pydamon.spec import ONLY_CONTEXT, Spec
from pydamon.workload.model import Workload

if TYPE_CHECKING:
    from pydamon.core.damos import Damos


class SimEngine:
    """Runs a sim spec on a workload; ends with the workload. The same seed gives the same result."""

    def __init__(
        self,
        spec: Spec,
        workload: Workload,
        *,
        mapping: str = "separate",
        callbacks: Callbacks | None = None,
        seed: int = 0,
        accesses_per_s: int = DEFAULT_ACCESSES_PER_S,
        clock: VirtualClock | None = None,
        machine: MachineSpec | None = None,
    ) -> None:
        context = only_context(spec, "sim")
        self.clock = clock if clock is not None else VirtualClock()
        self.choice = Choice("sim", "the pattern is known")
        self.ops = SimOps(
            [workload], self.clock, mapping=mapping, seed=seed, accesses_per_s=accesses_per_s, machine=machine
        )
        with located(f"{ONLY_CONTEXT}.probes"):
            self.ops.check_probes(context.probes)
        self.kdamond = Kdamond(
            ops=self.ops,
            context=context,
            clock=self.clock,
            callbacks=callbacks if callbacks is not None else Callbacks(),
            rng=np.random.default_rng(seed),
            make_damos=self._damos,
        )
        if context.schemes and self.kdamond.damos is not None:
            with located(ONLY_CONTEXT):
                self.kdamond.damos.check(context.schemes)

    def _damos(self) -> Damos:
        from pydamon.core.damos import Damos

        return Damos(self.ops, self.clock, self.ops)

    def monitor(self) -> Iterator[list[Snapshot]]:
        """Monitor; yields one snapshot per target after each aggregation, until stopped or the workload ends."""
        return self.kdamond.monitor()
