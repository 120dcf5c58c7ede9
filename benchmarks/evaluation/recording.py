"""`pydamon record` with a module, beside an experiment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.kernel_damon import cpu_seconds


@contextmanager
def recording(pid: int, module: str, folder: Path, *options: str) -> Iterator[Callable[[], float]]:
    """A recording of the process with that module (none if it is empty), in ``folder``, until the end of the block.

    What it yields tells its CPU seconds so far, its start included; SystemExit if it has ended.
    """
    command = [sys.executable, "-m", "pydamon", "record", str(pid), "-o", str(folder / "record"), *options]
    command += ["--module", module] if module else []
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as recorder:

        def spent_s() -> float:
            if recorder.poll() is not None:
                raise SystemExit(f"evaluation: pydamon ended with exit status {recorder.returncode}")
            return cpu_seconds(recorder.pid)

        try:
            yield spent_s
        finally:
            recorder.terminate()
