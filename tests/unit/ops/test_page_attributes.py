"""Attributes of pages: of this process's own memory, beside what its smaps says, and of the simulated machine."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pydamon.core.clock import VirtualClock
from pydamon.errors import MachineError
from pydamon.linux import pagemap
from pydamon.linux.process import Process
from pydamon.ops.actions.filters import PageFilters
from pydamon.ops.attributes import Attributes, VirtualAttributes
from pydamon.ops.base import ProbingOperationsSet
from pydamon.ops.sampling import PageSampler
from pydamon.ops.sim.ops import BASE_ADDRESS, SimOps
from pydamon.ops.vaddr import VaddrOps
from pydamon.primitives.base import PrimitiveCost
from pydamon.spec.machine import MachineSpec
from pydamon.spec.probes import Probe, parse_probe
from pydamon.workload import model

PAGE, MIB = 4096, 1 << 20
SIZE = 4 * MIB
ANON, FILE = parse_probe("anon"), parse_probe("!anon")


class Memory:
    """Mappings of this process: private and written, private and only read, of a file, and never touched."""

    def __init__(self, file: int) -> None:
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self.areas = {
            "written": mmap.mmap(-1, SIZE, private),
            "read": mmap.mmap(-1, SIZE, private),
            "file": mmap.mmap(file, SIZE),
            "untouched": mmap.mmap(-1, SIZE, private),
        }
        self.address = {}
        for name, area in self.areas.items():
            area.madvise(mmap.MADV_NOHUGEPAGE)
            self.address[name] = ctypes.addressof(ctypes.c_char.from_buffer(area))
        for at in range(0, SIZE, PAGE):
            if at // PAGE % 2 == 0:  # every other page
                self.areas["written"][at] = self.areas["file"][at] = 1
                _ = self.areas["read"][at]

    def pages(self, name: str) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """The address of each page."""
        return np.uint64(self.address[name]) + np.arange(SIZE // PAGE, dtype=np.uint64) * np.uint64(PAGE)

    def smaps(self, name: str, key: str) -> int:
        """Bytes of a field of the smaps of what is mapped there; the kernel may have joined two of them to one."""
        total = 0
        inside = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                low, high = (int(text, 16) for text in found.groups())
                inside = low < self.address[name] + SIZE and high > self.address[name]
            elif inside and line.startswith(f"{key}:"):
                total += int(line.split()[1]) * 1024
        return total


@pytest.fixture(scope="module", name="memory")
def memory_fixture() -> Iterator[Memory]:
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE)
        yield Memory(file.fileno())


@pytest.fixture(name="told")
def told_fixture() -> Iterator[VirtualAttributes]:
    told = VirtualAttributes()
    yield told
    told.close()


@pytest.mark.parametrize("sees_frames", [True, False])
def test_attributes_are_those_that_smaps_counts(
    memory: Memory, told: VirtualAttributes, monkeypatch: pytest.MonkeyPatch, sees_frames: bool
) -> None:
    if sees_frames and os.geteuid() != 0:
        pytest.skip("needs root")
    monkeypatch.setattr(told, "_sees_frames", sees_frames)
    myself = Process(os.getpid())
    hits = {name: told.of_process(0, myself, memory.pages(name), (ANON, FILE), None) for name in memory.areas}
    every_other = np.arange(SIZE // PAGE) % 2 == 0
    assert (hits["written"][0] == every_other).all()
    assert not hits["written"][1].any()
    assert memory.smaps("written", "Anonymous") >= SIZE // 2
    # The kernel may bring more of a file into memory than was asked for, never less.
    assert not hits["file"][0].any()
    assert (hits["file"][1] | ~every_other).all()
    assert not hits["untouched"].any()
    if sees_frames:  # else the zero page cannot be told from others
        assert not hits["read"].any()


@pytest.mark.usefixtures("processes")
def test_pages_of_a_process_that_has_ended_have_no_attributes(told: VirtualAttributes) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    process = Process(pid)
    os.waitpid(pid, 0)
    assert not told.of_process(0, process, np.array([PAGE], np.uint64), (ANON,), None).any()


class NoAges:
    """Knows of no access."""

    def young(self, addresses: Any, heads: Any) -> Any:
        return np.zeros(len(addresses), np.bool_)

    def make_old(self, addresses: Any, heads: Any) -> None:
        raise AssertionError("nothing is to be marked")


class Marks(NoAges):
    """A page is young until it is marked."""

    name = "marks"

    def __init__(self) -> None:
        self.marked: list[int] = []

    def young(self, addresses: Any, heads: Any) -> Any:
        return ~np.isin(addresses, np.array(self.marked, np.uint64))

    def make_old(self, addresses: Any, heads: Any) -> None:
        self.marked += addresses.tolist()


def test_pages_are_marked_and_looked_at_without_being_marked(memory: Memory, told: VirtualAttributes) -> None:
    myself, pages, marks = Process(os.getpid()), memory.pages("written")[:8], Marks()
    probes = tuple(parse_probe(text) for text in ("pgidle_unset", "pgidle_set", "!pgidle_set", "!pgidle_unset"))
    told.check((parse_probe("set_pgidle pgidle_set"),), [marks], virtual=True)
    is_there = np.arange(8) % 2 == 0
    told.prepare_process(0, myself, pages[2:], marks)
    assert marks.marked == pages[2:][is_there[2:]].tolist()  # what is not there cannot be
    for _ in range(2):  # a look changes nothing
        unset, is_set, not_set, not_unset = told.of_process(0, myself, pages, probes, marks)
        assert unset.tolist() == (is_there & (np.arange(8) < 2)).tolist()
        assert is_set.tolist() == (is_there & (np.arange(8) >= 2)).tolist()
        assert not_set.tolist() == unset.tolist()
        assert not_unset.tolist() == is_set.tolist()


def test_who_knows_no_single_pages_can_neither_mark_nor_tell_them(told: VirtualAttributes) -> None:
    for text, what in (("pgidle_set", r"filters\[0\]: pgidle_set cannot be told by choosy"),
                       ("set_pgidle anon", r"preps: cannot be done by choosy")):  # fmt: skip
        with pytest.raises(MachineError, match=rf"^\[0\]\.{what}.*primitive bpf"):
            told.check((parse_probe(text),), [ChoosyPrimitive()], virtual=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_frames_have_the_attributes_of_the_pages_in_them(memory: Memory) -> None:
    table = pagemap.Pagemap("self")
    attributes = Attributes()
    try:
        addresses = memory.pages("written")
        frames = pagemap.frames_of(table.entries(addresses)[0])
        hits = attributes.of_frames(frames << np.uint64(12), frames, (ANON, parse_probe("hugepage_size=4K")), None)
        assert (hits == (frames != 0)).all()
        assert np.count_nonzero(frames) == SIZE // PAGE // 2
        # What is at the beginning of physical memory is on no list of pages.
        nowhere = np.zeros(1, np.uint64), np.ones(1, np.uint64)
        probes = (ANON, FILE, parse_probe("reject:anon"), parse_probe("pgidle_unset"), Probe())
        assert not attributes.of_frames(*nowhere, probes, NoAges()).any()
        # The kernel has the filters decide: it is of no type, and what none matches is the opposite of the last one.
        hits = attributes.of_frames(*nowhere, probes, NoAges(), faithful=True)
        assert hits[:, 0].tolist() == [False, True, True, False, True]
    finally:
        table.close()
        attributes.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="needs a user that is not root")
def test_what_only_root_sees_is_named(told: VirtualAttributes) -> None:
    with pytest.raises(MachineError, match=r"^\[0\]\.filters\[0\]: active cannot be told here"):
        told.check((parse_probe("active"),), (), virtual=True)


class ChoosyPrimitive:
    """Half of the pages that it is asked to watch it cannot, and of those that it can half are absent."""

    name = "choosy"

    def __init__(self) -> None:
        self.cost = PrimitiveCost()
        self.first = self.addresses = np.empty(0, np.uint64)

    def prepare(self, addresses: Any) -> Any:
        self.first, self.addresses = addresses.copy(), addresses
        return np.arange(len(addresses)) % 2 == 0

    def replace(self, index: Any, addresses: Any) -> Any:
        self.addresses[index] = addresses
        return np.ones(len(index), np.bool_)

    def absent(self) -> Any:
        return np.arange(len(self.addresses)) % 4 < 2

    def check(self) -> Any:
        return np.zeros(len(self.addresses), np.uint8)

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_probes_are_asked_about_pages_that_were_drawn_at_random(memory: Memory) -> None:
    """Those that are watched in their place are chosen by being resident: on sparse memory that would be all of it."""
    primitive = ChoosyPrimitive()
    ops = VaddrOps([Process(os.getpid())], lambda process: primitive)
    ops.faithful = False
    try:
        assert isinstance(ops, ProbingOperationsSet)
        start = memory.pages("written")[::4]
        assert isinstance(ops.sampler, PageSampler)
        ops.sampler.prepare_access_checks(0, start, start + np.uint64(4 * PAGE))
        assert (primitive.addresses != primitive.first).any()
        drawn = (primitive.first - start[0]) // np.uint64(PAGE) % np.uint64(2) == 0
        assert 0 < np.count_nonzero(drawn) < len(start)
        assert (ops.sampler.apply_probes(0, (ANON,))[0] == drawn).all()
    finally:
        ops.cleanup()


def test_a_check_after_the_end_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagemap, "probe", lambda: None)
    attributes = Attributes()
    attributes.close()
    with pytest.raises(MachineError, match="the monitoring has ended"):
        attributes.check((parse_probe("active"),), (), virtual=True)


def test_a_check_that_fails_leaves_what_is_known_of_cgroups(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop goes on with it: a commit that is refused changes nothing."""
    monkeypatch.setattr(pagemap, "probe", lambda: None)
    monkeypatch.setattr("pydamon.ops.actions.filters.FrameFile", lambda path: None)
    monkeypatch.setattr("pydamon.linux.memcg.inode", lambda path: 77)
    filters = PageFilters()
    wanted = parse_probe("memcg=/a").filters
    filters.check(wanted, (), virtual=True)

    def gone(path: str) -> int:
        raise MachineError("there is no such cgroup", where=path)

    monkeypatch.setattr("pydamon.linux.memcg.inode", gone)
    with pytest.raises(MachineError):
        filters.check(wanted, (), virtual=True)
    assert filters._inode("/a") == 77


def test_the_simulated_machine_tells_its_own() -> None:
    # 16 pages are of a file, 48 anonymous; the second target is in another cgroup. All is in memory at the start.
    workload = model.parse("f, 64 KiB\na, 192 KiB\n\nsteady\n3600000\nf, 0, 4096, 1\n", source="x")
    machine = MachineSpec(file_regions=("f",), memcgs=("/one", "/two"))
    ops = SimOps([workload, workload], VirtualClock(), mapping="one", accesses_per_s=10**6, machine=machine)
    ops.init()
    pages = np.uint64(BASE_ADDRESS) + np.arange(64, dtype=np.uint64) * np.uint64(PAGE)
    texts = "anon", "memcg=/one", "!memcg=/one", "hugepage_size=2M", "reject:anon", "reject:memcg=/one anon"
    probes = [parse_probe(text) for text in (*texts, "hugepage_size=4K..2M", "hugepage_size=0..4095B")]
    for target in range(2):
        ops.sampler.prepare_access_checks(target, pages, pages + np.uint64(PAGE))
        hits = ops.sampler.apply_probes(target, probes)
        assert hits.sum(axis=1).tolist() == [
            48,
            64 * (target == 0),
            64 * (target == 1),
            0,
            16,
            48 * (target == 1),
            64,
            0,
        ]
        assert not hits[0, :16].any()
    with pytest.raises(MachineError, match=r"^\[0\]\.filters\[0\]\.memcg_path"):
        ops.check_probes([parse_probe("memcg=/three")])
