"""A service file (``pydamon service FILE``) of the policies that were found: a monitor for each service."""

from __future__ import annotations

import os
import re

import yaml

from pydamon.errors import RequestError
from pydamon.fleet.policies import Found, Policy
from pydamon.modules.registry import MODULES
from pydamon.plain import printable
from pydamon.service.declared.file import understand

_WILD = frozenset("*?[")
_LONGEST_NAME = 40


def service_file(found: Found, path: str) -> tuple[str, list[str]]:
    """The text of the file, and what is not in it, a line each. Raises RequestError where nothing is in it.

    The text is read as `pydamon service` would read it, as the file ``path``, before it is given.
    """
    monitors, remarks = _monitors(found)
    if not monitors:
        raise RequestError("no service has a setting that could be written: " + "; ".join(remarks), where="-o")
    lines = [
        "# Written by pydamon fleet policy: one setting for each service, for pydamon service FILE.",
        f"# Searched: {printable(found.question.text)}; limits: {', '.join(map(printable, found.question.limits))}, on",
        f"# {found.question.share:.0%} of the recordings of a service. dry_run: true in a monitor only counts.",
        "monitors:",
    ]
    for policy, monitor in monitors:
        low, high = policy.share
        lines.append(
            f"  # {policy.recordings} recordings, {policy.hours:.3g} h: saves {policy.saved / (1 << 20):,.0f} MiB of "
            f"{policy.memory / (1 << 20):,.0f}, within the limits on {policy.within} ({low:.0%} to {high:.0%})"
        )
        written = yaml.safe_dump([monitor], sort_keys=False, allow_unicode=False, width=1000)
        lines += [f"  {line}" for line in written.splitlines()]
    text = "\n".join(lines) + "\n"
    understand(text.encode(), os.path.abspath(path))
    return text, remarks


def _monitors(found: Found) -> tuple[list[tuple[Policy, dict[str, object]]], list[str]]:
    monitors: list[tuple[Policy, dict[str, object]]] = []
    remarks: list[str] = []
    taken: set[str] = set()
    names: set[str] = set()
    for policy in found.policies:
        shown = printable(policy.service)
        if policy.text is None:
            remarks.append(f"{shown} is not in the file: no setting keeps within the limits")
            continue
        known = {command for command in policy.commands if not _WILD & set(command)}
        if not known:
            remarks.append(f"{shown} is not in the file: its recordings name no program")
            continue
        if known & taken:
            both = printable(", ".join(sorted(known & taken)))
            remarks.append(f"{shown} is not in the file: what it runs ({both}) has a setting by another service's name")
            continue
        taken |= known
        names.add(name := _name(policy.service, names))
        kind = "modules" if policy.text.split()[0] in MODULES else "schemes"
        monitors.append((policy, {"name": name, "match": {"name": sorted(known)}, kind: [policy.text]}))
    return monitors, remarks


def _name(service: str, taken: set[str]) -> str:
    """A name for a monitor: letters, digits and dashes of the service's, with a number where it is taken."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", service).strip("-")[:_LONGEST_NAME] or "service"
    names = [plain, *(f"{plain}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)
