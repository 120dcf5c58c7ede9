"""How much of the memory that is hot lies on which NUMA nodes, now: of processes by some of their pages."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Engine
from pydamon.errors import MachineError, RequestError
from pydamon.linux import move_pages
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.process import Process
from pydamon.linux.texts import read_as_root
from pydamon.ops.base import Addresses
from pydamon.records.batch import RegionBatch
from pydamon.run.counters import machine_of
from pydamon.spans import bytes_of_nodes

_PAGE = np.uint64(4096)
_ASKED = 1024  # pages of a target


def hot_and_fast(
    engine: Engine, snapshots: Sequence[Snapshot], hot: float, nodes: Collection[int], seed: int
) -> tuple[int, int] | None:
    """Bytes of regions that at least the share ``hot`` of samples found used, and what of them is on ``nodes``.

    None where the machine does not tell. Of processes, it is by pages drawn with ``seed``.
    """
    total = fast = 0
    draw = np.random.default_rng(seed)
    for snapshot in snapshots:
        if not len(snapshot.start):
            continue
        batch = RegionBatch.of([snapshot])
        least = max(hot * snapshot.max_nr_accesses, 1.0)
        mine = np.flatnonzero(batch.nr_accesses >= least)
        size = int(batch.memory[mine].sum())
        start, end = batch.start[mine].astype(np.uint64), batch.end[mine].astype(np.uint64)
        share = _share(engine, snapshot.target, start, end, nodes, draw) if size else 0.0
        if share is None:
            return None
        total += size
        fast += round(size * share)
    return total, fast


def nodes_bytes(engine: Engine, nodes: Collection[int]) -> int | None:
    """The memory of these nodes; None where that is not told."""
    if engine.simulated is not None:
        return sum(int(size) for node, size in enumerate(machine_of(engine).node_bytes) if node in nodes)
    try:
        return sum(MachineMetrics().node_bytes(node) for node in nodes)
    except MachineError:
        return None


def _share(
    engine: Engine, target: int, start: Addresses, end: Addresses, nodes: Collection[int], draw: np.random.Generator
) -> float | None:
    """The share of what is in memory of these ranges that is on ``nodes``."""
    if engine.simulated is not None:
        from pydamon.ops.sim.actions import node_bytes as simulated_bytes  # the engine has loaded it

        machine = machine_of(engine)
        on = {node: simulated_bytes(machine, target, start, end, node) for node in range(len(machine.node_bytes))}
        return sum(on[node] for node in nodes if node in on) / max(sum(on.values()), 1)
    if engine.context.ops == "paddr":
        return _physical(start, end, nodes)
    pid = engine.living().get(target)
    if pid is None:
        return 0.0
    pages = ((end - start) // _PAGE).astype(np.int64)
    before = np.cumsum(pages) - pages
    chosen = np.sort(draw.integers(0, int(pages.sum()), min(_ASKED, int(pages.sum()))))
    of = np.searchsorted(before, chosen, "right") - 1
    addresses = start[of] + (chosen - before[of]).astype(np.uint64) * _PAGE
    try:
        process = Process(pid)
    except RequestError:
        return 0.0
    try:
        found = move_pages.nodes_of(process, addresses)
    except MachineError:
        return None
    finally:
        process.close()
    there = found >= 0
    return float(np.isin(found[there], list(nodes)).mean()) if there.any() else 0.0


def _physical(start: Addresses, end: Addresses, nodes: Collection[int]) -> float | None:
    from pydamon.ops.paddr import ZONEINFO, node_spans  # the engine has loaded it

    try:
        spans = node_spans(read_as_root(ZONEINFO))
    except MachineError:
        return None
    inside = bytes_of_nodes(spans, start, end, nodes)
    return min(inside / max(int((end - start).sum(dtype=np.uint64)), 1), 1.0)
