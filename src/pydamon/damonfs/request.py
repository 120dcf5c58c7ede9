"""What the files of a context ask for, as a spec; which file holds which field is said by `pydamon.spec.damon_files`.

Where the kernel takes numbers that our spec does not have (a range whose end is below its start, an interval of 0),
they become what the kernel makes of them. What is wrong, or cannot be done here, raises PydamonError.
"""

from __future__ import annotations

from typing import Any

from pydamon.damonfs.formats import U32_MAX
from pydamon.damonfs.nodes import Directory
from pydamon.errors import RequestError, located
from pydamon.spec import Context, Intervals, IntervalsGoal, NrRegions, Probe, Region, Scheme, Target
from pydamon.spec.actions import ACTIONS
from pydamon.spec.damon_files import files_in
from pydamon.spec.metrics import METRICS
from pydamon.spec.model import PAGE_SIZE
from pydamon.spec.probes import Prep
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
    SumRange,
    Watermarks,
    Weights,
)
from pydamon.spec.units import U64_MAX

_MOST_MS = 10**10
_MOST_US = 10**13


def context(files: Directory, *, starting: bool) -> Context:
    """The context that the files below ``contexts/0`` describe.

    ``starting``: it is to be turned on, not committed to one that runs; a goal without target value is wrong then,
    and left out otherwise, as in the kernel.
    """
    if files.optional("addr_unit", 1) != 1:
        raise RequestError("must be 1: addresses have 64 bits here", where="addr_unit")
    ops = files["operations"]
    targets = tuple(
        _target(directory, ops) for directory in files["targets"] if not directory.optional("obsolete_target", False)
    )
    attributes = files["monitoring_attrs"]
    return Context(
        ops=ops,
        targets=targets,
        intervals=_intervals(attributes["intervals"]),
        nr_regions=NrRegions(**_fields(attributes["nr_regions"], "monitoring_attrs/nr_regions")),
        schemes=schemes(files, starting=starting),
        probes=tuple(_probe(directory) for directory in attributes.optional("probes", ())),
    )


def _fields(files: Directory, pattern: str) -> dict[str, Any]:
    """The fields of the spec that the files in a directory of ``pattern`` hold as they are, as far as there are such.

    Without those that the spec may leave out (`File.optional`): whether a file means one depends on more than itself.
    """
    return {
        file.stands_for.rpartition(".")[2]: files[file.name]
        for file in files_in(pattern)
        if file.stands_for and file.kind != "count" and not file.optional and file.name in files
    }


def _probe(files: Directory) -> Probe:
    if any(item["type"] == "memcg" and not item["path"].strip("\n") for item in files["filters"]):
        raise RequestError("is needed with memcg", where="monitoring_attrs/probes/filters/path")
    where = "monitoring_attrs/probes/filters"
    return Probe(
        filters=tuple(_filter(item, where, memcg_file="path") for item in files["filters"]),
        weight=files.optional("weight", 0),
        preps=tuple(Prep(prep_action=item["prep_action"]) for item in files.optional("preps", ())),
    )


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
        goal = IntervalsGoal(**_fields(files["intervals_goal"], "monitoring_attrs/intervals/intervals_goal"))
    fields = _fields(files, "monitoring_attrs/intervals") | {
        "sample_us": sample_us,
        "aggr_us": max(files["aggr_us"], 1),
        "ops_update_us": min(max(files["update_us"], sample_us), _MOST_US),
    }
    return Intervals(**fields, intervals_goal=goal)


# -- schemes -----------------------------------------------------------------------------------------------------------


def _scheme(files: Directory, starting: bool) -> Scheme:
    action = files["action"]
    target_nid: int | None = None
    dests: tuple[Dest, ...] = ()
    if ACTIONS[action].migrates:
        if "dests" in files:
            dests = tuple(Dest(**_fields(dest, "schemes/*/dests/*")) for dest in files["dests"])
        if not dests and files["target_nid"] >= 0:
            target_nid = files["target_nid"]
    filters = [
        _filter(directory, f"{kind}/{number}")
        for kind in ("filters", "core_filters", "ops_filters")
        if kind in files
        for number, directory in enumerate(files[kind])
    ]
    fields = _fields(files, "schemes/*") | {"apply_interval_us": min(files["apply_interval_us"], _MOST_US)}
    return Scheme(
        **fields,
        **_fields(files["stats"], "schemes/*/stats"),
        access_pattern=_pattern(files["access_pattern"]),
        quotas=_quotas(files["quotas"], starting),
        watermarks=_watermarks(files["watermarks"]),
        filters=tuple(filters),
        target_nid=target_nid,
        dests=dests,
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
    weights = Weights(**_fields(files["weights"], "schemes/*/quotas/weights"))
    fields = _fields(files, "schemes/*/quotas") | {
        "time_ms": min(files["ms"], _MOST_MS),
        # With 0, every application has a window of its own in the kernel.
        "reset_interval_ms": min(max(files["reset_interval_ms"], 1), _MOST_MS),
    }
    return Quotas(**fields, goals=tuple(goals), weights=weights)


def _goal(files: Directory) -> Goal:
    metric = files["target_metric"]
    return Goal(
        **_fields(files, "schemes/*/quotas/goals/*"),
        nid=files["nid"] if METRICS[metric].of_node else None,
        memcg_path=files["path"].strip("\n") if METRICS[metric].of_memcg else None,
    )


def _watermarks(files: Directory) -> Watermarks:
    if files["metric"] == "none":
        return Watermarks()
    fields = _fields(files, "schemes/*/watermarks")
    shares = {name: min(value, 1000) for name, value in fields.items() if name.endswith("_permil")}
    return Watermarks(**fields | shares | {"interval_us": min(max(files["interval_us"], 1), _MOST_US)})


def _filter(files: Directory, where: str, memcg_file: str = "memcg_path") -> Filter:
    kind = files["type"]
    fields = _fields(files, "schemes/*/filters/*")
    if kind == "memcg":
        fields["memcg_path"] = files[memcg_file].strip("\n")
    elif kind == "addr":
        fields["address_range"] = AddressRange(start=files["addr_start"], end=files["addr_end"])
    elif kind == "target":
        fields["damon_target_idx"] = files["damon_target_idx"]
    elif kind in ("hugepage_size", "probe_hits_wsum"):
        if files["min"] > files["max"]:
            raise RequestError("is not a range; min must not be above max", where=where)
        bounds = SizeRange if kind == "hugepage_size" else SumRange
        fields[kind] = bounds(min=files["min"], max=files["max"])
    return Filter(**fields)
