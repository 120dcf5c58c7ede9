"""How many of many attempts to break something held, and what the ones that did not looked like."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

PYDAMON = [sys.executable, "-m", "pydamon"]
STATUSES = (0, 1, 2, 3)
SEED = 14
_KEPT_EXAMPLES = 5
# Whatever shows that an error was not foreseen.
_UNFORESEEN = re.compile(rb"Traceback|internal error|Segmentation|core dumped")


@dataclass
class Tally:
    """One row of the table: what was tried, how often, and (a line each) the first failures."""

    what: str
    count: int = 0
    failed: int = 0
    examples: list[str] = field(default_factory=list)
    note: str = ""

    def add(self, failure: str = "") -> None:
        """One attempt; ``failure`` says what did not hold, if anything."""
        self.count += 1
        if failure:
            self.failed += 1
            if len(self.examples) < _KEPT_EXAMPLES:
                self.examples.append(failure)

    def line(self) -> str:
        """The row as text; examples follow it on lines of their own."""
        rows = [
            f"{self.what:40} {self.count:>8,} {self.count - self.failed:>8,} {self.failed:>7,}  {self.note}".rstrip()
        ]
        return "\n".join(rows + [f"    {ascii(example)[:400]}" for example in self.examples])


HEADER = f"{'what':40} {'tried':>8} {'held':>8} {'failed':>7}  note"


def run(*arguments: str | bytes, folder: Path, timeout: float = 60, **more: str) -> subprocess.CompletedProcess[bytes]:
    """``pydamon ARGUMENTS`` in that folder; ``more`` is added to the environment. TimeoutExpired if it takes longer."""
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "PYTHONHASHSEED": "0", **more}
    return subprocess.run(
        [*PYDAMON, *arguments], cwd=folder, env=environment, capture_output=True, check=False, timeout=timeout
    )


def unforeseen(status: int, output: bytes) -> str:
    """What is wrong with how a command ended, or nothing: a traceback, an unknown status, a signal."""
    if _UNFORESEEN.search(output):
        return f"not foreseen: {output[-300:]!r}"
    return "" if status in STATUSES else f"ended with {status}: {output[-300:]!r}"


def simulated(folder: Path, name: str, duration: str = "3s", *more: str) -> Path:
    """A record of a simulated workload."""
    done = run(
        "record", "--ops", "sim", "--workload", "stairs", "--duration", duration, "-o", name, *more, folder=folder
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode("utf-8", "replace"))
    return folder / name
