"""Schemes in plain words, with units."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from pydamon.spec.actions import Action
from pydamon.spec.forms.scheme_short import exact_permil
from pydamon.spec.metrics import METRICS
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AccessPattern, Filter, Goal, Quotas, Scheme, Watermarks
from pydamon.spec.units import U64_MAX, exact_bp, format_duration_ns

_FILTERS = {
    "anon": ("anonymous memory", "memory of files"),
    "active": ("pages on an active LRU list", "pages on no active LRU list"),
    "memcg": ("memory of the cgroup {memcg}", "memory of other cgroups than {memcg}"),
    "young": ("pages accessed since the last look", "pages not accessed since the last look"),
    "hugepage_size": ("pages of {size}", "pages of other sizes than {size}"),
    "unmapped": ("pages mapped by no process", "pages mapped by a process"),
    "node": ("memory of NUMA node {node}", "memory of other NUMA nodes than {node}"),
    "addr": ("the addresses {addr}", "other addresses than {addr}"),
    "target": ("target {target}", "other targets than {target}"),
}


def explain_schemes(schemes: Sequence[Scheme], aggr_us: int | None = None, *, faithful: bool = False) -> list[str]:
    """Lines of text that say what each scheme does: one with its policy, then indented ones with the details.

    ``aggr_us``: the aggregation interval, if it is known; ``faithful``: as the kernel, which leaves windows of quotas
    unused that are shorter than that.
    """
    lines: list[str] = []
    for number, scheme in enumerate(schemes):
        head = f"Scheme {number}" + (f" ({scheme.name})" if scheme.name is not None else "")
        lines.append(f"{head}: {_when(scheme, aggr_us, faithful)}, {_which(scheme.access_pattern)} {_what(scheme)}.")
        lines += [f"  {line}" for line in _details(scheme)]
    return lines


def _details(scheme: Scheme) -> list[str]:
    lines = [*_quota(scheme.quotas, scheme.does), *_watermarks(scheme.watermarks)]
    for title, filters in (("Of regions", scheme.core_filters), ("Of pages", scheme.ops_filters)):
        if filters:
            lines.append(f"{title}, the first of these filters that is about one decides:")
            lines += [f"  {_filter(item)}" for item in filters]
            # What the core lets in without a filter of its own is left to the filters of pages.
            if filters[-1].allow and not (title == "Of regions" and scheme.ops_filters):
                lines.append("  All else is left out.")
            elif title == "Of pages" or not scheme.ops_filters:
                lines.append("  All else is taken.")
            else:
                lines.append("  All else is up to the filters of pages.")
    if scheme.max_nr_snapshots:
        times = f"{scheme.max_nr_snapshots} snapshots" if scheme.max_nr_snapshots > 1 else "one snapshot"
        lines.append(f"Ends after {times} (each target of a whole pass is one); monitoring goes on.")
    return lines


def _when(scheme: Scheme, aggr_us: int | None, faithful: bool) -> str:
    if scheme.apply_interval_us:
        return f"every {_time_us(scheme.apply_interval_us)}"
    if scheme.quotas.limited and not faithful:
        window_us = scheme.quotas.reset_interval_ms * 1000
        if aggr_us is None:
            return f"at each aggregation interval, at least every {_time_us(window_us)}"
        if window_us < aggr_us:
            return f"every {_time_us(window_us)} (window of its quota)"
    return f"every {_time_us(aggr_us)} (aggregation interval)" if aggr_us else "at each aggregation interval"


# -- the access pattern -------------------------------------------------------------------------------------------


def _which(pattern: AccessPattern) -> str:
    size, rate, age = pattern.sz_bytes, pattern.nr_accesses, pattern.age
    text = "memory"
    aged = _between(age.min, age.max, _age)
    any_rate = not rate.min.value and rate.max.value is None
    if rate.max.value == 0:
        text += f" that was not accessed{' for ' + aged if aged else ''}"
    elif not any_rate:
        text += f" that was accessed {_rates(rate.min, rate.max)}{', so for ' + aged if aged else ''}"
    elif aged:
        text += f" whose access rate has been about the same for {aged}"
    else:
        text += " however much it is accessed"
    low = None if not size.min else size.min
    high = None if size.max >= U64_MAX else size.max
    if low is not None and high is not None:
        text += f", in regions of {_size(low)}" + ("" if low == high else f" to {_size(high)}")
    elif low is not None:
        text += f", in regions of {_size(low)} or more"
    elif high is not None:
        text += f", in regions of at most {_size(high)}"
    return text + "," if low is not None or high is not None else text


def _rates(low: Rate, high: Rate) -> str:
    words = _between(low, high, lambda rate: f"{_number(rate.value)} %" if rate.unit == "%" else _number(rate.value))
    units = {
        "%": "of the samples",
        "Hz": "times a second",
        "samples": "of the samples in an aggregation interval",
    }
    unit = high.unit if high.value is not None else low.unit
    if low.value and high.value is not None and low.unit != high.unit:
        return f"in {low} or more, and in {high} or less"
    return f"{words} {units[unit]}" if unit == "Hz" else f"in {words} {units[unit]}"


def _between(low: Rate | Age, high: Rate | Age, show: object) -> str:
    assert callable(show)
    if low.value and low == high:
        return f"exactly {show(low)}"
    if low.value and high.value is not None:
        return f"{show(low)} to {show(high)}"
    if low.value is None:
        return "more than any number of times" if isinstance(low, Rate) else "ever"
    if low.value:
        return f"{show(low)} or more"
    return f"at most {show(high)}" if high.value is not None else ""


def _age(age: Age) -> str:
    if age.unit == "us" and age.value is not None:
        return _time_ns(int(age.value * 1000))
    one = age.value == 1
    return f"{_number(age.value)} aggregation interval{'' if one else 's'}"


# -- what is done -------------------------------------------------------------------------------------------------


def _what(scheme: Scheme) -> str:
    dests, to = scheme.destinations, ""
    if len(dests) == 1:
        to = f" to NUMA node {dests[0].id}"
    elif dests:
        total = sum(dest.weight for dest in dests)
        shares = ", ".join(f"{dest.weight * 100 / total:.3g} % to {dest.id}" for dest in dests)
        to = f" to the NUMA nodes: {shares}"
    return scheme.does.words.format(to=to)


def _quota(quotas: Quotas, action: Action) -> list[str]:
    bloat = [f"It adds at most {exact_bp(quotas.bloat_bp)} of what is resident."] if quotas.bloat_bp else []
    if not quotas.limited:
        return [] if not action.acts else ["All of it, whatever that costs: there is no quota.", *bloat]
    per = _time_us(quotas.reset_interval_ms * 1000)
    most = []
    if quotas.time_ms:
        most.append(f"{_time_us(quotas.time_ms * 1000)} of work")
    if quotas.sz_bytes:
        most.append(_size(quotas.sz_bytes))
    lines = [f"At most {' and '.join(most)} per {per}{_order(quotas, action)}."] if most else []
    if quotas.goals:
        lines.append(
            f"How much is tried is tuned every {per}{'' if most else _order(quotas, action)}: "
            + ("all or nothing, " if quotas.goal_tuner == "temporal" else "more while below, less when above, ")
            + ("until" if len(quotas.goals) == 1 else "until one of these holds:")
            + (f" {_goal(quotas.goals[0])}." if len(quotas.goals) == 1 else "")
        )
        if len(quotas.goals) > 1:
            lines += [f"  {_goal(goal)}." for goal in quotas.goals]
    if quotas.fail_charge_denom:
        share = f"{quotas.fail_charge_num}/{quotas.fail_charge_denom}"
        lines.append(f"A byte for which it failed costs {share} of one for which it succeeded.")
    return lines + bloat


def _order(quotas: Quotas, action: Action) -> str:
    weights = quotas.weights
    rate, age = weights.nr_accesses_permil, weights.age_permil
    if action.prefers is None or not (rate or age):
        return ", all regions alike"
    what = "hottest first" if action.prefers == "hot" else "coldest first"
    if rate == age:
        return f", {what} (access rate and age count the same)"
    if not rate or not age:
        return f", {what} (by {'access rate' if rate else 'age'} only)"
    return f", {what} (access rate counts {rate}, age {age})"


def _goal(goal: Goal) -> str:
    node = "?" if goal.nid is None else goal.nid
    metric = METRICS[goal.metric].words.format(node=node, memcg=goal.memcg_path)
    name = f" ({goal.name})" if goal.name is not None else ""
    now = f" (now {_metric(goal, goal.current_value)})" if METRICS[goal.metric].source == "user" else ""
    return f"{metric}{name} is {_metric(goal, goal.target_value)}{now}"


def _metric(goal: Goal, value: int) -> str:
    unit = METRICS[goal.metric].unit
    if unit == "us":
        return _time_us(value)
    return f"{_number(Fraction(value, 100))} %" if unit == "bp" else f"{value:,}"


def _watermarks(marks: Watermarks) -> list[str]:
    if marks.metric == "none":
        return []
    high, mid, low = (_percent(value) for value in (marks.high_permil, marks.mid_permil, marks.low_permil))
    return [
        f"Begins when less than {mid} of {marks.of_what} is free; pauses while more than {high} or less than "
        f"{low} is free; looks every {_time_us(marks.interval_us)}."
    ]


def _filter(item: Filter) -> str:
    size = addr = ""
    if item.hugepage_size is not None:
        low, high = item.hugepage_size.min, item.hugepage_size.max
        size = (
            _size(low)
            if low == high
            else f"{_size(low)} to {_size(high)}"
            if high < U64_MAX
            else f"{_size(low)} or more"
        )
    if item.address_range is not None:
        addr = f"{item.address_range.start:#x}-{item.address_range.end:#x}"
    values = {"memcg": item.memcg_path, "size": size, "addr": addr, "target": item.damon_target_idx, "node": item.nid}
    what = _FILTERS[item.filter_type][0 if item.matching else 1].format(**values)
    return f"{what[0].upper()}{what[1:]}: {'taken' if item.allow else 'left out'}."


# -- numbers ------------------------------------------------------------------------------------------------------


def _number(value: Fraction | None) -> str:
    if value is None:
        return "any number"
    return f"{int(value):,}" if value.denominator == 1 else f"{float(value):.4g}"


def _percent(permil: int) -> str:
    return exact_permil(permil).replace("%", " %")


def _time_us(time_us: int) -> str:
    return _time_ns(time_us * 1000)


def _time_ns(time_ns: int) -> str:
    # Up to two minutes people set seconds.
    return f"{time_ns // 10**9} s" if time_ns % 10**9 == 0 and time_ns <= 120 * 10**9 else format_duration_ns(time_ns)


def _size(size_bytes: int) -> str:
    if size_bytes >= U64_MAX:
        return "any size"
    for power, unit in ((60, "EiB"), (50, "PiB"), (40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size_bytes >= 1 << power:
            return f"{_number(Fraction(size_bytes, 1 << power))} {unit}"
    return f"{size_bytes} B"
