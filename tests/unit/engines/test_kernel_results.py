"""From the kernel's trace events to snapshots: whole ones only, in order, with the intervals that were in force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pydamon.engines.kernel.results import IntervalsLog, TraceResults, tried_by_target
from pydamon.linux.damon_trace import AGGREGATED, TUNED, Events
from pydamon.spec import Intervals

PID = 91
MS = 1_000_000
ROW = np.dtype(
    [("common_pid", "i4"), ("target_id", "u8"), ("nr_regions", "u4"), ("start", "u8"), ("end", "u8"),
     ("nr_accesses", "u4"), ("age", "u4")]
)  # fmt: skip
ESZ = np.dtype([("common_pid", "i4"), ("scheme_idx", "u4"), ("esz", "u8")])
TUNE = np.dtype([("common_pid", "i4"), ("sample_us", "u8")])

Row = tuple[int, int, int, int, int, int, int, int]


class Instance:
    """A tracing instance that has seen what it is told."""

    lost = 0

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.tuned: list[tuple[int, int, int]] = []
        self.quotas: list[tuple[int, int, int, int]] = []

    def aggregate(self, time_ms: int, target: int, regions: int, *, of: int | None = None, pid: int = PID) -> None:
        """The events of one target's snapshot at ``time_ms``: ``regions`` of ``of`` (default: all), 4 KiB each."""
        for number in range(regions):
            at = 4096 * (number + 1)
            self.rows.append((time_ms * MS + number, pid, target, of or regions, at, at + 4096, 3, 7))

    def take(self) -> dict[str, Events]:
        rows, self.rows = self.rows, []
        tuned, self.tuned = self.tuned, []
        quotas, self.quotas = self.quotas, []
        return {
            AGGREGATED: self._events([row[0] for row in rows], np.array([row[1:] for row in rows], ROW)),
            TUNED: self._events([row[0] for row in tuned], np.array([row[1:] for row in tuned], TUNE)),
            "damos_esz": self._events([row[0] for row in quotas], np.array([row[1:] for row in quotas], ESZ)),
        }

    @staticmethod
    def _events(times: list[int], rows: Any) -> Events:
        return Events(np.array(times, np.int64), np.zeros(len(times), np.int32), rows)


@pytest.fixture
def instance() -> Instance:
    return Instance()


def results_of(instance: Any, nr_targets: int = 1) -> TraceResults:
    return TraceResults(instance, PID, [(0, tuple(range(nr_targets)))], IntervalsLog(0, Intervals()))


def shape(groups: list[list[Any]]) -> list[list[tuple[int, int, int, int]]]:
    """Target, start and end in ms, and number of regions of each snapshot."""
    return [[(s.target, s.start_ns // MS, s.end_ns // MS, len(s.start)) for s in group] for group in groups]


def test_the_events_of_an_aggregation_are_a_snapshot(instance: Instance) -> None:
    results = results_of(instance)
    instance.aggregate(100, 0, 3)
    instance.aggregate(200, 0, 3)  # as many regions as before: nothing but the addresses tells them apart
    instance.aggregate(300, 0, 1)
    assert shape(results.take(300 * MS)) == [[(0, 0, 100, 3)], [(0, 100, 200, 3)], [(0, 200, 300, 1)]]
    instance.aggregate(400, 0, 2)
    ((snapshot,),) = results.take(400 * MS)
    assert snapshot.start.tolist() == [4096, 8192]
    assert snapshot.end.tolist() == [8192, 12288]
    assert (snapshot.nr_accesses.tolist(), snapshot.age.tolist()) == ([3, 3], [7, 7])
    assert (snapshot.sample_us, snapshot.aggr_us) == (5_000, 100_000)


def test_targets_of_one_aggregation_come_together(instance: Instance) -> None:
    results = results_of(instance, 3)
    for time_ms in (100, 200):
        instance.aggregate(time_ms, 0, 2)
        instance.aggregate(time_ms, 2, 2)  # target 1 has no regions (yet)
    assert shape(results.take(200 * MS)) == [
        [(0, 0, 100, 2), (2, 0, 100, 2)],
        [(0, 100, 200, 2), (2, 100, 200, 2)],
    ]


def test_an_aggregation_that_is_read_half_is_completed_by_the_next_read(instance: Instance) -> None:
    results = results_of(instance, 2)
    instance.aggregate(100, 0, 5)
    instance.aggregate(100, 1, 4)
    rest, instance.rows = instance.rows[7:], instance.rows[:7]  # target 0, and two of four regions of target 1
    assert results.take(100 * MS) == []
    instance.rows = rest
    assert shape(results.take(101 * MS)) == [[(0, 0, 100, 5), (1, 0, 100, 4)]]
    assert results.incomplete == 0


def test_a_target_that_follows_no_more_does_not_hold_up_the_others(instance: Instance) -> None:
    results = results_of(instance, 2)
    instance.aggregate(100, 0, 2)
    assert results.take(101 * MS) == []
    assert shape(results.take(150 * MS)) == [[(0, 0, 100, 2)]]
    instance.aggregate(200, 0, 2)
    assert shape(results.take(200 * MS, final=True)) == [[(0, 100, 200, 2)]]


def test_a_snapshot_that_lacks_regions_is_left_out_and_counted(instance: Instance) -> None:
    results = results_of(instance)
    instance.aggregate(100, 0, 2, of=5)
    instance.aggregate(200, 0, 4)
    instance.aggregate(300, 0, 3, of=4)
    instance.aggregate(400, 0, 2)
    assert shape(results.take(400 * MS)) == [[(0, 0, 200, 4)], [(0, 200, 400, 2)]]
    assert results.incomplete == 2


def test_events_of_another_kdamond_are_not_ours(instance: Instance) -> None:
    results = results_of(instance)
    instance.aggregate(100, 0, 2)
    instance.aggregate(100, 0, 9, pid=PID + 1)
    assert shape(results.take(200 * MS)) == [[(0, 0, 100, 2)]]


def test_tuned_intervals_hold_from_the_next_aggregation_on(instance: Instance) -> None:
    """The kernel tunes just before it hands out what was found under the old intervals (docs/algorithms.md 2.2)."""
    results = results_of(instance)
    instance.tuned = [(100 * MS - 5, PID, 8_000), (100 * MS - 4, PID + 1, 9_000)]
    instance.aggregate(100, 0, 1)
    instance.aggregate(260, 0, 1)
    (first,), (second,) = results.take(260 * MS)
    assert (first.sample_us, first.aggr_us) == (5_000, 100_000)
    assert (second.sample_us, second.aggr_us) == (8_000, 160_000)  # the ratio stays


def test_committed_intervals_hold_at_once_and_an_aggregation_begins(instance: Instance) -> None:
    log = IntervalsLog(0, Intervals())
    results = TraceResults(instance, PID, [(0, (0,))], log)  # type: ignore[arg-type]
    instance.aggregate(100, 0, 1)
    results.take(100 * MS)
    log.change(150 * MS, 1_000, 2_000, restarts=True)
    instance.aggregate(152, 0, 1)
    ((snapshot,),) = results.take(152 * MS)
    assert shape([[snapshot]]) == [[(0, 150, 152, 1)]]
    assert (snapshot.sample_us, snapshot.aggr_us) == (1_000, 2_000)
    assert snapshot.nr_accesses.tolist() == [2]  # 3 were counted before: no more than samples


def test_tried_regions_of_several_targets_are_told_apart_by_their_order() -> None:
    start = np.array([4096, 65536, 4096, 8192], np.uint64)
    columns = {name: np.arange(4, dtype=np.uint64) for name in ("nr_accesses", "age", "sz_filter_passed")}
    found = tried_by_target({"start": start, "end": start + np.uint64(4096), **columns}, range(3))
    assert [(part.target, part.start.tolist(), part.age.tolist()) for part in found] == [
        (0, [4096, 65536], [0, 1]),
        (1, [4096, 8192], [2, 3]),
    ]
    none = np.empty(0, np.uint64)
    assert tried_by_target(dict.fromkeys(("start", "end", *columns), none), [0]) == []


def test_events_of_schemes_are_told_once_in_the_order_of_time(instance: Instance) -> None:
    results = results_of(instance)
    instance.quotas = [(300 * MS, PID, 1, 33), (100 * MS, PID, 0, 11), (150 * MS, PID + 1, 0, 99)]
    results.take(300 * MS)
    assert [(event.time_ns // MS, event.values) for event in results.take_scheme_events(200 * MS)] == [
        (100, {"scheme_idx": 0, "esz": 11})
    ]
    instance.quotas = [(250 * MS, PID, 0, 22)]
    results.take(300 * MS)
    assert [event.values["esz"] for event in results.take_scheme_events()] == [22, 33]
    assert results.take_scheme_events() == []
