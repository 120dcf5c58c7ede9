"""Under which headings the options of a verb stand, by the names of their parameters; the rest are its own."""

from __future__ import annotations

import click

_MONITORING_VERBS = ("record", "start", "trace")
_MONITORING = {
    "What is monitored": ("include_children", "cgroup", "ops", "regions", "access"),
    "The record": ("output", "rotate", "keep"),
    "How long, how often": ("duration", "sample", "aggr", "update", "intervals"),
    "Cost and detail": ("max_cpu", "min_regions", "max_regions", "panel"),
    "How it is asked": ("engine", "primitive", "faithful", "resctrl", "seed"),
    "Schemes": ("schemes", "scheme", "modules", "dry_run", "undo", "probes"),
    "With --ops sim": ("workload", "mapping"),
    "With --ops reported": ("source", "threads", "cpus", "nodes"),
}
_READING = {
    "Which part of the record": ("path", "target", "all_targets", "from_ns", "to_ns"),
    "Which memory": ("addresses", "whole_ranges"),
    "Output": ("output", "as_json", "mode"),
}
_OWN = "Options"
Rows = list[tuple[str, str]]


def grouped(command: click.Command, ctx: click.Context, words: tuple[str, ...]) -> list[tuple[str, Rows]]:
    """(heading, rows) of its options, in the order in which they are defined; own ones first, ``--help`` last."""
    table = _MONITORING if words and words[0] in _MONITORING_VERBS and len(words) == 1 else _READING
    heading = {name: title for title, names in table.items() for name in names}
    found: dict[str, Rows] = {_OWN: [], **{title: [] for title in table}}
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is not None and isinstance(param, click.Option):
            found[heading.get(param.name or "", _OWN)].append(record)
    own = found.pop(_OWN)
    groups = [(title, rows) for title, rows in found.items() if rows]
    return [*groups, (_OWN, own)] if len(own) == 1 else [(_OWN, own), *groups]
