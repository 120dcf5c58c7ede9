"""`pydamon record` with a module, beside an experiment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.kernel_damon import cpu_seconds


@contextmanager
def recording(
    pid: int, module: str, folder: Path, *options: str, started: bool = False
) -> Iterator[Callable[[], float]]:
    """A recording of the process with that module (none if it is empty), in ``folder``, until the end of the block.

    ``started``: the block begins when it monitors, else at once, so that its start is part of what is measured.
    What it yields tells its CPU seconds so far, its start included; SystemExit if it has ended.
    """
    command = [sys.executable, "-m", "pydamon", "record", str(pid), "-o", str(folder / "record"), *options]
    command += ["--module", module] if module else []
    said = subprocess.PIPE if started else subprocess.DEVNULL
    with subprocess.Popen(command, stderr=said, text=True) as recorder:

        def spent_s() -> float:
            if recorder.poll() is not None:
                raise SystemExit(f"evaluation: pydamon ended with exit status {recorder.returncode}")
            return cpu_seconds(recorder.pid)

        try:
            if recorder.stderr is not None and not any("monitoring" in line for line in recorder.stderr):
                raise SystemExit("evaluation: the recording did not begin")
            yield spent_s
        finally:
            recorder.terminate()
