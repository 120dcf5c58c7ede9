"""Reporting accesses: what is handed in comes out, bounded, from any thread."""

from __future__ import annotations

import signal
import threading
import time

import numpy as np
import pytest

from pydamon.errors import RequestError
from pydamon.ops.base import PAGE_SIZE
from pydamon.ops.reported.reports import (
    ADDRESS_LIMIT,
    MAX_HOT_RANGES,
    MAX_LOOSE,
    NOBODY,
    NOT_ACCESSED_RANGE,
    WRITE,
    AccessFilter,
    AccessReports,
    covered_below,
    union,
)
from pydamon.ops.touched import TouchedPages


def ranges(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.uint64).reshape(-1, 2)


def test_single_reports_come_out_as_columns() -> None:
    reports = AccessReports(2, now_ns=lambda: 77)
    reports.report_access(0, 0x1000, 8)
    reports.report_access(1, 2**63, 16, 5, cpu=3, node=1, thread=42, is_write=True, when_ns=-4)
    reports.report_not_accessed(1, 0x2000, 0x5000, 99)
    assert reports.reported == 3
    rows, dropped = reports.take()
    assert dropped == 0
    assert rows.address.tolist() == [0x1000, 2**63, 0x2000]
    assert rows.size.tolist() == [8, 16, 0x3000]
    assert rows.when_ns.tolist() == [77, -4, 99]
    assert rows.nr_accesses.tolist() == [1, 5, 1]
    assert rows.cpu.tolist() == [NOBODY, 3, NOBODY]
    assert rows.node.tolist() == [NOBODY, 1, NOBODY]
    assert rows.thread.tolist() == [NOBODY, 42, NOBODY]
    assert rows.target.tolist() == [0, 1, 1]
    assert rows.flags.tolist() == [0, WRITE, NOT_ACCESSED_RANGE]
    rows, dropped = reports.take()
    assert (len(rows), dropped) == (0, 0)


def test_many_at_once_with_arrays_and_single_numbers() -> None:
    reports = AccessReports()
    reports.report_accesses(0, [0x1000, 0x2000, 0x3000], 4, is_write=[True, False, True], when_ns=[1, 2, 3], cpus=7)
    reports.report_accesses(0, 0x9000, 1, when_ns=4)
    reports.report_accesses(0, [], [])
    rows, _ = reports.take()
    assert rows.address.tolist() == [0x1000, 0x2000, 0x3000, 0x9000]
    assert rows.flags.tolist() == [WRITE, 0, WRITE, 0]
    assert rows.cpu.tolist() == [7, 7, 7, NOBODY]
    assert rows.when_ns.tolist() == [1, 2, 3, 4]


def test_when_it_is_full_the_oldest_are_dropped_and_counted() -> None:
    reports = AccessReports(capacity=10)
    for first in (0, 4, 8):
        reports.report_accesses(0, np.arange(first, first + 4) * 4096, 1)
    rows, dropped = reports.take()
    assert (rows.address // 4096).tolist() == list(range(2, 12))
    assert (dropped, reports.dropped) == (2, 2)
    reports.report_accesses(0, np.arange(25) * 4096, np.arange(1, 26))  # more than there is room for
    rows, dropped = reports.take()
    assert (rows.address // 4096).tolist() == list(range(15, 25))
    assert rows.size.tolist() == list(range(16, 26))
    assert (dropped, reports.dropped, reports.reported) == (15, 17, 37)


def test_single_reports_without_anybody_who_takes_are_bounded() -> None:
    reports = AccessReports(capacity=100)
    for i in range(20_000):
        reports.report_access(0, i * 4096, 1)
    assert len(reports._loose) < 5000
    rows, dropped = reports.take()
    assert rows.address[-1] == 19_999 * 4096
    assert len(rows) == 100
    assert dropped == 19_900


def test_from_many_threads_nothing_is_lost_or_mixed() -> None:
    reports = AccessReports(4)

    def work(target: int) -> None:
        for i in range(500):
            reports.report_access(target, (target + 1) << 20, 1 + target, thread=target, when_ns=i)
            reports.report_accesses(target, np.full(10, (target + 1) << 20), 1 + target, threads=target, when_ns=i)

    threads = [threading.Thread(target=work, args=(target,)) for target in range(4)]
    for thread in threads:
        thread.start()
    taken = []
    while any(thread.is_alive() for thread in threads):
        taken.append(reports.take())
    taken.append(reports.take())
    assert sum(dropped for _, dropped in taken) == 0
    assert sum(len(rows) for rows, _ in taken) == 4 * 500 * 11
    for rows, _ in taken:
        assert (rows.address == (rows.target.astype(np.uint64) + np.uint64(1)) << np.uint64(20)).all()
        assert (rows.size == rows.target.astype(np.uint64) + np.uint64(1)).all()
        assert (rows.thread == rows.target).all()


def test_what_waits_while_others_hold_the_lock_is_bounded_and_the_rest_is_counted() -> None:
    reports = AccessReports()
    with reports._lock:
        for i in range(MAX_LOOSE + 1000):
            reports.report_access(0, i * 4096, 1)
        for _ in range(5):
            reports.report_not_accessed(0, 0, 4096)
        assert len(reports._loose) == MAX_LOOSE
    for _ in range(2):  # looking changes nothing
        assert (reports.reported, reports.dropped) == (MAX_LOOSE + 1005, 1005)
    rows, dropped = reports.take()
    assert (rows.address // 4096).tolist() == list(range(MAX_LOOSE))
    assert dropped == 1005
    reports.report_access(0, 0x1000, 1)  # there is room again
    rows, dropped = reports.take()
    assert (rows.address.tolist(), dropped) == ([0x1000], 0)
    assert (reports.reported, reports.dropped) == (MAX_LOOSE + 1006, 1005)


def test_dropped_by_many_threads_none_is_forgotten() -> None:
    reports = AccessReports()

    def work() -> None:
        for _ in range(MAX_LOOSE // 2):
            reports.report_access(0, 0x1000, 1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    with reports._lock:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    rows, dropped = reports.take()
    assert MAX_LOOSE <= len(rows) <= MAX_LOOSE + 3  # between the look and the report another thread may come
    assert len(rows) + dropped == reports.reported == 2 * MAX_LOOSE


@pytest.mark.timeout(method="thread")  # it needs the timer itself
def test_a_signal_handler_may_report_while_its_thread_does() -> None:
    """The timer is armed once for each tick, so that a handler is never interrupted by the next, however slow it is."""
    reports = AccessReports()
    ticks: list[int] = []

    def handler(*_: object) -> None:
        for _i in range(5000):
            reports.report_access(0, 0x1000, 1)
        ticks.append(1)

    old = signal.signal(signal.SIGALRM, handler)
    taken = dropped = 0
    give_up = time.monotonic() + 120
    try:
        for tick in range(5):
            signal.setitimer(signal.ITIMER_REAL, 0.001 + 0.0007 * tick)
            while len(ticks) <= tick:
                assert time.monotonic() < give_up
                reports.report_accesses(0, [0x2000], 1)
                rows, lost = reports.take()
                taken, dropped = taken + len(rows), dropped + lost
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    rows, lost = reports.take()
    assert taken + len(rows) + dropped + lost == reports.reported
    assert (dropped + lost, reports.reported > 25_000) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((1, 0x1000, 8), "target: is 1; there are 1"),
        ((-1, 0x1000, 8), "target: is -1"),
        ((0, -8, 8), "not a range"),
        ((0, 0x1000, 0), "not a range"),
        ((0, ADDRESS_LIMIT, 1), "not a range"),
        ((0, 0x1000, 8, 0), "nr_accesses: is 0"),
    ],
)
def test_nonsense_is_refused(arguments: tuple[int, ...], says: str) -> None:
    reports = AccessReports()
    with pytest.raises(RequestError, match=says):
        reports.report_access(*arguments)
    with pytest.raises(RequestError):
        reports.report_accesses(*(arguments if len(arguments) == 4 else (*arguments, 1)))
    assert reports.reported == 0


def test_nonsense_in_arrays_is_refused() -> None:
    reports = AccessReports()
    with pytest.raises(RequestError, match="size: has the shape"):
        reports.report_accesses(0, [1, 2, 3], [1, 2])
    with pytest.raises(RequestError, match="addresses: goes from -1"):
        reports.report_accesses(0, [1, -1], 1)
    with pytest.raises(RequestError, match="whole numbers"):
        reports.report_accesses(0, [1.5], 1)
    with pytest.raises(RequestError, match="beyond"):
        reports.report_accesses(0, np.array([2**64 - 1], np.uint64), 8)
    with pytest.raises(RequestError, match="cpus"):
        reports.report_accesses(0, [1], 1, cpus=[2**40])
    with pytest.raises(RequestError, match="cpu: is -2"):
        reports.report_access(0, 1, 1, cpu=-2)
    with pytest.raises(RequestError, match="when_ns"):
        reports.report_access(0, 1, 1, when_ns=2**63)
    with pytest.raises(RequestError, match="capacity"):
        AccessReports(capacity=0)
    with pytest.raises(RequestError, match="nr_targets"):
        AccessReports(0)
    assert reports.reported == 0


def test_hot_ranges_are_united_aligned_and_bounded() -> None:
    reports = AccessReports(2)
    assert reports.hot_ranges(0).shape == (0, 2)
    reports.add_hot(0, [(0x5001, 0x5002), (0x1000, 0x3000)])
    reports.add_hot(0, [(0x2000, 0x4000)])
    assert reports.hot_ranges(0).tolist() == [[0x1000, 0x4000], [0x5000, 0x6000]]
    assert reports.hot_ranges(1).shape == (0, 2)
    reports.add_hot(1, np.array([(i << 13, (i << 13) + 4096) for i in range(MAX_HOT_RANGES + 5)]))
    assert len(reports.hot_ranges(1)) == MAX_HOT_RANGES
    assert reports.hot_ranges(1)[0, 0] == 5 << 13
    assert reports.hot_dropped == 5
    reports.clear_hot(1)
    assert len(reports.hot_ranges(1)) == 0
    for wrong in ([(3, 2)], [1, 2], [(0, 2**64)]):
        with pytest.raises(RequestError):
            reports.add_hot(0, wrong)


def test_filters() -> None:
    reports = AccessReports()
    reports.report_access(0, 0x1000, 1, cpu=1, node=0, thread=10, is_write=True)
    reports.report_access(0, 0x2000, 1, cpu=2, node=0, thread=11)
    reports.report_access(0, 0x3000, 1)
    rows, _ = reports.take()

    def passes(**conditions: object) -> list[bool]:
        result = AccessFilter(**conditions).passes(rows)  # type: ignore[arg-type]
        assert result is not None
        return result.tolist()

    assert AccessFilter().passes(rows) is None
    assert passes(cpus=frozenset({1, 5})) == [True, False, False]
    assert passes(cpus=frozenset({NOBODY})) == [False, False, False]  # not told is no CPU
    assert passes(nodes=frozenset({0})) == [True, True, False]
    assert passes(threads=frozenset({11}), nodes=frozenset({0})) == [False, True, False]
    assert passes(writes=True) == [True, False, False]
    assert passes(writes=False, cpus=frozenset({1})) == [False, False, False]


def test_union_and_coverage() -> None:
    spans = union(ranges((50, 60), (10, 20), (15, 30), (30, 40), (12, 13)))
    assert spans.tolist() == [[10, 40], [50, 60]]
    at = np.array([0, 10, 11, 40, 45, 50, 55, 60, 100], np.uint64)
    assert covered_below(spans, at).tolist() == [0, 0, 1, 30, 30, 30, 35, 40, 40]
    assert covered_below(ranges(), at).tolist() == [0] * 9


class TestTouchedPages:
    def test_grows_and_joins(self) -> None:
        touched = TouchedPages()
        touched.add(np.array([5, 3, 3, 4], np.uint64))
        assert touched.intervals.tolist() == [[3 << 12, 6 << 12]]
        before = touched.intervals
        touched.add(np.array([4, 5], np.uint64))
        assert touched.intervals is before
        touched.add(np.array([4, 10], np.uint64), np.array([7, 12], np.uint64))
        assert touched.intervals.tolist() == [[3 << 12, 8 << 12], [10 << 12, 13 << 12]]

    def test_equals_a_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pydamon.ops.touched.MAX_INTERVALS", 1 << 20)
        rng = np.random.default_rng(5)
        touched, pages = TouchedPages(), set()
        for _ in range(50):
            some = rng.integers(0, 200_000, 300).astype(np.uint64)
            touched.add(some)
            pages |= set(some.tolist())
        found = {page for start, end in touched.intervals.tolist() for page in range(start >> 12, end >> 12)}
        assert found == pages

    def test_is_bounded_and_keeps_the_largest_gaps(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pydamon.ops.touched.MAX_INTERVALS", 100)
        touched = TouchedPages()
        low, high = np.arange(0, 400, 2, dtype=np.uint64), np.arange(1 << 30, (1 << 30) + 400, 2, dtype=np.uint64)
        touched.add(np.concatenate([low, high, [np.uint64(1 << 40)]]))
        assert len(touched.intervals) <= 100
        assert touched.intervals[0, 0] == 0
        assert touched.intervals[-1].tolist() == [1 << 52, (1 << 52) + 4096]
        three = touched.coarse(7)
        assert three.tolist() == [
            [0, 399 << 12],
            [1 << 42, (1 << 42) + (399 << 12)],
            [1 << 52, (1 << 52) + 4096],
        ]


def test_one_report_by_keywords_has_all_that_the_kernels_form_has() -> None:
    reports = AccessReports(processes=[70, 80], now_ns=lambda: 5)
    reports.report(process=80, address=0x5000, size=8, cpu=1, node=0, thread=81, is_write=True, nr_accesses=3)
    reports.report(process=70, frame=2, when_ns=9)
    reports.report(process=70, frame=4, size=3 * PAGE_SIZE, accessed=False)
    reports.report(process=80, address=0x7001)
    rows, _ = reports.take()
    assert rows.target.tolist() == [1, 0, 0, 1]
    assert rows.address.tolist() == [0x5000, 2 * PAGE_SIZE, 4 * PAGE_SIZE, 0x7001]
    assert rows.size.tolist() == [8, PAGE_SIZE, 3 * PAGE_SIZE, 1]
    assert rows.flags.tolist() == [WRITE, 0, NOT_ACCESSED_RANGE, 0]
    assert rows.when_ns.tolist() == [5, 9, 5, 5]
    assert (rows.cpu[0], rows.node[0], rows.thread[0], rows.nr_accesses[0]) == (1, 0, 81, 3)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"address": 1}, "process: is None; it must be one of those that were given (70, 80)"),
        ({"process": 71, "address": 1}, "process: is 71; it must be one of those"),
        ({"process": 70}, "address: give either address or frame"),
        ({"process": 70, "address": 1, "frame": 1}, "address: give either address or frame"),
        ({"process": 70, "address": 1, "size": 0}, "address: 0x1 and 0 bytes are not a range"),
        ({"process": 70, "frame": -1}, "are not a range of addresses"),
        ({"process": 70, "frame": 1, "cpu": -2}, "cpu: is -2"),
    ],
)
def test_a_report_of_nothing_that_there_is_is_refused(given: dict[str, int], why: str) -> None:
    with pytest.raises(RequestError) as refused:
        AccessReports(processes=[70, 80]).report(**given)  # type: ignore[arg-type]
    assert why in str(refused.value)


def test_a_process_is_one_target() -> None:
    with pytest.raises(RequestError, match="processes: names one twice"):
        AccessReports(processes=[7, 7])
    reports = AccessReports()
    with pytest.raises(RequestError, match=r"process: is 7; .*\(none\)"):
        reports.report(process=7, address=1)
