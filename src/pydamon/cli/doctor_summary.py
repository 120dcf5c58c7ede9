"""The first five lines of ``pydamon doctor``: what most people want to know, made of its findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydamon.spec.primitives import facts
from pydamon.version import __version__


def summary(found: dict[str, Any]) -> list[str]:
    """Five lines of what ``doctor --json`` prints."""
    user = f"user {found['user']} (uid {found['uid']})"
    return [
        f"pydamon {__version__} on Linux {found['kernel']} {found['machine']}, {user}",
        f"monitors: {_monitors(found)}",
        f"schemes: {_schemes(found)}",
        f"the kernel's DAMON: {_kernel(found)}",
        f"would help: {_would_help(found)}",
    ]


def _monitors(found: dict[str, Any]) -> str:
    name = found["auto"]["primitive"]
    if name is None:
        return f"no process: {found['auto']['reason']}; simulations and traces only"
    fine = not facts(name).walks_all
    detail = "single pages, for 3% of a CPU at most" if fine else "whole mappings, disturbed for 5% of the time at most"
    whose = "any process" if found["uid"] == 0 else "processes of yours"
    physical = "" if _usable(found, "ops", "paddr") else "; not physical memory"
    return f"{whose}, through {name} ({detail}){physical}"


def _schemes(found: dict[str, Any]) -> str:
    can, cannot = [], []
    for item in found["actions"]:
        if not item["usable"]:
            cannot.append(item["name"])
        elif item["name"] == "pageout" and item.get("remark"):
            can.append("pageout (of files: no swap)")
        else:
            can.append(item["name"])
    text = ", ".join(can) if can else "none can act here"
    return f"{text}; not {', '.join(cannot)}" if cannot else text


def _kernel(found: dict[str, Any]) -> str:
    (item,) = (each for each in found["engines"] if each["name"] == "kernel")
    if item["usable"]:
        return "can be used: --engine kernel"
    return str(item["reason"]).partition(":")[0]


def _would_help(found: dict[str, Any]) -> str:
    name = found["auto"]["primitive"]
    if name is None or facts(name).walks_all:
        better = _reason(found["primitives"], "bpf")
        if found["uid"] != 0:
            return f"root, to see single pages and others' processes: sudo pydamon … ({better})"
        return f"what lets single pages be seen: {better}"
    if _pageout_without_swap(found["actions"]):
        return "swap or zram, if schemes are to page out anonymous memory"
    return "nothing that monitoring needs; below is all that there is"


def _pageout_without_swap(actions: Iterable[dict[str, Any]]) -> bool:
    return any(item["name"] == "pageout" and item["usable"] and item.get("remark") for item in actions)


def _usable(found: dict[str, Any], kind: str, name: str) -> bool:
    return any(item["name"] == name and item["usable"] for item in found[kind])


def _reason(items: Iterable[dict[str, Any]], name: str) -> str:
    return next((f"{name}: {item['reason']}" for item in items if item["name"] == name and item["reason"]), name)
