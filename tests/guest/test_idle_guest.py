"""Idle page tracking on a real kernel: hot and cold pages of a process are told apart, also in huge pages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tests.helpers.waiting import wait_until
from tests.unit.primitives.bpf_child import MIB, PAGE, Child, kib_of, pages, started_child

from pydamon.errors import MachineError
from pydamon.linux.idle_bitmap import FrameWatch
from pydamon.linux.pagemap import Pagemap, frames_of
from pydamon.ops.fvaddr import FvaddrOps
from pydamon.ops.sampling import PageSampler
from pydamon.primitives import idle
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN
from pydamon.primitives.bpf import PageTableWalk
from pydamon.primitives.idle import IdlePrimitive
from pydamon.primitives.struct_pages import StructPages

pytestmark = pytest.mark.guest

Open = Callable[[Child], IdlePrimitive]


@pytest.fixture
def child() -> Iterator[Child]:
    # On one CPU with us: switching between the two drops cached translations, which idle marking does not.
    yield from started_child()


@pytest.fixture(scope="module")
def walk() -> Iterator[PageTableWalk]:
    opened = PageTableWalk()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def struct_pages(walk: PageTableWalk) -> Iterator[StructPages | None]:
    try:
        opened = StructPages(walk)
    except MachineError:  # a kernel without SPARSEMEM_VMEMMAP
        yield None
        return
    yield opened
    opened.close()


@pytest.fixture(params=["pagemap", "walk", "pages", "tables", "tables and pages"])
def primitive(
    request: pytest.FixtureRequest, child: Child, walk: PageTableWalk, struct_pages: StructPages | None
) -> Iterator[IdlePrimitive]:
    if "pages" in request.param and struct_pages is None:
        pytest.skip("this kernel's struct pages are not in one array")
    watch = FrameWatch(pages=struct_pages if "pages" in request.param else None)
    opened = IdlePrimitive(
        child.process, None if request.param == "pagemap" else walk, watch=watch, tables="tables" in request.param
    )
    yield opened
    opened.close()
    watch.close()


def test_probe_finds_it() -> None:
    idle.probe()


def test_hot_and_cold_pages(child: Child, primitive: IdlePrimitive) -> None:
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    every = pages(at, 256)
    hot = list(range(3, 200, 7))
    for _ in range(3):
        usable = primitive.prepare(every)
        # Only those that were faulted in last may not be on an LRU list yet.
        assert usable.sum() >= 256 - 40
        child.do("load", "a", *hot)
        answers = primitive.check()
        assert (answers[~usable] == UNKNOWN).all()
        expected = np.full(256, NOT_ACCESSED)
        expected[hot] = ACCESSED
        wrong = np.flatnonzero(usable & (answers != expected))
        assert len(wrong) <= 1, (wrong.tolist(), answers[wrong].tolist())
    assert primitive.trouble is None


def test_memory_shared_with_a_child_of_its_own(child: Child, primitive: IdlePrimitive) -> None:
    """Its pages are mapped twice: their entries alone do not tell."""
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    child.fork("a")
    hot = list(range(3, 200, 7))
    usable = primitive.prepare(pages(at, 256))
    child.do("load", "a", *hot)
    answers = primitive.check()
    expected = np.full(256, NOT_ACCESSED)
    expected[hot] = ACCESSED
    assert usable.sum() >= 256 - 40
    assert np.count_nonzero(usable & (answers != expected)) <= 1


def test_pages_that_come_go_and_move(child: Child, primitive: IdlePrimitive) -> None:
    at = child.do("add", "a", MIB)
    child.do("touch", "a", *range(100))
    usable = primitive.prepare(pages(at, 256))
    assert usable[100:].all()  # absent pages
    child.do("touch", "a", *range(150, 160))
    child.do("unmap", "a", 20, 10)
    answers = primitive.check()
    assert (answers[150:160] == ACCESSED).all()
    assert (answers[160:] == NOT_ACCESSED).all()
    assert (answers[20:30] == UNKNOWN).all()


def test_a_huge_page_answers_as_a_whole(child: Child, primitive: IdlePrimitive) -> None:
    at = child.do("add", "h", 8 * MIB, "huge")
    child.do("touch", "h", "all")
    if kib_of(child, at, "AnonHugePages") < 8 * 1024:
        pytest.skip("the kernel gave no huge pages")
    inside = pages(at, 8 * MIB // PAGE // 128, 128)  # four samples in each of four huge pages
    assert primitive.prepare(inside).all()
    child.do("load", "h", 512 + 77, 3 * 512 + 511)
    assert primitive.check().tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
    table = Pagemap(child.pid)
    frames = frames_of(table.entries(inside)[0])
    table.close()
    watch = FrameWatch()
    heads, listed = watch.locate(frames)
    watch.close()
    assert (heads == frames & ~np.uint64(511)).all()
    assert listed.all()


def test_an_exec_says_nothing(child: Child, primitive: IdlePrimitive) -> None:
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    primitive.prepare(pages(at, 100))
    child.do("again")
    child.do("add", "z", PAGE)  # the new program has answered
    answers = primitive.check()
    assert (answers == UNKNOWN).all()
    primitive.update()
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    usable = primitive.prepare(pages(at, 100))
    child.do("load", "a", *range(50))
    answers = primitive.check()
    assert (answers[:50][usable[:50]] == ACCESSED).mean() > 0.9
    assert (answers[50:][usable[50:]] == ACCESSED).mean() < 0.1


def test_a_process_that_ended(child: Child, primitive: IdlePrimitive) -> None:
    at = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    primitive.prepare(pages(at, 10))
    child.tell("exit")
    wait_until(lambda: not child.process.alive())
    assert (primitive.check() == UNKNOWN).all()
    primitive.update()
    assert not primitive.prepare(pages(at, 10)).any()


def test_fixed_ranges_of_a_process(child: Child, walk: PageTableWalk) -> None:
    at = child.do("add", "a", 2 * MIB)
    child.do("touch", "a", "all")
    child.do("add", "b", MIB)
    given = np.array([(at, at + MIB), (at + MIB, at + 2 * MIB)], np.uint64)
    ops = FvaddrOps([child.process], lambda process: IdlePrimitive(process, walk), ranges=[given])
    assert ops.init()[0].tolist() == [[at, at + 2 * MIB]]
    accessed = np.zeros(2, int)
    assert isinstance(ops.sampler, PageSampler)
    for _ in range(30):
        ops.sampler.prepare_access_checks(0, given[:, 0], given[:, 1])
        child.do("load", "a", *range(256))
        accessed += ops.sampler.check_accesses(0) == ACCESSED
        assert ops.update() == [None]
    assert accessed[0] > 25
    assert accessed[1] < 5
    for primitive in ops.primitives:
        primitive.close()


def test_what_a_page_costs(
    child: Child,
    walk: PageTableWalk,
    struct_pages: StructPages | None,
    record_property: Callable[[str, object], None],
) -> None:
    at = child.do("add", "a", 64 * MIB)
    child.do("touch", "a", "all")
    watch = FrameWatch(pages=struct_pages)
    some = pages(at, 1000, 16)
    for name, opened in (
        ("idle by pagemap", IdlePrimitive(child.process)),
        ("idle by walk", IdlePrimitive(child.process, walk)),
        ("idle by struct pages", IdlePrimitive(child.process, walk, watch=watch)),
        ("bpf+idle", IdlePrimitive(child.process, walk, tables=True)),
    ):
        opened.prepare(some)
        opened.check()
        before = time.process_time_ns()
        for _ in range(10):
            opened.prepare(some)
            opened.check()
        spent = (time.process_time_ns() - before) / 10_000 / 1000
        record_property(name, f"{spent:.2f} µs")
        print(f"\n{name}: {spent:.2f} µs a page, prepare and check, emulated")
        opened.close()
    watch.close()
    fd = os.open("/proc/self/pagemap", os.O_RDONLY)
    before = time.process_time_ns()
    for _ in range(10_000):
        os.pread(fd, 8, 0)
    print(f"for comparison, a pread of pagemap: {(time.process_time_ns() - before) / 1e7:.2f} µs")
    os.close(fd)
