"""Running schemes: filters, watermarks, goals, commits, failures."""

from __future__ import annotations

import threading

import msgspec
import numpy as np
import pytest
from tests.unit.core.fake_acting import BASE, MIB, PAGE, Bench, FakeActing, FakeMetrics, make_regions
from tests.unit.core.fake_schemes import limited, pattern, places, row

from pydamon.errors import MachineError, RequestError
from pydamon.spec import Scheme
from pydamon.spec.schemes import AddressRange, Filter, Goal, Quotas, Watermarks


class TestFilters:
    def test_address_ranges_split_regions_and_page_filters_are_skipped_where_one_allows(self) -> None:
        filters = (
            Filter(filter_type="anon"),
            Filter(filter_type="addr", allow=True, address_range=AddressRange(start=BASE, end=BASE + MIB)),
            Filter(filter_type="addr", address_range=AddressRange(start=BASE + 2 * MIB, end=BASE + 3 * MIB)),
        )
        bench = Bench(Scheme(action="stat", filters=filters), regions=[row(1, 4 * MIB)])
        bench.step()
        (call,) = bench.ops.calls
        assert call.spans == [(BASE, BASE + MIB), (BASE + MIB, BASE + 2 * MIB), (BASE + 3 * MIB, BASE + 4 * MIB)]
        assert call.allowed == [True, False, False]

    def test_a_piece_matches_as_the_whole_did(self) -> None:
        reject = Filter(filter_type="addr", address_range=AddressRange(start=BASE, end=BASE + MIB))
        scheme = Scheme(action="stat", access_pattern=pattern(size=(4 * MIB, 2**64 - 1)), filters=(reject,))
        bench = Bench(scheme, regions=[row(1, 4 * MIB)])
        assert bench.step() == [(0, BASE + MIB, BASE + 4 * MIB)]

    def test_filters_by_target(self) -> None:
        bench = Bench(
            Scheme(action="stat", filters=(Filter(filter_type="target", damon_target_idx=1, allow=True),)),
            regions=[row(1), row(1), row(1)],
        )
        assert [target for target, _, _ in bench.step()] == [1]


class TestWatermarks:
    marks = Watermarks(metric="free_mem_rate", interval_us=200_000, high_permil=500, mid_permil=400, low_permil=100)

    def test_inactive_schemes_are_not_applied(self) -> None:
        metrics = FakeMetrics()
        bench = Bench(
            Scheme(action="stat", watermarks=self.marks), Scheme(action="pageout"), regions=[row(1)], metrics=metrics
        )
        done = []
        for free in (450, 450, 300, 300, 450, 450, 600, 600):  # looked at in every second step
            metrics.free = free
            before = len(bench.ops.calls)
            bench.step()
            done.append([call.action for call in bench.ops.calls[before:]])
        assert [("stat" in actions) for actions in done] == [False] * 3 + [True] * 4 + [False]
        assert all("pageout" in actions for actions in done)

    def test_those_of_a_node_go_by_its_free_memory_alone(self) -> None:
        metrics = FakeMetrics()
        metrics.free = 300  # that of the machine lets both act
        marks = msgspec.structs.replace(self.marks, nid=1)
        metrics.nodes = {(1, False): 3000}
        bench = Bench(Scheme(action="stat", watermarks=marks), regions=[row(1)], metrics=metrics)
        done = []
        for bp in (4500, 4500, 3999, 3999, 4500, 5009, 5009, 5010, 5010, 999, 999):
            metrics.nodes = {(1, False): bp}
            before = len(bench.ops.calls)
            bench.step()
            done.append(len(bench.ops.calls) > before)
        assert metrics.looks == 0
        assert done == [True] * 7 + [False] * 4

    def test_the_wait_is_that_of_the_next_look_when_all_are_inactive(self) -> None:
        metrics = FakeMetrics()
        slow = Watermarks(metric="free_mem_rate", interval_us=900_000, high_permil=500, mid_permil=400, low_permil=0)
        schemes = [Scheme(action="stat", watermarks=marks) for marks in (slow, self.marks)]
        bench = Bench(*schemes, regions=[row(1)], metrics=metrics)
        assert bench.damos.wait_ns() == 200_000_000
        metrics.free = 300
        bench.clock.sleep_ns(200_000_000)
        assert bench.damos.wait_ns() == 0

    def test_a_metric_that_gets_lost_is_said_once_and_changes_nothing(self) -> None:
        metrics = FakeMetrics()
        metrics.free = 300
        bench = Bench(Scheme(action="stat", watermarks=self.marks), regions=[row(1)], metrics=metrics)
        metrics.free = None
        for _ in range(6):
            assert bench.step()
        assert [line for line in bench.damos.notices if "free_mem_rate" in line] == [
            "free_mem_rate cannot be read; schemes stay as they are: no /proc/meminfo"
        ]

    def test_no_schemes_never_wait(self) -> None:
        assert Bench(regions=[row(1)]).damos.wait_ns() == 0


class TestGoals:
    def test_a_users_values_by_name_and_by_number(self) -> None:
        goals = (
            Goal(metric="user_input", target_value=100, name="latency"),
            Goal(metric="active_mem_bp", target_value=100),
            Goal(metric="user_input", target_value=100),
        )
        scheme = Scheme(action="stat", quotas=Quotas(goals=goals))
        bench = Bench(scheme, scheme, regions=[row(1)], metrics=FakeMetrics())

        def values() -> list[list[int]]:
            return [[goal.current_value for goal in state.goals] for state in bench.damos.states]

        bench.damos.set_goal("latency", 7)  # in both schemes
        bench.damos.set_goal("1.2", 9)
        assert values() == [[7, 0, 0], [7, 0, 9]]
        bench.damos.set_goal("0.0", 5)
        assert values() == [[5, 0, 0], [7, 0, 9]]
        for name in ("1.1", "1.3", "2.0", "", "active_mem_bp", "None"):
            with pytest.raises(RequestError, match=r"there are: latency, 0\.2, 1\.2"):
                bench.damos.set_goal(name, 1)
        with pytest.raises(RequestError, match="must not be below 0"):
            bench.damos.set_goal("latency", -1)

    def test_without_goals_there_is_a_hint(self) -> None:
        with pytest.raises(RequestError, match="no scheme has a goal"):
            Bench(Scheme(action="stat"), regions=[row(1)]).damos.set_goal("x", 1)

    def test_the_goal_that_is_furthest_reached_counts(self) -> None:
        goals = tuple(Goal(metric="user_input", target_value=100, current_value=value) for value in (10, 150, 90))
        bench = Bench(Scheme(action="stat", quotas=Quotas(goals=goals, reset_interval_ms=100)), regions=[row(1)])
        assert bench.damos.measure(bench.state, lambda nid: 0, lambda: 0) == 15_000

    def test_a_metric_that_gets_lost_keeps_its_last_value(self) -> None:
        metrics = FakeMetrics()
        goal = Goal(metric="some_mem_psi_us", target_value=100)
        quotas = Quotas(goals=(goal,), reset_interval_ms=100)
        bench = Bench(Scheme(action="stat", quotas=quotas), regions=[row(1)], metrics=metrics)
        metrics.psi = 50
        bench.step()
        metrics.psi = None
        bench.step()
        bench.step()
        assert bench.state.goals[0].current_value == 50
        assert len(bench.damos.notices) == 1

    def test_pressure_below_its_goal_lets_the_quota_grow_and_above_shrink(self) -> None:
        metrics = FakeMetrics()
        quotas = Quotas(goals=(Goal(metric="some_mem_psi_us", target_value=1_000),), reset_interval_ms=100)
        bench = Bench(Scheme(action="stat", quotas=quotas), regions=[row(1)], metrics=metrics)
        sizes = []
        for pressure in (0, 0, 0, 1_000, 1_000, 1_500, 0):
            metrics.psi = (metrics.psi or 0) + pressure
            bench.step()
            sizes.append(bench.state.quota.esz)
        assert sizes == [2, 4, 8, 8, 8, 4, 8]

    def test_eligible_memory_of_a_node_is_what_matches_the_pattern_whatever_filters_leave(self) -> None:
        # Node 1 begins at BASE + 6 MiB. Of the 8 MiB of the row 4 MiB are hot, 1 of these on node 1: 2,500 / 10,000.
        ops = FakeActing()
        border = BASE + 6 * MIB
        ops.node = lambda start, end, nid: max(0, end - max(start, border)) if nid else max(0, min(end, border) - start)
        regions = row(8, nr=[20, 0, 20, 0, 20, 0, 20, 0])
        goal = Goal(metric="node_eligible_mem_bp", nid=1, target_value=6_000)
        from_node_0 = Filter(filter_type="addr", allow=True, address_range=AddressRange(start=BASE, end=border))
        scheme = Scheme(
            action="migrate_hot",
            target_nid=1,
            access_pattern=pattern(rate=("5", "max")),
            quotas=Quotas(goals=(goal,), goal_tuner="temporal", reset_interval_ms=100),
            filters=(from_node_0,),
        )
        bench = Bench(scheme, regions=[regions], ops=ops)
        assert places(bench.step()) == [0, 2, 4]
        assert bench.state.goals[0].current_value == 2_500
        assert bench.state.goals[0].score == 2_500 * 10_000 // 6_000

    def test_nothing_eligible_is_a_share_of_zero(self) -> None:
        goal = Goal(metric="node_eligible_mem_bp", nid=0, target_value=6_000)
        bench = Bench(Scheme(action="stat", quotas=Quotas(goals=(goal,))), regions=[row(0)])
        bench.step()
        assert bench.state.goals[0].current_value == 0

    def test_refaults_are_a_share_of_what_is_used_or_was_within_two_minutes(self) -> None:
        # Of 8 MiB 2 are used, 3 were within two minutes (1,200 aggregations of 100 ms); 1 MiB of these 5 came back.
        metrics = FakeMetrics()
        metrics.back = 7 * MIB  # before it began: of no interest
        goal = Goal(metric="refault_bp", target_value=4_000)
        regions = row(8, nr=[20, 20, 0, 0, 0, 0, 0, 0], age=[0, 5000, 1, 1000, 1100, 1200, 1300, 5000])
        scheme = Scheme(action="stat", quotas=Quotas(goals=(goal,), reset_interval_ms=100))
        bench = Bench(scheme, regions=[regions], metrics=metrics)
        metrics.back += MIB
        bench.step()
        assert bench.state.goals[0].current_value == 2_000
        assert bench.state.goals[0].score == 5_000
        metrics.back = None
        bench.step()
        assert bench.state.goals[0].current_value == 2_000
        assert len(bench.damos.notices) == 1

    def test_metrics_that_are_not_there_are_refused_before(self) -> None:
        scheme = Scheme(action="stat", quotas=Quotas(goals=(Goal(metric="some_mem_psi_us", target_value=1),)))
        with pytest.raises(MachineError, match=r"schemes\[0\].quotas.goals\[0\].metric"):
            Bench(scheme, regions=[row(1)])
        metrics = FakeMetrics()
        metrics.back = None
        refaults = Scheme(action="stat", quotas=Quotas(goals=(Goal(metric="refault_bp", target_value=1),)))
        with pytest.raises(MachineError, match="nothing counts what comes back"):
            Bench(refaults, regions=[row(1)], metrics=metrics)
        metrics.psi = None
        with pytest.raises(MachineError, match="no pressure stall information"):
            Bench(scheme, regions=[row(1)], metrics=metrics)
        with pytest.raises(MachineError, match=r"schemes\[0\].watermarks.metric"):
            Bench(Scheme(action="stat", watermarks=TestWatermarks.marks), regions=[row(1)])


class TestCommit:
    def test_the_same_scheme_goes_on_with_statistics_and_window(self) -> None:
        old = Scheme(action="pageout", quotas=limited(3 * MIB, window_ms=1000))
        bench = Bench(old, regions=[row(8)])
        assert places(bench.step()) == [0, 1, 2]
        bench.commit(Scheme(action="pageout", quotas=limited(4 * MIB, window_ms=1000)))
        assert places(bench.step()) == [3]  # 4 MiB per window, 3 of them were used
        assert bench.state.stats.sz_tried == 4 * MIB
        assert bench.step() == []

    def test_committing_over_and_over_gives_no_more_than_the_quota(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(MIB, window_ms=1000)), regions=[row(64)])
        for number in range(100):  # 10 s
            bench.commit(Scheme(action="stat", quotas=limited(MIB + number % 2 * PAGE, window_ms=1000)))
            bench.step()
        assert bench.ops.tried_bytes() <= 10 * (MIB + PAGE)

    def test_another_action_is_another_scheme(self) -> None:
        bench = Bench(Scheme(action="stat"), regions=[row(1)])
        bench.step()
        bench.commit(Scheme(action="cold"))
        bench.step(samples=1)
        assert (bench.state.scheme.action, bench.state.stats.nr_tried) == ("cold", 0)
        bench.step(samples=20)
        assert bench.state.stats.nr_tried == 1

    def test_names_carry_statistics_to_another_place(self) -> None:
        named = Scheme(action="stat", name="wss")
        bench = Bench(named, regions=[row(1)])
        bench.step()
        # An unnamed scheme of the same action is put before it.
        bench.commit(Scheme(action="stat"), named)
        bench.step(samples=1)
        assert [(s.scheme.name, s.stats.nr_tried) for s in bench.damos.states] == [(None, 0), ("wss", 1)]
        bench.commit(Scheme(action="stat", name="other"), named)
        bench.step(samples=1)
        bench.commit(Scheme(action="stat", name="third"), named)
        bench.step(samples=1)
        assert [(s.scheme.name, s.stats.nr_tried) for s in bench.damos.states] == [("third", 0), ("wss", 1)]

    def test_a_name_can_be_given_later(self) -> None:
        bench = Bench(Scheme(action="stat"), regions=[row(1)])
        bench.step()
        bench.commit(Scheme(action="stat", name="wss"))
        bench.step(samples=1)
        assert bench.state.stats.nr_tried == 1

    def test_fewer_schemes_and_none(self) -> None:
        bench = Bench(Scheme(action="stat"), Scheme(action="cold"), regions=[row(1)])
        bench.commit(Scheme(action="stat"))
        bench.step()
        assert [call.action for call in bench.ops.calls] == ["stat"]
        bench.commit()
        assert bench.step() == []

    def test_a_refused_commit_changes_nothing(self) -> None:
        bench = Bench(Scheme(action="stat"), regions=[row(1)])
        bench.ops.refused = {"cold"}
        with pytest.raises(RequestError, match=r"schemes\[1\].action"):
            bench.commit(Scheme(action="stat", apply_interval_us=1), Scheme(action="cold"))
        bench.step(samples=1)
        assert [state.scheme for state in bench.damos.states] == [Scheme(action="stat")]

    def test_goals_keep_their_values_and_the_loop_its_state(self) -> None:
        def scheme(target: int, current: int = 0, sz: int = 0) -> Scheme:
            goal = Goal(metric="user_input", target_value=target, current_value=current, name="g")
            return Scheme(action="stat", quotas=Quotas(goals=(goal,), reset_interval_ms=100, sz_bytes=sz))

        bench = Bench(scheme(100), regions=[row(1)])
        for _ in range(4):
            bench.step()
        assert bench.state.quota.esz == 16
        bench.damos.set_goal("g", 100)
        bench.commit(scheme(100, sz=MIB))
        bench.step()
        assert (bench.state.goals[0].current_value, bench.state.quota.esz) == (100, 16)
        bench.commit(scheme(100, current=50, sz=MIB))  # the spec gives another value than before
        bench.step()
        assert (bench.state.goals[0].current_value, bench.state.quota.esz) == (50, 24)

    def test_a_shorter_apply_interval_and_other_watermarks_hold_at_once(self) -> None:
        metrics = FakeMetrics()
        slow = Watermarks(metric="free_mem_rate", interval_us=10**9, high_permil=1000, mid_permil=1000, low_permil=0)
        old = Scheme(action="stat", apply_interval_us=10_000_000, watermarks=slow)
        bench = Bench(old, regions=[row(1)], metrics=metrics)
        bench.commit(Scheme(action="stat", apply_interval_us=10_000, watermarks=slow))
        bench.step(samples=1)  # the interval counts from here
        assert len(bench.step(samples=2)) == 1
        never = Watermarks(metric="free_mem_rate", interval_us=10**9, high_permil=10, mid_permil=10, low_permil=0)
        bench.commit(Scheme(action="stat", apply_interval_us=10_000, watermarks=never))
        assert bench.step(samples=2) == []

    def test_a_failed_scheme_is_tried_again(self) -> None:
        ops = FakeActing()
        ops.fails = {"stat": 0}
        bench = Bench(Scheme(action="stat"), regions=[row(1)], ops=ops)
        bench.step()
        assert bench.state.finished
        ops.fails = {}
        bench.commit(Scheme(action="stat"))
        assert len(bench.step()) == 1

    def test_goals_can_be_set_while_schemes_are_committed(self) -> None:
        def scheme(number: int) -> Scheme:
            goals = tuple(Goal(metric="user_input", target_value=number + 1, name=f"g{i}") for i in range(8))
            return Scheme(action="stat", quotas=Quotas(goals=goals))

        bench = Bench(scheme(0), regions=[row(1)])
        errors: list[Exception] = []
        stop = threading.Event()

        def user() -> None:
            while not stop.is_set():
                try:
                    bench.damos.set_goal("g7", 5)
                except RequestError as error:
                    errors.append(error)

        thread = threading.Thread(target=user)
        thread.start()
        for number in range(300):
            bench.damos.change((scheme(number),), 0, bench.intervals)
        stop.set()
        thread.join()
        assert errors == []
        assert bench.state.goals[7].current_value == 5


class TestTroubles:
    def test_no_targets_no_regions(self) -> None:
        quotas = limited(MIB)
        reject = Filter(filter_type="addr", address_range=AddressRange(start=0, end=PAGE))
        for regions in ([], [row(0)], [row(0), row(0)]):
            bench = Bench(
                Scheme(action="stat", quotas=quotas, filters=(reject,)),
                regions=list(regions),
                hot=lambda target: np.array([[0, PAGE]], np.uint64),
            )
            for _ in range(3):
                assert bench.step() == []
            assert (bench.state.passes, bench.state.stats.nr_snapshots) == (3, 0)

    def test_targets_that_have_ended_are_left_alone(self) -> None:
        bench = Bench(Scheme(action="pageout", quotas=limited(8 * MIB)), regions=[row(1), row(1, age=5), row(1)])
        bench.ops.ended = {1}
        assert [target for target, _, _ in bench.step()] == [0, 2]
        assert bench.regions[1].age.tolist() == [5]

    def test_the_quota_ends_in_a_target_that_ends(self) -> None:
        bench = Bench(Scheme(action="stat", quotas=limited(MIB)), regions=[row(2), row(1)])
        bench.step()
        bench.ops.ended = {0}
        bench.targets, bench.regions = bench.targets[1:], bench.regions[1:]
        assert bench.step() == [(1, BASE, BASE + MIB)]

    def test_a_machine_that_refuses_stops_the_scheme_not_the_others(self) -> None:
        ops = FakeActing(nr_targets=3)
        ops.fails = {"pageout": 1}
        bench = Bench(
            Scheme(action="pageout", name="mine"),
            Scheme(action="stat"),
            regions=[row(1, age=9) for _ in range(3)],
            ops=ops,
        )
        bench.step()
        first = bench.state
        assert first.failed == "the permission was lost"
        assert (first.stats.nr_tried, first.stats.sz_tried) == (1, MIB)  # what was done until then is counted
        assert [regions.age.tolist() for regions in bench.regions] == [[0], [9], [9]]
        assert len(bench.step()) == 3  # of the other scheme
        assert bench.damos.notices[0] == "scheme mine is not applied any more: the permission was lost"

    def test_the_largest_sizes_and_addresses(self) -> None:
        top = 2**64 - PAGE
        regions = make_regions([(0, 2**63), (2**63, top)], nr=[0, 20])
        wanted = pattern(size=(2**62, 2**64 - 1))
        bench = Bench(Scheme(action="stat", access_pattern=wanted, quotas=limited(2**64 - 2)), regions=[regions])
        assert bench.step() == [(0, 0, 2**63), (0, 2**63, top)]
        assert bench.state.stats.sz_tried == top
