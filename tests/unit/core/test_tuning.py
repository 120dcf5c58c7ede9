"""How far tuned intervals grow with the recording, and what is said of them in its end."""

from __future__ import annotations

from itertools import pairwise

import pytest

from pydamon.core.snapshot import Snapshot
from pydamon.engines.sim import SimEngine
from pydamon.spec import Spec, from_builtins
from pydamon.workload.model import parse

SECOND = 1_000_000_000
GOAL = {"access_bp": 400, "aggrs": 3, "min_sample_us": 5_000, "max_sample_us": 10_000_000}
COLD = "a, 67108864\nb, 4096\n\nsteady\n{ms}\nb, 0, 4096, 1\n"
HOT = "a, 67108864\n\nsteady\n{ms}\na, 1, 4096, 1\n"


def spec_of(goal: dict[str, int] | None = GOAL, **context: object) -> Spec:
    fields = {"ops": "sim", "targets": [{}], "intervals": {"intervals_goal": goal}, **context}
    return from_builtins({"kdamonds": [{"contexts": [fields]}]})


def engine_of(spec: Spec, *, text: str = COLD, workload_s: int = 600, end_s: float | None = None) -> SimEngine:
    engine = SimEngine(spec, parse(text.format(ms=workload_s * 1000), source="test"), accesses_per_s=10_000)
    engine.end_ns = None if end_s is None else int(end_s * SECOND)
    return engine


def aggregations(engine: SimEngine) -> list[Snapshot]:
    return [snapshot for (snapshot,) in engine.monitor()]


def test_an_aggregation_lasts_at_most_a_tenth_of_the_time_that_was_asked_for() -> None:
    found = aggregations(engine_of(spec_of(), end_s=60))
    lasted = [snapshot.aggr_us for snapshot in found]
    # 100 ms, and twice as long after three each, until it is a tenth of 60 s
    growing = [us for us in (100_000, 200_000, 400_000, 800_000, 1_600_000, 3_200_000) for _ in range(3)]
    assert lasted[:18] == pytest.approx(growing, rel=0.01)
    assert set(lasted[18:-1]) == {6_000_000}
    assert found[-1].end_ns == 60 * SECOND


def test_without_an_end_an_aggregation_lasts_at_most_a_tenth_of_the_time_so_far() -> None:
    found = aggregations(engine_of(spec_of(), workload_s=100))
    longer = [(before, after) for before, after in pairwise(found) if after.aggr_us > before.aggr_us]
    assert len(longer) > 5
    assert all(after.aggr_us * 1000 * 10 <= before.end_ns for before, after in longer)
    assert 5_000_000 < found[-2].aggr_us <= 10_000_000


@pytest.mark.parametrize("end_s", [0.5, 0.9])
def test_a_short_recording_keeps_the_intervals_that_it_began_with(end_s: float) -> None:
    found = aggregations(engine_of(spec_of(), end_s=end_s))
    assert [snapshot.aggr_us for snapshot in found] == [100_000] * round(end_s * 10)


def test_faithful_intervals_grow_as_the_kernels_do() -> None:
    found = aggregations(engine_of(spec_of(faithful=True), end_s=60))
    assert max(snapshot.aggr_us for snapshot in found) == pytest.approx(12_800_000, rel=0.01)


def test_what_was_still_growing_is_said_and_what_had_little_time() -> None:
    engine = engine_of(spec_of(), end_s=10)  # 800 ms are about 1 s
    assert len(aggregations(engine)) > 10
    (said,) = engine.remarks()
    assert said.startswith("only 8 aggregations (of 1 s) came after the intervals had settled")
    engine = engine_of(spec_of(), workload_s=20)
    aggregations(engine)
    (said,) = engine.remarks()
    assert said.startswith("the intervals were still being lengthened when it ended (an aggregation lasted ")


def test_intervals_that_fit_need_no_word() -> None:
    engine = engine_of(spec_of(), text=HOT, end_s=120)
    aggregations(engine)
    assert engine.remarks() == []


def test_fixed_intervals_need_no_word() -> None:
    engine = engine_of(spec_of(None), end_s=1)
    aggregations(engine)
    assert engine.remarks() == []
