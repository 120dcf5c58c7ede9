"""What counts of a region: memory that is there, else what is mapped; where to cut; and what has refused."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.fake_acting import BASE, MIB, PAGE, Bench, FakeActing, make_regions

from pydamon.core.refusals import Refusals
from pydamon.core.weights import Weights
from pydamon.linux.process import Mapping
from pydamon.spec import Intervals, Scheme
from pydamon.spec.actions import ActionName
from pydamon.spec.quantities import Age
from pydamon.spec.schemes import AccessPattern, AgeRange, Quotas

UNKNOWN = 2**64 - 1


class Known:
    """Pages by number: which are in memory, which are mapped; what was looked at ends at ``seen``."""

    def __init__(self, there: set[int], mapped: list[tuple[int, int]], seen: int = 1 << 40, tells: bool = True) -> None:
        self.there = np.array(sorted(there), np.uint64)
        self.maps = [Mapping(a * PAGE, b * PAGE, "rw-p", 0, 0, "") for a, b in mapped]
        self.seen = seen
        self.tells = tells
        self.asked = 0

    def resident_bytes(self, target: int, start: Any, end: Any) -> Any:
        self.asked += 1
        if not self.tells:
            return None
        first, beyond = start // np.uint64(PAGE), end // np.uint64(PAGE)
        found = (np.searchsorted(self.there, beyond) - np.searchsorted(self.there, first)).astype(np.uint64)
        return np.where(beyond > self.seen, np.uint64(UNKNOWN), found * np.uint64(PAGE))

    def mappings(self, target: int) -> list[Mapping]:
        return self.maps


def weighed(weights: Weights, *spans: tuple[int, int]) -> list[int]:
    """Of ranges of pages, in pages."""
    start, end = (np.array(side, np.uint64) * np.uint64(PAGE) for side in zip(*spans, strict=True))
    return (weights.of(0, start, end) // np.uint64(PAGE)).tolist()


def test_what_is_resident_counts_and_where_that_is_unknown_what_is_mapped() -> None:
    known = Known({1, 2, 5}, [(0, 4), (5, 8), (20, 30)], seen=8)
    spans = [(0, 8), (2, 6), (3, 5), (6, 25), (8, 20)]
    assert weighed(Weights(known, "pageout", by_memory=True), *spans) == [3, 2, 0, 7, 0]
    assert weighed(Weights(known, "willneed", by_memory=True), *spans) == [7, 3, 1, 7, 0]
    assert weighed(Weights(known, "pageout", by_memory=False), *spans) == [8, 4, 2, 19, 12]
    known.tells = False
    assert weighed(Weights(known, "pageout", by_memory=True), *spans) == [7, 3, 1, 7, 0]
    known.maps = []  # nobody knows anything
    assert weighed(Weights(known, "pageout", by_memory=True), *spans) == [8, 4, 2, 19, 12]


@pytest.mark.parametrize("action", ["pageout", "cold", "lru_prio", "lru_deprio", "migrate_hot", "collapse"])
def test_most_actions_need_memory(action: str) -> None:
    zeros = np.array([0, PAGE], np.uint64)
    assert Weights(Known(set(), []), action, by_memory=True).nothing(zeros).tolist() == [True, False]
    assert Weights(Known(set(), []), action, by_memory=False).nothing(zeros).tolist() == [False, False]


@pytest.mark.parametrize("action", ["willneed", "hugepage", "nohugepage", "stat"])
def test_some_do_not(action: str) -> None:
    assert not Weights(Known(set(), []), action, by_memory=True).nothing(np.zeros(1, np.uint64)).any()


@given(st.sets(st.integers(0, 1000)), st.integers(1, 900), st.integers(1, 200), st.sampled_from([1, 2, 8]))
def test_a_region_is_cut_where_the_quota_ends(there: set[int], size: int, most: int, unit: int) -> None:
    size = -(-size // unit) * unit + unit
    weights = Weights(Known(there, []), "pageout", by_memory=True)
    at = weights.cut_at(0, 0, size * PAGE, most * PAGE, unit * PAGE)
    fits = [end for end in range(unit, size, unit) if len([page for page in there if page < end]) <= most]
    last = max(fits, default=unit)
    whole = last // 512 * 512  # pages of a block of 2 MiB
    assert at == (whole if 2 * whole > last else last) * PAGE


def test_a_large_folio_is_not_cut_unless_little_would_be_left() -> None:
    """The kernel splits a large folio of which a part is asked for, and what is left of it stays in the page cache."""
    weights = Weights(Known(set(range(4096)), []), "pageout", by_memory=True)
    assert weights.cut_at(0, 0, 4096 * PAGE, 1300 * PAGE, PAGE) == 1024 * PAGE
    assert weights.cut_at(0, 500 * PAGE, 4096 * PAGE, 100 * PAGE, PAGE) == 600 * PAGE
    assert weights.cut_at(0, 0, 4096 * PAGE, 500 * PAGE, PAGE) == 500 * PAGE


def test_a_place_in_a_terabyte_is_found_in_few_questions() -> None:
    known = Known({10, 1 << 27, (1 << 28) - 1}, [])
    assert Weights(known, "pageout", by_memory=True).cut_at(0, 0, PAGE << 28, PAGE, PAGE) == PAGE << 27
    assert known.asked < 8


def test_what_is_not_known_counts_as_mapped_when_a_place_is_looked_for() -> None:
    known = Known({3, 40}, [(0, 100)], seen=50)
    assert Weights(known, "pageout", by_memory=True).cut_at(0, 0, 100 * PAGE, 3 * PAGE, PAGE) == 50 * PAGE


def asked_about(refusals: Refusals, *spans: tuple[int, int], target: int = 0) -> list[bool]:
    start, end = (np.array(side, np.uint64) for side in zip(*spans, strict=True))
    return refusals.left_alone(target, start, end).tolist()


def noted(refusals: Refusals, span: tuple[int, int], there: int, applied: int, target: int = 0) -> None:
    start, end, there_, done = (np.array([value], np.uint64) for value in (*span, there, applied))
    refusals.note(target, start, end, there_, done)


def test_what_refuses_is_left_alone_for_longer_each_time() -> None:
    refusals = Refusals()
    pauses, since = [], 0
    for _ in range(300):
        refusals.begin_pass()
        if asked_about(refusals, (0, 64)) == [True]:
            since += 1
            continue
        pauses.append(since)
        since = 0
        noted(refusals, (0, 64), 64, 0)
    assert pauses == [0, 1, 2, 4, 8, 16, 32, 64, 64, 64]
    noted(refusals, (0, 64), 64, 32)  # it has changed its mind
    refusals.begin_pass()
    assert asked_about(refusals, (0, 64)) == [False]


def test_half_of_a_region_decides_and_only_of_that_target() -> None:
    refusals = Refusals()
    refusals.begin_pass()
    noted(refusals, (100, 200), 10, 0)
    assert asked_about(refusals, (100, 200), (100, 150), (0, 200), (0, 201), (190, 300)) == [True] * 3 + [False] * 2
    assert asked_about(refusals, (100, 200), target=1) == [False]
    noted(refusals, (150, 250), 10, 10)
    assert asked_about(refusals, (100, 200)) == [False]


def test_empty_memory_has_not_refused_and_a_little_is_next_to_nothing() -> None:
    for there, applied, refused in ((0, 0, False), (160, 9, True), (160, 10, False), (1, 0, True), (1, 1, False)):
        refusals = Refusals()
        refusals.begin_pass()
        noted(refusals, (0, 10), there, applied)
        assert asked_about(refusals, (0, 10)) == [refused]


def test_only_so_many_are_remembered() -> None:
    refusals = Refusals()
    refusals.begin_pass()
    for number in range(2000):
        noted(refusals, (number * 10, number * 10 + 5), 5, 0)
    assert asked_about(refusals, (0, 5), (19990, 19995)) == [False, True]
    assert len(refusals._spans) == len(refusals._target) == len(refusals._wait) == len(refusals._until) == 1024


def by_memory(scheme: Scheme, spans: list[tuple[int, int]], resident: Any) -> Bench:
    ops = FakeActing()
    ops.resident = resident
    bench = Bench(scheme, regions=[make_regions(spans, age=5)], ops=ops)
    bench.damos.by_memory = True
    return bench


def all_there(start: Any, end: Any) -> Any:
    return end - start


def test_no_quota_is_spent_on_what_is_not_there() -> None:
    scheme = Scheme(action="pageout", quotas=Quotas(sz_bytes=MIB, reset_interval_ms=100))
    far = [(BASE, BASE + (1 << 40)), (BASE + (1 << 40), BASE + (1 << 40) + 2 * MIB)]
    bench = by_memory(scheme, far, lambda start, end: np.where(start < BASE + (1 << 40), np.uint64(0), end - start))
    assert bench.step() == [(0, far[1][0], far[1][0] + MIB)]
    assert bench.step() == [(0, far[1][0] + MIB, far[1][1])]
    assert bench.state.quota.total_charged_bytes == 2 * MIB


def test_after_a_rest_it_goes_on_with_another_region() -> None:
    """Of two regions of 4 MiB, the first is begun; then the least age lets none for a while: the second is next."""
    scheme = Scheme(action="pageout", quotas=Quotas(sz_bytes=MIB, reset_interval_ms=100))
    two = [(BASE, BASE + 4 * MIB), (BASE + 4 * MIB, BASE + 8 * MIB)]
    bench = by_memory(scheme, two, all_there)
    assert bench.step() == [(0, BASE, BASE + MIB)]
    assert bench.step() == [(0, BASE + MIB, BASE + 2 * MIB)]
    old = AccessPattern(age=AgeRange(min=Age(1000, "aggrs")))
    bench.state.scheme = msgspec.structs.replace(scheme, access_pattern=old)
    assert bench.step() == bench.step() == []
    bench.state.scheme = scheme
    assert bench.step() == [(0, BASE + 4 * MIB, BASE + 5 * MIB)]


def test_what_the_filters_stop_costs_nothing() -> None:
    scheme = Scheme(action="pageout", quotas=Quotas(sz_bytes=MIB, reset_interval_ms=100))
    spans = [(BASE + n * MIB, BASE + (n + 1) * MIB) for n in range(4)]
    bench = by_memory(scheme, spans, all_there)
    bench.ops.passes = bench.ops.share = lambda start, end: PAGE if start < spans[3][0] else end - start
    # The second and third are cut where the quota ends; so five pieces pass a page each, and the fourth gets the rest.
    assert bench.step()[-1] == (0, spans[3][0], spans[3][1] - 5 * PAGE)
    assert bench.state.quota.charged_bytes == MIB


def test_trying_in_vain_takes_a_small_part_of_the_time() -> None:
    scheme = Scheme(action="pageout", quotas=Quotas(sz_bytes=MIB, reset_interval_ms=1000, fail_charge_denom=MIB))
    spans = [(BASE + n * MIB, BASE + (n + 1) * MIB) for n in range(40)]
    bench = by_memory(scheme, spans, all_there)
    bench.ops.share = lambda start, end: 0
    bench.ops.ns_per_byte = 1.0  # about a millisecond each; a twentieth of 100 ms are five
    assert [len(bench.step()) for _ in range(9)] == [5] * 9
    assert [start for _, start, _ in bench.ops.spans()] == [start for start, _ in [*spans, *spans[:5]]]


@pytest.mark.parametrize(("by_memory_", "passes"), [(True, 10), (False, 1)])
def test_each_window_of_a_quota_is_used(by_memory_: bool, passes: int) -> None:
    scheme = Scheme(action="stat", quotas=Quotas(sz_bytes=MIB, reset_interval_ms=1000))
    ops = FakeActing()
    ops.resident = all_there
    bench = Bench(regions=[make_regions([(BASE, BASE + 64 * MIB)])], ops=ops)
    bench.intervals = Intervals(sample_us=500_000, aggr_us=10_000_000)
    bench.damos.by_memory = by_memory_
    bench.damos.start((scheme,), bench.intervals)
    bench.damos.wait_ns()
    for _ in range(20):
        bench.step(1)
    assert bench.state.passes == passes
    assert bench.state.stats.sz_tried == passes * MIB


@pytest.mark.parametrize(
    ("by_memory_", "action", "tried", "passed"),
    [
        (True, "pageout", MIB // 4, MIB // 4),  # of 1 MiB a quarter is there
        (True, "stat", MIB // 4, MIB // 4),
        (True, "willneed", MIB, MIB),  # is about addresses
        (False, "pageout", MIB, MIB),
    ],
)
def test_statistics_are_of_what_counts(by_memory_: bool, action: ActionName, tried: int, passed: int) -> None:
    ops = FakeActing()
    ops.resident = lambda start, end: (end - start) // np.uint64(4)
    ops.share = lambda start, end: (end - start) // 8
    bench = Bench(Scheme(action=action), regions=[make_regions([(BASE, BASE + MIB)])], ops=ops)
    bench.damos.by_memory = by_memory_
    bench.step()
    stats = bench.state.stats
    assert (stats.nr_tried, stats.sz_tried, stats.sz_ops_filter_passed) == (1, tried, passed)
    assert stats.sz_applied == MIB // 8
    assert bench.state.tried[0].sz_filter_passed.tolist() == [passed]


def test_an_interval_that_was_asked_for_is_kept() -> None:
    scheme = Scheme(action="stat", apply_interval_us=200_000, quotas=Quotas(sz_bytes=MIB, reset_interval_ms=50))
    bench = by_memory(scheme, [(BASE, BASE + 64 * MIB)], all_there)
    assert [bool(bench.step()) for _ in range(4)] == [False, True, False, True]
