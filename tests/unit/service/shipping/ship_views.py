"""Views of monitors for tests of shipping."""

from __future__ import annotations

from typing import Any

from pydamon.service.shipping.rows import Seen
from pydamon.views.live import WINDOWS_S, Container, Cost, Live, Scheme, Sum, Target, Used

MIB = 1 << 20


def used(*sizes: int, error: int | None = 2) -> list[Used]:
    """Of the shortest windows, as many as there are sizes."""
    bounds: list[dict[str, int]] = [
        {} if error is None else {"low_bytes": max(size - error, 0), "high_bytes": size + error} for size in sizes
    ]
    return [
        Used(window_s=window_s, bytes=size, **more)
        for window_s, size, more in zip(WINDOWS_S, sizes, bounds, strict=False)
    ]


def target(number: int, *, pid: int | None = None, resident: int = 100 * MIB, **more: Any) -> Target:
    """A target; of a process with the number + 1000, unless it is said."""
    given: dict[str, Any] = {
        "command": "program", "cgroup": None, "container_id": None, "pod_uid": None, "namespace": None, "pod": None,
        "container": None, "needed_bytes": 0, "working_set_bytes": 0, "by": "panel", "used": used(MIB), "kinds": [],
        "rss_bytes": None, "swap_bytes": None, "regions": 10, "aggr_us": 100_000, "mappings": [],
    }  # fmt: skip
    return Target(
        target=number, pid=1000 + number if pid is None else pid, resident_bytes=resident, **(given | more)
    )  # fmt: skip


def container(targets: list[int], **more: Any) -> Container:
    """A container with these targets."""
    given: dict[str, Any] = {
        "id": "c" * 64, "pod_uid": None, "namespace": "ns", "pod": "pod", "container": "app", "needed_bytes": 0,
        "working_set_bytes": 0, "by": "panel", "used": [], "kinds": [], "once": True, "resident_bytes": 0,
    }  # fmt: skip
    return Container(targets=targets, **(given | more))


def scheme(action: str, applied: int, number: int = 0, name: str = "") -> Scheme:
    """A scheme that has done so much."""
    return Scheme(
        number=number, name=name, action=action, active=True, stats={"sz_applied_bytes": applied}, effective_bytes=None
    )


def view(
    time_s: float, *targets: Target, containers: list[Container] | None = None, cpu_ns: int = 0, **more: Any
) -> Live:
    """What a monitor tells at a time."""
    total = Sum(
        resident_bytes=0, needed_bytes=0, working_set_bytes=0, by="panel", used=[], kinds=[], once=True
    )  # fmt: skip
    cost = Cost(cpu_ns=cpu_ns, checks=0, check_ns=0, clears=0, clear_ns=0, disturb_ns=0)
    given: dict[str, Any] = {
        "time_unix_ns": None, "elapsed_ns": int(time_s * 1e9), "engine": "user", "engine_reason": None,
        "ops": "vaddr", "primitive": "bpf", "primitive_reason": None, "schemes": [],
    }  # fmt: skip
    return Live(
        time_ns=int(time_s * 1e9), targets=list(targets), total=total, containers=containers or [], cost=cost,
        **(given | more),
    )  # fmt: skip


def seen(name: str, told: Live, *, pid: int = 1, **more: Any) -> Seen:
    """A monitor and what it tells."""
    return Seen(name, pid, told, **more)
