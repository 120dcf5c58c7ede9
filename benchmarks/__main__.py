"""Run the benchmarks that are named, or all of them."""

from __future__ import annotations

import importlib
import sys

NAMES = ("truth", "cost", "flatness", "reported")


def main() -> int:
    """Run and print; 2 for a name that is none."""
    names = sys.argv[1:] or list(NAMES)
    for name in names:
        if name not in NAMES:
            print(f"benchmarks: there is no {name!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
            return 2
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


sys.exit(main())
