"""The words in which the sampler's BPF program is written: fields of its records, elements of its arrays, reads."""

from __future__ import annotations

import msgspec
import numpy as np

from pydamon.linux.bpf_assembler import (
    ADD,
    ADD_K,
    AND,
    JEQ_K,
    JNE_K,
    JSET_K,
    LD_IMM64,
    LDX4,
    LDX8,
    LSH_K,
    MOV,
    MOV_K,
    MUL_K,
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
    ST4_K,
    ST8_K,
    STX4,
    STX8,
    XOR,
    Assembler,
)
from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives.bpf_facts import SamplerFacts
from pydamon.primitives.bpf_program import Place, kfunc, load_kernel, read_kernel
from pydamon.primitives.page_tables import PageTables

READ = -24  # stack slot of what was read last


class Field(msgspec.Struct, frozen=True):
    """A field of a record: which register points to the record, where the field is, and its size (4 or 8)."""

    register: int
    offset: int
    size: int

    @property
    def place(self) -> Place:
        return self.register, self.offset


class _Record:
    """The fields of a record to which ``register`` points, as attributes."""

    def __init__(self, dtype: np.dtype[np.void], register: int) -> None:
        assert dtype.fields is not None
        self._fields = {name: Field(register, of[1], of[0].itemsize) for name, of in dtype.fields.items()}

    def __getattr__(self, name: str) -> Field:
        return self._fields[name]


class Words:
    """Collects the program's instructions. Registers that outlive calls: r6 the target's record (while there is a task
    that must be given back, r8 holds it), r7 the map's value, r8 the region's record, r9 the table, or the struct page,
    that is looked into.
    """

    def __init__(self, facts: SamplerFacts, tables: PageTables, layout: lay.SamplerLayout) -> None:
        self.facts = facts
        self.tables = tables
        self.layout = layout
        self.asm = Assembler()
        self.emit, self.jump, self.label = self.asm.emit, self.asm.jump, self.asm.label
        self.run = _Record(lay.HEADER, R7)
        self.target = _Record(lay.TARGET, R6)
        self.region = _Record(lay.REGION, R8)

    def get(self, register: int, field: Field) -> None:
        self.emit(LDX8 if field.size == 8 else LDX4, register, *field.place)

    def put(self, field: Field, register: int) -> None:
        self.emit(STX8 if field.size == 8 else STX4, field.register, register, field.offset)

    def store(self, field: Field, value: int) -> None:
        self.emit(ST8_K if field.size == 8 else ST4_K, field.register, off=field.offset, imm=value)

    def count(self, field: Field) -> None:
        """Add one; r1 is lost."""
        self.get(R1, field)
        self.emit(ADD_K, R1, imm=1)
        self.put(field, R1)

    def element(self, register: int, index: int, size: int, at: int) -> None:
        """Let ``register`` point to element ``index`` (a register, multiplied here) of the array at ``at``."""
        self.emit(MUL_K, index, imm=size)
        self.emit(MOV, register, R7)
        self.emit(ADD, register, index)
        self.emit(ADD_K, register, imm=at)

    def wants(self, flag: int, label: str) -> None:
        """Jump if the run was asked to; r1 is lost."""
        self.get(R1, self.run.flags)
        self.jump(JSET_K, label, R1, imm=flag)

    def iterate(self, slot: int) -> None:
        """Begin an iterator from r2 to r3. (The verifier looks at the body of a counted loop once for each turn.)"""
        self.emit(MOV, R1, R10)
        self.emit(ADD_K, R1, imm=slot)
        kfunc(self.asm, self.facts.walk.loop[0])

    def advance(self, slot: int, end: str) -> None:
        """r0 points to the iterator's next number; jumps to ``end`` after the last."""
        self.emit(MOV, R1, R10)
        self.emit(ADD_K, R1, imm=slot)
        kfunc(self.asm, self.facts.walk.loop[1])
        self.jump(JEQ_K, end, R0)

    def end_iterator(self, slot: int) -> None:
        self.emit(MOV, R1, R10)
        self.emit(ADD_K, R1, imm=slot)
        kfunc(self.asm, self.facts.walk.loop[2])

    def read_task(self, offset: int, on_fault: str) -> None:
        """r1 = the 8 bytes at ``offset`` of the task in r8."""
        self.emit(MOV, R3, R8)
        self.emit(ADD_K, R3, imm=offset)
        self.read(on_fault)

    def read(self, on_fault: str) -> None:
        """r1 = the 8 bytes at r3."""
        read_kernel(self.asm, READ)
        self.jump(JNE_K, on_fault, R0)
        self.emit(LDX8, R1, R10, READ)

    def load_page(self, offset: int) -> None:
        """r1 = the 8 bytes at ``offset`` of the struct page at r9; 0 if there is none."""
        self.emit(MOV, R3, R9)
        if offset:
            self.emit(ADD_K, R3, imm=offset)
        load_kernel(self.asm, self.facts.walk, R3)

    def load_page_half(self, offset: int) -> None:
        """r1 = the 4 bytes there."""
        self.load_page(offset)
        self.emit(LSH_K, R1, imm=32)
        self.emit(RSH_K, R1, imm=32)

    def frame_number(self, label: str) -> None:
        """r1 = the frame number in the entry r1. ``label`` must not be used yet; r2 is lost."""
        if self.tables.inverted:
            self.jump(JSET_K, label, R1, imm=self.tables.present)
            self.emit(MOV_K, R2, imm=-1)
            self.emit(XOR, R1, R2)
        self.label(label)
        self.get(R2, self.run.mask)
        self.emit(AND, R1, R2)
        self.emit(RSH_K, R1, imm=12)

    def constant(self, register: int, value: int) -> None:
        low, high = (half - (half >> 31 << 32) for half in (value & 0xFFFF_FFFF, value >> 32))
        self.emit(LD_IMM64, register, imm=low)
        self.emit(0, imm=high)
