"""The memory of a cgroup, of all its targets together: what a row of the data set says of it.

Processes of a container count what they share once, where a panel tells. Others are added up, and their errors as those
of independent draws. Of a process that is younger than a window all is taken for used, if another of the cgroup tells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from pydamon.dataset.schema import AGES_S, WINDOWS_S
from pydamon.service.shipping.labels import label
from pydamon.views.live import Container, Live, Memory, Target, Used

REST = "(rest)"  # the cgroup that stands for those beyond the most
_UNIT = re.compile(r"(.+)\.(?:service|scope|slice)")


class Held(NamedTuple):
    """A target of a monitor that counts for a cgroup."""

    monitor: str
    target: Target


class Group(msgspec.Struct):
    """A cgroup, or what has none: by its name as it is shipped. ``path``: of the cgroup, None where there is none."""

    name: str
    path: str | None
    held: list[Held] = []
    container: Container | None = None  # if its targets are those of the group

    @property
    def resident(self) -> int:
        """Bytes; what is shared counts once where that is known."""
        if self.container is not None:
            return self.container.resident_bytes
        return sum(one.target.resident_bytes for one in self.held)


def groups(views: Iterable[tuple[str, Live]], most: int) -> tuple[list[Group], int]:
    """By cgroup, the largest first, and how many were put together as `REST`.

    A process that several monitors watch counts once, for the first of them that has a panel of it, or else the first.
    """
    found: dict[str, Group] = {}
    containers: dict[tuple[str, tuple[int, ...]], Container] = {}
    for monitor, target in _once(views, containers):
        path = target.cgroup if target.pid is not None else None
        name = label(path or (target.command if target.pid is not None else None) or monitor)
        if name not in found:
            found[name] = Group(name, path, [])
        found[name].held.append(Held(monitor, target))
    ordered = sorted(found.values(), key=lambda one: (-one.resident, one.name))
    for group in ordered:
        numbers = tuple(one.target.target for one in group.held)
        group.container = containers.get((group.held[0].monitor, numbers))
    if len(ordered) <= most:
        return ordered, 0
    rest = Group(REST, None, [one for group in ordered[most - 1 :] for one in group.held])
    return [*ordered[: most - 1], rest], len(ordered) - most + 1


def _once(
    views: Iterable[tuple[str, Live]], containers: dict[tuple[str, tuple[int, ...]], Container]
) -> list[tuple[str, Target]]:
    """The targets, each process once; fills ``containers`` by monitor and the numbers of their targets."""
    found: dict[Any, tuple[str, Target]] = {}
    for monitor, view in views:
        for container in view.containers:
            containers[monitor, tuple(container.targets)] = container
        for target in view.targets:
            key = (monitor, target.target) if target.pid is None else target.pid
            if key not in found or (found[key][1].by != "panel" and target.by == "panel"):
                found[key] = (monitor, target)
    return list(found.values())


# -- a row ------------------------------------------------------------------------------------------------------------


def memory(group: Group) -> dict[str, int | None]:
    """The columns about memory: resident, ``cold_…`` and ``used_…``."""
    resident = group.resident
    row: dict[str, int | None] = {"resident": resident}
    held: Sequence[Memory] = [group.container] if group.container is not None else [one.target for one in group.held]
    used = _added(held)
    least = resident
    for age_s in AGES_S:
        one = used.get(age_s)
        if one is not None:
            least = max(min(resident - one.bytes, least), 0)
        row[f"cold_{age_s}s"] = None if one is None else least
    for window_s in WINDOWS_S:
        one = used.get(window_s)
        row[f"used_{window_s}s"] = None if one is None else one.bytes
        row[f"used_{window_s}s_low"] = None if one is None else one.low_bytes
        row[f"used_{window_s}s_high"] = None if one is None else one.high_bytes
    return row


def _added(held: Sequence[Memory]) -> dict[int, Used]:
    """What was used within each window that at least one tells of."""
    if len(held) == 1:
        return {one.window_s: one for one in held[0].used}
    told = [{one.window_s: one for one in each.used} for each in held]
    windows = sorted({window_s for each in told for window_s in each})
    return {window_s: _sum(window_s, held, told) for window_s in windows}


def _sum(window_s: int, held: Sequence[Memory], told: Sequence[dict[int, Used]]) -> Used:
    size, below, above, is_known = 0, 0.0, 0.0, True
    for each, windows in zip(held, told, strict=True):
        one = windows.get(window_s)
        if one is None:
            size += each.resident_bytes
            continue
        size += one.bytes
        if one.low_bytes is None or one.high_bytes is None:
            is_known = False
        else:
            below = math.hypot(below, one.bytes - one.low_bytes)
            above = math.hypot(above, one.high_bytes - one.bytes)
    if not is_known:
        return Used(window_s=window_s, bytes=size)
    return Used(
        window_s=window_s,
        bytes=size,
        low_bytes=max(math.floor(size - below), 0),
        high_bytes=math.ceil(size + above),
    )


def labels(group: Group) -> dict[str, str | None]:
    """``cgroup``, ``pod`` and ``service``."""
    target = group.held[0].target if group.name != REST else None
    pod = service = None
    if target is not None and target.container_id is not None:
        pod = f"{target.namespace}/{target.pod}" if target.namespace and target.pod else target.pod_uid
        service = target.container or target.container_id[:12]
    elif group.path is not None:
        units = [found[1] for part in group.path.split("/") if (found := _UNIT.fullmatch(part)) is not None]
        service = units[-1] if units else None
    return {
        "cgroup": group.name,
        "pod": None if pod is None else label(pod),
        "service": None if service is None else label(service),
    }


def shares(amount: int, weights: Sequence[int]) -> list[int]:
    """The amount in whole parts in proportion to the weights: they add up to it."""
    total = sum(weights)
    if not total:
        return [amount, *[0] * (len(weights) - 1)] if weights else []
    found, given, sum_ = [], 0, 0
    for weight in weights:
        sum_ += weight
        upto = amount * sum_ // total
        found.append(upto - given)
        given = upto
    return found
