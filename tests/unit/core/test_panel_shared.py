"""Memory that targets share, in the running loop and in virtual time: it counts once, and is used if any uses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydamon.analysis.together import Together
from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Kdamond
from pydamon.core.panel import PAGE_SIZE, Look
from pydamon.core.panel_shared import SharedPages
from pydamon.core.panel_watch import PanelWatch
from pydamon.ops.sim.ops import SimOps
from pydamon.spec import Context, Intervals
from pydamon.workload import model

SECOND = 1_000_000_000
MIB = 1 << 20
# Both map "low" and "high" (elsewhere); the first uses "low", the second nothing of it. Own memory: 8 and 4 MiB are
# used, 20 MiB never.
FIRST = """#regions
low, 16777216
high, 16777216
own, 8388608

play
1000
low, 0, 4096, 1
own, 0, 4096, 1
"""
SECOND_ONE = """#regions
high, 16777216
low, 16777216
rest, 20971520
own, 4194304

play
1000
own, 0, 4096, 1
"""
TOGETHER = (16 + 16 + 8 + 24) * MIB
USED = (16 + 8 + 4) * MIB


def looks_of(size: int, *, seed: int = 0, targets: tuple[str, ...] = (FIRST, SECOND_ONE)) -> dict[int, list[Look]]:
    clock = VirtualClock()
    ops = SimOps([model.parse(text, source="test") for text in targets], clock, repeat=0, shared=("low", "high"))
    made = Kdamond(
        ops=ops,
        context=Context(ops="sim", intervals=Intervals(sample_us=100_000, aggr_us=2_000_000, ops_update_us=2_000_000)),
        clock=clock,
        rng=np.random.default_rng(2),
        panel_size=size,
        panel_seed=seed,
        end_ns=12 * SECOND,
    )
    made.run()
    assert made.panel is not None
    found: dict[int, list[Look]] = {}
    for look in made.panel.take_looks():
        found.setdefault(look.target, []).append(look)
    return found


def ask_at_most(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("pydamon.core.panel_shared.SharedPages.__init__.__defaults__", (most,))


def test_panels_of_all_pages_know_what_is_used_together(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_at_most(monkeypatch, 1 << 20)
    together = Together(looks_of(2 * TOGETHER // PAGE_SIZE))
    assert together.once
    assert together.plain_bytes() == TOGETHER + 32 * MIB
    size = together.resident()
    assert (size.low_bytes, size.bytes, size.high_bytes) == (TOGETHER,) * 3
    used = together.used(5)
    assert used is not None
    assert (used.low_bytes, used.bytes, used.high_bytes) == (USED,) * 3
    # What the second one maps and does not use is used all the same.
    assert together.touched() == used


def test_intervals_hold_what_is_resident_and_used_together() -> None:
    held = [0, 0]
    for seed in range(40):
        together = Together(looks_of(1024, seed=seed))
        size, used = together.resident(), together.used(5)
        assert used is not None
        assert used.half_width_bytes < 0.04 * TOGETHER
        held[0] += size.low_bytes <= TOGETHER <= size.high_bytes
        held[1] += used.low_bytes <= USED <= used.high_bytes
    assert min(held) >= 35  # 38 of 40 on average; 34 or fewer once in a hundred times


def test_of_too_many_shared_pages_a_part_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_at_most(monkeypatch, 200)
    family = (FIRST, *[SECOND_ONE] * 3)
    together = Together(looks_of(2048, targets=family))
    whole = TOGETHER + 2 * 24 * MIB
    size, used = together.resident(), together.used(5)
    assert used is not None
    assert size.bytes == pytest.approx(whole, rel=0.06)
    assert used.low_bytes <= USED + 2 * 4 * MIB <= used.high_bytes


def test_one_target_shares_with_nobody() -> None:
    assert all(look.once is None for look in looks_of(512, targets=(FIRST,))[0])


class Untold(SimOps):
    """Sees nothing of frames."""

    calls = 0

    def also_mapped(self, owner: Any, addresses: Any, target: int) -> Any:
        self.calls += 1


def watched(ops: SimOps, clock: VirtualClock) -> list[Look]:
    ops.init()
    watch = PanelWatch(ops, clock, lambda: [0, 1], size=512, seed=1)
    watch.begin()
    for _ in range(3):
        clock.sleep_ns(watch.due_ns - clock.now_ns())
        watch.look()
    return watch.take_looks()


def test_where_nobody_can_tell_what_is_shared_it_is_asked_once() -> None:
    clock = VirtualClock()
    ops = Untold([model.parse(text, source="test") for text in (FIRST, SECOND_ONE)], clock, repeat=0)
    looks = watched(ops, clock)
    assert ops.calls == 1
    assert [look.once for look in looks] == [None] * 6
    found = {target: [look for look in looks if look.target == target] for target in (0, 1)}
    assert not Together(found).once


class Slow(SimOps):
    """Takes that long to say what a target maps."""

    spent_ns = 0
    asked: list[int]

    def panel_cpu_ns(self) -> int:
        return self.spent_ns

    def also_mapped(self, owner: NDArray[np.intp], addresses: NDArray[np.uint64], target: int) -> NDArray[np.uint64]:
        self.spent_ns += 3_000_000
        self.asked.append(target)
        return super().also_mapped(owner, addresses, target)


def test_a_round_is_made_in_steps_and_takes_its_share() -> None:
    clock = VirtualClock()
    ops = Slow([model.parse(FIRST, source="test")] * 4, clock, repeat=0, shared=("low",))
    ops.asked = []
    ops.init()
    shared = SharedPages(ops)
    told = [bool(shared.step({}, range(4), second * SECOND)) for second in range(30)]
    # Four steps of 3 ms: the next round begins 12 s later, so that it takes 0.1 % of a CPU.
    assert [second for second, step in enumerate(told) if step] == [0, 1, 2, 3, 15, 16, 17, 18]
    assert ops.asked == [3, 2, 1, 0] * 2
    # When somebody has joined or gone it begins earlier.
    told = [bool(shared.step({}, range(3), second * SECOND)) for second in range(19, 30)]
    assert [second for second, step in enumerate(told, 19) if step] == [20, 21, 22]


def test_the_first_look_goes_all_round() -> None:
    clock = VirtualClock()
    ops = Slow([model.parse(FIRST, source="test")] * 30, clock, repeat=0, shared=("low",))
    ops.asked = []
    ops.init()
    watch = PanelWatch(ops, clock, lambda: range(30), size=1024, seed=1)
    watch.begin()
    assert sorted(ops.asked) == list(range(30))
    clock.sleep_ns(SECOND)
    watch.look()
    looks = watch.take_looks()
    assert len(looks) == 30
    assert all(look.once is not None for look in looks)


@pytest.mark.parametrize(("targets", "said"), [(3, False), (16, False), (40, True)])
def test_that_most_targets_have_few_pages_is_said_once(targets: int, said: bool) -> None:
    clock = VirtualClock()
    ops = SimOps([model.parse(FIRST, source="test")] * targets, clock, repeat=0)
    ops.init()
    watch = PanelWatch(ops, clock, lambda: range(targets), size=1024, seed=1)
    watch.begin()
    clock.sleep_ns(SECOND)
    watch.look()
    few = [line for line in watch.notices if "has fewer than 64 pages of 35 of 40 targets" in line]
    assert len(few) == len(watch.notices) == said
