"""What the modules of a run tell: their numbers (`spec.module_numbers`), every five seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydamon.analysis.stat import stat, used_within
from pydamon.core.snapshot import Snapshot
from pydamon.engines.base import Engine, Rows
from pydamon.linux import compaction
from pydamon.modules.base import Use
from pydamon.modules.chains import fast_nodes
from pydamon.modules.registry import schemes_of
from pydamon.modules.tier import TierKnobs
from pydamon.run.counters import counters_of, huge_of
from pydamon.run.hot_memory import hot_and_fast, nodes_bytes
from pydamon.spec.actions import MIGRATIONS
from pydamon.spec.words.refaults import taken_at_s

EVERY_NS = 5_000_000_000
_WINDOW_US = 120_000_000
_COUNTERS = ("refaulted_bytes", "major_faults", "swapped_in_bytes", "memory_stall_us", "io_stall_us")

Values = dict[str, list[int]]


class ModuleNumbers:
    """The numbers of ``uses`` on an engine. `note` is for the loop's thread, `latest` may be read from any.

    Counters are since this was made.
    """

    def __init__(self, uses: Sequence[Use], engine: Engine) -> None:
        self.latest: dict[str, Values] = {}  # by module; replaced as a whole
        self._whole: Sequence[Snapshot] = ()  # the last ones that were not cut short
        self._uses = tuple(uses)
        self._engine = engine
        self._began_ns = engine.clock.now_ns()
        self._due_ns = self._began_ns + EVERY_NS
        self._counters = counters_of(engine)
        self._first = self._counters()
        self._huge = huge_of(engine)

    def note(self, now_ns: int, snapshots: Sequence[Snapshot], *, at_end: bool = False) -> Rows:
        """What is to be recorded now: rows of the side table ``modules``; at the end in any case."""
        aggr_us = self._engine.context.intervals.aggr_us
        if any(2 * snapshot.aggr_us >= aggr_us for snapshot in snapshots):  # the end cuts the last one short
            self._whole = snapshots
        if now_ns < self._due_ns and not at_end:
            return []
        self._due_ns = now_ns + EVERY_NS
        found = {"cpu_ns": time.process_time_ns(), **self._of_memory(self._whole)}
        since = self._counters().since(self._first)
        found |= {name: getattr(since, name) for name in _COUNTERS}
        if any("huge_bytes" in use.module.numbers for use in self._uses):
            found["huge_bytes"] = self._huge()
        if any("free_bytes" in use.module.numbers for use in self._uses) and (told := compaction.free()) is not None:
            found |= {"free_bytes": told.all_bytes, "whole_free_bytes": told.whole_bytes}
        self.latest = {use.module.name: self._of(use, found) for use in self._uses}
        return [
            {"module": module, "number": number, "values": values}
            for module, numbers in self.latest.items()
            for number, values in numbers.items()
        ]

    def _of(self, use: Use, found: dict[str, Any]) -> Values:
        found = found | self._of_schemes(use)
        if isinstance(use.knobs, TierKnobs):
            found |= self._of_tiers(use, use.knobs)
        told = {name: found.get(name) for name in use.module.numbers}
        return {
            name: value if isinstance(value, list) else [int(value)]
            for name, value in told.items()
            if value is not None
        }

    def _of_schemes(self, use: Use) -> dict[str, int | None]:
        """Those whose names begin with the module's; their lowest age is the module's."""
        states = schemes_of(use.module.name, self._engine.schemes())
        ages = [age for state in states if (age := taken_at_s(state.scheme)) is not None]
        return {
            "taken_bytes": sum(state.stats.sz_applied for state in states),
            "charged_bytes": sum(state.quota.total_charged_bytes for state in states),
            "charged_ns": sum(state.quota.total_charged_ns for state in states),
            "used_up": sum(state.stats.qt_exceeds for state in states),
            "min_age_us": round(min(ages) * 1e6) if ages else None,
            "added_bytes": sum(state.stats.sz_added for state in states),
            "refused_bytes": sum(state.stats.sz_refused for state in states),
            "given_back_bytes": sum(s.stats.sz_applied for s in states if s.scheme.action == "pageout"),
        }

    def _of_tiers(self, use: Use, knobs: TierKnobs) -> dict[str, int | None]:
        """What was moved which way, and where what is hot is now."""
        states = schemes_of(use.module.name, self._engine.schemes())
        moved = {action: sum(s.stats.sz_applied for s in states if s.scheme.action == action) for action in MIGRATIONS}
        fast = fast_nodes(knobs.chains)
        hot = hot_and_fast(self._engine, self._whole, knobs.hot_permil / 1000, fast, seed=self._due_ns)
        quotas = [state.scheme.quotas for state in states]
        left = [quota.sz_bytes * 10_000 // knobs.quota.sz_bytes for quota in quotas if knobs.quota.sz_bytes]
        return {
            "promoted_bytes": moved["migrate_hot"],
            "demoted_bytes": moved["migrate_cold"],
            "moved_back_bytes": self._engine.moved_back_bytes(),
            "hot_bytes": None if hot is None else hot[0],
            "hot_fast_bytes": None if hot is None else hot[1],
            "fast_node_bytes": nodes_bytes(self._engine, fast),
            "quota_left_bp": min(left, default=None),
        }

    def _of_memory(self, snapshots: Sequence[Snapshot]) -> dict[str, Any]:
        now = stat(snapshots)
        if now is None:
            return {}
        resident, used = used_within(snapshots, _WINDOW_US)
        seen = self._engine.clock.now_ns() - self._began_ns >= _WINDOW_US * 1000
        return {
            "resident_bytes": resident,
            "working_set_bytes": used if seen else None,
            "bandwidth_bytes_per_s": now.bandwidth_bytes_per_s,
            "aggr_us": now.aggr_us,
            "idle_ms": now.idle_ms.tolist(),
        }
