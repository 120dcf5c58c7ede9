"""Which files which kernel has: damonfs can look like an older one.

The versions are those of the kernels whose documents first describe the feature; ``mm`` is what waits in the memory
management tree for a release.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydamon.errors import RequestError
from pydamon.spec.actions import ACTIONS
from pydamon.spec.metrics import METRICS
from pydamon.spec.statistics import STATISTICS

Version = tuple[int, int]
_MM: Version = (7, 2)

# The first kernel with a feature; what is not here is in 6.12, the oldest level.
SINCE: dict[str, Version] = {
    "allow": (6, 14),
    "sz_filter_passed": (6, 14),
    "intervals_goal": (6, 15),
    "filter_directories": (6, 15),
    "filter_sizes": (6, 15),
    "goal_nid": (6, 16),
    "dests": (6, 17),
    "refresh_ms": (6, 17),
    "update_tuned_intervals": (6, 17),
    "addr_unit": (6, 18),
    "obsolete_target": (6, 19),
    "goal_path": (6, 19),
    "max_nr_snapshots": (7, 0),
    "goal_tuner": (7, 1),
    "fail_charge": _MM,
    "pause": _MM,
    "probes": _MM,
}
FILTERS: dict[str, Version] = {
    "anon": (6, 3),
    "active": (6, 15),
    "memcg": (6, 3),
    "young": (6, 10),
    "hugepage_size": (6, 15),
    "unmapped": (6, 15),
    "addr": (6, 6),
    "target": (6, 6),
}
PROBE_FILTERS = ("anon", "memcg")
NEWEST = "mm"
NAMES = ("6.12", "6.14", "6.15", "6.16", "6.17", "6.18", "6.19", "7.0", "7.1", NEWEST)


@dataclass(frozen=True, slots=True)
class Level:
    """A kernel that damonfs looks like."""

    version: Version

    def has(self, feature: str) -> bool:
        """Whether that kernel has ``feature`` (of `SINCE`)."""
        return self.version >= SINCE[feature]

    @property
    def filters(self) -> list[str]:
        """Its types of filters."""
        return [name for name, since in FILTERS.items() if self.version >= since]

    @property
    def metrics(self) -> list[str]:
        """Its metrics of quota goals."""
        return [row.name for row in METRICS.values() if self.version >= row.since]

    @property
    def actions(self) -> list[str]:
        """Its actions."""
        return [row.name for row in ACTIONS.values() if self.version >= row.known_since]

    @property
    def statistics(self) -> list[str]:
        """What it counts of a scheme."""
        return [row.name for row in STATISTICS.values() if row.since is not None and self.version >= row.since]


def level(name: str) -> Level:
    """The level called ``name`` (one of `NAMES`); raises RequestError."""
    if name not in NAMES:
        raise RequestError(f"{name!r} is not known; there are {', '.join(NAMES)}", where="level")
    if name == NEWEST:
        return Level(_MM)
    major, _, minor = name.partition(".")
    return Level((int(major), int(minor)))
