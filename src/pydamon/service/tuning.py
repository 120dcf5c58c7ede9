"""What a `Tune` makes of the parameters of a running kdamond; pure, and all or nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from pydamon.core.snapshot import max_nr_accesses
from pydamon.errors import RequestError
from pydamon.modules.registry import expand
from pydamon.run.modules import filled
from pydamon.service.protocol import Tune
from pydamon.spec import (
    Context,
    Intervals,
    IntervalsGoal,
    NrRegions,
    Probe,
    Scheme,
    Spec,
    read,
    validate,
    validate_attrs,
)
from pydamon.spec.defaults import has_default_goal
from pydamon.spec.probes import attributes_only, validate_probes
from pydamon.spec.schemes import validate_schemes
from pydamon.spec.units import U64_MAX

_HERE = "kdamonds[0].contexts[0]"
_RESTART = "cannot be changed while it runs; stop it and start anew"


def tuned(wanted: Tune, present: Context, asked: Context, *, primitive: str, nr_targets: int) -> Context:
    """What is to run after ``wanted``. Raises RequestError naming the field.

    ``present`` is what runs, as tuned by now; ``asked`` is what the user has asked for so far. Of sampling and
    aggregation interval, the one that is not given keeps their ratio. Schemes and probes that are not given are those
    of ``present``.
    """
    schemes: tuple[Scheme, ...] | None
    if wanted.spec is not None:
        given = [name for name in Tune.__struct_fields__ if name not in ("spec", "goal_values", "max_cpu")]
        if any(getattr(wanted, name) is not None for name in given):
            raise RequestError("says everything; give no other parameters beside it", where="spec")
        new = _from_spec(wanted.spec, asked, primitive)
        intervals, nr_regions, schemes = new.intervals, new.nr_regions, new.schemes
        probes = new.probes or present.probes
    else:
        intervals = _intervals(wanted, present.intervals, asked.intervals)
        nr_regions = NrRegions(
            min=asked.nr_regions.min if wanted.min_regions is None else wanted.min_regions,
            max=asked.nr_regions.max if wanted.max_regions is None else wanted.max_regions,
        )
        schemes = None if wanted.schemes is None else read(wanted.schemes, tuple[Scheme, ...], "schemes")
        probes = present.probes if wanted.probes is None else read(wanted.probes, tuple[Probe, ...], "probes")
    validate_attrs(intervals, nr_regions)
    validate_probes(probes, ops=asked.ops, window=max_nr_accesses(intervals.sample_us, intervals.aggr_us))
    if attributes_only(probes) and intervals.intervals_goal is not None:
        if wanted.intervals == "auto":
            text = "cannot be tuned where probes have weights: that goes by accesses, which are not looked for then"
            raise RequestError(text, where="intervals.intervals_goal")
        intervals = msgspec.structs.replace(intervals, intervals_goal=None)
    if schemes is not None:
        validate_schemes(schemes, ops=asked.ops, nr_targets=nr_targets)
    for name, value in wanted.goal_values.items():
        if not 0 <= value <= U64_MAX:
            raise RequestError(f"is {value}; it must be 0 to {U64_MAX}", where=f"goal {name}")
    if schemes is None:
        schemes = present.schemes
    elif wanted.goal_values:
        schemes = with_goal_values(schemes, wanted.goal_values)
    return msgspec.structs.replace(present, intervals=intervals, nr_regions=nr_regions, schemes=schemes, probes=probes)


def _intervals(wanted: Tune, present: Intervals, asked: Intervals) -> Intervals:
    goal = None if has_default_goal(asked) else asked.intervals_goal  # one that was said outlives said intervals
    if wanted.intervals is not None:
        goal = None if wanted.intervals == "fixed" else goal or IntervalsGoal()
    elif wanted.sample_us is None and wanted.aggr_us is None:
        goal = present.intervals_goal  # the bound on the CPU share may have narrowed it
    window = max_nr_accesses(present.sample_us, present.aggr_us)
    sample_us, aggr_us = wanted.sample_us, wanted.aggr_us
    if sample_us is None:
        sample_us = present.sample_us if aggr_us is None else max(aggr_us // window, 1)
    if aggr_us is None:
        aggr_us = present.aggr_us if wanted.sample_us is None else sample_us * window
    update_us = present.ops_update_us if wanted.update_us is None else wanted.update_us
    return Intervals(sample_us=sample_us, aggr_us=aggr_us, ops_update_us=update_us, intervals_goal=goal)


def _from_spec(data: dict[str, Any], asked: Context, primitive: str) -> Context:
    spec = expand(filled(read(data, Spec)))
    validate(spec)
    if len(spec.kdamonds) != 1:
        raise RequestError(f"has {len(spec.kdamonds)} entries; this is one kdamond", where="kdamonds")
    context = spec.kdamonds[0].contexts[0]
    if context.ops != asked.ops:
        raise RequestError(f"is {context.ops}, not {asked.ops} as it runs; {_RESTART}", where=f"{_HERE}.ops")
    if context.primitive not in ("auto", asked.primitive, primitive):
        raise RequestError(
            f"is {context.primitive}, not {primitive} as it runs; {_RESTART}", where=f"{_HERE}.primitive"
        )
    if context.faithful != asked.faithful:
        raise RequestError(f"is {str(context.faithful).lower()}; it {_RESTART}", where=f"{_HERE}.faithful")
    if context.targets and context.targets != asked.targets:
        raise RequestError(f"are not those that are monitored; {_RESTART}", where=f"{_HERE}.targets")
    return context


def with_goal_values(schemes: tuple[Scheme, ...], values: dict[str, int]) -> tuple[Scheme, ...]:
    """The schemes with the user's measurements in their goals, found by name or by ``scheme.goal`` numbers."""
    changed, found, known = [], set(), []
    for s, scheme in enumerate(schemes):
        goals = []
        for g, goal in enumerate(scheme.quotas.goals):
            if goal.metric == "user_input":
                known.append(goal.name or f"{s}.{g}")
                for name in values.keys() & {goal.name, f"{s}.{g}"}:
                    found.add(name)
                    goal = msgspec.structs.replace(goal, current_value=values[name])
            goals.append(goal)
        quotas = msgspec.structs.replace(scheme.quotas, goals=tuple(goals))
        changed.append(msgspec.structs.replace(scheme, quotas=quotas))
    for name in values.keys() - found:
        hint = f"there are: {', '.join(known)}" if known else "no scheme has a goal of the metric user_input"
        raise RequestError(f"there is no such goal; {hint}", where=f"goal {name}")
    return tuple(changed)
