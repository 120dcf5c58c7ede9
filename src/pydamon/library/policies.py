"""Policies on a recording: the real core and schemes on a simulated process that plays the recording again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import age_s
from pydamon.analysis.whatif.ages import AgesAccumulator
from pydamon.analysis.whatif.hazard import LEVELS_S, unseen_by_regions
from pydamon.engines.replay import ReplayEngine
from pydamon.errors import PydamonError, RequestError
from pydamon.library.build import make_spec
from pydamon.library.whatif import COLUMNS, looks_of, part_of
from pydamon.ops.sim.field import Hazard, Piece, RateField, memory_of
from pydamon.ops.sim.replay import Played
from pydamon.records.batch import RegionBatch
from pydamon.spans import coarser
from pydamon.spec import Scheme
from pydamon.spec.schemes import Watermarks
from pydamon.spec.units import format_size
from pydamon.workload import intervals
from pydamon.workload.intervals import Spans
from pydamon.workload.model import MAX_DURATION_MS, MAX_TOTAL_BYTES

if TYPE_CHECKING:
    from pydamon.core.snapshot import Snapshot
    from pydamon.records.joined import AnyReader

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MOST_ROWS = 16_000_000  # of regions are held at once: about 0.7 GiB
_RANGES = 8  # that are monitored, at most: what lies in the smaller gaps between memory is monitored, too
_LEAST_REGIONS, _MOST_REGIONS = 10, 100_000
_THERE = 0.5  # of a region is resident, and so it counts as memory
_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a policy did on a recording, over time: parallel arrays with an element for each aggregation.

    ``seconds`` since the beginning, ``resident`` bytes, ``faults``: bytes that came back so far; ``out``: bytes that
    the policy paged out in all; ``total``: bytes of all memory.
    """

    name: str
    seconds: F64
    resident: F64
    faults: F64
    out: int
    total: int

    @property
    def saved(self) -> float:
        """Bytes out of memory, the mean over the time."""
        return float(np.mean(self.total - self.resident)) if len(self.resident) else 0.0

    @property
    def per_minute(self) -> float:
        """Bytes a minute that came back."""
        return float(self.faults[-1]) * _MINUTE_S / float(self.seconds[-1]) if len(self.faults) else 0.0

    @property
    def worst_minute(self) -> float:
        """The most bytes that came back within a minute."""
        if not len(self.faults):
            return 0.0
        before = np.interp(self.seconds - _MINUTE_S, self.seconds, self.faults, left=0.0)
        return float((self.faults - before).max())

    def between(self, start_s: float, end_s: float) -> tuple[float, float, float]:
        """(bytes out of memory, the mean; bytes a minute that came back; that were paged out) in a part of the time."""
        inside = (self.seconds > start_s) & (self.seconds <= end_s * (1 + 1e-9))
        if not inside.any():
            return 0.0, 0.0, 0.0
        out = self.total - self.resident
        first, last = int(np.flatnonzero(inside)[0]), int(np.flatnonzero(inside)[-1])
        back = float(self.faults[last] - (self.faults[first - 1] if first else 0.0))
        more = float(out[last] - (out[first - 1] if first else 0.0))
        minutes = max(end_s - start_s, 1e-9) / _MINUTE_S
        return float(np.mean(out[inside])), back / minutes, max(back + more, 0.0) / minutes


class Recording:
    """One target of a record (all of it, or from ``start_ns`` to ``end_ns`` after its beginning), to be played again.

    Raises RequestError for one that is too large, PydamonError for one without snapshots.
    """

    def __init__(
        self, reader: AnyReader, *, target: int | None = None, start_ns: int | None = None, end_ns: int | None = None
    ) -> None:
        span, part, window = part_of(reader, start_ns, end_ns)
        if reader.rows > MOST_ROWS:
            text = f"{reader.path} has {reader.rows:,} regions in all; at most {MOST_ROWS:,} can be played again"
            raise RequestError(text, where="start_ns, end_ns")
        self.target = only_target(reader) if target is None else target
        accumulator = AgesAccumulator(LEVELS_S, part, span[0])
        batches = []
        for batch in window.of(reader.batches(columns=COLUMNS, target=self.target)):
            accumulator.add(batch)
            batches.append(batch)
        if not batches:
            raise PydamonError(f"has no snapshot of target {self.target} in that time", where=reader.path)
        looks = looks_of(reader, part, self.target)
        self.has_panel = bool(looks)
        self._hazard = unseen_by_regions(accumulator.finish(), looks)
        self.began_ns = int(batches[0].start_ns[0])
        self.lasting_s = (int(batches[-1].end_ns[-1]) - self.began_ns) / 1e9
        self.memory, self.ranges = _memory(batches), _ranges(batches)
        self.sample_us, self.aggr_us = _intervals(batches)
        self.regions = _regions(reader.info.spec, max(int(batch.counts.max()) for batch in batches))
        self._mappings = reader.mappings_at(self.target, part[1])
        self._batches = batches
        if not len(self.memory):
            raise PydamonError("nothing of it was in memory", where=reader.path)
        if self.bytes > MAX_TOTAL_BYTES:
            most = format_size(MAX_TOTAL_BYTES)
            raise PydamonError(
                f"{format_size(self.bytes)} were in memory; the most that is played is {most}", where=reader.path
            )
        if self.lasting_s > MAX_DURATION_MS / 1000:
            days, most_days = self.lasting_s / 86_400, MAX_DURATION_MS // 86_400_000
            raise PydamonError(f"lasts {days:.0f} days; the most that is played is {most_days}", where=reader.path)

    @property
    def bytes(self) -> int:
        """All memory."""
        return int((self.memory[:, 1] - self.memory[:, 0]).sum())

    def engine(self, schemes: Sequence[Scheme], *, seed: int = 0, hidden: bool = True) -> ReplayEngine:
        """An engine that plays it under these schemes, monitored as it was.

        ``hidden``: also the accesses of single pages in idle regions that only the panel tells of, without their place.
        """
        spec = make_spec(
            ops="sim",
            sample=self.sample_us,
            aggr=self.aggr_us,
            regions=self.regions,
            schemes=list(schemes),
        )
        hazard: Hazard = self._hazard if hidden else np.zeros_like
        pieces = (piece for batch in self._batches for piece in _pieces(batch, hazard, self.began_ns))
        field = RateField(pieces, self.memory)
        lasting_ms = max(round(self.lasting_s * 1000), 1) + self.aggr_us // 1000 + 1  # it has to end behind the last
        played = Played(field, self.memory, self.ranges, self._mappings, lasting_ms)
        return ReplayEngine(spec, played, seed=seed)

    def play(self, name: str, schemes: Sequence[Scheme], *, seed: int = 0) -> Outcome:
        """What these schemes do to it."""
        engine = self.engine(schemes, seed=seed)
        seconds, resident, faults = [], [], []
        began_ns = None
        out = 0
        for snapshots in engine.monitor():
            now = engine.simulated.summary()
            began_ns = snapshots[0].start_ns if began_ns is None else began_ns
            if snapshots[0].end_ns - began_ns > self.lasting_s * 1e9:
                break
            seconds.append((snapshots[0].end_ns - began_ns) / 1e9)
            resident.append(float(now.resident_bytes))
            faults.append(float(now.fault_bytes))
            out = now.fault_bytes + self.bytes - now.resident_bytes
        engine.close()
        return Outcome(name, np.array(seconds), np.array(resident), np.array(faults), out, self.bytes)

    def record(self, *, seed: int = 0) -> list[Snapshot]:
        """What its regions say, recorded again: what a monitor finds of it."""
        engine = self.engine((), seed=seed, hidden=False)
        found = [one for snapshots in engine.monitor() for one in snapshots]
        engine.close()
        return found


def always_active(scheme: Scheme) -> Scheme:
    """The scheme without its watermarks: nothing in a recording says how much memory is free."""
    return msgspec.structs.replace(scheme, watermarks=Watermarks())


def only_target(reader: AnyReader) -> int:
    """The target of a record of one. Raises RequestError where there are several."""
    targets = sorted({one.target for one in reader.info.targets})
    if len(targets) > 1:
        shown = ", ".join(map(str, targets[:10]))
        text = f"{reader.path} has several targets ({shown}); only one is played again: say which"
        raise RequestError(text, where="target")
    return targets[0] if targets else 0


def _regions(spec: Mapping[str, Any], most: int) -> tuple[int, int]:
    """The bounds of the number of regions: as they were recorded, or so that there can be as many."""
    try:
        bounds = spec["kdamonds"][0]["contexts"][0]["nr_regions"]
        low, high = int(bounds["min"]), int(bounds["max"])
    except (KeyError, IndexError, TypeError, ValueError):
        low, high = _LEAST_REGIONS, most
    return max(low, 3), min(max(high, most, low, 3), _MOST_REGIONS)


def _memory(batches: Iterable[RegionBatch]) -> Spans:
    """What of the regions was in memory at some time, whole regions most of which was."""
    parts = [np.empty((0, 2), np.int64)]
    for batch in batches:
        spans = _spans(batch)
        parts.append(intervals.union(spans[batch.memory >= _THERE * (batch.end - batch.start)]))
    return memory_of(np.concatenate(parts))


def _ranges(batches: Iterable[RegionBatch]) -> NDArray[np.uint64]:
    """What was monitored: at most `_RANGES`, with the largest gaps between them."""
    whole = memory_of(np.concatenate([intervals.union(_spans(batch)) for batch in batches]))
    return coarser(whole.astype(np.uint64), _RANGES)


def _spans(batch: RegionBatch) -> Spans:
    return np.stack([batch.start, batch.end], axis=1).astype(np.int64)


def _intervals(batches: Sequence[RegionBatch]) -> tuple[int, int]:
    """Sampling and aggregation interval in us: the medians, where they were tuned."""
    aggr_us = int(np.median(np.concatenate([batch.aggr_us for batch in batches])))
    samples = int(np.median(np.concatenate([batch.max_nr_accesses for batch in batches])))
    sample_us = max(aggr_us // max(samples, 1), 1)
    return sample_us, sample_us * max(samples, 1)


def _pieces(batch: RegionBatch, hazard: Hazard, began_ns: int) -> Iterable[Piece]:
    seconds = np.repeat(np.maximum(batch.aggr_us, 1) / 1e6, batch.counts)
    rate = np.where(batch.nr_accesses > 0, batch.nr_accesses / seconds, hazard(age_s(batch)))
    offsets = batch.offsets.tolist()
    for number, start_ns in enumerate((batch.start_ns - began_ns).tolist()):
        rows = slice(offsets[number], offsets[number + 1])
        yield Piece(start_ns, batch.start[rows], batch.end[rows], rate[rows])
