"""``tier``: hot memory on fast NUMA nodes, cold memory on slow ones; each tier feeds the next slower one.

The algorithm and its defaults are those of the kernel's ``samples/damon/mtier.c``: what is used is moved up until the
fast node is nearly full, what is not used is moved down until a little of it is free; the two goals overlap, so that
pages keep being exchanged. Beyond it: several tiers and sockets, hysteresis, a cgroup's share, and less of it while the
machine is busy (`modules/busy.py`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

import msgspec

from pydamon.errors import MachineError, RequestError
from pydamon.modules.base import (
    OLDEST_FIRST,
    Facts,
    Knob,
    Knobs,
    Module,
    Target,
    bp_knob,
    choice_knob,
    interval_knob,
    permil_knob,
    quota_knob,
    time_knob,
    unused_for,
    watermarks_knob,
)
from pydamon.modules.busy import BusyController, BusyRule
from pydamon.modules.chains import Chains, Level, neighbours, parse_chains, write_chains
from pydamon.modules.controller import Controller
from pydamon.spec.model import PAGE_SIZE
from pydamon.spec.module_numbers import OF_TIERS
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import (
    AccessPattern,
    AgeRange,
    Dest,
    Filter,
    Goal,
    Quotas,
    RateRange,
    Scheme,
    SizeRange,
    Watermarks,
    Weights,
)
from pydamon.spec.units import exact_bp, format_duration_ns

NAME = "tier"
_BP = 10_000
_APPLY_US = 1_000_000
_WEIGHTS = Weights(sz_permil=0, nr_accesses_permil=100, age_permil=100)
Way = Literal["both", "up", "down"]
Source = Literal["auto", "tier", "any"]
Tuner = Literal["auto", "temporal", "consist"]
_ONE_NODE = "reclaim pages cold memory out instead, which needs one node only"


def _path(text: str) -> str:
    if text == "off":
        return ""
    if not text.startswith("/"):
        raise RequestError("must be the path of a cgroup, from / on, or off")
    return text


class TierKnobs(Knobs, frozen=True, kw_only=True):
    """What can be said of it."""

    chains: Annotated[
        Chains,
        Knob("tiers", parse_chains, write_chains, "nodes from fast to slow, like 0>1 or 0:3,1>2; auto finds them"),
    ] = ()
    hot_permil: Annotated[int, permil_knob("hot", "hot is what this share of samples finds used")] = 50
    hot_age_us: Annotated[int, time_knob("hot_age", "and has been for this long")] = 0
    cold_age_us: Annotated[int, time_knob("cold_age", "cold is what was not used for this long")] = 10_000_000
    quota: Annotated[Quotas, quota_knob("quota", "move at most this per window in each direction")] = Quotas(
        time_ms=100, sz_bytes=200 << 20, reset_interval_ms=1000, weights=OLDEST_FIRST
    )
    used_bp: Annotated[int, bp_knob("used", "move up until this share of the fast node is used")] = 9_970
    free_bp: Annotated[int, bp_knob("free", "move down until this share of the fast node is free")] = 50
    share_bp: Annotated[
        int, bp_knob("share", "instead, until the cgroup uses this share of the fast node", may_be_off=True)
    ] = 0
    cgroup: Annotated[
        str, Knob("cgroup", _path, lambda path: path or "off", "move memory of this cgroup only; off is all")
    ] = ""
    tuner: Annotated[
        Tuner, choice_knob("tuner", ("auto", "temporal", "consist"), "all until a goal is reached, or step by step")
    ] = "auto"
    source: Annotated[
        Source, choice_knob("from", ("auto", "tier", "any"), "only what is on the neighbouring tier moves, or all")
    ] = "auto"
    way: Annotated[Way, choice_knob("way", ("both", "up", "down"), "what is moved at all")] = "both"
    young: Annotated[
        str, choice_knob("young", ("auto", "asked", "ignored"), "with asked, a page's own bit has to agree at the end")
    ] = "auto"
    watermarks: Annotated[Watermarks, watermarks_knob("watermarks", "active by the share of free memory")] = (
        Watermarks()
    )
    cpu_bp: Annotated[
        int, bp_knob("cpu", "move less while tasks wait this share of the time for a CPU (PSI)", may_be_off=True)
    ] = 2_000
    bandwidth_bp: Annotated[
        int, bp_knob("bandwidth", "move less above this share of the memory's bandwidth (resctrl)", may_be_off=True)
    ] = 8_000
    interval_us: Annotated[int, interval_knob("look at how busy the machine is after this time")] = 2_000_000


def fit(knobs: TierKnobs, facts: Facts) -> TierKnobs:
    """With the tiers of the machine, and what else depends on it. Raises MachineError where it has none."""
    chains = knobs.chains or facts.tiers
    if not chains:
        reason = facts.tiers_obstacle or "the tiers of this machine are not known"
        raise MachineError(f"{reason}; {_ONE_NODE}")
    young = knobs.young if knobs.young != "auto" else "ignored" if facts.knows_ages is False else "asked"
    by_kernel = facts.engine == "kernel"  # its filters know no nodes, and old ones have one tuner only
    tuner = knobs.tuner if knobs.tuner != "auto" else "consist" if by_kernel else "temporal"
    source = knobs.source if knobs.source != "auto" else "any" if by_kernel else "tier"
    cgroup = knobs.cgroup
    if knobs.share_bp and not cgroup:
        if facts.cgroup is None:
            raise RequestError("is of a cgroup: it must be the target, or be named with cgroup=", where="share")
        cgroup = facts.cgroup
    return msgspec.structs.replace(knobs, chains=chains, young=young, tuner=tuner, source=source, cgroup=cgroup)


def schemes(knobs: TierKnobs, target: Target) -> tuple[Scheme, ...]:
    """Of each tier and the next one: for each node of it a scheme that moves down, and one that moves up.

    The slowest come first, for a scheme that tries memory in vain makes it young for the others, too: what is to make
    room for others has to be done before them. None as long as the tiers are not known (`fit`).
    """
    if knobs.used_bp + knobs.free_bp < _BP:
        raise RequestError("and used are below 100% together: nothing would move; free=0.5% is usual", where="free")
    found = []
    for upper, lower in reversed(neighbours(knobs.chains)):
        if knobs.way != "up":
            found += [_demote(knobs, target, nid, lower) for nid, _ in upper]
        if knobs.way != "down":
            found.append(_promote(knobs, target, upper, lower))
    return tuple(found)


def _promote(knobs: TierKnobs, target: Target, upper: Level, lower: Level) -> Scheme:
    names = ".".join(str(nid) for nid, _ in upper)
    goals = tuple(goal for nid, _ in upper for goal in _used_goals(knobs, nid))
    rate = Rate(Fraction(knobs.hot_permil, 10), "%") if knobs.hot_permil else Rate(1, "samples")
    pattern = AccessPattern(
        sz_bytes=SizeRange(min=PAGE_SIZE),
        nr_accesses=RateRange(min=rate),
        age=AgeRange(min=Age(Fraction(knobs.hot_age_us), "us")) if knobs.hot_age_us else AgeRange(),
    )
    filters = _filters(knobs, target, lower, young=False)
    return _scheme(knobs, f"{NAME}-promote-{names}", "migrate_hot", pattern, goals, upper, filters)


def _demote(knobs: TierKnobs, target: Target, nid: int, lower: Level) -> Scheme:
    pattern = unused_for(knobs.cold_age_us)
    filters = _filters(knobs, target, ((nid, 1),), young=True)
    return _scheme(knobs, f"{NAME}-demote-{nid}", "migrate_cold", pattern, (_free_goal(knobs, nid),), lower, filters)


def _scheme(
    knobs: TierKnobs,
    name: str,
    action: str,
    pattern: AccessPattern,
    goals: tuple[Goal, ...],
    to: Level,
    filters: tuple[Filter, ...],
) -> Scheme:
    return Scheme(
        name=name,
        action=action,  # type: ignore[arg-type]
        access_pattern=pattern,
        apply_interval_us=_APPLY_US,
        quotas=msgspec.structs.replace(knobs.quota, goals=goals, weights=_WEIGHTS, goal_tuner=_tuner(knobs)),
        watermarks=knobs.watermarks,
        filters=filters,
        target_nid=to[0][0] if len(to) == 1 else None,
        dests=tuple(Dest(id=nid, weight=weight) for nid, weight in to) if len(to) > 1 else (),
    )


def _tuner(knobs: TierKnobs) -> Literal["temporal", "consist"]:
    return "consist" if knobs.tuner == "consist" else "temporal"


def _used_goals(knobs: TierKnobs, nid: int) -> tuple[Goal, ...]:
    """A node never gets fuller, whatever share of it a cgroup may use."""
    whole = Goal(metric="node_mem_used_bp", target_value=knobs.used_bp, nid=nid)
    if not knobs.share_bp:
        return (whole,)
    return (Goal(metric="node_memcg_used_bp", target_value=knobs.share_bp, nid=nid, memcg_path=knobs.cgroup), whole)


def _free_goal(knobs: TierKnobs, nid: int) -> Goal:
    """What is to be free; with a share all that the cgroup does not have, and the overlap."""
    if not knobs.share_bp:
        return Goal(metric="node_mem_free_bp", target_value=knobs.free_bp, nid=nid)
    overlap = knobs.used_bp + knobs.free_bp - _BP
    rest = min(_BP - knobs.share_bp + overlap, _BP)
    return Goal(metric="node_memcg_free_bp", target_value=rest, nid=nid, memcg_path=knobs.cgroup)


def _filters(knobs: TierKnobs, target: Target, sources: Level, *, young: bool) -> tuple[Filter, ...]:
    """Pages that are not on ``sources`` stay, and those that are (not) young; of physical memory only a cgroup's go.

    What costs less is asked first.
    """
    found, nids = [], [nid for nid, _ in sources]
    if knobs.source != "any" and len(nids) == 1:
        found.append(Filter(filter_type="node", nid=nids[0], matching=False))
    if knobs.cgroup and target == "physical":
        found.append(Filter(filter_type="memcg", memcg_path=knobs.cgroup, matching=False))
    if knobs.young != "ignored":
        found.append(Filter(filter_type="young", matching=young))
    if knobs.source != "any" and len(nids) > 1:  # what none matches does the opposite of the last one
        found += [Filter(filter_type="node", nid=nid, allow=True) for nid in nids]
    return tuple(found)


def _two_tiers(chains: Chains) -> bool:
    return len(chains) == 1 and len(chains[0]) == 2 and len(chains[0][0]) == 1


def controllers(knobs: TierKnobs, target: Target) -> tuple[Controller, ...]:
    """The loop that minds how busy the machine is; none where there is no quota that it could lower."""
    quota = knobs.quota
    if not (knobs.cpu_bp or knobs.bandwidth_bp) or not (quota.sz_bytes or quota.time_ms):
        return ()
    rule = BusyRule(
        schemes=tuple(scheme.name or "" for scheme in schemes(knobs, target)),
        sz_bytes=quota.sz_bytes,
        time_ms=quota.time_ms,
        cpu_percent=knobs.cpu_bp / 100,
        bandwidth_percent=knobs.bandwidth_bp / 100,
        interval_us=knobs.interval_us,
    )
    return (BusyController(rule),)


def words(knobs: TierKnobs) -> list[str]:
    """What it does while the machine is busy."""
    parts = [f"tasks wait more than {exact_bp(knobs.cpu_bp)} of the time for a CPU (PSI)"] if knobs.cpu_bp else []
    if knobs.bandwidth_bp:
        parts.append(f"more than {exact_bp(knobs.bandwidth_bp)} of the memory's bandwidth is used (resctrl)")
    if not parts or not (knobs.quota.sz_bytes or knobs.quota.time_ms):
        return []
    every = format_duration_ns(knobs.interval_us * 1000)
    return [
        f"Looks every {every} how busy the machine is: when {' or '.join(parts)}, the quotas fall, "
        "at twice that to a quarter; they come back by doubling.",
        "  Where the machine tells neither, they fall when a moved byte takes three times as long as at best.",
    ]


def cannot(knobs: TierKnobs, facts: Facts) -> list[str]:
    """What cannot be told or kept here, and the nearest that can."""
    found = []
    if knobs.cpu_bp and facts.cpu_psi is False:
        found.append("the kernel tells no pressure of CPUs (PSI): how long moved bytes take stands in for it")
    chains = knobs.chains or facts.tiers
    if chains and facts.engine == "kernel" and not _two_tiers(chains):
        two = write_chains((tuple(level[:1] for level in chains[0][:2]),))
        found.append(f"the kernel's filters know no NUMA nodes: it takes two tiers (tiers={two}), or the user engine")
    if knobs.young != "asked" and facts.knows_ages is False:
        found.append("this way of asking does not know single pages: whole regions are moved (young=ignored)")
    if knobs.cgroup and facts.target == "process":
        found.append("a process is moved as a whole: cgroup= only says whose share is kept")
    return found


TIER = Module(
    name=NAME,
    help="keep hot memory on fast NUMA nodes and cold memory on slow ones",
    knobs=TierKnobs,
    schemes=schemes,
    cannot=cannot,
    where={"user": ("process", "cgroup", "physical"), "kernel": ("process", "physical"), "sim": ("process", "cgroup")},
    controllers=controllers,
    numbers=("used_up", "charged_ns", "cpu_ns", *OF_TIERS),
    words=words,
    fit=fit,
)
