"""The metrics that quotas are tuned by, one row each: all that is known of a metric but how it is measured.

How the machine's are measured is in ``linux/metrics.py: MEASURED``, how a simulated machine's in
``ops/sim/machine.py: MEASURED``, both by the names of the rows; tests check that none is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

MetricName = Literal[
    "user_input", "some_mem_psi_us", "io_psi_us",
    "node_mem_used_bp", "node_mem_free_bp", "node_memcg_used_bp", "node_memcg_free_bp",
    "active_mem_bp", "inactive_mem_bp", "node_eligible_mem_bp", "hugepage_mem_bp", "refault_bp",
]  # fmt: skip
Version = tuple[int, int]


class Metric(msgspec.Struct, frozen=True):
    """What a metric is.

    ``words`` say its value in a sentence, with ``{node}`` and ``{memcg}``; ``help`` is what `doctor` says. ``unit``:
    1/10,000 (a share, 0 to 10,000), microseconds, or a plain number. ``source``: who knows the value – the machine, the
    user who gives it, or the core, which knows what memory a scheme is for, or what of the targets' memory is in use.
    ``since``: the first kernel that has it, None for one of ours.
    """

    name: MetricName
    words: str
    unit: Literal["bp", "us", ""]
    since: Version | None
    help: str = ""
    source: Literal["machine", "user", "scheme", "targets"] = "machine"
    of_node: bool = False  # it needs the number of a NUMA node
    of_memcg: bool = False  # it needs the path of a cgroup
    grows: bool = False  # the machine tells a sum since the boot; the value is by how much that has grown

    @property
    def most(self) -> int | None:
        """The highest value that it can have; None: there is none."""
        return 10_000 if self.unit == "bp" and self.source != "targets" else None  # the same may come back again


# The order is that of messages; metrics with the same help are told as one. node_eligible_mem_bp: 9138e27a3bc3;
# hugepage_mem_bp waits in DAMON's development tree.
_ROWS = (
    Metric("user_input", "the value that the user gives", "", (6, 8), source="user"),
    Metric(
        "some_mem_psi_us",
        "the time per reset interval in which some task waited for memory (PSI)",
        "us",
        (6, 9),
        help="time in which a task waited for memory",
        grows=True,
    ),
    Metric(
        "io_psi_us",
        "the time per reset interval in which some task waited for io (PSI)",
        "us",
        None,
        help="time in which a task waited for io",
        grows=True,
    ),
    Metric(
        "node_mem_used_bp",
        "the used share of NUMA node {node}",
        "bp",
        (6, 16),
        help="memory of a NUMA node",
        of_node=True,
    ),
    Metric(
        "node_mem_free_bp",
        "the free share of NUMA node {node}",
        "bp",
        (6, 16),
        help="memory of a NUMA node",
        of_node=True,
    ),
    Metric(
        "node_memcg_used_bp",
        "the share of NUMA node {node} that the cgroup {memcg} uses",
        "bp",
        (6, 19),
        help="a cgroup's share of a NUMA node",
        of_node=True,
        of_memcg=True,
    ),
    Metric(
        "node_memcg_free_bp",
        "the share of NUMA node {node} that the cgroup {memcg} does not use",
        "bp",
        (6, 19),
        help="a cgroup's share of a NUMA node",
        of_node=True,
        of_memcg=True,
    ),
    Metric(
        "active_mem_bp",
        "the active share of memory on the LRU lists",
        "bp",
        (7, 0),
        help="share of the LRU lists",
    ),
    Metric(
        "inactive_mem_bp",
        "the inactive share of memory on the LRU lists",
        "bp",
        (7, 0),
        help="share of the LRU lists",
    ),
    Metric(
        "node_eligible_mem_bp",
        "the share of the memory with this access pattern that is on NUMA node {node}",
        "bp",
        (7, 2),
        source="scheme",
        of_node=True,
    ),
    Metric(
        "hugepage_mem_bp",
        "the share of used memory that is in huge pages",
        "bp",
        (7, 4),
        help="huge pages of what is used",
    ),
    Metric(
        "refault_bp",
        "the share of the working set that came back within the last minute",
        "bp",
        None,
        source="targets",
    ),
)

METRICS: Mapping[str, Metric] = {row.name: row for row in _ROWS}
OF_MACHINE = tuple(row for row in _ROWS if row.source == "machine")
SINCE: Mapping[str, Version] = {row.name: row.since for row in _ROWS if row.since is not None}  # of the kernel's
OF_MEMCG = tuple(row.name for row in _ROWS if row.of_memcg)
