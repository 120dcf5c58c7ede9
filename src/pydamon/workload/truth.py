"""What a workload touches, and when: the ground truth that monitoring is compared with. Pure."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pydamon.workload.layout import PAGE_SIZE, Layout, Place
from pydamon.workload.model import Access, Phase, Workload, WorkloadRegion

Ranges = NDArray[np.uint64]


class Interval(NamedTuple):
    """One phase (by index) from ``start_ns`` to ``end_ns`` (exclusive)."""

    phase: int
    start_ns: int
    end_ns: int


class Segment(NamedTuple):
    """A stretch of a phase, in ns since that phase began, that occurs ``times`` times in some window."""

    phase: int
    from_ns: int
    to_ns: int
    times: int


class Schedule:
    """When the phases run: a cycle of intervals, one after the other, ``repeat`` times (0: for ever)."""

    def __init__(self, cycle: Iterable[Interval], repeat: int = 1) -> None:
        self.cycle = tuple(cycle)
        self.repeat = repeat
        self.start_ns = self.cycle[0].start_ns
        self.cycle_ns = self.cycle[-1].end_ns - self.start_ns
        self._starts = [interval.start_ns - self.start_ns for interval in self.cycle]

    @classmethod
    def nominal(cls, workload: Workload, start_ns: int, *, repeat: int = 1, time_scale: float = 1.0) -> Schedule:
        """The phases as the workload has them, each ``time_scale`` times as long, from ``start_ns`` on."""
        return cls.in_turn([scaled_ns(phase.duration_ms, time_scale) for phase in workload.phases], start_ns, repeat)

    @classmethod
    def in_turn(cls, durations_ns: Iterable[int], start_ns: int, repeat: int = 1) -> Schedule:
        """Phases that take so long each, from ``start_ns`` on."""
        cycle = []
        at_ns = start_ns
        for index, duration_ns in enumerate(durations_ns):
            cycle.append(Interval(index, at_ns, at_ns + duration_ns))
            at_ns += duration_ns
        return cls(cycle, repeat)

    @property
    def end_ns(self) -> int | None:
        """When the last phase ends; None if it never does."""
        return self.start_ns + self.cycle_ns * self.repeat if self.repeat else None

    def at(self, time_ns: int) -> Interval | None:
        """The phase that runs at ``time_ns``, with its real start and end; None before the first and after the last."""
        since_ns = time_ns - self.start_ns
        round_, offset_ns = divmod(since_ns, self.cycle_ns)
        if since_ns < 0 or (self.repeat and round_ >= self.repeat):
            return None
        interval = self.cycle[bisect_right(self._starts, offset_ns) - 1]
        shift_ns = round_ * self.cycle_ns
        return Interval(interval.phase, interval.start_ns + shift_ns, interval.end_ns + shift_ns)

    def segments(self, start_ns: int, end_ns: int) -> Iterator[Segment]:
        """The parts of phases that lie in [start_ns, end_ns).

        Whole cycles within the window are counted, not listed, so that a long window over short phases is cheap.
        """
        low_ns = max(start_ns - self.start_ns, 0)
        high_ns = end_ns - self.start_ns
        if self.repeat:
            high_ns = min(high_ns, self.cycle_ns * self.repeat)
        if low_ns >= high_ns:
            return
        first, low_ns = divmod(low_ns, self.cycle_ns)
        last, high_ns = divmod(high_ns, self.cycle_ns)
        if first == last:
            yield from self._within(low_ns, high_ns, 1)
            return
        yield from self._within(low_ns, self.cycle_ns, 1)
        if last - first > 1:
            yield from self._within(0, self.cycle_ns, last - first - 1)
        yield from self._within(0, high_ns, 1)

    def _within(self, low_ns: int, high_ns: int, times: int) -> Iterator[Segment]:
        index = bisect_right(self._starts, low_ns) - 1
        while index < len(self.cycle) and self._starts[index] < high_ns:
            begin_ns = self._starts[index]
            length_ns = self.cycle[index].end_ns - self.cycle[index].start_ns
            yield Segment(self.cycle[index].phase, max(low_ns - begin_ns, 0), min(high_ns - begin_ns, length_ns), times)
            index += 1


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """A workload, where its regions lie, and when its phases run."""

    workload: Workload
    layout: Layout
    schedule: Schedule

    def hot_ranges(self, start_ns: int, end_ns: int | None = None) -> Ranges:
        """What is touched in [start_ns, end_ns), or by the phase at ``start_ns``: shape (n, 2), bytes, sorted, merged.

        A pattern counts from the first to the last page that it ever touches, even if its stride leaves pages out
        (``is_hot`` is exact about those), and however little of it the window has time for.
        """
        stop_ns = start_ns + 1 if end_ns is None else end_ns
        phases = {segment.phase for segment in self.schedule.segments(start_ns, stop_ns)}
        return merged([span for phase in phases for span in phase_spans(self.workload, self.layout, phase)])

    def hot_bytes(self, start_ns: int, end_ns: int | None = None) -> int:
        """The total size of ``hot_ranges``: the true working set."""
        return size_bytes(self.hot_ranges(start_ns, end_ns))

    def is_hot(self, addresses: NDArray[np.uint64], start_ns: int, end_ns: int | None = None) -> NDArray[np.bool_]:
        """For each address (uint64, shape (n,)): does a phase in [start_ns, end_ns) touch its page?"""
        stop_ns = start_ns + 1 if end_ns is None else end_ns
        hot = np.zeros(len(addresses), dtype=np.bool_)
        for phase in {segment.phase for segment in self.schedule.segments(start_ns, stop_ns)}:
            for access in self.workload.phases[phase].accesses:
                if access.probability:
                    place = self.layout.regions[access.region]
                    inside = (addresses >= np.uint64(place.start)) & (addresses < np.uint64(place.end))
                    page = (addresses - np.uint64(place.start)).astype(np.int64) // PAGE_SIZE
                    positions = nr_positions(access, self.workload.regions[access.region])
                    first, beyond = positions_of_page(page, effective_stride(access), positions)
                    hot |= inside & (first < beyond)
        return hot


def scaled_ns(duration_ms: int, time_scale: float) -> int:
    """``duration_ms`` times ``time_scale``, in ns, at least 1."""
    return max(round(duration_ms * 1_000_000 * time_scale), 1)


def effective_stride(access: Access) -> int:
    """The distance in bytes of the positions that the pattern may touch: random accesses ignore the stride."""
    return 1 if access.random else access.stride_bytes


def nr_positions(access: Access, region: WorkloadRegion) -> int:
    """How many bytes of ``region`` the pattern may touch: 0, stride, 2 * stride, ..."""
    return -(-region.size_bytes // effective_stride(access))


def positions_of_page(
    page: NDArray[np.int64], stride_bytes: int | NDArray[np.int64], positions: int | NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of a pass's ``positions`` lie in each page (its number in the region): [first, beyond), none if equal."""
    first = np.minimum(-(-page * PAGE_SIZE // stride_bytes), positions)
    beyond = np.minimum(-(-(page + 1) * PAGE_SIZE // stride_bytes), positions)
    return first, beyond


def phase_spans(workload: Workload, layout: Layout, phase: int) -> list[tuple[int, int]]:
    """From the first to the last page that each pattern of a phase touches: (start, end) in bytes."""
    spans = []
    for access in workload.phases[phase].accesses:
        if access.probability:
            region = workload.regions[access.region]
            last = (nr_positions(access, region) - 1) * effective_stride(access)
            start = layout.regions[access.region].start
            spans.append((start, start + (last // PAGE_SIZE + 1) * PAGE_SIZE))
    return spans


def merged(spans: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted disjoint ranges that cover the same bytes as ``spans``; those that touch become one."""
    result: list[list[int]] = []
    for start, end in sorted(spans):
        if result and start <= result[-1][1]:
            result[-1][1] = max(result[-1][1], end)
        elif start < end:
            result.append([start, end])
    return np.array(result, dtype=np.uint64).reshape(-1, 2)


def size_bytes(ranges: Ranges) -> int:
    """The total size of disjoint ranges."""
    return int((ranges[:, 1] - ranges[:, 0]).sum())


def overlap_bytes(left: Ranges, right: Ranges) -> int:
    """How many bytes are in both of two sets of sorted disjoint ranges."""
    total = i = j = 0
    while i < len(left) and j < len(right):
        total += max(int(min(left[i, 1], right[j, 1])) - int(max(left[i, 0], right[j, 0])), 0)
        if left[i, 1] <= right[j, 1]:
            i += 1
        else:
            j += 1
    return total


def precision_recall(found: Ranges, truth: Ranges) -> tuple[float, float]:
    """The share of ``found`` that is true and the share of ``truth`` that was found; 1.0 of nothing."""
    both = overlap_bytes(found, truth)
    found_bytes, true_bytes = size_bytes(found), size_bytes(truth)
    return (both / found_bytes if found_bytes else 1.0, both / true_bytes if true_bytes else 1.0)


def from_events(lines: Iterable[str]) -> GroundTruth:
    """The truth as ``pydamon workload`` told it in JSON: with the real addresses and the real times.

    Raises ValueError or KeyError if ``lines`` are not its output. Without the final event (it was stopped, or is still
    running) the last phase is taken to end as planned.
    """
    layout_event: dict[str, Any] = {}
    begins: list[tuple[int, int]] = []
    end_ns: int | None = None
    for line in lines:
        event = json.loads(line)
        if event["event"] == "layout":
            layout_event = event
        elif event["event"] == "phase":
            begins.append((event["index"], event["start_ns"]))
        elif event["event"] == "end":
            end_ns = event["end_ns"]
    if not layout_event or not begins:
        raise ValueError("not the JSON output of 'pydamon workload': no layout or no phase")
    if end_ns is None:
        end_ns = begins[-1][1] + layout_event["phases"][begins[-1][0]]["duration_ns"]
    ends_ns = [start_ns for _, start_ns in begins[1:]] + [end_ns]
    cycle = [Interval(phase, start, end) for (phase, start), end in zip(begins, ends_ns, strict=True)]
    places = [Place(region["name"], region["start"], region["end"]) for region in layout_event["regions"]]
    return GroundTruth(_workload_of(layout_event), Layout(tuple(places), tuple(places)), Schedule(cycle))


def _workload_of(layout_event: dict[str, Any]) -> Workload:
    regions = tuple(WorkloadRegion(region["name"], region["size_bytes"]) for region in layout_event["regions"])
    index_of = {region.name: index for index, region in enumerate(regions)}
    phases = []
    for phase in layout_event["phases"]:
        accesses = tuple(
            Access(index_of[a["region"]], a["random"], a["stride_bytes"], a["probability"], a["mode"])
            for a in phase["accesses"]
        )
        phases.append(Phase(phase["name"], max(phase["duration_ms"], 1), accesses))
    return Workload(regions, tuple(phases))
