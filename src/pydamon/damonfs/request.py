"""What the files of a context ask for, as a spec.

Where the kernel takes numbers that our spec does not have (a range whose end is below its start, an interval of 0),
they become what the kernel makes of them. What is wrong, or cannot be done here, raises PydamonError.
"""

from __future__ import annotations

from typing import Any

from pydamon.damonfs.formats import U32_MAX
from pydamon.damonfs.levels import Level
from pydamon.damonfs.nodes import Directory
from pydamon.errors import RequestError, located
from pydamon.spec import Context, Intervals, IntervalsGoal, NrRegions, Probe, Region, Scheme, Target
from pydamon.spec.actions import ACTIONS
from pydamon.spec.metrics import METRICS
from pydamon.spec.model import PAGE_SIZE
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import (
    AccessPattern,
    AddressRange,
    AgeRange,
    Dest,
    Filter,
    Goal,
    Quotas,
    RateRange,
    SizeRange,
    Watermarks,
    Weights,
)
from pydamon.spec.units import U64_MAX

_MOST_MS = 10**10
_MOST_US = 10**13


def context(files: Directory, level: Level, *, starting: bool) -> Context:
    """The context that the files below ``contexts/0`` describe.

    ``starting``: it is to be turned on, not committed to one that runs; a goal without target value is wrong then,
    and left out otherwise, as in the kernel.
    """
    if level.has("addr_unit") and files["addr_unit"] != 1:
        raise RequestError("must be 1: addresses have 64 bits here", where="addr_unit")
    ops = files["operations"]
    targets = tuple(
        _target(directory, ops)
        for directory in files["targets"]
        if not (level.has("obsolete_target") and directory["obsolete_target"])
    )
    regions = files["monitoring_attrs/nr_regions"]
    return Context(
        ops=ops,
        targets=targets,
        intervals=_intervals(files["monitoring_attrs/intervals"]),
        nr_regions=NrRegions(min=regions["min"], max=regions["max"]),
        schemes=schemes(files, starting=starting),
        probes=tuple(_probe(directory) for directory in files["monitoring_attrs/probes"])
        if level.has("probes")
        else (),
    )


def _probe(files: Directory) -> Probe:
    if any(item["type"] == "memcg" and not item["path"].strip("\n") for item in files["filters"]):
        raise RequestError("is needed with memcg", where="monitoring_attrs/probes/filters/path")
    where = "monitoring_attrs/probes/filters"
    return Probe(filters=tuple(_filter(item, where, memcg_file="path") for item in files["filters"]))


def schemes(files: Directory, *, starting: bool = False) -> tuple[Scheme, ...]:
    """The schemes of the context ``files``; raises RequestError."""
    found = []
    for number, directory in enumerate(files["schemes"]):
        with located(f"schemes/{number}", "/"):
            found.append(_scheme(directory, starting))
    return tuple(found)


def _target(files: Directory, ops: str) -> Target:
    ranges: list[Region] = []
    for region in files["regions"]:
        start, end = region["start"], region["end"]
        if start > end:
            raise RequestError(f"{start}-{end} is not a range", where="targets/regions")
        start -= start % PAGE_SIZE
        end = min(end + -end % PAGE_SIZE, U64_MAX - U64_MAX % PAGE_SIZE)
        if start < end:
            ranges.append(Region(start=start, end=end))
    return Target(pid=None if ops == "paddr" else files["pid_target"], regions=tuple(ranges))


def _intervals(files: Directory) -> Intervals:
    sample_us = max(files["sample_us"], 1)
    goal = None
    if "intervals_goal" in files and files["intervals_goal/aggrs"]:
        wanted = files["intervals_goal"]
        goal = IntervalsGoal(
            access_bp=wanted["access_bp"],
            aggrs=wanted["aggrs"],
            min_sample_us=wanted["min_sample_us"],
            max_sample_us=wanted["max_sample_us"],
        )
    return Intervals(
        sample_us=sample_us,
        aggr_us=max(files["aggr_us"], 1),
        ops_update_us=min(max(files["update_us"], sample_us), _MOST_US),
        intervals_goal=goal,
    )


# -- schemes -----------------------------------------------------------------------------------------------------------


def _scheme(files: Directory, starting: bool) -> Scheme:
    action = files["action"]
    target_nid: int | None = None
    dests: tuple[Dest, ...] = ()
    if ACTIONS[action].migrates:
        if "dests" in files:
            dests = tuple(Dest(id=dest["id"], weight=dest["weight"]) for dest in files["dests"])
        if not dests and files["target_nid"] >= 0:
            target_nid = files["target_nid"]
    stats = files["stats"]
    filters = [
        _filter(directory, f"{kind}/{number}")
        for kind in ("filters", "core_filters", "ops_filters")
        if kind in files
        for number, directory in enumerate(files[kind])
    ]
    return Scheme(
        action=action,
        access_pattern=_pattern(files["access_pattern"]),
        apply_interval_us=min(files["apply_interval_us"], _MOST_US),
        quotas=_quotas(files["quotas"], starting),
        watermarks=_watermarks(files["watermarks"]),
        filters=tuple(filters),
        target_nid=target_nid,
        dests=dests,
        max_nr_snapshots=stats.optional("max_nr_snapshots", 0),
    )


def _pattern(files: Directory) -> AccessPattern:
    ranges = {name: (files[f"{name}/min"], files[f"{name}/max"]) for name in ("sz", "nr_accesses", "age")}
    if any(low > high for low, high in ranges.values()):
        # No region matches: none is that large.
        return AccessPattern(sz_bytes=SizeRange(min=U64_MAX, max=U64_MAX))
    rate, age = (tuple(_limit(value) for value in ranges[name]) for name in ("nr_accesses", "age"))
    return AccessPattern(
        sz_bytes=SizeRange(min=ranges["sz"][0], max=ranges["sz"][1]),
        nr_accesses=RateRange(min=Rate(rate[0], "samples"), max=Rate(rate[1], "samples")),
        age=AgeRange(min=Age(age[0], "aggrs"), max=Age(age[1], "aggrs")),
    )


def _limit(value: int) -> int | None:
    return value if value < U32_MAX else None


def _quotas(files: Directory, starting: bool) -> Quotas:
    goals = []
    for number, directory in enumerate(files["goals"]):
        if directory["target_value"]:
            goals.append(_goal(directory))
        elif starting:
            raise RequestError("must not be 0", where=f"quotas/goals/{number}/target_value")
    extra: dict[str, Any] = {}
    if "goal_tuner" in files:
        extra["goal_tuner"] = files["goal_tuner"]
    if "fail_charge_num" in files:
        extra |= {name: files[name] for name in ("fail_charge_num", "fail_charge_denom")}
    weights = files["weights"]
    return Quotas(
        time_ms=min(files["ms"], _MOST_MS),
        sz_bytes=files["bytes"],
        # With 0, every application has a window of its own in the kernel.
        reset_interval_ms=min(max(files["reset_interval_ms"], 1), _MOST_MS),
        goals=tuple(goals),
        weights=Weights(
            sz_permil=weights["sz_permil"],
            nr_accesses_permil=weights["nr_accesses_permil"],
            age_permil=weights["age_permil"],
        ),
        **extra,
    )


def _goal(files: Directory) -> Goal:
    metric = files["target_metric"]
    return Goal(
        metric=metric,
        target_value=files["target_value"],
        current_value=files["current_value"],
        nid=files["nid"] if METRICS[metric].of_node else None,
        memcg_path=files["path"].strip("\n") if METRICS[metric].of_memcg else None,
    )


def _watermarks(files: Directory) -> Watermarks:
    if files["metric"] == "none":
        return Watermarks()
    return Watermarks(
        metric=files["metric"],
        interval_us=min(max(files["interval_us"], 1), _MOST_US),
        high_permil=min(files["high"], 1000),
        mid_permil=min(files["mid"], 1000),
        low_permil=min(files["low"], 1000),
    )


def _filter(files: Directory, where: str, memcg_file: str = "memcg_path") -> Filter:
    kind = files["type"]
    fields: dict[str, Any] = {}
    if kind == "memcg":
        fields["memcg_path"] = files[memcg_file].strip("\n")
    elif kind == "addr":
        fields["address_range"] = AddressRange(start=files["addr_start"], end=files["addr_end"])
    elif kind == "target":
        fields["damon_target_idx"] = files["damon_target_idx"]
    elif kind == "hugepage_size":
        if files["min"] > files["max"]:
            raise RequestError("is not a range; min must not be above max", where=where)
        fields["hugepage_size"] = SizeRange(min=files["min"], max=files["max"])
    allow = files.optional("allow", False)
    return Filter(filter_type=kind, matching=files["matching"], allow=allow, **fields)
