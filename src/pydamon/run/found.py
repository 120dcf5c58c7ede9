"""What an engine has found in one aggregation, with what belongs to it: gathered once, for all who look at it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pydamon.engines.base import Engine, Rows
from pydamon.linux.footprint import read_footprint

if TYPE_CHECKING:  # starting up counts against the bound on the CPU share
    from pydamon.core.snapshot import Snapshot
    from pydamon.linux import process
    from pydamon.linux.containers import Container

SECOND_NS = 1_000_000_000
_MOST_FOOTPRINTS = 64
_MOST_PLACES = 64  # looked up anew in a second: a file each, and one for a container's names
_PLACE_NS = 60 * SECOND_NS  # after that a process may have been moved
_COST = ("checks", "check_ns", "clears", "clear_ns", "disturb_ns", "samples", "asked_ns", "sampled_ns")


class Found(msgspec.Struct, frozen=True, eq=False):
    """``snapshots`` of all targets at ``time_ns`` (by the engine's clock), and what their targets have ``mapped``.

    ``tables`` are rows of side tables (`records.side_tables`) by name; once a ``second`` they tell more. ``places``: in
    which cgroup and container targets are, where that was looked up anew. At the ``end`` there are no snapshots.
    """

    time_ns: int
    snapshots: Sequence[Snapshot]
    mapped: Mapping[int, list[process.Mapping]]
    tables: Mapping[str, Rows]
    second: bool
    places: Mapping[int, Container] = msgspec.field(default_factory=dict)
    end: bool = False


class Origin(msgspec.Struct, frozen=True):
    """Who finds it: the ``engine`` (its kind), its operations set and primitive, and why these, as far as it is known.

    ``targets`` are rows of the side table ``targets``: who was there first. ``wall_offset_ns`` added to a time gives
    nanoseconds since the epoch; None: the time is not the machine's.
    """

    engine: str | None
    engine_reason: str | None
    ops: str | None
    primitive: str | None
    primitive_reason: str | None
    targets: Rows
    wall_offset_ns: int | None


class Observer(Protocol):
    """Sees all that is found, in the thread that monitors: it must be quick."""

    def begin(self, origin: Origin) -> object:
        """Once, before the rest."""
        ...

    def note(self, found: Found) -> object:
        """Once per aggregation, and at the end (without snapshots)."""
        ...


class Gatherer:
    """Asks the engine and the machine for what belongs to snapshots; ``places``: also in which containers they are."""

    def __init__(self, engine: Engine, *, places: bool) -> None:
        self._engine = engine
        self._due_ns = engine.clock.now_ns() + SECOND_NS
        self._schemes_ns: int | None = None
        self._wants_places = places
        self._places_ns: dict[int, int] = {}  # when each target's was looked up

    def find(self, now_ns: int, snapshots: list[Snapshot], joined: Rows) -> Found:
        """What there is at the end of an aggregation; ``joined`` are who has joined by now."""
        engine = self._engine
        tables = {"targets": joined, **engine.side_rows(snapshots)}
        mapped = {snapshot.target: engine.mappings(snapshot.target) for snapshot in snapshots}
        second = now_ns >= self._due_ns
        places: dict[int, Container] = {}
        if second:
            self._due_ns = now_ns + SECOND_NS
            tables |= self._of_engine(now_ns)
            tables["footprint"] = _footprints(self._pids())
        if self._wants_places and (second or joined or not self._places_ns):
            places = self._places(now_ns, self._pids())
        return Found(now_ns, snapshots, mapped, tables, second, places)

    def last(self, now_ns: int, joined: Rows) -> Found:
        """What is still to be told when the monitoring has ended."""
        tables = {"targets": joined, **self._engine.side_rows([]), **self._of_engine(now_ns)}
        return Found(now_ns, [], {}, tables, True, end=True)

    def _pids(self) -> dict[int, int]:
        return {target: pid for target, pid in self._engine.living().items() if pid is not None}

    def _of_engine(self, now_ns: int) -> dict[str, Rows]:
        tables: dict[str, Rows] = {}
        cost = self._engine.cost()
        if cost is not None:
            row: dict[str, Any] = {"cpu_ns": time.process_time_ns()}
            tables["cost"] = [row | {name: getattr(cost, name) for name in _COST}]
        states = self._engine.schemes()
        if states and self._schemes_ns != now_ns:
            from pydamon.records.scheme_tables import scheme_rows

            self._schemes_ns = now_ns
            tables["schemes"] = scheme_rows(now_ns, states)
        return tables

    def _places(self, now_ns: int, pids: Mapping[int, int]) -> dict[int, Container]:
        from pydamon.linux import containers

        for target in self._places_ns.keys() - pids.keys():
            del self._places_ns[target]
        due = [target for target in pids if now_ns - self._places_ns.get(target, -_PLACE_NS) >= _PLACE_NS]
        found = {}
        for target in due[:_MOST_PLACES]:
            self._places_ns[target] = now_ns
            found[target] = containers.named(containers.parse(containers.cgroup_of(pids[target])))
        return found


def _footprints(pids: Mapping[int, int]) -> Rows:
    """How large the processes are; of many only the first: it is a file each."""
    sizes = ((target, read_footprint(pid)) for target, pid in list(pids.items())[:_MOST_FOOTPRINTS])
    return [{"target": target, **size} for target, size in sizes if size is not None]
