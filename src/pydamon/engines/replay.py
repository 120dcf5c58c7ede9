"""The ``sim`` engine over a recording: our core and schemes over a simulated process that plays it again."""

from __future__ import annotations

import numpy as np

from pydamon.core.clock import VirtualClock
from pydamon.engines.base import Choice, Rows
from pydamon.engines.on_core import OnCore, only_context
from pydamon.engines.sim import SimEngine
from pydamon.ops.sim.replay import Played, ReplayOps
from pydamon.spec import Spec


class ReplayEngine(SimEngine):
    """Runs a sim spec on what was recorded, see `ReplayOps`; ends with the recording. Raises RequestError."""

    def __init__(self, spec: Spec, played: Played, *, seed: int = 0) -> None:
        context = only_context(spec, "sim")
        clock = VirtualClock()
        self._joined: Rows = [{"target": 0, "command": "recording"}]
        OnCore.__init__(
            self,
            context,
            ops=ReplayOps(played, clock, seed=seed),
            clock=clock,
            choice=Choice("sim", "a recording is played again"),
            callbacks=None,
            rng=np.random.default_rng(seed),
        )
