"""How much memory is idle for how long, and how much of it is used again: of all thresholds in one pass over regions.

"Cold age" and "promotion" histograms (Lagar-Cavilla et al. 2019): memory counts in the bin of the idle time that it
has in a snapshot, and once more in that of the idle time that the next snapshot of its target ends. What holds for an
age of at least T is the sum of the bins from T on. Whether all of a region came back, or a page of it, no snapshot
tells: all that it holds counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.analysis.distribution import age_s
from pydamon.core.panel import BOUNDS_S
from pydamon.records.batch import RegionBatch

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

MOST = 64  # thresholds
_STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)  # to a decade below a second, where a page panel tells nothing
_DAY_S = 86_400
_SIZES = 4 * 52  # bins of region sizes, four to an octave of pages
_RATES, _RATES_LOW = 160, 4 * 24  # bins of access rates, four to an octave; which of them begins at one a second
_SNAPSHOT_BITS = 63


def thresholds_s(aggr_s: float, length_s: float) -> F64:
    """At most `MOST` idle times, ascending, about 8 to a decade: from one aggregation up to below the record's length.

    From a second on they are bounds of the page panel.
    """
    low = [step * 10.0**power for power in range(-9, 0) for step in _STEPS]
    low = [round(one, 10) for one in low if aggr_s <= one < length_s]
    high = [float(one) for one in BOUNDS_S[1:] if aggr_s <= one < length_s]
    day = 2.0 * _DAY_S
    while day < length_s:
        high.append(day)
        day *= 2
    while len(low) + len(high) >= MOST and len(low) > 1:
        low = low[::2]
    found = low + high[: MOST - 1 - len(low)]
    return np.array([aggr_s, *(one for one in found if one > aggr_s * 1.01)])


@dataclass(frozen=True, slots=True, eq=False)
class Ages:
    """What one pass has found, of all targets together. Arrays have an element for each threshold.

    ``cold``: bytes idle for at least that long, the mean over the ``seen_s`` in which memory could be; ``ended``: bytes
    whose idle time of at least that was ended, in all of that time. ``resident`` and ``unknown`` are means over
    ``span_s``, in bytes. ``untouched``: bytes that were idle since the beginning, at the end. ``resolution``: bytes of
    the median region of what is idle. ``rates`` (accesses found a second) and ``rate_bytes`` (mean): memory in use by
    its rate, the hottest first.
    """

    thresholds_s: F64
    span_s: float
    snapshots: int
    regions: int
    seen_s: F64
    cold: F64
    ended: F64
    resident: float
    unknown: float
    untouched: int
    resolution: int
    rates: F64
    rate_bytes: F64

    @property
    def per_second(self) -> F64:
        """Bytes that would come back in a second, of what is taken at each age."""
        found: F64 = np.divide(self.ended, self.seen_s, out=np.zeros(len(self.ended)), where=self.seen_s > 0)
        return found


class AgesAccumulator:
    """Takes in snapshots in the order of time, those of several targets in turn.

    ``span_ns``: what of the time is looked at; ``first_ns``: when the recording began, and with it all idle times.
    """

    def __init__(self, thresholds: F64, span_ns: tuple[int, int], first_ns: int) -> None:
        self._thresholds = thresholds
        self._span_ns, self._first_ns = span_ns, first_ns
        bins = len(thresholds) + 1
        self._cold, self._ended = np.zeros(bins), np.zeros(bins)
        self._resident = self._unknown = 0.0
        self._snapshots = self._regions = 0
        self._sizes = np.zeros(_SIZES)
        self._rate_bytes, self._rate_sums = np.zeros(_RATES), np.zeros(_RATES)
        self._last: dict[int, _Rows] = {}

    def add(self, batch: RegionBatch) -> None:
        """Take in the snapshots of a batch."""
        rows = _Rows.of(batch)
        self._snapshots += len(batch)
        self._regions += len(rows.start)
        self._weigh(batch, rows)
        for part in rows.by_target(batch.target):
            target = part.target
            before = self._last.get(target)
            joined = part if before is None else before.then(part)
            self._last[target] = joined.last()
            self._wake(joined)

    def _weigh(self, batch: RegionBatch, rows: _Rows) -> None:
        """What there is in each snapshot, by the time that it covers."""
        lasts = np.maximum(batch.end_ns - batch.start_ns, 1).astype(np.float64)
        each = np.repeat(lasts, batch.counts)
        self._resident += float(rows.memory @ each)
        self._unknown += float(batch.unknown_memory.astype(np.float64) @ each)
        cold = ~rows.hot
        place = self._bins(rows.idle_s[cold])
        memory = rows.memory[cold]
        self._cold += np.bincount(place, weights=memory * each[cold], minlength=len(self._cold))
        pages = np.maximum((rows.end[cold] - rows.start[cold]) >> 12, 1)
        sizes = np.minimum((np.log2(pages) * 4).astype(np.int64), _SIZES - 1)
        self._sizes += np.bincount(sizes[memory > 0], minlength=_SIZES)
        hot = rows.hot
        rate = batch.nr_accesses[hot] / np.repeat(np.maximum(batch.aggr_us, 1) / 1e6, batch.counts)[hot]
        bins = np.clip((np.log2(rate) * 4).astype(np.int64) + _RATES_LOW, 0, _RATES - 1)
        weight = rows.memory[hot] * each[hot]
        self._rate_bytes += np.bincount(bins, weights=weight, minlength=_RATES)
        self._rate_sums += np.bincount(bins, weights=weight * rate, minlength=_RATES)

    def _wake(self, rows: _Rows) -> None:
        """Of what was idle in one snapshot, what is in use in the next."""
        behind = rows.offsets[-2]
        idle = np.flatnonzero(~rows.hot[:behind] & (rows.memory[:behind] > 0))
        if not len(idle):
            return
        shift = max(int(rows.end.max()).bit_length() + len(rows.offsets).bit_length() - _SNAPSHOT_BITS, 0)
        bits = int(rows.end.max() >> shift).bit_length()
        number = np.repeat(np.arange(len(rows.offsets) - 1, dtype=np.int64) << bits, np.diff(rows.offsets))
        start, end = (number + (at >> shift) for at in (rows.start, rows.end))
        size = np.where(rows.hot, (end - start).astype(np.float64), 0.0)
        until = np.concatenate([np.zeros(1), np.cumsum(size)])
        step = 1 << bits
        used = [_reached(start, size, until, at[idle] + step) for at in (start, end)]
        woken = used[1] - used[0]
        some = woken > 0
        idle, woken = idle[some], woken[some]
        share = woken / (end[idle] - start[idle])
        place = self._bins(rows.idle_s[idle])
        self._ended += np.bincount(place, weights=share * rows.memory[idle], minlength=len(self._ended))

    def _bins(self, idle_s: F64) -> NDArray[np.intp]:
        """0 for what is below the lowest threshold."""
        return np.searchsorted(self._thresholds, idle_s * (1 + 1e-9), "right")

    def sums(self) -> tuple[F64, F64]:
        """(byte-ns idle, bytes whose idle time was ended) so far, in the bin that begins at each threshold."""
        return self._cold[1:].copy(), self._ended[1:].copy()

    def finish(self) -> Ages:
        """What was found so far."""
        began, ended = self._span_ns
        span_ns = max(ended - began, 1)
        # Before the recording has lasted for as long, nothing can be known to have been idle for that long.
        blind_ns = np.maximum(self._first_ns + self._thresholds * 1e9, began)
        seen_ns = np.maximum(ended - blind_ns, 0)
        cold = _from_each_on(self._cold)
        untouched = [one.memory[one.idle_s >= span_ns / 1e9 * 0.95].sum() for one in self._last.values()]
        counted = np.cumsum(self._sizes)
        median = int(np.searchsorted(counted, counted[-1] / 2)) if counted[-1] else 0
        some = np.flatnonzero(self._rate_bytes > 0)[::-1]
        return Ages(
            thresholds_s=self._thresholds,
            span_s=span_ns / 1e9,
            snapshots=self._snapshots,
            regions=self._regions,
            seen_s=seen_ns / 1e9,
            cold=np.divide(cold, seen_ns, out=np.zeros(len(cold)), where=seen_ns > 0),
            ended=_from_each_on(self._ended),
            resident=self._resident / span_ns,
            unknown=self._unknown / span_ns,
            untouched=round(float(sum(untouched))),
            resolution=int(2 ** (median / 4)) * 4096 if counted[-1] else 0,
            rates=self._rate_sums[some] / self._rate_bytes[some],
            rate_bytes=self._rate_bytes[some] / span_ns,
        )


def _from_each_on(bins: F64) -> F64:
    """What is in the bin of each threshold and all above; the first bin is below the lowest."""
    found: F64 = np.cumsum(bins[:0:-1])[::-1]
    return found


def _reached(start: I64, size: F64, until: F64, at: I64) -> F64:
    """How many bytes of ``size`` (in rows that begin at ``start``) lie before each of ``at``."""
    row = np.searchsorted(start, at, "right") - 1
    found: F64 = until[row] + np.minimum(at - start[row], size[row])
    return found


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Regions of snapshots of one target (or, in turn, of several): parallel arrays; ``offsets`` as in a batch."""

    target: int
    offsets: I64
    start: I64
    end: I64
    hot: NDArray[np.bool_]
    idle_s: F64
    memory: F64

    @classmethod
    def of(cls, batch: RegionBatch) -> _Rows:
        start, end = batch.start.astype(np.int64), batch.end.astype(np.int64)
        memory = batch.memory.astype(np.float64)
        return cls(-1, batch.offsets, start, end, batch.nr_accesses > 0, age_s(batch), memory)

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return self.start, self.end, self.hot, self.idle_s, self.memory

    def by_target(self, targets: I64) -> Sequence[_Rows]:
        """The rows of each target; uncopied if there is one."""
        if (targets == targets[0]).all():
            return [_Rows(int(targets[0]), self.offsets, *self._arrays())]
        order = np.argsort(targets, kind="stable")
        counts = np.diff(self.offsets)
        rows = np.argsort(np.repeat(targets, counts), kind="stable")
        arrays = [one[rows] for one in self._arrays()]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[order])])
        ordered = targets[order]
        firsts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        found = []
        for first, behind in zip(firsts.tolist(), [*firsts[1:].tolist(), len(ordered)], strict=True):
            low, high = int(offsets[first]), int(offsets[behind])
            mine = [one[low:high] for one in arrays]
            found.append(_Rows(int(ordered[first]), offsets[first : behind + 1] - low, *mine))
        return found

    def then(self, other: _Rows) -> _Rows:
        """Both, one after the other."""
        pairs = zip(self._arrays(), other._arrays(), strict=True)
        offsets = np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]])
        return _Rows(self.target, offsets, *(np.concatenate(pair) for pair in pairs))

    def last(self) -> _Rows:
        """The last snapshot, for itself."""
        low = int(self.offsets[-2])
        offsets = np.array([0, self.offsets[-1] - low], np.int64)
        return _Rows(self.target, offsets, *(one[low:].copy() for one in self._arrays()))
