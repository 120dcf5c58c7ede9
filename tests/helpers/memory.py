"""How much memory this process takes."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes() -> int:
    """What is in memory of it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
