"""`pydamon record` beside an experiment."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.kernel_damon import cpu_seconds


class NotMonitoring(SystemExit):
    """A recording that ended before it began to monitor; with what it said last."""


def until_it_monitors(recorder: subprocess.Popen[str]) -> None:
    """Read what it says until it says that it monitors; NotMonitoring if it ends before."""
    assert recorder.stderr is not None
    said = ""
    for line in recorder.stderr:
        if "monitoring" in line:
            return
        said = line
    raise NotMonitoring(f"evaluation: the recording did not begin: {said.strip()}")


@contextmanager
def monitoring(*words: str, cpu: int) -> Iterator[int]:
    """`pydamon record` with these words on that CPU, from when it monitors to the end of the block; its pid.

    Its record is thrown away. Raises NotMonitoring.
    """
    command = ["taskset", "-c", str(cpu), sys.executable, "-m", "pydamon", "record", *words]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [*command, "-o", f"{folder}/record"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as recorder,
    ):
        try:
            until_it_monitors(recorder)
            yield recorder.pid
        finally:
            recorder.send_signal(signal.SIGCONT)  # the block may have stopped it
            recorder.terminate()
            recorder.communicate()


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
            if started:
                until_it_monitors(recorder)
            yield spent_s
        finally:
            recorder.terminate()
