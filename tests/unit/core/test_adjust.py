"""Regions adjustment against the worked numbers of the kernel's unit tests and against literal re-computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pydamon.core import adjust
from pydamon.core.regions import Regions


def make(spans: list[tuple[int, int]], nr: list[int] | None = None, age: list[int] | None = None) -> Regions:
    starts, ends = zip(*spans, strict=True) if spans else ((), ())
    regions = Regions(np.array(starts, np.uint64), np.array(ends, np.uint64))
    if nr is not None:
        regions.nr_accesses[:] = nr
    if age is not None:
        regions.age[:] = age
    return regions


def spans(regions: Regions) -> list[tuple[int, int]]:
    return list(zip(regions.start.tolist(), regions.end.tolist(), strict=True))


def ranges(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.uint64).reshape(-1, 2)


class TestMerge:
    def test_two_regions_merge_to_the_size_weighted_mean(self) -> None:
        # mm/damon/tests/core-kunit.h damon_test_merge_two: (10*100 + 20*200) / 300 = 16
        merged = adjust.merge(make([(0, 100), (100, 300)], [10, 20]), 10, 1000)
        assert spans(merged) == [(0, 300)]
        assert merged.nr_accesses.tolist() == [16]

    def test_kernel_vector_of_many_regions(self) -> None:
        # mm/damon/tests/core-kunit.h damon_test_merge_regions_of, threshold 9, size limit 9999
        starts = [0, 100, 114, 122, 130, 156, 170, 184, 230]
        ends = [100, 112, 122, 130, 156, 170, 184, 230, 10170]
        merged = adjust.merge(make(list(zip(starts, ends, strict=True)), [0, 0, 10, 10, 20, 30, 1, 2, 5]), 9, 9999)
        assert spans(merged) == [(0, 112), (114, 130), (130, 156), (156, 170), (170, 230), (230, 10170)]

    def test_age_is_weighted_like_the_access_count(self) -> None:
        merged = adjust.merge(make([(0, 10), (10, 40)], [4, 4], [8, 4]), 0, 100)
        assert merged.age.tolist() == [(8 * 10 + 4 * 30) // 40]

    def test_a_merged_region_is_compared_by_its_mean(self) -> None:
        # 0 and 2 merge to 1; 3 is within 2 of that mean, and also of its neighbour 2; 4 is not within 2 of the mean 1.
        merged = adjust.merge(make([(0, 10), (10, 20), (20, 30)], [0, 2, 4]), 2, 100)
        assert spans(merged) == [(0, 20), (20, 30)]

    def test_regions_with_a_hole_between_them_stay_apart(self) -> None:
        assert len(adjust.merge(make([(0, 10), (11, 20)], [0, 0]), 5, 100)) == 2

    @given(
        st.lists(st.tuples(st.integers(1, 5), st.integers(0, 20), st.integers(0, 9), st.booleans()), max_size=40),
        st.integers(0, 20),
        st.integers(1, 30),
    )
    def test_equals_a_literal_left_to_right_merge(
        self, rows: list[tuple[int, int, int, bool]], threshold: int, limit: int
    ) -> None:
        at, pairs = 0, []
        for size, _, _, hole in rows:
            at += hole
            pairs.append((at, at + size))
            at += size
        nr, age = [r[1] for r in rows], [r[2] for r in rows]
        expected: list[list[int]] = []
        for (start, end), count, old in zip(pairs, nr, age, strict=True):
            if expected:
                prev = expected[-1]
                if prev[1] == start and abs(prev[2] - count) <= threshold and end - prev[0] <= limit:
                    left, more = prev[1] - prev[0], end - start
                    prev[2] = (prev[2] * left + count * more) // (left + more)
                    prev[3] = (prev[3] * left + old * more) // (left + more)
                    prev[1] = end
                    continue
            expected.append([start, end, count, old])
        merged = adjust.merge(make(pairs, nr, age), threshold, limit)
        got = [list(row) for row in zip(*(a.tolist() for a in (merged.start, merged.end)), strict=True)]
        assert got == [row[:2] for row in expected]
        assert merged.nr_accesses.tolist() == [row[2] for row in expected]
        assert merged.age.tolist() == [row[3] for row in expected]

    def test_the_threshold_grows_until_the_maximum_holds(self) -> None:
        # 40 regions that alternate between 0 and 10 of 20: the first threshold (10/10 = 1) merges nothing.
        regions = make([(i, i + 1) for i in range(40)], [0, 10] * 20)
        (merged,) = adjust.merge_all([regions], max_seen=10, sz_limit=8, max_nr_regions=10, window=20)
        assert len(merged) <= 10
        assert merged.total_size() == 40
        assert int(merged.size.max()) <= 8

    @pytest.mark.parametrize(
        ("first", "window", "expected"),
        [
            # by the rule of 7.3 (algorithms.md 2.4): doubled below half of M, then M
            (0, 20, [0, 1, 2, 4, 8, 16, 20]),
            (2, 20, [2, 4, 8, 16, 20]),
            (0, 1, [0, 1]),
            (3, 7, [3, 7]),  # 3 is not below 7 // 2
            (25, 20, [25]),
        ],
    )
    def test_thresholds_while_regions_are_too_many(self, first: int, window: int, expected: list[int]) -> None:
        assert list(adjust.thresholds(first, window)) == expected

    def test_no_pass_follows_the_one_with_which_the_maximum_holds(self) -> None:
        # Thresholds 0, 1 and 2 merge nothing; 4 merges 0 and 3 to 1, from which 9 is too far.
        regions = make([(i, i + 1) for i in range(3)], [0, 3, 9])
        (merged,) = adjust.merge_all([regions], max_seen=9, sz_limit=8, max_nr_regions=2, window=20)
        assert spans(merged) == [(0, 2), (2, 3)]

    def test_two_merged_keep_the_last_count_of_the_left(self) -> None:
        # the newest semantics of merging: only nr_accesses, age and hits are means
        regions = make([(0, 10), (10, 40)], [4, 4])
        regions.last_nr_accesses[:] = [3, 4]
        assert adjust.merge(regions, 0, 100).last_nr_accesses.tolist() == [3]


class TestAge:
    def test_grows_while_the_count_stays_within_the_threshold(self) -> None:
        regions = make([(0, 1), (1, 2), (2, 3), (3, 4)], [10, 10, 0, 1], [5, 5, 5, 5])
        regions.last_nr_accesses[:] = [8, 7, 0, 0]
        adjust.update_age(regions, 2)
        # the last one: from no access to one is a change at any threshold (2.4, newest kernels)
        assert regions.age.tolist() == [6, 0, 6, 0]

    def test_counts_once_although_merging_repeats(self) -> None:
        regions = make([(i, i + 1) for i in range(8)], [0, 10] * 4, [3] * 8)
        regions.last_nr_accesses[:] = [0, 10] * 4
        (merged,) = adjust.merge_all([regions], max_seen=10, sz_limit=8, max_nr_regions=3, window=20)
        assert merged.age.tolist() == [4]


class TestSplit:
    def test_children_inherit_all_counters(self) -> None:
        # mm/damon/tests/core-kunit.h damon_test_split_at uses nr 42, last 15
        regions = make([(0, 100)], [42], [7])
        regions.last_nr_accesses[:] = 15
        halves = adjust.split(regions, 2, 1, np.random.default_rng(1))
        assert len(halves) == 2
        for counter, value in (("nr_accesses", 42), ("last_nr_accesses", 15), ("age", 7)):
            assert getattr(halves, counter).tolist() == [value, value]

    @pytest.mark.parametrize(("size", "pieces"), [(22, 2), (220, 3)])
    def test_kernel_vector_number_of_pieces(self, size: int, pieces: int) -> None:
        # core-kunit.h damon_test_split_regions_of: at most the wanted number of pieces
        for seed in range(50):
            out = adjust.split(make([(0, size)]), pieces, 1, np.random.default_rng(seed))
            assert 2 <= len(out) <= pieces

    def test_the_cut_is_at_a_tenth_of_the_size(self) -> None:
        cuts = {spans(adjust.split(make([(0, 1000)]), 2, 1, np.random.default_rng(s)))[0][1] for s in range(200)}
        assert cuts == {100, 200, 300, 400, 500, 600, 700, 800, 900}

    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=20),
        st.sampled_from([2, 3]),
        st.integers(0, 2**32),
    )
    def test_covers_the_same_bytes_in_aligned_pieces(
        self, layout: list[tuple[int, int]], pieces: int, seed: int
    ) -> None:
        at, pairs = 0, []
        for hole, pages in layout:
            at += hole * 4096
            pairs.append((at, at + pages * 4096))
            at += pages * 4096
        out = adjust.split(make(pairs), pieces, 4096, np.random.default_rng(seed))
        assert all(s < e and s % 4096 == 0 and e % 4096 == 0 for s, e in spans(out))
        assert (out.start[1:] >= out.end[:-1]).all()
        assert {p for s, e in spans(out) for p in range(s, e, 4096)} == {p for s, e in pairs for p in range(s, e, 4096)}
        small = sum(1 for s, e in pairs if e - s <= 8192)
        assert len(out) <= small + pieces * (len(pairs) - small)

    def test_the_largest_regions_do_not_overflow(self) -> None:
        out = adjust.split(make([(0, 2**64 - 4096)]), 3, 4096, np.random.default_rng(0))
        assert spans(out)[0][0] == 0
        assert spans(out)[-1][1] == 2**64 - 4096
        assert (out.start < out.end).all()

    @pytest.mark.parametrize("turn", range(11))
    def test_every_few_regions_are_split_in_their_turn(self, turn: int) -> None:
        # step 4: of 11 regions of two targets numbers turn % 4, + 4, + 8, counted over both targets
        regions = make([(i * 100, i * 100 + 100) for i in range(11)], list(range(11)))
        split = adjust.split_every(
            [regions.part(slice(0, 6)), regions.part(slice(6, 11))],
            4,
            turn % 4,
            min_region=10,
            rng=np.random.default_rng(turn),
        )
        counts = np.concatenate([one.nr_accesses for one in split])
        assert np.flatnonzero(np.bincount(counts) == 2).tolist() == list(range(turn % 4, 11, 4))
        assert [one.total_size() for one in split] == [600, 500]
        assert all((one.start[1:] == one.end[:-1]).all() for one in split)

    @pytest.mark.parametrize(("pages", "most"), [(1, 1), (2, 2), (3, 2)])
    def test_in_its_turn_a_region_of_two_smallest_ones_is_split(self, pages: int, most: int) -> None:
        # 2.5: size >= 2 * min_region here, > there; the turn is spent where the cut is drawn at the start
        found = {
            len(adjust.split_every([make([(0, pages * 4096)])], 3, 0, min_region=4096, rng=np.random.default_rng(s))[0])
            for s in range(50)
        }
        assert found == set(range(1, most + 1))

    def test_three_pieces_only_if_the_number_stood_still_and_there_is_room(self) -> None:
        regions = make([(i * 1000, i * 1000 + 1000) for i in range(6)])

        def count(last: int, maximum: int) -> int:
            rng = np.random.default_rng(3)
            split = adjust.split_all([regions], last_nr_regions=last, max_nr_regions=maximum, min_region=1, rng=rng)
            return len(split[0])

        assert count(last=5, maximum=100) == 12
        assert count(last=6, maximum=20) == 12  # 6 < 20 // 3 does not hold
        assert 12 < count(last=6, maximum=21) <= 18


class TestTargetRanges:
    OLD = ((10, 20), (20, 30), (50, 55), (55, 57), (57, 59), (70, 80), (80, 90), (90, 100))

    @pytest.mark.parametrize(
        ("new", "expected"),
        [
            # mm/damon/tests/vaddr-kunit.h damon_test_apply_three_regions1 to 4
            (
                [(5, 27), (45, 55), (73, 104)],
                [(5, 20), (20, 27), (45, 55), (73, 80), (80, 90), (90, 104)],
            ),
            (
                [(5, 27), (56, 57), (65, 104)],
                [(5, 20), (20, 27), (56, 57), (65, 80), (80, 90), (90, 104)],
            ),
            (
                [(5, 27), (61, 63), (65, 104)],
                [(5, 20), (20, 27), (61, 63), (65, 80), (80, 90), (90, 104)],
            ),
            ([(5, 7), (30, 32), (65, 68)], [(5, 7), (30, 32), (65, 68)]),
        ],
    )
    def test_kernel_vectors(self, new: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
        assert spans(adjust.set_ranges(make(list(self.OLD)), ranges(*new), 1)) == expected

    def test_holes_become_new_regions_and_the_rest_keeps_its_counters(self) -> None:
        # core-kunit.h damon_test_set_regions: 4-16 and 24-32, new range 8-28
        out = adjust.set_ranges(make([(4, 16), (24, 32)], [3, 4], [5, 6]), ranges((8, 28)), 1)
        assert spans(out) == [(8, 16), (16, 24), (24, 28)]
        assert out.nr_accesses.tolist() == [3, 0, 4]
        assert out.age.tolist() == [5, 0, 6]

    def test_bounds_are_aligned_outwards(self) -> None:
        out = adjust.set_ranges(Regions.empty(), ranges((4097, 8191)), 4096)
        assert spans(out) == [(4096, 8192)]

    def test_a_region_across_two_ranges_keeps_its_counters_in_both(self) -> None:
        out = adjust.set_ranges(make([(20, 60)], [9], [2]), ranges((10, 30), (50, 70)), 1)
        assert spans(out) == [(10, 30), (50, 70)]
        assert out.nr_accesses.tolist() == [9, 9]

    def test_no_ranges_leave_no_regions(self) -> None:
        assert len(adjust.set_ranges(make([(20, 60)]), ranges(), 1)) == 0

    def test_regions_that_cover_the_ranges_stay_the_same_objects(self) -> None:
        regions = make([(8, 16), (16, 24), (32, 40)], [1, 2, 3])
        assert adjust.set_ranges(regions, ranges((9, 23), (32, 37)), 8) is regions  # but for alignment
        for other in (((9, 23),), ((9, 23), (32, 41)), ((7, 23), (32, 40)), ((9, 23), (24, 40))):
            assert adjust.set_ranges(regions, ranges(*other), 8) is not regions
        # Ranges that touch: regions begin anew between them.
        assert spans(adjust.set_ranges(make([(8, 24)]), ranges((8, 16), (16, 24)), 8)) == [(8, 16), (16, 24)]

    @given(st.data())
    def test_result_covers_exactly_the_ranges(self, data: st.DataObject) -> None:
        def pairs() -> list[tuple[int, int]]:
            at, out = 0, []
            for hole, size in data.draw(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=12)):
                out.append((at + hole, at + hole + size))
                at += hole + size
            return out

        old, new = pairs(), pairs()
        out = adjust.set_ranges(make(old, list(range(1, len(old) + 1))), ranges(*new), 1)
        assert {b for s, e in spans(out) for b in range(s, e)} == {b for s, e in new for b in range(s, e)}
        assert sum(e - s for s, e in spans(out)) == sum(e - s for s, e in new)
        assert (out.start[1:] >= out.end[:-1]).all()

    @pytest.mark.parametrize(
        ("span", "piece", "expected"),
        [
            # mm/damon/tests/vaddr-kunit.h damon_test_split_evenly_succ: 0-100 in 10; 5-59 in 5 (last takes the rest)
            ((0, 100), 10, [(i, i + 10) for i in range(0, 100, 10)]),
            ((5, 59), 10, [(5, 15), (15, 25), (25, 35), (35, 45), (45, 59)]),
        ],
    )
    def test_initial_regions_are_even(self, span: tuple[int, int], piece: int, expected: list[tuple[int, int]]) -> None:
        assert spans(adjust.initial_regions(ranges(span), piece, 1)) == expected

    def test_regions_above_the_limit_are_cut_evenly(self) -> None:
        out = adjust.split_larger_than(make([(0, 4), (4, 35), (35, 54)], [1, 2, 3]), 10, 1)
        assert spans(out) == [(0, 4), (4, 14), (14, 24), (24, 35), (35, 54)]  # 19 is not twice the limit
        assert out.nr_accesses.tolist() == [1, 2, 2, 2, 3]

    def test_the_kernels_way_cuts_exactly_at_the_limit(self) -> None:
        # the documented example of 7.1 (algorithms.md 2.3): one region of 1,003 pages, at least 10 regions
        limit = adjust.size_limit(1003 * 4096, 10, 4096)
        assert limit == 101 * 4096  # 4108288 // 10 = 410828, aligned up
        out = adjust.cut_at_limit(make([(4096, 1004 * 4096)], [7], [3]), limit)
        assert (out.size // np.uint64(4096)).tolist() == [101] * 9 + [94]
        assert out.nr_accesses.tolist() == [7] * 10
        assert out.age.tolist() == [3] * 10

    def test_one_page_more_than_the_limit_is_cut_off_and_no_more_leaves_the_regions_as_they_are(self) -> None:
        regions = make([(0, 102), (110, 211), (300, 304)], [1, 2, 3])
        assert spans(adjust.cut_at_limit(regions, 101)) == [(0, 101), (101, 102), (110, 211), (300, 304)]
        assert adjust.cut_at_limit(regions, 102) is regions
        assert adjust.cut_at_limit(Regions.empty(), 101).total_size() == 0

    @given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), max_size=20), st.integers(1, 30))
    def test_cutting_at_the_limit_is_cutting_off_the_limit_again_and_again(
        self, layout: list[tuple[int, int]], limit: int
    ) -> None:
        at, pairs, expected = 0, [], []
        for hole, size in layout:
            start, at = at + hole, at + hole + size
            pairs.append((start, at))
            while at - start > limit:
                expected.append((start, start + limit))
                start += limit
            expected.append((start, at))
        assert spans(adjust.cut_at_limit(make(pairs), limit)) == expected

    def test_size_limit_keeps_the_minimum_number_of_regions(self) -> None:
        assert adjust.size_limit(1000, 10, 4) == 100
        assert adjust.size_limit(1001, 10, 4) == 100
        assert adjust.size_limit(1010, 10, 4) == 104  # aligned up
        assert adjust.size_limit(30, 10, 4096) == 4096


def test_ages_by_the_clock_merge_as_means_by_size_and_start_over_with_the_count() -> None:
    mib = 1 << 20
    bounds = np.array([0, 1, 4, 8], np.uint64) * np.uint64(mib)
    regions = Regions(bounds[:-1], bounds[1:])
    regions.age_ns[:] = [8_000_000_000, 4_000_000_000, 5_000_000_000]
    regions.counts.accessed[:] = [0, 0, 15]
    merged = adjust.merge_all([regions], max_seen=15, sz_limit=100 * mib, max_nr_regions=10, window=20, elapsed_ns=7)[0]
    # (1 MiB x 8 s + 3 MiB x 4 s) / 4 MiB, and what this aggregation took; the third began to be accessed in it.
    assert merged.age_ns.tolist() == [5_000_000_007, 0]
    assert merged.age.tolist() == [1, 0]
