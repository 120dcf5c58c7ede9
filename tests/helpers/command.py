"""The command ``pydamon``, run as its users run it: in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Measured:
    """What a command that was run with bounds left: its status, standard error, and the most that was resident."""

    status: int
    stderr: str
    most_bytes: int


# Between the tests and the command: what wait4 tells of a process counts what its parent had when it forked, and a
# process that has run thousands of tests has a lot.
_MEASURE = """
import os, resource, subprocess, sys
seconds = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
child = subprocess.Popen(sys.argv[2:], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(child.pid, 0)
print(os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024)
"""


def measure(*args: str, most_cpu_s: int, timeout: float = 240) -> Measured:
    """``pydamon ARGS``, which is killed beyond so much CPU time; what it prints is thrown away."""
    command = [sys.executable, "-S", "-c", _MEASURE, str(most_cpu_s), *PYDAMON, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)
    status, most_bytes = map(int, done.stdout.split())
    return Measured(status, done.stderr, most_bytes)
