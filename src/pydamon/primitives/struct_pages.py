"""What the kernel's struct pages say of page frames, read by a BPF program: a thousand frames in one system call.

/proc/kpageflags tells a part of it, but takes a system call for each frame, and ten for one inside a folio. The program
also follows the reverse mapping of the plainest kind of page, a small one of anonymous memory that is mapped once: its
page-table entry tells whether it was accessed, without any call for the page.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from pydamon.errors import MachineError
from pydamon.linux import bpf_syscall
from pydamon.linux.bpf_assembler import (
    ADD,
    ADD_K,
    AND,
    AND_K,
    DIV_K,
    EXIT,
    JA,
    JEQ_K,
    JGE,
    JNE,
    JNE_K,
    JSET_K,
    LD_IMM64,
    LDX8,
    LSH_K,
    MOV,
    MOV_K,
    MUL_K,
    OR,
    OR_K,
    PSEUDO_MAP_VALUE,
    R0,
    R1,
    R2,
    R3,
    R6,
    R7,
    R8,
    R9,
    R10,
    RSH_K,
    STX1,
    STX8,
    SUB,
    Assembler,
)
from pydamon.linux.frames import Frames
from pydamon.linux.idle_bitmap import IDLE, LISTED, OWN, YOUNG
from pydamon.primitives import kept_facts
from pydamon.primitives.bpf import PageTableWalk
from pydamon.primitives.bpf_facts import ReverseFacts, SamplerFacts
from pydamon.primitives.bpf_program import each_number, head_of_tail, kfunc, load_kernel, walk_levels
from pydamon.primitives.page_tables import LEVEL_4K, PageTables
from pydamon.primitives.vmemmap import find_vmemmap

Kinds = NDArray[np.uint8]
_U64 = (1 << 64) - 1

BATCH = 1024  # frames a run
COUNT_AT, VMEMMAP_AT, LIMIT_AT = 0, 8, 16  # uint32; uint64, of frame 0; uint64: frames that there can be
BASE_AT, MASK_AT, END_AT = 24, 32, 40  # uint64: as `bpf_program` has them, the last is its LIMIT
FRAMES_AT = 64  # uint64[BATCH], in
HEADS_AT = FRAMES_AT + 8 * BATCH  # uint64[BATCH], out: the first frame of the folio
KINDS_AT = HEADS_AT + 8 * BATCH  # uint8[BATCH], out
SIZE = KINDS_AT + BATCH

_READ, _ITERATOR, _ADDRESS, _PGD, _INDEX, _END = range(-8, -56, -8)  # stack slots
_ANONYMOUS = 1  # the low bits of page->mapping; 3: merged by KSM


class StructPages:
    """Looks at the struct pages of frames; may be used from several threads. Raises MachineError if it cannot work."""

    def __init__(self, walk: PageTableWalk) -> None:
        facts = kept_facts.of_this_kernel()[1]
        if isinstance(facts, MachineError):
            raise facts
        vmemmap = find_vmemmap(facts)
        if not vmemmap:
            raise MachineError("the kernel's array of struct pages is not found", where="struct pages")
        self._lock = threading.Lock()
        self._walk = walk
        self._saw_beyond = False  # frames where there was no memory
        self._loaded = loaded = bpf_syscall.Loaded(
            SIZE, lambda map_fd: struct_pages_program(facts, walk.tables, map_fd)
        )
        try:
            memory, self._run = loaded.memory, loaded.run
            self._count = np.frombuffer(memory, np.uint32, 1, COUNT_AT)
            self._longs = np.frombuffer(memory, np.uint64, FRAMES_AT // 8)
            self._frames = np.frombuffer(memory, np.uint64, BATCH, FRAMES_AT)
            self._heads = np.frombuffer(memory, np.uint64, BATCH, HEADS_AT)
            self._kinds = np.frombuffer(memory, np.uint8, BATCH, KINDS_AT)
            self._longs[VMEMMAP_AT // 8] = vmemmap
            self._set_memory_facts()
        except BaseException:
            self.close()
            raise

    def look(self, frames: Frames) -> tuple[Frames, Kinds]:
        """The first frame of the folio of each frame, and what it is: LISTED, IDLE, OWN and YOUNG of
        `pydamon.linux.idle_bitmap`; shape (n,) each. A frame that is no memory is its own head and nothing else.
        """
        count = len(frames)
        if count and int(frames.max()) >= self._limit:
            self._saw_beyond = True
        heads, kinds = np.empty(count, np.uint64), np.empty(count, np.uint8)
        with self._lock:
            for begin in range(0, count, BATCH):
                size = min(BATCH, count - begin)
                self._count[0] = size
                self._frames[:size] = frames[begin : begin + size]
                self._run()
                heads[begin : begin + size] = self._heads[:size]
                kinds[begin : begin + size] = self._kinds[:size]
        return heads, kinds

    def refresh(self) -> None:
        """Memory may have been added: where it ends is read anew if frames beyond its end were asked about."""
        if self._saw_beyond:
            self._saw_beyond = False
            self._walk.refresh()
            self._set_memory_facts()

    def _set_memory_facts(self) -> None:
        base, mask, end = self._walk.memory_facts()
        self._longs[BASE_AT // 8], self._longs[MASK_AT // 8], self._longs[END_AT // 8] = base & _U64, mask, end
        self._longs[LIMIT_AT // 8] = self._limit = end >> 12

    def close(self) -> None:
        """Unload the program."""
        with self._lock:
            # The memory can be released only when no array looks at it.
            self._count = np.empty(0, np.uint32)
            self._longs = self._frames = self._heads = np.empty(0, np.uint64)
            self._kinds = np.empty(0, np.uint8)
            self._loaded.close()


def struct_pages_program(facts: SamplerFacts, tables: PageTables, map_fd: int) -> bytes:
    """The program's instructions, for a map with one value of ``SIZE`` bytes."""
    return _Program(facts, tables).assemble(map_fd)


class _Program:
    """Assembles it. Registers that outlive calls: r6 what is found, r7 the map's value, r8 the index, r9 the struct
    page, later what the reverse mapping leads to.
    """

    def __init__(self, facts: SamplerFacts, tables: PageTables) -> None:
        self.facts = facts
        self.tables = tables
        self.asm = Assembler()
        self.emit, self.jump, self.label = self.asm.emit, self.asm.jump, self.asm.label

    def assemble(self, map_fd: int) -> bytes:
        facts, emit, label = self.facts, self.emit, self.label
        emit(LD_IMM64, R7, PSEUDO_MAP_VALUE, imm=map_fd)
        emit(0)  # second half: offset 0 in the value
        # What is followed below is freed after an RCU grace period, or its memory keeps its type for as long.
        if facts.walk.rcu is not None:
            kfunc(self.asm, facts.walk.rcu[0])
        with each_number(self.asm, facts.walk, _ITERATOR, (R7, COUNT_AT), BATCH):
            self._look_at_page()
            if facts.reverse is not None:
                self._follow(facts.reverse)
            label("store")
            emit(MOV, R2, R8)
            emit(ADD, R2, R7)
            emit(STX1, R2, R6, KINDS_AT)
        if facts.walk.rcu is not None:
            kfunc(self.asm, facts.walk.rcu[1])
        emit(MOV_K, R0)
        emit(EXIT)
        return self.asm.code()

    def _load(self, offset: int) -> None:
        """r1 = the 8 bytes at ``offset`` of what r9 points to; 0 if that faults."""
        self.emit(MOV, R3, R9)
        if offset:
            self.emit(ADD_K, R3, imm=offset)
        load_kernel(self.asm, self.facts.walk, R3)

    def _element(self) -> None:
        """r2 = where the element of the index is in an array of 8-byte words that begins at the value's start."""
        self.emit(MOV, R2, R8)
        self.emit(LSH_K, R2, imm=3)
        self.emit(ADD, R2, R7)

    def _look_at_page(self) -> None:
        """The head, and by its flags LISTED and IDLE. Goes on for a small page, else to ``store``."""
        facts, emit, jump, label = self.facts, self.emit, self.jump, self.label
        emit(MOV_K, R6)
        self._element()
        emit(LDX8, R1, R2, FRAMES_AT)
        emit(STX8, R2, R1, HEADS_AT)
        emit(LDX8, R3, R7, LIMIT_AT)
        jump(JGE, "store", R1, R3)
        emit(MUL_K, R1, imm=facts.page_size)
        emit(LDX8, R9, R7, VMEMMAP_AT)
        emit(ADD, R9, R1)
        self._load(facts.page_head)
        jump(JSET_K, "tail", R1, imm=1)
        jump(JA, "flags")
        label("tail")
        head_of_tail(self.asm)
        emit(MOV, R1, R9)
        emit(LDX8, R3, R7, VMEMMAP_AT)
        emit(SUB, R1, R3)
        emit(DIV_K, R1, imm=facts.page_size)
        self._element()
        emit(STX8, R2, R1, HEADS_AT)
        label("flags")
        self._load(facts.page_flags)
        for mask, kind in ((facts.lru, LISTED), (facts.idle, IDLE)):
            emit(MOV, R2, R1)
            emit(RSH_K, R2, imm=mask.bit_length() - 1 if mask else 63)
            emit(AND_K, R2, imm=1 if mask else 0)
            emit(MUL_K, R2, imm=kind)
            emit(OR, R6, R2)
        emit(MOV, R2, R6)
        emit(AND_K, R2, imm=LISTED)
        jump(JEQ_K, "store", R2)
        # A tail's head has the flag, too: a large folio ends here.
        jump(JSET_K, "store", R1, imm=facts.head)

    def _follow(self, reverse: ReverseFacts) -> None:
        """The one page-table entry that maps the page at r9, if it is anonymous memory of one mapping: OWN, YOUNG."""
        emit, jump = self.emit, self.jump
        self._load(self.facts.page_mapcount)
        emit(LSH_K, R1, imm=32)
        jump(JNE_K, "store", R1)  # it counts from -1
        self._load(reverse.page_index)
        emit(STX8, R10, R1, _INDEX)
        self._load(reverse.page_mapping)
        emit(MOV, R2, R1)
        emit(AND_K, R2, imm=3)
        jump(JNE_K, "store", R2, imm=_ANONYMOUS)
        emit(MOV, R9, R1)
        emit(ADD_K, R9, imm=-_ANONYMOUS)
        self._load(reverse.anon_root)
        jump(JEQ_K, "store", R1)
        emit(MOV, R9, R1)
        for child in reverse.node_children:
            self._load(child)
            jump(JNE_K, "store", R1)  # several mappings may hold the page
        self._load(reverse.chain_vma - reverse.chain_node)
        jump(JEQ_K, "store", R1)
        emit(MOV, R9, R1)
        self._find_address(reverse)
        self._load(reverse.vma_mm)
        jump(JEQ_K, "store", R1)
        emit(MOV, R9, R1)
        if reverse.mm_notifiers is not None:  # a virtual machine's, a device's accesses do not show in the entry
            self._load(reverse.mm_notifiers)
            jump(JNE_K, "store", R1)
        self._load(self.facts.walk.mm_pgd)
        jump(JEQ_K, "store", R1)
        emit(STX8, R10, R1, _PGD)
        walk_levels(
            self.asm,
            self.facts.walk,
            self.tables,
            address=(R10, _ADDRESS),
            pgd=(R10, _PGD),
            mask=(R7, MASK_AT),
            limit=(R7, END_AT),
            base=(R7, BASE_AT),
            read=_READ,
            done="walked",
        )
        self._look_at_entry()

    def _find_address(self, reverse: ReverseFacts) -> None:
        """Where the mapping at r9 has the page, into its stack slot."""
        emit, jump = self.emit, self.jump
        self._load(reverse.vma_end)
        emit(STX8, R10, R1, _END)
        self._load(reverse.vma_pgoff)
        emit(LDX8, R2, R10, _INDEX)
        emit(SUB, R2, R1)
        emit(LSH_K, R2, imm=12)
        emit(STX8, R10, R2, _ADDRESS)
        self._load(reverse.vma_start)
        emit(LDX8, R2, R10, _ADDRESS)
        emit(ADD, R1, R2)
        emit(STX8, R10, R1, _ADDRESS)
        emit(LDX8, R2, R10, _END)
        jump(JGE, "store", R1, R2)

    def _look_at_entry(self) -> None:
        """The entry r1 of level r2 is the page's if it has its frame: that also proves all that led to it."""
        emit, jump, label = self.emit, self.jump, self.label
        label("walked")
        jump(JNE_K, "store", R2, imm=LEVEL_4K)
        emit(MOV, R9, R1)
        jump(JSET_K, "present", R1, imm=self.tables.present)
        jump(JA, "store")
        label("present")
        emit(LDX8, R2, R7, MASK_AT)
        emit(AND, R1, R2)
        emit(RSH_K, R1, imm=12)
        self._element()
        emit(LDX8, R3, R2, FRAMES_AT)
        jump(JNE, "store", R1, R3)
        emit(OR_K, R6, imm=OWN)
        emit(RSH_K, R9, imm=self.tables.accessed.bit_length() - 1)
        emit(AND_K, R9, imm=1)
        emit(MUL_K, R9, imm=YOUNG)
        emit(OR, R6, R9)
