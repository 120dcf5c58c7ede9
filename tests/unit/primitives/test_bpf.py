"""The bpf primitive on real processes, started here, that touch known pages when they are told to."""

from __future__ import annotations

import dataclasses
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.primitives import bpf, bpf_program, bpf_syscall
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN, Primitive
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.bpf_program import LEVEL_2M, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN
from pydamon.primitives.frames import FrameInfo, is_large
from pydamon.primitives.process import Process

PAGE = 4096
MIB = 1 << 20
ALL_CPUS = os.sched_getaffinity(0)


def _obstacle() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    try:
        bpf.probe()
    except MachineError as error:
        return str(error)
    return None


OBSTACLE = _obstacle()
pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=f"bpf primitive: {OBSTACLE}")

CHILD = r"""
import ctypes, mmap, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.mlock.argtypes = libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
areas = {}

def touch(name, pages, write=True):
    area, skip, _, size = areas[name]
    for page in range(size // 4096) if pages == ["all"] else map(int, pages):
        if write:
            area[skip + page * 4096] = 1
        else:
            area[skip + page * 4096]

def add(name, size, kind=""):
    flags = mmap.MAP_SHARED if kind == "shared" else mmap.MAP_PRIVATE
    area = mmap.mmap(-1, int(size) + (2 << 20), flags | mmap.MAP_ANONYMOUS)
    at = ctypes.addressof(ctypes.c_char.from_buffer(area))
    skip = -at % (2 << 20)
    areas[name] = area, skip, at + skip, int(size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        area.madvise(mmap.MADV_HUGEPAGE if kind == "huge" else mmap.MADV_NOHUGEPAGE)
    if kind == "locked":
        assert libc.mlock(at + skip, int(size)) == 0
    return at + skip

def fork(name):
    pid = os.fork()
    if not pid:
        touch(name, ["all"], write=False)
        os.write(1, b"%d\n" % os.getpid())
        time.sleep(1000)

def protect(name, page, access):
    assert libc.mprotect(areas[name][2] + int(page) * 4096, 4096, int(access)) == 0

def unmap(name, page, count):
    assert libc.munmap(areas[name][2] + int(page) * 4096, int(count) * 4096) == 0

def spin(name, pages):
    print("ok", flush=True)
    area, skip, _, _ = areas[name]
    hot = [skip + page * 4096 for page in range(int(pages))]
    while True:
        for at in hot:
            area[at]

def storm():
    print("ok", flush=True)
    while True:
        pid = os.fork()
        if not pid:
            os._exit(0)
        os.waitpid(pid, 0)

def again():
    print("ok", flush=True)
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], sys.argv[1]])

for line in sys.stdin:
    verb, *words = line.split()
    if verb == "touch":
        print(touch(words[0], words[1:]) or "ok", flush=True)
    elif verb == "load":
        print(touch(words[0], words[1:], False) or "ok", flush=True)
    elif verb == "fork":
        fork(*words)
    elif verb == "exit":
        break
    else:
        print(globals()[verb](*words) or "ok", flush=True)
"""


class Child:
    """A process that does what it is told, one command at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", CHILD, CHILD]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = Process(self._popen.pid)
        self.pid = self._popen.pid
        self.forked: list[int] = []

    def do(self, *words: object) -> int:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(" ".join(map(str, words)) + "\n")
        self._popen.stdin.flush()
        answer = self._popen.stdout.readline().strip()
        assert answer, f"the child died of {words}"
        return int(answer) if answer.isdigit() else 0

    def tell(self, *words: object) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(" ".join(map(str, words)) + "\n")
        self._popen.stdin.flush()

    def fork(self, name: str) -> int:
        """A child of the child that has read all pages of that area; returns its pid."""
        self.forked.append(self.do("fork", name))
        return self.forked[-1]

    def end(self) -> None:
        for pid in self.forked:
            os.kill(pid, 9)
        self.forked.clear()
        self._popen.kill()
        self._popen.communicate()


@pytest.fixture(scope="module")
def walk() -> Iterator[PageTableWalk]:
    walk = PageTableWalk()
    yield walk
    walk.close()


def use_cpus(child: Child | None, cpus: set[int]) -> None:
    for pid in (0, *((child.pid,) if child else ())):
        os.sched_setaffinity(pid, cpus)


@pytest.fixture
def child() -> Iterator[Child]:
    """A child on the same CPU as this process.

    Pages that were faulted in last on another CPU are not on an LRU list yet, and MADV_COLD passes them over; those of
    its own CPU it puts on the list first.
    """
    cpus = os.sched_getaffinity(0)
    use_cpus(None, {min(cpus)})
    try:
        child = Child()
        yield child
        child.end()
        child.process.close()
    finally:
        use_cpus(None, cpus)


@contextmanager
def watching(child: Child, walk: PageTableWalk, *, whole: bool | None = None) -> Iterator[BpfPrimitive]:
    """A primitive on the child; ``whole`` forces the way of clearing, and forbids clear_refs for stuck pages."""
    primitive = BpfPrimitive(child.process, walk)
    if whole is not None:
        primitive._clearer._whole_is_cheaper = lambda ranges: whole  # type: ignore[method-assign]
    if whole is False:
        primitive._clearer.clear_stuck = lambda stuck, total: False  # type: ignore[method-assign]
    try:
        yield primitive
    finally:
        primitive.close()


def pages(start: int, count: int, step: int = 1) -> NDArray[np.uint64]:
    return np.uint64(start) + np.arange(count, dtype=np.uint64) * np.uint64(step * PAGE)


def kib_of(child: Child, address: int, key: str) -> int:
    """A field of the mapping at ``address`` in the child's smaps."""
    inside = False
    for line in Path(f"/proc/{child.pid}/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(text, 16) for text in first.split("-"))
            inside = low <= address < high
        elif inside and first == f"{key}:":
            return int(line.split()[1])
    raise AssertionError(f"no {key} for {address:#x}")


def eventually(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether the condition comes true in that time. Others may keep this machine's processors busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def test_it_is_a_primitive(child: Child, walk: PageTableWalk) -> None:
    with watching(child, walk) as primitive:
        contract: Primitive = primitive
        assert contract.name == "bpf"
        assert contract.check().tolist() == []


def test_the_walk_agrees_with_pagemap(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "a", 8 * MIB)
    child.do("touch", "a", *range(0, 2048, 3))
    entries, levels = walk.walk(child.pid, pages(start, 2048))
    assert (levels == np.where(np.arange(2048) % 3 == 0, LEVEL_4K, LEVEL_ABSENT)).all()
    with open(f"/proc/{child.pid}/pagemap", "rb") as file:
        shown = np.frombuffer(os.pread(file.fileno(), 8 * 2048, start // PAGE * 8), np.uint64)
    present = levels == LEVEL_4K
    assert np.array_equal(walk.frames(entries[present]), shown[present] & np.uint64((1 << 55) - 1))
    assert not entries[~present].any()


@pytest.mark.parametrize("count", [0, 1, 1023, 1024, 1025, 4000])
def test_more_addresses_than_a_run_takes(child: Child, walk: PageTableWalk, count: int) -> None:
    start = child.do("add", "a", 16 * MIB)
    child.do("touch", "a", *range(0, 4096, 2))
    _, levels = walk.walk(child.pid, pages(start, count))
    assert (levels == np.where(np.arange(count) % 2 == 0, LEVEL_4K, LEVEL_ABSENT)).all()


def test_no_such_process_and_kernel_threads_are_unknown(walk: PageTableWalk) -> None:
    for pid in (2**22 + 1, 2):  # above the greatest pid; kthreadd
        entries, levels = walk.walk(pid, pages(0x400000, 3))
        assert entries.tolist() == [0, 0, 0]
        assert levels.tolist() == [LEVEL_UNKNOWN] * 3


def test_kernel_addresses_are_unknown(child: Child, walk: PageTableWalk) -> None:
    addresses = np.array([walk.direct_map_base, (1 << 64) - PAGE, 1 << 47, 0], np.uint64)
    assert walk.walk(child.pid, addresses)[1].tolist() == [LEVEL_UNKNOWN] * 3 + [LEVEL_ABSENT]


@pytest.mark.parametrize("rcu", [True, False])
@pytest.mark.parametrize("namespace", [True, False])
def test_the_verifier_takes_every_form_of_the_program(rcu: bool, namespace: bool) -> None:
    facts = bpf._kernel_facts()
    if not rcu:
        facts = dataclasses.replace(facts, rcu=None)
    if not namespace:
        initial = bpf.Btf.of_kernel().find(bpf_program.KIND_FUNC, "bpf_task_from_pid")
        assert initial is not None
        facts = dataclasses.replace(facts, task_from_pid=initial)
    map_fd = bpf_syscall.create_map(bpf_program.VALUE_SIZE)
    try:
        os.close(bpf_syscall.load_program(bpf_program.page_table_walk(facts, map_fd)))
    finally:
        os.close(map_fd)


def test_a_rejected_program_gives_the_verifiers_reason_in_one_line() -> None:
    with pytest.raises(MachineError, match=r"^bpf: the kernel refused to load the program: .*R0 !read_ok$") as caught:
        bpf_syscall.load_program(bytes.fromhex("9500000000000000"))  # exit, without a result
    assert "\n" not in str(caught.value)


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
        assert not (entries & np.uint64(bpf_program.PRESENT)).any()
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
        primitive._clearer._whole_is_cheaper = lambda ranges: False  # type: ignore[method-assign]
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
        assert eventually(lambda: bool(primitive.prepare(watched).all()))
    child.fork("s")
    with watching(child, walk) as primitive:
        primitive._clearer._whole_is_cheaper = lambda ranges: False  # type: ignore[method-assign]
        primitive._clearer.stuck_share = 1e-9
        child.do("touch", "s", "all")
        assert primitive.prepare(watched).all()
        child.do("touch", "s", 9)
        assert np.flatnonzero(primitive.check()).tolist() == [9]
        child.do("touch", "s", "all")
        assert not primitive.prepare(watched).any()  # not again so soon


def test_shared_libraries_do_not_look_hot_for_ever(child: Child, walk: PageTableWalk) -> None:
    child.do("add", "a", PAGE)  # it answers: it has started
    mappings = [m for m in child.process.mappings() if ".so" in m.name and m.perms.startswith("r")]
    watched = np.concatenate([pages(m.start, (m.end - m.start) // PAGE) for m in mappings])
    with watching(child, walk) as primitive:
        primitive.prepare(watched)
        usable = primitive.prepare(watched)
        answers = primitive.check()  # the child has been waiting for a command all the time
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

        assert eventually(round_trip)


def test_exec_makes_all_unknown(child: Child, walk: PageTableWalk) -> None:
    child.do("add", "a", PAGE)  # it answers: it has started
    libraries = [m.start for m in child.process.mappings() if m.perms.startswith("r")]
    watched = np.array(libraries, np.uint64)
    with watching(child, walk) as primitive:
        assert primitive.prepare(watched).any()
        child.do("again")
        start = child.do("add", "a", MIB)  # it answers: the new program runs
        assert (primitive.check() == UNKNOWN).all()
        child.do("touch", "a", "all")
        primitive.update()
        assert primitive.prepare(pages(start, 10)).all()
        child.do("touch", "a", 4)
        assert np.flatnonzero(primitive.check()).tolist() == [4]


def test_a_process_that_ended_is_unknown(child: Child, walk: PageTableWalk) -> None:
    start = child.do("add", "a", MIB)
    child.do("touch", "a", "all")
    with watching(child, walk) as primitive:
        assert primitive.prepare(pages(start, 256)).all()
        child.tell("exit")
        assert eventually(lambda: not child.process.alive())
        assert (primitive.check() == UNKNOWN).all()  # a zombie
        child.end()
        assert not primitive.prepare(pages(start, 256)).any()
        primitive.update()
        assert (primitive.check() == UNKNOWN).all()


@pytest.mark.parametrize("verb", ["again", "exit", "storm"])
def test_walks_while_the_address_space_comes_and_goes(child: Child, walk: PageTableWalk, verb: str) -> None:
    """Every answer is either of the old address space or unknown: what was never touched is never accessed."""
    start = child.do("add", "a", 64 * MIB)
    child.do("touch", "a", *range(0, 16384, 2))
    watched = pages(start, 4096, 4)
    walks = 0
    with watching(child, walk, whole=False) as primitive:
        assert primitive.prepare(watched).all()
        use_cpus(child, ALL_CPUS)
        child.tell(verb)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            assert not (primitive.check() == ACCESSED).any()
            walks += 1
        if verb == "storm":
            primitive.prepare(watched)
            assert (primitive.check() != ACCESSED).all()
        else:
            assert (primitive.check() == UNKNOWN).all()
    assert walks > 10


def test_processes_that_start_and_end_all_the_time(walk: PageTableWalk) -> None:
    """Walks of processes in every stage of starting and ending give answers or unknown, and no error."""
    mine = np.frombuffer(bytearray(PAGE), np.uint8)
    watched = pages(mine.ctypes.data & -PAGE, 64)
    for _ in range(50):
        popen = subprocess.Popen(["/bin/true"])
        for _ in range(20):
            levels = walk.walk(popen.pid, watched)[1]
            assert (levels <= LEVEL_2M).all()
        popen.wait()
        assert (walk.walk(popen.pid, watched)[1] == LEVEL_UNKNOWN).all()


def test_one_walk_serves_several_threads_and_processes(walk: PageTableWalk) -> None:
    children = [Child() for _ in range(3)]
    wrong: list[str] = []

    def ask(child: Child, touched: int) -> None:
        start = child.do("add", "a", 8 * MIB)
        child.do("touch", "a", *range(touched))
        for _ in range(100):
            levels = walk.walk(child.pid, pages(start, 2048))[1]
            if np.count_nonzero(levels == LEVEL_4K) != touched:
                wrong.append(f"{np.count_nonzero(levels == LEVEL_4K)} instead of {touched}")

    threads = [threading.Thread(target=ask, args=(child, 100 * n + 7)) for n, child in enumerate(children)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for child in children:
        child.end()
        child.process.close()
    assert wrong == []


def test_nothing_is_left_open(child: Child) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    primitive = BpfPrimitive(child.process)
    primitive.prepare(pages(0x1000, 4))
    assert descriptors() > before
    primitive.close()
    del primitive
    assert descriptors() == before
    bpf.probe()
    assert descriptors() == before


def run_limited(*dropped: str) -> str:
    """What `probe` says in a process without these capabilities."""
    code = "from pydamon.primitives.bpf import probe\ntry: probe()\nexcept Exception as e: print(type(e).__name__, e)"
    bounding = "--bounding-set=" + ",".join(f"-{name}" for name in dropped)
    command = ["setpriv", bounding, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("dropped", "message"),
    [
        (
            ["bpf", "sys_admin"],
            "MachineError bpf: no permission to create a map; run as root, or with CAP_BPF and CAP_P",
        ),
        (
            ["perfmon", "sys_admin"],
            "MachineError bpf: no permission to load the program, which reads kernel memory; run",
        ),
        (["sys_admin"], "MachineError bpf: no permission to see frame numbers in /proc/self/pagemap; run as root"),
    ],
)
def test_what_is_missing_is_said_in_one_line(dropped: list[str], message: str) -> None:
    if not any((Path(folder) / "setpriv").exists() for folder in os.get_exec_path()):
        pytest.skip("needs setpriv of util-linux")
    said = run_limited(*dropped)
    assert said.startswith(message)
    assert "\n" not in said


def test_a_machine_with_five_levels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "_first_cpu", lambda: "flags\t\t: fpu la57\n")
    with pytest.raises(MachineError, match="la57"):
        bpf.probe()


def test_a_wrong_look_at_ones_own_pages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "_own_frames", lambda start, count: np.arange(count, dtype=np.uint64))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MachineError, match="does not find the frames"):
        bpf.probe()
    assert len(os.listdir("/proc/self/fd")) == before


def test_physical_memory_of_this_machine() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    assert total < bpf._end_of_memory() <= 1 << bpf._physical_address_bits(bpf._first_cpu())
