"""Many attempts in one process of bounded memory, each of bounded CPU time.

    python -m benchmarks.robustness_worker MODULE FOLDER COUNT KIND

MODULE has ``attempts(kind, folder, count)``, which yields for each attempt what did not hold, or nothing. An attempt
that takes more CPU time or memory than that ends the process, which is a failure.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.robustness_tally import Tally

MEMORY = 1 << 30  # more than what the process has when the libraries are there
MOST_S = 10  # of CPU


def tally(what: str, module: str, kind: str, folder: Path, count: int) -> Tally:
    """The row of so many attempts."""
    row, slowest = Tally(what), 0.0
    command = [sys.executable, "-m", "benchmarks.robustness_worker", module, str(folder), str(count), kind]
    with open(folder / "said", "w+b") as said:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said) as worker:
            assert worker.stdout is not None
            for line in worker.stdout:
                failure, seconds = json.loads(line)
                slowest = max(slowest, seconds)
                row.add(failure)
        said.seek(0)
        if worker.returncode or row.count != count:
            row.add(f"after no. {row.count} the process ended with {worker.returncode}: {said.read()[-300:]!r}")
    row.note = f"at most {slowest:.2f} s of CPU each, and {MEMORY >> 30} GiB of addresses in all"
    return row


def _bound() -> None:
    """From now on so much more memory, and so much CPU time until the next call."""
    used = int(time.process_time())
    resource.setrlimit(resource.RLIMIT_CPU, (used + MOST_S + 1, resource.RLIM_INFINITY))


def main() -> None:
    """Print a line of JSON for each attempt: what failed, and its CPU time."""
    module, folder, count, kind = sys.argv[1:]
    attempts = importlib.import_module(module).attempts(kind, Path(folder), int(count))
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what is said meanwhile is no result
    first = next(attempts, "")  # everything is imported now
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + MEMORY, resource.RLIM_INFINITY))
    print(json.dumps((first, 0.0)), file=results)
    _bound()
    begun = time.process_time()
    for failure in attempts:
        print(json.dumps((failure, time.process_time() - begun)), file=results)
        _bound()
        begun = time.process_time()


if __name__ == "__main__":
    main()
