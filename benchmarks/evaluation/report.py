"""What every experiment prints: where it ran, and figures of several runs with their spread."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.kernel_damon import is_guest


def machine() -> str:
    """The machine, its kernel and its memory, and how busy it is now, in one line."""
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    load = os.getloadavg()[0]
    where = "guest" if is_guest() else "host"
    return (
        f"{where}: Linux {platform.release()}, {os.cpu_count()} CPUs, {memory_kib / (1 << 20):.1f} GiB, "
        f"load {load:.1f} when it began"
    )


def spread(values: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """The median and, where there are several, the least and the most: ``12.0 s [11.5, 12.9]``."""
    middle = f"{statistics.median(values):.{digits}f}{unit}"
    return middle if len(values) < 2 else f"{middle} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def verdict(holds: bool) -> str:
    """Whether the aim was reached in all runs."""
    return "reached" if holds else "missed"
