"""Says, once for each target, how much of it cannot be watched and why: huge pages of hugetlbfs, a device, locked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pydamon.core.columns import PER_REGION
from pydamon.core.regions import U64
from pydamon.core.snapshot import Snapshot
from pydamon.spec.units import format_size

_IN_A_ROW = 3  # snapshots: one alone may be bad luck
_GROWN = 2  # it is looked at again when there is so many times as much
_WORTH_A_WORD = 0.01  # of the target's memory: less is in records and reports only, for nearly every program has some
_UNKNOWN = next(column.unknown for column in PER_REGION if column.name == "resident")
Why = Callable[[int, U64, U64], Mapping[str, int]]  # of a target's regions [start, end): bytes by the reason


@dataclass(frozen=True, slots=True)
class Blind:
    """How many bytes of a target could not be watched at a time, and why."""

    time_ns: int
    target: int
    reason: str
    bytes: int


class Blindness:
    """Looks at each aggregation's snapshots for regions in which no sample was answered.

    ``why`` is asked seldom: when that is so for the first time in a target, and when it has become twice as much. Where
    nobody can tell, the reason is "". A line for the user comes once it is 1 % of the target's memory.
    """

    def __init__(self, why: Why | None = None) -> None:
        self._why = why
        self._in_a_row: dict[int, int] = {}
        self._known: dict[int, int] = {}  # how much, by target
        self._said: set[int] = set()
        self._notices: list[str] = []
        self._found: list[Blind] = []

    def look(self, snapshots: Sequence[Snapshot], window: int) -> None:
        """These are the results of an aggregation of ``window`` samples: all targets that live."""
        self._forget_except({snapshot.target for snapshot in snapshots})
        for snapshot in snapshots:
            unseen, target = blind_bytes(snapshot, window), snapshot.target
            times = self._in_a_row[target] = self._in_a_row.get(target, 0) + 1 if unseen else 0
            if times < _IN_A_ROW or unseen < _GROWN * self._known.get(target, 0):
                continue
            reasons = self._reasons(snapshot, window, unseen)
            self._found += [Blind(snapshot.end_ns, target, *each) for each in reasons.items()]
            if target not in self._said and unseen >= _WORTH_A_WORD * int(_counting(snapshot).sum(dtype=np.uint64)):
                self._said.add(target)
                told = ", ".join(f"{format_size(size)} {reason}" for reason, size in reasons.items() if reason)
                why = f" ({told})" if told else ""
                self._notices.append(
                    f"{format_size(unseen)} of target {target} cannot be watched{why}: whether they are accessed is "
                    "unknown, and no scheme takes them for cold"
                )
            self._known[target] = unseen

    def _forget_except(self, living: set[int]) -> None:
        for target in self._in_a_row.keys() - living:
            del self._in_a_row[target]
            self._known.pop(target, None)
        self._said &= living

    def _reasons(self, snapshot: Snapshot, window: int, unseen: int) -> Mapping[str, int]:
        column = snapshot.column("unknown")
        if self._why is None or column is None:
            return {"": unseen}
        blind = column >= window
        return self._why(snapshot.target, snapshot.start[blind], snapshot.end[blind]) or {"": unseen}

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        notices, self._notices = self._notices, []
        return notices

    def take_found(self) -> list[Blind]:
        """What was found since the last call."""
        found, self._found = self._found, []
        return found


def blind_bytes(snapshot: Snapshot, window: int) -> int:
    """How much memory of a snapshot is in regions without an answer to any of the ``window`` samples."""
    unknown = snapshot.column("unknown")
    if unknown is None:
        return 0
    return int(_counting(snapshot)[unknown >= window].sum(dtype=np.uint64))


def _counting(snapshot: Snapshot) -> U64:
    """Bytes of each region: what is resident, or the size where that is not known."""
    size, resident = snapshot.end - snapshot.start, snapshot.column("resident")
    counting: U64 = size if resident is None else np.where(resident == _UNKNOWN, size, resident)
    return counting
