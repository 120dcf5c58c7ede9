"""Operations sets whose samples the BPF program takes: the seam's contract, on the real kernel."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from tests.helpers.waiting import wait_until
from tests.unit.primitives.bpf_child import MIB, OBSTACLE, PAGE, Child, started_child

from pydamon.core.clock import VirtualClock
from pydamon.core.kdamond import Kdamond
from pydamon.core.regions import Regions
from pydamon.linux.process import Process
from pydamon.ops.base import BatchEnd
from pydamon.ops.fvaddr import FvaddrOps
from pydamon.ops.pace import Pace
from pydamon.ops.sampling import PageSampler
from pydamon.ops.whole_samples import WholeSampler
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.bpf_sampler import BpfSampler
from pydamon.spec import Context, Intervals, NrRegions, Probe

pytestmark = [
    pytest.mark.usefixtures("processes"),
    pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or ""),
]
SIZE = 64 * PAGE


class Course(VirtualClock):
    """Virtual time in which something happens in every sleep; a sleep numbered ``woken`` is cut short."""

    def __init__(self, happens: Callable[[int], object], woken: int = -1) -> None:
        super().__init__()
        self.sleeps = 0
        self._happens, self._woken = happens, woken

    def sleep_ns(self, duration_ns: int) -> bool:
        self.sleeps += 1
        self._happens(self.sleeps)
        return super().sleep_ns(duration_ns) and self.sleeps != self._woken


class Until:
    """Ends the samples once ``over`` is set."""

    end_ns: int | None = None
    over = False

    def interrupted(self) -> bool:
        return self.over


@pytest.fixture
def child(processes: None) -> Iterator[Child]:
    yield from started_child()


@pytest.fixture
def walk() -> Iterator[PageTableWalk]:
    walk = PageTableWalk()
    yield walk
    walk.close()


@contextlib.contextmanager
def fixed(walk: PageTableWalk, *areas: tuple[Child, int, int]) -> Iterator[FvaddrOps]:
    """fvaddr over these areas (child, address, bytes), sampled as a whole."""
    for child in {id(child): child for child, _, _ in areas}.values():  # what was touched is on an LRU list then
        child.do("add", "filler", SIZE)
        child.do("touch", "filler", "all")
    ops = FvaddrOps(
        [Process(child.pid) for child, _, _ in areas],
        lambda process: BpfPrimitive(process, walk),
        ranges=[np.array([[at, at + size]], np.uint64) for _, at, size in areas],
        rng=np.random.default_rng(1),
    )
    ops.sample_whole(BpfSampler(walk, 99))
    ops.init()
    try:
        yield ops
    finally:
        ops.cleanup()


def halves(at: int, size: int) -> Regions:
    start = np.array([at, at + size // 2], np.uint64)
    return Regions(start, start + np.uint64(size // 2))


def test_counts_lie_in_shared_memory_and_follow_their_regions(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", SIZE)
    child.do("touch", "a", "all")
    course = Course(lambda _: child.do("touch", "a", *range(32)))
    pace = Pace(course, Until(), 1000)
    with fixed(walk, (child, at, SIZE)) as ops:
        regions = halves(at, SIZE)
        counts = regions.counts
        assert ops.sampler.sample([0], [regions], [counts], 5, pace) == (5, BatchEnd.DONE)
        assert (counts.accessed.tolist(), counts.unknown.tolist()) == ([5, 0], [0, 0])
        assert not counts.accessed.flags.owndata
        assert ops.sampler.sample([0], [regions], [counts], 3, pace) == (3, BatchEnd.DONE)
        assert counts.accessed.tolist() == [8, 0]
        # In the middle of an aggregation the regions are cut: the counts go with them.
        cut = regions.select(np.array([0, 0, 1]), *(np.array(e, np.uint64) for e in _thirds(at)))
        assert ops.sampler.sample([0], [cut], [cut.counts], 2, pace) == (2, BatchEnd.DONE)
        assert cut.counts.accessed.tolist() == [10, 10, 0]
        assert counts.accessed.tolist() == [8, 0]  # what the old ones showed stays
        cut.counts.reset()
        ops.sampler.sample([0], [cut], [cut.counts], 2, pace)
        assert cut.counts.accessed.tolist() == [2, 2, 0]
        kept = cut.counts
    assert kept.accessed.tolist() == [2, 2, 0]  # also when the program is gone


def _thirds(at: int) -> tuple[list[int], list[int]]:
    edges = [at, at + SIZE // 4, at + SIZE // 2, at + SIZE]
    return edges[:-1], edges[1:]


def test_a_batch_ends_at_the_next_sample_for_whoever_asks(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", SIZE)
    child.do("touch", "a", "all")
    until = Until()

    def happens(sleep: int) -> None:
        child.do("touch", "a", "all")
        until.over = sleep == 3

    with fixed(walk, (child, at, SIZE)) as ops:
        regions = halves(at, SIZE)
        course = Course(happens, woken=6)
        pace = Pace(course, until, 1000)
        assert ops.sampler.sample([0], [regions], [regions.counts], 1000, pace) == (3, BatchEnd.INTERRUPTED)
        until.over = False
        assert ops.sampler.sample([0], [regions], [regions.counts], 1000, pace) == (2, BatchEnd.WOKEN)
        assert regions.counts.accessed.tolist() == [5, 5]


def test_a_target_that_ends_ends_the_batch_and_is_unknown_from_then_on(child: Child, walk: PageTableWalk) -> None:
    other = Child()
    try:
        areas = [(each, each.do("add", "a", SIZE), SIZE) for each in (child, other)]
        for each, _, _ in areas:
            each.do("touch", "a", "all")

        def happens(sleep: int) -> None:
            child.do("touch", "a", "all")
            if sleep == 2:
                os.kill(other.pid, signal.SIGKILL)
                wait_until(lambda: not other.process.alive())

        with fixed(walk, *areas) as ops:
            regions = [halves(at, SIZE) for _, at, _ in areas]
            counts = [each.counts for each in regions]
            pace = Pace(Course(happens), Until(), 1000)
            assert ops.sampler.sample([0, 1], regions, counts, 10, pace) == (2, BatchEnd.TARGET_ENDED)
            assert ops.sampler.sample([0, 1], regions, counts, 10, pace) == (10, BatchEnd.DONE)
            assert (counts[0].accessed.tolist(), counts[0].unknown.tolist()) == ([12, 12], [0, 0])
            assert counts[1].unknown.tolist() == [11, 11]
    finally:
        other.end()
        other.process.close()


def test_probes_are_asked_about_the_pages_that_were_drawn(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", SIZE)
    child.do("touch", "a", "all")
    with fixed(walk, (child, at, SIZE)) as ops:
        asked: list[Any] = []

        def apply_probes(target: int, addresses: Any, probes: Any) -> Any:
            asked.append(addresses)
            return addresses[None, :] % np.uint64(2 * PAGE) == 0  # pages with an even number

        ops.apply_probes = apply_probes  # type: ignore[method-assign]
        ops.sampler.probes = (Probe(),)
        regions = halves(at, SIZE)
        regions.counts.set_nr_probes(1)
        pace = Pace(Course(lambda _: None), Until(), 1000)
        ops.sampler.sample([0], [regions], [regions.counts], 50, pace)
        assert regions.counts.probed.tolist() == [50, 50]
        assert all(((regions.start <= drawn) & (drawn < regions.end)).all() for drawn in asked)
        assert (np.abs(regions.counts.hits - 25) <= 3 * np.sqrt(50) / 2).all()
        assert regions.counts.hits[0].tolist() == [int(sum(a[i] % (2 * PAGE) == 0 for a in asked)) for i in (0, 1)]


def test_resident_pages_are_preferred_once_absent_ones_were_drawn(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "sparse", 1024 * PAGE)
    there = range(0, 1024, 64)
    child.do("touch", "sparse", *there)
    with fixed(walk, (child, at, 1024 * PAGE)) as ops:
        ops.faithful = False
        pace = Pace(Course(lambda _: child.do("touch", "sparse", *there)), Until(), 1000)
        found = []
        for _ in range(2):
            regions = halves(at, 1024 * PAGE)
            ops.sampler.sample([0], [regions], [regions.counts], 20, pace)
            found.append(regions.counts.accessed.tolist())
        assert max(found[0]) < 10
        assert found[1] == [20, 20]
        ops.faithful = True
        regions = halves(at, 1024 * PAGE)
        ops.sampler.sample([0], [regions], [regions.counts], 20, pace)
        assert max(regions.counts.accessed) < 10


def test_an_update_tells_the_program_anew_which_pages_are_resident(child: Child, walk: PageTableWalk) -> None:
    """Also where the regions stay the very same; and their counts stay."""
    at = child.do("add", "sparse", 1024 * PAGE)
    there = range(0, 1024, 64)
    child.do("touch", "sparse", *there)
    with fixed(walk, (child, at, 1024 * PAGE)) as ops:
        ops.faithful = False
        pace = Pace(Course(lambda _: child.do("touch", "sparse", *there)), Until(), 1000)
        regions = halves(at, 1024 * PAGE)
        ops.sampler.sample([0], [regions], [regions.counts], 20, pace)
        first = regions.counts.accessed.copy()
        assert max(first) < 10
        assert ops.residency(0) is not None
        ops.update()
        ops.sampler.sample([0], [regions], [regions.counts], 20, pace)
        assert (regions.counts.accessed - first).tolist() == [20, 20]


def test_where_the_kernel_refuses_pages_are_sampled_one_by_one(
    child: Child, walk: PageTableWalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = child.do("add", "a", SIZE)
    child.do("touch", "a", "all")
    with fixed(walk, (child, at, SIZE)) as ops:
        assert isinstance(ops.sampler, WholeSampler)
        pages = ops.sampler._pages
        sampled: list[int] = []
        original = PageSampler.sample

        def sample(self: PageSampler, targets: Any, regions: Any, counts: Any, n: int, pace: Pace) -> Any:
            sampled.append(n)
            return original(self, targets, regions, counts, n, pace)

        monkeypatch.setattr(PageSampler, "sample", sample)
        regions = halves(at, SIZE)
        pace = Pace(Course(lambda _: child.do("touch", "a", *range(32))), Until(), 1000)
        assert ops.sampler.sample([0], [regions], [regions.counts], 2, pace) == (2, BatchEnd.DONE)
        ops.sampler._sampler.refusal = "no such call"
        assert ops.sampler.sample([0], [regions], [regions.counts], 3, pace) == (3, BatchEnd.DONE)
        assert sampled == [3]
        assert regions.counts.accessed.flags.owndata
        assert (regions.counts.accessed + regions.counts.unknown).tolist()[0] == 5
        assert regions.counts.accessed[1] == 0
        assert ops.remarks() == ["samples are taken page by page: no such call"]
        assert pages is ops.sampler._pages


def test_a_kdamond_over_it_finds_what_is_hot(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", 16 * MIB)
    child.do("touch", "a", "all")
    hot = range(1024)
    intervals = Intervals(sample_us=5_000, aggr_us=100_000, ops_update_us=1_000_000)
    with fixed(walk, (child, at, 16 * MIB)) as ops:
        k = Kdamond(
            ops=ops,
            context=Context(ops="fvaddr", intervals=intervals, nr_regions=NrRegions(min=10, max=100)),
            clock=Course(lambda _: child.do("touch", "a", *hot)),
            rng=np.random.default_rng(2),
        )
        snapshots = []
        for (snapshot,) in k.monitor():
            snapshots.append(snapshot)
            if len(snapshots) == 25:
                k.stop()
    last = snapshots[-1]
    size = (last.end - last.start).astype(np.float64)
    inside = np.clip(np.minimum(last.end, np.uint64(at + 4 * MIB)).astype(np.float64) - last.start, 0, None)
    heat = last.nr_accesses / 20
    assert (heat * inside).sum() / (4 * MIB) > 0.9
    assert (heat * (size - inside)).sum() / (12 * MIB) < 0.1


def test_cost_is_that_of_the_sampler_and_the_primitives(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", SIZE)
    child.do("touch", "a", "all")
    with fixed(walk, (child, at, SIZE)) as ops:
        regions = halves(at, SIZE)
        pace = Pace(Course(lambda _: child.do("touch", "a", "all")), Until(), 1000)
        ops.sampler.sample([0], [regions], [regions.counts], 10, pace)
        cost = ops.cost()
        assert cost.checks == 20
        assert cost.clears == 20  # before each of ten windows
        assert cost.check_ns > 0
        assert cost.clear_ns > cost.disturb_ns > 0
