"""The regions of one target, as parallel arrays that keep their invariants.

Sorted, disjoint, at least one minimum region long and aligned to it. The address arrays are never changed in place
(snapshots share them); the counters are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

# Rows of the counters. Where there are probes, how many samples they were asked about and their hits come after them.
_NR, _LAST, _BP, _AGE, _UNKNOWN, _PROBED, _HITS = range(7)


class Regions:
    """``n`` regions: ``start``/``end`` in bytes (uint64) and, per region, the counters of DAMON (int64 views).

    ``nr_accesses``: accesses found in this aggregation; ``last_nr_accesses``: in the one before; ``nr_accesses_bp``:
    their moving sum × 10000 (docs/algorithms.md 2.6); ``age``: aggregations without much change; ``unknown``: samples
    of this aggregation that could not be answered; ``probe_hits``: samples of this aggregation that had the attribute
    of each probe, of the ``probe_samples`` that they were asked about.
    """

    __slots__ = ("_counters", "_outflow", "_window", "end", "start")

    def __init__(self, start: U64, end: U64, counters: I64 | None = None) -> None:
        self.start = start
        self.end = end
        self._counters: I64 = np.zeros((_PROBED, len(start)), np.int64) if counters is None else counters
        self._outflow: I64 | None = None
        self._window = 0

    @classmethod
    def empty(cls) -> Regions:
        """No region."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint64))

    def __len__(self) -> int:
        return len(self.start)

    def _row(self, row: int) -> I64:
        view: I64 = self._counters[row]
        return view

    @property
    def nr_accesses(self) -> I64:
        """Accesses found so far in this aggregation interval (samples)."""
        return self._row(_NR)

    @property
    def last_nr_accesses(self) -> I64:
        """Accesses found in the aggregation interval before (samples)."""
        return self._row(_LAST)

    @property
    def nr_accesses_bp(self) -> I64:
        """Moving sum of the accesses over one aggregation interval, in 1/10000 samples."""
        return self._row(_BP)

    @property
    def age(self) -> I64:
        """Aggregation intervals for which the access rate has stayed about the same."""
        return self._row(_AGE)

    @property
    def unknown(self) -> I64:
        """Samples of this aggregation interval without an answer."""
        return self._row(_UNKNOWN)

    @property
    def probe_hits(self) -> I64:
        """Samples of this aggregation interval that had the attribute of each probe; shape (probes, n)."""
        view: I64 = self._counters[_HITS:]
        return view

    @property
    def probe_samples(self) -> I64:
        """Samples of this aggregation interval that the probes were asked about; shape (n,)."""
        return self._row(_PROBED) if len(self._counters) > _PROBED else np.zeros(len(self), np.int64)

    @property
    def probe_counts(self) -> I64:
        """`probe_samples` and `probe_hits` together, to be changed; without probes there is no row."""
        view: I64 = self._counters[_PROBED:]
        return view

    def set_nr_probes(self, nr_probes: int) -> None:
        """Count for that many probes from now on; their counts begin at 0 unless their number stays."""
        rows = _HITS + nr_probes if nr_probes else _PROBED
        if rows != len(self._counters):
            nothing = np.zeros((rows - _PROBED, len(self)), np.int64)
            self._counters = np.concatenate([self._counters[:_PROBED], nothing])

    @property
    def size(self) -> U64:
        """Sizes in bytes."""
        return self.end - self.start

    def total_size(self) -> int:
        """Bytes of all regions together."""
        return int(self.size.sum(dtype=np.uint64)) if len(self) else 0

    def select(self, index: NDArray[np.intp], start: U64, end: U64) -> Regions:
        """Regions [start, end) that take over the counters of the regions ``index``; -1 begins with zeros."""
        counters = self._counters[:, index] if len(self) else np.zeros((len(self._counters), len(index)), np.int64)
        counters[:, index < 0] = 0
        return Regions(start, end, counters)

    def record_answers(self, accessed: NDArray[np.bool_], unknown: NDArray[np.bool_] | None, window: int) -> None:
        """Count one sample: ``accessed`` per region; ``window`` is the number of samples per aggregation (2.6)."""
        counters = self._counters
        if self._outflow is None or self._window != window:
            # What leaves the moving sum with each sample stays the same until the next aggregation or resize.
            self._outflow = counters[_LAST] * 10000 // window
            self._window = window
        counters[_NR] += accessed
        counters[_BP] += accessed * np.int64(10000) - self._outflow
        if unknown is not None:
            counters[_UNKNOWN] += unknown

    def record_probes(self, hits: NDArray[np.bool_]) -> None:
        """Count one sample's probes: ``hits`` has the shape (probes, n)."""
        self._counters[_PROBED] += 1
        self._counters[_HITS:] += hits

    def settle_unknown(self, window: int) -> None:
        """Scale up what unanswered samples left out: unknown is not "not accessed".

        A region without any answer keeps the rate it had. (The kernel has no such case: its check always answers.)
        """
        unknown = self._counters[_UNKNOWN]
        if not unknown.any():
            return
        known = window - unknown
        nr = self._counters[_NR]
        scaled = (nr * window + known // 2) // np.maximum(known, 1)
        nr[:] = np.minimum(np.where(known > 0, scaled, self._counters[_LAST]), window)
        self._counters[_BP] = nr * 10000
        unknown[:] = 0

    def reset_aggregated(self) -> None:
        """Begin a new aggregation interval: the counts become the last ones (2.2)."""
        self._counters[_LAST] = self._counters[_NR]
        self._counters[_NR] = 0
        self._counters[_UNKNOWN:] = 0
        self._outflow = None

    def rescale(self, *, old_window: int, new_window: int, old_aggr_us: int, new_aggr_us: int) -> None:
        """Make the counters mean the same under new intervals (2.7); a begun aggregation starts over."""
        counters = self._counters
        counters[_LAST] = counters[_LAST] * 10000 // old_window * new_window // 10000
        counters[_NR] = 0
        counters[_BP] = counters[_LAST] * 10000
        counters[_AGE] = counters[_AGE] * old_aggr_us // new_aggr_us
        counters[_UNKNOWN:] = 0
        self._outflow = None
