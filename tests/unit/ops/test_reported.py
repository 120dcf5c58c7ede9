"""The reported set through the calls that the core makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pydamon.core.clock import VirtualClock
from pydamon.ops.base import OperationsSet
from pydamon.ops.reported.ops import ReportedOps
from pydamon.ops.reported.reports import AccessFilter, AccessReports
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN

PAGE = 4096
MS = 1_000_000
A, N, U = ACCESSED, NOT_ACCESSED, UNKNOWN


def make(nr_targets: int = 1, capacity: int = 1000, **options: Any) -> tuple[AccessReports, VirtualClock, ReportedOps]:
    clock = VirtualClock(1000 * MS)
    reports = AccessReports(nr_targets, capacity=capacity, now_ns=clock.now_ns)
    ops = ReportedOps(reports, clock, rng=np.random.default_rng(1), **options)
    contract: OperationsSet = ops
    assert contract.nr_targets == nr_targets
    return reports, clock, ops


def pages(*numbers: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions of one page each."""
    start = np.array(numbers, np.uint64) * np.uint64(PAGE)
    return start, start + np.uint64(PAGE)


def test_a_page_is_accessed_in_the_interval_in_which_it_was_reported() -> None:
    reports, clock, ops = make(complete=True)
    reports.report_access(0, 1 * PAGE, 8)  # before the window
    clock.sleep_ns(1)
    ops.prepare_access_checks(0, *pages(1, 2, 3, 4, 5))
    reports.report_access(0, 2 * PAGE + 4000, 8)
    reports.report_access(0, 4 * PAGE - 4, 8)  # over a page's end
    clock.sleep_ns(5 * MS)
    assert ops.check_accesses(0).tolist() == [N, A, A, A, N]
    ops.prepare_access_checks(0, *pages(1, 2, 3, 4, 5))
    clock.sleep_ns(5 * MS)
    assert ops.check_accesses(0).tolist() == [N] * 5


def test_many_reports_take_the_way_through_the_table() -> None:
    reports, clock, ops = make(capacity=100_000, complete=True)
    # Page 70000 has the slot of 4464: sorted out only by the exact comparison.
    ops.prepare_access_checks(0, *pages(3, 4464, 9000))
    reports.report_accesses(0, np.repeat([3, 70_000, 12_345], 1000) * PAGE, 8)
    reports.report_accesses(0, [8000 * PAGE], 2000 * PAGE)
    clock.sleep_ns(5 * MS)
    assert ops.check_accesses(0).tolist() == [A, N, A]
    ops.prepare_access_checks(0, *pages(70_000))
    reports.report_accesses(0, np.repeat([3, 4464], 1000) * PAGE, 8)
    clock.sleep_ns(5 * MS)
    assert ops.check_accesses(0).tolist() == [N]


def test_against_a_second_literal_computation() -> None:
    rng = np.random.default_rng(3)
    for _ in range(30):
        for whole in (False, True):
            reports, clock, ops = make(capacity=100_000, complete=True, scope="region" if whole else "page")
            numbers = np.sort(rng.choice(300, 41, replace=False)).tolist()
            start = np.array(numbers[:-1], np.uint64) * np.uint64(PAGE)
            end = np.array(numbers[1:], np.uint64) * np.uint64(PAGE)
            if not whole:
                end = start + np.uint64(PAGE)
            ops.prepare_access_checks(0, start, end)
            spans = []
            for address, size in zip(
                rng.integers(0, 310 * PAGE, 150), rng.choice([1, 8, 64, 20_000], 150), strict=True
            ):
                spans.append((int(address), int(address + size)))
            if rng.random() < 0.5:
                spans = spans[:20]
            reports.report_accesses(0, [a for a, _ in spans], [b - a for a, b in spans])
            clock.sleep_ns(MS)
            expected = [
                any(a < e and b > s for a, b in spans) for s, e in zip(start.tolist(), end.tolist(), strict=True)
            ]
            assert (ops.check_accesses(0) == ACCESSED).tolist() == expected


def test_one_page_of_a_region_is_sampled_so_that_counts_compare_with_other_sets() -> None:
    reports, clock, ops = make(complete=True)
    start, end = np.array([0], np.uint64), np.array([10 * PAGE], np.uint64)
    hits = 0
    for _ in range(500):
        ops.prepare_access_checks(0, start, end)
        reports.report_accesses(0, [0, PAGE, 2 * PAGE], 8)  # three pages of ten
        clock.sleep_ns(MS)
        hits += int(ops.check_accesses(0)[0] == A)
    assert 110 < hits < 190


def test_silence_of_a_sampling_source() -> None:
    reports, clock, ops = make()
    start, end = np.array([0, 10 * PAGE], np.uint64), np.array([10 * PAGE, 20 * PAGE], np.uint64)

    def ask(*addresses: int) -> list[int]:
        ops.prepare_access_checks(0, start, end)
        for address in addresses:
            reports.report_access(0, address, 1)
        clock.sleep_ns(MS)
        return ops.check_accesses(0).tolist()

    assert ask(*[5 * PAGE] * 9) == [A, N]  # the whole region counts
    assert ask() == [U, U]  # it may have been asleep
    assert ask(100 * PAGE) == [N, N]  # it was not


def test_samples_are_compared_by_their_density_not_by_the_size_of_regions() -> None:
    reports, clock, ops = make(capacity=10_000)
    # Dense, 20 times less dense but 20 times as large, and nothing.
    start = np.array([0, 100, 2100], np.uint64) * np.uint64(PAGE)
    end = np.array([100, 2100, 3000], np.uint64) * np.uint64(PAGE)
    answers = []
    for _ in range(400):
        ops.prepare_access_checks(0, start, end)
        for _i in range(51):
            reports.report_access(0, 50 * PAGE, 1)
        reports.report_access(0, 1500 * PAGE, 1, 49)  # one report of 49 accesses is as good as 49
        clock.sleep_ns(MS)
        answers.append(ops.check_accesses(0))
    dense, thin, silent = np.mean(np.array(answers) == A, axis=0)
    assert 0.85 < dense < 0.95  # 1 - exp(-2.3)
    assert 0.06 < thin < 0.16  # 1 - exp(-2.3 / 20.8)
    assert silent == 0


def test_a_quiet_time_looks_less_hot_than_a_busy_one() -> None:
    reports, clock, ops = make()
    start, end = np.array([0], np.uint64), np.array([100 * PAGE], np.uint64)

    def share(samples: int) -> float:
        hits = 0
        for _ in range(40):
            ops.prepare_access_checks(0, start, end)
            reports.report_access(0, PAGE, 1, samples)
            clock.sleep_ns(MS)
            hits += int(ops.check_accesses(0)[0] == A)
        return hits / 40

    assert share(100) > 0.75
    assert share(5) < 0.45


def test_what_is_known_not_to_have_been_accessed() -> None:
    reports, clock, ops = make(silence="unknown", scope="region")
    start, end = np.array([0, 10, 20, 30], np.uint64) * PAGE, np.array([10, 20, 30, 40], np.uint64) * PAGE
    ops.prepare_access_checks(0, start, end)
    reports.report_not_accessed(0, 0, 5 * PAGE)
    reports.report_not_accessed(0, 5 * PAGE, 15 * PAGE)  # the first region in two parts; half of the second
    reports.report_not_accessed(0, 20 * PAGE, 30 * PAGE)
    reports.report_access(0, 25 * PAGE, 1)  # outweighs it
    clock.sleep_ns(MS)
    assert ops.check_accesses(0).tolist() == [N, U, A, U]
    ops.prepare_access_checks(0, start, end)
    reports.report_not_accessed(0, 0, 10 * PAGE, clock.now_ns() - 1)  # of an earlier interval
    clock.sleep_ns(MS)
    assert ops.check_accesses(0).tolist() == [U] * 4


def test_reports_of_the_future_wait_and_late_ones_are_counted() -> None:
    reports, clock, ops = make(complete=True)
    now = clock.now_ns()
    ops.prepare_access_checks(0, *pages(1, 2))
    reports.report_access(0, PAGE, 1, when_ns=now + 5 * MS)  # the first moment of the next interval
    clock.sleep_ns(5 * MS)
    assert ops.check_accesses(0).tolist() == [N, N]
    ops.prepare_access_checks(0, *pages(1, 2))
    reports.report_access(0, 2 * PAGE, 1, when_ns=now)
    clock.sleep_ns(5 * MS)
    assert ops.check_accesses(0).tolist() == [A, N]
    assert ops.late == 1


def test_lost_reports_make_silence_unknown() -> None:
    reports, clock, ops = make(capacity=10, complete=True)
    ops.prepare_access_checks(0, *pages(1, 2))
    reports.report_accesses(0, [PAGE] * 11, 1)
    clock.sleep_ns(MS)
    assert ops.check_accesses(0).tolist() == [A, U]
    assert ops.dropped == 1
    ops.prepare_access_checks(0, *pages(1, 2))
    clock.sleep_ns(MS)
    assert ops.check_accesses(0).tolist() == [N, N]


def test_targets_are_kept_apart_and_end() -> None:
    reports, clock, ops = make(2, complete=True)
    for target in (0, 1):
        ops.prepare_access_checks(target, *pages(1, 2))
    reports.report_access(0, PAGE, 1)
    reports.report_access(1, 2 * PAGE, 1)
    clock.sleep_ns(MS)
    assert ops.check_accesses(0).tolist() == [A, N]
    assert ops.check_accesses(1).tolist() == [N, A]
    assert ops.target_valid(0)
    reports.end(0)
    assert (ops.target_valid(0), ops.target_valid(1)) == (False, True)
    reports.end()
    assert not ops.target_valid(1)
    ops.reset_aggregated()
    ops.cleanup()


def test_target_ranges_are_three_and_grow() -> None:
    reports, clock, ops = make(2)
    assert [r.shape for r in ops.init()] == [(0, 2), (0, 2)]
    assert ops.update() == [None, None]
    # mm/damon/tests/vaddr-kunit.h damon_test_three_regions_in_vmas, in pages
    for start, end in [(10, 20), (20, 25), (200, 210), (210, 220), (300, 305), (307, 330)]:
        reports.report_access(1, start * PAGE, (end - start) * PAGE)
    clock.sleep_ns(1)
    found = ops.update()
    assert found[0] is None
    assert found[1] is not None
    assert (found[1] // PAGE).tolist() == [[10, 25], [200, 220], [300, 330]]
    mappings = ops.mappings(1)
    assert [(m.start // PAGE, m.end // PAGE) for m in mappings] == [(10, 25), (200, 220), (300, 305), (307, 330)]
    assert ops.mappings(1) is mappings
    reports.report_access(1, 330 * PAGE, 1)
    clock.sleep_ns(1)
    updated = ops.update()[1]
    assert isinstance(updated, np.ndarray)
    assert (updated // PAGE).tolist() == [[10, 25], [200, 220], [300, 331]]
    assert ops.mappings(1)[-1].end == 331 * PAGE


def test_given_ranges_come_first() -> None:
    given = np.array([[0, 16 * PAGE]], np.uint64)
    _, _, ops = make(2, initial=[given])
    first, second = ops.init()
    assert first.tolist() == given.tolist()
    assert len(second) == 0


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (AccessFilter(cpus=frozenset({1})), [A, N, N]),
        (AccessFilter(threads=frozenset({7, 8})), [A, A, N]),
        (AccessFilter(nodes=frozenset({1})), [N, A, N]),
        (AccessFilter(writes=True), [N, A, N]),
        (AccessFilter(), [A, A, A]),
    ],
)
def test_filters_decide_what_counts_but_not_what_is_mapped(accept: AccessFilter, expected: list[int]) -> None:
    reports, clock, ops = make(complete=True, accept=accept)
    ops.prepare_access_checks(0, *pages(1, 2, 3))
    reports.report_access(0, 1 * PAGE, 1, cpu=1, node=0, thread=7)
    reports.report_access(0, 2 * PAGE, 1, cpu=2, node=1, thread=8, is_write=True)
    reports.report_access(0, 3 * PAGE, 1)
    clock.sleep_ns(MS)
    assert ops.check_accesses(0).tolist() == expected
    updated = ops.update()[0]
    assert isinstance(updated, np.ndarray)
    assert (updated // PAGE).tolist() == [[1, 4]]
