"""Memory that cannot be watched stays unknown: in snapshots, for schemes, and it is said once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.unit.core.fake_acting import BASE, MIB, PAGE, FakeActing, make_regions

from pydamon.core import adjust
from pydamon.core.blindness import Blindness, blind_bytes
from pydamon.core.damos import Damos
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.core.snapshot import Snapshot
from pydamon.primitives.base import NOT_ACCESSED, UNKNOWN
from pydamon.spec import Context, Intervals, NrRegions, Scheme
from pydamon.spec.actions import ActionName
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AccessPattern, AgeRange, RateRange

EDGE = BASE + 5 * MIB + 3 * PAGE  # nobody answers from here on; the other 11 MiB are idle
COLD = AccessPattern(nr_accesses=RateRange(max=Rate(0, "samples")), age=AgeRange(min=Age(3, "aggrs")))


def half_blind() -> FakeActing:
    ops = FakeActing()
    ops.hot = lambda addresses: np.where(addresses >= np.uint64(EDGE), UNKNOWN, NOT_ACCESSED).astype(np.uint8)
    return ops


def monitored(ops: FakeActing, *schemes: Scheme, aggregations: int = 40, faithful: bool = False) -> list[Snapshot]:
    loop = Kdamond(
        ops=ops,
        context=Context(
            ops="sim",
            intervals=Intervals(sample_us=5_000, aggr_us=100_000),
            nr_regions=NrRegions(min=10, max=200),
            schemes=schemes,
            faithful=faithful,
        ),
        clock=ops.clock,
        rng=np.random.default_rng(3),
        make_damos=lambda: Damos(ops, ops.clock),
    )
    found = []
    for snapshots in loop.monitor():
        found += snapshots
        if len(found) == aggregations:
            break
    ops.notices = loop.take_notices()  # type: ignore[attr-defined]
    assert loop.take_notices() == []
    return found


@pytest.mark.parametrize("faithful", [True, False])
def test_what_nobody_answered_stays_unknown_and_is_not_merged_with_what_was_seen(faithful: bool) -> None:
    ops = half_blind()
    last = monitored(ops, faithful=faithful)[-1]
    unknown = last.column("unknown")
    assert unknown is not None
    blind = unknown == 20
    # One region reaches over the edge at the most, and it is small by now.
    assert ((unknown == 0) | blind).sum() >= len(unknown) - 1
    assert int((last.end - last.start)[blind].sum()) == pytest.approx(11 * MIB, abs=MIB)
    assert last.start[blind].min() >= EDGE - MIB
    assert (last.end[unknown == 0] <= EDGE + 64 * PAGE).all()  # (as long as chance has hit no page beyond the edge)


def test_it_is_said_once_how_much_that_is() -> None:
    ops = half_blind()
    monitored(ops)
    [line] = ops.notices  # type: ignore[attr-defined]
    assert "of target 0 cannot be watched: whether they are accessed is unknown" in line
    assert 9 < float(line.split()[0]) < 12


def test_where_all_is_answered_there_is_no_column_and_nothing_to_say() -> None:
    ops = FakeActing()
    assert all(snapshot.column("unknown") is None for snapshot in monitored(ops))
    assert ops.notices == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("action", ["pageout", "cold", "lru_deprio", "migrate_cold"])
def test_cold_memory_is_what_was_seen_to_be_cold(action: ActionName) -> None:
    ops = half_blind()
    node = 0 if action == "migrate_cold" else None
    monitored(ops, Scheme(action=action, access_pattern=COLD, target_nid=node))
    assert ops.tried_bytes() > 4 * MIB
    assert all(end <= EDGE + MIB // 2 for _, _, end in ops.spans())


def test_without_a_rate_or_an_age_all_but_cold_actions_take_it() -> None:
    cases: list[tuple[ActionName, bool]] = [("stat", True), ("willneed", True), ("pageout", False)]
    for action, takes in cases:
        ops = half_blind()
        monitored(ops, Scheme(action=action), aggregations=8)
        assert any(start >= EDGE for _, start, _ in ops.spans()) == takes
    ops = half_blind()
    monitored(ops, Scheme(action="stat", access_pattern=COLD), aggregations=20)
    assert not any(start >= EDGE + MIB for _, start, _ in ops.spans())


def regions(unknown: list[int]) -> Regions:
    found = make_regions([(BASE + n * PAGE, BASE + (n + 1) * PAGE) for n in range(len(unknown))])
    found.counts.unknown[:] = unknown
    found.settle_unknown(20)
    return found


def test_bounds_lie_where_sight_begins_and_ends() -> None:
    assert adjust.blind_bounds(regions([0, 19, 20, 20, 3]), 20).tolist() == [BASE + 2 * PAGE, BASE + 4 * PAGE]
    assert len(adjust.blind_bounds(regions([0, 19, 3]), 20)) == 0
    assert len(adjust.blind_bounds(regions([20, 20]), 20)) == 0
    assert len(adjust.blind_bounds(Regions.empty(), 20)) == 0


def test_regions_that_merge_and_split_keep_what_was_not_answered() -> None:
    merged = adjust.merge(regions([4, 8, 20]), 0, 1 << 40)
    assert merged.unknown.tolist() == [10]  # 32 / 3, rounded down
    apart = adjust.split(regions([20] * 3), 2, PAGE, np.random.default_rng(1))
    assert apart.blind(20).all()
    found = regions([20, 10])
    found.rescale(old_window=20, new_window=50, old_aggr_us=100_000, new_aggr_us=250_000)
    assert found.unknown.tolist() == [50, 25]
    found.settle_unknown(50)  # everything was answered
    assert not found.unknown.any()


def snapshot(unknown: Any, resident: Any = None, target: int = 0) -> Snapshot:
    start = BASE + np.arange(2, dtype=np.uint64) * np.uint64(MIB)
    zeros = np.zeros(2, np.uint32)
    more = {
        name: None if values is None else np.array(values, kind)
        for name, values, kind in (("unknown", unknown, np.uint32), ("resident", resident, np.uint64))
    }
    return Snapshot(target, 0, 1, 5000, 100_000, start, start + np.uint64(MIB), zeros, zeros, **more)


def test_what_is_resident_of_it_counts_where_that_is_known() -> None:
    assert blind_bytes(snapshot([20, 19]), 20) == MIB
    assert blind_bytes(snapshot([20, 20], [PAGE, 2**64 - 1]), 20) == PAGE + MIB
    assert blind_bytes(snapshot([20, 0], [0, PAGE]), 20) == 0
    assert blind_bytes(snapshot(None), 20) == 0


def test_why_is_asked_seldom_said_once_and_noted() -> None:
    asked: list[tuple[int, list[int]]] = []

    def why(target: int, start: Any, end: Any) -> dict[str, int]:
        asked.append((target, (end - start).tolist()))
        return {"locked": PAGE} if target else {}

    blindness = Blindness(why)
    for _ in range(5):
        blindness.look([snapshot([20, 0]), snapshot([0, 20], target=1)], 20)
    assert asked == [(0, [MIB]), (1, [MIB])]
    first, second = blindness.take_notices()
    assert first.startswith("1.0 MiB of target 0 cannot be watched: whether")
    assert second.startswith("1.0 MiB of target 1 cannot be watched (4.0 KiB locked): whether")
    found = [(one.target, one.reason, one.bytes) for one in blindness.take_found()]
    assert found == [(0, "", MIB), (1, "locked", PAGE)]
    for _ in range(5):
        blindness.look([snapshot([20, 20], target=1)], 20)  # twice as much
    assert asked[2:] == [(1, [MIB, MIB])]
    assert len(blindness.take_found()) == 1
    assert blindness.take_notices() == []


def test_three_in_a_row_are_no_bad_luck() -> None:
    blindness = Blindness()
    blind, clear = snapshot([20, 0]), snapshot([0, 0])
    for each in (blind, blind, clear, blind, blind):
        blindness.look([each, snapshot([20, 0], target=1)], 20)
    assert [line.split(" cannot")[0] for line in blindness.take_notices()] == ["1.0 MiB of target 1"]
    for _ in range(9):
        blindness.look([blind, snapshot([20, 0], target=1)], 20)
    assert [line.split(" cannot")[0] for line in blindness.take_notices()] == ["1.0 MiB of target 0"]


def test_a_trace_of_blindness_is_noted_and_not_worth_a_word() -> None:
    """Nearly every program maps some pages of files that others map, too."""
    blindness = Blindness()
    for _ in range(4):
        blindness.look([snapshot([20, 0], [2 * PAGE, MIB])], 20)
    assert [one.bytes for one in blindness.take_found()] == [2 * PAGE]
    assert blindness.take_notices() == []
    for _ in range(4):
        blindness.look([snapshot([20, 0], [5 * PAGE, MIB])], 20)
    [line] = blindness.take_notices()
    assert line.startswith("20.0 KiB of target 0 cannot be watched")
