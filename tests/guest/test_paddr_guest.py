"""Physical memory on a real kernel: a hot process's frames are found, and the reverse map says whose they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tests.unit.primitives.bpf_child import MIB, PAGE, Child, pages, started_child

from pydamon.core.kdamond import Kdamond
from pydamon.core.snapshot import Snapshot
from pydamon.linux.idle_bitmap import FrameWatch
from pydamon.linux.pagemap import Pagemap, frames_of
from pydamon.ops import paddr
from pydamon.ops.pace import Clock
from pydamon.ops.paddr import PaddrOps
from pydamon.ops.reverse_map import ReverseMap
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED
from pydamon.primitives.idle import IdleFrames
from pydamon.spec import Context, Intervals, NrRegions

pytestmark = pytest.mark.guest


@pytest.fixture
def child() -> Iterator[Child]:
    yield from started_child()


@pytest.fixture(params=["struct pages", "kpageflags"])
def primitive(request: pytest.FixtureRequest) -> Iterator[IdleFrames]:
    watch = FrameWatch() if request.param == "kpageflags" else None
    opened = IdleFrames(watch)
    yield opened
    opened.close()
    if watch is not None:
        watch.close()


def frames(child: Child, addresses: np.ndarray) -> np.ndarray:
    table = Pagemap(child.pid)
    found = frames_of(table.entries(addresses)[0])
    table.close()
    assert found.all()
    return found


def test_both_nodes_are_monitored() -> None:
    paddr.probe()
    ops = PaddrOps()
    (ranges,) = ops.init()
    assert len(ranges) > 1
    # What the kernel reserves for itself at boot is part of System RAM, so there is more than MemTotal.
    assert 3000 * MIB < int((ranges[:, 1] - ranges[:, 0]).sum()) <= 3072 * MIB
    assert {m.name for m in ops.mappings(0)} == {"System RAM (node 0)", "System RAM (node 1)"}
    sizes = {node: sum(m.end - m.start for m in ops.mappings(0) if f"node {node}" in m.name) for node in (0, 1)}
    assert abs(sizes[1] - 1024 * MIB) < 64 * MIB
    assert ops.update()[0] is not None
    ops.cleanup()


def test_hot_and_cold_frames(child: Child, primitive: IdleFrames) -> None:
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    own = frames(child, pages(at, 256))
    hot = list(range(3, 200, 7))
    assert primitive.prepare(own * np.uint64(PAGE)).all()
    child.do("load", "a", *hot)
    answers = primitive.check()
    expected = np.full(256, NOT_ACCESSED)
    expected[hot] = ACCESSED
    # Pages that are not on an LRU list yet are not known to be hot.
    assert (answers != expected).sum() <= 40
    assert (answers[hot] == ACCESSED).mean() > 0.7


def test_frames_that_are_freed_or_shared_meanwhile(child: Child, primitive: IdleFrames) -> None:
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    own = frames(child, pages(at, 256))
    primitive.prepare(own * np.uint64(PAGE))
    child.do("unmap", "a", 128, 128)
    freed = primitive.check()[128:]
    assert (freed != ACCESSED).mean() > 0.7  # some may be in use again
    primitive.prepare(own[:128] * np.uint64(PAGE))
    child.do("unmap", "a", 0, 1)
    child.do("add", "b", MIB)
    child.fork("b")
    shared = primitive.check()  # the fork has their entries, too, but did not use these pages
    assert (shared != ACCESSED).mean() > 0.7


def test_frames_that_nobody_uses_are_not_accessed() -> None:
    ops = PaddrOps(rng=np.random.default_rng(1))
    (ranges,) = ops.init()
    edges = np.linspace(int(ranges[-1, 0]) // PAGE, int(ranges[-1, 1]) // PAGE, 501).astype(np.uint64) * np.uint64(PAGE)
    ops.sampler.prepare_access_checks(0, edges[:-1], edges[1:])  # mostly free memory of the second node
    answers = ops.sampler.check_accesses(0)
    assert (answers == ACCESSED).mean() < 0.1
    assert (answers == NOT_ACCESSED).mean() > 0.9
    ops.cleanup()


def test_a_huge_page_answers_through_its_head(child: Child, primitive: IdleFrames) -> None:
    at = child.do("add", "h", 4 * MIB, "huge")
    child.do("touch", "h", "all")
    own = frames(child, pages(at, 16, 64))
    if (np.diff(own[:8]) != 64).any():
        pytest.skip("the kernel gave no huge pages")
    primitive.prepare(own * np.uint64(PAGE))
    child.do("load", "h", 99)
    assert primitive.check().tolist() == [1] * 8 + [0] * 8


def test_the_reverse_map_names_the_process(child: Child, record_property: Callable[[str, object], None]) -> None:
    at = child.do("add", "a", 16 * MIB)
    child.do("touch", "a", "all")
    child.do("add", "h", 4 * MIB, "huge")
    child.do("touch", "h", "all")
    shared = child.do("add", "s", MIB, "shared")
    child.do("touch", "s", "all")
    other = child.fork("s")
    built = ReverseMap()
    built.refresh()
    own = frames(child, pages(at, 4096))
    index, addresses, count = built.lookup(own)
    assert {built.owners[i].pid for i in np.unique(index)} == {child.pid}
    assert (addresses == pages(at, 4096)).all()
    # The fork shares them, too: it has not written.
    assert (count == 2).all()
    frame = int(frames(child, pages(shared, 1))[0])
    assert [(o.pid, where) for o, where in built.mappers(frame)] == [(child.pid, shared), (other, shared)]
    cost = built.cost
    record_property("reverse map", f"{cost.seconds_per_gib:.3f} s/GiB emulated")
    print(f"\nreverse map: {cost.last_ns / 1e6:.0f} ms for {cost.pages} pages of {cost.processes} processes, "
          f"{cost.seconds_per_gib:.2f} s/GiB, emulated")  # fmt: skip


class _Clock:
    """Real time; between prepare and check the child is told to work."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_ns(self, duration_ns: int) -> bool:
        self._work()
        return True


def test_monitoring_finds_the_hot_process(child: Child) -> None:
    at = child.do("add", "hot", 64 * MIB)
    child.do("touch", "hot", "all")
    own = frames(child, pages(at, 64 * MIB // PAGE))
    ops = PaddrOps(reverse_map=ReverseMap(), rng=np.random.default_rng(2))
    clock: Clock = _Clock(lambda: child.do("load", "hot", "all"))
    kdamond = Kdamond(
        ops=ops,
        context=Context(
            ops="paddr",
            intervals=Intervals(sample_us=1000, aggr_us=5000, ops_update_us=20_000),
            nr_regions=NrRegions(min=100, max=1000),
            faithful=True,
        ),
        clock=clock,
        rng=np.random.default_rng(3),
    )
    snapshot: Snapshot | None = None
    for count, snapshots in enumerate(kdamond.monitor()):
        snapshot = snapshots[0]
        if count == 30:
            break
    assert snapshot is not None
    hot = snapshot.nr_accesses >= 3
    row = np.searchsorted(snapshot.end, own * np.uint64(PAGE), "right")
    recall = hot[row].mean()
    size = (snapshot.end - snapshot.start).astype(np.int64)
    hot_bytes = int(size[hot].sum())
    print(f"\nrecall {recall:.2f}, hot {hot_bytes / MIB:.0f} MiB of {size.sum() / MIB:.0f}, {len(size)} regions")
    assert recall > 0.8
    assert hot_bytes < 64 * MIB * 3
    ops.reverse_map.refresh()  # type: ignore[union-attr]
    whose: dict[int, int] = {}
    for low, high in zip(snapshot.start[hot].tolist(), snapshot.end[hot].tolist(), strict=True):
        for owner, mapped in ops.reverse_map.mapped_bytes(low, high):  # type: ignore[union-attr]
            whose[owner.pid] = whose.get(owner.pid, 0) + mapped
    assert max(whose, key=whose.__getitem__) == child.pid
    ops.cleanup()
