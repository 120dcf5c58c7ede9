"""A real workload process, monitored by an engine in this process: shared by the benchmarks and the truth tests."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Engine
from pydamon.engines.user.engine import UserEngine
from pydamon.run.open import open_engine
from pydamon.run.request import Request
from pydamon.run.signals import Waker
from pydamon.spec import Spec, from_builtins
from pydamon.workload.truth import GroundTruth, from_events


@dataclass(frozen=True)
class Run:
    """What monitoring yielded, what was true, and what it cost."""

    snapshots: list[Snapshot]
    truth: GroundTruth
    cpu_share: float
    disturbed: float
    sample_us: int

    @property
    def window(self) -> tuple[int, int]:
        """Where the workload's regions lie: the part of the process whose pattern is known."""
        places = self.truth.layout.regions
        return min(p.start for p in places), max(p.end for p in places)


def make_spec(pid: int, primitive: str, **context: object) -> Spec:
    """A vaddr spec for one process."""
    fields = {"ops": "vaddr", "primitive": primitive, "targets": [{"pid": pid}], **context}
    return from_builtins({"kdamonds": [{"contexts": [fields]}]})


# `pydamon workload` has all pages in memory before it begins; this has those that it has used.
UNPOPULATED = """\
import sys
from pydamon.workload import memory
memory._populate = lambda start, end: None
from pydamon.cli import main
sys.exit(main())
"""


def opened(spec: Spec, **how: Any) -> Engine:
    """The engine for ``spec``; ``how`` are fields of a `Request`."""
    return open_engine(spec, Request(**how), waker=Waker()).engine


def monitor_workload(
    workload: str,
    primitive: str,
    *,
    mapping: str = "separate",
    time_scale: float = 1.0,
    seed: int = 1,
    populate: bool = True,
    adjust: Callable[[UserEngine], None] | None = None,
    **context: object,
) -> Run:
    """Start the workload, monitor it until it ends. Without ``intervals`` it is asked every 5 ms.

    ``adjust`` may change the engine before it begins; without ``populate`` only pages that are used are in memory.
    """
    with tempfile.TemporaryFile("w+") as events:
        program = ["-m", "pydamon"] if populate else ["-c", UNPOPULATED]
        command = [sys.executable, *program, "workload", workload, "--json", "--mapping", mapping]
        process = subprocess.Popen([*command, "--time-scale", str(time_scale)], stdout=events)
        try:
            while process.poll() is None and not events.tell():
                time.sleep(0.005)
                events.seek(0, 2)
            began, cpu_began = time.monotonic(), time.process_time()
            spec = make_spec(process.pid, primitive, **context)
            engine = opened(spec, seed=seed)
            if adjust is not None:
                adjust(cast(UserEngine, engine))
            snapshots = [snapshots[0] for snapshots in engine.monitor()]
            elapsed, cpu = time.monotonic() - began, time.process_time() - cpu_began
        finally:
            process.terminate()
            process.wait()
        events.seek(0)
        truth = from_events(events)
    cost = engine.cost()
    assert cost is not None
    return Run(snapshots, truth, cpu / elapsed, cost.disturb_ns / 1e9 / elapsed, engine.context.intervals.sample_us)
