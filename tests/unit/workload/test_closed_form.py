"""The closed form against a literal replay of every access."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pydamon.workload import layout, model
from pydamon.workload.closed_form import AccessModel
from pydamon.workload.model import Access, Phase, Workload, WorkloadRegion
from pydamon.workload.truth import Schedule

MS = 1_000_000
BASE = 0x7000_0000_0000


def replay(workload: Workload, placed: layout.Layout, per_s: int, repeat: int, start_ns: int, end_ns: int) -> set[int]:
    """Page addresses touched in [start_ns, end_ns), access by access; the workload begins at 0."""
    touched = set()
    phase_start = 0
    for phase in workload.phases * repeat:
        phase_end = phase_start + phase.duration_ms * MS
        for access in phase.accesses:
            if access.probability == 0:
                continue
            step_ns = Fraction(phase.total_probability * 1_000_000_000, per_s * access.probability)
            offsets = range(0, workload.regions[access.region].size_bytes, access.stride_bytes)
            made = 0
            while (at_ns := phase_start + made * step_ns) < min(phase_end, end_ns):
                if at_ns >= start_ns:
                    address = placed.regions[access.region].start + offsets[made % len(offsets)]
                    touched.add(address // 4096 * 4096)
                made += 1
        phase_start = phase_end
    return touched


@st.composite
def sequential_workloads(draw: st.DrawFn) -> Workload:
    regions = tuple(WorkloadRegion(f"r{i}", draw(st.integers(1, 50_000))) for i in range(draw(st.integers(1, 3))))
    access = st.builds(
        Access,
        region=st.integers(0, len(regions) - 1),
        random=st.just(False),
        stride_bytes=st.sampled_from([64, 1000, 4095, 4096, 4097, 9000]),
        probability=st.integers(0, 3),
    )
    accesses = st.lists(access, min_size=1, max_size=4).filter(lambda a: any(x.probability for x in a)).map(tuple)
    phase = st.builds(Phase, name=st.just("p"), duration_ms=st.integers(1, 3), accesses=accesses)
    return Workload(regions, draw(st.lists(phase, min_size=1, max_size=3).map(tuple)))


@given(
    workload=sequential_workloads(),
    mapping=st.sampled_from(layout.MAPPINGS),
    per_s=st.sampled_from([700, 10_007, 100_000]),
    repeat=st.integers(1, 3),
    start_ns=st.integers(-MS, 10 * MS),
    length_ns=st.integers(0, 5 * MS) | st.integers(0, 30 * MS),
)
@settings(max_examples=150, deadline=None)
def test_sequential_accesses_equal_a_literal_replay(
    workload: Workload, mapping: str, per_s: int, repeat: int, start_ns: int, length_ns: int
) -> None:
    placed = layout.place(workload, BASE, mapping)
    pages = np.arange(placed.start - 4096, placed.end + 4096, 4096, dtype=np.uint64)
    schedule = Schedule.nominal(workload, 0, repeat=repeat)
    found = AccessModel(workload, placed, per_s, 0).accessed(pages, schedule, start_ns, start_ns + length_ns)
    assert set(pages[found].tolist()) == replay(workload, placed, per_s, repeat, start_ns, start_ns + length_ns)


def test_worked_example_of_a_window_around_the_end() -> None:
    # 10 positions, one per page; 1000 accesses/s: access i at i ms. [8, 13) ms holds accesses 8 to 12: pages 8, 9, 0-2.
    workload = model.parse("a, 40960\n\np\n1000\na, 0, 4096, 1\n", source="x")
    placed = layout.place(workload, BASE, "one")
    pages = np.arange(placed.start, placed.end, 4096, dtype=np.uint64)
    found = AccessModel(workload, placed, 1000, 0).accessed(pages, Schedule.nominal(workload, 0), 8 * MS, 13 * MS)
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 8, 9]


def test_worked_example_of_two_patterns_and_two_phases_in_one_window() -> None:
    # 2000 accesses/s, half for each pattern of "one": pages 0 to 4 by the first, 0, 2, 4, 6, 8 by the second in 5 ms.
    # Then "two" begins from the beginning: 6 accesses in 3 ms, of every third page.
    text = "a, 81920\n\none\n5\na, 0, 4096, 1\na, 0, 8192, 1\n\ntwo\n5\na, 0, 12288, 1\n"
    workload = model.parse(text, source="x")
    placed = layout.place(workload, BASE, "one")
    pages = np.arange(placed.start, placed.end, 4096, dtype=np.uint64)
    known = AccessModel(workload, placed, 2000, 0)
    schedule = Schedule.nominal(workload, 0)
    assert np.flatnonzero(known.accessed(pages, schedule, 0, 5 * MS)).tolist() == [0, 1, 2, 3, 4, 6, 8]
    assert np.flatnonzero(known.accessed(pages, schedule, 0, 8 * MS)).tolist() == [0, 1, 2, 3, 4, 6, 8, 9, 12, 15]
    assert np.flatnonzero(known.accessed(pages, schedule, 4 * MS, 6 * MS)).tolist() == [0, 3, 4, 8]


RANDOM = model.parse("cold, 4096\na, 400 MiB\n\np\n100000\na, 1, 4096, 1\n", source="x")


def random_share(per_s: int, start_ns: int, end_ns: int, seed: int = 0) -> float:
    placed = layout.place(RANDOM, BASE, "one")
    pages = np.arange(placed.regions[1].start, placed.end, 4096, dtype=np.uint64)
    known = AccessModel(RANDOM, placed, per_s, seed)
    return float(known.accessed(pages, Schedule.nominal(RANDOM, 0), start_ns, end_ns).mean())


def test_random_accesses_touch_the_expected_share() -> None:
    # 102,400 pages; k = n accesses leave 1/e of them: 0.632 touched; the deviation of the mean is 0.0015.
    assert abs(random_share(102_400_000, 5 * MS, 6 * MS) - 0.632) < 0.008
    # k = n / 100: 0.00995; deviation 0.0003.
    assert abs(random_share(1_024_000, 5 * MS, 6 * MS) - 0.00995) < 0.0016
    assert random_share(102_400_000, 0, 1000 * MS) == 1.0
    assert random_share(1, 1, MS) == 0.0


def test_random_answers_depend_on_page_window_and_seed_only() -> None:
    placed = layout.place(RANDOM, BASE, "one")
    pages = np.arange(placed.start, placed.end, 4096, dtype=np.uint64)
    schedule = Schedule.nominal(RANDOM, 0)

    def ask(addresses: np.ndarray, start_ns: int, seed: int) -> np.ndarray:
        return AccessModel(RANDOM, placed, 50_000_000, seed).accessed(addresses, schedule, start_ns, start_ns + MS)

    found = ask(pages, 0, 1)
    assert not found[0]  # the cold region
    some = np.random.default_rng(3).permutation(len(pages))[:1000]
    assert (ask(pages[some], 0, 1) == found[some]).all()
    # Two windows, or two seeds, are independent: of probability p both agree in p^2 + (1-p)^2, here p = 0.386.
    for other in (ask(pages, MS, 1), ask(pages, 0, 2)):
        assert abs((other == found).mean() - 0.526) < 0.01


def test_a_region_of_one_page_at_random() -> None:
    workload = model.parse("a, 100\n\np\n1000\na, 1, 1, 1\n", source="x")
    placed = layout.place(workload, BASE, "one")
    page = np.array([placed.start], dtype=np.uint64)
    known = AccessModel(workload, placed, 1000, 0)
    schedule = Schedule.nominal(workload, 0)
    assert known.accessed(page, schedule, 0, MS).tolist() == [True]
    assert known.accessed(page, schedule, 1, MS).tolist() == [False]  # accesses are at 0 ms and 1 ms


def test_random_shares_of_whole_cycles_add_up() -> None:
    # 50 accesses per cycle to 100 pages, 100 cycles: (1 - 1/100)^5000 is 1.5e-22.
    workload = model.parse("a, 400 KiB\n\np\n1\na, 1, 4096, 1\n", source="x")
    placed = layout.place(workload, BASE, "one")
    pages = np.arange(placed.start, placed.end, 4096, dtype=np.uint64)
    schedule = Schedule.nominal(workload, 0, repeat=0)
    known = AccessModel(workload, placed, 50_000, 0)
    assert known.accessed(pages, schedule, 0, 100 * MS).all()
    assert 20 < known.accessed(pages, schedule, 0, MS).sum() < 60  # 39.5 expected
