"""The typed request (spec), its units and its validation. Everyone may import it; it imports nothing of ours."""

from __future__ import annotations

from pydamon.spec.explain import explain
from pydamon.spec.model import (
    Context,
    Intervals,
    IntervalsGoal,
    Kdamond,
    NrRegions,
    Region,
    Spec,
    Target,
    from_builtins,
    from_json,
    read,
    to_builtins,
    validate,
    validate_attrs,
)
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import Scheme

__all__ = [
    "Age",
    "Context",
    "Intervals",
    "IntervalsGoal",
    "Kdamond",
    "NrRegions",
    "Rate",
    "Region",
    "Scheme",
    "Spec",
    "Target",
    "explain",
    "from_builtins",
    "from_json",
    "read",
    "to_builtins",
    "validate",
    "validate_attrs",
]
