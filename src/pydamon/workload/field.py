"""A program of which only rates are known: so many accesses a second to each page, by range and stretch of time. Pure.

That is what a recording, or a trace that was counted up, tells of a program. The accesses of a page come at random
(Poisson), independent of those of others: in a window of t seconds a page of rate r is accessed with probability
1 - exp(-r t). Nothing is stored per page.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import RequestError
from pydamon.workload import intervals
from pydamon.workload.draws import draw, how_many, key_of
from pydamon.workload.intervals import NOTHING, Spans
from pydamon.workload.layout import PAGE_SIZE, Layout, Place
from pydamon.workload.truth import Schedule

_NS_PER_S = 1e9
_SURE = 40.0  # accesses that are expected: that there is none has a probability below 1e-17


class Epoch(NamedTuple):
    """A stretch of time of so many ns: ``rate`` accesses a second to each page of ``spans`` (bytes, sorted, disjoint).

    Shapes (n,) and (n, 2); what lies outside is not accessed.
    """

    duration_ns: int
    spans: Spans
    rate: NDArray[np.float64]


class RateField:
    """The accesses of a program, epoch after epoch; an `Accesses`."""

    def __init__(self, epochs: Sequence[Epoch], seed: int) -> None:
        self._epochs = epochs
        self._seed = seed

    def _rates(self, epoch: int, addresses: NDArray[np.int64]) -> NDArray[np.float64]:
        """The rate of the page at each address."""
        spans, rate = self._epochs[epoch].spans, self._epochs[epoch].rate
        if not len(spans):
            return np.zeros(addresses.shape)
        at = np.searchsorted(spans[:, 0], addresses, "right") - 1
        return np.where((at >= 0) & (addresses < spans[at, 1]), rate[at], 0.0)

    def _expected(
        self, addresses: NDArray[np.int64], schedule: Schedule, start_ns: int, end_ns: int
    ) -> NDArray[np.float64]:
        """How many accesses the page at each address gets."""
        found = np.zeros(addresses.shape)
        for segment in schedule.segments(start_ns, end_ns):
            seconds = (segment.to_ns - segment.from_ns) * segment.times / _NS_PER_S
            found += self._rates(segment.phase, addresses) * seconds
        return found

    def accessed(
        self, addresses: NDArray[np.uint64], schedule: Schedule, start_ns: int, end_ns: int
    ) -> NDArray[np.bool_]:
        """See `Accesses`."""
        pages = addresses.astype(np.int64)
        expected = self._expected(pages, schedule, start_ns, end_ns)
        return self._falls(pages, np.uint64(key_of(self._seed, start_ns, end_ns)), expected)

    def accessed_in(
        self, addresses: NDArray[np.uint64], schedule: Schedule, windows: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """See `Accesses`; windows within one epoch are looked up together."""
        pages, expected = addresses.astype(np.int64), np.zeros(addresses.shape)
        row = 0
        while row < len(windows):
            start_ns, end_ns = windows[row].tolist()
            interval = schedule.at(start_ns)
            beyond = row if interval is None else int(windows[:, 1].searchsorted(interval.end_ns, "right"))
            if interval is None or beyond <= row:
                expected[row] = self._expected(pages[row], schedule, start_ns, end_ns)
                row += 1
                continue
            seconds = (windows[row:beyond, 1] - windows[row:beyond, 0]) / _NS_PER_S
            expected[row:beyond] = self._rates(interval.phase, pages[row:beyond]) * seconds[:, np.newaxis]
            row = beyond
        keys = [key_of(self._seed, low, high) for low, high in windows.tolist()]
        return self._falls(pages, np.array(keys, np.uint64)[:, np.newaxis], expected)

    @staticmethod
    def _falls(
        pages: NDArray[np.int64], key: np.uint64 | NDArray[np.uint64], expected: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        drawn = draw((pages // PAGE_SIZE).astype(np.uint64), key)
        result: NDArray[np.bool_] = drawn < -np.expm1(-expected)
        return result

    def touched(self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int, max_pieces: int) -> Spans:
        """See `Accesses`. Ranges of more than ``max_pieces`` pages are looked at in as many pieces.

        In each the lowest pages count as touched, as many as are on average.
        """
        pieces = self._cut(spans, schedule, start_ns, end_ns)
        if not len(pieces):
            return NOTHING
        expected = self._expected(pieces[:, 0], schedule, start_ns, end_ns)
        pieces, expected = pieces[expected > 0], expected[expected > 0]
        sure = expected >= _SURE
        found = [pieces[sure]]
        pieces, expected = pieces[~sure], expected[~sure]
        pages = int((pieces[:, 1] - pieces[:, 0]).sum()) // PAGE_SIZE
        if pages:
            unit = intervals.power_of_two(-(-pages // max_pieces)) * PAGE_SIZE
            count = -(-pieces[:, 1] // unit) - pieces[:, 0] // unit
            parts = intervals.split(pieces, 0, unit)
            length = (parts[:, 1] - parts[:, 0]) // PAGE_SIZE
            probability = -np.expm1(-np.repeat(expected, count))
            key = np.uint64(key_of(self._seed, start_ns, end_ns))
            drawn = draw((parts[:, 0] // PAGE_SIZE).astype(np.uint64), key)
            touched = how_many(length, probability, drawn)
            found.append(np.stack([parts[:, 0], parts[:, 0] + touched * PAGE_SIZE], axis=1))
        return intervals.union(np.concatenate(found))

    def _cut(self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int) -> Spans:
        """``spans`` as far as any epoch of the window accesses them, cut where a rate changes."""
        phases = {segment.phase for segment in schedule.segments(start_ns, end_ns)}
        ranges = [self._epochs[phase].spans for phase in phases]
        if not ranges or not len(spans):
            return NOTHING
        every = intervals.intersection(spans, intervals.union(np.concatenate(ranges)))
        edges = np.unique(np.concatenate([one.ravel() for one in ranges]))
        if not len(every):
            return NOTHING
        grid = np.stack([edges[:-1], edges[1:]], axis=1)
        return intervals.intersection(every, grid)

    def accesses(self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int) -> NDArray[np.float64]:
        """See `Accesses`."""
        found = np.zeros(len(spans))
        for segment in schedule.segments(start_ns, end_ns):
            epoch = self._epochs[segment.phase]
            seconds = (segment.to_ns - segment.from_ns) * segment.times / _NS_PER_S
            owner, at, part = intervals.meetings(spans, epoch.spans)
            found += np.bincount(owner, (part[:, 1] - part[:, 0]) / PAGE_SIZE * epoch.rate[at] * seconds, len(spans))
        return found


class FieldProgram:
    """A `Program` whose memory are ``mappings`` (bytes, whole pages, sorted, disjoint), and its accesses ``epochs``.

    Raises RequestError if one of the epochs is nothing that can be played.
    """

    def __init__(self, name: str, mappings: Sequence[Place], epochs: Sequence[Epoch]) -> None:
        self.name = name
        self._mappings = tuple(mappings)
        self._epochs = tuple(epochs)
        if not self._mappings or not self._epochs:
            raise RequestError("has no memory, or takes no time: there is nothing to play", where=name)
        for number, epoch in enumerate(self._epochs):
            sane = epoch.duration_ns > 0 and np.isfinite(epoch.rate).all() and (epoch.rate >= 0).all()
            if not sane or len(epoch.rate) != len(epoch.spans):
                raise RequestError(
                    "has a rate or a duration that is no number of such", where=f"{name}: epoch {number}"
                )

    @property
    def held(self) -> int:
        """How many ranges of all epochs it holds."""
        return sum(len(epoch.spans) for epoch in self._epochs)

    def place(self, base: int, mapping: str) -> Layout:
        """Where it was."""
        return Layout(self._mappings, self._mappings)

    def schedule(self, start_ns: int, *, repeat: int, time_scale: float) -> Schedule:
        """One epoch after another."""
        durations_ns = [max(round(epoch.duration_ns * time_scale), 1) for epoch in self._epochs]
        return Schedule.in_turn(durations_ns, start_ns, repeat)

    def accesses(self, layout: Layout, accesses_per_s: int, seed: int) -> RateField:
        """See `Program`."""
        return RateField(self._epochs, seed)
