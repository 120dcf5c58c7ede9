"""Which targets a scheme has gone through to the end, and what becomes of the regions that a quota has cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.core.fake_acting import BASE, MIB, PAGE, Bench, FakeActing, make_regions, spans_of
from tests.unit.core.fake_schemes import limited, pattern, row

from pydamon.core import adjust
from pydamon.core.adjusting import Adjusting
from pydamon.core.damos import Damos
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.spec import Context, Intervals, NrRegions, Scheme
from pydamon.spec.schemes import AddressRange, Filter


class TestSnapshots:
    def test_each_target_of_a_whole_pass_counts(self) -> None:
        bench = Bench(Scheme(action="stat"), regions=[row(2), row(3)])
        bench.step()
        assert (bench.state.passes, bench.state.stats.nr_snapshots) == (1, 2)

    def test_a_target_without_a_region_that_matches_counts(self) -> None:
        bench = Bench(Scheme(action="stat", access_pattern=pattern(rate=("5", "max"))), regions=[row(2), row(3)])
        assert bench.step() == []
        assert bench.state.stats.nr_snapshots == 2

    def test_the_documented_example(self) -> None:
        # two targets, max_nr_snapshots 1: the second is never tried; after a commit of 3: two more
        scheme = Scheme(action="stat", name="s", max_nr_snapshots=1)
        bench = Bench(scheme, regions=[row(1), row(1)])
        assert [{target for target, *_ in bench.step()} for _ in range(3)] == [{0}, set(), set()]
        bench.commit(Scheme(action="stat", name="s", max_nr_snapshots=3))
        assert [{target for target, *_ in bench.step()} for _ in range(3)] == [{0, 1}, set(), set()]
        assert bench.state.stats.nr_snapshots == 3

    @pytest.mark.parametrize(
        ("quota", "expected"),
        [
            (1, 0),  # used up in the middle of the first target
            (2, 1),  # by the last region of the first
            (3, 1),  # in the middle of the second
            (4, 2),  # by the very last region
            (5, 2),
        ],
    )
    def test_a_target_counts_if_its_last_region_came_before_the_end_of_the_quota(
        self, quota: int, expected: int
    ) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(quota * MIB)), regions=[row(2), row(2)])
        bench.step()
        assert bench.state.stats.nr_snapshots == expected

    def test_a_region_that_is_cut_at_the_end_of_the_quota_is_not_the_last(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(MIB)), regions=[row(1, size=2 * MIB)])
        bench.step()
        assert bench.state.stats.nr_snapshots == 0
        bench.step()
        assert bench.state.stats.nr_snapshots == 1

    def test_a_target_that_was_finished_in_the_window_before_is_not_counted_again(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(2 * MIB)), regions=[row(2), row(2)])
        for expected in (1, 2, 3):
            bench.step()
            assert bench.state.stats.nr_snapshots == expected

    def test_nothing_counts_while_the_quota_is_used_up(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(2 * MIB, window_ms=250)), regions=[row(2)])
        for passes, expected in ((1, 1), (2, 1), (3, 1), (4, 2)):
            bench.step()
            assert (bench.state.passes, bench.state.stats.nr_snapshots) == (passes, expected)

    def test_a_target_that_has_ended_does_not_count(self) -> None:
        ops = FakeActing(2)
        ops.target_valid = lambda target: target == 1  # type: ignore[method-assign]
        bench = Bench(Scheme(action="stat"), regions=[row(1), row(1)], ops=ops)
        bench.step()
        assert bench.state.stats.nr_snapshots == 1


def merged(regions: Regions, acted: Any = True, limit: int = 1 << 40, bounds: Any = ()) -> list[tuple[int, int]]:
    mask = np.broadcast_to(np.asarray(acted, np.bool_), len(regions))
    found = adjust.merge_back(regions, mask, limit, np.array(bounds, np.uint64))
    assert found.total_size() == regions.total_size()
    return spans_of(found)


class TestMergingBack:
    def test_alike_neighbours_become_one_up_to_the_limit(self) -> None:
        regions = make_regions([(i * 10, i * 10 + 10) for i in range(5)], 3, 2)
        assert merged(regions) == [(0, 50)]
        assert merged(regions, limit=20) == [(0, 20), (20, 40), (40, 50)]
        assert merged(regions, limit=19) == spans_of(regions)
        assert merged(regions, bounds=[20]) == [(0, 20), (20, 50)]

    def test_only_what_is_wanted_is_merged_into_what_is_before_it(self) -> None:
        regions = make_regions([(i * 10, i * 10 + 10) for i in range(4)], 3, 2)
        assert merged(regions, acted=[True, False, True, False]) == [(0, 10), (10, 30), (30, 40)]

    @pytest.mark.parametrize("row_", ["nr_accesses", "last_nr_accesses", "age", "age_ns", "unknown"])
    def test_what_differs_in_anything_stays_apart(self, row_: str) -> None:
        regions = make_regions([(0, 10), (10, 20), (20, 30)], 3, 2)
        regions.all_known = False
        getattr(regions, row_)[2] += 1
        assert merged(regions) == [(0, 20), (20, 30)]

    def test_a_hole_keeps_apart_and_nothing_to_do_changes_nothing(self) -> None:
        regions = make_regions([(0, 10), (11, 20)], 3, 2)
        assert adjust.merge_back(regions, np.array([True, True]), 1 << 40) is regions
        empty = Regions.empty()
        assert adjust.merge_back(empty, np.empty(0, np.bool_), 1 << 40) is empty

    def test_hits_become_means(self) -> None:
        regions = make_regions([(0, PAGE), (PAGE, 4 * PAGE)], 3, 2)
        regions.counts.set_nr_probes(1)
        regions.counts.hits[:] = [[8, 4]]
        found = adjust.merge_back(regions, np.array([False, True]), 1 << 40)
        assert found.probe_hits.tolist() == [[5]]
        assert found.nr_accesses.tolist() == [3]

    @given(
        st.lists(st.tuples(st.integers(1, 4), st.integers(0, 1), st.booleans(), st.booleans()), max_size=30),
        st.integers(1, 12),
    )
    def test_equals_one_region_after_the_other(self, rows: list[tuple[int, int, bool, bool]], limit: int) -> None:
        at, spans = 0, []
        for size, _, hole, _ in rows:
            spans.append((at + hole, at + hole + size))
            at += hole + size
        expected: list[list[int]] = []
        for (start, end), (_, nr, _, acted) in zip(spans, rows, strict=True):
            before = expected[-1] if expected else None
            if acted and before and before[1] == start and before[2] == nr and end - before[0] <= limit:
                before[1] = end
            else:
                expected.append([start, end, nr])
        regions = make_regions(spans, [nr for _, nr, *_ in rows], 5)
        found = merged(regions, acted=[acted for *_, acted in rows], limit=limit)
        assert [list(span) for span in found] == [row[:2] for row in expected]

    @pytest.mark.parametrize("action", ["pageout", "stat"])
    def test_quotas_leave_no_slices(self, action: Any) -> None:
        state = Adjusting(PAGE, np.random.default_rng(1))
        state.sz_limit = 64 * MIB
        scheme = Scheme(action=action, quotas=limited(MIB, window_ms=10), apply_interval_us=10_000)
        bench = Bench(scheme, regions=[row(1, size=64 * MIB, age=9)])
        bench.damos.merge_back = lambda number, regions, acted: state.merge_back(
            number, regions, acted, at_mappings=False
        )
        for count in range(1, 64):
            bench.step(2)
            assert spans_of(bench.regions[0]) == [(BASE, BASE + count * MIB), (BASE + count * MIB, BASE + 64 * MIB)]
        bench.step(2)
        assert spans_of(bench.regions[0]) == [(BASE, BASE + 64 * MIB)]

    @pytest.mark.parametrize("faithful", [True, False])
    def test_the_loop_has_it_done_within_its_limit_of_sizes(self, faithful: bool) -> None:
        ops = FakeActing()
        ops.ranges = [np.array([[BASE, BASE + 40 * MIB]], np.uint64)]
        context = Context(
            ops="sim",
            intervals=Intervals(sample_us=5_000, aggr_us=1_000_000),
            nr_regions=NrRegions(min=4, max=100),
            schemes=(Scheme(action="pageout", apply_interval_us=5_000, quotas=limited(64 * 1024, window_ms=5)),),
            faithful=faithful,
        )
        made = Damos(ops=ops, clock=ops.clock)
        k = Kdamond(ops=ops, context=context, clock=ops.clock, damos=made, rng=np.random.default_rng(1))
        most = []
        made.on_pass = lambda number: most.append(len(k.regions[0]))
        k.end_ns = ops.clock.now_ns() + 2_000_000_000
        k.run()
        assert len(most) == 400
        assert max(most) <= 20  # and not one more for each of them

    def test_what_filters_cut_is_left_cut(self) -> None:
        inside = Filter(
            filter_type="addr", address_range=AddressRange(start=BASE + MIB, end=BASE + 3 * MIB), allow=True
        )
        scheme = Scheme(action="stat", filters=(inside,), quotas=limited(MIB))
        bench = Bench(scheme, regions=[row(1, size=4 * MIB)])
        bench.damos.merge_back = lambda number, regions, wanted: adjust.merge_back(regions, wanted, 1 << 40)
        for expected in ([1, 2, 3], [1, 3], [1, 2, 3], [1, 3]):
            bench.step()
            assert [(start - BASE) // MIB for start in bench.regions[0].start.tolist()] == [0, *expected]
