"""The typed request (spec), its units and its validation. Everyone may import it; it imports nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydamon.spec.model import (
        ONLY_CONTEXT,
        Context,
        Intervals,
        IntervalsGoal,
        Kdamond,
        Match,
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
        validate_context,
    )
    from pydamon.spec.probes import Probe
    from pydamon.spec.quantities import Age, Rate
    from pydamon.spec.schemes import Scheme
    from pydamon.spec.words.plain import explain

__all__ = [
    "ONLY_CONTEXT",
    "Age",
    "Context",
    "Intervals",
    "IntervalsGoal",
    "Kdamond",
    "Match",
    "NrRegions",
    "Probe",
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
    "validate_context",
]

_ELSEWHERE = {
    "explain": "words.plain",
    "Age": "quantities",
    "Rate": "quantities",
    "Scheme": "schemes",
    "Probe": "probes",
}


def __getattr__(name: str) -> object:
    # Looked up when used: who needs only the units does not pay for the model (30 ms).
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(f"{__name__}.{_ELSEWHERE.get(name, 'model')}")
    found = globals()[name] = getattr(module, name)
    return found
