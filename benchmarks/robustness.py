"""Attempts to break it, counted: kills, failing system calls, damaged records, nonsense as input, hostile names.

    python -m benchmarks robustness [--scale 0.01] [--only NAME]

At full size it takes half an hour; tests/integration/test_robustness.py does a hundredth. All chances are from one
seed. Faults of system calls need strace.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.robustness_damage import damage
from benchmarks.robustness_faults import faults
from benchmarks.robustness_fuzz import fuzz
from benchmarks.robustness_kills import kills
from benchmarks.robustness_strings import strings
from benchmarks.robustness_tally import HEADER, Tally

KINDS: dict[str, Callable[[float, Path], list[Tally]]] = {
    "kills": kills,
    "faults": faults,
    "damage": damage,
    "fuzz": fuzz,
    "strings": strings,
}


def attempt(name: str, scale: float) -> list[Tally]:
    """The rows of one kind, at that part of the full size, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="robustness.") as folder:
        return KINDS[name](scale, Path(folder))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks robustness", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="the part of the full size, 1 unless told")
    parser.add_argument("--only", choices=KINDS, help="one kind only")
    options = parser.parse_args()
    print(f"robustness: at {options.scale:g} of full size\n{HEADER}")
    for name in [options.only] if options.only else KINDS:
        begun = time.monotonic()
        for row in attempt(name, options.scale):
            print(row.line(), flush=True)
        print(f"    ({name}: {time.monotonic() - begun:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
