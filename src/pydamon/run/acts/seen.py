"""What snapshots say of memory as a whole, as controllers see it: what is there, in use, and not used for how long."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.modules.controller import ColdBytes

_AGES_S = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 86400)
_UNKNOWN = np.iinfo(np.uint64).max  # of how much of a region is in memory


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Of all targets together; fields are those of `modules.controller.Observations`."""

    resident_bytes: int
    working_set_bytes: int
    cold: tuple[ColdBytes, ...]


def seen(snapshots: Sequence[Snapshot]) -> Seen | None:
    """What these snapshots, one of each target, say; None if there are none. What could not be asked is in use."""
    told = [snapshot for snapshot in snapshots if len(snapshot.start)]
    if not told:
        return None
    memory = [_memory(snapshot) for snapshot in told]
    idle = [_idle_us(snapshot) for snapshot in told]
    size, age_us = np.concatenate(memory), np.concatenate(idle)
    resident = int(size.sum(dtype=np.uint64))
    cold = tuple(
        ColdBytes(age_s * 1_000_000, int(size[age_us >= age_s * 1_000_000].sum(dtype=np.uint64))) for age_s in _AGES_S
    )
    return Seen(
        resident_bytes=resident,
        working_set_bytes=int(size[age_us < 0].sum(dtype=np.uint64)),
        cold=cold,
    )


def _memory(snapshot: Snapshot) -> NDArray[np.uint64]:
    """What of each region is in memory; all of it where nothing is known of any."""
    size: NDArray[np.uint64] = snapshot.end - snapshot.start
    resident = snapshot.column("resident")
    if resident is None or (resident == _UNKNOWN).all():
        return size
    return np.where(resident == _UNKNOWN, size, resident).astype(np.uint64)


def _idle_us(snapshot: Snapshot) -> NDArray[np.int64]:
    """For how long nobody has used each region; -1: it was used in this aggregation, or nobody knows."""
    age_ms = snapshot.column("age_ms")
    age_us = snapshot.age.astype(np.int64) * snapshot.aggr_us if age_ms is None else age_ms.astype(np.int64) * 1000
    used = snapshot.nr_accesses > 0
    unknown = snapshot.column("unknown")
    if unknown is not None:
        used |= unknown.astype(np.int64) >= snapshot.max_nr_accesses
    return np.where(used, -1, age_us)
