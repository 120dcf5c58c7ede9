"""The directories of schemes: access pattern, quotas with goals, watermarks, filters, destinations, results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydamon.core.scheme_state import SchemeState, Tried
from pydamon.damonfs.formats import U64_MAX
from pydamon.damonfs.levels import Level
from pydamon.damonfs.nodes import (
    BOOL,
    INT,
    TEXT,
    UINT,
    ULONG,
    ULONG_OR_EINVAL,
    Budget,
    Directory,
    Node,
    Numbered,
    Value,
    one_of,
)
from pydamon.spec.schemes import CORE_FILTERS, MAX_FILTERS, MAX_SCHEMES

_MOST = 1024  # goals, destinations
_TRIED = ("start", "end", "nr_accesses", "age", "sz_filter_passed")


class TriedRegions(Directory):
    """What a scheme tried last: ``total_bytes``, and one directory per region, made when somebody looks."""

    __slots__ = ("_fields", "_found", "_has_probes", "_hits", "_rows")

    def __init__(self, level: Level) -> None:
        self._fields = _TRIED if level.has("sz_filter_passed") else _TRIED[:-1]
        self._has_probes = level.has("probes")
        self._rows: list[tuple[int, ...]] = []
        self._hits: list[list[int]] = []  # per region and probe
        self._found: dict[str, Directory] = {}
        super().__init__({"total_bytes": Value(ULONG, 0, mode=0o400)})

    def clear(self) -> None:
        """Forget the regions and their bytes."""
        self.fill([], 0)

    def fill(self, parts: Sequence[Tried], total_bytes: int) -> None:
        """Show the regions of ``parts``; ``total_bytes`` may be told without any."""
        rows: list[tuple[int, ...]] = []
        hits: list[list[int]] = []
        for part in parts:
            columns = (part.start, part.end, part.nr_accesses, part.age, part.sz_filter_passed)
            rows += zip(*(column.tolist() for column in columns), strict=True)
            hits += part.probe_hits.T.tolist() if len(part.probe_hits) else [[]] * len(part.start)
        found, self._found, self._rows, self._hits = self._found, {}, rows, hits
        for directory in found.values():
            directory.replace({})
            directory.removed = True
        self.set("total_bytes", total_bytes)

    def names(self) -> list[str]:
        return [*super().names(), *map(str, range(len(self._rows)))]

    def nr_directories(self) -> int:
        return len(self._rows)

    def get(self, name: str) -> Node | None:
        node = super().get(name) or self._found.get(name)
        if node is not None or not (name.isascii() and name.isdecimal()) or len(name) > 9:
            return node
        rows, number = self._rows, int(name)
        if str(number) != name or number >= len(rows):
            return None
        values = zip(self._fields, rows[number], strict=False)
        children: dict[str, Node] = {field: Value(ULONG, value, mode=0o400) for field, value in values}
        if self._has_probes:
            each = [Directory({"hits": Value(ULONG, hits, mode=0o400)}) for hits in self._hits[number]]
            children["probes"] = Directory({str(probe): directory for probe, directory in enumerate(each)})
        return self._found.setdefault(name, Directory(children))


class SchemeTree:
    """Makes the directories of schemes for one kernel level."""

    def __init__(self, level: Level, budget: Budget, guard: Callable[[], Any]) -> None:
        self._level = level
        self._actions = one_of(level.actions)
        self._metrics = one_of(level.metrics)
        self._watermarks = one_of(("none", "free_mem_rate"))
        self._tuners = one_of(("consist", "temporal"))
        types = level.filters
        self._filters = {
            "filters": one_of(types),
            "core_filters": one_of(set(types) & CORE_FILTERS),
            "ops_filters": one_of(set(types) - CORE_FILTERS),
        }
        self._budget = budget
        self._guard = guard

    def schemes(self) -> Numbered:
        """The directory ``schemes``."""
        return self._numbered("nr_schemes", self.scheme, MAX_SCHEMES)

    def _numbered(self, counter: str, make: Callable[[int], Directory], most: int) -> Numbered:
        return Numbered(counter, make, budget=self._budget, guard=self._guard, most=most)

    def scheme(self, _: int = 0) -> Directory:
        """One scheme, as the kernel makes it: everything 0, the action ``stat``."""
        has = self._level.has
        directories = ("filters", "core_filters", "ops_filters") if has("filter_directories") else ("filters",)
        children: dict[str, Node] = {
            "action": Value(self._actions, "stat"),
            "apply_interval_us": Value(ULONG, 0),
            "target_nid": Value(INT, -1),
            "access_pattern": Directory({name: _range() for name in ("sz", "nr_accesses", "age")}),
            "quotas": self._quotas(),
            "watermarks": self._watermark_directory(),
            **{name: self._numbered("nr_filters", self._filter_maker(name), MAX_FILTERS) for name in directories},
            "stats": self._stats(),
            "tried_regions": TriedRegions(self._level),
        }
        if has("dests"):
            children["dests"] = self._numbered("nr_dests", _destination, _MOST)
        return Directory(children)

    def _quotas(self) -> Directory:
        children: dict[str, Node] = {
            "ms": Value(ULONG_OR_EINVAL, 0),
            "bytes": Value(ULONG_OR_EINVAL, 0),
            "reset_interval_ms": Value(ULONG_OR_EINVAL, 0),
            "effective_bytes": Value(ULONG, 0, mode=0o400),
            "weights": Directory({f"{name}_permil": Value(UINT, 0) for name in ("sz", "nr_accesses", "age")}),
            "goals": self._numbered("nr_goals", self._goal, _MOST),
        }
        if self._level.has("goal_tuner"):
            children["goal_tuner"] = Value(self._tuners, "consist")
        if self._level.has("fail_charge"):
            children |= {f"fail_charge_{part}": Value(UINT, 0) for part in ("num", "denom")}
        return Directory(children)

    def _goal(self, _: int) -> Directory:
        children: dict[str, Node] = {
            "target_metric": Value(self._metrics, "user_input"),
            "target_value": Value(ULONG, 0),
            "current_value": Value(ULONG, 0),
        }
        if self._level.has("goal_nid"):
            children["nid"] = Value(INT, 0)
        if self._level.has("goal_path"):
            children["path"] = Value(TEXT, "")
        return Directory(children)

    def _watermark_directory(self) -> Directory:
        numbers: dict[str, Node] = {name: Value(ULONG, 0) for name in ("interval_us", "high", "mid", "low")}
        return Directory({"metric": Value(self._watermarks, "none"), **numbers})

    def _filter_maker(self, directory: str) -> Callable[[int], Directory]:
        kind = self._filters[directory]
        # What a new filter is in the kernel, also where that is not one of the directory's types.
        first = "anon"

        def make(_: int) -> Directory:
            children: dict[str, Node] = {
                "type": Value(kind, first),
                "matching": Value(BOOL, False),
                "memcg_path": Value(TEXT, ""),
                "addr_start": Value(ULONG, 0),
                "addr_end": Value(ULONG, 0),
                "damon_target_idx": Value(INT, 0),
            }
            if self._level.has("allow"):
                children["allow"] = Value(BOOL, False)
            if self._level.has("filter_sizes"):
                children |= {name: Value(ULONG, 0) for name in ("min", "max")}
            return Directory(children)

        return make

    def _stats(self) -> Directory:
        children: dict[str, Node] = {name: Value(ULONG, 0, mode=0o400) for name in self._level.statistics}
        if self._level.has("max_nr_snapshots"):
            children["max_nr_snapshots"] = Value(ULONG, 0)
        return Directory(children)


def _range() -> Directory:
    return Directory({"min": Value(ULONG, 0), "max": Value(ULONG, 0)})


def _destination(_: int) -> Directory:
    return Directory({"id": Value(UINT, 0), "weight": Value(UINT, 0)})


def show_stats(scheme: Directory, state: SchemeState) -> None:
    """Write what a running scheme did into its files."""
    stats = scheme["stats"]
    for name, value in state.stats.by_name().items():
        if name in stats:
            stats.set(name, value)


def show_effective_bytes(scheme: Directory, state: SchemeState) -> None:
    """Write the effective quota of a running scheme into its file.

    As in the kernel it is 0 without a quota and before the first window.
    """
    known = state.scheme.quotas.limited and state.stats.nr_snapshots
    unlimited = U64_MAX if state.quota.esz is None else state.quota.esz
    scheme.set("quotas/effective_bytes", unlimited if known else 0)
