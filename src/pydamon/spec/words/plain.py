"""A spec in plain words."""

from __future__ import annotations

from pydamon.spec.model import Context, IntervalsGoal, Spec
from pydamon.spec.probes import attributes_only, describe_probe, event_of
from pydamon.spec.units import format_duration_ns, format_size

_OPS = {
    "vaddr": "the virtual address space of a process",
    "fvaddr": "fixed ranges of the virtual address space of a process",
    "paddr": "the physical memory of this machine",
    "sim": "a simulated process, in virtual time",
    "reported": "accesses that a source reports, in the source's time",
}


def explain(spec: Spec) -> list[str]:
    """Lines of text that say what the spec asks for, with units; no line is longer than it needs to be."""
    lines: list[str] = []
    for kdamond in spec.kdamonds:
        lines += _explain_context(kdamond.contexts[0])
    for module, parameters in spec.modules.items():
        lines.append(f"Let the kernel's module {module} run, with these parameters; the others are as it has them.")
        lines += [f"  {name}: {_plain(value)}" for name, value in parameters.items()]
    return lines


def _plain(value: int | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _explain_context(context: Context) -> list[str]:
    intervals, nr_regions = context.intervals, context.nr_regions
    samples = max(intervals.aggr_us // intervals.sample_us, 1)
    lines = [f"Monitor {_OPS[context.ops]} (ops {context.ops})."]
    for index, target in enumerate(context.targets):
        who = f"process {target.pid}" if target.pid is not None else "no process id yet"
        if target.match is not None:
            patterns = ", ".join((*target.match.names, *(f"the cgroups {each}" for each in target.match.cgroups)))
            who = f"at most {target.match.most} processes that match {patterns}, as they come and go"
        elif target.cgroup is not None:
            who = f"the processes in the cgroup {target.cgroup}, as they come and go"
        elif target.include_children:
            who += " and all that descend from it, as they come and go"
        if context.ops == "paddr":
            who = "all System RAM" if not target.regions else "System RAM within these ranges"
        elif context.ops == "sim":
            who = "simulated"
        elif context.ops == "reported":
            who = "reported"
        who += "; obsolete: to be taken out of what runs" if target.obsolete else ""
        lines.append(f"  Target {index}: {who}.")
        for region in target.regions:
            size = format_size(region.end - region.start)
            verb = "starts with " if context.ops == "vaddr" else ""
            lines.append(f"    {verb}{region.start:#x}-{region.end:#x} ({size}).")
    lines += [
        *_explain_checks(context, samples),
        f"Every {_time(intervals.ops_update_us)} (update interval), look for "
        + ("memory that was added or removed." if context.ops == "paddr" else "new and gone mappings."),
        *_explain_goal(intervals.intervals_goal),
        f"Keep between {nr_regions.min} and {nr_regions.max} regions: at most {nr_regions.max} pages are checked "
        f"per sampling interval, at most {nr_regions.max * 1_000_000 // intervals.sample_us:,} a second, "
        "however large the target is.",
    ]
    if context.ops == "paddr" and context.faithful:
        lines.append("Count free memory as any other, as the kernel's DAMON does (faithful).")
    elif context.ops in ("vaddr", "fvaddr", "sim"):
        lines.append(
            "Sample as the kernel's DAMON does: any page, regions across mappings (faithful)."
            if context.faithful
            else "Regions end where large mappings end, and resident pages are preferred where the machine tells which "
            "are; the kernel's DAMON does neither (faithful would not, either)."
        )
    if context.addr_unit != 1:
        lines.append(f"In the kernel's files an address stands for {context.addr_unit} bytes; a spec has bytes.")
    if context.pause:
        lines.append("Pause: after a first sample, sample nothing and apply no scheme until it is to go on.")
    for number, probe in enumerate(context.probes):
        marked = ", each marked as idle before the sampling interval" if probe.preps else ""
        weighs = f" Weight {probe.weight}." if attributes_only(context.probes) else ""
        counted = f"how many of the sampled pages{marked} are: {describe_probe(probe)}"
        if (event := event_of(probe)) is not None:
            counted = f"in how many samples the event {event} has seen an access in the region"
        lines.append(f"Probe {number}: count {counted}.{weighs}")
    if context.schemes:
        from pydamon.spec.words.explain import explain_schemes  # most specs have none

        lines += explain_schemes(context.schemes, intervals.aggr_us, faithful=context.faithful)
    return lines


def _explain_checks(context: Context, samples: int) -> list[str]:
    sample, aggregation = _time(context.intervals.sample_us), _time(context.intervals.aggr_us)
    if attributes_only(context.probes):
        return [
            f"Every {sample} (sampling interval), ask the probes about one random page of each region; accesses are "
            "not looked for.",
            f"Every {aggregation} (aggregation interval), report how many of the last {samples} samples each probe "
            "has hit, and for how long their weighted sum has been so (age); merge neighbours whose sums are similar, "
            "split the rest.",
        ]
    return [
        f"Every {sample} (sampling interval), check one random page of each region for an access since the check "
        "before.",
        f"Every {aggregation} (aggregation interval), report how many of the last {samples} checks found one "
        f"(nr_accesses, 0 to {samples}) and for how long that has been so (age); merge similar neighbours, split the "
        "rest.",
    ]


def _explain_goal(goal: IntervalsGoal | None) -> list[str]:
    if goal is None or not goal.access_bp:
        return []
    return [
        f"Every {goal.aggrs} aggregation intervals, tune the intervals so that {goal.access_bp / 100:g} % of the "
        f"possible access events are observed, with a sampling interval of {_time(goal.min_sample_us)} to "
        f"{_time(goal.max_sample_us)}; their ratio stays.",
    ]


def _time(value_us: int) -> str:
    return format_duration_ns(value_us * 1000)
