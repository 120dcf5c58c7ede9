"""Run the experiments that are named, or list them: ``python -m benchmarks.evaluation NAME [options]``."""

from __future__ import annotations

import importlib
import signal
import sys

NAMES = {
    "autoscale": "an idle guest's memory, given back to the host, and taken again under load, in the lab",
    "host-files": "idle pages of files, which reclaim takes without swap, and hot ones, which stay",
    "host-what-if": "what a recording says a policy would do, beside the policy really run on pages of files",
    "host-refaults": "a goal of refaults beside a fixed age: pages of a file that are read by Zipf's law",
    "guest-density": "how many guests fit: several at once, without and with autoscale in each, in the lab",
    "guest-reclaim": "reclaim beside DAMON_RECLAIM, and under three quotas, in the lab",
    "guest-kernels": "proactive reclamation of ten kernels by our engine and by the kernel's DAMON, in the lab",
    "guest-refaults": "a goal of refaults beside a fixed age: redis with a zipf client, in the lab",
    "guest-pressure": "reclaim by pressure alone on real memory, in the lab",
    "intervals": "where the intervals settle that are chosen by themselves, under three loads",
    "overhead": "what monitoring takes from ten kernels with the access patterns of known suites, and from servers",
    "etmem": "cold pages of a file by regions and page by page: what is saved, and at which cost",
    "tier": "hot memory from the slowest NUMA node to the fast one, and less of that under load, in the lab",
    "tier-simulated": "the same on simulated machines, in virtual time",
    "thp": "huge pages for what is hot, beside advice to use them for all of it: speed, and memory that it takes",
    "vmm": "a virtual machine's process, reclaimed from the host with no agent in the guest",
}


def main() -> int:
    """Run one experiment; 2 for a name that is none."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        for name, about in NAMES.items():
            print(f"{name:<16} {about}")
        return 0
    name = sys.argv[1]
    if name not in NAMES:
        print(f"evaluation: there is no {name!r}; there are: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    # Told to end, it ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.argv[:2] = [f"evaluation {name}"]
    importlib.import_module(f"benchmarks.evaluation.{name.replace('-', '_')}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main())
