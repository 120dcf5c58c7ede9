"""Actions of schemes on real memory: swap, two NUMA nodes, cgroups, huge pages, physical memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.waiting import wait_until
from tests.unit.ops.action_targets import acting_on, apply, page_kinds, scheme, small_pages
from tests.unit.primitives.bpf_child import MIB, PAGE, Child, kib_of, pages, started_child

from pydamon.core.damos import Damos
from pydamon.core.kdamond import Kdamond
from pydamon.errors import MachineError, RequestError
from pydamon.linux import memcg, pagemap_scan
from pydamon.linux.metrics import MachineMetrics
from pydamon.linux.move_pages import nodes_of
from pydamon.linux.pagemap import Pagemap, frames_of
from pydamon.ops.actions import probe
from pydamon.ops.paddr import PaddrOps
from pydamon.ops.reverse_map import ReverseMap
from pydamon.spec import Context, Intervals, NrRegions
from pydamon.spec.quantities import Age, Rate
from pydamon.spec.schemes import AccessPattern, AddressRange, AgeRange, Dest, Filter, RateRange

pytestmark = pytest.mark.guest

SIZE = 16 * MIB
CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def child() -> Iterator[Child]:
    yield from started_child()


@pytest.fixture
def area(child: Child) -> int:
    """Half of it hot, half cold: the child's own memory, in small pages."""
    at = child.do("add", "a", SIZE)
    child.do("touch", "a", "all")
    return at


def swapped_kib(child: Child, at: int) -> int:
    return kib_of(child, at, "Swap")


def nodes(child: Child, start: int, size: int) -> dict[int, int]:
    """Pages on each node by the child's numa_maps (N0=… N1=…) for the mapping that begins at or before ``start``."""
    told = nodes_of(child.process, pages(start, size // PAGE))
    node, count = np.unique(told, return_counts=True)
    return dict(zip(node.tolist(), count.tolist(), strict=True))


def numa_maps(child: Child, at: int) -> dict[int, int]:
    found: dict[int, int] = {}
    for line in Path(f"/proc/{child.pid}/numa_maps").read_text().splitlines():
        start = int(line.split()[0], 16)
        if start <= at:
            found = {int(w[1 : w.index("=")]): int(w.split("=")[1]) for w in line.split() if w[0] == "N" and "=" in w}
    return found


# -- paging out and in --------------------------------------------------------------------------------------------


def test_the_cold_half_goes_to_swap(child: Child, area: int, record_property: Callable[[str, object], None]) -> None:
    half = SIZE // 2
    before = kib_of(child, area, "Rss")
    with acting_on(child.pid, bpf=True) as ops:
        # Young is what was used since: the hot half.
        pick = scheme("pageout", Filter(filter_type="young"))
        apply(ops, scheme("stat", Filter(filter_type="young")), (area, SIZE))
        child.do("load", "a", *range(half // PAGE))
        done = apply(ops, pick, (area, half), (area + half, half))
        after = kib_of(child, area, "Rss")
        told = f"{(before - after) / 1024:.2f} MiB of {before / 1024:.2f}, cold half {half // MIB}"
        record_property("paged out", told)
        print(f"\npaged out: {told}")
        assert abs((before - after) * 1024 - half) <= half * 0.05
        assert int(done.applied.sum()) == (before - after) * 1024
        assert page_kinds(child, area, half).get(pagemap_scan.PRESENT, 0) >= half * 0.95
        assert abs(swapped_kib(child, area) * 1024 - half) <= half * 0.05
        # Again: nothing is left to do, and nothing counts twice.
        assert int(apply(ops, pick, (area + half, half)).applied.sum()) <= half * 0.05
        # It returns on access.
        child.do("load", "a", "all")
        assert kib_of(child, area, "Rss") == before


def test_monitoring_finds_the_cold_half_and_pages_it_out(child: Child, area: int) -> None:
    half = SIZE // 2
    pattern = AccessPattern(nr_accesses=RateRange(max=Rate(0, "samples")), age=AgeRange(min=Age(3, "aggrs")))
    before = kib_of(child, area, "Rss")
    with acting_on(child.pid, bpf=True) as ops:
        metrics = MachineMetrics()
        clock = _Clock(lambda: child.do("load", "a", *range(half // PAGE)))
        only = Filter(filter_type="addr", matching=False, address_range=AddressRange(start=area, end=area + SIZE))
        kdamond = Kdamond(
            ops=ops,
            context=Context(
                intervals=Intervals(sample_us=1000, aggr_us=5000, ops_update_us=1_000_000),
                nr_regions=NrRegions(min=50, max=500),
                schemes=(scheme("pageout", only, access_pattern=pattern),),
                faithful=True,
            ),
            clock=clock,
            rng=np.random.default_rng(1),
            damos=Damos(ops=ops, clock=clock, metrics=metrics),
        )
        for count, _ in enumerate(kdamond.monitor()):
            if count == 40:
                break
        assert kdamond.damos is not None
        stats = kdamond.damos.states[0].stats
    gone = (before - kib_of(child, area, "Rss")) * 1024
    kept = page_kinds(child, area, half).get(pagemap_scan.PRESENT, 0)
    print(f"\ngone {gone / MIB:.2f} MiB, of the hot half {kept / MIB:.2f} MiB of {half / MIB:.0f} kept; {stats}")
    assert kept >= half * 0.95
    assert abs(gone - half) <= half * 0.05
    assert stats.sz_applied >= gone


class _Clock:
    """Real time; while the kdamond sleeps the child works."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def sleep_ns(self, duration_ns: int) -> bool:
        self._work()
        return True


def test_willneed_reads_swap_in(child: Child, area: int) -> None:
    half = SIZE // 2
    with acting_on(child.pid) as ops:
        gone = int(apply(ops, scheme("pageout"), (area, half)).applied.sum())
        assert gone >= half * 0.95
        done = apply(ops, scheme("willneed"), (area, half))
        # The kernel reads in around what it was asked for, and others use swap, too.
        assert gone * 0.9 <= int(done.applied[0]) <= gone
        assert int(done.passed[0]) == half
        assert int(apply(ops, scheme("willneed"), (area, half)).applied[0]) <= half * 0.1


def test_willneed_reads_only_what_a_filter_lets_pass(child: Child, area: int) -> None:
    with acting_on(child.pid) as ops:
        apply(ops, scheme("pageout"), (area, 4 * MIB))
        rejected = apply(ops, scheme("willneed", Filter(filter_type="anon")), (area, 4 * MIB))
        assert (rejected.applied.tolist(), rejected.passed.tolist()) == ([0], [0])


def test_a_dry_run_leaves_all_in_memory(child: Child, area: int) -> None:
    before = kib_of(child, area, "Rss")
    with acting_on(child.pid, dry_run=True) as ops:
        assert apply(ops, scheme("pageout"), (area, SIZE)).applied.tolist() == [SIZE]
        assert ops.actions.take_plans()[0].bytes == SIZE
        two = Dest(id=0, weight=3), Dest(id=1, weight=1)
        away = apply(ops, scheme("migrate_cold", dests=two), (area, SIZE))
        assert int(away.applied[0]) == SIZE // 4
    assert kib_of(child, area, "Rss") == before
    assert nodes(child, area, SIZE) == {0: SIZE // PAGE}


def test_a_shared_page_stays_and_is_not_counted(child: Child) -> None:
    at = child.do("add", "s", 2 * MIB)
    child.do("touch", "s", "all")
    child.fork("s")  # both map the same pages until one writes
    with acting_on(child.pid) as ops:
        done = apply(ops, scheme("pageout"), (at, 2 * MIB))
        assert int(done.applied[0]) <= 2 * MIB * 0.05
        assert page_kinds(child, at, 2 * MIB).get(pagemap_scan.PRESENT, 0) == 2 * MIB - int(done.applied[0])


# -- huge pages ---------------------------------------------------------------------------------------------------


def test_collapse_shows_in_smaps(record_property: Callable[[str, object], None]) -> None:
    def huge_kib(pid: int) -> int:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages:"))

    with small_pages(8 * MIB) as (pid, at), acting_on(pid) as ops:
        before = huge_kib(pid)
        done = apply(ops, scheme("collapse"), (at, 4 * MIB), (at + 4 * MIB, 3 * MIB))
        after = huge_kib(pid)
        record_property("huge pages", f"{before} → {after} KiB")
        # Of 3 MiB one block of 2 MiB is whole.
        assert done.applied.tolist() == [4 * MIB, 2 * MIB]
        assert (after - before) * 1024 == 6 * MIB


# -- NUMA nodes ---------------------------------------------------------------------------------------------------


def test_migration_there_and_home(child: Child, area: int) -> None:
    with acting_on(child.pid, remember=True) as ops:
        wanted = scheme("migrate_cold", target_nid=1)
        done = apply(ops, wanted, (area, SIZE // 2))
        assert done.applied.tolist() == [SIZE // 2]
        assert nodes(child, area, SIZE) == {0: SIZE // 2 // PAGE, 1: SIZE // 2 // PAGE}
        assert numa_maps(child, area)[1] == SIZE // 2 // PAGE
        start, end = np.array([area], np.uint64), np.array([area + SIZE], np.uint64)
        assert ops.node_bytes(0, start, end, 1) == SIZE // 2
        assert apply(ops, wanted, (area, SIZE // 2)).applied.tolist() == [0]  # already there
        assert ops.actions.undo(wanted).migrated_back == SIZE // 2
        assert nodes(child, area, SIZE) == {0: SIZE // PAGE}
        assert ops.actions.undo(wanted).migrated_back == 0


def test_weights_interleave(child: Child, area: int) -> None:
    with acting_on(child.pid) as ops:
        apply(ops, scheme("migrate_hot", dests=(Dest(id=0, weight=1), Dest(id=1, weight=3))), (area, SIZE))
    told = nodes_of(child.process, pages(area, SIZE // PAGE))
    number = np.arange(SIZE // PAGE) + area // PAGE
    assert (told == np.where(number % 4 < 1, 0, 1)).all()


def test_huge_pages_migrate_as_a_whole(child: Child) -> None:
    at = child.do("add", "h", 8 * MIB, "huge")
    child.do("touch", "h", "all")
    huge = kib_of(child, at, "AnonHugePages")
    if huge < 8 * 1024:
        pytest.skip("the kernel gave no huge pages")
    with acting_on(child.pid) as ops:
        done = apply(ops, scheme("migrate_cold", target_nid=1), (at, 3 * MIB))
    assert done.applied.tolist() == [3 * MIB]
    # The huge page that the region ends in has moved as a whole.
    assert nodes(child, at, 8 * MIB) == {0: 1024, 1: 1024}
    assert kib_of(child, at, "AnonHugePages") == huge


def test_what_cannot_be_is_refused(child: Child) -> None:
    with acting_on(child.pid) as ops:
        with pytest.raises(MachineError, match="node 5 has no memory on this machine; nodes with memory: 0, 1"):
            ops.check_scheme(scheme("migrate_hot", dests=(Dest(id=1), Dest(id=5))))
        with pytest.raises(MachineError, match="use collapse"):
            ops.check_scheme(scheme("hugepage"))
        with pytest.raises(MachineError, match=r"filters\[0\]: memcg cannot be told here: /nowhere"):
            ops.check_scheme(scheme("stat", Filter(filter_type="memcg", memcg_path="/nowhere")))


# -- filters ------------------------------------------------------------------------------------------------------


def test_anonymous_and_file_memory(child: Child, area: int) -> None:
    shared = child.do("add", "s", 2 * MIB, "shared")
    child.do("touch", "s", "all")
    low, high = sorted([(area, 2 * MIB), (shared, 2 * MIB)])
    with acting_on(child.pid) as ops:
        done = apply(ops, scheme("stat", Filter(filter_type="anon", allow=True)), low, high)
        passed = dict(zip((low[0], high[0]), done.passed.tolist(), strict=True))
        assert passed == {area: 2 * MIB, shared: 0}
        done = apply(ops, scheme("migrate_cold", Filter(filter_type="anon"), target_nid=1), low, high)
        applied = dict(zip((low[0], high[0]), done.applied.tolist(), strict=True))
        assert applied == {area: 0, shared: 2 * MIB}


@pytest.fixture
def cgroup() -> Iterator[Path]:
    control = CGROUPS / "cgroup.subtree_control"
    if "memory" not in control.read_text():
        control.write_text("+memory")
    made = CGROUPS / f"actions-{os.getpid()}"
    made.mkdir()
    yield made
    wait_until(lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


def test_memory_of_a_cgroup(cgroup: Path) -> None:
    code = (
        f"import ctypes,os,sys,mmap\nopen('{cgroup}/cgroup.procs','w').write('0')\n"
        f"m=mmap.mmap(-1,{SIZE},mmap.MAP_PRIVATE|mmap.MAP_ANONYMOUS)\nm.madvise(15)\n"
        "m[:]=b'x'*len(m)\nprint(ctypes.addressof(ctypes.c_char.from_buffer(m)),flush=True)\nsys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        try:
            assert popen.stdout is not None
            low = int(popen.stdout.readline())
            with acting_on(popen.pid) as ops:
                for path in (cgroup.name, f"/{cgroup.name}", str(cgroup)):
                    mine = Filter(filter_type="memcg", memcg_path=path, allow=True)
                    assert apply(ops, scheme("stat", mine), (low, SIZE)).passed.tolist() == [SIZE]
                others = Filter(filter_type="memcg", memcg_path="/", allow=True)
                assert apply(ops, scheme("stat", others), (low, SIZE)).passed.tolist() == [0]
                mine = Filter(filter_type="memcg", memcg_path=cgroup.name, allow=True)
                assert int(apply(ops, scheme("pageout", mine), (low, SIZE // 2)).applied[0]) >= SIZE // 2 * 0.95
            metrics = MachineMetrics()
            used = [metrics.node_memcg_bp(node, cgroup.name, used=True) for node in (0, 1)]
            free = [metrics.node_memcg_bp(node, cgroup.name, used=False) for node in (0, 1)]
            assert all(abs(u + f - 10_000) <= 1 for u, f in zip(used, free, strict=True))
            told = memcg.lru_bytes_by_node(cgroup.name)
            assert SIZE // 2 * 0.8 <= sum(told.values()) <= SIZE * 1.5
        finally:
            popen.kill()
            popen.wait()


# -- physical memory ----------------------------------------------------------------------------------------------


def frame_ranges(child: Child, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    table = Pagemap(child.pid)
    found = np.sort(frames_of(table.entries(pages(start, size // PAGE))[0]))
    table.close()
    found = found[found != 0]
    cut = np.flatnonzero(np.diff(found) != 1)
    first = found[np.concatenate([[0], cut + 1])]
    last = found[np.append(cut, len(found) - 1)]
    return first * np.uint64(PAGE), (last + np.uint64(1)) * np.uint64(PAGE)


def test_frames_are_paged_out_through_their_process(child: Child, area: int) -> None:
    ops = PaddrOps(reverse_map=ReverseMap())
    ops.init()
    start, end = frame_ranges(child, area, SIZE)
    none = np.zeros(len(start), np.bool_)
    wanted = scheme("pageout")
    ops.check_scheme(wanted)
    # Not one is old: the kernel's own rule leaves young pages alone, and looking makes them old.
    first = ops.apply_scheme(0, wanted, start, end, none)
    assert int(first.applied.sum()) <= SIZE * 0.1
    child.do("load", "a", *range(SIZE // 2 // PAGE))
    second = ops.apply_scheme(0, wanted, start, end, none)
    gone = SIZE - kib_of(child, area, "Rss") * 1024
    assert int(second.applied.sum()) == gone - int(first.applied.sum())
    assert gone >= SIZE // 2 * 0.8
    # Young is told by the accessed bit, which emulated processors may not set again at once.
    child.do("load", "a", "all")
    ops.reverse_map.refresh()  # type: ignore[union-attr]
    start, end = frame_ranges(child, area, SIZE)
    all_allowed = ops.apply_scheme(0, wanted, start, end, np.ones(len(start), np.bool_))
    assert int(all_allowed.applied.sum()) >= SIZE * 0.9
    ops.cleanup()


def test_frames_are_moved_to_another_node(child: Child, area: int) -> None:
    ops = PaddrOps()  # without a reverse map of its own: one is made
    ops.remember_homes = True
    ops.init()
    start, end = frame_ranges(child, area, SIZE)
    wanted = scheme("migrate_cold", target_nid=1)
    ops.check_scheme(wanted)
    done = ops.apply_scheme(0, wanted, start, end, np.zeros(len(start), np.bool_))
    assert int(done.applied.sum()) >= SIZE * 0.95
    assert nodes(child, area, SIZE)[1] * PAGE == int(done.applied.sum())
    assert ops.actions.undo(wanted).migrated_back == int(done.applied.sum())
    span = np.array([0], np.uint64), np.array([1 << 40], np.uint64)
    assert abs(ops.node_bytes(0, *span, 1) - 1024 * MIB) < 64 * MIB
    ops.cleanup()


def test_a_dry_run_on_frames_names_the_owner(child: Child, area: int) -> None:
    ops = PaddrOps()
    ops.dry_run = True
    ops.init()
    start, end = frame_ranges(child, area, SIZE)
    done = ops.apply_scheme(0, scheme("lru_deprio"), start, end, np.zeros(len(start), np.bool_))
    assert int(done.applied.sum()) >= SIZE * 0.95
    (plan,) = ops.actions.take_plans()
    assert plan.bytes == int(done.applied.sum())
    assert f"(pid {child.pid})" in plan.ranges[0].owner
    ops.cleanup()


def test_what_is_no_action_on_frames() -> None:
    ops = PaddrOps()
    with pytest.raises(RequestError, match="'willneed' is no action on physical memory; there are pageout"):
        ops.check_scheme(scheme("willneed"))
    ops.cleanup()


def test_this_guest_offers_everything() -> None:
    refused = {f.name: f.obstacle for f in (*probe.actions(), *probe.filters(), *probe.metrics()) if f.obstacle}
    assert set(refused) <= {"hugepage", "nohugepage"}, refused
