"""Run the benchmarks that are named, or all of them; one that is named alone may be followed by its own options."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "answers", "truth", "faithful", "cost", "overhead", "flatness", "owners", "damos", "reported", "kernel",
    "kernel-cost", "kernel-schemes", "disturb", "idle", "reports", "pyramid", "page", "formats", "damonfs",
    "aggregation", "startup", "scrape", "top", "what-if", "simulate", "search", "ship",
)  # fmt: skip

ALONE = (
    "clients",
    "default-cost",
    "fleet",
    "older",
    "played",
    "robustness",
    "sampling",
    "soak",
    "what-if-accuracy",
)  # only where they are named


def main() -> int:
    """Run and print; 2 for a name that is none."""
    arguments = sys.argv[1:]
    own = next((at for at, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    names, options = arguments[:own] or list(NAMES), arguments[own:]
    for name in names:
        if name not in (*NAMES, *ALONE):
            print(f"benchmarks: there is no {name!r}; there are: {', '.join((*NAMES, *ALONE))}", file=sys.stderr)
            return 2
    if options and len(names) > 1:
        print(f"benchmarks: {options[0]} is for one benchmark; name it alone", file=sys.stderr)
        return 2
    for name in names:
        sys.argv[1:] = options
        importlib.import_module(f"benchmarks.{name.replace('-', '_')}").main()
    return 0


if __name__ == "__main__":  # workers of Dask import what has started them
    sys.exit(main())
