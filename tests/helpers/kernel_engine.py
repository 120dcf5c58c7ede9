"""The engine ``kernel`` in tests of the guest: specs of processes, and the first snapshots of a run."""

from __future__ import annotations

from typing import Any

from pydamon.engines.kernel.engine import KernelEngine
from pydamon.spec import Spec, from_builtins


def spec_of(pids: list[int], ops: str = "vaddr", **context: Any) -> Spec:
    targets = [{"pid": pid} for pid in pids] or [{}]
    return from_builtins({"kdamonds": [{"contexts": [{"ops": ops, "targets": targets, **context}]}]})


def run(engine: KernelEngine, snapshots: int, seconds: float = 60) -> list[Any]:
    """The first so many snapshots of target 0, at most for so long."""
    engine.end_ns = engine.clock.now_ns() + int(seconds * 1e9)
    found = []
    for group in engine.monitor():
        found.append(group[0])
        if len(found) >= snapshots:
            engine.stop()
    return found
