"""Quotas: effective bytes for each combination of limits, charging, windows; numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core.quota import QuotaState, effective_bytes
from pydamon.core.speed import Speed
from pydamon.spec.schemes import Goal, Quotas

KIB, MIB, MS = 1 << 10, 1 << 20, 1_000_000
PAGE = 4096
GOALS = (Goal(metric="user_input", target_value=10_000),)


def charge(state: QuotaState, quotas: Quotas, tried: int, applied: int, spent_ns: int) -> None:
    state.charge(quotas, np.array([tried], np.uint64), np.array([applied], np.uint64), spent_ns)


def esz(
    quotas: Quotas,
    score: int | None = None,
    esz_bp: int = 0,
    tried: tuple[int, int] = (0, 0),
    speed: Speed | None = None,
) -> int | None:
    charged, charged_ns = tried
    return effective_bytes(
        quotas, esz_bp=esz_bp, score=score, charged_bytes=charged, charged_ns=charged_ns, speed=speed
    )[0]


class TestEffectiveBytes:
    def test_without_a_quota_there_is_no_limit(self) -> None:
        assert esz(Quotas()) is None

    def test_bytes_are_what_they_are(self) -> None:
        assert esz(Quotas(sz_bytes=3 * MIB)) == 3 * MIB

    def test_the_most_that_can_be_written_is_no_limit(self) -> None:
        assert esz(Quotas(sz_bytes=2**64 - 1)) is None

    def test_time_starts_with_a_guess_of_the_throughput(self) -> None:
        # 4 KiB * 1024 per ms, 10 ms
        assert esz(Quotas(time_ms=10)) == 4 * KIB * 1024 * 10

    def test_time_goes_by_the_throughput_measured(self) -> None:
        # 100 MiB in 50 ms are 2 MiB per ms
        assert esz(Quotas(time_ms=10), tried=(100 * MIB, 50 * MS)) == 20 * MIB

    def test_throughput_is_whole_bytes_per_ms(self) -> None:
        # 10,000 bytes in 3 ms: 3333 per ms; 30 ms
        assert esz(Quotas(time_ms=30), tried=(10_000, 3 * MS)) == 3333 * 30

    def test_slow_as_it_may_be_a_smallest_region_is_tried(self) -> None:
        # 4 KiB in 1 s are 4 bytes per ms
        slow = {"esz_bp": 0, "score": None, "charged_bytes": 4 * KIB, "charged_ns": 1000 * MS}
        assert effective_bytes(Quotas(time_ms=1), **slow)[0] == PAGE  # type: ignore[arg-type]
        assert effective_bytes(Quotas(time_ms=1), min_region=2 * MIB, **slow)[0] == 2 * MIB  # type: ignore[arg-type]

    @pytest.mark.parametrize(("sz_mib", "expected_mib"), [(10, 10), (30, 20)])
    def test_the_smaller_of_time_and_bytes_counts(self, sz_mib: int, expected_mib: int) -> None:
        quotas = Quotas(time_ms=10, sz_bytes=sz_mib * MIB)
        assert esz(quotas, tried=(100 * MIB, 50 * MS)) == expected_mib * MIB

    def test_goals_alone_begin_with_next_to_nothing(self) -> None:
        # The loop starts from 10,000, that is one byte; a score of 0 doubles it, one of 5,000 adds half.
        assert effective_bytes(Quotas(goals=GOALS), esz_bp=0, score=0, charged_bytes=0, charged_ns=0) == (2, 20_000)
        assert effective_bytes(Quotas(goals=GOALS), esz_bp=0, score=5_000, charged_bytes=0, charged_ns=0) == (1, 15_000)

    @pytest.mark.parametrize(
        ("score", "expected"),
        [
            (0, 200),  # +100 %
            (2_500, 175),  # +75 %
            (9_999, 100),  # 1,000,000 + 100
            (10_000, 100),
            (15_000, 50),  # -50 %
            (19_999, 1),  # 100 of 1,000,000: below the minimum of 10,000
            (20_000, 1),
            (10**9, 1),
        ],
    )
    def test_goals_move_the_quota_by_how_far_they_are(self, score: int, expected: int) -> None:
        assert esz(Quotas(goals=GOALS), score=score, esz_bp=1_000_000) == expected

    def test_goals_are_bounded_by_bytes_and_time(self) -> None:
        much = 10_000 * 500 * MIB
        assert esz(Quotas(goals=GOALS, sz_bytes=MIB), score=0, esz_bp=much) == MIB
        assert esz(Quotas(goals=GOALS, time_ms=1), score=0, esz_bp=much) == 4 * MIB
        assert esz(Quotas(goals=GOALS, time_ms=1, sz_bytes=MIB), score=0, esz_bp=much) == MIB
        assert esz(Quotas(goals=GOALS, sz_bytes=MIB), score=0, esz_bp=10_000 * KIB) == 2 * KIB

    def test_the_loop_saturates_instead_of_overflowing(self) -> None:
        found, state = effective_bytes(Quotas(goals=GOALS), esz_bp=2**64 - 1, score=0, charged_bytes=0, charged_ns=0)
        assert (found, state) == ((2**64 - 1) // 10_000, 2**64 - 1)

    @pytest.mark.parametrize(
        ("limits", "below", "reached", "as_in_the_kernel"),
        [
            # the documented formula: with a time, the newest kernel leaves a smallest region of a goal that is reached
            ({}, None, 0, 0),
            ({"sz_bytes": MIB}, MIB, 0, 0),
            ({"time_ms": 100}, 400 * MIB, 0, PAGE),
            ({"time_ms": 100, "sz_bytes": MIB}, MIB, 0, PAGE),
        ],
    )
    def test_temporal_is_all_until_the_goal_is_reached_then_nothing(
        self, limits: dict[str, int], below: int | None, reached: int, as_in_the_kernel: int
    ) -> None:
        quotas = Quotas(goals=GOALS, goal_tuner="temporal", **limits)  # type: ignore[arg-type]
        assert esz(quotas, score=9_999) == below
        for score in (10_000, 30_000):
            assert esz(quotas, score=score) == as_in_the_kernel
            assert esz(quotas, score=score, speed=Speed()) == reached


class TestCharging:
    def test_what_is_tried_is_charged(self) -> None:
        state, quotas = QuotaState(), Quotas(sz_bytes=2000 * MIB)
        charge(state, quotas, 1000 * MIB, 700 * MIB, 5 * MS)
        assert (state.charged_bytes, state.charged_ns) == (1000 * MIB, 5 * MS)

    def test_failed_bytes_cost_what_the_user_says(self) -> None:
        # The example of the kernel's design document: 700 of 1000 MiB, 1/1024 -> 700 MiB + 300 KiB
        state, quotas = QuotaState(), Quotas(sz_bytes=2000 * MIB, fail_charge_num=1, fail_charge_denom=1024)
        charge(state, quotas, 1000 * MIB, 700 * MIB, 0)
        assert state.charged_bytes == 700 * MIB + 300 * KIB

    @pytest.mark.parametrize(("num", "denom", "expected"), [(0, 5, 600), (5, 5, 1000), (1, 3, 733)])
    def test_the_charge_for_failures_is_rounded_down(self, num: int, denom: int, expected: int) -> None:
        state = QuotaState()
        charge(state, Quotas(sz_bytes=MIB, fail_charge_num=num, fail_charge_denom=denom), 1000, 600, 0)
        assert state.charged_bytes == expected  # 600 + 400 * num // denom

    def test_the_charge_is_rounded_for_each_region(self) -> None:
        state, sizes = QuotaState(), np.full(3, 1000, np.uint64)
        state.charge(Quotas(sz_bytes=MIB, fail_charge_num=1, fail_charge_denom=3), sizes, sizes - np.uint64(400), 0)
        assert state.charged_bytes == 3 * 733

    def test_the_charge_of_the_largest_numbers(self) -> None:
        state, most = QuotaState(), 2**32 - 1
        charge(state, Quotas(sz_bytes=MIB, fail_charge_num=most - 1, fail_charge_denom=most), 2**63, 0, 0)
        assert state.charged_bytes == 2**63 * (most - 1) // most

    def test_without_quota_nothing_is_ever_full(self) -> None:
        state = QuotaState()
        charge(state, Quotas(), 10**18, 0, 10**18)
        assert state.remaining(Quotas()) is None
        assert not state.full(Quotas(), PAGE)

    def test_full_when_less_than_a_smallest_region_is_left(self) -> None:
        quotas, state = Quotas(sz_bytes=3 * PAGE), QuotaState()
        state.begin_window(quotas, 0, None, PAGE)
        charge(state, quotas, 2 * PAGE, 2 * PAGE, 0)
        assert (state.remaining(quotas), state.full(quotas, PAGE), state.full(quotas, 2 * PAGE)) == (PAGE, False, True)

    def test_full_when_the_time_has_really_been_spent(self) -> None:
        quotas, state = Quotas(time_ms=10), QuotaState()
        state.begin_window(quotas, 0, None, PAGE)
        charge(state, quotas, PAGE, PAGE, 10 * MS)
        assert state.full(quotas, PAGE)


class TestWindows:
    quotas = Quotas(sz_bytes=4 * PAGE, reset_interval_ms=100)

    def test_the_quota_is_known_before_its_first_use(self) -> None:
        state = QuotaState()
        assert state.window_due(self.quotas, 0)
        state.begin_window(self.quotas, 0, None, PAGE)
        assert state.esz == 4 * PAGE

    def test_a_window_ends_exactly_after_its_time(self) -> None:
        state = QuotaState()
        state.begin_window(self.quotas, 7, None, PAGE)
        assert not state.window_due(self.quotas, 7 + 100 * MS - 1)
        assert state.window_due(self.quotas, 7 + 100 * MS)

    def test_a_new_window_forgets_the_charge_and_keeps_the_totals(self) -> None:
        state = QuotaState()
        state.begin_window(self.quotas, 0, None, PAGE)
        charge(state, self.quotas, PAGE, PAGE, 5)
        state.begin_window(self.quotas, 100 * MS, None, PAGE)
        assert (state.charged_bytes, state.charged_ns) == (0, 0)
        assert (state.total_charged_bytes, state.total_charged_ns) == (PAGE, 5)

    def test_windows_that_were_used_up_are_counted_when_they_end(self) -> None:
        state, counts = QuotaState(), []
        for window, pages in enumerate([4, 3, 4, 0]):
            state.begin_window(self.quotas, window * 100 * MS, None, PAGE)
            counts.append(state.qt_exceeds)
            charge(state, self.quotas, pages * PAGE, 0, 0)
        assert counts == [0, 1, 1, 2]

    def test_an_unlimited_scheme_has_no_windows(self) -> None:
        assert not QuotaState().window_due(Quotas(), 10**18)

    def test_another_quota_holds_at_once_but_the_window_goes_on(self) -> None:
        state = QuotaState()
        state.begin_window(self.quotas, 0, None, PAGE)
        charge(state, self.quotas, 3 * PAGE, 3 * PAGE, 0)
        more = Quotas(sz_bytes=10 * PAGE, reset_interval_ms=100)
        state.change(more)
        assert state.window_due(more, 50 * MS)
        state.begin_window(more, 50 * MS, None, PAGE)
        assert (state.esz, state.charged_bytes, state.remaining(more)) == (10 * PAGE, 3 * PAGE, 7 * PAGE)
        assert not state.window_due(more, 99 * MS)
        assert state.window_due(more, 100 * MS)

    def test_less_than_was_charged_already_is_used_up(self) -> None:
        state = QuotaState()
        state.begin_window(self.quotas, 0, None, PAGE)
        charge(state, self.quotas, 3 * PAGE, 3 * PAGE, 0)
        less = Quotas(sz_bytes=2 * PAGE, reset_interval_ms=100)
        state.change(less)
        state.begin_window(less, 1, None, PAGE)
        assert state.remaining(less) == 0

    def test_changing_a_quota_is_no_step_of_the_feedback_loop(self) -> None:
        quotas, state = Quotas(goals=GOALS, reset_interval_ms=100), QuotaState()
        for window in range(4):
            state.begin_window(quotas, window * 100 * MS, 0, PAGE)
        assert state.esz == 16  # 2 ** 4
        for commit in range(5):
            state.change(quotas)
            state.begin_window(quotas, 300 * MS + commit, 0, PAGE)
        assert state.esz == 16
        state.begin_window(quotas, 400 * MS, 0, PAGE)
        assert state.esz == 32

    def test_a_quota_that_is_taken_away_limits_nothing(self) -> None:
        state = QuotaState()
        state.begin_window(self.quotas, 0, None, PAGE)
        state.resume = (0, 4096)
        state.change(Quotas())
        assert (state.esz, state.resume, state.remaining(Quotas())) == (None, None, None)  # type: ignore[comparison-overlap]  # `change` sets ``resume``


class TestTimeThatIsPaidForLater:
    quotas = Quotas(time_ms=10, reset_interval_ms=1000)

    def state(self) -> QuotaState:
        state = QuotaState(speed=Speed())
        state.begin_window(self.quotas, 0, None, PAGE)
        return state

    def test_what_a_window_spent_too_much_is_missing_in_the_next_ones(self) -> None:
        state, full = self.state(), []
        charge(state, self.quotas, MIB, MIB, 35 * MS)  # three windows and a half
        for window in range(1, 5):
            state.begin_window(self.quotas, window * 1000 * MS, None, PAGE)
            full.append(state.full(self.quotas, PAGE))
        assert full == [True, True, False, False]
        assert state.charged_ns == 0

    def test_windows_in_which_nothing_was_tried_have_paid_as_well(self) -> None:
        state = self.state()
        charge(state, self.quotas, MIB, MIB, 35 * MS)
        state.begin_window(self.quotas, 3000 * MS, None, PAGE)
        assert state.charged_ns == 5 * MS

    def test_an_hour_in_a_slow_swap_is_paid_for_in_a_minute(self) -> None:
        state = self.state()
        charge(state, self.quotas, MIB, MIB, 3_600_000 * MS)
        state.begin_window(self.quotas, 1000 * MS, None, PAGE)
        assert state.charged_ns == 60 * 10 * MS

    @pytest.mark.parametrize(("speed", "expected"), [(Speed(), 24), (None, 13)])
    def test_passes_a_little_faster_than_windows_use_all_of_them(self, speed: Speed | None, expected: int) -> None:
        """26 passes, 0.96 s apart, are 24.96 s: 24 windows after the first; each second pass, as in the kernel: 13."""
        state = QuotaState(speed=speed)
        found = []
        for number in range(26):
            now_ns = number * 960 * MS
            if state.window_due(self.quotas, now_ns):
                state.begin_window(self.quotas, now_ns, None, PAGE)
                found.append(number)
        assert len(found) - (speed is not None) == expected

    def test_as_in_the_kernel_each_window_begins_anew(self) -> None:
        state = QuotaState()
        state.begin_window(self.quotas, 0, None, PAGE)
        charge(state, self.quotas, MIB, MIB, 35 * MS)
        state.begin_window(self.quotas, 1000 * MS, None, PAGE)
        assert state.charged_ns == 0

    def test_what_filters_stop_does_not_make_it_slow(self) -> None:
        """Of 1, 2 and 3 MiB at 1 ms each a filter lets one page pass: 9 MiB are looked at in what is left of 10 ms."""
        state = self.state()
        for mib in (1, 2, 3):
            state.charge(self.quotas, PAGE, PAGE, mib * MS, looked_bytes=mib * MIB)
        state.begin_window(self.quotas, 1000 * MS, None, PAGE)
        assert state.esz == 9 * MIB
