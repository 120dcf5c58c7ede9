"""``lru_sort``: tell the kernel's LRU lists what is hot and what is cold; knobs and defaults of DAMON_LRU_SORT.

On processes only the cold half can be done (MADV_COLD): user space could mark memory as used only by touching it, which
changes what is measured, and is no option. Defaults are those of Documentation/admin-guide/mm/damon/lru_sort.rst.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import msgspec

from pydamon.modules.base import (
    OLDEST_FIRST,
    Facts,
    Knobs,
    Module,
    Target,
    bp_knob,
    choice_knob,
    permil_knob,
    quota_knob,
    time_knob,
    too_much_free,
    unused_for,
    watermarks_knob,
)
from pydamon.spec.model import PAGE_SIZE
from pydamon.spec.quantities import Rate
from pydamon.spec.schemes import (
    AccessPattern,
    Filter,
    Goal,
    Quotas,
    RateRange,
    Scheme,
    SizeRange,
    Watermarks,
    Weights,
)

_BP, _OVERLAP_BP = 10_000, 2


class LruSortKnobs(Knobs, frozen=True, kw_only=True):
    """What can be said of it."""

    cold_min_age_us: Annotated[int, time_knob("cold_min_age", "cold is what was not used for this long")] = 120_000_000
    hot_permil: Annotated[int, permil_knob("hot_freq", "hot is what this share of samples finds used")] = 500
    quota: Annotated[Quotas, quota_knob("quota", "at most this time and size per window, of each half")] = Quotas(
        time_ms=5, reset_interval_ms=1000, weights=OLDEST_FIRST
    )
    watermarks: Annotated[Watermarks, watermarks_knob("watermarks", "active by the share of free memory")] = Watermarks(
        metric="free_mem_rate", interval_us=5_000_000, high_permil=200, mid_permil=150, low_permil=50
    )
    active_bp: Annotated[
        int, bp_knob("active", "tune the quotas until this share of the LRU lists is active", may_be_off=True)
    ] = 0
    young: Annotated[
        str, choice_knob("young", ("asked", "ignored"), "with asked, a page's own bit has to agree at the end")
    ] = "ignored"


def schemes(knobs: LruSortKnobs, target: Target) -> tuple[Scheme, ...]:
    """The cold half, and before it, of physical memory, the hot one; each has the quota to itself.

    With a goal both overlap by 0.02 %, as in the kernel's module, so that pages keep flowing.
    """
    weights = Weights(sz_permil=0, nr_accesses_permil=1, age_permil=1)
    quotas = msgspec.structs.replace(knobs.quota, weights=weights)
    asked = knobs.young == "asked"
    cold = Scheme(
        name="lru_sort-cold",
        action="lru_deprio" if target == "physical" else "cold",
        access_pattern=unused_for(knobs.cold_min_age_us),
        quotas=_towards(quotas, "inactive_mem_bp", knobs.active_bp and _BP - knobs.active_bp + _OVERLAP_BP),
        watermarks=knobs.watermarks,
        filters=(Filter(filter_type="young"),) if asked else (),
    )
    if target != "physical":
        return (cold,)
    rate = RateRange(min=Rate(Fraction(knobs.hot_permil, 10), "%"))
    pattern = AccessPattern(sz_bytes=SizeRange(min=PAGE_SIZE), nr_accesses=rate)
    hot = Scheme(
        name="lru_sort-hot",
        action="lru_prio",
        access_pattern=pattern,
        quotas=_towards(quotas, "active_mem_bp", knobs.active_bp),
        watermarks=knobs.watermarks,
        filters=(Filter(filter_type="young", matching=False),) if asked else (),
    )
    return (hot, cold)


def _towards(quotas: Quotas, metric: Literal["active_mem_bp", "inactive_mem_bp"], target_bp: int) -> Quotas:
    """The quota with that goal; 0: without."""
    goals = (Goal(metric=metric, target_value=target_bp),) if target_bp else ()
    return msgspec.structs.replace(quotas, goals=goals)


def cannot(knobs: LruSortKnobs, facts: Facts) -> list[str]:
    """Hot memory of processes; watermarks that keep it from acting."""
    found = []
    if facts.target != "physical":
        touching = "user space could mark hot memory only by touching it, which is no option"
        found.append(f"only cold memory is sorted: {touching}; of physical memory both is")
    return found + too_much_free(knobs.watermarks, facts)


LRU_SORT = Module(
    name="lru_sort",
    help="make cold memory the first to go, and on physical memory hot memory the last",
    knobs=LruSortKnobs,
    schemes=schemes,
    cannot=cannot,
    where={"user": ("process", "cgroup", "physical"), "kernel": ("process", "physical"), "sim": ("process",)},
)
