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

from pydamon.workload import intervals, many_windows
from pydamon.workload.draws import draw, how_many, key_of, numbers
from pydamon.workload.intervals import NOTHING, Spans
from pydamon.workload.layout import PAGE_SIZE, Layout
from pydamon.workload.model import Access, Phase, Workload
from pydamon.workload.truth import Interval, Schedule, Segment, effective_stride, nr_positions

_NS_PER_S = 1_000_000_000
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
                    key = key_of(self._seed, start_ns, end_ns, number, index)
                    touched[at] = group.touched(pattern[at], page[at], segment, self._accesses_per_s, key)
        result = np.zeros(len(addresses), dtype=np.bool_)
        result[mapped] = touched
        return result

    def accessed_in(
        self, addresses: NDArray[np.uint64], schedule: Schedule, windows: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """The same for each address (shape (k, n)) in the window of its row (ns, shape (k, 2), one after another)."""
        result = np.zeros(addresses.shape, np.bool_)
        row, ends = 0, windows[:, 1]
        while row < len(windows):
            start_ns, end_ns = windows[row].tolist()
            interval = schedule.at(start_ns)
            beyond = row if interval is None else int(ends.searchsorted(interval.end_ns, "right"))
            found = None
            if interval is not None and beyond > row:
                found = self._accessed_in_phase(addresses[row:beyond], interval, windows[row:beyond])
            if found is None:  # several phases, or none, or numbers that are too large
                beyond = row + 1
                found = self.accessed(addresses[row], schedule, start_ns, end_ns)
            result[row:beyond] = found
            row = beyond
        return result

    def _accessed_in_phase(
        self, addresses: NDArray[np.uint64], interval: Interval, windows: NDArray[np.int64]
    ) -> NDArray[np.bool_] | None:
        """The same within one run of a phase; None if that has to be done window by window."""
        groups = self._phases[interval.phase]
        if any(len(group.region) > 8 * addresses.shape[1] for group in groups):
            return None  # few pages of many patterns
        rows = windows.tolist()
        segments = [Segment(interval.phase, low - interval.start_ns, high - interval.start_ns, 1) for low, high in rows]
        start = self._start.astype(np.int64)
        pages = many_windows.pages_of(addresses.astype(np.int64), start, self._end.astype(np.int64))
        result = np.zeros(addresses.shape, np.bool_)
        for index, group in enumerate(groups):
            keys = [key_of(self._seed, low, high, 0, index) for low, high in rows] if group.random.any() else []
            found = many_windows.touched(group, pages, start, segments, self._accesses_per_s, keys)
            if found is None:
                return None
            result |= found
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
                key = key_of(self._seed, start_ns, end_ns, number, index)
                found += group.touched_spans(segment, self._accesses_per_s, key, spans, self._start, max_pieces)
        if not found:
            return NOTHING
        return intervals.intersection(spans, intervals.union(np.concatenate(found)))

    def accesses(self, spans: Spans, schedule: Schedule, start_ns: int, end_ns: int) -> NDArray[np.float64]:
        """How many accesses each of ``spans`` gets in [start_ns, end_ns): a pattern's are spread over its region."""
        found = np.zeros(len(spans), np.float64)
        start, end = self._start.astype(np.int64), self._end.astype(np.int64)
        for segment in schedule.segments(start_ns, end_ns):
            for group in self._phases[segment.phase]:
                count, _ = group.runs(segment, self._accesses_per_s)
                low, high = start[group.region], end[group.region]
                density = count * float(segment.times) / (high - low)
                owner, at, part = intervals.meetings(spans, np.stack([low, high], axis=1))
                found += np.bincount(owner, (part[:, 1] - part[:, 0]) * density[at], len(spans))
        return found


class Group:
    """Patterns of one phase, at most one per region, as parallel arrays in the order of their regions."""

    def __init__(self, accesses: list[Access], total_probability: int, workload: Workload) -> None:
        sizes = [workload.regions[access.region].size_bytes for access in accesses]
        positions = [nr_positions(access, workload.regions[access.region]) for access in accesses]
        self.region = np.array([access.region for access in accesses], dtype=np.int64)
        self.random = np.array([access.random for access in accesses], dtype=np.bool_)
        self.stride_bytes = np.array([effective_stride(access) for access in accesses], dtype=np.int64)
        self.size_bytes = np.array(sizes, dtype=np.int64)
        self.positions = np.array(positions, dtype=np.int64)
        self._nr_positions = positions
        # Whether each page has a position; the last one of a region may have none.
        last_page = (self.positions - 1) * self.stride_bytes // PAGE_SIZE
        self.all_pages = (self.stride_bytes <= PAGE_SIZE) & (last_page == (self.size_bytes - 1) // PAGE_SIZE)
        found = [access.probability for access in accesses]
        self.shares = sorted(set(found))  # most patterns have the share of others: it is counted once
        places = {share: place for place, share in enumerate(self.shares)}
        self.share_of = np.array([places[share] for share in found], dtype=np.int64)
        self.nr_regions = len(workload.regions)
        self._total = total_probability

    def touched(
        self, pattern: NDArray[np.int64], page: NDArray[np.int64], segment: Segment, accesses_per_s: int, key: int
    ) -> NDArray[np.bool_]:
        """For each page (its number in its region): does its pattern (index) touch it in the segment?"""
        count, at = self.runs(segment, accesses_per_s)
        count, at = count[pattern], at[pattern]
        touched = many_windows.in_run(self, pattern, page, count, at)
        by_chance = self.random[pattern]
        if by_chance.any():
            probability = many_windows.chances(self, pattern, page, count * segment.times)
            drawn = draw(numbers(self.region[pattern], page), np.uint64(key))
            touched = np.where(by_chance, (count > 0) & (drawn < probability), touched)
        return touched

    def touched_spans(
        self,
        segment: Segment,
        accesses_per_s: int,
        key: int,
        spans: Spans,
        region_start: NDArray[np.uint64],
        max_pieces: int,
    ) -> list[Spans]:
        """What the patterns touch in the segment, as `AccessModel.touched` describes it; in any order, may overlap."""
        count, at = self.runs(segment, accesses_per_s)
        start = region_start[self.region].astype(np.int64)
        dense = ~self.random & (self.stride_bytes <= PAGE_SIZE)
        result = [self._dense(dense & (count > 0), count, at, start)]
        for pattern in np.flatnonzero(~dense & (count > 0)).tolist():
            if self.random[pattern]:
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
        positions, stride = self.positions[which], self.stride_bytes[which]
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
        positions, stride = self._nr_positions[pattern], int(self.stride_bytes[pattern])
        beyond = min(at + count, positions)
        runs = [(at, beyond)] if count < positions else [(0, positions)]
        if count < positions and at + count > positions:
            runs.append((0, at + count - positions))
        unit = -(-positions // max_pieces)
        parts = intervals.split(np.array(sorted(runs), np.int64), 0, unit)
        group = parts[:, 0] // unit * unit
        base = group * stride // PAGE_SIZE  # its page; the next group's is at least ``unit`` pages further
        return (parts - group[:, None] + base[:, None]) * PAGE_SIZE

    def _by_chance(self, pattern: int, accesses: int, key: int, spans: Spans, start: int, max_pieces: int) -> Spans:
        """A random pattern that makes so many accesses."""
        size = int(self.size_bytes[pattern])
        pages = -(-size // PAGE_SIZE)
        inside = intervals.intersection(spans, np.array([[start, start + pages * PAGE_SIZE]], np.int64))
        unit = intervals.power_of_two(-(-pages // max_pieces))
        parts = intervals.split((inside - start) // PAGE_SIZE, 0, unit)
        first, length = parts[:, 0], parts[:, 1] - parts[:, 0]
        share = np.minimum(size - first * PAGE_SIZE, PAGE_SIZE) / size
        with np.errstate(divide="ignore"):  # a region of one page
            probability = -np.expm1(accesses * np.log1p(-share))
        drawn = draw(numbers(np.full(len(first), self.region[pattern]), first), np.uint64(key))
        touched = how_many(length, probability, drawn)
        return start + np.stack([first, first + touched], axis=1) * PAGE_SIZE

    def runs(self, segment: Segment, accesses_per_s: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """How many accesses each pattern makes in the segment, and the position of the first."""
        before = [self.made(share, accesses_per_s, segment.from_ns) for share in self.shares]
        until = [self.made(share, accesses_per_s, segment.to_ns) for share in self.shares]
        count = np.array([min(u - b, 1 << 62) for b, u in zip(before, until, strict=True)], dtype=np.int64)
        shares = self.share_of.tolist()
        at = [before[share] % positions for share, positions in zip(shares, self._nr_positions, strict=True)]
        return count[self.share_of], np.array(at, dtype=np.int64)

    def made(self, share: int, accesses_per_s: int, since_phase_ns: int) -> int:
        """How many accesses a pattern of that share has made before that time; exact, so Python's integers."""
        # Access i is at i / rate, so that ceil(t * rate) of them are before t.
        return -(-accesses_per_s * since_phase_ns * share // (self._total * _NS_PER_S))


def _groups(phase: Phase, workload: Workload) -> list[Group]:
    """A region's first patterns in the first group, its second ones in the second, and so on."""
    groups: list[dict[int, Access]] = []
    for access in phase.accesses:
        if access.probability:
            free = next((group for group in groups if access.region not in group), None)
            if free is None:
                groups.append(free := {})
            free[access.region] = access
    return [Group([group[region] for region in sorted(group)], phase.total_probability, workload) for group in groups]
