"""The bpf primitive on every kind of memory: ordinary, huge, locked, shared, hot (real processes, touched as told)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import numpy as np
import pytest
from tests.helpers.waiting import wait_until
from tests.unit.primitives.bpf_child import (
    ALL_CPUS,
    MIB,
    OBSTACLE,
    PAGE,
    Child,
    kib_of,
    pages,
    started_child,
    use_cpus,
    watching,
)

from pydamon.linux.clear_refs import tracks_soft_dirty
from pydamon.linux.frames import FrameInfo, is_large
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN
from pydamon.primitives.bpf import PageTableWalk
from pydamon.primitives.page_tables import LEVEL_2M, LEVEL_4K

pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=f"bpf primitive: {OBSTACLE}")


@pytest.fixture
def child(processes: None) -> Iterator[Child]:
    yield from started_child()


@pytest.mark.parametrize("whole", [False, True])
def test_touched_pages_and_no_others_are_accessed(child: Child, walk: PageTableWalk, whole: bool) -> None:
    start = child.do("add", "a", 8 * MIB)
    other = child.do("add", "b", 2 * MIB)
    child.do("touch", "a", *range(1500))
    child.do("touch", "b", "all")
    watched = np.concatenate((pages(start, 1500), pages(other, 500)))
    with watching(child, walk, whole=whole) as primitive:
        assert primitive.prepare(watched).all()
        assert not primitive.check().any()
        child.do("touch", "a", *range(0, 1500, 7))
        child.do("load", "b", 3, 499)
        expected = np.zeros(2000, np.uint8)
        expected[[*range(0, 1500, 7), 1503, 1999]] = ACCESSED
        assert np.array_equal(primitive.check(), expected)
        assert np.array_equal(primitive.check(), expected)  # asking does not clear
        assert primitive.prepare(watched).all()
        assert not primitive.check().any()
        cost = primitive.cost
        assert cost.checks == 8000
        assert cost.clears == 2 if whole else cost.clears == 2000 + 217
        assert min(cost.check_ns, cost.clear_ns, cost.disturb_ns) > 0


def test_pages_that_are_not_there(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "a", 2 * MIB)
    child.do("touch", "a", 1, 2)
    with watching(child, walk) as primitive:
        assert primitive.prepare(pages(start, 6)).all()
        child.do("touch", "a", 2, 4)
        child.do("unmap", "a", 1, 1)
        # Page 1 went away, and with it what was known of it; 4 came.
        assert primitive.check().tolist() == [0, UNKNOWN, ACCESSED, 0, ACCESSED, 0]


def test_pages_without_access_rights_keep_their_bit(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "a", 2 * MIB)
    child.do("touch", "a", 0, 1)
    with watching(child, walk, whole=False) as primitive:
        assert primitive.prepare(pages(start, 2)).all()
        child.do("touch", "a", 0)
        child.do("protect", "a", 0, 0)
        child.do("protect", "a", 1, 0)
        entries, levels = walk.walk(child.pid, pages(start, 2))
        assert levels.tolist() == [LEVEL_4K] * 2
        assert not (entries & np.uint64(walk.tables.present)).any()
        assert (walk.frames(entries) < np.uint64(1 << 36)).all()
        assert primitive.check().tolist() == [ACCESSED, NOT_ACCESSED]


def test_pages_may_be_replaced(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "a", 2 * MIB)
    child.do("touch", "a", "all")
    with watching(child, walk, whole=False) as primitive:
        primitive.prepare(pages(start, 10))
        child.do("touch", "a", 0, 1, 5, 105)
        assert primitive.replace(np.array([5, 1]), pages(start + 100 * PAGE, 2)).tolist() == [True, True]
        child.do("touch", "a", 101, 7)
        expected = [ACCESSED, ACCESSED, 0, 0, 0, 0, 0, ACCESSED, 0, 0]
        assert primitive.check().tolist() == expected


@pytest.mark.parametrize("whole", [False, True])
def test_huge_pages_answer_as_one_and_stay_whole(child: Child, walk: PageTableWalk, whole: bool) -> None:
    start = child.do("add", "h", 8 * MIB, "huge")
    child.do("touch", "h", "all")
    if kib_of(child, start, "AnonHugePages") != 8192:
        pytest.skip("the kernel gave no huge pages to madvise(MADV_HUGEPAGE)")
    watched = pages(start + 77 * PAGE, 8, 256)  # two in each huge page
    with watching(child, walk, whole=whole) as primitive:
        assert (walk.walk(child.pid, watched)[1] == LEVEL_2M).all()
        for touched in range(4):
            assert primitive.prepare(watched).all()
            child.do("touch", "h", touched * 512 + 500)
            assert np.flatnonzero(primitive.check()).tolist() == [2 * touched, 2 * touched + 1]
    assert kib_of(child, start, "AnonHugePages") == 8192


def test_folios_mapped_by_ptes_stay_whole(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "h", 8 * MIB, "huge")
    child.do("touch", "h", "all")
    if kib_of(child, start, "AnonHugePages") != 8192:
        pytest.skip("the kernel gave no huge pages to madvise(MADV_HUGEPAGE)")
    child.do("protect", "h", 7, 1)
    child.do("protect", "h", 7, 3)  # the first is one mapping again, but mapped page by page now
    child.do("protect", "h", 512 + 7, 1)  # the second is cut by a mapping's end
    child.do("unmap", "h", 1024 + 100, 1)  # the third is mapped in part
    with watching(child, walk, whole=False) as primitive:
        usable = primitive.prepare(pages(start + 9 * PAGE, 3, 512))
        assert usable.tolist() == [True, False, False]
        child.do("touch", "h", 300)
        assert primitive.check().tolist() == [NOT_ACCESSED, UNKNOWN, UNKNOWN]
        entries, levels = walk.walk(child.pid, pages(start, 1536))
        info = FrameInfo()
        assert is_large(info.flags(walk.frames(entries[levels == LEVEL_4K]))).all()
        info.close()
    with watching(child, walk) as primitive:
        assert primitive.prepare(pages(start + 9 * PAGE, 3, 512)).all()  # with clear_refs


def test_locked_memory_needs_clear_refs(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "a", 2 * MIB)
    locked = child.do("add", "l", 2 * MIB, "locked")
    child.do("touch", "a", *range(200))
    watched = np.concatenate((pages(start, 50), pages(locked, 100), pages(start + 100 * PAGE, 50)))
    with watching(child, walk, whole=False) as primitive:
        for _ in range(2):
            child.do("touch", "a", *range(200))
            usable = primitive.prepare(watched)
            assert usable.tolist() == [True] * 50 + [False] * 100 + [True] * 50
            assert (primitive.check() == np.where(usable, NOT_ACCESSED, UNKNOWN)).all()
    with watching(child, walk) as primitive:
        primitive.clearer._whole_is_cheaper = lambda ranges: False  # type: ignore[method-assign]
        assert primitive.prepare(watched).all()
        child.do("touch", "l", 3)
        assert np.flatnonzero(primitive.check()).tolist() == [53]


def test_memory_that_several_processes_map_needs_clear_refs(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "s", MIB, "shared")
    child.do("touch", "s", "all")
    child.fork("s")
    watched = pages(start, 256)
    with watching(child, walk, whole=False) as primitive:
        assert not primitive.prepare(watched).any()
        assert (primitive.check() == UNKNOWN).all()
        os.kill(child.forked.pop(), 9)
        # Once the other is gone, its pages are this process's alone.
        wait_until(lambda: bool(primitive.prepare(watched).all()))
    child.fork("s")
    with watching(child, walk) as primitive:
        primitive.clearer._whole_is_cheaper = lambda ranges: False  # type: ignore[method-assign]
        primitive.clearer.stuck_share = 1e-9
        child.do("touch", "s", "all")
        assert primitive.prepare(watched).all()
        child.do("touch", "s", 9)
        assert np.flatnonzero(primitive.check()).tolist() == [9]
        child.do("touch", "s", "all")
        assert not primitive.prepare(watched).any()  # not again so soon


def test_shared_libraries_do_not_look_hot_for_ever(child: Child, walk: PageTableWalk) -> None:
    child.do("add", "a", PAGE)  # it answers: it has started
    child.rest()
    mappings = [m for m in child.process.mappings() if ".so" in m.name and m.perms.startswith("r")]
    watched = np.concatenate([pages(m.start, (m.end - m.start) // PAGE) for m in mappings])
    with watching(child, walk) as primitive:
        primitive.prepare(watched)
        usable = primitive.prepare(watched)
        answers = primitive.check()  # the child has been asleep all the time
        assert (answers[~usable] == UNKNOWN).all()
        assert np.count_nonzero(answers == ACCESSED) <= 0.02 * len(watched)


def test_the_zero_page_cannot_be_watched(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "z", MIB)
    child.do("load", "z", "all")
    with watching(child, walk) as primitive:
        assert not primitive.prepare(pages(start, 256)).any()
        assert (primitive.check() == UNKNOWN).all()


def test_pages_that_no_lru_list_has_yet_are_not_taken_for_accessed(child: Child, walk: PageTableWalk) -> None:
    if len(ALL_CPUS) < 2:
        pytest.skip("needs two processors")
    os.sched_setaffinity(child.pid, {max(ALL_CPUS)})
    start = child.do("add", "a", 2 * MIB)
    child.do("touch", "a", "all")
    with watching(child, walk, whole=False) as primitive:
        usable = primitive.prepare(pages(start, 512))
        assert np.count_nonzero(usable) > 512 - 64
        assert (primitive.check() == np.where(usable, NOT_ACCESSED, UNKNOWN)).all()


@pytest.mark.parametrize("whole", [False, True])
def test_pages_in_constant_use_are_accessed_not_stuck(child: Child, walk: PageTableWalk, whole: bool) -> None:
    if whole and tracks_soft_dirty():
        pytest.skip("with CONFIG_MEM_SOFT_DIRTY, clear_refs hides accesses to pages that stay in the TLB")
    start = child.do("add", "a", 2 * MIB)
    child.do("touch", "a", "all")
    with watching(child, walk, whole=whole) as primitive:
        assert primitive.prepare(pages(start, 128)).all()
        use_cpus(child, ALL_CPUS)
        child.do("spin", "a", 64)

        def round_trip() -> bool:
            assert primitive.prepare(pages(start, 128)).all()
            time.sleep(0.05)
            answers = primitive.check()
            assert not answers[64:].any()
            return bool((answers[:64] == ACCESSED).all())

        wait_until(round_trip)
