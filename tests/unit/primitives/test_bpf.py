"""The page-table walk and the bpf primitive on real processes: what they find, and what they do when those end."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.helpers.waiting import GENEROUS_S, wait_until
from tests.unit.primitives.bpf_child import (
    ALL_CPUS,
    MIB,
    OBSTACLE,
    PAGE,
    Child,
    pages,
    started_child,
    use_cpus,
    watching,
)

from pydamon.errors import MachineError
from pydamon.linux import bpf_syscall, pagemap_scan
from pydamon.linux.btf import KIND_FUNC, Btf
from pydamon.primitives import bpf, bpf_program, kept_facts, page_tables
from pydamon.primitives.base import ACCESSED, UNKNOWN, Primitive
from pydamon.primitives.bpf import BpfPrimitive, PageTableWalk
from pydamon.primitives.page_tables import LEVEL_2M, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN, PageTables

pytestmark = pytest.mark.skipif(OBSTACLE is not None, reason=f"bpf primitive: {OBSTACLE}")


@pytest.fixture
def child(processes: None) -> Iterator[Child]:
    yield from started_child()


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
    addresses = np.array([walk.direct_map_base, (1 << 64) - PAGE, 1 << walk.tables.address_bits, 0], np.uint64)
    assert walk.walk(child.pid, addresses)[1].tolist() == [LEVEL_UNKNOWN] * 3 + [LEVEL_ABSENT]


@pytest.mark.parametrize("tables", [page_tables.X86_4, page_tables.X86_5, page_tables.ARM64_39, page_tables.ARM64_48])
@pytest.mark.parametrize("rcu", [True, False])
@pytest.mark.parametrize("namespace", [True, False])
def test_the_verifier_takes_every_form_of_the_program(rcu: bool, namespace: bool, tables: PageTables) -> None:
    facts = kept_facts.of_this_kernel()[0]
    if not rcu:
        facts = msgspec.structs.replace(facts, rcu=None)
    if not namespace:
        initial = Btf.of_kernel().find(KIND_FUNC, "bpf_task_from_pid")
        assert initial is not None
        facts = msgspec.structs.replace(facts, task_from_pid=initial)
    map_fd = bpf_syscall.create_map(bpf_program.VALUE_SIZE)
    try:
        os.close(bpf_syscall.load_program(bpf_program.page_table_walk(facts, tables, map_fd)))
    finally:
        os.close(map_fd)


def test_a_rejected_program_gives_the_verifiers_reason_in_one_line() -> None:
    with pytest.raises(MachineError, match=r"^bpf: the kernel refused to load the program: .*R0 !read_ok$") as caught:
        bpf_syscall.load_program(bytes.fromhex("9500000000000000"))  # exit, without a result
    assert "\n" not in str(caught.value)


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
        wait_until(lambda: not child.process.alive())
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
        begun = time.monotonic()
        unknown = False
        # For half a second, and until it has done what it was told: on a busy machine that may come much later.
        while time.monotonic() < begun + 0.5 or walks <= 10 or (verb != "storm" and not unknown):
            assert time.monotonic() < begun + GENEROUS_S
            answers = primitive.check()
            assert not (answers == ACCESSED).any()
            unknown = bool((answers == UNKNOWN).all())
            walks += 1
        if verb == "storm":
            primitive.prepare(watched)
            assert (primitive.check() != ACCESSED).all()
        else:
            assert (primitive.check() == UNKNOWN).all()


@pytest.mark.usefixtures("processes")
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


@pytest.mark.usefixtures("processes")
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
    ],
)
@pytest.mark.usefixtures("processes")
def test_what_is_missing_is_said_in_one_line(dropped: list[str], message: str) -> None:
    if not any((Path(folder) / "setpriv").exists() for folder in os.get_exec_path()):
        pytest.skip("needs setpriv of util-linux")
    said = run_limited(*dropped)
    assert said.startswith(message)
    assert "\n" not in said


@pytest.mark.usefixtures("processes")
def test_without_frame_numbers_the_base_is_found_by_what_the_frames_hold() -> None:
    """Of this machine it is the same; frame numbers are for CAP_SYS_ADMIN only."""
    code = "from pydamon.primitives.bpf import PageTableWalk; print(PageTableWalk().direct_map_base)"
    bases = [
        subprocess.run([*limits, sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for limits in ([], ["setpriv", "--bounding-set=-sys_admin"])
    ]
    assert bases[0] == bases[1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the tables of other machines have levels of their own")
def test_a_wrong_number_of_levels_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = bpf._first_cpu()
    wrong = re.sub(r"\bla57\b", "", cpu) if "la57" in cpu.split() else re.sub(r"(?m)^flags.*", r"\g<0> la57", cpu)
    assert wrong != cpu
    monkeypatch.setattr(bpf, "_first_cpu", lambda: wrong)
    with pytest.raises(MachineError, match="does not find the frames"):
        bpf.probe()


def test_addresses_that_only_five_levels_have(walk: PageTableWalk) -> None:
    if walk.tables is not page_tables.X86_5:
        pytest.skip("this machine has no such addresses (lab/run --five-levels has)")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    start = libc.mmap(1 << 50, 4 * PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    assert start == 1 << 50
    try:
        ctypes.memset(start, 1, 3 * PAGE)
        entries, levels = walk.walk(os.getpid(), pages(start, 4))
        assert levels.tolist() == [LEVEL_4K] * 3 + [LEVEL_ABSENT]
        shown = bpf.own_frames(start, 3)
        assert shown is not None
        assert np.array_equal(walk.frames(entries[:3]), shown)
        with open("/proc/self/pagemap", "rb") as pagemap:
            assert pagemap_scan.resident_ranges(pagemap.fileno())[-1].tolist() == [start, start + 3 * PAGE]
    finally:
        libc.munmap(start, 4 * PAGE)


def test_a_wrong_look_at_ones_own_pages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "own_frames", lambda start, count: np.arange(count, dtype=np.uint64))
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MachineError, match="does not find the frames"):
        bpf.probe()
    assert len(os.listdir("/proc/self/fd")) == before


def test_physical_memory_of_this_machine() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
    assert total < bpf._end_of_memory() <= 1 << page_tables.physical_address_bits(page_tables.X86_4, bpf._first_cpu())
