"""What starting costs: CPU time of whole processes, in turn, beside ``import numpy, pyarrow`` and another tree's code.

    python -m benchmarks startup [--old DIR/src]

CPU time of user and system together: a busy machine makes it wait, not work.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 9
LIBRARIES = "import numpy, pyarrow"
HERE = str(Path(__file__).resolve().parent.parent / "src")


def cpu_ms(arguments: list[str], environment: dict[str, str]) -> float:
    """CPU time of one process; raises CalledProcessError where it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def main() -> None:
    """Print the medians, and the ratios round by round."""
    parser = argparse.ArgumentParser(prog="benchmarks startup", description=__doc__)
    parser.add_argument("--old", help="the directory of another version's package, beside which to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, subprocess.Popen(["sleep", "600"]) as target:
        try:
            # Compiled once, as an installed package is.
            common = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
            common["PYTHONPYCACHEPREFIX"] = f"{directory}/compiled"
            pydamon = ["-m", "pydamon"]
            verbs = {
                "--help": [*pydamon, "--help"],
                "record --help": [*pydamon, "record", "--help"],
                "record, 0.1 s": [*pydamon, "record", "--duration", "100ms", "-o", f"{directory}/x", str(target.pid)],
            }
            trees = {"": HERE} | ({"before: ": options.old} if options.old else {})
            commands = {LIBRARIES: (["-c", LIBRARIES], common)}
            commands |= {"the same, one thread": (["-c", LIBRARIES], common | {"OPENBLAS_NUM_THREADS": "1"})}
            for prefix, tree in trees.items():
                commands |= {f"{prefix}{name}": (verb, common | {"PYTHONPATH": tree}) for name, verb in verbs.items()}
            rounds = [{name: cpu_ms(*command) for name, command in commands.items()} for _ in range(ROUNDS + 1)][1:]
        finally:
            target.kill()
    print(f"CPU time of whole processes, the median of {ROUNDS}, and the ratio to `{LIBRARIES}` beside it")
    for name in commands:
        ratio = statistics.median(found[name] / found[LIBRARIES] for found in rounds)
        line = f"{name:>24}: {statistics.median(found[name] for found in rounds):6.0f} ms, ratio {ratio:.2f}"
        if f"before: {name}" in commands:
            line += f"; {statistics.median(found[name] / found[f'before: {name}'] for found in rounds):.2f} of before"
        print(line)


if __name__ == "__main__":
    main()
