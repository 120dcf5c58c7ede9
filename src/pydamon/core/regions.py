"""The regions of one target, as parallel arrays that keep their invariants.

Sorted, disjoint, at least one minimum region long and aligned to it. The address arrays are never changed in place
(snapshots share them, and samplers see by it that they are others); the counters are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pydamon.core.moving import left_bp, moving_sum, rescaled
from pydamon.ops.counts import Counts

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

# Rows of what the core keeps from one aggregation to the next.
_LAST, _AGE, _AGE_NS, _UNKNOWN = _ROWS = range(4)


class Regions:
    """``n`` regions: ``start``/``end`` in bytes (uint64), ``counts`` of this aggregation, and what is kept beyond it.

    Per region (int64): ``nr_accesses``: accesses counted in this aggregation; ``last_nr_accesses``: in the one before;
    ``moving_sum``: in one whole aggregation up to now (docs/algorithms.md 2.6); ``age``: aggregations without much
    change, ``age_ns``: that as a duration by the clock. The counts are the operations set's to add to; what they amount
    to is worked out when it is asked for.
    """

    __slots__ = ("_kept", "_samples", "_window", "all_known", "counts", "end", "start")

    def __init__(self, start: U64, end: U64, counts: Counts | None = None, kept: I64 | None = None) -> None:
        self.start = start
        self.end = end
        self.counts = Counts.zeros(len(start)) if counts is None else counts
        self._kept: I64 = np.zeros((len(_ROWS), len(start)), np.int64) if kept is None else kept
        self._samples = 0  # since the last reset, of a window of so many
        self._window = 1
        self.all_known = kept is None  # whether `unknown` is surely 0 everywhere

    @classmethod
    def empty(cls) -> Regions:
        """No region."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint64))

    @classmethod
    def joined(cls, targets: Sequence[Regions]) -> Regions:
        """Those of several targets (at least one), one behind the other, in arrays of their own."""
        start, end = (np.concatenate([getattr(one, name) for one in targets]) for name in ("start", "end"))
        kept = np.concatenate([one._kept for one in targets], axis=1)
        whole = cls(start, end, Counts.joined([one.counts for one in targets]), kept)
        # One that joined in mid-aggregation has fewer samples, and no last count to which that would matter.
        whole._samples, whole._window = max((one._samples, one._window) for one in targets)
        whole.all_known = all(one.all_known for one in targets)
        return whole

    def part(self, place: slice) -> Regions:
        """Some of them, as views: only one of both is to be used from then on."""
        part = Regions(self.start[place], self.end[place], self.counts.part(place), self._kept[:, place])
        part._samples, part._window, part.all_known = self._samples, self._window, self.all_known
        return part

    def __len__(self) -> int:
        return len(self.start)

    @property
    def nr_accesses(self) -> I64:
        """Accesses found so far in this aggregation interval (samples); to be changed in ``counts``."""
        return self.counts.accessed.astype(np.int64, copy=False)

    @property
    def last_nr_accesses(self) -> I64:
        """Accesses found in the aggregation interval before (samples)."""
        view: I64 = self._kept[_LAST]
        return view

    @property
    def left_bp(self) -> int:
        """Which part of this aggregation is still to come, in 1/10,000."""
        return left_bp(self._samples, self._window)

    @property
    def moving_sum(self) -> I64:
        """Accesses found in the last samples, as many as an aggregation has: what schemes go by."""
        return moving_sum(self.counts.accessed, self._kept[_LAST], self.left_bp)

    @property
    def age(self) -> I64:
        """Aggregation intervals for which the access rate has stayed about the same."""
        view: I64 = self._kept[_AGE]
        return view

    @property
    def age_ns(self) -> I64:
        """For how long that has been, by the clock (ns): intervals may have lasted longer than was asked for."""
        view: I64 = self._kept[_AGE_NS]
        return view

    @property
    def ages(self) -> I64:
        """`age` and `age_ns`, as rows."""
        view: I64 = self._kept[_AGE : _AGE_NS + 1]
        return view

    def idle_ns_at(self, addresses: U64) -> I64:
        """How long the regions that ``addresses`` are in were idle, by the clock (ns), when ages were counted last.

        -1 where one was accessed in the aggregation interval before, or no region is.
        """
        at = np.maximum(np.searchsorted(self.start, addresses, "right") - 1, 0)
        found = np.full(len(addresses), -1, np.int64)
        if len(self):
            inside = (self.start[at] <= addresses) & (addresses < self.end[at])
            idle = inside & (self.last_nr_accesses[at] == 0)
            found[idle] = self.age_ns[at[idle]]
        return found

    @property
    def unknown(self) -> I64:
        """Samples of the last whole aggregation interval that nobody has answered."""
        view: I64 = self._kept[_UNKNOWN]
        return view

    def blind(self, window: int) -> NDArray[np.bool_]:
        """Which regions had no answer at all to the ``window`` samples of the last whole aggregation."""
        found: NDArray[np.bool_] = self._kept[_UNKNOWN] >= window
        return found

    @property
    def probe_hits(self) -> I64:
        """Samples of this aggregation interval that had the attribute of each probe; shape (probes, n)."""
        return self.counts.hits.astype(np.int64, copy=False)

    @property
    def size(self) -> U64:
        """Sizes in bytes."""
        return self.end - self.start

    def total_size(self) -> int:
        """Bytes of all regions together."""
        return int(self.size.sum(dtype=np.uint64)) if len(self) else 0

    def select(self, index: NDArray[np.intp], start: U64, end: U64) -> Regions:
        """Regions [start, end) that take over the counters of the regions ``index``; -1 begins with zeros."""
        if len(self):
            kept = self._kept.take(index, 1)
            fresh = index < 0
            if fresh.any():
                kept[:, fresh] = 0
        else:
            kept = np.zeros((len(_ROWS), len(index)), np.int64)
        selected = Regions(start, end, self.counts.select(index), kept)
        selected._samples, selected._window, selected.all_known = self._samples, self._window, self.all_known
        return selected

    def set_merged(self, at: NDArray[np.intp], nr_accesses: I64, age: I64) -> None:
        """Those regions have these counts and ages now."""
        self.counts.accessed[at] = nr_accesses
        self._kept[_AGE, at] = age

    def columns(self, *, by_clock: bool, probed: bool) -> dict[str, Any]:
        """What a snapshot says of them (`core.columns`), None where it does not; later changes do not show in it."""
        unknown, counts = self.unknown, self.counts
        return {
            "start": self.start,
            "end": self.end,
            "nr_accesses": self.nr_accesses.astype(np.uint32),
            "age": self.age.astype(np.uint32),
            "age_ms": (self.age_ns // 1_000_000).astype(np.uint64) if by_clock else None,
            "unknown": unknown.astype(np.uint32) if unknown.any() else None,
            "probe_hits": counts.hits.astype(np.uint32) if probed else None,
            "probe_samples": counts.probed.astype(np.uint32) if probed else None,
        }

    def count_samples(self, samples: int, window: int) -> None:
        """So many more samples are in ``counts``; ``window`` is the number of samples per aggregation (2.6)."""
        self._samples += samples
        self._window = window

    def settle_unknown(self, window: int) -> None:
        """Scale up what unanswered samples left out: unknown is not "not accessed".

        A region without any answer keeps the rate it had, and is `blind`. (The kernel has no such case: its check
        always answers.)
        """
        unknown = self.counts.unknown
        if not unknown.any():
            if not self.all_known:
                self._kept[_UNKNOWN], self.all_known = 0, True
            return
        unknown = unknown.astype(np.int64, copy=False)
        self._kept[_UNKNOWN], self.all_known = unknown, False
        known, nr = window - unknown, self.nr_accesses
        scaled = (nr * window + known // 2) // np.maximum(known, 1)
        nr = np.minimum(np.where(known > 0, scaled, self._kept[_LAST]), window)
        self.counts.accessed[:] = nr
        self.counts.unknown[:] = 0

    def reset_aggregated(self) -> None:
        """Begin a new aggregation interval: the counts become the last ones (2.2)."""
        self._kept[_LAST] = self.counts.accessed
        self.counts.reset()
        self._samples = 0

    def rescale(self, *, old_window: int, new_window: int, old_aggr_us: int, new_aggr_us: int) -> None:
        """Make the counters mean the same under new intervals (2.7); a begun aggregation starts over.

        Where none is begun, the counts of the one that has just ended are the last ones, which are kept.
        """
        kept = self._kept
        kept[_LAST] = rescaled(kept[_LAST], old_window, new_window)
        kept[_AGE] = kept[_AGE] * old_aggr_us // new_aggr_us
        kept[_UNKNOWN] = kept[_UNKNOWN] * new_window // old_window
        self.counts.reset()
        self._samples = 0
