"""Why monitoring has ended, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydamon.run.live import is_live
from pydamon.run.signals import Signals

if TYPE_CHECKING:
    from pydamon.run.open import Engine


def end_reason(engine: Engine, signals: Signals) -> str:
    """The first of the reasons that there were."""
    if signals.stopped:
        return "interrupted"
    if engine.kdamond.stop_requested:
        return "the time is over"
    if is_live(engine) and engine.ops.lost and engine.ops.nr_targets == 1:
        return next(iter(engine.ops.lost.values()))
    return "the target ended" if engine.ops.nr_targets < 2 else "all targets ended"
