"""The page panel in the running loop, in virtual time: what it says is what the simulated processes did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydamon.analysis.panel import in_time, used_within
from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Kdamond
from pydamon.core.panel import BOUNDS_S, PAGE_SIZE, Look
from pydamon.core.panel_watch import PanelWatch, without
from pydamon.ops.sim.ops import SimOps
from pydamon.spec import Context, Intervals
from pydamon.workload import model

SECOND = 1_000_000_000
MIB = 1 << 20
# Hot all the time, warm for a second of each five, cold never.
SERVICE = """#regions
hot, 4194304
warm, 15728640
cold, 78643200

touch
1000
hot, 0, 4096, 1
warm, 0, 4096, 1

rest
4000
hot, 0, 4096, 1
"""
ALL_PAGES = (4 + 15 + 75) * MIB // PAGE_SIZE


def loop(
    size: int, *, seed: int = 0, sample_us: int = 100_000, seconds: int = 32, workload: str = SERVICE, **context: Any
) -> tuple[Kdamond, SimOps]:
    clock = VirtualClock()
    ops = SimOps([model.parse(workload, source="test")], clock, repeat=0)
    intervals = Intervals(sample_us=sample_us, aggr_us=20 * sample_us, ops_update_us=20 * sample_us)
    made = Kdamond(
        ops=ops,
        context=Context(ops="sim", intervals=intervals, **context),
        clock=clock,
        rng=np.random.default_rng(2),
        panel_size=size,
        panel_seed=seed,
        end_ns=seconds * SECOND,
    )
    return made, ops


def looks_of(made: Kdamond) -> list[Look]:
    made.run()
    assert made.panel is not None
    return made.panel.take_looks()


def truth_bytes(ops: SimOps, window_s: int, now_ns: int) -> int:
    """What was really accessed within the window before ``now_ns``."""
    pages = np.concatenate([np.arange(m.start, m.end, PAGE_SIZE, dtype=np.uint64) for m in ops.mappings(0)])
    return int(np.count_nonzero(ops.accessed(0, pages, now_ns - window_s * SECOND, now_ns))) * PAGE_SIZE


@pytest.mark.parametrize("sample_us", [100_000, 3_700_000])
def test_a_panel_of_all_pages_knows_the_working_set_of_each_window(sample_us: int) -> None:
    made, ops = loop(ALL_PAGES, sample_us=sample_us)
    looks = looks_of(made)
    # once a second, also where a sample takes longer, and at the end
    assert [look.time_ns for look in looks] == [second * SECOND for second in range(1, 33)]
    for look in looks[10:]:
        assert look.resident_bytes == ALL_PAGES * PAGE_SIZE
        assert (look.pages, look.unknown) == (ALL_PAGES, 0)
        for window_s in (1, 2, 3, 4, 5, 8, 10):
            estimate = used_within([look], window_s)
            assert estimate is not None
            assert estimate.low_bytes == estimate.high_bytes == estimate.bytes
            assert estimate.bytes == truth_bytes(ops, window_s, look.time_ns)
    assert truth_bytes(ops, 5, 20 * SECOND) == 19 * MIB
    assert truth_bytes(ops, 1, 20 * SECOND) == 4 * MIB


@pytest.mark.parametrize(
    ("ends_ms", "looks_ms"), [(700, [700]), (2300, [1000, 2000, 2300]), (3000, [1000, 2000, 3000])]
)
def test_the_last_look_is_at_the_end(ends_ms: int, looks_ms: list[int]) -> None:
    """What was accessed after the last full second belongs to the record, too: 19 of 94 MiB in the first one."""
    made, _ = loop(ALL_PAGES)
    made.end_ns = ends_ms * 1_000_000
    looks = looks_of(made)
    assert [look.time_ns // 1_000_000 for look in looks] == looks_ms
    assert looks[-1].idle.sum() * PAGE_SIZE == 19 * MIB


def test_the_last_look_says_nothing_of_short_windows() -> None:
    """The warm part was accessed until 1.0 s; the look at 2.0 s is told apart from it, that at 2.3 s would not be."""
    made, _ = loop(ALL_PAGES)
    made.end_ns = 2_300_000_000
    looks = looks_of(made)
    times = np.array([look.time_ns for look in looks])
    assert in_time(times, 1).tolist() == [True, True, False]
    assert in_time(times, 10).all()
    assert in_time(times[-1:], 1).all()


def test_the_length_of_each_idle_time_that_ended_is_known() -> None:
    looks = looks_of(loop(ALL_PAGES)[0])
    hot, warm = 4 * MIB // PAGE_SIZE, 15 * MIB // PAGE_SIZE
    for look in looks[1:]:
        ended = {BOUNDS_S[place]: count for place, count in enumerate(look.ended.tolist()) if count}
        second = look.time_ns // SECOND
        # the warm part is accessed in the seconds before the 1st, 6th, 11th ... look
        assert ended == ({1: hot, 5: warm} if second % 5 == 1 else {1: hot})


def test_what_is_accessed_in_idle_regions_is_told_by_how_long_these_were_idle() -> None:
    made, _ = loop(ALL_PAGES)
    looks = looks_of(made)
    warm = 15 * MIB // PAGE_SIZE
    for look in looks[6:]:
        assert look.woken is not None
        woken = {BOUNDS_S[place]: count for place, count in enumerate(look.woken.tolist()) if count}
        # In the seconds before the 11th, 16th ... look the warm part is accessed; aggregations take 2 s, so that its
        # regions have been idle for 2 s and less than 4 s by then, whenever the last one that found it in use ended.
        assert woken == ({2: warm} if look.time_ns // SECOND % 5 == 1 else {})


def test_intervals_of_a_panel_hold_the_truth() -> None:
    held, widths = 0, []
    for seed in range(40):
        looks = looks_of(loop(512, seed=seed, seconds=15)[0])
        estimate = used_within(looks[8:], 10)
        assert estimate is not None
        held += estimate.low_bytes <= 19 * MIB <= estimate.high_bytes
        widths.append(estimate.half_width_bytes)
    assert held >= 35  # 38 of 40 on average; 34 or fewer once in a hundred times
    # 1.96 × sqrt(0.2 × 0.8 / 512) of 94 MiB
    assert np.mean(widths) == pytest.approx(3.26 * MIB, rel=0.1)


@pytest.mark.parametrize("sample_us", [5_000, 3_700_000])
def test_regions_are_the_same_with_a_panel_as_without(sample_us: int) -> None:
    def regions(size: int) -> list[list[NDArray[np.generic]]]:
        made, _ = loop(size, sample_us=sample_us, seconds=12 if sample_us < 10_000 else 200)
        return [[s.start, s.end, s.nr_accesses, s.age] for [s] in made.monitor()]

    without_panel, with_panel = regions(0), regions(1024)
    assert len(with_panel) == len(without_panel) > 1
    for one, other in zip(with_panel, without_panel, strict=True):
        assert all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def test_a_faithful_kdamond_has_no_panel() -> None:
    assert loop(1024, faithful=True)[0].panel is None
    assert loop(0)[0].panel is None
    assert loop(1024)[0].panel is not None


class Costly(SimOps):
    """Takes that long to look, and can lose sight of a target."""

    spent_ns = 0
    look_ns = 0
    hidden = False

    def panel_cpu_ns(self) -> int:
        return self.spent_ns

    def look_at_panel(self, target: int, addresses: Any) -> Any:
        self.spent_ns += self.look_ns
        return super().look_at_panel(target, addresses)

    def resident(self, target: int) -> Any:
        return None if self.hidden else super().resident(target)


def costly(look_ns: int) -> tuple[PanelWatch, Costly, VirtualClock]:
    clock = VirtualClock()
    ops = Costly([model.parse(SERVICE, source="test")], clock, repeat=0)
    ops.look_ns = look_ns
    ops.init()
    watch = PanelWatch(ops, clock, lambda: [0], size=1024, seed=1)
    watch.begin()
    return watch, ops, clock


@pytest.mark.parametrize(("look_ms", "every_s"), [(1, 1), (3, 1), (12, 4)])
def test_it_takes_no_more_than_its_share_and_says_so_once(look_ms: int, every_s: int) -> None:
    watch, _, clock = costly(look_ms * 1_000_000)
    for _ in range(5):
        clock.sleep_ns(watch.due_ns - clock.now_ns())
        watch.look()
    assert watch.due_ns - clock.now_ns() == every_s * SECOND
    said = "the page panel is asked every 4.0 s, not every second: more often it would take more than 0.3% of a CPU"
    assert watch.notices == ([said] if every_s > 1 else [])


def test_what_cannot_be_told_is_said_once_and_is_no_panel() -> None:
    watch, ops, clock = costly(0)
    ops.hidden = True
    for _ in range(3):
        clock.sleep_ns(SECOND)
        watch.look()
    assert watch.take_looks() == []
    assert watch.notices == ["there is no page panel of target 0: what is resident is not known"]


def test_memory_that_was_faulted_in_was_accessed() -> None:
    watch, ops, clock = costly(0)
    cold = ops.mappings(0)[2]
    middle = (cold.start + cold.end) // 2
    seen = np.array([[cold.start, cold.end]], np.uint64)
    told = [np.array([[cold.start, middle]], np.uint64)]
    ops.resident = lambda target: (told[0], seen)  # type: ignore[method-assign]
    clock.sleep_ns(SECOND)
    watch.look()
    [before] = watch.take_looks()
    assert (before.idle.sum(), before.unseen.sum()) == (0, before.pages)
    told[0] = seen
    clock.sleep_ns(60 * SECOND)  # so that pages are drawn again
    watch.look()
    [after] = watch.take_looks()
    # Nobody accesses it, but half of it was not there a minute ago.
    assert after.pages > 700
    assert after.idle[0] == after.idle.sum() == pytest.approx(after.pages / 2, rel=0.15)


def test_spans_without_holes() -> None:
    def of(*spans: tuple[int, int]) -> NDArray[np.uint64]:
        return np.array(spans, np.uint64).reshape(-1, 2)

    assert without(of((0, 10), (20, 30)), of((0, 2), (4, 5), (20, 30))).tolist() == [[2, 4], [5, 10]]
    assert without(of((0, 10)), of()).tolist() == [[0, 10]]
    assert without(of(), of()).tolist() == []
