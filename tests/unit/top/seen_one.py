"""A store as it might be after some seconds of one process, or two: filled by hand, always the same."""

from __future__ import annotations

from typing import Any

import numpy as np

from pydamon.core.panel import BOUNDS_S
from pydamon.core.snapshot import Snapshot
from pydamon.linux.process import Mapping
from pydamon.run.found import Found, Origin
from pydamon.views.store import Store

SECOND = 1_000_000_000
MIB = 1 << 20
BEGAN = 1_790_000_000 * SECOND  # 2026-09-21 14:13:20 UTC
COMMAND = "/usr/bin/redis-server \x1b[31m[red]*:6379"
MAPPINGS = [
    Mapping(0, 64 * MIB, "rw-p", 0, 0, "[heap]"),
    Mapping(64 * MIB, 72 * MIB, "r--p", 0, 7, "/usr/lib/lib[b]evil\x1b]0;x\x07.so"),
    Mapping(80 * MIB, 112 * MIB, "rw-s", 0, 9, "/dev/shm/pool"),
]
SCHEME = {
    "scheme": 0, "name": "", "action": "pageout", "active": True, "nr_tried": 12, "sz_tried": 8 * MIB, "nr_applied": 9,
    "sz_applied": 5 * MIB, "sz_ops_filter_passed": 6 * MIB, "qt_exceeds": 2, "nr_snapshots": 7,
    "effective_bytes": 16 * MIB,
}  # fmt: skip

METADATA: dict[str, Any] = {
    "targets": [{"target": 0, "pid": 4000, "command": "x"}],
    "ops": "vaddr",
    "primitive": "bpf",
    "wall_offset_ns": 0,
}


def snapshot(target: int, at_ns: int) -> Snapshot:
    """The heap is always used at its beginning, then now and then, then never; the library was used just now."""
    edges = np.array([0, 16, 32, 64, 72, 80, 112], np.uint64) * np.uint64(MIB)
    return Snapshot(
        target, at_ns - SECOND, at_ns, 50_000, SECOND // 1000, edges[:-1], edges[1:],
        np.array([20, 5, 0, 0, 0, 0], np.uint32), np.array([3, 1, 40, 4, 40, 90], np.uint32),
        resident=np.array([16, 12, 20, 8, 0, 32], np.uint64) * np.uint64(MIB),
        unknown=np.array([0, 0, 0, 0, 0, 20], np.uint32),
    )  # fmt: skip


def look(target: int, at_ns: int, used: int, second: int) -> dict[str, Any]:
    """Of 1,000 pages so many were used within 2 s, and the rest was not seen used since the beginning."""
    idle, unseen = [0] * len(BOUNDS_S), [0] * len(BOUNDS_S)
    idle[1] = used
    unseen[max(place for place, bound in enumerate(BOUNDS_S) if bound <= second)] = 1000 - used
    return {
        "time_ns": at_ns, "target": target, "resident_bytes": 88 * MIB, "pages": 1000, "unknown": 0, "idle": idle,
        "unseen": unseen, "ended": [0] * len(BOUNDS_S),
    }  # fmt: skip


def store(seconds: int, *targets: int, panel: bool = True, schemes: int = 1) -> Store:
    """So many seconds, a moment in each."""
    kept = Store()
    rows = [{"target": one, "pid": 4000 + one, "command": COMMAND} for one in targets]
    kept.begin(Origin("user", "none other", "vaddr", "bpf", "the best", rows, BEGAN))
    for second in range(1, seconds + 1):
        note(kept, second, *targets, panel=panel, schemes=schemes)
    return kept


def note(kept: Store, second: int, *targets: int, panel: bool = True, schemes: int = 1) -> None:
    """What is found in one of them."""
    at_ns = second * SECOND
    used = 200 + 10 * (second % 30)
    kept.note(
        Found(
            at_ns,
            [snapshot(one, at_ns) for one in targets],
            dict.fromkeys(targets, MAPPINGS),
            {
                "panel": [look(one, at_ns, used, second) for one in targets] if panel else [],
                "schemes": [{**SCHEME, "scheme": n, "time_ns": at_ns} for n in range(schemes)],
                "cost": [
                    {
                        "time_ns": at_ns, "cpu_ns": second * 31_000_000, "checks": second, "check_ns": second,
                        "clears": second, "clear_ns": second, "disturb_ns": second * 2_000_000,
                    }
                ],
            },
            True,
        )
    )  # fmt: skip
