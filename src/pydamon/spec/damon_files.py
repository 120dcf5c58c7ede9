"""The files of a context of the kernel's DAMON, one row each: what it stands for in the spec, and which kernel has it.

They are those below ``kdamonds/K/contexts/C`` of the kernel's ``Documentation/admin-guide/mm/damon/usage.rst``. The
kernel engine writes a spec into them by this table, damonfs makes such a tree and reads a spec out of it. A file that
holds a field of the spec as it is needs nothing but its row here and the field.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydamon.spec.actions import ACTIONS
from pydamon.spec.metrics import SINCE
from pydamon.spec.schemes import CORE_FILTERS
from pydamon.spec.statistics import STATISTICS

Version = tuple[int, int]
# What the kernel reads and shows: numbers of C's types (a few files call each wrong number EINVAL, never ERANGE), a
# switch, one of some words, free text, the path of a cgroup; or how many numbered directories there are beside it.
Kind = Literal[
    "ulong", "ulong_or_einval", "ulong_not_0", "uint", "int", "int_or_einval", "bool", "word", "text", "cgroup", "count"
]
READ_ONLY = 0o400

Words = Mapping[str, Version | None]  # with the kernel that brought each; None: as old as the file
OPERATIONS: Words = {"vaddr": None, "fvaddr": None, "paddr": None}
FILTERS: Words = {
    "anon": (6, 3),
    "active": (6, 15),
    "memcg": (6, 3),
    "young": (6, 10),
    "hugepage_size": (6, 15),
    "unmapped": (6, 15),
    "addr": (6, 6),
    "target": (6, 6),
    "probe_hits_wsum": (7, 4),  # ce48b1ad566d
}
PROBE_FILTERS: Words = {
    "anon": (7, 2),  # 8caba1448278
    "memcg": (7, 2),  # c71f8e13462d
    "hugepage_size": (7, 4),  # 222636c8c139
    "pgidle_unset": (7, 4),
    "pgidle_set": (7, 4),  # b566b2520e38
}


@dataclass(frozen=True, slots=True)
class File:
    """One file. ``path`` is its place below the context's directory, ``*`` stands for any number.

    ``stands_for`` is the field of the spec, below the context, that it holds; empty if the spec has none. If it is
    ``optional`` there (None by default), the file is written only when it is given, and is then needed. ``first`` is
    what a new file holds; a kernel without the file does as if it held that. ``since``: the kernel that brought it
    (None: as old as the directory). ``nearest`` says what to ask for instead of a kernel that lacks it. ``words`` are
    those of the kind ``word``.
    """

    path: str
    kind: Kind
    stands_for: str = ""
    first: int | str | bool = 0
    since: Version | None = None
    nearest: str = ""
    optional: bool = False
    words: Words = field(default_factory=dict)
    mode: int = 0o600

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]

    @property
    def directory(self) -> str:
        """The pattern of the directory that it is in."""
        return self.path.rpartition("/")[0]

    @property
    def first_text(self) -> str:
        """What a new file holds, as it is shown."""
        return text(self.first)


def text(value: object) -> str:
    """A value as the kernel writes and reads it."""
    return ("Y" if value else "N") if isinstance(value, bool) else str(value)


def version_text(version: Version) -> str:
    """A kernel's version as it is said: ``6.18``."""
    return f"{version[0]}.{version[1]}"


def _filters(directory: str, words: Words, since: Version) -> tuple[File, ...]:
    of_item, of_spec = f"schemes/*/{directory}/*", "schemes[*].filters[*]"
    bounds = "probe_hits_wsum" if directory == "core_filters" else "hugepage_size"
    return (
        File(f"schemes/*/{directory}/nr_filters", "count", "schemes[*].filters", since=since),
        File(f"{of_item}/type", "word", f"{of_spec}.filter_type", "anon", words=words, nearest="to leave it out"),
        File(f"{of_item}/matching", "bool", f"{of_spec}.matching", False),
        File(f"{of_item}/allow", "bool", f"{of_spec}.allow", False, since=(6, 14)),
        File(f"{of_item}/memcg_path", "cgroup", f"{of_spec}.memcg_path", "", optional=True),
        File(f"{of_item}/addr_start", "ulong", f"{of_spec}.address_range.start", since=(6, 6), optional=True),
        File(f"{of_item}/addr_end", "ulong", f"{of_spec}.address_range.end", since=(6, 6), optional=True),
        File(f"{of_item}/damon_target_idx", "int", f"{of_spec}.damon_target_idx", since=(6, 6), optional=True),
        File(f"{of_item}/min", "ulong", f"{of_spec}.{bounds}.min", since=(6, 15), optional=True),
        File(f"{of_item}/max", "ulong", f"{of_spec}.{bounds}.max", since=(6, 15), optional=True),
    )


_CORE: Words = {name: since for name, since in FILTERS.items() if name in CORE_FILTERS}
_OPS: Words = {name: since for name, since in FILTERS.items() if name not in CORE_FILTERS}
_GOAL, _PROBE = "intervals.intervals_goal", "monitoring_attrs/probes/*/filters/*"
_FIXED, _USER = "fixed intervals, or the user engine", "the user engine"

FILES = (
    File("avail_operations", "text", mode=READ_ONLY),
    File("operations", "word", "ops", "vaddr", words=OPERATIONS),
    File("addr_unit", "ulong_not_0", first=1, since=(6, 18)),
    File("pause", "bool", first=False, since=(7, 2)),  # 3b9e3cc0405b
    # -- monitoring attributes
    File("monitoring_attrs/intervals/sample_us", "ulong", "intervals.sample_us", 5_000),
    File("monitoring_attrs/intervals/aggr_us", "ulong", "intervals.aggr_us", 100_000),
    File("monitoring_attrs/intervals/update_us", "ulong", "intervals.ops_update_us", 60_000_000),
    *(
        File(f"monitoring_attrs/intervals/intervals_goal/{name}", "ulong", f"{_GOAL}.{name}", 0, (6, 15), _FIXED)
        for name in ("access_bp", "aggrs", "min_sample_us", "max_sample_us")
    ),
    File("monitoring_attrs/nr_regions/min", "ulong", "nr_regions.min", 10),
    File("monitoring_attrs/nr_regions/max", "ulong", "nr_regions.max", 1_000),
    File("monitoring_attrs/probes/nr_probes", "count", "probes", 0, (7, 2), _USER),  # 45c49d9fd608
    File("monitoring_attrs/probes/*/weight", "uint", "probes[*].weight", 0, (7, 3), _USER),  # 37aae41c1056
    File("monitoring_attrs/probes/*/preps/nr_preps", "count", "probes[*].preps", 0, (7, 4), _USER),
    File("monitoring_attrs/probes/*/preps/*/prep_action", "word", "probes[*].preps[*].prep_action", "set_pgidle",
         (7, 4), _USER, words={"set_pgidle": None}),
    File("monitoring_attrs/probes/*/filters/nr_filters", "count", "probes[*].filters", nearest=_USER),
    File(f"{_PROBE}/type", "word", "probes[*].filters[*].filter_type", "anon", None, _USER, words=PROBE_FILTERS),
    File(f"{_PROBE}/matching", "bool", "probes[*].filters[*].matching", False),
    File(f"{_PROBE}/allow", "bool", "probes[*].filters[*].allow", False),
    File(f"{_PROBE}/path", "cgroup", "probes[*].filters[*].memcg_path", "", None, _USER, optional=True),
    File(f"{_PROBE}/min", "ulong", "probes[*].filters[*].hugepage_size.min", 0, (7, 4), _USER, optional=True),
    File(f"{_PROBE}/max", "ulong", "probes[*].filters[*].hugepage_size.max", 0, (7, 4), _USER, optional=True),
    # -- targets
    File("targets/nr_targets", "count", "targets"),
    File("targets/*/pid_target", "int_or_einval", "targets[*].pid", optional=True),
    File("targets/*/regions/nr_regions", "count", "targets[*].regions"),
    File("targets/*/regions/*/start", "ulong", "targets[*].regions[*].start"),
    File("targets/*/regions/*/end", "ulong", "targets[*].regions[*].end"),
    File("targets/*/obsolete_target", "bool", first=False, since=(6, 19)),
    # -- schemes
    File("schemes/nr_schemes", "count", "schemes"),
    File("schemes/*/action", "word", "schemes[*].action", "stat",
         words={row.name: row.known_since for row in ACTIONS.values()}),
    File("schemes/*/access_pattern/sz/min", "ulong", "schemes[*].access_pattern.sz_bytes.min"),
    File("schemes/*/access_pattern/sz/max", "ulong", "schemes[*].access_pattern.sz_bytes.max"),
    File("schemes/*/access_pattern/nr_accesses/min", "ulong", "schemes[*].access_pattern.nr_accesses.min"),
    File("schemes/*/access_pattern/nr_accesses/max", "ulong", "schemes[*].access_pattern.nr_accesses.max"),
    File("schemes/*/access_pattern/age/min", "ulong", "schemes[*].access_pattern.age.min"),
    File("schemes/*/access_pattern/age/max", "ulong", "schemes[*].access_pattern.age.max"),
    File("schemes/*/apply_interval_us", "ulong", "schemes[*].apply_interval_us", 0, (6, 7),
         "0, the aggregation interval"),
    File("schemes/*/target_nid", "int", "schemes[*].target_nid", -1, (6, 11), optional=True),
    File("schemes/*/dests/nr_dests", "count", "schemes[*].dests", 0, (6, 17), "one node: target_nid"),
    File("schemes/*/dests/*/id", "uint", "schemes[*].dests[*].id"),
    File("schemes/*/dests/*/weight", "uint", "schemes[*].dests[*].weight"),
    File("schemes/*/quotas/ms", "ulong_or_einval", "schemes[*].quotas.time_ms"),
    File("schemes/*/quotas/bytes", "ulong_or_einval", "schemes[*].quotas.sz_bytes"),
    File("schemes/*/quotas/reset_interval_ms", "ulong_or_einval", "schemes[*].quotas.reset_interval_ms"),
    File("schemes/*/quotas/effective_bytes", "ulong", since=(6, 9), mode=READ_ONLY),
    File("schemes/*/quotas/weights/sz_permil", "uint", "schemes[*].quotas.weights.sz_permil"),
    File("schemes/*/quotas/weights/nr_accesses_permil", "uint", "schemes[*].quotas.weights.nr_accesses_permil"),
    File("schemes/*/quotas/weights/age_permil", "uint", "schemes[*].quotas.weights.age_permil"),
    File("schemes/*/quotas/goals/nr_goals", "count", "schemes[*].quotas.goals", 0, (6, 8), "a fixed quota"),
    File("schemes/*/quotas/goals/*/target_metric", "word", "schemes[*].quotas.goals[*].metric", "user_input", (6, 9),
         "user_input, with a value that you measure", words=SINCE),
    File("schemes/*/quotas/goals/*/target_value", "ulong", "schemes[*].quotas.goals[*].target_value"),
    File("schemes/*/quotas/goals/*/current_value", "ulong", "schemes[*].quotas.goals[*].current_value"),
    File("schemes/*/quotas/goals/*/nid", "int", "schemes[*].quotas.goals[*].nid", 0, (6, 16), optional=True),
    File("schemes/*/quotas/goals/*/path", "cgroup", "schemes[*].quotas.goals[*].memcg_path", "", (6, 19),
         optional=True),
    File("schemes/*/quotas/goal_tuner", "word", "schemes[*].quotas.goal_tuner", "consist", (7, 1), "consist",
         words={"consist": None, "temporal": None}),  # 8719c59c4b92
    File("schemes/*/quotas/fail_charge_num", "uint", "schemes[*].quotas.fail_charge_num", 0, (7, 2),
         "0: what failed is charged in full"),  # c7ec7d5f6b3d
    File("schemes/*/quotas/fail_charge_denom", "uint", "schemes[*].quotas.fail_charge_denom", 0, (7, 2),
         "0: what failed is charged in full"),
    File("schemes/*/watermarks/metric", "word", "schemes[*].watermarks.metric", "none",
         words={"none": None, "free_mem_rate": None}),
    File("schemes/*/watermarks/interval_us", "ulong", "schemes[*].watermarks.interval_us"),
    File("schemes/*/watermarks/high", "ulong", "schemes[*].watermarks.high_permil"),
    File("schemes/*/watermarks/mid", "ulong", "schemes[*].watermarks.mid_permil"),
    File("schemes/*/watermarks/low", "ulong", "schemes[*].watermarks.low_permil"),
    # The directory `filters` takes all types; the two that came later are asked one after the other.
    *_filters("filters", FILTERS, (6, 3)),
    *_filters("core_filters", _CORE, (6, 15)),
    *_filters("ops_filters", _OPS, (6, 15)),
    # -- what schemes did
    *(
        File(f"schemes/*/stats/{row.name}", "ulong", since=row.since, mode=READ_ONLY)
        for row in STATISTICS.values()
        if row.since is not None
    ),
    File("schemes/*/stats/max_nr_snapshots", "ulong", "schemes[*].max_nr_snapshots", 0, (7, 0),
         "end the monitoring, or the user engine"),
    File("schemes/*/tried_regions/total_bytes", "ulong", since=(6, 6), mode=READ_ONLY),
    File("schemes/*/tried_regions/*/start", "ulong", mode=READ_ONLY),
    File("schemes/*/tried_regions/*/end", "ulong", mode=READ_ONLY),
    File("schemes/*/tried_regions/*/nr_accesses", "ulong", mode=READ_ONLY),
    File("schemes/*/tried_regions/*/age", "ulong", mode=READ_ONLY),
    File("schemes/*/tried_regions/*/sz_filter_passed", "ulong", since=(6, 14), mode=READ_ONLY),
    File("schemes/*/tried_regions/*/probes/*/hits", "ulong", since=(7, 2), mode=READ_ONLY),
)  # fmt: skip

# Beside the context's directory, and what may be written to `state`.
KDAMOND_FILES = (
    File("state", "word", first="off"),
    File("pid", "int", first=-1, mode=READ_ONLY),
    File("refresh_ms", "uint", since=(6, 17)),
)
COMMANDS: Words = {
    "on": None,
    "off": None,
    "commit": None,
    "commit_schemes_quota_goals": (6, 8),
    "update_schemes_stats": None,
    "update_schemes_tried_bytes": (6, 6),
    "update_schemes_tried_regions": (6, 2),
    "clear_schemes_tried_regions": (6, 2),
    "update_schemes_effective_quotas": (6, 9),
    "update_tuned_intervals": (6, 17),
}

_NUMBER = re.compile(r"(?<=/)\d+|(?<=\[)\d+(?=\])")


def pattern(place: str) -> str:
    """A path below the context, or a field of it, with ``*`` for each number."""
    return _NUMBER.sub("*", place)


@functools.cache
def files_in(directory: str) -> tuple[File, ...]:
    """The files that are directly in the directories of a pattern, e.g. ``schemes/*/quotas``, in the table's order."""
    return tuple(file for file in FILES if file.directory == directory)


def counter_in(directory: str) -> File:
    """The file of such a directory that says how many numbered directories there are."""
    (counter,) = (file for file in files_in(directory) if file.kind == "count")
    return counter
