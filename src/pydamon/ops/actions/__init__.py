"""The actions of DAMOS schemes on real memory: `VirtualActions` on processes, `PhysicalActions` on page frames."""

from __future__ import annotations

from pydamon.ops.actions.homes import Undone
from pydamon.ops.actions.physical import PhysicalActions
from pydamon.ops.actions.plan import Plan, PlannedRange
from pydamon.ops.actions.virtual import VirtualActions

__all__ = ["PhysicalActions", "Plan", "PlannedRange", "Undone", "VirtualActions"]
