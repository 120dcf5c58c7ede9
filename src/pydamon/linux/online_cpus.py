"""Which processors run, and on which NUMA node each of them is, from sysfs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pydamon.linux.tiers import NODES, listed

_MOST_CPU = 1 << 16


def online_cpus(path: str = "/sys/devices/system/cpu/online") -> list[int]:
    """The numbers of the processors that run; as many as there are if that is not told."""
    return listed(path, _MOST_CPU) or list(range(os.cpu_count() or 1))


def nodes_of_cpus(root: Path = NODES) -> dict[int, int]:
    """The NUMA node of each CPU of this machine; empty if it does not tell."""
    nodes: dict[int, int] = {}
    for folder in sorted(root.glob("node[0-9]*")):
        with contextlib.suppress(ValueError):
            node = int(folder.name.removeprefix("node"))
            nodes |= dict.fromkeys(listed(folder / "cpulist", _MOST_CPU) or (), node)
    return nodes
