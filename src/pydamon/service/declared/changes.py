"""What a changed file means for a kdamond that runs: nothing, other parameters, or a new start."""

from __future__ import annotations

from typing import Any

import msgspec

from pydamon.errors import MachineError
from pydamon.modules.registry import expand, target_of, uses
from pydamon.run.modules import filled
from pydamon.service.declared.file import Monitor
from pydamon.service.protocol import Tune
from pydamon.spec import Context
from pydamon.spec.forms.scheme_files import to_builtins


def change(before: Monitor, after: Monitor) -> Tune | None:
    """What makes the kdamond of ``before`` one of ``after`` while it runs; None if it must be started anew.

    A `Tune` without anything in it: the kdamond is as it should be.
    """
    old, new = _expanded(before), _expanded(after)
    if _fixed(before, old) != _fixed(after, new):
        return None
    if before.request.max_cpu != after.request.max_cpu and after.request.max_cpu is None:
        return None
    tune: dict[str, Any] = {}
    if old.intervals != new.intervals:
        intervals = new.intervals
        tune |= {
            "sample_us": intervals.sample_us,
            "aggr_us": intervals.aggr_us,
            "update_us": intervals.ops_update_us,
            "intervals": "fixed" if intervals.intervals_goal is None else "auto",
        }
    if old.nr_regions != new.nr_regions:
        tune |= {"min_regions": new.nr_regions.min, "max_regions": new.nr_regions.max}
    if old.schemes != new.schemes:
        tune["schemes"] = [to_builtins(scheme) for scheme in new.schemes]
    if old.probes != new.probes:
        tune["probes"] = [msgspec.to_builtins(probe) for probe in new.probes]
    if before.request.max_cpu != after.request.max_cpu:
        tune["max_cpu"] = after.request.max_cpu
    return Tune(**tune)


def _expanded(monitor: Monitor) -> Context:
    """With the schemes of its modules; those for which this machine has nothing have none."""
    try:
        return expand(filled(monitor.spec)).context
    except MachineError:
        return expand(monitor.spec).context


def _fixed(monitor: Monitor, context: Context) -> object:
    """What cannot be changed while it runs."""
    request = msgspec.structs.replace(monitor.request, max_cpu=None, usual_cpu=None)
    where = None if monitor.recording is None else (monitor.recording.directory, monitor.recording.rotate)
    targets = context.ops, context.primitive, context.targets, context.faithful
    return request, where, targets, monitor.modules, _loops(monitor)


def _loops(monitor: Monitor) -> list[str]:
    """The modules that are a loop, with their knobs: those are no part of its schemes."""
    target = target_of(monitor.spec.context)
    return [use.write() for use in uses(monitor.spec) if use.controllers(target)]
