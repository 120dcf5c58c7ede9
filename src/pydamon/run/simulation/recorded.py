"""What a record says of its processes, held so that a simulated machine can play it again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import age_s
from pydamon.analysis.whatif.ages import AgesAccumulator
from pydamon.analysis.whatif.hazard import LEVELS_S, unseen_by_regions
from pydamon.analysis.whatif.part import COLUMNS, looks_of, part_of
from pydamon.errors import PydamonError, RequestError
from pydamon.ops.sim.field import CELLS, Hazard, Piece, memory_of
from pydamon.ops.sim.replay import Played
from pydamon.records.batch import RegionBatch
from pydamon.spans import coarser
from pydamon.spec.units import format_duration_ns, format_size
from pydamon.workload import intervals
from pydamon.workload.intervals import Spans
from pydamon.workload.model import MAX_DURATION_MS, MAX_TOTAL_BYTES

if TYPE_CHECKING:
    from pydamon.core.panel import Look
    from pydamon.records.joined import AnyReader

MOST_ROWS = 16_000_000  # of regions are held at once: about 0.4 GiB
_RANGES = 8  # that are monitored, at most: what lies in the smaller gaps between memory is monitored, too
_MOST_SPANS = 1 << 14  # of memory: of more the nearest are one
_LEAST_REGIONS, _MOST_REGIONS = 10, 100_000
_HIGHEST = 1 << 62  # an address of what is played; no processor has that many
_THERE = 0.5  # of a region is resident, and so it counts as memory


class Recorded:
    """One target of a record, as it is to be played: ``memory`` that it had at some time, all of which is there then.

    ``ranges`` were monitored; ``sample_us`` and ``aggr_us`` are the medians of the intervals, ``regions`` the bounds of
    their number. It begins ``begins_ns`` after the record does, and ends with its last snapshot ``lasting_s`` later.
    """

    def __init__(
        self, reader: AnyReader, target: int, gathered: _Gathered, looks: Mapping[int, Sequence[Look]]
    ) -> None:
        self.path, self.target = reader.path, target
        self.began_ns, self.lasting_s = gathered.began_ns, (gathered.ended_ns - gathered.began_ns) / 1e9
        self.has_panel = bool(looks)
        self.memory = coarser(gathered.memory.astype(np.uint64), _MOST_SPANS).astype(np.int64)
        self.ranges = coarser(gathered.whole.astype(np.uint64), _RANGES)
        self.sample_us, self.aggr_us = gathered.intervals()
        self.regions = _regions(reader.info.spec, gathered.most)
        self._mappings = reader.mappings_at(target, gathered.ended_ns)
        self._hazard = unseen_by_regions(gathered.ages.finish(), looks)
        self._rows = gathered.rows
        if self.bytes > MAX_TOTAL_BYTES:
            most = format_size(MAX_TOTAL_BYTES)
            raise PydamonError(
                f"{format_size(self.bytes)} were in memory; the most that is played is {most}", where=reader.path
            )
        if self.lasting_s > MAX_DURATION_MS / 1000:
            lasts, most = (format_duration_ns(round(ns)) for ns in (self.lasting_s * 1e9, MAX_DURATION_MS * 1e6))
            raise PydamonError(f"lasts {lasts}; the most that is played is {most}", where=reader.path)

    @property
    def bytes(self) -> int:
        """All memory."""
        return int((self.memory[:, 1] - self.memory[:, 0]).sum())

    def program(
        self, name: str = "recording", *, hidden: bool = True, after_ns: int = 0, longer_ns: int = 0, cells: int = CELLS
    ) -> Played:
        """It, played by a process that is there ``after_ns`` before the first snapshot, ``longer_ns`` after the last.

        ``hidden``: also the accesses of single pages in idle regions that only the panel tells of, without their place.
        """
        hazard: Hazard = self._hazard if hidden else np.zeros_like
        lasting_ns = after_ns + round(self.lasting_s * 1e9) + longer_ns
        lasting_ms = max(-(-lasting_ns // 1_000_000), 1)
        began_ns, rows = self.began_ns - after_ns, self._rows
        return Played(
            lambda: (piece for one in rows for piece in one.pieces(hazard, began_ns)),
            self.memory,
            self.ranges,
            self._mappings,
            lasting_ms,
            name,
            cells,
        )


def load(
    reader: AnyReader,
    *,
    target: int | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> list[Recorded]:
    """Each target of a record that had memory, or one; all of the time, or from ``start_ns`` to ``end_ns`` of it.

    Raises RequestError for one that is too large, PydamonError for one without snapshots or memory, or with addresses
    that no machine has.
    """
    span, part, window = part_of(reader, start_ns, end_ns)
    if reader.rows > MOST_ROWS:
        text = f"{reader.path} has {reader.rows:,} regions in all; at most {MOST_ROWS:,} can be played again"
        raise RequestError(text, where="start_ns, end_ns")
    gathered: dict[int, _Gathered] = {}
    for batch in window.of(reader.batches(columns=COLUMNS, target=target)):
        if batch.end.max(initial=0) > _HIGHEST:
            raise PydamonError(f"has a region above {_HIGHEST:#x}, where no memory is", where=reader.path)
        for number in batch.targets:
            mine = gathered.setdefault(number, _Gathered(AgesAccumulator(LEVELS_S, part, span[0])))
            mine.add(batch.of_target(number))
    if not gathered:
        of = "" if target is None else f" of target {target}"
        raise PydamonError(f"has no snapshot{of} in that time", where=reader.path)
    looks = looks_of(reader, part, target)
    found = [
        Recorded(reader, number, one, {number: looks[number]} if number in looks else {})
        for number, one in sorted(gathered.items())
        if len(one.memory)
    ]
    if not found:
        raise PydamonError("nothing of it was in memory", where=reader.path)
    return found


class _Gathered:
    """What has been read of one target."""

    def __init__(self, ages: AgesAccumulator) -> None:
        self.ages = ages
        self.rows: list[_Rows] = []
        self.memory: Spans = intervals.NOTHING
        self.whole: Spans = intervals.NOTHING
        self.began_ns = self.ended_ns = self.most = 0
        self._aggr_us: list[NDArray[np.int64]] = []
        self._samples: list[NDArray[np.int64]] = []

    def add(self, batch: RegionBatch) -> None:
        """More snapshots, later than all before."""
        if not self.rows:
            self.began_ns = int(batch.start_ns[0])
        self.ended_ns = int(batch.end_ns[-1])
        self.most = max(self.most, int(batch.counts.max()))
        self.ages.add(batch)
        self.rows.append(_Rows(batch))
        spans = np.stack([batch.start, batch.end], axis=1).astype(np.int64)
        there = batch.memory >= _THERE * (batch.end - batch.start)
        self.memory = memory_of(np.concatenate([self.memory, intervals.union(spans[there])]))
        self.whole = memory_of(np.concatenate([self.whole, intervals.union(spans)]))
        self._aggr_us.append(batch.aggr_us)
        self._samples.append(batch.max_nr_accesses)

    def intervals(self) -> tuple[int, int]:
        """Sampling and aggregation interval in us: the medians, where they were tuned."""
        aggr_us = int(np.median(np.concatenate(self._aggr_us)))
        samples = max(int(np.median(np.concatenate(self._samples))), 1)
        sample_us = max(aggr_us // samples, 1)
        return sample_us, sample_us * samples


class _Rows:
    """Snapshots, as little of them as is needed: 24 bytes for a region."""

    __slots__ = ("_end", "_idle_s", "_offsets", "_rate", "_start", "_start_ns")

    def __init__(self, batch: RegionBatch) -> None:
        self._start_ns, self._offsets = batch.start_ns.copy(), batch.offsets.copy()
        self._start, self._end = batch.start.astype(np.int64), batch.end.astype(np.int64)
        seconds = np.repeat(np.maximum(batch.aggr_us, 1) / 1e6, batch.counts)
        self._rate = (batch.nr_accesses / seconds).astype(np.float32)
        self._idle_s = age_s(batch).astype(np.float32)

    def pieces(self, hazard: Hazard, began_ns: int) -> Iterator[Piece]:
        """Each snapshot, ``began_ns`` being when it all begins."""
        offsets = self._offsets.tolist()
        for number, start_ns in enumerate((self._start_ns - began_ns).tolist()):
            rows = slice(offsets[number], offsets[number + 1])
            rate = self._rate[rows]
            rate = np.where(rate > 0, rate, hazard(self._idle_s[rows].astype(np.float64)))
            yield Piece(start_ns, self._start[rows], self._end[rows], rate)


def _regions(spec: Mapping[str, Any], most: int) -> tuple[int, int]:
    """The bounds of the number of regions: as they were recorded, or so that there can be as many."""
    try:
        bounds = spec["kdamonds"][0]["contexts"][0]["nr_regions"]
        low, high = int(bounds["min"]), int(bounds["max"])
    except (KeyError, IndexError, TypeError, ValueError):
        low, high = _LEAST_REGIONS, most
    return max(low, 3), min(max(high, most, low, 3), _MOST_REGIONS)
