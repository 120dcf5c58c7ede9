"""What the place of memory costs the programs of a simulated machine: slow nodes, their bandwidth, huge pages. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pydamon.ops.sim.extents import HUGE, node_of
from pydamon.ops.sim.target import SimTarget
from pydamon.spec.costs import Costs

_LINE_BYTES = 64


def count_places(targets: Sequence[SimTarget], costs: Costs, nr_nodes: int, start_ns: int, end_ns: int) -> None:
    """Add to the targets' counts what the places of their memory cost them in this window."""
    demand = np.zeros((len(targets), nr_nodes), np.int64)
    for index, target in enumerate(targets):
        if target.ended:
            continue
        state, counts = target.extents.state, target.counts
        spans = np.stack([target.extents.start, target.extents.end], axis=1)
        accesses = target.model.accesses(spans, target.schedule, start_ns, end_ns) * (costs.memory_share_permil / 1000)
        node = node_of(state)
        slow = float(accesses[node > 1].sum())
        counts.slow_ns += int(slow * (costs.slow_latency_ns - costs.latency_ns))
        counts.tlb_ns += int(float(accesses[(state & np.uint32(HUGE)) != 0].sum()) * costs.tlb_miss_ns)
        per_node = np.bincount(node, accesses, nr_nodes + 1)[1:]
        demand[index] = (per_node * _LINE_BYTES).astype(np.int64)
    _count_bandwidth(targets, costs, demand, end_ns - start_ns)


def _count_bandwidth(targets: Sequence[SimTarget], costs: Costs, demand: np.ndarray, window_ns: int) -> None:
    """Where more is asked of a node than it can give, all that ask wait in proportion."""
    for node, asked in enumerate(demand.sum(axis=0).tolist()):
        bandwidth = costs.slow_bandwidth_bytes if node else costs.bandwidth_bytes
        late_ns = asked * 1_000_000_000 // bandwidth - window_ns
        if late_ns > 0:
            for target, mine in zip(targets, demand[:, node].tolist(), strict=True):
                target.counts.bandwidth_ns += late_ns * mine // asked
