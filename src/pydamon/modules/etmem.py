"""``etmem``: cold memory out by a threshold of accesses *and* a time, by regions or page by page, as openEuler's etmem.

Its options, and what they mean, are those of etmem's slide engine (etmem/README-en.md). A scan of pages is DAMON with a
region for each page: each is asked ``loop`` times, ``interval`` apart, and what was used fewer than T times is cold.
Where etmem counts a write as three accesses, each counts as one here.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import msgspec

from pydamon.errors import RequestError
from pydamon.modules.base import (
    MAKES_HUGE,
    OFF,
    OLDEST_FIRST,
    PAGES_OUT,
    Facts,
    Knob,
    Knobs,
    Module,
    Target,
    bp_knob,
    choice_knob,
    only_files,
    permil_knob,
    quota_knob,
    size_knob,
    time_knob,
)
from pydamon.modules.controller import Controller, Decision, Observations, SetQuota
from pydamon.spec import Intervals, NrRegions
from pydamon.spec.actions import NO_SWAP
from pydamon.spec.model import MAX_NR_REGIONS, PAGE_SIZE
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import (
    AccessPattern,
    AgeRange,
    Quotas,
    RateRange,
    Scheme,
    SizeRange,
    Watermarks,
)
from pydamon.spec.units import exact_bp, format_duration_ns, format_size, parse_count

NAME = "etmem"
MOST_LOOPS = 120
_MOST_THRESHOLD = 3 * MOST_LOOPS
_HUGE = 2 << 20
_BP = 10_000
_LEAST_STEP_US = 1_000_000
_EVERY_US = 5_000_000  # how often what is left is looked at, by regions


def count_knob(name: str, low: int, high: int, help: str) -> Knob:
    """A whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        value = parse_count(text)
        if not low <= value <= high:
            raise RequestError(f"is {value}; it must be {low} to {high}")
        return value

    return Knob(name, parse, str, help)


class EtmemKnobs(Knobs, frozen=True, kw_only=True):
    """What can be said of it."""

    scan: Annotated[
        Literal["region", "page"], choice_knob("scan", ("region", "page"), "what is asked, and judged, as one")
    ] = "region"
    loop: Annotated[int, count_knob("loop", 1, MOST_LOOPS, "by pages: ask each this often before it is judged")] = 1
    interval_us: Annotated[int, time_knob("interval", "by pages: the time between two of these")] = 1_000_000
    sleep_us: Annotated[int, time_knob("sleep", "by pages: wait this long after each round")] = 1_000_000
    threshold: Annotated[
        int, count_knob("T", 1, _MOST_THRESHOLD, "cold is what was used fewer times than this per round (aggregation)")
    ] = 1
    min_age_us: Annotated[int, time_knob("min_age", "and has been so for this long")] = 0
    dram_bp: Annotated[
        int, bp_knob("dram_percent", "leave this share of the memory that there was", may_be_off=True)
    ] = 0
    swap_threshold: Annotated[int, size_knob("swap_threshold", "leave at least this much")] = 0
    free_permil: Annotated[
        int, permil_knob("sysmem_threshold", "only while less than this share of the machine's memory is free")
    ] = 1000
    quota: Annotated[Quotas, quota_knob("quota", "at most this time and size per window")] = Quotas(
        time_ms=100, sz_bytes=256 << 20, reset_interval_ms=1000, weights=OLDEST_FIRST
    )
    files: Annotated[str, choice_knob("files", ("also", "only"), "with only, anonymous memory stays")] = "also"
    huge: Annotated[str, choice_knob("huge", ("off", "hot"), "put hot memory into huge pages, until it is cold")] = OFF
    hot_permil: Annotated[int, permil_knob("hot", "for huge: hot is what this share of samples finds used")] = 500

    @property
    def leaves(self) -> bool:
        """Whether some memory is to stay however cold it is."""
        return bool(self.dram_bp or self.swap_threshold)

    @property
    def round_us(self) -> int:
        """The time from one judgement of pages to the next."""
        return self.loop * self.interval_us + self.sleep_us


class LeaveController:
    """The quota is a quarter of what may still go: of what is resident now, less what is to stay.

    Two windows may begin before the next step, and a snapshot may be an aggregation old: a quarter is never too much. A
    share is of the most that was resident so far, which stands for what etmem adds up: resident and in swap.
    """

    needs_accesses = True

    def __init__(self, knobs: EtmemKnobs) -> None:
        self._knobs = knobs
        self.interval_us = _step_us(knobs)
        self._most = 0
        self._set = PAGE_SIZE  # as the scheme begins

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """A new quota per window, which lasts as long as a step. One page is the least."""
        resident = observations.resident_bytes
        if resident is None:
            return ()
        self._most = max(self._most, resident)
        knobs = self._knobs
        keep = max(self._most * knobs.dram_bp // _BP, knobs.swap_threshold)
        allowed = (resident - keep) // 4
        if knobs.quota.sz_bytes:
            allowed = min(allowed, _per_step(knobs))
        allowed = max(allowed // PAGE_SIZE, 1) * PAGE_SIZE
        if allowed == self._set:
            return ()
        self._set = allowed
        return (SetQuota(scheme=NAME, sz_bytes=allowed),)


def _step_us(knobs: EtmemKnobs) -> int:
    return max(knobs.round_us if knobs.scan == "page" else _EVERY_US, _LEAST_STEP_US)


def _per_step(knobs: EtmemKnobs) -> int:
    """The size of the quota in a window that is a step long."""
    return knobs.quota.sz_bytes * _step_us(knobs) // (knobs.quota.reset_interval_ms * 1000)


def _quota(knobs: EtmemKnobs) -> Quotas:
    """As it was said; where something is to stay, of a window as long as a step, and a page until it is known."""
    if not knobs.leaves:
        return knobs.quota
    step_ms = _step_us(knobs) // 1000
    time_ms = knobs.quota.time_ms * step_ms // knobs.quota.reset_interval_ms
    return msgspec.structs.replace(knobs.quota, time_ms=time_ms, sz_bytes=PAGE_SIZE, reset_interval_ms=step_ms)


def schemes(knobs: EtmemKnobs, target: Target) -> tuple[Scheme, ...]:
    """What is cold goes out; with ``huge``, what is hot into huge pages first. Raises RequestError."""
    if knobs.scan == "page":
        if target == "physical":
            raise RequestError("pages are scanned of processes; of physical memory take scan=region", where="scan")
        if not knobs.interval_us:
            raise RequestError("must be above 0 with scan=page, like 1s", where="interval")
    cold = Scheme(
        name=NAME,
        action="pageout",
        access_pattern=AccessPattern(
            sz_bytes=SizeRange(min=PAGE_SIZE),
            nr_accesses=RateRange(max=Rate(_most_accesses(knobs), "samples")),
            age=AgeRange(min=Age(Fraction(knobs.min_age_us), "us")) if knobs.min_age_us else AgeRange(),
        ),
        apply_interval_us=knobs.round_us if knobs.scan == "page" else 0,
        quotas=_quota(knobs),
        watermarks=_watermarks(knobs),
        filters=only_files(knobs.files),
    )
    return (cold,) if knobs.huge == OFF else (_hot(knobs), cold)


def _most_accesses(knobs: EtmemKnobs) -> int:
    """Of what is cold; a page is asked ``loop`` times, and one that was used each time is not cold."""
    most = knobs.threshold - 1
    return min(most, knobs.loop - 1) if knobs.scan == "page" else most


def _watermarks(knobs: EtmemKnobs) -> Watermarks:
    if knobs.free_permil == 1000:
        return Watermarks()
    limit = knobs.free_permil
    return Watermarks(metric="free_mem_rate", interval_us=5_000_000, high_permil=limit, mid_permil=limit, low_permil=0)


def _hot(knobs: EtmemKnobs) -> Scheme:
    """Whole huge pages of memory that is used much; undone when they are paged out, which splits them."""
    pattern = AccessPattern(
        sz_bytes=SizeRange(min=PAGE_SIZE if knobs.scan == "page" else _HUGE),
        nr_accesses=RateRange(min=Rate(Fraction(knobs.hot_permil, 10), "%")),
    )
    return Scheme(name=f"{NAME}-huge", action="collapse", access_pattern=pattern, quotas=knobs.quota)


def controllers(knobs: EtmemKnobs, target: Target) -> tuple[Controller, ...]:
    """The loop that leaves what is to stay; none where nothing is."""
    return (LeaveController(knobs),) if knobs.leaves else ()


def monitoring(knobs: EtmemKnobs) -> tuple[Intervals, NrRegions] | None:
    """How pages are scanned: a region for each, asked once per interval; None by regions: as for any scheme."""
    if knobs.scan == "region":
        return None
    aggr_us = knobs.loop * knobs.interval_us
    intervals = Intervals(sample_us=knobs.interval_us, aggr_us=aggr_us, ops_update_us=max(aggr_us, _LEAST_STEP_US))
    return intervals, NrRegions(min=MAX_NR_REGIONS, max=MAX_NR_REGIONS)


def words(knobs: EtmemKnobs) -> list[str]:
    """How pages are scanned, and what is left."""
    found = []
    if knobs.scan == "page":
        every, sleep = (format_duration_ns(us * 1000) for us in (knobs.interval_us, knobs.sleep_us))
        found.append(
            f"Page by page: each is asked {knobs.loop} times, {every} apart, and judged; after {sleep} it begins again."
        )
    if knobs.leaves:
        parts = [f"{exact_bp(knobs.dram_bp)} of the most that was resident"] if knobs.dram_bp else []
        parts += [format_size(knobs.swap_threshold)] if knobs.swap_threshold else []
        found.append(f"At least {' and '.join(parts)} stay, however cold; that is looked at anew each window.")
    if knobs.huge != OFF:
        found.append("Huge pages are undone when they are paged out as cold: what comes back is in small pages.")
    return found


def cannot(knobs: EtmemKnobs, facts: Facts) -> list[str]:
    """What it will not do here, and the nearest that it will."""
    found = []
    if facts.swap_bytes == 0 and knobs.files != "only":
        found.append(f"{NO_SWAP}; files=only says so")
    if knobs.scan == "page" and facts.engine == "kernel":
        found.append("the kernel's DAMON is slow with a region for each page; scan=region, or the user engine")
    if knobs.scan == "page" and knobs.threshold > knobs.loop:
        found.append(f"T={knobs.threshold}: a page is asked {knobs.loop} times, so T={knobs.loop} is as good")
    if knobs.scan == "page" and facts.knows_ages is False:
        found.append("this way of asking does not know single pages; scan=region, or the primitive bpf or idle")
    if knobs.free_permil < 1000 and facts.free_permil is not None and facts.free_permil >= knobs.free_permil:
        free = f"{facts.free_permil / 10:.0f}% of memory is free now"
        found.append(f"{free}: it begins below {knobs.free_permil / 10:g}%; sysmem_threshold=100% is always")
    return found


def does(knobs: EtmemKnobs) -> tuple[str, ...]:
    """What is cold out, and what is hot into huge pages."""
    return (PAGES_OUT,) if knobs.huge == OFF else (PAGES_OUT, MAKES_HUGE)


def bounds(knobs: EtmemKnobs) -> dict[str, str]:
    """What is to stay."""
    if knobs.dram_bp:
        return {PAGES_OUT: f"dram_percent={exact_bp(knobs.dram_bp)}"}
    return {PAGES_OUT: f"swap_threshold={format_size(knobs.swap_threshold)}"} if knobs.swap_threshold else {}


ETMEM = Module(
    name=NAME,
    help="page out what was used fewer times than a threshold, by regions or page by page (openEuler's etmem)",
    knobs=EtmemKnobs,
    schemes=schemes,
    cannot=cannot,
    where={"user": ("process", "cgroup", "physical"), "kernel": ("process", "physical"), "sim": ("process", "cgroup")},
    controllers=controllers,
    words=words,
    monitoring=monitoring,
    does=does,
    bounds=bounds,
)
