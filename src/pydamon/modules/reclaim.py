"""``reclaim``: page out what nobody has used for long, the oldest first; knobs and defaults of DAMON_RECLAIM.

Defaults are those of Documentation/admin-guide/mm/damon/reclaim.rst.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated

import msgspec

from pydamon.modules.base import (
    OLDEST_FIRST,
    Facts,
    Knobs,
    Module,
    Target,
    choice_knob,
    quota_knob,
    time_knob,
    watermarks_knob,
)
from pydamon.spec.actions import NO_SWAP
from pydamon.spec.model import PAGE_SIZE
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import (
    AccessPattern,
    AgeRange,
    Filter,
    Goal,
    Quotas,
    RateRange,
    Scheme,
    SizeRange,
    Watermarks,
)
from pydamon.spec.units import format_duration_ns


class ReclaimKnobs(Knobs, frozen=True, kw_only=True):
    """What can be said of it."""

    min_age_us: Annotated[int, time_knob("min_age", "page out what was not used for this long")] = 120_000_000
    quota: Annotated[Quotas, quota_knob("quota", "at most this time and size per window")] = Quotas(
        time_ms=10,
        sz_bytes=128 << 20,
        reset_interval_ms=1000,
        weights=OLDEST_FIRST,
    )
    watermarks: Annotated[Watermarks, watermarks_knob("watermarks", "active by the share of free memory")] = Watermarks(
        metric="free_mem_rate", interval_us=5_000_000, high_permil=500, mid_permil=400, low_permil=200
    )
    files: Annotated[str, choice_knob("files", ("also", "only"), "with only, anonymous memory stays")] = "also"
    pressure_us: Annotated[
        int, time_knob("pressure", "tune the quota until tasks wait this long for memory per window (PSI)")
    ] = 0


def schemes(knobs: ReclaimKnobs, target: Target) -> tuple[Scheme, ...]:
    """One scheme: whole pages, never accessed, at least as old; under the quota, between the watermarks."""
    goals = (Goal(metric="some_mem_psi_us", target_value=knobs.pressure_us),) if knobs.pressure_us else ()
    return (
        Scheme(
            name="reclaim",
            action="pageout",
            access_pattern=AccessPattern(
                sz_bytes=SizeRange(min=PAGE_SIZE),
                nr_accesses=RateRange(max=Rate(0, "samples")),
                age=AgeRange(min=Age(Fraction(knobs.min_age_us), "us")),
            ),
            quotas=msgspec.structs.replace(knobs.quota, goals=goals),
            watermarks=knobs.watermarks,
            filters=(Filter(filter_type="anon"),) if knobs.files == "only" else (),
        ),
    )


def cannot(knobs: ReclaimKnobs, facts: Facts) -> list[str]:
    """No swap, watermarks that keep it from acting, a goal that cannot be measured, an age that would thrash."""
    found = []
    if facts.swap_bytes == 0 and knobs.files != "only":
        found.append(f"{NO_SWAP}; files=only says so")
    marks = knobs.watermarks
    if facts.free_permil is not None and marks.metric != "none":
        free = f"{facts.free_permil / 10:.0f}% of memory is free now"
        if facts.free_permil > marks.mid_permil:
            when = f"it begins at {marks.mid_permil / 10:g}% or less"
            found.append(f"{free}: {when}; watermarks=off makes it always active")
        elif facts.free_permil < marks.low_permil:
            found.append(f"{free}: below {marks.low_permil / 10:g}% reclaim is left to the kernel")
    if knobs.pressure_us and facts.psi is False:
        found.append("the kernel tells no pressure (PSI): pressure cannot be kept; leave it out, quota still bounds it")
    if knobs.min_age_us < 1_000_000:
        age = format_duration_ns(knobs.min_age_us * 1000)
        found.append(f"min_age of {age} takes what is used again soon; the usual is 2min, a gentle start 10s")
    return found


RECLAIM = Module(
    name="reclaim",
    help="page out what was not used for long, the oldest first",
    knobs=ReclaimKnobs,
    schemes=schemes,
    cannot=cannot,
    where={"user": ("process", "cgroup", "physical"), "kernel": ("process", "physical"), "sim": ("process",)},
)
