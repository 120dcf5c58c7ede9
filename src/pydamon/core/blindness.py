"""Says, once for each target, how much of it cannot be watched: huge pages of hugetlbfs, a device, what is locked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pydamon.core.columns import PER_REGION
from pydamon.core.snapshot import Snapshot
from pydamon.spec.units import format_size

_IN_A_ROW = 3  # snapshots: one alone may be bad luck
_UNKNOWN = next(column.unknown for column in PER_REGION if column.name == "resident")


class Blindness:
    """Looks at each aggregation's snapshots for regions in which no sample was answered."""

    def __init__(self) -> None:
        self._in_a_row: dict[int, int] = {}
        self._said: set[int] = set()
        self._notices: list[str] = []

    def look(self, snapshots: Sequence[Snapshot], window: int) -> None:
        """These are the results of an aggregation of ``window`` samples."""
        for snapshot in snapshots:
            unseen = blind_bytes(snapshot, window)
            times = self._in_a_row[snapshot.target] = self._in_a_row.get(snapshot.target, 0) + 1 if unseen else 0
            if times == _IN_A_ROW and snapshot.target not in self._said:
                self._said.add(snapshot.target)
                self._notices.append(
                    f"{format_size(unseen)} of target {snapshot.target} cannot be watched: whether they are accessed "
                    "is unknown, and no scheme takes them for cold"
                )

    def take_notices(self) -> list[str]:
        """Lines for the user, each once."""
        notices, self._notices = self._notices, []
        return notices


def blind_bytes(snapshot: Snapshot, window: int) -> int:
    """How much memory of a snapshot is in regions without an answer to any of the ``window`` samples."""
    unknown = snapshot.column("unknown")
    if unknown is None:
        return 0
    size, resident = snapshot.end - snapshot.start, snapshot.column("resident")
    if resident is not None:
        size = np.where(resident == _UNKNOWN, size, resident)
    return int(size[unknown >= window].sum(dtype=np.uint64))
