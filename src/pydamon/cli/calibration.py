"""What ``calibrate`` prints and writes."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from pydamon.cli.render.output import OPTION
from pydamon.cli.render.palette import BOLD, DIM, styled
from pydamon.cli.render.screen import Screen
from pydamon.cli.render.table import table
from pydamon.errors import RequestError
from pydamon.linux.outputs import Place
from pydamon.plain import json_text, printable
from pydamon.run.calibration.calibrate import Calibration
from pydamon.spec.costs import TABLE, Costs
from pydamon.spec.units import format_duration_ns, format_size


def check_output(path: str, force: bool) -> None:
    """Raise RequestError if the file cannot be written there, or is there already."""
    if path == "-":
        return
    with Place(path, OPTION) as place:
        if place.found is not None and not place.is_stream and not force:
            raise RequestError(f"{path} is there already; --force replaces it", where=OPTION)


def text(found: Calibration, screen: Screen) -> list[str]:
    """Lines: where and how, what was measured beside the defaults, what was not and why."""
    lines = [styled(screen.fit(f"{printable(found.machine)}, measured"), BOLD, screen)]
    took = f"{format_duration_ns(found.took_ns)}, on {format_size(found.memory)} of memory and a file in "
    lines.append(styled(screen.fit(f"{took}{printable(found.directory)}"), DIM, screen))
    usual = Costs()
    rows = []
    for row in TABLE:
        if one := found.measured.get(row.name):
            spread = f"{one.low:,} - {one.high:,}"
            rows.append(
                [row.name, f"{one.value:,}", spread, str(one.samples), f"{getattr(usual, row.name):,}", row.help]
            )
    headings = ["cost", "median", "10 % - 90 %", "of", "default", ""]
    lines += table(headings, rows, screen, words=True)
    lines += ["", "not measured, so that the default stays:"]
    lines += [screen.fit(f"  {', '.join(names)}: {printable(why)}") for why, names in _reasons(found).items()]
    return lines


def _reasons(found: Calibration) -> dict[str, list[str]]:
    """The costs that were not measured, by why."""
    reasons: dict[str, list[str]] = {}
    for name, why in found.left.items():
        reasons.setdefault(why, []).append(name)
    return reasons


def as_object(found: Calibration) -> dict[str, Any]:
    """For JSON: a cost file has a part of it."""
    usual = Costs()
    costs = {name: msgspec.to_builtins(one) | {"default": getattr(usual, name)} for name, one in found.measured.items()}
    left = {name: {"default": getattr(usual, name), "why": why} for name, why in found.left.items()}
    where = {"memory_bytes": found.memory, "directory": found.directory, "seconds": found.took_ns / 1e9}
    return {"machine": found.machine, **where, "costs": costs, "not_measured": left}


def as_file(found: Calibration, path: str) -> str:
    """A cost file: what was measured; what was not is a remark, where there can be one."""
    costs = {name: msgspec.to_builtins(one) for name, one in found.measured.items()}
    if os.path.splitext(path)[1] == ".json":
        return json_text({"machine": found.machine, "costs": costs}, indent=1) + "\n"
    lines = ["# What things cost on one machine, as pydamon calibrate has measured it: docs/calibrate.md."]
    lines += ["# Each: the median, the 10th and the 90th percentile, and of how many measurements."]
    lines += [f"machine: {json_text(found.machine)}", "costs:"]
    for name, one in costs.items():
        lines.append(f"  {name}: {{{', '.join(f'{key}: {value}' for key, value in one.items())}}}")
    lines += ["# Not measured, so that the default stays:"]
    for why, names in _reasons(found).items():
        lines += [f"#   {', '.join(names)}: {printable(why)}"]
    return "\n".join(lines) + "\n"
