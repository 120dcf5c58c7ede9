"""Schemes over regions: which are acted on, in what order, how far; what is counted; commits, goals, failures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.unit.core.fake_acting import BASE, MIB, PAGE, Bench, FakeActing, spans_of
from tests.unit.core.fake_schemes import limited, pattern, places, row

from pydamon.errors import RequestError
from pydamon.spec import Intervals, Scheme
from pydamon.spec.schemes import AccessPattern, AddressRange, Filter, Quotas


class TestPattern:
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (pattern(), [0, 1, 2, 3]),
            (pattern(size=(2 * MIB, 2**64 - 1)), []),
            (pattern(size=(MIB, MIB)), [0, 1, 2, 3]),
            (pattern(rate=("1", "5")), [1]),
            (pattern(rate=("5", "max")), [1, 2, 3]),
            (pattern(rate=("25%", "50%")), [1, 2]),  # of 20 samples: 5 to 10
            (pattern(rate=("26%", "49%")), []),  # 5.2 to 9.8: 6 to 9
            (pattern(rate=("50 Hz", "max")), [1, 2, 3]),  # 5 in 100 ms
            (pattern(rate=("51 Hz", "199 Hz")), [2]),  # 6 to 19
            (pattern(age=("1s", "2s")), [1, 2]),  # 10 to 20 aggregations of 100 ms
            (pattern(age=("1.01 s", "max")), [2, 3]),
            (pattern(age=("0", "9")), [0]),
            (pattern(rate=("5", "10"), age=("20", "max")), [2]),
            (pattern(size=(0, 0)), []),
        ],
    )
    def test_regions_that_match_all_three_ranges(self, wanted: AccessPattern, expected: list[int]) -> None:
        bench = Bench(
            Scheme(action="stat", access_pattern=wanted), regions=[row(4, nr=[0, 5, 10, 20], age=[0, 10, 20, 40])]
        )
        assert places(bench.step()) == expected

    def test_times_and_rates_follow_the_intervals(self) -> None:
        wanted = pattern(rate=("50 Hz", "max"), age=("2s", "max"))
        bench = Bench(Scheme(action="stat", access_pattern=wanted), regions=[row(2, nr=[5, 10], age=[10, 20])])
        assert places(bench.step()) == [1]
        bench.intervals = Intervals(sample_us=10_000, aggr_us=200_000)  # now 10 per aggregation, and 10 of these
        bench.damos.reschedule(bench.passed, bench.intervals)
        assert places(bench.step()) == [1]
        bench.regions[0].age[:] = [10, 9]
        assert places(bench.step()) == []
        bench.regions[0].nr_accesses[:] = [10, 9]
        assert places(bench.step()) == [0]

    def test_samples_and_aggregations_do_not(self) -> None:
        wanted = pattern(rate=("5", "max"), age=("10", "max"))
        bench = Bench(Scheme(action="stat", access_pattern=wanted), regions=[row(2, nr=[4, 5], age=[10, 10])])
        for intervals in (Intervals(), Intervals(sample_us=10_000, aggr_us=200_000)):
            bench.intervals = intervals
            assert places(bench.step()) == [1]

    def test_in_the_middle_of_an_aggregation_the_moving_sum_counts(self) -> None:
        regions = row(2)
        regions.reset_aggregated()
        regions.last_nr_accesses[:] = [17, 3]
        regions.nr_accesses[:] = [1, 4]  # what was found in this aggregation so far
        regions.count_samples(15, 20)  # a quarter of the last counts is left: 5 = 1 + 4 (of 4.25), 4 = 4 + 0 (of 0.75)
        bench = Bench(Scheme(action="stat", access_pattern=pattern(rate=("5", "max"))), regions=[regions])
        assert places(bench.step()) == [0]
        assert bench.state.tried[0].nr_accesses.tolist() == [5]

    def test_hot_ranges_count_as_accessed_in_every_sample(self) -> None:
        hot = np.array([[BASE + PAGE, BASE + 3 * PAGE]], np.uint64)
        scheme = Scheme(action="pageout", access_pattern=pattern(rate=("0", "0")))
        bench = Bench(scheme, regions=[row(1)], hot=lambda target: hot)
        assert bench.step() == [(0, BASE, BASE + PAGE), (0, BASE + 3 * PAGE, BASE + MIB)]
        assert spans_of(bench.regions[0])[1] == (BASE + PAGE, BASE + 3 * PAGE)

    def test_no_hot_ranges_change_nothing(self) -> None:
        regions = row(2)
        bench = Bench(Scheme(action="stat"), regions=[regions], hot=lambda target: np.empty((0, 2), np.uint64))
        assert places(bench.step()) == [0, 1]
        assert bench.regions[0] is regions

    def test_a_smallest_region_that_is_partly_hot_is_hot(self) -> None:
        hot = np.array([[BASE + MIB + 5, BASE + MIB + 6]], np.uint64)
        scheme = Scheme(action="pageout", access_pattern=pattern(rate=("0", "0")))
        bench = Bench(scheme, regions=[row(4)], min_region=MIB, hot=lambda target: hot)
        assert places(bench.step()) == [0, 2, 3]


class TestCounting:
    def test_statistics_add_up_over_passes(self) -> None:
        ops = FakeActing()
        ops.passes = lambda start, end: (end - start) // 2
        ops.share = lambda start, end: (end - start) // 4 if (start - BASE) // MIB % 2 else 0
        bench = Bench(Scheme(action="stat"), regions=[row(6)], ops=ops)
        for count in range(1, 4):
            bench.step()
            stats = bench.state.stats
            assert (stats.nr_tried, stats.sz_tried) == (6 * count, 6 * MIB * count)
            assert stats.sz_ops_filter_passed == 3 * MIB * count
            assert (stats.nr_applied, stats.sz_applied) == (3 * count, 3 * MIB // 4 * count)
            assert stats.nr_snapshots == count

    def test_the_last_pass_can_be_looked_at(self) -> None:
        ops = FakeActing()
        ops.share = lambda start, end: 100
        bench = Bench(Scheme(action="pageout"), regions=[row(2, nr=[3, 4], age=[7, 8])], ops=ops)
        bench.step()
        (tried,) = bench.state.tried
        assert tried.start.tolist() == [BASE, BASE + MIB]
        assert (tried.nr_accesses.tolist(), tried.age.tolist()) == ([3, 4], [7, 8])  # as it was decided on
        assert tried.sz_applied.tolist() == [100, 100]
        bench.regions = [row(0)]
        bench.step()
        assert bench.state.tried == []

    def test_what_was_acted_on_gets_age_zero_but_not_by_stat(self) -> None:
        for action, expected in (("stat", [9, 9, 9]), ("pageout", [0, 9, 0]), ("hugepage", [0, 9, 0])):
            scheme = Scheme(action=action, access_pattern=pattern(rate=("0", "0")))  # type: ignore[arg-type]
            bench = Bench(scheme, regions=[row(3, nr=[0, 9, 0], age=9)])
            bench.step()
            assert bench.regions[0].age.tolist() == expected

    def test_also_what_was_tried_in_vain_is_judged_anew(self) -> None:
        ops = FakeActing()
        ops.share = lambda start, end: 0
        bench = Bench(Scheme(action="pageout"), regions=[row(2, age=9)], ops=ops)
        bench.step()
        assert bench.regions[0].age.tolist() == [0, 0]

    def test_a_scheme_sees_the_ages_that_the_ones_before_it_have_left(self) -> None:
        old = pattern(age=("5", "max"))
        bench = Bench(
            Scheme(action="pageout", access_pattern=old),
            Scheme(action="stat", access_pattern=old),
            regions=[row(1, age=9)],
        )
        bench.step()
        assert [call.action for call in bench.ops.calls] == ["pageout"]

    def test_a_scheme_stops_after_its_snapshots(self) -> None:
        bench = Bench(Scheme(action="stat", max_nr_snapshots=2), regions=[row(1)])
        assert [len(bench.step()) for _ in range(4)] == [1, 1, 0, 0]
        assert bench.state.stats.nr_snapshots == 2
        assert bench.damos.wait_ns() == 0  # the monitoring goes on

    def test_callbacks_see_what_is_about_to_be_done_and_that_it_is_done(self) -> None:
        seen: list[Any] = []
        bench = Bench(Scheme(action="stat"), Scheme(action="pageout"), regions=[row(1), row(1)])
        bench.damos.on_apply = lambda scheme, target, regions, index: seen.append((scheme, target, index.tolist()))
        bench.damos.on_pass = lambda scheme: seen.append(scheme)
        bench.step()
        assert seen == [(0, 0, [0]), (0, 1, [0]), 0, (1, 0, [0]), (1, 1, [0]), 1]


class TestApplyInterval:
    def test_each_scheme_has_its_own(self) -> None:
        schemes = [Scheme(action="stat", apply_interval_us=us) for us in (0, 10_000, 250_000, 1)]
        bench = Bench(*schemes, regions=[row(1)])
        for _ in range(200):  # 1 s of samples of 5 ms
            bench.step(samples=1)
        # every aggregation of 100 ms; every 10 ms; every 250 ms; every sample, as it cannot be more often
        assert [state.stats.nr_tried for state in bench.damos.states] == [10, 100, 4, 200]

    def test_shorter_intervals_take_effect_at_once(self) -> None:
        bench = Bench(Scheme(action="stat"), regions=[row(1)])
        bench.intervals = Intervals(sample_us=5_000, aggr_us=50_000)
        bench.damos.reschedule(0, bench.intervals)
        assert len(bench.step(samples=10)) == 1


class TestQuota:
    def test_a_region_is_cut_where_the_quota_ends(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(5 * MIB + 100)), regions=[row(2, 4 * MIB, nr=3, age=2)])
        # 5 MiB + 100 bytes: the region of 4 MiB, and 1 MiB of the next (aligned down to a smallest region)
        assert bench.step() == [(0, BASE, BASE + 4 * MIB), (0, BASE + 4 * MIB, BASE + 5 * MIB)]
        assert spans_of(bench.regions[0]) == [
            (BASE, BASE + 4 * MIB),
            (BASE + 4 * MIB, BASE + 5 * MIB),
            (BASE + 5 * MIB, BASE + 8 * MIB),
        ]
        assert bench.regions[0].nr_accesses.tolist() == [3, 3, 3]
        assert bench.state.quota.charged_bytes == 5 * MIB

    def test_the_next_window_goes_on_behind(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(3 * MIB)), regions=[row(8)])
        assert [places(bench.step()) for _ in range(4)] == [[0, 1, 2], [3, 4, 5], [6, 7], [0, 1, 2]]

    def test_the_rest_of_a_window_that_came_to_the_end_goes_to_the_beginning(self) -> None:
        quotas = limited(3 * MIB, window_ms=1000)
        bench = Bench(Scheme(action="stat", quotas=quotas), regions=[row(8)])
        done = [places(bench.step()) for _ in range(34)]
        assert [d for d in done if d] == [[0, 1, 2], [3, 4, 5], [6, 7], [0], [1, 2, 3]]

    def test_round_robin_goes_over_all_targets_before_it_begins_again(self) -> None:
        bench = Bench(
            Scheme(action="pageout", quotas=limited(3 * MIB)),
            regions=[row(2), row(3, 2 * MIB + PAGE), row(1), row(2, 3 * MIB)],
        )
        total = sum(regions.total_size() for regions in bench.regions)
        counts: dict[tuple[int, int], int] = {}
        for _ in range(40):
            for target, start, end in bench.step():
                for page in range(start, end, PAGE):
                    counts[target, page] = counts.get((target, page), 0) + 1
            if len(counts) * PAGE < total:
                assert set(counts.values()) == {1}  # nothing twice before all once
        assert len(counts) * PAGE == total
        assert max(counts.values()) - min(counts.values()) <= 1

    def test_windows_that_are_used_up_count_as_exceeded(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(3 * MIB)), regions=[row(8)])
        for _ in range(6):
            bench.step()
        # the passes try 3, 3, 2, 3, 3, 2 MiB; the sixth window has not ended
        assert bench.state.stats.qt_exceeds == 4

    def test_less_than_a_smallest_region_is_refused(self) -> None:
        with pytest.raises(RequestError, match=r"schemes\[0\].quotas.sz_bytes.*4095 bytes.*4096"):
            Bench(Scheme(action="stat", quotas=limited(PAGE - 1)), regions=[row(1)])

    def test_smallest_regions_of_more_than_a_page(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(5 * MIB)), regions=[row(2, 8 * MIB)], min_region=2 * MIB)
        assert bench.step() == [(0, BASE, BASE + 4 * MIB)]  # 1 MiB is left, that is no region
        assert bench.state.quota.full(bench.state.scheme.quotas, 2 * MIB)
        assert bench.step() == [(0, BASE + 4 * MIB, BASE + 8 * MIB)]
        assert bench.step() == [(0, BASE + 8 * MIB, BASE + 12 * MIB)]

    def test_a_time_quota_works_with_smallest_regions_of_more_than_a_page(self) -> None:
        # So slow that 1 ms is good for 41 bytes: still one smallest region is tried per window.
        ops = FakeActing()
        ops.ns_per_byte = 24_000
        quotas = Quotas(time_ms=1, reset_interval_ms=100)
        bench = Bench(Scheme(action="stat", quotas=quotas), regions=[row(4, 4 * MIB)], ops=ops, min_region=2 * MIB)
        bench.step()
        for _ in range(3):
            assert sum(end - start for _, start, end in bench.step()) == 2 * MIB

    def test_a_time_quota_ends_the_window_when_the_time_is_spent(self) -> None:
        # The guess of 4 MiB per ms is 1000 times too high: 10 ms are 40 MiB by the guess, 10,486 bytes in truth.
        ops = FakeActing()
        ops.ns_per_byte = 1e6 / 1024
        quotas = Quotas(time_ms=10, reset_interval_ms=1000)
        bench = Bench(Scheme(action="stat", quotas=quotas), regions=[row(64)], ops=ops)
        bench.step()
        assert ops.tried_bytes() == 5 * MIB  # one step of an eighth of the effective quota
        for _ in range(10):
            bench.step()
        before = ops.tried_bytes()
        bench.step(samples=200)  # a new window: 1 KiB per ms is known now
        assert bench.state.quota.esz == 10 * 1024
        assert ops.tried_bytes() - before == 2 * PAGE

    def test_failed_bytes_are_charged_at_their_rate(self) -> None:
        ops = FakeActing()
        ops.share = lambda start, end: 0
        quotas = limited(MIB + MIB // 4, fail_charge_num=1, fail_charge_denom=4)
        bench = Bench(Scheme(action="stat", quotas=quotas), regions=[row(16, MIB // 4)], ops=ops)
        # Each 256 KiB in vain cost 64 KiB: all sixteen take 1 MiB.
        assert len(bench.step()) == 16
        assert bench.state.quota.charged_bytes == MIB

    def test_failures_that_cost_nothing_do_not_cut_memory_into_crumbs(self) -> None:
        ops = FakeActing()
        ops.share = lambda start, end: 0
        quotas = limited(PAGE, fail_charge_num=0, fail_charge_denom=1)
        bench = Bench(Scheme(action="stat", quotas=quotas), regions=[row(1, 1 << 40)], ops=ops)
        bench.step()
        assert len(bench.regions[0]) <= 65
        first = ops.spans()[-1][2]
        assert bench.step()[0][1] == first  # and it goes on there

    def test_more_important_regions_go_first(self) -> None:
        quotas = Quotas(sz_bytes=2 * MIB, reset_interval_ms=100)
        ages = [0, 1200, 0, 1200, 60]
        coldest = Bench(Scheme(action="pageout", quotas=quotas), regions=[row(5, nr=[20, 0, 3, 0, 0], age=ages)])
        assert places(coldest.step()) == [1, 3]
        assert coldest.state.quota.min_score == 81  # 99 - 18, see test_scores
        hottest = Bench(Scheme(action="lru_prio", quotas=quotas), regions=[row(5, nr=[20, 0, 3, 20, 0], age=ages)])
        assert places(hottest.step()) == [0, 3]

    def test_without_limit_there_is_no_preference(self) -> None:
        bench = Bench(Scheme(action="pageout"), regions=[row(3, nr=[20, 0, 3])])
        assert places(bench.step()) == [0, 1, 2]

    def test_what_filters_reject_takes_nothing_of_the_quota(self) -> None:
        reject = Filter(filter_type="addr", address_range=AddressRange(start=BASE, end=BASE + 6 * MIB))
        # The coldest are rejected: they must not push the lowest score up, either.
        regions = row(8, nr=[0] * 6 + [5, 5], age=[1200] * 6 + [0, 0])
        quotas = Quotas(sz_bytes=2 * MIB, reset_interval_ms=100)
        bench = Bench(Scheme(action="pageout", quotas=quotas, filters=(reject,)), regions=[regions])
        assert places(bench.step()) == [6, 7]
