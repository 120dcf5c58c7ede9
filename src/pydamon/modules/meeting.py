"""Several modules on one target: which contradict each other, and which take away what another waits for.

Each does its part of what it finds; an act of one is seen by the others as memory that was moved, became huge or went
out. What cannot be had together is one bound beside somebody who does not keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from pydamon.errors import RequestError
from pydamon.modules.base import Target, Use
from pydamon.spec.schemes import Scheme
from pydamon.spec.units import format_duration_ns


def check(uses: Sequence[Use]) -> None:
    """Raise RequestError where two of them contradict each other."""
    for one, other in combinations(uses, 2):
        for bounded, beside in ((one, other), (other, one)):
            for what, bound in bounded.bounds().items():
                if what in beside.does():
                    raise RequestError(
                        f"{bounded.module.name} ({bound}) and {beside.module.name} contradict each other: both "
                        f"{what}, and only one of them goes by that bound; leave one of the two out"
                    )


def lines(uses: Sequence[Use], target: Target) -> list[str]:
    """What there is to say of modules that meet: memory that goes out before another module would move it."""
    found = []
    for mover in uses:
        later = [_idle_us(scheme) for scheme in mover.schemes(target) if scheme.action == "migrate_cold"]
        if not later:
            continue
        for taker in uses:
            sooner = [_idle_us(scheme) for scheme in taker.schemes(target) if scheme.action == "pageout"]
            if taker is not mover and sooner and min(sooner) <= max(later):
                out, down = (format_duration_ns(us * 1000) for us in (min(sooner), max(later)))
                found.append(
                    f"module {taker.module.name}: pages out what was not used for {out}, so that "
                    f"{mover.module.name} finds little to move down after {down}; with a longer time memory goes down "
                    "first, and out later"
                )
    return found


def _idle_us(scheme: Scheme) -> int:
    """How long memory was not used that it acts on; 0 where that is no time."""
    age = scheme.access_pattern.age.min
    return int(age.value) if age.unit == "us" and age.value is not None else 0
