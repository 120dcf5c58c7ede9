"""A context of the spec as files of the kernel's DAMON: which value goes where, and what a missing file means.

Nothing here reads or writes: it says what is to be written, in order. A kernel that lacks a file lacks a feature; each
`Setting` knows the field of the spec that it carries, its default, and the nearest thing to do instead. Which files
there are, and all of that, is in the table `pydamon.spec.damon_files`; here is what is more than a field in a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from operator import attrgetter

import msgspec
import numpy as np

from pydamon.core.snapshot import max_nr_accesses
from pydamon.errors import RequestError
from pydamon.ops.base import Ranges
from pydamon.spec import Context, Intervals, IntervalsGoal, Kdamond, Probe, Scheme
from pydamon.spec.actions import ACTIONS
from pydamon.spec.damon_files import KDAMOND_FILES, OPERATIONS, File, counter_in, files_in, pattern, text, version_text
from pydamon.spec.metrics import SINCE
from pydamon.spec.schemes import CORE_FILTERS, Filter, SizeRange

KERNEL_OPS = tuple(OPERATIONS)
_NO_GOAL = IntervalsGoal(access_bp=0, aggrs=0, min_sample_us=0, max_sample_us=0)


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
        if target.match is not None:
            raise RequestError(
                "the kernel's DAMON does not look for processes; nearest: name them, or the user engine",
                where=f"targets[{number}].match",
            )
        if target.include_children:
            raise RequestError(
                "the kernel's DAMON does not follow children; nearest: name the processes, or the user engine",
                where=f"targets[{number}].include_children",
            )


def _files(
    here: str, part: object, at: str, field: str, scenery: Scenery | None = None, **nearest: str
) -> Iterator[Setting]:
    """The settings for what ``part``, the spec's ``field``, has for the files in the directory ``at`` below ``here``.

    ``nearest`` says for a file, by its name, what to ask for instead where that depends on more than the file.
    """
    known = f"{pattern(field)}." if field else ""
    for file in files_in(pattern(at)):
        if file.kind == "count" or not file.stands_for or not file.stands_for.startswith(known):
            continue
        attribute = file.stands_for.removeprefix(known)
        whole = attribute.partition(".")[0]  # of a range with two ends, both or none are given
        if getattr(part, whole) is None:
            continue
        value = text(attrgetter(attribute)(part))
        if file.kind == "cgroup" and scenery is not None:
            value = scenery.cgroup(value)
        yield _setting(here, at, file, value, f"{field}.{whole}".lstrip("."), nearest.get(file.name))


def _count(here: str, at: str, number: int, field: str) -> Setting:
    """The setting that makes ``number`` directories in ``at``."""
    return _setting(here, at, counter_in(pattern(at)), str(number), field)


def _setting(here: str, at: str, file: File, value: str, field: str, nearest: str | None = None) -> Setting:
    return Setting(
        "/".join(filter(None, (here, at, file.name))),
        value,
        field,
        since=version_text(file.since) if file.since is not None else None,
        default=file.first_text if file.since is not None and not file.optional else None,
        nearest=file.nearest if nearest is None else nearest,
    )


def operations(context: Context, here: str) -> Iterator[Setting]:
    """What is directly in the context's directory ``here``: the operations set."""
    yield from _files(here, context, "", "")


def pause(context: Context, here: str) -> Iterator[Setting]:
    """Whether the context whose directory is ``here`` pauses."""
    yield from (setting for setting in operations(context, here) if setting.field == "pause")


def refresh_ms(kdamond: Kdamond, here: str) -> Iterator[Setting]:
    """How often the kernel shows anew what is in the directory ``here`` of a kdamond."""
    (file,) = (file for file in KDAMOND_FILES if file.name == "refresh_ms")
    yield _setting(here, "", file, str(kdamond.refresh_ms), "refresh_ms", "0, for pydamon asks by itself")


def attributes(context: Context, here: str) -> Iterator[Setting]:
    """Intervals and number of regions; ``here`` is the context's directory."""
    at, intervals = "monitoring_attrs", context.intervals
    yield from _files(here, intervals, f"{at}/intervals", "intervals")
    goal = intervals.intervals_goal or _NO_GOAL
    for setting in _files(here, goal, f"{at}/intervals/intervals_goal", "intervals.intervals_goal"):
        yield replace(setting, field="intervals.intervals_goal")
    yield from _files(here, context.nr_regions, f"{at}/nr_regions", "nr_regions")


def probes(wanted: tuple[Probe, ...], here: str, scenery: Scenery) -> Iterator[Setting]:
    """Data attributes to count. (Which types of filters there are differs by the kernel, which refuses others.)"""
    at = "monitoring_attrs/probes"
    yield _count(here, at, 0, "probes")
    yield _count(here, at, len(wanted), "probes")
    for number, probe in enumerate(wanted):
        yield from _files(here, probe, f"{at}/{number}", f"probes[{number}]")
        preps, field = f"{at}/{number}/preps", f"probes[{number}].preps"
        yield _count(here, preps, len(probe.preps), field)
        for index, prep in enumerate(probe.preps):
            yield from _files(here, prep, f"{preps}/{index}", f"{field}[{index}]")
        filters, field = f"{at}/{number}/filters", f"probes[{number}].filters"
        yield _count(here, filters, len(probe.filters), field)
        for index, item in enumerate(probe.filters):
            yield from _files(here, item, f"{filters}/{index}", f"{field}[{index}]", scenery)


def targets(context: Context, here: str, ranges: list[Ranges]) -> Iterator[Setting]:
    """The targets and their regions (``ranges``: one array of shape (n, 2) for each target, in bytes).

    Of physical memory in units of several bytes it is what whole units of them are in the ranges.
    """
    unit = np.uint64(context.addr_unit)
    # Down to none first: what a directory of that number held before must not remain.
    yield _count(here, "targets", 0, "targets")
    yield _count(here, "targets", len(context.targets), "targets")
    for number, (target, regions) in enumerate(zip(context.targets, ranges, strict=True)):
        at, field = f"targets/{number}", f"targets[{number}]"
        yield from _files(here, target, at, field)
        regions = np.stack([(regions[:, 0] + (unit - np.uint64(1))) // unit, regions[:, 1] // unit], axis=1)
        regions = regions[regions[:, 0] < regions[:, 1]]
        yield _count(here, f"{at}/regions", len(regions), f"{field}.regions")
        for index, (start, end) in enumerate(regions.tolist()):
            for name, value in (("start", start), ("end", end)):
                yield Setting(f"{here}/{at}/regions/{index}/{name}", str(value), f"{field}.regions[{index}].{name}")


def obsolete(place: int, number: int, value: bool, here: str) -> Setting:
    """Whether the target that is the ``place``-th in the kernel, and ``number`` in the spec, is to be taken out."""
    at = f"targets/{place}"
    (file,) = (file for file in files_in(pattern(at)) if file.name == "obsolete_target")
    return _setting(here, at, file, text(value), f"targets[{number}].obsolete")


def schemes(
    wanted: tuple[Scheme, ...], here: str, intervals: Intervals, ops: str, scenery: Scenery
) -> Iterator[Setting]:
    """All schemes, in order. Raises RequestError for an action that ``ops`` does not have in the kernel."""
    yield _count(here, "schemes", 0, "schemes")
    yield _count(here, "schemes", len(wanted), "schemes")
    for number, scheme in enumerate(wanted):
        yield from _scheme(scheme, here, f"schemes/{number}", f"schemes[{number}]", intervals, ops, scenery)


def _scheme(
    scheme: Scheme, here: str, at: str, field: str, intervals: Intervals, ops: str, scenery: Scenery
) -> Iterator[Setting]:
    _check_action(scheme, field, ops, scenery)
    bare = msgspec.structs.replace(scheme, target_nid=None)
    yield from _files(here, bare, at, field, action=scheme.does.nearest)
    wanted = scheme.access_pattern
    window, aggr_us = max_nr_accesses(intervals.sample_us, intervals.aggr_us), intervals.aggr_us
    rates, ages = wanted.nr_accesses, wanted.age
    bounds = {
        "sz_bytes": wanted.sz_bytes,
        "nr_accesses": SizeRange(min=rates.min.to_samples(window, aggr_us, upper=False),
                                 max=rates.max.to_samples(window, aggr_us, upper=True)),
        "age": SizeRange(min=ages.min.to_aggregations(aggr_us, upper=False),
                         max=ages.max.to_aggregations(aggr_us, upper=True)),
    }  # fmt: skip
    for name, bound in bounds.items():
        directory = "sz" if name == "sz_bytes" else name
        yield from _files(here, bound, f"{at}/access_pattern/{directory}", f"{field}.access_pattern.{name}")
    yield from _destinations(scheme, here, at, field)
    yield from _quotas(scheme, here, f"{at}/quotas", f"{field}.quotas", scenery)
    if scheme.watermarks.nid is not None:
        text = "the kernel's watermarks go by the free memory of the whole machine; the engine user has those of a node"
        raise RequestError(text, where=f"{field}.watermarks.nid")
    marks = _files(here, scheme.watermarks, f"{at}/watermarks", f"{field}.watermarks")
    # Without a metric there is nothing to say of its values.
    yield from (mark for mark in marks if scheme.watermarks.metric != "none" or mark.field.endswith(".metric"))
    yield from _filters(scheme, here, at, field, scenery)
    yield from _files(here, scheme, f"{at}/stats", field)


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


def _destinations(scheme: Scheme, here: str, at: str, field: str) -> Iterator[Setting]:
    destinations = scheme.destinations
    if len(destinations) == 1:
        place = "target_nid" if scheme.target_nid is not None else "dests[0].id"
        (file,) = (file for file in files_in(pattern(at)) if file.name == "target_nid")
        yield _setting(here, at, file, str(destinations[0].id), f"{field}.{place}")
    elif destinations:
        yield _count(here, f"{at}/dests", len(destinations), f"{field}.dests")
        for index, dest in enumerate(destinations):
            yield from _files(here, dest, f"{at}/dests/{index}", f"{field}.dests[{index}]")


def _quotas(scheme: Scheme, here: str, at: str, field: str, scenery: Scenery) -> Iterator[Setting]:
    quotas = scheme.quotas
    if quotas.bloat_bp:
        text = "is not kept by the kernel's DAMON, which does not look for what is resident; nearest: the user engine"
        raise RequestError(text, where=f"{field}.bloat_bp")
    yield from _files(here, quotas.weights, f"{at}/weights", f"{field}.weights")
    if quotas.goals:
        yield _count(here, f"{at}/goals", len(quotas.goals), f"{field}.goals")
        for index, goal in enumerate(quotas.goals):
            if goal.metric not in SINCE:
                text = f"is {goal.metric}, which the kernel's DAMON does not know; nearest: the user engine"
                raise RequestError(text, where=f"{field}.goals[{index}].metric")
            yield from _files(here, goal, f"{at}/goals/{index}", f"{field}.goals[{index}]", scenery)
    if not quotas.limited:
        quotas = msgspec.structs.replace(quotas, reset_interval_ms=0)
    yield from _files(here, quotas, at, field)


def _filters(scheme: Scheme, here: str, at: str, field: str, scenery: Scenery) -> Iterator[Setting]:
    """Into core_filters and ops_filters where the kernel has them (6.15), else all into filters, in order."""
    numbered = [(item, f"{field}.filters[{index}]") for index, item in enumerate(scheme.filters)]
    core = [pair for pair in numbered if pair[0].filter_type in CORE_FILTERS]
    ops = [pair for pair in numbered if pair[0].filter_type not in CORE_FILTERS]
    # The directory of the scheme may be yet to be made: then the caller asks again when it is there.
    split = scenery.exists(f"{here}/{at}/core_filters")
    groups = [("core_filters", core), ("ops_filters", ops)] if split else [("filters", core + ops)]
    for name, members in groups:
        if not members:
            continue
        yield _count(here, f"{at}/{name}", len(members), f"{field}.filters")
        for index, (item, source) in enumerate(members):
            instead = _instead_of_allow(item)
            yield from _files(here, item, f"{at}/{name}/{index}", source, scenery, allow=instead)


def _instead_of_allow(item: Filter) -> str:
    opposite = "false" if item.matching else "true"
    return f"to reject what is not of the type (matching: {opposite}, allow: false), if it is the only filter"
