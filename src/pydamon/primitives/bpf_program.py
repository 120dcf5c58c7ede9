"""The BPF program that reads page-table entries, assembled here: no compiler is needed where pydamon runs.

The program walks x86-64's four levels for up to ``BATCH`` addresses of one process. Its input and output are one value
of an array map, laid out as the ``*_AT`` constants say (bytes). It only reads, and reads that fail do not fault.

Instruction encoding: the kernel's Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydamon.linux.btf import KIND_FUNC, KIND_STRUCT, Btf, BtfError

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

LEVEL_UNKNOWN = 0  # a read failed, or the address is not a user-space one
LEVEL_ABSENT = 1  # nothing is mapped there now
LEVEL_4K = 2  # a page-table entry
LEVEL_2M = 3  # a leaf in the page middle directory
LEVEL_1G = 4  # a leaf in the page upper directory

PRESENT = 1 << 0
ACCESSED_BIT = 1 << 5
DIRTY_BIT = 1 << 6
LARGE = 1 << 7  # in an upper table: this entry is a leaf
PROTNONE = 1 << 8  # without PRESENT: mapped, but every access faults (PROT_NONE, NUMA hinting)

_R0, _R1, _R2, _R3, _R6, _R7, _R8, _R9, _R10 = 0, 1, 2, 3, 6, 7, 8, 9, 10
_PROBE_READ_KERNEL = 113  # helper number, include/uapi/linux/bpf.h
_PSEUDO_MAP_VALUE = 2
_PSEUDO_KFUNC_CALL = 2

# Opcodes: class, operation and operand source combined.
_MOV, _MOV_K, _ADD, _ADD_K, _AND, _AND_K, _LSH_K, _RSH_K = 0xBF, 0xB7, 0x0F, 0x07, 0x5F, 0x57, 0x67, 0x77
_LDX8, _LDX4, _STX8, _STX4, _STX1, _LD_IMM64 = 0x79, 0x61, 0x7B, 0x63, 0x73, 0x18
_JA, _JEQ_K, _JNE_K, _JNE, _JGE_K, _JGE, _JSET_K, _CALL, _EXIT = 0x05, 0x15, 0x55, 0x5D, 0x35, 0x3D, 0x45, 0x85, 0x95


class Assembler:
    """Collects instructions; jumps name labels, which ``code`` resolves."""

    def __init__(self) -> None:
        self._instructions: list[tuple[int, int, int, int, int, str | None]] = []
        self._labels: dict[str, int] = {}

    def emit(self, opcode: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        """One instruction: ``opcode`` byte, register numbers, 16-bit signed ``off``, 32-bit signed ``imm``."""
        self._instructions.append((opcode, dst, src, off, imm, None))

    def jump(self, opcode: int, label: str, dst: int = 0, src: int = 0, imm: int = 0) -> None:
        """A jump to ``label``, which may be defined later."""
        self._instructions.append((opcode, dst, src, 0, imm, label))

    def label(self, name: str) -> None:
        """Name the place of the next instruction. ValueError if the name is taken."""
        if name in self._labels:
            raise ValueError(f"label {name} is defined twice")
        self._labels[name] = len(self._instructions)

    def code(self) -> bytes:
        """The instructions, 8 bytes each. ValueError for an undefined label or a value that does not fit its field."""
        out = bytearray()
        for index, (opcode, dst, src, off, imm, label) in enumerate(self._instructions):
            if label is not None:
                if label not in self._labels:
                    raise ValueError(f"label {label} is not defined")
                off = self._labels[label] - index - 1
            try:
                out += struct.pack("<BBhi", opcode, dst | src << 4, off, imm)
            except struct.error as error:
                raise ValueError(f"instruction {index} does not fit its encoding: {error}") from None
        return bytes(out)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """What the program needs to know of the running kernel: offsets in bytes, and BTF ids of kfuncs."""

    task_mm: int
    mm_pgd: int
    task_from_pid: int
    task_release: int
    by_namespace: bool  # whether task_from_pid understands pids of the caller's pid namespace
    loop: tuple[int, int, int]  # bpf_iter_num_new, _next, _destroy
    cast: tuple[int, int]  # bpf_rdonly_cast, and a struct that begins with a 64-bit number
    rcu: tuple[int, int] | None  # bpf_rcu_read_lock, bpf_rcu_read_unlock


def kernel_facts(btf: Btf) -> KernelFacts:
    """Look them up. Raises BtfError, naming what is missing."""

    def kfunc(name: str) -> int:
        btf_id = btf.find(KIND_FUNC, name)
        if btf_id is None:
            raise BtfError(f"this kernel has no kfunc {name}; Linux 6.4 and later have it")
        return btf_id

    # bpf_task_from_vpid (since Linux 6.14) takes pids as the caller's namespace numbers them; the older
    # bpf_task_from_pid only the initial namespace's.
    by_vpid = btf.find(KIND_FUNC, "bpf_task_from_vpid")
    regs = btf.find(KIND_STRUCT, "pt_regs")
    if regs is None or btf.member_offset("pt_regs", "r15") != 0:
        raise BtfError("struct pt_regs of this kernel does not begin with r15")
    lock, unlock = btf.find(KIND_FUNC, "bpf_rcu_read_lock"), btf.find(KIND_FUNC, "bpf_rcu_read_unlock")
    return KernelFacts(
        task_mm=btf.member_offset("task_struct", "mm"),
        mm_pgd=btf.member_offset("mm_struct", "pgd"),
        task_from_pid=by_vpid or kfunc("bpf_task_from_pid"),
        task_release=kfunc("bpf_task_release"),
        by_namespace=by_vpid is not None,
        loop=(kfunc("bpf_iter_num_new"), kfunc("bpf_iter_num_next"), kfunc("bpf_iter_num_destroy")),
        cast=(kfunc("bpf_rdonly_cast"), regs),
        rcu=(lock, unlock) if lock and unlock else None,
    )


# Stack slots (bytes below the frame pointer).
_READ, _MM, _PGD, _ADDRESS, _ITERATOR = -8, -16, -24, -32, -40


def page_table_walk(facts: KernelFacts, map_fd: int) -> bytes:
    """The program's instructions, for a map with one value of ``VALUE_SIZE`` bytes. Registers that outlive calls:

    r6 the task, r7 the map's value, r8 the index of the address, r9 the table to look into.
    """
    asm = Assembler()
    emit, jump, label = asm.emit, asm.jump, asm.label

    def read_kernel() -> None:
        """Read 8 bytes at r3 into the slot _READ; r0 is 0 if that worked."""
        emit(_MOV, _R1, _R10)
        emit(_ADD_K, _R1, imm=_READ)
        emit(_MOV_K, _R2, imm=8)
        emit(_CALL, imm=_PROBE_READ_KERNEL)

    def read_task_mm(on_fault: str) -> None:
        emit(_MOV, _R3, _R6)
        emit(_ADD_K, _R3, imm=facts.task_mm)
        read_kernel()
        jump(_JNE_K, on_fault, _R0)

    def read_mm_pgd(on_fault: str) -> None:
        emit(_LDX8, _R3, _R10, _MM)
        emit(_ADD_K, _R3, imm=facts.mm_pgd)
        read_kernel()
        jump(_JNE_K, on_fault, _R0)

    def kfunc(btf_id: int) -> None:
        emit(_CALL, src=_PSEUDO_KFUNC_CALL, imm=btf_id)

    emit(_LD_IMM64, _R7, _PSEUDO_MAP_VALUE, imm=map_fd)
    emit(0)  # second half: offset 0 in the value
    emit(_LDX4, _R1, _R7, PID_AT)
    kfunc(facts.task_from_pid)
    jump(_JNE_K, "have_task", _R0)
    emit(_MOV_K, _R1, imm=STATUS_NO_TASK)
    emit(_STX4, _R7, _R1, STATUS_AT)
    emit(_MOV_K, _R0)
    emit(_EXIT)

    label("have_task")
    emit(_MOV, _R6, _R0)
    # Page tables are freed after an RCU grace period: inside this section none is freed (and reused) under the walk.
    if facts.rcu is not None:
        kfunc(facts.rcu[0])
    read_task_mm("no_mm")
    emit(_LDX8, _R1, _R10, _READ)
    jump(_JEQ_K, "no_mm", _R1)
    emit(_STX8, _R10, _R1, _MM)
    read_mm_pgd("no_mm")
    emit(_LDX8, _R1, _R10, _READ)
    emit(_STX8, _R10, _R1, _PGD)
    emit(_STX8, _R7, _R1, PGD_AT)
    # An iterator, not a counted loop: the verifier looks at its body once instead of BATCH times.
    emit(_MOV, _R1, _R10)
    emit(_ADD_K, _R1, imm=_ITERATOR)
    emit(_MOV_K, _R2)
    emit(_LDX4, _R3, _R7, COUNT_AT)
    kfunc(facts.loop[0])

    label("next_address")
    emit(_MOV, _R1, _R10)
    emit(_ADD_K, _R1, imm=_ITERATOR)
    kfunc(facts.loop[1])
    jump(_JEQ_K, "walked", _R0)
    emit(_LDX4, _R8, _R0)
    jump(_JGE_K, "walked", _R8, imm=BATCH)
    emit(_MOV, _R2, _R8)
    emit(_LSH_K, _R2, imm=3)
    emit(_ADD, _R2, _R7)
    emit(_LDX8, _R1, _R2, ADDRESSES_AT)
    emit(_STX8, _R10, _R1, _ADDRESS)
    emit(_RSH_K, _R1, imm=47)
    jump(_JNE_K, "unknown", _R1)  # user space ends at 2**47
    emit(_LDX8, _R9, _R10, _PGD)
    for shift, leaf in ((39, None), (30, LEVEL_1G), (21, LEVEL_2M), (12, LEVEL_4K)):
        emit(_LDX8, _R3, _R10, _ADDRESS)
        emit(_RSH_K, _R3, imm=shift - 3)
        emit(_AND_K, _R3, imm=0x1FF << 3)
        emit(_ADD, _R3, _R9)
        emit(_MOV, _R9, _R3)
        # A load through a cast pointer costs a nanosecond, the helper thirty. But a load that faults reads as 0, so a 0
        # is read again by the helper, which tells.
        emit(_MOV, _R1, _R3)
        emit(_MOV_K, _R2, imm=facts.cast[1])
        kfunc(facts.cast[0])
        emit(_LDX8, _R1, _R0)
        jump(_JEQ_K, "zero", _R1)
        if leaf == LEVEL_4K:
            emit(_MOV_K, _R2, imm=leaf)
            jump(_JSET_K, "store", _R1, imm=PRESENT | PROTNONE)
            emit(_MOV_K, _R2, imm=LEVEL_ABSENT)
            jump(_JA, "store")
            break
        if leaf is not None:
            # LARGE alone means present: a huge page that is being split loses PRESENT for a moment.
            emit(_MOV_K, _R2, imm=leaf)
            jump(_JSET_K, "store", _R1, imm=LARGE)
        emit(_MOV_K, _R2, imm=LEVEL_ABSENT)
        emit(_MOV, _R3, _R1)
        emit(_AND_K, _R3, imm=PRESENT)
        jump(_JEQ_K, "store", _R3)
        emit(_LDX8, _R2, _R7, MASK_AT)
        emit(_AND, _R1, _R2)
        emit(_LDX8, _R2, _R7, LIMIT_AT)
        jump(_JGE, "unknown", _R1, _R2)
        emit(_LDX8, _R9, _R7, BASE_AT)
        emit(_ADD, _R9, _R1)

    label("zero")
    emit(_MOV, _R3, _R9)
    read_kernel()
    emit(_MOV_K, _R1)
    emit(_MOV_K, _R2, imm=LEVEL_ABSENT)
    jump(_JEQ_K, "store", _R0)
    label("unknown")
    emit(_MOV_K, _R1)
    emit(_MOV_K, _R2, imm=LEVEL_UNKNOWN)
    label("store")
    emit(_MOV, _R3, _R8)
    emit(_LSH_K, _R3, imm=3)
    emit(_ADD, _R3, _R7)
    emit(_STX8, _R3, _R1, ENTRIES_AT)
    emit(_MOV, _R3, _R8)
    emit(_ADD, _R3, _R7)
    emit(_STX1, _R3, _R2, LEVELS_AT)
    jump(_JA, "next_address")

    label("walked")
    emit(_MOV, _R1, _R10)
    emit(_ADD_K, _R1, imm=_ITERATOR)
    kfunc(facts.loop[2])
    # exit and exec take the address space off the task before they free it: if it is still there, the tables that were
    # read were this process's all along.
    read_task_mm("changed")
    emit(_LDX8, _R1, _R10, _READ)
    emit(_LDX8, _R2, _R10, _MM)
    jump(_JNE, "changed", _R1, _R2)
    read_mm_pgd("changed")
    emit(_LDX8, _R1, _R10, _READ)
    emit(_LDX8, _R2, _R10, _PGD)
    jump(_JNE, "changed", _R1, _R2)
    emit(_MOV_K, _R1, imm=STATUS_OK)
    jump(_JA, "finish")
    label("no_mm")
    emit(_MOV_K, _R1, imm=STATUS_NO_MM)
    jump(_JA, "finish")
    label("changed")
    emit(_MOV_K, _R1, imm=STATUS_CHANGED)
    label("finish")
    emit(_STX4, _R7, _R1, STATUS_AT)
    if facts.rcu is not None:
        kfunc(facts.rcu[1])
    emit(_MOV, _R1, _R6)
    kfunc(facts.task_release)
    emit(_MOV_K, _R0)
    emit(_EXIT)
    return asm.code()
