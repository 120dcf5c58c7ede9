"""Schemes and specs in the layout that ``damo`` (3.4) reads: all fields, and only units that it knows."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from pydamon.errors import RequestError
from pydamon.spec.address_units import to_units
from pydamon.spec.forms.scheme_short import exact_permil
from pydamon.spec.model import Context, Spec
from pydamon.spec.probes import Probe
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import Filter, Goal, Scheme
from pydamon.spec.units import U64_MAX

Fields = dict[str, Any]
_DAMO_OPS = ("vaddr", "fvaddr", "paddr")


def damo_scheme(scheme: Scheme, path: str, warn: Callable[[str], None], aggr_us: int | None = None) -> Fields:
    """One scheme. Rates per second need ``aggr_us``, as damo has none.

    Raises RequestError for what damo cannot say; ``warn`` gets a line for what it does not read.
    """
    quotas, marks = scheme.quotas, scheme.watermarks
    if scheme.max_nr_snapshots:
        warn(f"{path}.max_nr_snapshots: damo reads it from its command line only")
    if quotas.bloat_bp:
        warn(f"{path}.quotas.bloat_bp: damo ignores it")
    if scheme.name is not None:
        warn(f"{path}.name: damo ignores it")
    fields: Fields = {
        "action": scheme.action,
        "dests": [{"id": dest.id, "weight": dest.weight} for dest in scheme.dests],
    }
    if scheme.does.migrates:
        fields["target_nid"] = scheme.target_nid
    size = scheme.access_pattern.sz_bytes
    fields["access_pattern"] = {
        "sz_bytes": {"min": _size(size.min), "max": _size(size.max)},
        "nr_accesses": _rates(scheme, f"{path}.access_pattern.nr_accesses", aggr_us),
        "age": _ages(scheme, f"{path}.access_pattern.age"),
    }
    fields["apply_interval_us"] = _time_us(scheme.apply_interval_us)
    fields["quotas"] = {
        "time_ms": _time_us(quotas.time_ms * 1000),
        "sz_bytes": _size(quotas.sz_bytes),
        "reset_interval_ms": _time_us(quotas.reset_interval_ms * 1000),
        "fail_charge_num": str(quotas.fail_charge_num),
        "fail_charge_denom": str(quotas.fail_charge_denom),
        "goals": [_goal(goal) for goal in quotas.goals],
        "goal_tuner": quotas.goal_tuner,
        "effective_sz_bytes": "0 B",
        "weights": {
            "sz_permil": _permil(quotas.weights.sz_permil),
            "nr_accesses_permil": _permil(quotas.weights.nr_accesses_permil),
            "age_permil": _permil(quotas.weights.age_permil),
        },
    }
    if marks.nid is not None:
        raise RequestError("damo has them for the whole machine only", where=f"{path}.watermarks.nid")
    if quotas.bloat_bp:
        fields["quotas"]["bloat_bp"] = str(quotas.bloat_bp)
    fields["watermarks"] = {
        "metric": marks.metric,
        "interval_us": _time_us(marks.interval_us),
        "high_permil": _permil(marks.high_permil),
        "mid_permil": _permil(marks.mid_permil),
        "low_permil": _permil(marks.low_permil),
    }
    fields["filters"] = [_filter(item) for item in scheme.filters]
    if scheme.max_nr_snapshots:
        fields["max_nr_snapshots"] = scheme.max_nr_snapshots
    if scheme.name is not None:
        fields["name"] = scheme.name
    return fields


def damo_spec(spec: Spec, warn: Callable[[str], None]) -> Fields:
    """A whole spec; as `damo_scheme`."""
    kdamonds = []
    for number, kdamond in enumerate(spec.kdamonds):
        path = f"kdamonds[{number}].contexts[0]"
        kdamonds.append({"refresh_ms": kdamond.refresh_ms, "contexts": [_context(kdamond.contexts[0], path, warn)]})
    return {"kdamonds": kdamonds}


def _context(context: Context, path: str, warn: Callable[[str], None]) -> Fields:
    if context.ops not in _DAMO_OPS:
        raise RequestError(f"{context.ops} is none that damo has; it has {', '.join(_DAMO_OPS)}", where=f"{path}.ops")
    if context.primitive != "auto":
        warn(f"{path}.primitive: damo has no such field")
    if context.faithful:
        warn(f"{path}.faithful: damo has no such field; the kernel's DAMON always is")
    targets, unit = [], context.addr_unit
    for number, target in enumerate(context.targets):
        where = f"{path}.targets[{number}]"
        if target.cgroup is not None:
            raise RequestError("damo has no cgroups as targets", where=f"{where}.cgroup")
        if target.match is not None:
            raise RequestError("damo does not look for processes by patterns", where=f"{where}.match")
        if target.include_children:
            raise RequestError("damo does not follow a process's children", where=f"{where}.include_children")
        # What a unit has a part of, belongs to the region.
        regions = [{"start": str(r.start // unit), "end": str(-(-r.end // unit))} for r in target.regions]
        targets.append({"pid": target.pid, "obsolete": target.obsolete, "regions": regions})
    intervals, goal = context.intervals, context.intervals.intervals_goal
    return {
        "ops": context.ops,
        "addr_unit": _size(unit),
        "targets": targets,
        "intervals": {
            "sample_us": _time_us(intervals.sample_us),
            "aggr_us": _time_us(intervals.aggr_us),
            "ops_update_us": _time_us(intervals.ops_update_us),
            "intervals_goal": {
                "access_bp": _percent(goal.access_bp if goal else 0),
                "aggrs": str(goal.aggrs if goal else 0),
                "min_sample_us": _time_us(goal.min_sample_us if goal else 0),
                "max_sample_us": _time_us(goal.max_sample_us if goal else 0),
            },
        },
        "nr_regions": {"min": str(context.nr_regions.min), "max": str(context.nr_regions.max)},
        "probes": [_probe(probe) for probe in context.probes],
        "pause": context.pause,
        "schemes": [
            damo_scheme(scheme, f"{path}.schemes[{number}]", warn, intervals.aggr_us)
            for number, scheme in enumerate(to_units(context.schemes, unit))
        ],
    }


def _rates(scheme: Scheme, path: str, aggr_us: int | None) -> Fields:
    """Both ends in the same unit, as damo wants them."""
    low, high = scheme.access_pattern.nr_accesses.min, scheme.access_pattern.nr_accesses.max
    if aggr_us is not None:
        low, high = _per_aggregation(low, aggr_us, upper=False), _per_aggregation(high, aggr_us, upper=True)
    used = {rate.unit for rate in (low, high) if rate.value}
    if "Hz" in used:
        raise RequestError("damo has no rates per second; write samples or %", where=path)
    if len(used) > 1:
        raise RequestError("damo needs the minimum and the maximum in the same unit", where=path)
    unit = used.pop() if used else "%"
    return {end: _with_unit(rate.value, unit) for end, rate in (("min", low), ("max", high))}


def _per_aggregation(rate: Rate, aggr_us: int, *, upper: bool) -> Rate:
    if rate.unit != "Hz" or rate.value is None:
        return rate
    return Rate(rate.to_samples(1, aggr_us, upper=upper), "samples")


def _ages(scheme: Scheme, path: str) -> Fields:
    low, high = scheme.access_pattern.age.min, scheme.access_pattern.age.max
    used = {age.unit for age in (low, high) if age.value}
    if len(used) > 1:
        raise RequestError("damo needs the minimum and the maximum in the same unit", where=path)
    return {end: _aged(age, "aggrs" in used) for end, age in (("min", low), ("max", high))}


def _aged(age: Age, in_aggregations: bool) -> str:
    if in_aggregations:
        return _with_unit(age.value, "aggr_intervals")
    if age.value is None:
        return "max"
    return _time_us(int(age.value)) if age.value.denominator == 1 else f"{int(age.value * 1000)} ns"


def _with_unit(value: Fraction | None, unit: str) -> str:
    if value is None:
        return "max" if unit == "%" else f"max {unit}"
    number = str(int(value)) if value.denominator == 1 else format(float(value), "f").rstrip("0")
    return f"{number} {unit}"


def _goal(goal: Goal) -> Fields:
    return {
        "metric": goal.metric,
        "complement": goal.complement,
        "nid": goal.nid,
        "memcg_path": goal.memcg_path,
        "target_value": str(goal.target_value),
        "current_value": str(goal.current_value),
    }


def _filter(item: Filter) -> Fields:
    addresses, size, hits = item.address_range, item.hugepage_size, item.probe_hits_wsum
    return {
        **({} if item.nid is None else {"nid": item.nid}),  # ours: damo has no such filter
        "filter_type": item.filter_type,
        "matching": item.matching,
        "allow": item.allow,
        "memcg_path": item.memcg_path,
        "address_range": None if addresses is None else {"start": str(addresses.start), "end": str(addresses.end)},
        "damon_target_idx": item.damon_target_idx,
        "hugepage_size": None if size is None else [_size(size.min), _size(size.max)],
        **({} if hits is None else {"probe_hits_wsum_range": [str(hits.min), str(hits.max)]}),
    }


def _probe(probe: Probe) -> Fields:
    filters = []
    for item in probe.filters:
        size = item.hugepage_size
        filters.append(
            {
                **({} if item.perf_event is None else {"perf_event": item.perf_event}),  # ours
                "filter_type": item.filter_type,
                "matching": item.matching,
                "allow": item.allow,
                "path": item.memcg_path,
                "range_min": None if size is None else _size(size.min),
                "range_max": None if size is None else _size(size.max),
            }
        )
    preps = [{"prep_action": prep.prep_action} for prep in probe.preps]
    return {"preps": preps, "filters": filters, "weight": probe.weight}


def _size(size_bytes: int) -> str:
    if size_bytes >= U64_MAX:
        return "max"
    for power, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size_bytes and size_bytes % (1 << power) == 0:
            return f"{size_bytes >> power} {unit}"
    return f"{size_bytes} B"


def _time_us(time_us: int) -> str:
    for unit, unit_us in (("s", 1_000_000), ("ms", 1000)):
        if time_us % unit_us == 0 and time_us:
            return f"{time_us // unit_us} {unit}"
    return f"{time_us} us"


def _permil(value: int) -> str:
    return exact_permil(value).replace("%", " %")


def _percent(value_bp: int) -> str:
    return f"{value_bp / 100:g} %"
