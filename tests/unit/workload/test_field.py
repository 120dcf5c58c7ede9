"""A program that is a field of rates: as often accessed as it says, and the same however it is asked."""

from __future__ import annotations

import numpy as np
import pytest

from pydamon.core.clock import VirtualClock
from pydamon.errors import RequestError
from pydamon.ops.sim.ops import SimOps
from pydamon.workload.field import Epoch, FieldProgram, RateField
from pydamon.workload.layout import Place
from pydamon.workload.truth import Schedule

PAGE = 4096
S = 1_000_000_000
BASE = 0x5555_0000_0000
FAR = 0x7000_0000_0000


def spans(*pages: tuple[int, int]) -> np.ndarray:
    return np.array([(BASE + low * PAGE, BASE + high * PAGE) for low, high in pages], np.int64)


def epochs() -> list[Epoch]:
    return [
        Epoch(2 * S, spans((0, 100), (100, 300)), np.array([5.0, 0.5])),
        Epoch(S, spans((50, 150)), np.array([100.0])),
    ]


def field(repeat: int = 0) -> tuple[RateField, Schedule]:
    program = FieldProgram("f", [Place("[heap]", BASE, BASE + 400 * PAGE)], epochs())
    layout = program.place(0, "one")
    return program.accesses(layout, 1, 7), program.schedule(0, repeat=repeat, time_scale=1.0)


PAGES = (BASE + np.arange(400) * PAGE).astype(np.uint64)


@pytest.mark.parametrize(("start_ns", "end_ns"), [(0, S), (S // 2, 5 * S // 2), (0, 30 * S), (-S, S // 10)])
def test_pages_and_ranges_say_the_same(start_ns: int, end_ns: int) -> None:
    known, schedule = field()
    single = known.accessed(PAGES, schedule, start_ns, end_ns)
    every = np.array([[BASE, BASE + 400 * PAGE]], np.int64)
    touched = known.touched(every, schedule, start_ns, end_ns, 1 << 14)
    inside = np.zeros(400, np.bool_)
    for low, high in ((touched - BASE) // PAGE).tolist():
        inside[low:high] = True
    assert (inside == single).all()
    coarse = known.touched(every, schedule, start_ns, end_ns, 8)
    assert int((coarse[:, 1] - coarse[:, 0]).sum()) // PAGE == pytest.approx(single.sum(), abs=25)


def test_many_windows_are_the_same_as_one_after_another() -> None:
    known, schedule = field()
    windows = np.array([(at * S // 3, (at + 1) * S // 3) for at in range(12)])  # some over a change of epochs
    pages = np.random.default_rng(1).choice(PAGES, (12, 200))
    found = known.accessed_in(pages, schedule, windows)
    for row, (low, high) in enumerate(windows.tolist()):
        assert (found[row] == known.accessed(pages[row], schedule, low, high)).all()


def test_as_often_as_the_rates_say() -> None:
    known, schedule = field(repeat=1)
    windows = np.array([(at * S // 200, (at + 1) * S // 200) for at in range(400)])
    hits = known.accessed_in(np.broadcast_to(PAGES, (400, 400)), schedule, windows).sum(axis=0)
    # 5/s and 0.5/s for 2 s in windows of 5 ms: 400 * (1 - exp(-0.025)) = 9.9 and 1.0 per page.
    assert hits[:100].mean() == pytest.approx(400 * -np.expm1(-0.025), abs=3 * np.sqrt(9.9 / 100))
    assert hits[100:300].mean() == pytest.approx(400 * -np.expm1(-0.0025), abs=3 * np.sqrt(1.0 / 200))
    assert not hits[300:].any()
    assert known.accesses(spans((0, 50), (350, 360)), schedule, 0, 3 * S).tolist() == [500.0, 0.0]
    assert known.accesses(spans((50, 150)), schedule, 0, 3 * S)[0] == 50 * 10 + 50 * 1 + 100 * 100
    assert not known.accessed(PAGES, schedule, 3 * S, 4 * S).any()


def test_it_runs_on_the_machine_with_the_gaps_that_it_had() -> None:
    mappings = [Place("[heap]", BASE, BASE + 400 * PAGE), Place("lib", FAR, FAR + 10 * PAGE)]
    clock = VirtualClock()
    ops = SimOps(FieldProgram("f", mappings, epochs()), clock)
    assert ops.init()[0].tolist() == [[BASE, BASE + 400 * PAGE], [FAR, FAR + 10 * PAGE]]
    clock.sleep_ns(S)
    ops.reset_aggregated()
    assert ops.summary().resident_bytes == 410 * PAGE
    clock.sleep_ns(3 * S)
    assert not ops.target_valid(0)


def test_what_cannot_be_played() -> None:
    place = [Place("x", BASE, BASE + PAGE)]
    with pytest.raises(RequestError, match="f: has no memory, or takes no time"):
        FieldProgram("f", [], epochs())
    for rate, duration_ns in ((np.nan, 1), (-1.0, 1), (np.inf, 1), (1.0, 0)):
        with pytest.raises(RequestError, match="f: epoch 0: has a rate or a duration"):
            FieldProgram("f", place, [Epoch(duration_ns, spans((0, 1)), np.array([rate]))])
