"""``thp``: huge pages where memory is hot, by what they add to it; and cold huge pages go back.

What the seeds of this idea call ``ethp`` (hugepage for what is used, nohugepage for what is not) and the kernel's draft
DAMON_HUGEPAGE, for other processes: the kernel lets those be collapsed and paged out, but not advised. Where the
kernel's own DAMON runs it, advice is what there is before Linux 7.2.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import msgspec

from pydamon.errors import RequestError
from pydamon.modules.base import (
    MAKES_HUGE,
    OLDEST_FIRST,
    PAGES_OUT,
    Facts,
    Knob,
    Knobs,
    Module,
    Target,
    bp_knob,
    choice_knob,
    interval_knob,
    quota_knob,
    time_knob,
    unused_for,
    watermarks_knob,
)
from pydamon.modules.controller import Controller
from pydamon.modules.threshold import ThresholdController, ThresholdRule
from pydamon.spec import units
from pydamon.spec.actions import ACTIONS, NO_SWAP
from pydamon.spec.forms.scheme_short import exact_permil, shown
from pydamon.spec.module_numbers import OF_HUGE_PAGES
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
from pydamon.spec.units import U64_MAX, exact_bp, format_duration_ns

NAME, BACK = "thp", "thp-back"
HUGE_PAGE = 2 << 20
AUTO = 0
_HOTTEST_FIRST = Weights(sz_permil=0, nr_accesses_permil=1, age_permil=1)


def _parse_frequency(text: str) -> int:
    if text == "auto":
        return AUTO
    value = units.parse_permil(text)
    if not 1 <= value <= 1000:
        raise RequestError(f"{shown(text)}: must be auto, or 0.1% to 100%")
    return value


def _write_frequency(permil: int) -> str:
    return exact_permil(permil) if permil else "auto"


class ThpKnobs(Knobs, frozen=True, kw_only=True):
    """What can be said of it."""

    max_bloat_bp: Annotated[
        int, bp_knob("max_bloat", "huge pages add at most this share of what is resident", may_be_off=True)
    ] = 500
    hot_permil: Annotated[
        int,
        Knob(
            "hot_freq",
            _parse_frequency,
            _write_frequency,
            "hot is what this share of samples finds used; auto: lowered from 100% while nothing is found",
        ),
    ] = AUTO
    interval_us: Annotated[int, interval_knob("with hot_freq=auto: a step in this time")] = 5_000_000
    cold_min_age_us: Annotated[
        int, time_knob("cold_min_age", "huge pages that were not used for this long go back; off: they stay")
    ] = 120_000_000
    quota: Annotated[Quotas, quota_knob("quota", "at most this time and size per window, of each half")] = Quotas(
        time_ms=10, reset_interval_ms=1000, weights=OLDEST_FIRST
    )
    watermarks: Annotated[Watermarks, watermarks_knob("watermarks", "active by the share of free memory")] = Watermarks(
        metric="free_mem_rate", interval_us=5_000_000, high_permil=1000, mid_permil=1000, low_permil=50
    )
    huge_bp: Annotated[
        int,
        bp_knob("huge", "tune the quota until this share of used memory is in huge pages", may_be_off=True),
    ] = 0
    how: Annotated[
        Literal["collapse", "advise"],
        choice_knob("how", ("collapse", "advise"), "make huge pages now, or (engine kernel) allow them"),
    ] = "collapse"


def schemes(knobs: ThpKnobs, target: Target) -> tuple[Scheme, ...]:
    """The hot half, and the cold one unless that is off. Raises RequestError for physical memory."""
    if target == "physical":
        raise RequestError("huge pages are made of what processes map; the target must be processes or a cgroup")
    goals = (Goal(metric="hugepage_mem_bp", target_value=knobs.huge_bp),) if knobs.huge_bp else ()
    quotas = msgspec.structs.replace(knobs.quota, weights=_HOTTEST_FIRST)
    collapses = knobs.how == "collapse"
    hot = Scheme(
        name=NAME,
        action="collapse" if collapses else "hugepage",
        access_pattern=AccessPattern(
            sz_bytes=SizeRange(min=HUGE_PAGE),
            nr_accesses=RateRange(min=Rate(Fraction(knobs.hot_permil or 1000, 10), "%")),
        ),
        quotas=msgspec.structs.replace(quotas, goals=goals, bloat_bp=knobs.max_bloat_bp if collapses else 0),
        watermarks=knobs.watermarks,
        filters=(Filter(filter_type="anon", matching=False),) if collapses else (),
    )
    return (hot, _back(knobs, quotas)) if knobs.cold_min_age_us else (hot,)


def _back(knobs: ThpKnobs, quotas: Quotas) -> Scheme:
    """What gives cold huge pages back: their pages are paged out, or (by advice) none are made anew."""
    collapses = knobs.how == "collapse"
    huge = Filter(filter_type="hugepage_size", matching=False, hugepage_size=SizeRange(min=HUGE_PAGE, max=U64_MAX))
    return Scheme(
        name=BACK,
        action="pageout" if collapses else "nohugepage",
        access_pattern=unused_for(knobs.cold_min_age_us, HUGE_PAGE),
        quotas=quotas,
        filters=(huge,) if collapses else (),
    )


def controllers(knobs: ThpKnobs, target: Target) -> tuple[Controller, ...]:
    """The loop that lowers the threshold, unless one was said."""
    if knobs.hot_permil:
        return ()
    return (ThresholdController(ThresholdRule(scheme=NAME, interval_us=knobs.interval_us)),)


def fit(knobs: ThpKnobs, facts: Facts) -> ThpKnobs:
    """The knobs for the kernel's own DAMON: it knows no bound on what is added, and collapses from Linux 7.2 on."""
    if facts.engine != "kernel":
        return knobs
    able = facts.kernel is None or facts.kernel >= ACTIONS["collapse"].known_since
    return msgspec.structs.replace(knobs, max_bloat_bp=0, how=knobs.how if able else "advise")


def words(knobs: ThpKnobs) -> list[str]:
    """What lowers the threshold."""
    if knobs.hot_permil:
        return []
    every = format_duration_ns(knobs.interval_us * 1000)
    return [
        f"Every {every} in which nothing was made huge the lowest access rate falls: by 10 samples of an aggregation "
        "while it is above 50, by 5 above 15, else by 1; it begins with all of them, and ends with 1."
    ]


def cannot(knobs: ThpKnobs, facts: Facts) -> list[str]:
    """No huge pages, no way back, the kernel's own ones beside ours, advice that nobody may give."""
    if facts.engine == "sim":
        return []
    found = []
    if facts.huge_pages == "absent":
        found.append("this kernel has no transparent huge pages (CONFIG_TRANSPARENT_HUGEPAGE): nothing is made huge")
    if facts.engine == "kernel":
        found += _by_the_kernel(knobs, facts)
        return found
    if knobs.how == "advise":
        found.append("how=advise is for the engine kernel: other processes cannot be advised; how=collapse can be done")
    if knobs.cold_min_age_us and facts.swap_bytes == 0:
        way = "with swap (zram is enough) they would go back, cold_min_age=off leaves them"
        found.append(f"{NO_SWAP}, and so do cold huge pages; {way}")
    if facts.huge_pages == "always":
        if facts.launches and facts.only_advised:
            found.append("the command gets huge pages by this module alone (PR_THP_DISABLE_EXCEPT_ADVISED)")
        else:
            reason = "is for commands that it starts (record … -- CMD)"
            if facts.launches:
                reason = "needs Linux 6.18 (PR_THP_DISABLE_EXCEPT_ADVISED)"
            found.append(
                "transparent huge pages are always on here: the kernel adds memory beside what max_bloat counts; "
                f"keeping it from that {reason}"
            )
    return found


def _by_the_kernel(knobs: ThpKnobs, facts: Facts) -> list[str]:
    found = []
    if knobs.max_bloat_bp:
        bound = exact_bp(knobs.max_bloat_bp)
        found.append(f"max_bloat={bound} is kept by the engine user alone: the kernel's DAMON looks for no residency")
    if facts.kernel is not None and facts.kernel < ACTIONS["collapse"].known_since:
        found.append("the kernel's DAMON collapses from Linux 7.2 on: it advises here (hugepage, nohugepage)")
        if facts.huge_pages == "never":
            found.append(f"advice does nothing where huge pages are {facts.huge_pages} made; the engine user collapses")
    return found


def does(knobs: ThpKnobs) -> tuple[str, ...]:
    """Huge pages, and cold ones out."""
    return (MAKES_HUGE, PAGES_OUT) if knobs.cold_min_age_us else (MAKES_HUGE,)


def bounds(knobs: ThpKnobs) -> dict[str, str]:
    """What huge pages may add."""
    return {MAKES_HUGE: f"max_bloat={exact_bp(knobs.max_bloat_bp)}"} if knobs.max_bloat_bp else {}


THP = Module(
    name=NAME,
    help="make hot memory huge pages, within a bound on what that adds, and give cold ones back",
    knobs=ThpKnobs,
    schemes=schemes,
    cannot=cannot,
    where={"user": ("process", "cgroup"), "kernel": ("process",), "sim": ("process", "cgroup")},
    controllers=controllers,
    words=words,
    numbers=OF_HUGE_PAGES,
    fit=fit,
    makes_huge_pages=True,
    does=does,
    bounds=bounds,
)
