"""A small assembler for BPF programs: no compiler is needed where pydamon runs.

Instruction encoding: the kernel's Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

# Helper numbers (include/uapi/linux/bpf.h).
GET_CURRENT_TASK = 35
PROBE_READ_KERNEL = 113

PSEUDO_MAP_VALUE = 2
PSEUDO_KFUNC_CALL = 2

# Opcodes: class, operation and operand source combined; all arithmetic is of 64 bits. ``_K``: the operand is ``imm``.
MOV, MOV_K, ADD, ADD_K, SUB, AND, AND_K, OR, OR_K, XOR = 0xBF, 0xB7, 0x0F, 0x07, 0x1F, 0x5F, 0x57, 0x4F, 0x47, 0xAF
MUL, MUL_K, DIV_K, MOD, LSH_K, RSH, RSH_K, ARSH_K = 0x2F, 0x27, 0x37, 0x9F, 0x67, 0x7F, 0x77, 0xC7
LDX8, LDX4, LDX1, STX8, STX4, STX1, ST8_K, ST4_K, LD_IMM64 = 0x79, 0x61, 0x71, 0x7B, 0x63, 0x73, 0x7A, 0x62, 0x18
JA, JEQ_K, JEQ, JNE_K, JNE, JGE_K, JGE, JSET_K, CALL, EXIT = 0x05, 0x15, 0x1D, 0x55, 0x5D, 0x35, 0x3D, 0x45, 0x85, 0x95


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
