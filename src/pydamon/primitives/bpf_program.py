"""The BPF program that reads page-table entries, assembled here: no compiler is needed where pydamon runs.

The program walks the tables (`page_tables`) for up to ``BATCH`` addresses of one process. Its input and output are one
value of an array map, laid out as the ``*_AT`` constants say (bytes). It only reads, and reads that fail do not fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pydamon.linux.bpf_assembler import (
    ADD,
    ADD_K,
    AND,
    AND_K,
    CALL,
    EXIT,
    JA,
    JEQ_K,
    JGE,
    JGE_K,
    JNE,
    JNE_K,
    JSET_K,
    LD_IMM64,
    LDX4,
    LDX8,
    LSH_K,
    MOV,
    MOV_K,
    OR_K,
    PROBE_READ_KERNEL,
    PSEUDO_KFUNC_CALL,
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
    STX4,
    STX8,
    Assembler,
)
from pydamon.primitives.bpf_facts import LEAST_HEAD_MASK, KernelFacts
from pydamon.primitives.page_tables import LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN, PageTables

BATCH = 1024  # addresses a run

# The map's value: control words, then the three arrays.
PID_AT = 0  # int32, in: process id as this process's pid namespace sees it
COUNT_AT = 4  # uint32, in: addresses to walk
BASE_AT = 8  # uint64, in: virtual address at which the kernel maps physical address 0
MASK_AT = 16  # uint64, in: bits of an entry that are a physical address
LIMIT_AT = 24  # uint64, in: end of physical memory; a table beyond it is not believed
STATUS_AT = 32  # uint32, out: STATUS_ of the run
PGD_AT = 40  # uint64, out: virtual address of the top table
ADDRESSES_AT = 64  # uint64[BATCH], in
ENTRIES_AT = ADDRESSES_AT + 8 * BATCH  # uint64[BATCH], out: the entry at which each walk ended
LEVELS_AT = ENTRIES_AT + 8 * BATCH  # uint8[BATCH], out: LEVEL_ of each
VALUE_SIZE = LEVELS_AT + BATCH

STATUS_OK = 0
STATUS_NO_TASK = 1  # no such process
STATUS_NO_MM = 2  # a kernel thread, or the process is exiting
STATUS_CHANGED = 3  # the address space was exchanged during the walk (exec, exit): its results say nothing

Place = tuple[int, int]  # a register that points somewhere, and an offset
_GROUP = 16 * 8  # bytes of entries that a contiguous bit joins


def walk_levels(
    asm: Assembler,
    facts: KernelFacts,
    tables: PageTables,
    *,
    address: Place,
    pgd: Place,
    mask: Place,
    limit: Place,
    base: Place,
    read: int,
    done: str,
) -> None:
    """Walk the page tables of ``pgd`` down to ``address``. Jumps or falls through to the label ``done`` with the entry
    in r1, its LEVEL_ in r2 and its address in r9; ``read`` is a free stack slot.
    """
    emit, jump, label = asm.emit, asm.jump, asm.label
    emit(LDX8, R9, *pgd)
    emit(LDX8, R1, *address)
    emit(RSH_K, R1, imm=tables.address_bits)
    jump(JNE_K, "unknown", R1)  # not user space
    for shift, leaf in tables.levels:
        emit(LDX8, R3, *address)
        emit(RSH_K, R3, imm=shift - 3)
        emit(AND_K, R3, imm=0x1FF << 3)
        emit(ADD, R3, R9)
        emit(MOV, R9, R3)
        # A load through a cast pointer costs a nanosecond, the helper thirty. But a load that faults reads as 0, so a 0
        # is read again by the helper, which tells.
        load_kernel(asm, facts, R3)
        jump(JEQ_K, "zero", R1)
        if leaf == LEVEL_4K:
            emit(MOV_K, R2, imm=leaf)
            jump(JSET_K, done if tables.contiguous is None else "page", R1, imm=tables.mapped)
            emit(MOV_K, R2, imm=LEVEL_ABSENT)
            jump(JA, done)
            break
        if leaf is not None:
            emit(MOV_K, R2, imm=leaf)
            emit(MOV, R3, R1)
            emit(AND_K, R3, imm=tables.leaf[0])
            jump(JEQ_K, done, R3, imm=tables.leaf[1])
        emit(MOV_K, R2, imm=LEVEL_ABSENT)
        emit(MOV, R3, R1)
        emit(AND_K, R3, imm=tables.table[0])
        jump(JNE_K, done, R3, imm=tables.table[1])
        emit(LDX8, R2, *mask)
        emit(AND, R1, R2)
        emit(LDX8, R2, *limit)
        jump(JGE, "unknown", R1, R2)
        emit(LDX8, R9, *base)
        emit(ADD, R9, R1)

    if tables.contiguous is not None:
        _gather_accessed(asm, facts, tables, tables.contiguous, read, done)
    label("zero")
    emit(MOV, R3, R9)
    read_kernel(asm, read)
    emit(MOV_K, R1)
    emit(MOV_K, R2, imm=LEVEL_ABSENT)
    jump(JEQ_K, done, R0)
    label("unknown")
    emit(MOV_K, R1)
    emit(MOV_K, R2, imm=LEVEL_UNKNOWN)


def _gather_accessed(
    asm: Assembler, facts: KernelFacts, tables: PageTables, contiguous: int, read: int, done: str
) -> None:
    """From the label ``page``: an entry r1 of a group of 16 has the accessed bit if any of the group has it.

    The processor may set it in any of them. A group is cleared as a whole: its 64 KiB are one folio.
    """
    emit, jump, label = asm.emit, asm.jump, asm.label
    label("page")
    jump(JSET_K, done, R1, imm=tables.accessed)
    emit(MOV, R3, R1)
    emit(RSH_K, R3, imm=contiguous.bit_length() - 1)
    emit(AND_K, R3, imm=1)
    jump(JEQ_K, done, R3)
    emit(STX8, R10, R1, read)
    for at in range(0, _GROUP, 8):
        emit(MOV, R3, R9)
        emit(AND_K, R3, imm=-_GROUP)
        emit(ADD_K, R3, imm=at)
        load_kernel(asm, facts, R3)
        jump(JSET_K, "group_accessed", R1, imm=tables.accessed)
    emit(LDX8, R1, R10, read)
    emit(MOV_K, R2, imm=LEVEL_4K)
    jump(JA, done)
    label("group_accessed")
    emit(LDX8, R1, R10, read)
    emit(OR_K, R1, imm=tables.accessed)
    emit(MOV_K, R2, imm=LEVEL_4K)
    jump(JA, done)


def load_kernel(asm: Assembler, facts: KernelFacts, address: int) -> None:
    """Load the 8 bytes at the kernel address in that register into r1; 0 if that faults. r2 to r5 are lost."""
    asm.emit(MOV, R1, address)
    asm.emit(MOV_K, R2, imm=facts.cast[1])
    kfunc(asm, facts.cast[0])
    asm.emit(LDX8, R1, R0)


def read_kernel(asm: Assembler, slot: int) -> None:
    """Read the 8 bytes at r3 into the stack slot; r0 is 0 if that worked."""
    asm.emit(MOV, R1, R10)
    asm.emit(ADD_K, R1, imm=slot)
    asm.emit(MOV_K, R2, imm=8)
    asm.emit(CALL, imm=PROBE_READ_KERNEL)


def head_of_tail(asm: Assembler) -> None:
    """Have r9, the struct page of a large folio's tail, be the head's; r1 is the odd word that tells.

    That is the head's address, or since Linux 7.1 and with struct pages of 64 bytes the mask that makes the one of the
    other. No struct page lies where masks are.
    """
    asm.jump(JGE_K, "mask of the head", R1, imm=LEAST_HEAD_MASK - (1 << 64))
    asm.emit(MOV, R9, R1)
    asm.emit(AND_K, R9, imm=-2)
    asm.jump(JA, "head")
    asm.label("mask of the head")
    asm.emit(AND, R9, R1)
    asm.label("head")


@contextmanager
def each_number(asm: Assembler, facts: KernelFacts, slot: int, count: tuple[int, int], most: int) -> Iterator[None]:
    """What is emitted in it is done with 0, 1, ... in R8: as often as the 4 bytes at ``count`` (register, offset) say.

    At most ``most`` times. An iterator in the stack's ``slot``, not a counted loop: the verifier looks at its body
    once. R0 to R5 are lost.
    """
    emit, jump, label = asm.emit, asm.jump, asm.label

    def iterator() -> None:
        emit(MOV, R1, R10)
        emit(ADD_K, R1, imm=slot)

    iterator()
    emit(MOV_K, R2)
    emit(LDX4, R3, *count)
    kfunc(asm, facts.loop[0])
    label("next_number")
    iterator()
    kfunc(asm, facts.loop[1])
    jump(JEQ_K, "no_more", R0)
    emit(LDX4, R8, R0)
    jump(JGE_K, "no_more", R8, imm=most)
    yield
    jump(JA, "next_number")
    label("no_more")
    iterator()
    kfunc(asm, facts.loop[2])


def kfunc(asm: Assembler, btf_id: int) -> None:
    """Call that function of the kernel."""
    asm.emit(CALL, src=PSEUDO_KFUNC_CALL, imm=btf_id)


# Stack slots (bytes below the frame pointer).
_READ, _MM, _PGD, _ADDRESS, _ITERATOR = -8, -16, -24, -32, -40


def page_table_walk(facts: KernelFacts, tables: PageTables, map_fd: int) -> bytes:
    """The program's instructions, for a map with one value of ``VALUE_SIZE`` bytes. Registers that outlive calls:

    r6 the task, r7 the map's value, r8 the index of the address, r9 the table to look into.
    """
    asm = Assembler()
    emit, jump, label = asm.emit, asm.jump, asm.label

    def read_task_mm(on_fault: str) -> None:
        emit(MOV, R3, R6)
        emit(ADD_K, R3, imm=facts.task_mm)
        read_kernel(asm, _READ)
        jump(JNE_K, on_fault, R0)

    def read_mm_pgd(on_fault: str) -> None:
        emit(LDX8, R3, R10, _MM)
        emit(ADD_K, R3, imm=facts.mm_pgd)
        read_kernel(asm, _READ)
        jump(JNE_K, on_fault, R0)

    emit(LD_IMM64, R7, PSEUDO_MAP_VALUE, imm=map_fd)
    emit(0)  # second half: offset 0 in the value
    emit(LDX4, R1, R7, PID_AT)
    kfunc(asm, facts.task_from_pid)
    jump(JNE_K, "have_task", R0)
    emit(MOV_K, R1, imm=STATUS_NO_TASK)
    emit(STX4, R7, R1, STATUS_AT)
    emit(MOV_K, R0)
    emit(EXIT)

    label("have_task")
    emit(MOV, R6, R0)
    # Page tables are freed after an RCU grace period: inside this section none is freed (and reused) under the walk.
    if facts.rcu is not None:
        kfunc(asm, facts.rcu[0])
    read_task_mm("no_mm")
    emit(LDX8, R1, R10, _READ)
    jump(JEQ_K, "no_mm", R1)
    emit(STX8, R10, R1, _MM)
    read_mm_pgd("no_mm")
    emit(LDX8, R1, R10, _READ)
    emit(STX8, R10, R1, _PGD)
    emit(STX8, R7, R1, PGD_AT)
    with each_number(asm, facts, _ITERATOR, (R7, COUNT_AT), BATCH):
        emit(MOV, R2, R8)
        emit(LSH_K, R2, imm=3)
        emit(ADD, R2, R7)
        emit(LDX8, R1, R2, ADDRESSES_AT)
        emit(STX8, R10, R1, _ADDRESS)
        walk_levels(
            asm,
            facts,
            tables,
            address=(R10, _ADDRESS),
            pgd=(R10, _PGD),
            mask=(R7, MASK_AT),
            limit=(R7, LIMIT_AT),
            base=(R7, BASE_AT),
            read=_READ,
            done="store",
        )
        label("store")
        emit(MOV, R3, R8)
        emit(LSH_K, R3, imm=3)
        emit(ADD, R3, R7)
        emit(STX8, R3, R1, ENTRIES_AT)
        emit(MOV, R3, R8)
        emit(ADD, R3, R7)
        emit(STX1, R3, R2, LEVELS_AT)
    # exit and exec take the address space off the task before they free it: if it is still there, the tables that were
    # read were this process's all along.
    read_task_mm("changed")
    emit(LDX8, R1, R10, _READ)
    emit(LDX8, R2, R10, _MM)
    jump(JNE, "changed", R1, R2)
    read_mm_pgd("changed")
    emit(LDX8, R1, R10, _READ)
    emit(LDX8, R2, R10, _PGD)
    jump(JNE, "changed", R1, R2)
    emit(MOV_K, R1, imm=STATUS_OK)
    jump(JA, "finish")
    label("no_mm")
    emit(MOV_K, R1, imm=STATUS_NO_MM)
    jump(JA, "finish")
    label("changed")
    emit(MOV_K, R1, imm=STATUS_CHANGED)
    label("finish")
    emit(STX4, R7, R1, STATUS_AT)
    if facts.rcu is not None:
        kfunc(asm, facts.rcu[1])
    emit(MOV, R1, R6)
    kfunc(asm, facts.task_release)
    emit(MOV_K, R0)
    emit(EXIT)
    return asm.code()
