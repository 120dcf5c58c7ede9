"""``protect``: memory.low of a primary workload's cgroup follows its working set, so that others give first.

The kernel takes memory of a cgroup below its memory.low only when nothing else is left. What was there before is put
back at the end; limits are not touched.
"""

from __future__ import annotations

from typing import Annotated

from pydamon.errors import RequestError
from pydamon.modules.base import Facts, Knobs, Module, Target, interval_knob, permil_knob, size_knob, time_knob
from pydamon.modules.controller import Controller, Decision, Observations, SetMemoryLow
from pydamon.spec.forms.scheme_short import exact_permil
from pydamon.spec.schemes import Scheme
from pydamon.spec.units import format_duration_ns, format_size

_STEP_PERMIL = 50  # smaller changes are not worth a write
_USUAL_MOST_PERMIL = 500  # of the machine's memory


class ProtectKnobs(Knobs, frozen=True, kw_only=True):
    """What can be said of it."""

    window_us: Annotated[int, time_knob("window", "the working set is what was used within this time")] = 120_000_000
    margin_permil: Annotated[int, permil_knob("margin", "protect this share more than the working set")] = 100
    max_bytes: Annotated[int, size_knob("max", "never protect more; off is half of the machine's memory")] = 0
    interval_us: Annotated[int, interval_knob("look again after this time")] = 5_000_000


class ProtectController:
    """Rises with the working set at once, and falls when it has been smaller for as long as the window."""

    needs_accesses = True

    def __init__(self, knobs: ProtectKnobs) -> None:
        self._knobs = knobs
        self.interval_us = knobs.interval_us
        self._set: int | None = None

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """A new memory.low where it differs enough; nothing as long as it is not known what is used."""
        knobs, resident = self._knobs, observations.resident_bytes
        if resident is None:
            return ()
        used = resident - (observations.idle_bytes(knobs.window_us) or 0)
        wanted = used * (1000 + knobs.margin_permil) // 1000
        most = knobs.max_bytes
        if not most:
            most = (observations.machine_bytes or 0) * _USUAL_MOST_PERMIL // 1000
        wanted = min(wanted, most)
        wanted -= wanted % observations.page_bytes
        if self._set is not None and abs(wanted - self._set) * 1000 <= self._set * _STEP_PERMIL:
            return ()
        self._set = wanted
        return (SetMemoryLow(bytes=wanted),)


def schemes(knobs: ProtectKnobs, target: Target) -> tuple[Scheme, ...]:
    """None: it takes nothing. Raises RequestError for a target that is no cgroup."""
    if target != "cgroup":
        raise RequestError("protects a cgroup; the target must be the one of the workload (its memory.low is set)")
    return ()


def controllers(knobs: ProtectKnobs, target: Target) -> tuple[Controller, ...]:
    """Its loop."""
    return (ProtectController(knobs),)


def words(knobs: ProtectKnobs) -> list[str]:
    """What it does."""
    most = format_size(knobs.max_bytes) if knobs.max_bytes else "half of the machine's memory"
    every, window = (format_duration_ns(us * 1000) for us in (knobs.interval_us, knobs.window_us))
    return [
        f"Every {every}: memory.low is set to what the cgroup used within {window} and "
        f"{exact_permil(knobs.margin_permil)} more, at most {most}; at the end it is as before."
    ]


def cannot(knobs: ProtectKnobs, facts: Facts) -> list[str]:
    """A cgroup that cannot be protected, or whose protection comes to nothing."""
    found = []
    if facts.low_obstacle is not None:
        found.append(f"{facts.low_obstacle}; without it nothing is protected, and only said (a dry run)")
    if facts.low_limited_by is not None:
        above = f"memory.low of {facts.low_limited_by} is 0: nothing below it is protected"
        found.append(f"{above}; set it there, or take a cgroup that is right below the root")
    return found


PROTECT = Module(
    name="protect",
    help="have the kernel leave the working set of a primary workload's cgroup alone (memory.low)",
    knobs=ProtectKnobs,
    schemes=schemes,
    cannot=cannot,
    where={"user": ("cgroup",)},
    controllers=controllers,
    words=words,
)
