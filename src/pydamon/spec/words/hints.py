"""What is no error in a scheme but hardly meant: conditions that nothing meets, filters that are never asked …"""

from __future__ import annotations

from collections.abc import Sequence

from pydamon.spec.metrics import METRICS
from pydamon.spec.model import PAGE_SIZE, Intervals
from pydamon.spec.schemes import CORE_FILTERS, Filter, Scheme
from pydamon.spec.units import format_duration_ns

_VIRTUAL = ("vaddr", "fvaddr")


def hints(scheme: Scheme, path: str, *, ops: str = "vaddr", intervals: Intervals | None = None) -> list[str]:
    """One line for each thing in a valid scheme that cannot have its effect; each begins with the field's path.

    ``intervals`` are those that rates and ages are converted with, DAMON's defaults if not given.
    """
    intervals = intervals or Intervals()
    found = [
        *_pattern(scheme, intervals),
        *_temperature(scheme, intervals),
        *_quotas(scheme),
        *_watermarks(scheme),
        *_filters(scheme, ops),
    ]
    if ops in _VIRTUAL and scheme.does.own_process:
        other = f"; {scheme.does.instead}" if scheme.does.instead else ""
        found.append(("action", f"{scheme.action} cannot be given to other processes by most kernels{other}"))
    return [f"{path}.{where}: {text}" for where, text in found]


def same_names(schemes: Sequence[Scheme], paths: Sequence[str]) -> list[str]:
    """A line for each scheme that has the name of one before it."""
    found, seen = [], set()
    for scheme, path in zip(schemes, paths, strict=True):
        if scheme.name is not None and scheme.name in seen:
            found.append(f"{path}: {scheme.name!r} is the name of a scheme before it, too")
        seen.add(scheme.name)
    return found


def _pattern(scheme: Scheme, intervals: Intervals) -> list[tuple[str, str]]:
    pattern, found = scheme.access_pattern, []
    window = max(intervals.aggr_us // max(intervals.sample_us, 1), 1)
    at = f"with samples every {_time(intervals.sample_us)} and aggregations every {_time(intervals.aggr_us)}"
    low = pattern.nr_accesses.min.to_samples(window, intervals.aggr_us, upper=False)
    high = pattern.nr_accesses.max.to_samples(window, intervals.aggr_us, upper=True)
    if low > high:
        text = f"no whole number of samples is {pattern.nr_accesses.min} to {pattern.nr_accesses.max} {at}"
        found.append(("access_pattern.nr_accesses", text))
    elif low > window:
        text = f"{pattern.nr_accesses.min} is {low} samples, more than the {window} that there are {at}"
        found.append(("access_pattern.nr_accesses.min", text))
    low = pattern.age.min.to_aggregations(intervals.aggr_us, upper=False)
    high = pattern.age.max.to_aggregations(intervals.aggr_us, upper=True)
    if low > high:
        text = f"no whole number of aggregations is {pattern.age.min} to {pattern.age.max} {at}"
        found.append(("access_pattern.age", text))
    if pattern.sz_bytes.max < PAGE_SIZE:
        found.append(("access_pattern.sz_bytes.max", f"no region is smaller than a page ({PAGE_SIZE} bytes)"))
    return found


def _temperature(scheme: Scheme, intervals: Intervals) -> list[tuple[str, str]]:
    window = max(intervals.aggr_us // max(intervals.sample_us, 1), 1)
    rates = scheme.access_pattern.nr_accesses
    low = rates.min.to_samples(window, intervals.aggr_us, upper=False)
    high = rates.max.to_samples(window, intervals.aggr_us, upper=True)
    if scheme.does.prefers == "cold" and (low * 2 > window or (high * 2 > window and not scheme.quotas.limited)):
        # With a quota the coldest go first, so that no upper bound of the rate is needed.
        return [("access_pattern.nr_accesses", f"{scheme.action} of memory that is accessed all the time, too")]
    if scheme.does.prefers == "hot" and high == 0:
        return [("access_pattern.nr_accesses", f"{scheme.action} of memory that is not accessed at all")]
    return []


def _quotas(scheme: Scheme) -> list[tuple[str, str]]:
    quotas, found = scheme.quotas, []
    if 0 < quotas.sz_bytes < PAGE_SIZE:
        found.append(("quotas.sz_bytes", f"{quotas.sz_bytes} bytes are less than a page: nothing is ever done"))
    if quotas.goal_tuner != "consist" and not quotas.goals:
        found.append(("quotas.goal_tuner", f"{quotas.goal_tuner} has nothing to tune: there are no goals"))
    for number, goal in enumerate(quotas.goals):
        most = METRICS[goal.metric].most
        if most is not None and goal.target_value > most:
            found.append((f"quotas.goals[{number}].target_value", f"is above 100 %, which {goal.metric} never reaches"))
    if quotas.time_ms > quotas.reset_interval_ms:
        found.append(("quotas.time_ms", "is longer than the reset interval, so that it limits nothing"))
    return found


def _watermarks(scheme: Scheme) -> list[tuple[str, str]]:
    marks = scheme.watermarks
    if marks.metric == "none" or marks.low_permil < marks.mid_permil:
        return []
    # Active from low on, and activated below mid only (docs/algorithms.md 2.13).
    return [("watermarks", "never activate: low must be below mid")]


def _filters(scheme: Scheme, ops: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    before: list[tuple[str, Filter]] = []
    decided = ""
    # Those of the core come first. What they let in explicitly is not asked about any more.
    numbered = sorted(enumerate(scheme.filters), key=lambda pair: pair[1].filter_type not in CORE_FILTERS)
    for number, item in numbered:
        where = f"filters[{number}]"
        by = decided or next((name for name, other in before if _covers(other, item)), "")
        if by:
            found.append((where, f"never decides: {by} has decided before it"))
        elif ops in _VIRTUAL and item.filter_type == "unmapped" and item.matching:
            found.append((where, f"never matches: with {ops}, all pages are mapped"))
        opposite = [name for name, other in before if _opposite(other, item)]
        if opposite and not decided:
            decided = f"{opposite[0]} or {where}"
        before.append((where, item))
    return found


def _argument(item: Filter) -> tuple[object, ...]:
    of_pages = item.memcg_path, item.hugepage_size, item.nid, item.perf_event
    return item.filter_type, item.address_range, item.damon_target_idx, item.probe_hits_wsum, *of_pages


def _opposite(one: Filter, other: Filter) -> bool:
    return _argument(one) == _argument(other) and one.matching != other.matching


def _covers(one: Filter, other: Filter) -> bool:
    """Whether all that ``other`` matches is matched by ``one``, too."""
    if one.filter_type != other.filter_type or one.matching != other.matching:
        return False
    outer, inner = (one, other) if one.matching else (other, one)
    if outer.address_range is not None and inner.address_range is not None:
        outer_range, inner_range = outer.address_range, inner.address_range
        return outer_range.start <= inner_range.start and inner_range.end <= outer_range.end
    for field in ("hugepage_size", "probe_hits_wsum"):
        wide, narrow = getattr(outer, field), getattr(inner, field)
        if wide is not None and narrow is not None:
            return bool(wide.min <= narrow.min and narrow.max <= wide.max)
    return _argument(one) == _argument(other)


def _time(time_us: int) -> str:
    return format_duration_ns(time_us * 1000)
