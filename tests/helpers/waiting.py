"""Waiting: for a condition, never for a fixed time, and long enough for a machine that is busy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

GENEROUS_S = 120.0


def wait_until(condition: Callable[[], object], seconds: float = GENEROUS_S, *, every_s: float = 0.01) -> None:
    """Wait until the condition holds, which is looked at each ``every_s`` seconds; it fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen in {seconds:g} s"
        time.sleep(every_s)


def listens(path: Path) -> bool:
    """Whether somebody listens at this socket: it is there a moment before, and then nobody can connect."""
    rows = [line.split(maxsplit=7) for line in Path("/proc/net/unix").read_text().splitlines()]
    return any(row[7:] == [str(path)] and row[3] == "00010000" for row in rows)  # __SO_ACCEPTCON
