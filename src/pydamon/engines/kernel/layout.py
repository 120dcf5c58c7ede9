"""A context of the spec as files of the kernel's DAMON: which value goes where, and what a missing file means.

Nothing here reads or writes: `settings` says what is to be written, in order. A kernel that lacks a file lacks a
feature; each `Setting` knows the field of the spec that it carries, its default, and the nearest thing to do instead.
The files are those of the kernel's ``Documentation/admin-guide/mm/damon/usage.rst``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydamon.core.snapshot import max_nr_accesses
from pydamon.errors import RequestError
from pydamon.ops.base import Ranges
from pydamon.spec import Context, Intervals, Probe, Scheme
from pydamon.spec.actions import ACTIONS
from pydamon.spec.schemes import CORE_FILTERS, Filter, Goal

KERNEL_OPS = ("vaddr", "fvaddr", "paddr")


@dataclass(frozen=True, slots=True)
class Setting:
    """One value for one file.

    ``field`` is the path in the spec that it comes from, below the context. ``since`` is the kernel that brought the
    file (None: always there); if it is missing, ``default`` needs no file. ``nearest`` says what to do instead.
    """

    path: str
    value: str
    field: str
    since: str | None = None
    default: str | None = None
    nearest: str = ""


@dataclass(frozen=True, slots=True)
class Scenery:
    """What the layout must know of this kernel: which files there are, and what a cgroup is called."""

    exists: Callable[[str], bool]
    cgroup: Callable[[str], str]
    migrates_processes: bool  # migrate_* on processes came together with dests (6.17)


def check_context(context: Context) -> None:
    """What the spec can say and the kernel's DAMON has no word for. Raises RequestError naming the field."""
    if context.ops not in KERNEL_OPS:
        raise RequestError(f"is {context.ops}; the kernel's DAMON runs {', '.join(KERNEL_OPS)}", where="ops")
    if context.primitive != "auto":
        raise RequestError(
            f"is {context.primitive}: that is how the user engine asks pages; the kernel's DAMON has its own way",
            where="primitive",
        )
    if not context.targets:
        raise RequestError("must have at least one target", where="targets")
    for number, target in enumerate(context.targets):
        if target.cgroup is not None:
            raise RequestError(
                "the kernel's DAMON has no cgroups as targets; nearest: name the processes, or ops paddr with "
                "a memcg filter",
                where=f"targets[{number}].cgroup",
            )
        if target.include_children:
            raise RequestError(
                "the kernel's DAMON does not follow children; nearest: name the processes, or the user engine",
                where=f"targets[{number}].include_children",
            )


def attributes(context: Context, here: str) -> Iterator[Setting]:
    """Intervals and number of regions; ``here`` is the context's directory."""
    intervals, nr_regions = context.intervals, context.nr_regions
    at = f"{here}/monitoring_attrs"
    yield Setting(f"{at}/intervals/sample_us", str(intervals.sample_us), "intervals.sample_us")
    yield Setting(f"{at}/intervals/aggr_us", str(intervals.aggr_us), "intervals.aggr_us")
    yield Setting(f"{at}/intervals/update_us", str(intervals.ops_update_us), "intervals.ops_update_us")
    goal = intervals.intervals_goal
    for name in ("access_bp", "aggrs", "min_sample_us", "max_sample_us"):
        yield Setting(
            f"{at}/intervals/intervals_goal/{name}",
            str(getattr(goal, name) if goal is not None else 0),
            "intervals.intervals_goal",
            since="6.15",
            default="0",
            nearest="fixed intervals, or the user engine",
        )
    yield Setting(f"{at}/nr_regions/min", str(nr_regions.min), "nr_regions.min")
    yield Setting(f"{at}/nr_regions/max", str(nr_regions.max), "nr_regions.max")


def probes(wanted: tuple[Probe, ...], here: str, scenery: Scenery) -> Iterator[Setting]:
    """Data attributes to count. (Kernels so far know anon and memcg; they refuse another type.)"""
    nearest = "the user engine"
    at = f"{here}/monitoring_attrs/probes"
    yield Setting(f"{at}/nr_probes", "0", "probes", default="0")
    yield Setting(f"{at}/nr_probes", str(len(wanted)), "probes", since="7.2", default="0", nearest=nearest)
    for number, probe in enumerate(wanted):
        filters, field = f"{at}/{number}/filters", f"probes[{number}].filters"
        yield Setting(f"{filters}/nr_filters", str(len(probe.filters)), field, nearest=nearest)
        for index, item in enumerate(probe.filters):
            of_item, within = f"{filters}/{index}", f"{field}[{index}]"
            yield Setting(f"{of_item}/type", item.filter_type, f"{within}.filter_type", nearest=nearest)
            yield Setting(f"{of_item}/matching", "Y" if item.matching else "N", f"{within}.matching")
            yield Setting(f"{of_item}/allow", "Y" if item.allow else "N", f"{within}.allow")
            if item.memcg_path is not None:
                cgroup = scenery.cgroup(item.memcg_path)
                yield Setting(f"{of_item}/path", cgroup, f"{within}.memcg_path", nearest=nearest)
            if item.hugepage_size is not None:
                sizes, where = item.hugepage_size, f"{within}.hugepage_size"
                yield Setting(f"{of_item}/min", str(sizes.min), where, nearest=nearest)
                yield Setting(f"{of_item}/max", str(sizes.max), where, nearest=nearest)


def targets(context: Context, here: str, ranges: list[Ranges]) -> Iterator[Setting]:
    """The targets and their regions (``ranges``: one array of shape (n, 2) for each target, in bytes)."""
    at = f"{here}/targets"
    # Down to none first: what a directory of that number held before must not remain.
    yield Setting(f"{at}/nr_targets", "0", "targets")
    yield Setting(f"{at}/nr_targets", str(len(context.targets)), "targets")
    for number, (target, regions) in enumerate(zip(context.targets, ranges, strict=True)):
        field = f"targets[{number}]"
        if target.pid is not None:
            yield Setting(f"{at}/{number}/pid_target", str(target.pid), f"{field}.pid")
        yield Setting(f"{at}/{number}/regions/nr_regions", str(len(regions)), f"{field}.regions")
        for index, (start, end) in enumerate(regions.tolist()):
            yield Setting(f"{at}/{number}/regions/{index}/start", str(start), f"{field}.regions[{index}].start")
            yield Setting(f"{at}/{number}/regions/{index}/end", str(end), f"{field}.regions[{index}].end")


def schemes(
    wanted: tuple[Scheme, ...], here: str, intervals: Intervals, ops: str, scenery: Scenery
) -> Iterator[Setting]:
    """All schemes, in order. Raises RequestError for an action that ``ops`` does not have in the kernel."""
    at = f"{here}/schemes"
    yield Setting(f"{at}/nr_schemes", "0", "schemes")
    yield Setting(f"{at}/nr_schemes", str(len(wanted)), "schemes")
    for number, scheme in enumerate(wanted):
        yield from _scheme(scheme, f"{at}/{number}", f"schemes[{number}]", intervals, ops, scenery)


def _scheme(scheme: Scheme, at: str, field: str, intervals: Intervals, ops: str, scenery: Scenery) -> Iterator[Setting]:
    _check_action(scheme, field, ops, scenery)
    yield Setting(f"{at}/action", scheme.action, f"{field}.action", nearest=scheme.does.nearest)
    pattern = scheme.access_pattern
    window, aggr_us = max_nr_accesses(intervals.sample_us, intervals.aggr_us), intervals.aggr_us
    rates, ages = pattern.nr_accesses, pattern.age
    bounds = {
        "sz": (pattern.sz_bytes.min, pattern.sz_bytes.max),
        "nr_accesses": (rates.min.to_samples(window, aggr_us, upper=False),
                        rates.max.to_samples(window, aggr_us, upper=True)),
        "age": (ages.min.to_aggregations(aggr_us, upper=False), ages.max.to_aggregations(aggr_us, upper=True)),
    }  # fmt: skip
    for name, (low, high) in bounds.items():
        source = f"{field}.access_pattern.{'sz_bytes' if name == 'sz' else name}"
        yield Setting(f"{at}/access_pattern/{name}/min", str(low), f"{source}.min")
        yield Setting(f"{at}/access_pattern/{name}/max", str(high), f"{source}.max")
    yield Setting(
        f"{at}/apply_interval_us",
        str(scheme.apply_interval_us),
        f"{field}.apply_interval_us",
        since="6.7",
        default="0",
        nearest="0, the aggregation interval",
    )
    if scheme.does.migrates or scheme.target_nid is not None:
        yield from _destinations(scheme, at, field)
    yield from _quotas(scheme, f"{at}/quotas", f"{field}.quotas", scenery)
    marks = scheme.watermarks
    yield Setting(f"{at}/watermarks/metric", marks.metric, f"{field}.watermarks.metric")
    if marks.metric != "none":
        for name, value in (
            ("interval_us", marks.interval_us), ("high", marks.high_permil), ("mid", marks.mid_permil),
            ("low", marks.low_permil),
        ):  # fmt: skip
            source = name if name == "interval_us" else f"{name}_permil"
            yield Setting(f"{at}/watermarks/{name}", str(value), f"{field}.watermarks.{source}")
    yield from _filters(scheme, at, field, scenery)
    yield Setting(
        f"{at}/stats/max_nr_snapshots",
        str(scheme.max_nr_snapshots),
        f"{field}.max_nr_snapshots",
        since="7.0",
        default="0",
        nearest="end the monitoring, or the user engine",
    )


def _check_action(scheme: Scheme, field: str, ops: str, scenery: Scenery) -> None:
    """The kernel takes any action with any ops, and then does nothing: say so before."""
    on = "paddr" if ops == "paddr" else "vaddr"
    known = [
        row.name
        for row in ACTIONS.values()
        if on in row.since and (on == "paddr" or scenery.migrates_processes or not row.migrates)
    ]
    if scheme.action not in known:
        hint = "" if not scheme.does.migrates else " (migration of processes' memory came with Linux 6.17)"
        raise RequestError(
            f"is {scheme.action}; with {ops} this kernel's DAMON does {', '.join(known)}{hint}", where=f"{field}.action"
        )


def _destinations(scheme: Scheme, at: str, field: str) -> Iterator[Setting]:
    destinations = scheme.destinations
    if len(destinations) == 1:
        place = "target_nid" if scheme.target_nid is not None else "dests[0].id"
        yield Setting(f"{at}/target_nid", str(destinations[0].id), f"{field}.{place}", since="6.11")
        return
    yield Setting(
        f"{at}/dests/nr_dests", str(len(destinations)), f"{field}.dests", since="6.17", nearest="one node: target_nid"
    )
    for index, dest in enumerate(destinations):
        yield Setting(f"{at}/dests/{index}/id", str(dest.id), f"{field}.dests[{index}].id")
        yield Setting(f"{at}/dests/{index}/weight", str(dest.weight), f"{field}.dests[{index}].weight")


def _quotas(scheme: Scheme, at: str, field: str, scenery: Scenery) -> Iterator[Setting]:
    quotas = scheme.quotas
    limited = quotas.limited
    yield Setting(f"{at}/ms", str(quotas.time_ms), f"{field}.time_ms")
    yield Setting(f"{at}/bytes", str(quotas.sz_bytes), f"{field}.sz_bytes")
    yield Setting(f"{at}/reset_interval_ms", str(quotas.reset_interval_ms if limited else 0),
                  f"{field}.reset_interval_ms")  # fmt: skip
    for name in ("sz_permil", "nr_accesses_permil", "age_permil"):
        yield Setting(f"{at}/weights/{name}", str(getattr(quotas.weights, name)), f"{field}.weights.{name}")
    if quotas.goals:
        yield Setting(f"{at}/goals/nr_goals", str(len(quotas.goals)), f"{field}.goals", since="6.8",
                      nearest="a fixed quota")  # fmt: skip
        for index, goal in enumerate(quotas.goals):
            yield from _goal(goal, f"{at}/goals/{index}", f"{field}.goals[{index}]", scenery)
    yield Setting(f"{at}/goal_tuner", quotas.goal_tuner, f"{field}.goal_tuner", since="7.1", default="consist",
                  nearest="consist")  # fmt: skip
    for name in ("fail_charge_num", "fail_charge_denom"):
        yield Setting(f"{at}/{name}", str(getattr(quotas, name)), f"{field}.{name}", since="7.2", default="0",
                      nearest="0: what failed is charged in full")  # fmt: skip


def _goal(goal: Goal, at: str, field: str, scenery: Scenery) -> Iterator[Setting]:
    yield Setting(f"{at}/target_metric", goal.metric, f"{field}.metric", since="6.9", default="user_input",
                  nearest="user_input, with a value that you measure")  # fmt: skip
    yield Setting(f"{at}/target_value", str(goal.target_value), f"{field}.target_value")
    yield Setting(f"{at}/current_value", str(goal.current_value), f"{field}.current_value")
    if goal.nid is not None:
        yield Setting(f"{at}/nid", str(goal.nid), f"{field}.nid", since="6.16")
    if goal.memcg_path is not None:
        yield Setting(f"{at}/path", scenery.cgroup(goal.memcg_path), f"{field}.memcg_path", since="6.19")


def _filters(scheme: Scheme, at: str, field: str, scenery: Scenery) -> Iterator[Setting]:
    """Into core_filters and ops_filters where the kernel has them (6.15), else all into filters, in order."""
    numbered = [(item, f"{field}.filters[{index}]") for index, item in enumerate(scheme.filters)]
    core = [pair for pair in numbered if pair[0].filter_type in CORE_FILTERS]
    ops = [pair for pair in numbered if pair[0].filter_type not in CORE_FILTERS]
    # The directory of the scheme may be yet to be made: then the caller asks again when it is there.
    split = scenery.exists(f"{at}/core_filters")
    groups = [("core_filters", core), ("ops_filters", ops)] if split else [("filters", core + ops)]
    for name, members in groups:
        if not members:
            continue
        yield Setting(f"{at}/{name}/nr_filters", str(len(members)), members[0][1].rpartition("[")[0], since="6.3")
        for index, (item, source) in enumerate(members):
            yield from _filter(item, f"{at}/{name}/{index}", source, scenery)


def _filter(item: Filter, at: str, field: str, scenery: Scenery) -> Iterator[Setting]:
    yield Setting(f"{at}/type", item.filter_type, f"{field}.filter_type", nearest="to leave it out")
    yield Setting(f"{at}/matching", "Y" if item.matching else "N", f"{field}.matching")
    opposite = "false" if item.matching else "true"
    yield Setting(
        f"{at}/allow",
        "Y" if item.allow else "N",
        f"{field}.allow",
        since="6.14",
        default="N",
        nearest=f"to reject what is not of the type (matching: {opposite}, allow: false), if it is the only filter",
    )
    if item.memcg_path is not None:
        yield Setting(f"{at}/memcg_path", scenery.cgroup(item.memcg_path), f"{field}.memcg_path")
    if item.address_range is not None:
        yield Setting(f"{at}/addr_start", str(item.address_range.start), f"{field}.address_range", since="6.6")
        yield Setting(f"{at}/addr_end", str(item.address_range.end), f"{field}.address_range", since="6.6")
    if item.damon_target_idx is not None:
        yield Setting(f"{at}/damon_target_idx", str(item.damon_target_idx), f"{field}.damon_target_idx", since="6.6")
    if item.hugepage_size is not None:
        yield Setting(f"{at}/min", str(item.hugepage_size.min), f"{field}.hugepage_size.min", since="6.15")
        yield Setting(f"{at}/max", str(item.hugepage_size.max), f"{field}.hugepage_size.max", since="6.15")
