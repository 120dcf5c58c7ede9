"""Which pages a workload accesses in a window of time, computed for the asked pages only. Pure.

A machine makes ``accesses_per_s`` accesses per second, shared among a phase's patterns by probability. Access i (0, 1,
...) of a pattern that gets r per second happens i / r after its phase began.

- *sequential*: access i touches position i mod P, where P is the number of strides in the region. What a window holds
  is a run of consecutive positions, around the end perhaps; a page is accessed if one of its positions is among them.
- *random*: of k accesses to a region of n pages, a page gets at least one with probability 1 - (1 - 1/n)^k. A hash of
  page, window and seed decides, so that equal questions get equal answers.

`AccessModel.touched` says the same of ranges, without looking at each page of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pydamon.workload import intervals
from pydamon.workload.intervals import NOTHING, Spans
from pydamon.workload.layout import PAGE_SIZE, Layout
from pydamon.workload.model import Access, Phase, Workload
from pydamon.workload.truth import Schedule, Segment, effective_stride, nr_positions, positions_of_page

_NS_PER_S = 1_000_000_000
_U64 = 2**64 - 1
# How many pieces a pattern that leaves out pages, or a random one, is described by at most.
MAX_PIECES = 1 << 14


class AccessModel:
    """The accesses of one simulated process. Equal arguments give equal answers."""

    def __init__(self, workload: Workload, layout: Layout, accesses_per_s: int, seed: int) -> None:
        self._start = np.array([place.start for place in layout.regions], dtype=np.uint64)
        self._end = np.array([place.end for place in layout.regions], dtype=np.uint64)
        self._accesses_per_s = accesses_per_s
        self._seed = seed
        self._phases = [_groups(phase, workload) for phase in workload.phases]

    def accessed(
        self, addresses: NDArray[np.uint64], schedule: Schedule, start_ns: int, end_ns: int
    ) -> NDArray[np.bool_]:
        """For each address (shape (n,)): is its page accessed in [start_ns, end_ns)? Unmapped ones are not."""
        region = np.searchsorted(self._start, addresses, side="right") - 1
        mapped = np.flatnonzero((region >= 0) & (addresses < self._end[region]))
        region = region[mapped]
        page = ((addresses[mapped] - self._start[region]) // np.uint64(PAGE_SIZE)).astype(np.int64)
        touched = np.zeros(len(mapped), dtype=np.bool_)
        for number, segment in enumerate(schedule.segments(start_ns, end_ns)):
            for index, group in enumerate(self._phases[segment.phase]):
                pattern = np.minimum(np.searchsorted(group.region, region), len(group.region) - 1)
                at = np.flatnonzero((group.region[pattern] == region) & ~touched)
                if len(at):
                    key = _key(self._seed, start_ns, end_ns, number, index)
                    touched[at] = group.touched(pattern[at], page[at], segment, self._accesses_per_s, key)
        result = np.zeros(len(addresses), dtype=np.bool_)
        result[mapped] = touched
        return result

    def touched(
        self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int, max_pieces: int = MAX_PIECES
    ) -> Spans:
        """Which parts of ``spans`` (int64, shape (n, 2), sorted, disjoint) are accessed in [start_ns, end_ns).

        The same pages as ``accessed`` says, with two exceptions that keep the cost independent of the size. Of a random
        pattern on more than ``max_pieces`` pages, that many equal pieces are looked at: in each, the lowest pages count
        as touched, as many as are on average. A stride above a page with more than ``max_pieces`` positions is
        described by that many runs of pages, of as many pages as are touched there.
        """
        found = []
        for number, segment in enumerate(schedule.segments(start_ns, end_ns)):
            for index, group in enumerate(self._phases[segment.phase]):
                key = _key(self._seed, start_ns, end_ns, number, index)
                found += group.touched_spans(segment, self._accesses_per_s, key, spans, self._start, max_pieces)
        if not found:
            return NOTHING
        return intervals.intersection(spans, intervals.union(np.concatenate(found)))


class _Group:
    """Patterns of one phase, at most one per region, as parallel arrays in the order of their regions."""

    def __init__(self, accesses: list[Access], total_probability: int, workload: Workload) -> None:
        sizes = [workload.regions[access.region].size_bytes for access in accesses]
        positions = [nr_positions(access, workload.regions[access.region]) for access in accesses]
        self.region = np.array([access.region for access in accesses], dtype=np.int64)
        self._random = np.array([access.random for access in accesses], dtype=np.bool_)
        self._stride_bytes = np.array([effective_stride(access) for access in accesses], dtype=np.int64)
        self._size_bytes = np.array(sizes, dtype=np.int64)
        self._positions = np.array(positions, dtype=np.int64)
        self._nr_positions = positions
        self._shares = [access.probability for access in accesses]
        self._total = total_probability

    def touched(
        self, pattern: NDArray[np.int64], page: NDArray[np.int64], segment: Segment, accesses_per_s: int, key: np.uint64
    ) -> NDArray[np.bool_]:
        """For each page (its number in its region): does its pattern (index) touch it in the segment?"""
        count, at = self._runs(segment, accesses_per_s)
        count, at, positions = count[pattern], at[pattern], self._positions[pattern]
        first, beyond = positions_of_page(page, self._stride_bytes[pattern], positions)
        # The run begins inside the page, or it reaches the page's first position, going around if need be.
        touched = ((first <= at) & (at < beyond)) | ((first - at) % positions < count)
        touched &= (first < beyond) & (count > 0)

        by_chance = self._random[pattern]
        if by_chance.any():
            size_bytes = self._size_bytes[pattern]
            share = np.minimum(size_bytes - page * PAGE_SIZE, PAGE_SIZE) / size_bytes
            with np.errstate(divide="ignore", invalid="ignore"):  # a region of one page: log(0), and 0 times that
                probability = -np.expm1(count * segment.times * np.log1p(-share))
            drawn = _draw(_numbers(self.region[pattern], page), key)
            touched = np.where(by_chance, (count > 0) & (drawn < probability), touched)
        return touched

    def touched_spans(
        self,
        segment: Segment,
        accesses_per_s: int,
        key: np.uint64,
        spans: Spans,
        region_start: NDArray[np.uint64],
        max_pieces: int,
    ) -> list[Spans]:
        """What the patterns touch in the segment, as `AccessModel.touched` describes it; in any order, may overlap."""
        count, at = self._runs(segment, accesses_per_s)
        start = region_start[self.region].astype(np.int64)
        dense = ~self._random & (self._stride_bytes <= PAGE_SIZE)
        result = [self._dense(dense & (count > 0), count, at, start)]
        for pattern in np.flatnonzero(~dense & (count > 0)).tolist():
            if self._random[pattern]:
                times = int(count[pattern]) * segment.times
                result.append(self._by_chance(pattern, times, key, spans, int(start[pattern]), max_pieces))
            else:
                result.append(self._sparse(pattern, int(count[pattern]), int(at[pattern]), max_pieces) + start[pattern])
        return result

    def _dense(
        self, which: NDArray[np.bool_], count: NDArray[np.int64], at: NDArray[np.int64], start: NDArray[np.int64]
    ) -> Spans:
        """Strides up to a page: a run of positions is a run of pages, or two if it goes around the end."""
        count, at, start = count[which], at[which], start[which]
        positions, stride = self._positions[which], self._stride_bytes[which]
        count = np.minimum(count, positions)
        beyond = np.minimum(at + count, positions)
        around = count - (beyond - at)
        first = np.concatenate([at, np.zeros_like(at)])
        last = np.concatenate([beyond, around])
        stride, start = np.concatenate([stride, stride]), np.concatenate([start, start])
        found = np.stack(
            [
                start + first * stride // PAGE_SIZE * PAGE_SIZE,
                start + ((last - 1) * stride // PAGE_SIZE + 1) * PAGE_SIZE,
            ],
            axis=1,
        )
        return found[last > first]

    def _sparse(self, pattern: int, count: int, at: int, max_pieces: int) -> Spans:
        """A stride above a page: each position is in a page of its own. Relative to the region's start."""
        positions, stride = self._nr_positions[pattern], int(self._stride_bytes[pattern])
        beyond = min(at + count, positions)
        runs = [(at, beyond)] if count < positions else [(0, positions)]
        if count < positions and at + count > positions:
            runs.append((0, at + count - positions))
        unit = -(-positions // max_pieces)
        parts = intervals.split(np.array(sorted(runs), np.int64), 0, unit)
        group = parts[:, 0] // unit * unit
        base = group * stride // PAGE_SIZE  # its page; the next group's is at least ``unit`` pages further
        return (parts - group[:, None] + base[:, None]) * PAGE_SIZE

    def _by_chance(
        self, pattern: int, accesses: int, key: np.uint64, spans: Spans, start: int, max_pieces: int
    ) -> Spans:
        """A random pattern that makes so many accesses."""
        size = int(self._size_bytes[pattern])
        pages = -(-size // PAGE_SIZE)
        inside = intervals.intersection(spans, np.array([[start, start + pages * PAGE_SIZE]], np.int64))
        unit = intervals.power_of_two(-(-pages // max_pieces))
        parts = intervals.split((inside - start) // PAGE_SIZE, 0, unit)
        first, length = parts[:, 0], parts[:, 1] - parts[:, 0]
        share = np.minimum(size - first * PAGE_SIZE, PAGE_SIZE) / size
        with np.errstate(divide="ignore"):  # a region of one page
            probability = -np.expm1(accesses * np.log1p(-share))
        drawn = _draw(_numbers(np.full(len(first), self.region[pattern]), first), key)
        # Rounded at random, so that the mean is right.
        mean = np.floor(length * probability + (1.0 - drawn)).astype(np.int64)
        touched = np.where(length == 1, drawn < probability, np.minimum(mean, length))
        return start + np.stack([first, first + touched], axis=1) * PAGE_SIZE

    def _runs(self, segment: Segment, accesses_per_s: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many accesses each pattern makes in the segment, and the position of the first."""
        before = self._counts(accesses_per_s, segment.from_ns)
        until = self._counts(accesses_per_s, segment.to_ns)
        count = np.array([min(u - b, 1 << 62) for b, u in zip(before, until, strict=True)], dtype=np.int64)
        at = np.array([b % p for b, p in zip(before, self._nr_positions, strict=True)], dtype=np.int64)
        return count, at

    def _counts(self, accesses_per_s: int, since_phase_ns: int) -> list[int]:
        """How many accesses each pattern has made before that time; exact, so Python's integers."""
        made = accesses_per_s * since_phase_ns
        # Access i is at i / rate, so that ceil(t * rate) of them are before t.
        return [-(-made * share // (self._total * _NS_PER_S)) for share in self._shares]


def _groups(phase: Phase, workload: Workload) -> list[_Group]:
    """A region's first patterns in the first group, its second ones in the second, and so on."""
    groups: list[dict[int, Access]] = []
    for access in phase.accesses:
        if access.probability:
            free = next((group for group in groups if access.region not in group), None)
            if free is None:
                groups.append(free := {})
            free[access.region] = access
    return [_Group([group[region] for region in sorted(group)], phase.total_probability, workload) for group in groups]


def _key(*numbers: int) -> np.uint64:
    """One number out of several, of any size and sign."""
    key = 0
    for number in numbers:
        # A step of a linear congruential generator per number; the finisher is in `_draw`.
        key = ((key ^ (number & _U64)) * 6364136223846793005 + 1442695040888963407) & _U64
        key ^= key >> 32
    return np.uint64(key)


def _numbers(region: NDArray[np.int64], page: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A number of its own for each page of the process: a region has fewer than 2**32 pages."""
    return (region << 32 | page).astype(np.uint64)


def _draw(number: NDArray[np.uint64], key: np.uint64) -> NDArray[np.float64]:
    """Uniform in [0, 1), one per number and the same each time: SplitMix64 (Steele and others, 2014)."""
    bits = number * np.uint64(0x9E3779B97F4A7C15) + key
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
