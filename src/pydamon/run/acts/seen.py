"""What snapshots say of memory as a whole, as controllers see it: what is there, in use, and not used for how long."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from pydamon.analysis.distribution import unaccessed_s
from pydamon.core.panel import BOUNDS_S
from pydamon.core.snapshot import Snapshot
from pydamon.modules.controller import ColdBytes, Observations
from pydamon.records.batch import RegionBatch

_HUGE_PAGE = 2 << 20
_AGES_S = BOUNDS_S[1:]


def with_snapshots(observed: Observations, snapshots: Sequence[Snapshot]) -> Observations:
    """With what these snapshots, one of each target, say of all together. What could not be asked is in use."""
    told = [snapshot for snapshot in snapshots if len(snapshot.start)]
    if not told:
        return observed
    batch = RegionBatch.of(told)
    size, idle_s, blind = batch.memory + batch.unknown_memory, unaccessed_s(batch), batch.blind
    if blind is not None:
        idle_s = np.where(blind, -1.0, idle_s)
    resident = int(size.sum())
    return msgspec.structs.replace(
        observed,
        current_bytes=resident if observed.current_bytes is None else observed.current_bytes,
        resident_bytes=resident,
        max_nr_accesses=told[-1].max_nr_accesses,
        hottest_nr_accesses=_hottest(batch),
        snapshot_ns=max(snapshot.end_ns for snapshot in told),
        working_set_bytes=int(size[idle_s < 0].sum()),
        cold=tuple(ColdBytes(age_s * 1_000_000, int(size[idle_s >= age_s].sum())) for age_s in _AGES_S),
    )


def _hottest(batch: RegionBatch) -> int:
    """The most samples that any region of 2 MiB or more has; of a batch, and so of snapshots of the same intervals."""
    large = batch.end - batch.start >= np.uint64(_HUGE_PAGE)
    return int(batch.nr_accesses[large].max(initial=0))
