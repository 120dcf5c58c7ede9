"""Cutting batches to a window of time and addresses."""

from __future__ import annotations

import pytest
from tests.unit.analysis.analysis_samples import PAGE, batches_of, random_snapshots, regions_of

from pydamon.analysis.window import Window, clip
from pydamon.records.batch import RegionBatch


def _cut(window: Window, seed: int) -> list[tuple[int, int, list[tuple[int, int, int, int]]]]:
    found = window.of(batches_of(random_snapshots(seed)))
    return [(one.target, one.start_ns, regions_of(one)) for batch in found for one in batch.snapshots()]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("low", "high"), [(0, 2**64 - 1), (10 * PAGE, 30 * PAGE), (PAGE + 1, 20 * PAGE - 1)])
def test_the_cut_is_what_a_loop_over_all_regions_keeps(seed: int, low: int, high: int) -> None:
    snapshots = random_snapshots(seed)
    start_ns, end_ns = snapshots[4].start_ns + 1, snapshots[-4].end_ns
    expected = []
    for one in snapshots:
        if one.end_ns <= start_ns or one.start_ns >= end_ns:
            continue
        regions = [(max(s, low), min(e, high), n, a) for s, e, n, a in regions_of(one) if e > low and s < high]
        if regions:
            expected.append((one.target, one.start_ns, regions))
    assert _cut(Window(start_ns, end_ns, low, high), seed) == expected


def test_without_bounds_nothing_is_copied() -> None:
    batches = batches_of(random_snapshots(1))
    assert all(a is b for a, b in zip(Window().of(batches), batches, strict=True))


def test_a_snapshot_that_only_touches_the_window_is_outside() -> None:
    """Both times are exclusive there: a snapshot of [a, b) has nothing in [b, …), nor in […, a)."""
    one = random_snapshots(1)[0]
    batch = RegionBatch.of([one])
    assert not list(Window(start_ns=one.end_ns).of([batch]))
    assert not list(Window(end_ns=one.start_ns).of([batch]))
    assert list(Window(start_ns=one.end_ns - 1).of([batch]))


def test_addresses_without_regions_leave_nothing() -> None:
    assert len(clip(RegionBatch.of(random_snapshots(2)), 1 << 40, 1 << 41)) == 0
    assert not list(Window(low=1 << 40).of(batches_of(random_snapshots(2))))
