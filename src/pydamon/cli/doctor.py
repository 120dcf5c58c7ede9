"""``pydamon doctor``: what this machine offers this user."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

import click

_DAMON = Path("/sys/kernel/mm/damon/admin/kdamonds")


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Show which engines and primitives can be used here, and why not the others.

    Nothing is changed on the machine: files are looked at, and a program that walks this process's own page tables may
    be loaded and removed again.
    """
    found = examine()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"machine: Linux {found['kernel']} {found['machine']}, user {found['user']} (uid {found['uid']})")
    for kind in ("engines", "primitives", "sources"):
        click.echo(f"{kind}:")
        for item in found[kind]:
            mark = "yes" if item["usable"] else "no "
            click.echo(f"  {mark}  {item['name']:<11} {item['what']}")
            if item["reason"]:
                click.echo(f"{'':19}{item['reason']}")
    click.echo(f"--primitive auto picks: {found['auto']['primitive'] or 'none'} ({found['auto']['reason']})")


def examine() -> dict[str, Any]:
    """The findings as plain data; the shape of ``doctor --json``."""
    from pydamon.engines.choose import choose, offers
    from pydamon.errors import MachineError
    from pydamon.ops.sources import valgrind

    primitives = [
        {"name": o.name, "usable": o.obstacle is None, "what": o.what, "reason": o.obstacle} for o in offers()
    ]
    try:
        choice = choose("auto")
        auto: dict[str, Any] = {"primitive": choice.name, "reason": choice.reason}
    except MachineError as error:
        auto = {"primitive": None, "reason": str(error)}
    usable = auto["primitive"] is not None
    engines = [
        {
            "name": "user",
            "usable": usable,
            "what": "pydamon's own monitoring in user space, through a primitive below",
            "reason": None if usable else auto["reason"],
        },
        {
            "name": "kernel",
            "usable": False,
            "what": "the kernel's own DAMON",
            "reason": f"pydamon does not drive it yet; {kernel_damon()}",
        },
        {"name": "sim", "usable": True, "what": "simulated workloads in virtual time", "reason": None},
    ]
    sources = [
        {
            "name": "valgrind",
            "usable": False,
            "what": "every access of a launched command, exactly, in instruction time",
        },
        {"name": "perf-script", "usable": True, "what": "address samples as perf script prints them", "reason": None},
    ]
    try:
        valgrind.probe()
        sources[0] |= {"usable": True, "reason": None}
    except MachineError as error:
        sources[0]["reason"] = error.message
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "uid": os.geteuid(),
        "user": _user_name(),
        "engines": engines,
        "primitives": primitives,
        "sources": sources,
        "auto": auto,
    }


def kernel_damon(root: Path = _DAMON) -> str:
    """One line about the kernel's DAMON, from reading only: whether it exists and what runs on it."""
    try:
        count = int((root / "nr_kdamonds").read_text())
        running = []
        for index in range(min(count, 64)):
            if (root / str(index) / "state").read_text().strip() == "on":
                running.append(f"kdamond {index} (pid {(root / str(index) / 'pid').read_text().strip()})")
    except FileNotFoundError:
        return "this kernel has none (CONFIG_DAMON_SYSFS)"
    except PermissionError:
        return "this kernel has it; only root may look at it"
    except (OSError, ValueError):
        return "this kernel has it; its state could not be read"
    if running:
        return f"this kernel has it, in use by somebody else: {', '.join(running)}"
    return "this kernel has it, not running"


def _user_name() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
