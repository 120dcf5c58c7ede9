"""What struct pages say of frames: the program over memory built here, and on this machine against kpageflags."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import msgspec
import numpy as np
import pytest
from tests.unit.primitives.bpf_child import MIB, OBSTACLE, Child, pages, started_child
from tests.unit.primitives.bpf_machine import ACCESSED, BASE, LIMIT, MAP_FD, MASK, PRESENT, PROTNONE
from tests.unit.primitives.sampler_model import LRU, SAMPLER_FACTS, VMEMMAP, PagedMachine

from pydamon.errors import MachineError
from pydamon.linux import bpf_syscall
from pydamon.linux.frames import FrameInfo
from pydamon.linux.idle_bitmap import IDLE, LISTED, OWN, YOUNG, FrameWatch
from pydamon.linux.pagemap import Pagemap, frames_of
from pydamon.primitives import bpf_facts, kept_facts
from pydamon.primitives import struct_pages as program
from pydamon.primitives.bpf import PageTableWalk
from pydamon.primitives.bpf_facts import ReverseFacts
from pydamon.primitives.page_tables import ARM64_39, ARM64_48, X86_4, X86_5, PageTables
from pydamon.primitives.struct_pages import StructPages

REVERSE = ReverseFacts(
    page_mapping=24,
    page_index=32,
    anon_root=80,
    node_children=(16, 8),
    chain_node=32,
    chain_vma=0,
    vma_start=0,
    vma_end=8,
    vma_pgoff=80,
    vma_mm=16,
    mm_notifiers=1320,
)
FACTS = msgspec.structs.replace(SAMPLER_FACTS, reverse=REVERSE)
PG_IDLE = FACTS.idle
START, PGOFF = 0x7F12_3456_0000, 0x7F12_3456_0
ANON, CHAIN, VMA = 0xFFFF_9200_0000_0000, 0xFFFF_9200_0000_1000, 0xFFFF_9200_0000_2000
PID, FRAME = 7, 0x5000


class AnonymousPage:
    """A machine with one page of anonymous memory, the third of its mapping, at ``address`` in frame ``FRAME``."""

    def __init__(self, *, flags: int = LRU, entry: int = PRESENT, tables: PageTables = X86_4) -> None:
        self.machine = machine = PagedMachine(tables)
        machine.add_task(PID)
        self.address = START + 2 * 4096
        machine.page(FRAME, flags)
        self.mm = machine.memory[machine.tasks[PID] + 1136]
        page = VMEMMAP + 64 * FRAME
        machine.memory |= {
            page + 24: ANON | 1,
            page + 32: PGOFF + 2,
            ANON + 80: CHAIN + 32,
            CHAIN + 32 + 8: 0,
            CHAIN + 32 + 16: 0,
            CHAIN: VMA,
            VMA: START,
            VMA + 8: START + 16 * 4096,
            VMA + 16: self.mm,
            VMA + 80: PGOFF,
            self.mm + 1320: 0,
        }
        self.map(FRAME << 12 | entry)

    def map(self, entry: int) -> None:
        self.machine.map(self.address, entry, top=self.machine.tops[PID])

    def look(self, *frames: int, facts: bpf_facts.SamplerFacts = FACTS) -> list[tuple[int, int]]:
        return look(self.machine, *frames or (FRAME,), facts=facts)


def look(machine: PagedMachine, *frames: int, facts: bpf_facts.SamplerFacts = FACTS) -> list[tuple[int, int]]:
    value = bytearray(program.SIZE)
    struct.pack_into("<I4xQQQQQ", value, 0, len(frames), VMEMMAP, LIMIT >> 12, BASE, MASK, LIMIT)
    struct.pack_into(f"<{len(frames)}Q", value, program.FRAMES_AT, *frames)
    machine.run(program.struct_pages_program(facts, machine.format, MAP_FD), value)
    heads = np.frombuffer(value, np.uint64, len(frames), program.HEADS_AT).tolist()
    kinds = np.frombuffer(value, np.uint8, len(frames), program.KINDS_AT).tolist()
    return list(zip(heads, kinds, strict=True))


@pytest.mark.parametrize("masks", [False, True])
def test_flags_and_heads(masks: bool) -> None:
    machine = PagedMachine(masks=masks)
    machine.page(10)
    machine.page(11, 0)
    machine.page(12, LRU | PG_IDLE)
    machine.page(64, LRU | PG_IDLE, order=4)
    machine.page(128, 0, order=2)
    beyond = LIMIT >> 12
    assert look(machine, 10, 11, 12, 64, 79, 130, 9999, beyond) == [
        (10, LISTED),
        (11, 0),
        (12, LISTED | IDLE),
        (64, LISTED | IDLE),
        (64, LISTED | IDLE),
        (128, 0),
        (9999, 0),
        (beyond, 0),
    ]


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (AnonymousPage(), LISTED | OWN),
        (AnonymousPage(entry=PRESENT | ACCESSED), LISTED | OWN | YOUNG),
        (AnonymousPage(flags=LRU | PG_IDLE), LISTED | OWN | IDLE),
        (AnonymousPage(flags=0), 0),
    ],
)
def test_the_only_entry_is_found(page: AnonymousPage, expected: int) -> None:
    assert page.look() == [(FRAME, expected)]


@pytest.mark.parametrize("tables", [X86_5, ARM64_48])
def test_the_only_entry_is_found_in_tables_of_other_formats(tables: PageTables) -> None:
    page = AnonymousPage(tables=tables)
    for young, expected in ((False, LISTED | OWN), (True, LISTED | OWN | YOUNG)):
        page.map(page.machine.entry(FRAME, young))
        assert page.look() == [(FRAME, expected)]


def _change(**words: int) -> AnonymousPage:
    page = AnonymousPage(entry=PRESENT | ACCESSED)
    at = VMEMMAP + 64 * FRAME
    places = {
        "mapcount": at + 48, "mapping": at + 24, "index": at + 32, "root": ANON + 80, "left": CHAIN + 48,
        "right": CHAIN + 40, "vma": CHAIN, "end": VMA + 8, "mm": VMA + 16, "notifiers": page.mm + 1320,
    }  # fmt: skip
    page.machine.memory |= {places[name]: word for name, word in words.items()}
    return page


@pytest.mark.parametrize(
    "page",
    [
        _change(mapcount=1),  # mapped twice
        _change(mapping=0xFFFF_9300_0000_0000),  # of a file
        _change(mapping=ANON | 3),  # merged by KSM
        _change(mapping=0),
        _change(index=PGOFF + 3),  # another page's place: no such frame there
        _change(index=PGOFF + 16),  # behind the mapping
        _change(index=PGOFF - 1),  # before it
        _change(root=0),
        _change(left=CHAIN + 0x100),  # the process has forked
        _change(right=CHAIN + 0x100),
        _change(vma=0),
        _change(end=START),
        _change(mm=0),
        _change(notifiers=0xFFFF_9400_0000_0000),  # a virtual machine
        _change(vma=0xFFFF_AAAA_0000_0000),  # memory that cannot be read
    ],
)
def test_what_is_not_that_plain_is_left_to_the_bitmap(page: AnonymousPage) -> None:
    assert page.look() == [(FRAME, LISTED)]


@pytest.mark.parametrize("entry", [0, (FRAME + 1) << 12 | PRESENT | ACCESSED, FRAME << 12 | PROTNONE | ACCESSED])
def test_an_entry_that_is_not_the_pages(entry: int) -> None:
    page = AnonymousPage()
    page.map(entry)
    assert page.look() == [(FRAME, LISTED)]


def test_kernels_that_tell_less() -> None:
    page = AnonymousPage(flags=LRU | PG_IDLE, entry=PRESENT | ACCESSED)
    assert page.look(facts=msgspec.structs.replace(FACTS, reverse=None)) == [(FRAME, LISTED | IDLE)]
    assert page.look(facts=msgspec.structs.replace(FACTS, idle=0)) == [(FRAME, LISTED | OWN | YOUNG)]
    without = msgspec.structs.replace(REVERSE, mm_notifiers=None)
    page.machine.memory[page.mm + 1320] = 99
    assert page.look(facts=msgspec.structs.replace(FACTS, reverse=without)) == [(FRAME, LISTED | IDLE | OWN | YOUNG)]


def test_no_more_than_a_batch() -> None:
    machine = PagedMachine()
    value = bytearray(program.SIZE)
    struct.pack_into("<I4xQQQQQ", value, 0, 1 << 30, VMEMMAP, LIMIT >> 12, BASE, MASK, LIMIT)
    # The interpreter checks where it writes.
    machine.run(program.struct_pages_program(FACTS, machine.format, MAP_FD), value)


@pytest.fixture
def child() -> Iterator[Child]:
    yield from started_child()


@pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))
class TestLive:
    def test_like_kpageflags(self, walk: PageTableWalk) -> None:
        opened, info = StructPages(walk), FrameInfo()
        end = walk.memory_facts()[2] >> 12
        some = np.random.default_rng(1).integers(0, end + 1000, 5000).astype(np.uint64)
        watch = FrameWatch(object(), info)  # type: ignore[arg-type]  # the bitmap is not asked
        heads, kinds = opened.look(some)
        expected, listed = watch.locate(some)
        # Memory changes between the two looks.
        assert np.count_nonzero(heads != expected) <= 50
        assert np.count_nonzero(((kinds & LISTED) != 0) != listed) <= 50
        info.close()
        opened.close()

    @pytest.mark.usefixtures("processes")
    def test_pages_of_a_process(self, walk: PageTableWalk, child: Child) -> None:
        at = child.do("add", "a", MIB)
        child.do("touch", "a", "all")
        table, opened = Pagemap(child.pid), StructPages(walk)
        for _ in range(50):  # pages that were faulted in just now are on no list yet
            frames = frames_of(table.entries(pages(at, 256))[0])
            kinds = opened.look(frames)[1]
            if (kinds[:100] & LISTED).all():
                break
            child.do("add", f"b{_}", MIB)
            child.do("touch", f"b{_}", "all")
        assert (kinds[:100] == LISTED | OWN | YOUNG).mean() > 0.9
        child.fork("a")
        assert not (opened.look(frames)[1] & OWN).any()
        table.close()
        opened.close()

    @pytest.mark.parametrize("tables", [X86_4, X86_5, ARM64_39, ARM64_48])
    @pytest.mark.parametrize("without", ["", "reverse", "rcu", "idle"])
    def test_the_verifier_takes_every_form_of_the_program(self, tables: PageTables, without: str) -> None:
        facts = kept_facts.of_this_kernel()[1]
        assert not isinstance(facts, MachineError)
        forms = {
            "": facts,
            "reverse": msgspec.structs.replace(facts, reverse=None),
            "rcu": msgspec.structs.replace(facts, walk=msgspec.structs.replace(facts.walk, rcu=None)),
            "idle": msgspec.structs.replace(facts, idle=0),
        }
        map_fd = bpf_syscall.create_map(program.SIZE)
        try:
            os.close(bpf_syscall.load_program(program.struct_pages_program(forms[without], tables, map_fd)))
        finally:
            os.close(map_fd)

    def test_the_end_of_memory_is_read_anew_only_where_something_lay_beyond_it(
        self, walk: PageTableWalk, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = StructPages(walk)
        end = walk.memory_facts()[2]
        read: list[int] = []
        monkeypatch.setattr(walk, "refresh", lambda: read.append(1))
        monkeypatch.setattr(walk, "memory_facts", lambda: (0, 0, end + (1 << 30)))
        opened.look(np.array([0, (end >> 12) - 1], np.uint64))
        opened.refresh()
        assert not read
        for _ in range(2):
            opened.look(np.array([end >> 12], np.uint64))
            opened.refresh()
        assert len(read) == 1
        opened.close()

    def test_without_struct_pages(self, walk: PageTableWalk, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(program, "find_vmemmap", lambda facts: 0)
        with pytest.raises(MachineError, match="not found"):
            StructPages(walk)
