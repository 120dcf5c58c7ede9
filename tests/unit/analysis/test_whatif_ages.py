"""Histograms of idle times that are there and that end, beside a literal count; limits, curves, estimates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tests.unit.analysis.analysis_samples import batches_of, random_snapshots, regions_of

from pydamon.analysis.whatif.ages import MOST, Ages, AgesAccumulator, thresholds_s
from pydamon.analysis.whatif.answers import Answers, Row, answers
from pydamon.analysis.whatif.costs import cpu, lost
from pydamon.analysis.whatif.limits import fast_share, for_share, for_slowdown, memory_for, miss_curve
from pydamon.core.snapshot import Snapshot
from pydamon.spec.costs import BACKINGS, Costs

MIB = 1 << 20
LEVELS = np.array([0.1, 0.3, 1.0, 2.0])


def accumulated(snapshots: list[Snapshot], size: int) -> Ages:
    """What one pass over batches of that size finds."""
    span = snapshots[0].start_ns, max(one.end_ns for one in snapshots)
    accumulator = AgesAccumulator(LEVELS, span, span[0])
    for batch in batches_of(snapshots, size):
        accumulator.add(batch)
    return accumulator.finish()


def literal(snapshots: list[Snapshot], level_s: float) -> tuple[float, float]:
    """(byte-seconds idle for so long, bytes whose idle time of so much has ended), one page at a time."""
    cold = ended = 0.0
    before: dict[int, Snapshot] = {}
    for one in snapshots:
        for start, end, accesses, age in regions_of(one):
            if not accesses and age * one.aggr_us / 1e6 >= level_s - 1e-9:
                cold += (end - start) * (one.end_ns - one.start_ns) / 1e9
        last = before.get(one.target)
        idle = (
            [] if last is None else [(low, high, age * last.aggr_us) for low, high, n, age in regions_of(last) if not n]
        )
        for start, end, accesses, _ in regions_of(one):
            for page in range(start, end, 4096) if accesses else ():
                for low, high, idle_us in idle:
                    if low <= page < high and idle_us / 1e6 >= level_s - 1e-9:
                        ended += 4096
        before[one.target] = one
    return cold, ended


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_as_a_literal_count_of_pages_has_it(targets: int, size: int) -> None:
    for seed in range(6):
        snapshots = random_snapshots(seed, targets=targets, count=30)
        found = accumulated(snapshots, size)
        for at, level in enumerate(LEVELS.tolist()):
            cold, ended = literal(snapshots, level)
            assert found.ended[at] == pytest.approx(ended, rel=1e-9)
            if found.seen_s[at] > 0:
                assert found.cold[at] * found.seen_s[at] == pytest.approx(cold, rel=1e-9)


def test_addresses_of_five_levels_of_page_tables_lose_nothing() -> None:
    """2**57 bytes and many snapshots do not fit 63 bits together."""
    high = 1 << 56
    pages = [(high, high + MIB, 0, 20), (high + MIB, high + 2 * MIB, 5, 1)]
    moved = [(high, high + MIB, 5, 0), (high + MIB, high + 2 * MIB, 0, 0)]
    snapshots = []
    for number in range(600):
        columns = np.array(moved if number % 2 else pages, np.uint64)
        counts = columns[:, 2].astype(np.uint32), columns[:, 3].astype(np.uint32)
        when = number * 10**8, (number + 1) * 10**8
        snapshots.append(Snapshot(0, *when, 5_000, 100_000, columns[:, 0], columns[:, 1], *counts))
    assert accumulated(snapshots, 600).ended[2] == 300 * MIB


@pytest.mark.parametrize(("aggr_s", "length_s"), [(0.001, 0.5), (0.1, 60), (0.1, 3600), (0.37, 86_400 * 30), (1e-6, 1)])
def test_thresholds_are_few_and_ascend_from_one_aggregation_on(aggr_s: float, length_s: float) -> None:
    found = thresholds_s(aggr_s, length_s)
    assert found[0] == aggr_s
    assert len(found) <= MOST
    assert (np.diff(found) > 0).all()
    assert found[-1] < length_s <= found[-1] * 2.1 or length_s <= 1


def table(cold: list[float], back: list[float], hits: list[int | None]) -> Answers:
    """Answers of ages 1, 2, 3, … s; bytes, and bytes per minute."""
    ages = np.arange(1.0, len(cold) + 1)
    empty = np.zeros(len(cold))
    about = Ages(ages, 600.0, 600, 6000, 600 - ages, np.array(cold), empty, 100.0 * MIB, 0.0, 0, 4096,
                 np.array([100.0, 1.0]), np.array([10.0 * MIB, 30.0 * MIB]))  # fmt: skip
    rows = tuple(
        Row(float(age), 599.0, size, size, size, value / 2, value, value * 2, some, value)
        for age, size, value, some in zip(ages.tolist(), cold, back, hits, strict=True)
    )
    return Answers(about, rows, 50.0 * MIB, 120.0, 1024, None)


def test_the_lowest_age_within_a_goal_and_what_the_hits_leave_open() -> None:
    """With 16 hits a quarter more or less may come back: 2 %, 1.6 % and 1.2 % of the working set are at most 2.5 %."""
    found = table([40.0 * MIB] * 4, [2.0 * MIB, 1.0 * MIB, 0.8 * MIB, 0.6 * MIB], [64, 16, 16, 16])
    lowest = for_share(found, 0.02)
    assert lowest.row is not None
    assert (lowest.row.age_s, lowest.least_s, lowest.most_s, lowest.few) == (2.0, 2.0, 3.0, False)
    assert for_share(found, 0.001).row is None


def test_fewer_than_ten_hits_are_few() -> None:
    assert for_share(table([1.0], [0.0], [9]), 0.5).few
    assert not for_share(table([1.0], [0.0], [10]), 0.5).few


def test_time_lost_is_what_comes_back_by_what_a_page_takes() -> None:
    """60 MiB a minute are 256 pages a second: at 8 us 0.2 %, at 90 us 2.3 %."""
    found = table([MIB, MIB], [60.0 * MIB, 0.0], [400, 400])
    costs = Costs()
    zram, ssd = (for_slowdown(found, 0.01, costs, backing) for backing in BACKINGS)
    assert zram.row is not None
    assert ssd.row is not None
    assert (zram.row.age_s, ssd.row.age_s) == (1.0, 2.0)
    assert lost(costs, "zram", MIB, 0) == pytest.approx(256 * 8e-6)
    assert lost(Costs(zram_in_ns=16_000, overlap_permil=500), "zram", MIB, 0) == pytest.approx(256 * 8e-6)
    assert lost(Costs(reclaim_on_app_permil=100), "zram", 0, MIB) == pytest.approx(256 * 2.5e-7)
    assert cpu(costs, "zram", MIB, MIB) == pytest.approx(256 * 10.5e-6)
    assert cpu(costs, "ssd", MIB, MIB) == pytest.approx(256 * 4e-6)


def test_memory_for_few_refaults_lies_on_the_curve() -> None:
    """60 MiB are in use within 1 s; a second at 2 MiB/s on average makes 62, one at 1 MiB/s on average 63."""
    found = table([40.0 * MIB] * 3, [180.0 * MIB, 60.0 * MIB, 60.0 * MIB], [99] * 3)
    sizes, back = miss_curve(found)
    assert (sizes / MIB).tolist() == [60, 62, 63]
    assert (back / MIB).tolist() == [3, 1, 1]
    assert memory_for(found, 1 * MIB) == 62 * MIB
    assert memory_for(found, 2 * MIB) == 61 * MIB
    assert memory_for(found, MIB // 2) is None


def test_a_fast_tier_holds_the_hottest_first() -> None:
    """10 MiB at 100 and 30 MiB at 1 accesses a second: 1,000 of 1,030, then the rest evenly."""
    found = table([0.0], [0.0], [0])
    assert fast_share(found, 10 * MIB) == pytest.approx(1000 / 1030)
    assert fast_share(found, 25 * MIB) == pytest.approx(1015 / 1030)
    assert fast_share(found, 0) == 0
    assert fast_share(found, 1 << 40) == 1


def test_without_a_panel_regions_alone_say_at_least() -> None:
    found = answers(accumulated(random_snapshots(3, targets=1, count=60), 7), {})
    assert found.panel_pages == 0
    assert found.rows
    for row in found.rows:
        assert row.refaults == row.regions
        assert row.high is None
        assert row.error() == 0
        assert math.isfinite(row.out)
