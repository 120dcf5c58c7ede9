"""Whether accesses go on as they were: from aggregation to aggregation, beyond what the chance of sampling explains.

What goes on as it was needs no close look, and a bound on the cost may be lower (`engines.user.spending`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pydamon.core.snapshot import Snapshot
from pydamon.spans import distinct

F64 = NDArray[np.float64]

STEADY = 10  # aggregations in a row without a change
_CHANGED = 0.4  # of the accesses are elsewhere, or more or fewer
_CHANCE = 1.5  # standard deviations of what two counts differ by: so much is taken for chance
_LEAST = 0.04  # of all that could be: fewer accesses than this do not make a change by themselves
_ALIKE = 0.05  # sampling intervals that differ by less


class Steadiness:
    """Looks at the snapshots of each aggregation. ``aggregations`` have been without a change by now, in a row."""

    def __init__(self) -> None:
        self.aggregations = 0
        self._before: Mapping[int, Snapshot] = {}

    @property
    def steady(self) -> bool:
        """Whether accesses have been as they are for some time."""
        return self.aggregations >= STEADY

    def look(self, snapshots: Sequence[Snapshot]) -> None:
        """Those of an aggregation. That other sampling intervals find another share of accesses is no change."""
        before, self._before = self._before, {snapshot.target: snapshot for snapshot in snapshots}
        if before.keys() != self._before.keys():
            self.aggregations = 0
            return
        pairs = [(before[target], now) for target, now in self._before.items()]
        if any(abs(now.sample_us - old.sample_us) > _ALIKE * old.sample_us for old, now in pairs):
            return
        found = sum((_compared(old, now) for old, now in pairs), start=np.zeros(3))  # without a target there is no pair
        moved, accesses, possible = found.tolist()
        self.aggregations = 0 if moved > _CHANGED * max(accesses, _LEAST * possible) else self.aggregations + 1


def _compared(old: Snapshot, now: Snapshot) -> F64:
    """Accesses that differ, those of the snapshot with more, and what could be: in bytes x share of samples."""
    cuts = distinct(np.concatenate([old.start, old.end, now.start, now.end]))
    if len(cuts) < 2:
        return np.zeros(3)
    places = cuts[:-1]
    (frequent, _), (frequency, density) = _at(old, places), _at(now, places)
    size = (cuts[1:] - places) * density
    chance = _CHANCE * np.sqrt((frequent + frequency) / min(old.max_nr_accesses, now.max_nr_accesses))
    moved = np.maximum(np.abs(frequency - frequent) - chance, 0.0)
    return np.array([(size * moved).sum(), (size * np.maximum(frequent, frequency)).sum(), size.sum()])


def _at(snapshot: Snapshot, places: NDArray[np.uint64]) -> tuple[F64, F64]:
    """At each address: the share of samples with an access, and what part of the memory is there (0: no region)."""
    if not len(snapshot.start):
        return np.zeros(len(places)), np.zeros(len(places))
    region = np.maximum(np.searchsorted(snapshot.start, places, "right") - 1, 0)
    inside = (places >= snapshot.start[region]) & (places < snapshot.end[region])
    frequency = snapshot.nr_accesses / snapshot.max_nr_accesses
    density = snapshot.known_memory / (snapshot.end - snapshot.start)
    return frequency[region] * inside, density[region] * inside
