"""Many windows at once against one after another: the same answers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydamon.workload import layout, model
from pydamon.workload.closed_form import AccessModel
from pydamon.workload.model import Access, Phase, Workload, WorkloadRegion
from pydamon.workload.truth import Schedule

MS = 1_000_000
BASE = 0x7000_0000_0000


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    regions = tuple(WorkloadRegion(f"r{i}", draw(st.integers(1, 200_000))) for i in range(draw(st.integers(1, 4))))
    access = st.builds(
        Access,
        region=st.integers(0, len(regions) - 1),
        random=st.booleans(),
        stride_bytes=st.sampled_from([64, 1000, 4096, 9000]),
        probability=st.integers(0, 3),
    )
    accesses = st.lists(access, min_size=1, max_size=5).map(tuple)
    phase = st.builds(Phase, name=st.just("p"), duration_ms=st.integers(1, 40), accesses=accesses)
    return Workload(regions, draw(st.lists(phase, min_size=1, max_size=3).map(tuple)))


@given(
    workload=workloads(),
    per_s=st.sampled_from([700, 10_007, 1_000_000, 50_000_000]),
    repeat=st.integers(0, 2),
    begin_ns=st.integers(-3 * MS, 30 * MS),
    lengths=st.lists(st.sampled_from([0, 1, MS, 5 * MS, 5 * MS, 33 * MS]), min_size=1, max_size=25),
    seed=st.integers(0, 1 << 32),
)
@settings(max_examples=200, deadline=None)
def test_the_same_as_one_after_another(
    workload: Workload, per_s: int, repeat: int, begin_ns: int, lengths: list[int], seed: int
) -> None:
    placed = layout.place(workload, BASE)
    known, schedule = AccessModel(workload, placed, per_s, seed), Schedule.nominal(workload, 0, repeat=repeat)
    ends = begin_ns + np.cumsum(lengths)
    windows = np.stack([ends - np.array(lengths), ends], axis=1)
    span = np.arange(placed.start - 4096, placed.end + 4096, 4096, dtype=np.uint64)
    pages = np.sort(np.random.default_rng(seed).choice(span, (len(windows), 60)), axis=1)
    found = known.accessed_in(pages, schedule, windows)
    for row, (low, high) in enumerate(windows.tolist()):
        assert (found[row] == known.accessed(pages[row], schedule, low, high)).all()


@pytest.mark.parametrize("per_s", [50_000_000, 1 << 60])
def test_a_phase_of_a_year(per_s: int) -> None:
    """What does not fit in 64 bits is told window by window, and is the same."""
    workload = model.parse(f"a, 1 GiB\nb, 1 GiB\n\np\n{31_536_000_000 // 8}\na, 0, 64, 7\nb, 1, 64, 1\n", source="x")
    placed = layout.place(workload, BASE)
    known, schedule = AccessModel(workload, placed, per_s, 3), Schedule.nominal(workload, 0)
    begin_ns = 10**15 * 3
    windows = np.array([(begin_ns + at * MS, begin_ns + (at + 1) * MS) for at in range(10)])
    pages = np.random.default_rng(1).integers(placed.start, placed.end, (10, 200), dtype=np.uint64) & ~np.uint64(4095)
    found = known.accessed_in(pages, schedule, windows)
    for row, (low, high) in enumerate(windows.tolist()):
        assert (found[row] == known.accessed(pages[row], schedule, low, high)).all()
