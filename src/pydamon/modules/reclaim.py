"""``reclaim``: page out what nobody has used for long, the oldest first; or what the kernel picks, while nobody waits.

By *age* it has the knobs and defaults of DAMON_RECLAIM (Documentation/admin-guide/mm/damon/reclaim.rst), by *pressure*
those of Senpai (`modules/pressure.py`), by *refaults* those of software-defined far memory (`modules/refaults.py`).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from pydamon.errors import RequestError
from pydamon.modules.base import (
    OLDEST_FIRST,
    PAGES_OUT,
    Facts,
    Knobs,
    Module,
    Target,
    bp_knob,
    choice_knob,
    interval_knob,
    only_files,
    permil_knob,
    quota_knob,
    size_knob,
    time_knob,
    too_much_free,
    unused_for,
    watermarks_knob,
    words_knob,
)
from pydamon.modules.controller import Controller
from pydamon.modules.pressure import PressureController, PressureRule
from pydamon.modules.refaults import RefaultController, RefaultRule
from pydamon.spec.actions import NO_SWAP
from pydamon.spec.forms.scheme_short import exact_permil
from pydamon.spec.schemes import (
    Goal,
    Quotas,
    Scheme,
    Watermarks,
)
from pydamon.spec.units import exact_bp, format_duration_ns, format_size

NAME = "reclaim"
DRIVERS = ("age", "pressure", "refaults")
_BY_AGE = frozenset({"age", "refaults"})  # these have the scheme
_SWAP_NEARLY_FULL = 10  # percent free
_NO_CGROUP = "asks a cgroup to give memory (memory.reclaim), which a process has none of its own; target its cgroup"


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
    drivers: Annotated[tuple[str, ...], words_knob("driver", DRIVERS, "what it goes by")] = ("age",)
    psi_permil: Annotated[
        int, permil_knob("psi", "by pressure: nothing is asked for while tasks wait this share for memory")
    ] = 1
    io_psi_permil: Annotated[
        int, permil_knob("io_psi", "by pressure: nothing is asked for while tasks wait this share for io")
    ] = 1
    probe_permil: Annotated[int, permil_knob("probe", "by pressure: ask for this share of the memory each time")] = 10
    interval_us: Annotated[int, interval_knob("by pressure: ask once in this time")] = 6_000_000
    refault_bp: Annotated[
        int, bp_knob("refaults", "by refaults: tune min_age until this share of the working set comes back per minute")
    ] = 20
    floor_bytes: Annotated[int, size_knob("floor", "by pressure: leave at least this much")] = 0
    most_bytes: Annotated[int, size_knob("most", "by pressure: take at most this much in all")] = 0


def schemes(knobs: ReclaimKnobs, target: Target) -> tuple[Scheme, ...]:
    """By age one scheme: whole pages, never accessed, at least as old; under the quota, between the watermarks.

    Raises RequestError for a target on which none of its drivers works.
    """
    if knobs.drivers == ("pressure",) and target == "process":
        raise RequestError(f"pressure {_NO_CGROUP}, or use driver=age", where="driver")
    if not _BY_AGE.intersection(knobs.drivers):
        return ()
    goals = (Goal(metric="some_mem_psi_us", target_value=knobs.pressure_us),) if knobs.pressure_us else ()
    return (
        Scheme(
            name=NAME,
            action="pageout",
            access_pattern=unused_for(knobs.min_age_us),
            quotas=msgspec.structs.replace(knobs.quota, goals=goals),
            watermarks=knobs.watermarks,
            filters=only_files(knobs.files),
        ),
    )


def controllers(knobs: ReclaimKnobs, target: Target) -> tuple[Controller, ...]:
    """By refaults, and by pressure, a loop each."""
    loops: list[Controller] = []
    if "refaults" in knobs.drivers:
        rule = RefaultRule(
            scheme=NAME,
            limit_bp=knobs.refault_bp,
            first_us=knobs.min_age_us,
            window_us=knobs.quota.reset_interval_ms * 1000,
            most_bytes=knobs.quota.sz_bytes,
        )
        loops.append(RefaultController(rule))
    if "pressure" in knobs.drivers and target != "process":
        loops.append(_by_pressure_loop(knobs))
    return tuple(loops)


def _by_pressure_loop(knobs: ReclaimKnobs) -> Controller:
    rule = PressureRule(
        interval_us=knobs.interval_us,
        memory_percent=knobs.psi_permil / 10,
        io_percent=knobs.io_psi_permil / 10,
        probe_permil=knobs.probe_permil,
        floor_bytes=knobs.floor_bytes,
        files_only=knobs.files == "only",
        most_bytes=knobs.most_bytes,
    )
    return PressureController(rule)


def words(knobs: ReclaimKnobs) -> list[str]:
    """What it does by pressure, and by refaults."""
    found = []
    if "refaults" in knobs.drivers:
        found.append(
            f"By refaults: after two minutes the lowest age and the quota are set, and every 5 s again, so that "
            f"{exact_bp(knobs.refault_bp)} of the working set comes back per minute, as the kernel counts it."
        )
    return [*found, *_pressure_words(knobs)] if "pressure" in knobs.drivers else found


def _pressure_words(knobs: ReclaimKnobs) -> list[str]:
    psi, io = exact_permil(knobs.psi_permil), exact_permil(knobs.io_psi_permil)
    files = " of files" if knobs.files == "only" else ""
    floor = f" above {format_size(knobs.floor_bytes)}" if knobs.floor_bytes else ""
    most = f", {format_size(knobs.most_bytes)} in all" if knobs.most_bytes else ""
    return [
        f"By pressure: every {format_duration_ns(knobs.interval_us * 1000)}, while tasks of the cgroup wait less than "
        f"{psi} of the time for memory and {io} for io (PSI, the last 10 s and 60 s), the kernel is asked for "
        f"{exact_permil(knobs.probe_permil)} of its memory{files}{floor}{most} (memory.reclaim).",
        "  That asks for no accesses, and sets no limit.",
    ]


def cannot(knobs: ReclaimKnobs, facts: Facts) -> list[str]:
    """No swap, watermarks that keep it from acting, a goal that cannot be measured, an age that would thrash."""
    found = []
    if facts.swap_bytes == 0 and knobs.files != "only":
        found.append(f"{NO_SWAP}; files=only says so")
    elif facts.swap_bytes and facts.swap_free_bytes is not None and knobs.files != "only":
        free = facts.swap_free_bytes * 100 // facts.swap_bytes
        if free < _SWAP_NEARLY_FULL:
            found.append(f"{free}% of swap is free: anonymous memory will soon find no room; files=only needs none")
    if _BY_AGE.intersection(knobs.drivers):
        found += _by_age(knobs, facts)
    if "pressure" in knobs.drivers:
        found += _by_pressure(knobs, facts)
    return found


def _by_age(knobs: ReclaimKnobs, facts: Facts) -> list[str]:
    found, marks = [], knobs.watermarks
    free_permil = facts.free_permil_of(marks)
    if marks.nid is not None and facts.node_free_permil and marks.nid not in facts.node_free_permil:
        there = ", ".join(map(str, facts.node_free_permil))
        found.append(f"there is no NUMA node {marks.nid} with memory here; nodes that have some: {there}")
    found += too_much_free(marks, facts)
    if free_permil is not None and free_permil < marks.low_permil:
        free = f"{free_permil / 10:.0f}% of {marks.of_what} is free now"
        found.append(f"{free}: below {marks.low_permil / 10:g}% reclaim is left to the kernel")
    if knobs.pressure_us and facts.psi is False:
        found.append("the kernel tells no pressure (PSI): pressure cannot be kept; leave it out, quota still bounds it")
    if knobs.min_age_us < 1_000_000:
        age = format_duration_ns(knobs.min_age_us * 1000)
        found.append(f"min_age of {age} takes what is used again soon; the usual is 2min, a gentle start 10s")
    return found


def _by_pressure(knobs: ReclaimKnobs, facts: Facts) -> list[str]:
    if facts.target == "process":
        return [f"driver: pressure {_NO_CGROUP}; it goes by age alone"]
    found = []
    if facts.psi is False:
        found.append("the kernel tells no pressure of memory (PSI): nothing is asked for by pressure; driver=age works")
    elif facts.io_psi is False:
        found.append("the kernel tells no pressure of io (PSI): only that of memory bounds it")
    if facts.reclaim_obstacle is not None:
        found.append(f"{facts.reclaim_obstacle}; driver=age does without")
    return found


RECLAIM = Module(
    name=NAME,
    help="page out what was not used for long, the oldest first",
    knobs=ReclaimKnobs,
    schemes=schemes,
    cannot=cannot,
    where={"user": ("process", "cgroup", "physical"), "kernel": ("process", "physical"), "sim": ("process", "cgroup")},
    controllers=controllers,
    words=words,
    does=lambda knobs: (PAGES_OUT,),
)
