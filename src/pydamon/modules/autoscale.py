"""``autoscale``: within a virtual machine, memory that is not wanted is taken, made whole, and goes to the host.

Three steps, while nobody waits for memory: what is cold is taken, blocks of 2 MiB that are cold as a whole first, then
what the kernel picks, files before anonymous memory; free memory is compacted when too little of it lies in whole
blocks; free page reporting of the balloon hands those to the host. Nothing is limited and nothing is held: what is
wanted again is simply there. The idea is that of access and contiguity-aware memory auto-scaling (ACMA).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from pydamon.errors import RequestError
from pydamon.modules.base import (
    OFF,
    OLDEST_FIRST,
    PAGES_OUT,
    Facts,
    Knob,
    Knobs,
    Module,
    Target,
    choice_knob,
    interval_knob,
    only_files,
    permil_knob,
    quota_knob,
    size_knob,
    time_knob,
    unused_for,
)
from pydamon.modules.controller import Compact, Controller, Decision, Observations, ReclaimBytes, SetMinAge, SetQuota
from pydamon.modules.demand import Demand
from pydamon.spec import units
from pydamon.spec.forms.scheme_short import exact_permil
from pydamon.spec.model import PAGE_SIZE
from pydamon.spec.module_numbers import OF_FREE_MEMORY
from pydamon.spec.schemes import Filter, Quotas, Scheme
from pydamon.spec.units import format_duration_ns, format_size

NAME = "autoscale"
AUTO = 0
_BLOCK = 2 << 20
_STEP_PERMIL = 100  # of what is used, taken in one step
_PIECES_PERMIL = 30  # free memory that may lie in pieces: the host has it, for nobody
_LEAST_PIECES = 16 << 20
_GAIN = 4 << 20  # of memory made whole; with less, compaction waits twice as long
_MOST_WAIT_NS = 600_000_000_000
_TAKING_NS = 20_000_000_000  # compaction waits for so long while more is taken
_NEVER_US = 365 * 86_400_000_000  # no memory is that old: the scheme finds nothing, and so costs nothing
_VAIN = 4096  # what is looked at and belongs to no process counts for its quota's bytes a 4096th; its time counts
_SWAP_FULL_PERCENT = 80
_SWAPPINESS_SINCE = (6, 11)

# A block is taken as a whole, or it is no block: no page of it is asked about (a filter for young pages, which nobody
# reaches, keeps pageout from putting one of its own there). One that was never asked about would count as young.
_ALL_PAGES = (
    Filter(filter_type="anon", allow=True),
    Filter(filter_type="anon", matching=False, allow=True),
    Filter(filter_type="young"),
)


def _parse_target(text: str) -> int:
    if text == "auto":
        return AUTO
    value = units.parse_size(text)
    if not 0 < value <= 1 << 56:
        raise RequestError("must be auto, or how much is to be used, like 512MiB")
    return value


class AutoscaleKnobs(Knobs, frozen=True, kw_only=True):
    """What can be said of it."""

    target_bytes: Annotated[
        int,
        Knob(
            "target",
            _parse_target,
            lambda value: f"{value >> 20}MiB" if value and value % (1 << 20) == 0 else f"{value}B" if value else "auto",
            "so much is to be used; auto: what is wanted, and the margin",
        ),
    ] = AUTO
    margin_permil: Annotated[int, permil_knob("margin", "auto: leave this share more than is wanted")] = 100
    min_bytes: Annotated[int, size_knob("min", "never take when no more than this is used")] = 0
    max_bytes: Annotated[int, size_knob("max", "take what is used beyond this, wanted or not")] = 0
    cold_min_age_us: Annotated[int, time_knob("cold_min_age", "wanted is what was used within this time")] = 30_000_000
    psi_permil: Annotated[int, permil_knob("psi", "nothing is taken while tasks wait this share for memory")] = 1
    interval_us: Annotated[int, interval_knob("look, and take a step, once in this time")] = 5_000_000
    quota: Annotated[Quotas, quota_knob("quota", "whole cold blocks: at most this time per window")] = Quotas(
        time_ms=50, reset_interval_ms=1000, weights=OLDEST_FIRST
    )
    files: Annotated[
        str, choice_knob("files", ("first", "only", "alike"), "before anonymous memory, instead of it, or alike")
    ] = "first"
    compact: Annotated[str, choice_knob("compact", ("on", OFF), "have the kernel compact free memory")] = "on"


class AutoscaleController:
    """Takes a step per interval: what may be taken, by whom, and whether to compact. Its goal is named ``target``."""

    needs_accesses = True
    goals = ("target",)

    def __init__(self, knobs: AutoscaleKnobs) -> None:
        self._knobs = knobs
        self.interval_us = knobs.interval_us
        self.target_bytes = knobs.target_bytes
        self._demand = Demand(2e-6 * knobs.cold_min_age_us, 1e-6 * knobs.cold_min_age_us / 3)
        self._first_ns: int | None = None  # when the first aggregation had ended
        self._snapshot_ns: int | None = None  # when the last one had
        self._taken_bytes = 0  # by all of this, until then
        self._quota_bytes = 0  # of whole blocks; 0: none are taken
        self._asked = 0  # of files alone in the last step
        self._done_bytes = 0
        self._files_dry = False  # whether files alone have not brought what was asked for
        self._whole_before: int | None = None  # before the last compaction
        self._wait_ns = 2 * knobs.interval_us * 1000
        self._compact_ns = 0
        self._pieces_ns: int | None = None  # since when too much is in pieces

    def set_goal(self, name: str, value: int) -> None:
        """``target`` in bytes; 0 is auto."""
        self.target_bytes = value

    def step(self, observations: Observations) -> tuple[Decision, ...]:
        """What to take, and whether to compact; nothing while tasks wait, or nothing is known."""
        seen = observations
        excess = self._excess(seen)
        if excess is None:
            return ()
        taken = self._take(seen, excess)
        return (*taken, *self._make_whole(seen, taking=any(isinstance(one, ReclaimBytes) for one in taken)))

    # -- how much -----------------------------------------------------------------------------------------------------

    def _excess(self, seen: Observations) -> int | None:
        """By how much too much is used; None: that is not to be asked now."""
        unwanted = self._unwanted(seen)
        if seen.current_bytes is None or seen.memory is None:
            return None
        # Not the last minute: that a program waits a few seconds for what it uses again would stop it for minutes.
        if seen.memory.avg10_percent * 10 >= self._knobs.psi_permil:
            return 0
        used = seen.current_bytes
        excess = used - self.target_bytes if self.target_bytes else unwanted
        if self._knobs.max_bytes:
            excess = max(excess, used - self._knobs.max_bytes)
        return max(min(excess, used - self._knobs.min_bytes), 0)

    def _unwanted(self, seen: Observations) -> int:
        """What is beyond the demand and its margin, of the memory whose accesses are known, and was not taken yet.

        Until it was watched for as long as memory has to be idle, all of it may be wanted: nothing is told, and that is
        no demand.
        """
        if seen.resident_bytes is None:
            return 0
        if self._first_ns is None:
            self._first_ns = seen.snapshot_ns
        taken = seen.done_bytes + sum(seen.applied.values())
        if seen.snapshot_ns is None or seen.snapshot_ns != self._snapshot_ns:
            self._snapshot_ns, self._taken_bytes = seen.snapshot_ns, taken
        age_us = self._knobs.cold_min_age_us
        if self._first_ns is not None and (seen.snapshot_ns or 0) - self._first_ns < age_us * 1000:
            return 0
        used = seen.resident_bytes - (seen.idle_bytes(age_us) or 0)
        wanted = self._demand.note(seen.now_ns, used) * (1000 + self._knobs.margin_permil) // 1000
        return seen.resident_bytes - wanted - (taken - self._taken_bytes)

    # -- taking -------------------------------------------------------------------------------------------------------

    def _take(self, seen: Observations, excess: int) -> tuple[Decision, ...]:
        """Whole blocks by the scheme, and the rest by the kernel: files alone until these bring too little."""
        found = self._whole_blocks(excess)
        brought, self._done_bytes = seen.done_bytes - self._done_bytes, seen.done_bytes
        if self._asked:
            self._files_dry = brought * 2 < self._asked
        step = min(excess, (seen.current_bytes or 0) * _STEP_PERMIL // 1000)
        step -= step % seen.page_bytes
        if step <= 0:
            self._asked, self._files_dry = 0, False
            return tuple(found)
        alone = self._files_alone(seen)
        self._asked = step if alone and self._knobs.files == "first" else 0
        if alone is not None:
            found.append(ReclaimBytes(bytes=step, swappiness=0 if alone else None))
        return tuple(found)

    def _whole_blocks(self, excess: int) -> list[Decision]:
        """What the scheme gets as its quota; where that is less than a block, none is old enough for it."""
        quota = excess - excess % _BLOCK
        before, found = self._quota_bytes, list[Decision]()
        if quota and abs(quota - before) * 10 > before:
            found.append(SetQuota(scheme=NAME, sz_bytes=quota))
        if bool(quota) != bool(before):
            age_us = self._knobs.cold_min_age_us if quota else _NEVER_US
            found.append(SetMinAge(scheme=NAME, min_age_us=age_us))
        if found:
            self._quota_bytes = quota
        return found

    def _files_alone(self, seen: Observations) -> bool | None:
        """Whether files alone are asked for; None: there is nothing to ask for at all."""
        knobs = self._knobs
        total, free = seen.swap_total_bytes, seen.swap_free_bytes
        full = total is not None and free is not None and free * 100 <= total * (100 - _SWAP_FULL_PERCENT)
        if knobs.files == "only":
            return True
        if knobs.files == "alike":
            return None if full and total else False
        dry, self._files_dry = self._files_dry, False  # next time files are tried again
        return full or not dry

    # -- making whole -------------------------------------------------------------------------------------------------

    def _make_whole(self, seen: Observations, *, taking: bool) -> tuple[Decision, ...]:
        """Compaction where too much free memory lies in pieces; after one that brought little it waits longer.

        As long as more is taken it comes once in 20 s only: it takes seconds, and later pieces are there anew.
        """
        free, whole = seen.free_bytes, seen.whole_free_bytes
        if self._knobs.compact == OFF or free is None or whole is None:
            return ()
        if seen.now_ns < self._compact_ns:
            return ()
        if self._whole_before is not None:
            gained = whole - self._whole_before
            least_ns = 2 * self.interval_us * 1000
            self._wait_ns = least_ns if gained >= _GAIN else min(self._wait_ns * 2, _MOST_WAIT_NS)
            self._whole_before = None
            self._compact_ns = seen.now_ns + self._wait_ns - least_ns
            if seen.now_ns < self._compact_ns:
                return ()
        pieces = free - whole
        if pieces < _LEAST_PIECES or pieces * 1000 < free * _PIECES_PERMIL:
            self._pieces_ns = None
            return ()
        self._pieces_ns = seen.now_ns if self._pieces_ns is None else self._pieces_ns
        if taking and seen.now_ns - self._pieces_ns < _TAKING_NS:
            return ()
        self._pieces_ns = None
        self._whole_before, self._compact_ns = whole, seen.now_ns + self.interval_us * 1000
        return (Compact(pieces_bytes=pieces),)


def schemes(knobs: AutoscaleKnobs, target: Target) -> tuple[Scheme, ...]:
    """What pages out whole cold blocks, a page per window until the loop lets it. Raises RequestError for others."""
    if target != "physical":
        raise RequestError("gives memory of a virtual machine back to its host; the target is physical memory, in it")
    return (
        Scheme(
            name=NAME,
            action="pageout",
            access_pattern=unused_for(knobs.cold_min_age_us, _BLOCK),
            quotas=msgspec.structs.replace(knobs.quota, sz_bytes=PAGE_SIZE, fail_charge_num=1, fail_charge_denom=_VAIN),
            filters=(*only_files(knobs.files), *_ALL_PAGES),
        ),
    )


def controllers(knobs: AutoscaleKnobs, target: Target) -> tuple[Controller, ...]:
    """Its loop."""
    return (AutoscaleController(knobs),)


def fit(knobs: AutoscaleKnobs, facts: Facts) -> AutoscaleKnobs:
    """Files cannot be asked for alone before Linux 6.11: the kernel picks."""
    if knobs.files == "first" and facts.kernel is not None and facts.kernel < _SWAPPINESS_SINCE:
        return msgspec.structs.replace(knobs, files="alike")
    return knobs


def words(knobs: AutoscaleKnobs) -> list[str]:
    """What its loop does."""
    every, age = (format_duration_ns(us * 1000) for us in (knobs.interval_us, knobs.cold_min_age_us))
    used = (
        f"more than {format_size(knobs.target_bytes)} is used"
        if knobs.target_bytes
        else f"more is used than what was within {age} and {exact_permil(knobs.margin_permil)}"
    )
    files = {"first": "files before anonymous memory", "only": "of files", "alike": "as the kernel picks"}[knobs.files]
    lines = [
        f"Every {every}: while tasks wait less than {exact_permil(knobs.psi_permil)} of the time for memory (PSI, the "
        f"last 10 s) and {used}, the scheme above gets so much as its quota, and the kernel is asked for up "
        f"to {exact_permil(_STEP_PERMIL)} of what is used, {files} (memory.reclaim)."
    ]
    if knobs.compact == "on":
        share = exact_permil(_PIECES_PERMIL)
        lines.append(f"  Where more than {share} of free memory lies in pieces below 2 MiB, it is compacted.")
    return [*lines, "  That sets no limit. Free blocks of 2 MiB go to the host by the balloon's free page reporting."]


def cannot(knobs: AutoscaleKnobs, facts: Facts) -> list[str]:
    """No balloon that reports, no PSI, no way to ask, no swap, no compaction."""
    if facts.engine == "sim" or facts.target != "physical":
        return []
    found = []
    if facts.reporting_obstacle is not None:
        found.append(f"{facts.reporting_obstacle}; what is freed stays with this machine")
    if facts.psi is False:
        found.append(
            "the kernel tells no pressure of memory (PSI; psi=1 at boot): nothing is taken; reclaim works by age"
        )
    if facts.reclaim_obstacle is not None:
        found.append(f"{facts.reclaim_obstacle}; only whole cold blocks of processes are taken")
    if facts.swap_bytes == 0 and knobs.files != "only":
        found.append("there is no swap: only memory of files can go; zram is enough, files=only says so")
    if knobs.files == "first" and facts.kernel is not None and facts.kernel < _SWAPPINESS_SINCE:
        found.append("files cannot be asked for first on this kernel (Linux 6.11 has it): files=alike")
    if knobs.compact == "on" and facts.compact_obstacle is not None:
        found.append(f"{facts.compact_obstacle}; compact=off says so, what is free in pieces stays with this machine")
    return found


AUTOSCALE = Module(
    name=NAME,
    help="in a virtual machine, give memory that is not wanted back to the host, in whole blocks of 2 MiB",
    knobs=AutoscaleKnobs,
    schemes=schemes,
    cannot=cannot,
    where={"user": ("physical",)},
    controllers=controllers,
    words=words,
    numbers=OF_FREE_MEMORY,
    fit=fit,
    does=lambda knobs: (PAGES_OUT,),
)
