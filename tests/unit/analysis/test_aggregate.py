"""Several snapshots as one coarser one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tests.unit.analysis.analysis_samples import PAGE, random_snapshots, regions_of
from tests.unit.records.record_samples import as_tuple, snapshot

from pydamon.analysis.aggregate import combine
from pydamon.core.snapshot import Snapshot


def _page(one: Snapshot, page: int) -> tuple[int, int] | None:
    """(nr_accesses, age) of a page; None if it is not monitored."""
    return next(((n, a) for s, e, n, a in regions_of(one) if s <= page * PAGE < e), None)


@pytest.mark.parametrize("seed", range(10))
def test_every_page_has_the_sum_of_its_counts(seed: int) -> None:
    snapshots = random_snapshots(seed, targets=1, count=4, aggr_us=100_000)
    found = combine(snapshots)
    assert (found.start_ns, found.end_ns) == (snapshots[0].start_ns, snapshots[-1].end_ns)
    assert (found.sample_us, found.aggr_us, found.max_nr_accesses) == (5_000, 400_000, 80)
    for page in range(62):
        parts = [part for one in snapshots if (part := _page(one, page)) is not None]
        last = _page(snapshots[-1], page)
        expected = (sum(n for n, _ in parts), last[1] // 4 if last else 0) if parts else None
        assert _page(found, page) == expected
    regions = regions_of(found)
    assert all(s < e for s, e, *_ in regions)
    for left, right in pairwise(regions):
        assert left[1] < right[0] or (left[1] == right[0] and left[2:] != right[2:])


def test_one_snapshot_stays_as_it_is() -> None:
    one = snapshot(0, [(0, 4096, 1, 2)])
    assert combine([one]) is one


@pytest.mark.parametrize("seed", range(5))
def test_in_two_steps_it_is_the_same(seed: int) -> None:
    snapshots = random_snapshots(seed, targets=1, count=9, aggr_us=100_000)
    halfway = [combine(snapshots[:6]), *snapshots[6:]]
    assert as_tuple(combine(halfway, newest=snapshots[-1])) == as_tuple(combine(snapshots))
