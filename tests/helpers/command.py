"""The command ``pydamon``, run as its users run it: in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

PYDAMON = [sys.executable, "-m", "pydamon"]


def pydamon(*args: str, timeout: float = 240, **options: Any) -> subprocess.CompletedProcess[str]:
    """What became of ``pydamon ARGS``; ``options`` are those of ``subprocess.run``. It never prints a traceback."""
    given = {"capture_output": True, "text": True, "check": False} | options
    done = subprocess.run([*PYDAMON, *args], timeout=timeout, **given)
    assert "Traceback" not in (done.stderr or ""), done.stderr
    return done


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on standard error; there must be no other, and no traceback."""
    (line,) = done.stderr.splitlines()
    assert line.startswith("pydamon")
    return line
