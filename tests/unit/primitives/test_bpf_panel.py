"""The page panel of a process on the real kernel: neither it nor the regions lose an access to each other."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.helpers.waiting import wait_until
from tests.unit.primitives.bpf_child import MIB, OBSTACLE, PAGE, Child, pages, started_child

from pydamon.analysis.panel import used_within
from pydamon.cli import main
from pydamon.core import adjust
from pydamon.core.panel import PAGE_SIZE, Look
from pydamon.core.regions import Regions
from pydamon.ops.base import BatchEnd
from pydamon.ops.fvaddr import FvaddrOps
from pydamon.ops.vaddr import VaddrOps
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.bpf_panel import inside
from pydamon.primitives.bpf_sampler import BpfSampler
from pydamon.records.reader import RecordReader
from pydamon.spec import Scheme

pytestmark = [
    pytest.mark.skipif(OBSTACLE is not None, reason=OBSTACLE or ""),
    pytest.mark.usefixtures("processes"),
]
N = 64
BOTH_WAYS = pytest.mark.parametrize("whole", [False, True], ids=["page by page", "whole samples"])


@pytest.fixture
def child() -> Iterator[Child]:
    yield from started_child()


class Paced:
    """Sleeps as a test says."""

    def __init__(self, sleep: Callable[[], bool]) -> None:
        self.sleep = sleep

    def over(self) -> bool:
        return False


class Watching:
    """An operations set on the child with an area ``a`` of N pages, each of them a region, and in the panel."""

    def __init__(self, child: Child, walk: PageTableWalk, *, whole: bool, kind: str = "") -> None:
        self.child = child
        at = child.do("add", "a", N * PAGE, *([kind] if kind else []))
        child.do("touch", "a", "all")
        child.do("add", "filler", N * PAGE)
        child.do("touch", "filler", "all")  # so that the others are on an LRU list
        self.ops = VaddrOps([child.process], lambda process: BpfPrimitive(process, walk))
        if whole:
            self.ops.sample_whole(BpfSampler(walk, seed=4711))
        self.ops.init()
        self.panel = pages(at, N)[::-1].copy()  # in whatever order
        self.at = at
        ranges = np.array([[at, at + N * PAGE]], np.uint64)
        self.regions: Regions = adjust.initial_regions(ranges, PAGE, PAGE)
        self.ops.look_at_panel(0, self.panel)

    def touch(self, which: set[int]) -> None:
        if which:
            self.child.do("touch", "a", *sorted(which))

    def look(self) -> tuple[set[int], set[int]]:
        """The numbers of the pages that were accessed, and of those about which that is unknown."""
        accessed, unknown = self.ops.look_at_panel(0, self.panel)
        number = ((self.panel - np.uint64(self.at)) // np.uint64(PAGE)).astype(int)
        return set(number[accessed].tolist()), set(number[unknown].tolist())

    def sample(self, n: int, sleep: Callable[[], bool]) -> None:
        found = self.ops.sampler.sample([0], [self.regions], [self.regions.counts], n, Paced(sleep))  # type: ignore[arg-type]
        assert found == (n, BatchEnd.DONE)


@pytest.fixture(params=[False, True], ids=["page by page", "whole samples"])
def watching(child: Child, walk: PageTableWalk, request: pytest.FixtureRequest) -> Iterator[Watching]:
    made = Watching(child, walk, whole=request.param)
    yield made
    made.ops.cleanup()


def test_a_look_tells_what_was_accessed_since_the_last_one(watching: Watching) -> None:
    for which in ({0, 8, 16, 24, 63}, set(), set(range(N)), {5}):
        watching.touch(which)
        assert watching.look() == (which, set())


def test_no_access_is_lost_to_the_other(watching: Watching) -> None:
    """All pages are in the panel, and each is a region: both have to see each access, whoever clears first."""
    rng = np.random.default_rng(7)
    since_look: set[int] = set()
    counted = np.zeros(N, int)
    nr_looks = 0

    def some() -> set[int]:
        return set(np.flatnonzero(rng.random(N) < 0.2).tolist())

    def sleep() -> bool:
        nonlocal nr_looks
        in_window: set[int] = set()
        for looks in rng.random(3) < 0.3:  # before, between and behind accesses, or not at all
            if looks:
                assert watching.look() == (since_look, set())
                since_look.clear()
                nr_looks += 1
            touched = some()
            watching.touch(touched)
            in_window.update(touched)
            since_look.update(touched)
        counted[list(in_window)] += 1
        return True

    for _ in range(4):
        watching.sample(15, sleep)
        between = some()
        watching.touch(between)  # for the panel only: no window is open
        since_look.update(between)
    assert nr_looks > 30
    assert watching.regions.counts.accessed.tolist() == counted.tolist()
    assert not watching.regions.counts.unknown.any()


def test_a_sleep_that_is_cut_short_counts_nothing(watching: Watching) -> None:
    def cut() -> bool:
        watching.touch({1, 2})
        assert watching.look() == ({1, 2}, set())
        return False

    found = watching.ops.sampler.sample([0], [watching.regions], [watching.regions.counts], 3, Paced(cut))  # type: ignore[arg-type]
    assert found == (0, BatchEnd.WOKEN)
    watching.sample(1, lambda: True)
    assert watching.regions.counts.accessed.sum() == 0


def test_what_a_clear_of_all_of_the_process_or_an_action_clears_is_noted(watching: Watching) -> None:
    primitive = watching.ops.primitives[0]
    assert isinstance(primitive, BpfPrimitive)
    watching.touch({3, 4})
    assert primitive.clearer._clear_whole()
    watching.touch({5})
    assert watching.look() == ({3, 4, 5}, set())
    watching.touch({6, 7})
    start = np.array([watching.at], np.uint64)
    watching.ops.apply_scheme(0, Scheme(action="cold"), start, start + np.uint64(N * PAGE), np.ones(1, np.bool_))
    assert watching.look() == ({6, 7}, set())
    assert watching.look() == (set(), set())


def test_pages_that_come_and_go(watching: Watching) -> None:
    watching.touch({1, 40})
    watching.panel = watching.panel[: N // 2].copy()  # pages 32 to 63
    assert watching.look() == ({40}, set())
    watching.touch({1, 41})
    watching.panel = pages(watching.at, N)
    assert watching.look() == ({41}, set())  # page 1 is new: its window begins now
    watching.touch({1})
    assert watching.look() == ({1}, set())
    watching.panel = watching.panel[:0]
    assert watching.look() == (set(), set())


@BOTH_WAYS
def test_a_page_whose_bit_cannot_be_cleared_is_unknown(child: Child, walk: PageTableWalk, whole: bool) -> None:
    made = Watching(child, walk, whole=whole, kind="shared")
    child.fork("a")
    child.do("touch", "a", "all")
    made.look()
    assert made.look() == (set(), set(range(N)))
    made.ops.cleanup()


@BOTH_WAYS
def test_another_program_is_another_memory_and_an_end_is_unknown(
    child: Child, walk: PageTableWalk, whole: bool
) -> None:
    made = Watching(child, walk, whole=whole)
    made.touch({1})
    child.do("again")
    child.rest()
    accessed, _ = made.look()
    assert accessed == set()
    child.tell("exit")
    wait_until(lambda: not child.process.alive())
    assert made.look() == (set(), set(range(N)))
    made.ops.cleanup()


def test_a_huge_page_is_one(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "h", 2 * MIB, "huge")
    child.do("touch", "h", "all")
    made = Watching(child, walk, whole=True)
    panel = pages(at, 4, 100)
    made.ops.look_at_panel(0, panel)
    if made.ops.primitives[0].walk.walk(child.pid, panel)[1].max() < 3:  # type: ignore[attr-defined]
        made.ops.cleanup()
        pytest.skip("no huge page was given")
    child.do("touch", "h", 7)
    accessed, unknown = made.ops.look_at_panel(0, panel)
    assert accessed.all()
    assert not unknown.any()
    assert not made.ops.look_at_panel(0, panel)[0].any()
    made.ops.cleanup()


def test_ranges_in_any_order() -> None:
    starts, lengths = np.array([50, 10], np.uint64), np.array([10, 5], np.uint64)
    asked = np.array([9, 10, 14, 15, 49, 50, 59, 60], np.uint64)
    assert inside(asked, starts, lengths).tolist() == [False, True, True, False, False, True, True, False]
    assert not inside(asked, starts[:0], lengths[:0]).any()


ONE_IN_EIGHT = """
import mmap, time
area = mmap.mmap(-1, 64 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
area.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, len(area), 4096):
    area[at] = 1
print(flush=True)
while True:
    for at in range(0, len(area), 8 * 4096):
        area[at]
    time.sleep(0.2)
"""


def test_one_page_in_eight_is_an_eighth(tmp_path: Path) -> None:
    path = tmp_path / "r"
    with subprocess.Popen([sys.executable, "-c", ONE_IN_EIGHT], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            assert main(["record", str(child.pid), "--primitive", "bpf", "--duration", "10s", "-o", str(path)]) == 0
        finally:
            child.kill()
    with RecordReader(str(path)) as reader:
        rows = list(reader.table_rows("panel"))
    assert len(rows) >= 6
    looks = [
        Look(row["time_ns"], row["target"], row["resident_bytes"], np.array(row["idle"]), np.array(row["unseen"]),
             np.array(row["ended"]), row["unknown"])
        for row in rows
    ]  # fmt: skip
    assert max(look.resident_bytes for look in looks) > 64 * MIB
    assert looks[-1].unknown < 0.1 * looks[-1].pages
    estimate = used_within(looks[3:], 2)
    assert estimate is not None
    # The interpreter's own pages come on top. Twice the error: chance is beyond it once in ten thousand tries.
    assert estimate.low_bytes - estimate.half_width_bytes < 11 * MIB
    assert estimate.high_bytes + estimate.half_width_bytes > 8 * MIB
    assert estimate.half_width_bytes < 0.035 * 80 * MIB
    assert PAGE_SIZE == PAGE


def test_of_fixed_ranges_the_panel_is_of_those(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", N * PAGE)
    child.do("touch", "a", *range(8, 24))
    ranges = np.array([[at + 4 * PAGE, at + 12 * PAGE]], np.uint64)
    ops = FvaddrOps([child.process], lambda process: BpfPrimitive(process, walk), ranges=[ranges])
    ops.init()

    def resident() -> bool:
        found = ops.resident(0)
        assert found is not None
        runs, seen = found
        return bool(seen.tolist() == ranges.tolist() and runs.tolist() == [[at + 8 * PAGE, at + 12 * PAGE]])

    wait_until(resident)
    ops.cleanup()
