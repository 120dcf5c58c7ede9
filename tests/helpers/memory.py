"""How much memory a process takes."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes() -> int:
    """What is in memory of this one."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def swap_bytes(pid: int) -> int:
    """What of a process is in swap."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmSwap"))
