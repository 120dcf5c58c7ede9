"""Which processors run, and on which NUMA node each of them is, from sysfs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from pydamon.linux.texts import read_text

_MOST_CPUS = 1 << 16


def online_cpus(path: str = "/sys/devices/system/cpu/online") -> list[int]:
    """The numbers of the processors that run; as many as there are if that is not told."""
    try:
        return _numbers(read_text(path))
    except (OSError, ValueError):
        return list(range(os.cpu_count() or 1))


def nodes_of_cpus(root: Path = Path("/sys/devices/system/node")) -> dict[int, int]:
    """The NUMA node of each CPU of this machine; empty if it does not tell."""
    nodes: dict[int, int] = {}
    for folder in sorted(root.glob("node[0-9]*")):
        with contextlib.suppress(OSError, ValueError):
            node = int(folder.name.removeprefix("node"))
            nodes |= dict.fromkeys(_numbers(read_text(folder / "cpulist")), node)
    return nodes


def _numbers(text: str) -> list[int]:
    """Of a list like ``0-3,8``; raises ValueError."""
    numbers: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), min(int(last or first), _MOST_CPUS) + 1)
    return numbers
