"""Finding the snapshots of a time, or the last ones, in a record without reading the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pydamon.core.snapshot import Snapshot
from pydamon.records.batch import RegionBatch
from pydamon.records.decode import Damage, Decoder, Grouper, Rows, join
from pydamon.records.framing import Frame
from pydamon.records.index import TARGET

_AROUND = 2  # messages: a snapshot may begin in the one before, and the last ones of other targets are near


class Seeker:
    """The region messages of one record; ``most_targets`` as `Grouper`."""

    def __init__(
        self, path: str, frames: list[Frame], decoder: Decoder, read: Callable[[int, int], bytes], most_targets: int
    ) -> None:
        self._path = path
        self._frames = frames
        self._decoder = decoder
        self._read = read
        self._most_targets = most_targets
        self._ends: dict[int, int | None] = {}  # of each message that was looked at, when its first snapshot ends

    def around(self, time_ns: int) -> list[Snapshot]:
        """Snapshots in the order of the file, among them the last that end by that time, and the next ones after it."""
        low, high = 0, len(self._frames)
        while low < high:
            middle = (low + high) // 2
            end_ns = self._first_end(middle)
            if end_ns is None or end_ns <= time_ns:  # of a damaged one nothing is known; the next decides
                low = middle + 1
            else:
                high = middle
        first, behind = max(low - 1 - _AROUND, 0), low + _AROUND
        rows = self._decoder.decode(self._read, self._frames[first:behind], None, Damage())
        found = [one for batch in self._grouped(rows, Damage()) for one in batch.snapshots()]
        # The first one may have begun, and the last one go on, in messages that were not read.
        return found[first > 0 : len(found) - (behind < len(self._frames))]

    def _first_end(self, place: int) -> int | None:
        if place not in self._ends:
            rows = self._decoder.decode(self._read, [self._frames[place]], (), Damage())
            batches = self._grouped(rows, Damage())
            self._ends[place] = int(batches[0].end_ns[0]) if batches else None
        return self._ends[place]

    def _grouped(self, rows: Rows | None, damage: Damage) -> list[RegionBatch]:
        return Grouper(self._path, damage, self._most_targets).add(rows, last=True)

    def last(self, expected: set[int], damage: Damage) -> dict[int, Snapshot]:
        """The last snapshot of each target, until all that are ``expected`` are found; reads from the end."""
        found: dict[int, Snapshot] = {}
        held: Rows | None = None
        for place in range(len(self._frames) - 1, -1, -1):
            if expected and expected <= found.keys():
                break
            frame = self._frames[place]
            if held is not None and int(held.index[0, TARGET]) in found:
                held = None
            if found and held is None and self._decoder.targets(self._read, frame) <= found.keys():
                continue
            rows = self._decoder.decode(self._read, [frame], None, damage)
            if rows is None:
                continue
            if held is not None:
                rows, held = join([rows, held]), None
            if place:
                # The first snapshot of this batch may have begun in the one before.
                held, rows = rows.split(1)
            for batch in self._grouped(rows, damage):
                targets, from_end = np.unique(batch.target[::-1], return_index=True)
                for number, at in zip(targets.tolist(), (len(batch) - 1 - from_end).tolist(), strict=True):
                    if number not in found:
                        found[number] = batch.snapshot(at)
        return dict(sorted(found.items()))
