"""Reads words of kernel memory by a BPF program: for setting up only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pydamon.linux import bpf_syscall
from pydamon.linux.bpf_assembler import (
    ADD,
    CALL,
    EXIT,
    GET_CURRENT_TASK,
    JNE_K,
    LD_IMM64,
    LDX8,
    LSH_K,
    MOV_K,
    PSEUDO_MAP_VALUE,
    R0,
    R1,
    R3,
    R7,
    R8,
    R10,
    STX8,
    Assembler,
)
from pydamon.primitives.bpf_facts import KernelFacts
from pydamon.primitives.bpf_program import each_number, read_kernel

_WORDS = 64  # addresses in one run
_TASK_AT, _COUNT_AT, _ADDRESSES_AT = 0, 8, 16
_VALUES_AT = _ADDRESSES_AT + 8 * _WORDS
_FAILED_AT = _VALUES_AT + 8 * _WORDS
_SIZE = _FAILED_AT + 8 * _WORDS
_READ, _ITERATOR = -8, -16  # stack slots


class KernelReader:
    """Reads words of kernel memory, a few at a time. Raises MachineError where that cannot be done."""

    def __init__(self, facts: KernelFacts) -> None:
        self._loaded = bpf_syscall.Loaded(_SIZE, lambda map_fd: _reader_program(facts, map_fd))
        self._memory, self._run = self._loaded.memory, self._loaded.run

    def read(self, addresses: Sequence[int]) -> list[int]:
        """The 8 bytes at each address. Raises LookupError if one cannot be read."""
        found: list[int] = []
        for begin in range(0, len(addresses), _WORDS):
            part = np.array(addresses[begin : begin + _WORDS], np.uint64)
            self._memory[_COUNT_AT : _COUNT_AT + 8] = len(part).to_bytes(8, "little")
            self._memory[_ADDRESSES_AT : _ADDRESSES_AT + part.nbytes] = part.tobytes()
            self._run()
            if any(self._memory[_FAILED_AT : _FAILED_AT + part.nbytes]):
                raise LookupError("kernel memory that cannot be read")
            found += np.frombuffer(self._memory[_VALUES_AT : _VALUES_AT + part.nbytes], np.uint64).tolist()
        return found

    def own_task(self) -> int:
        """Address of this thread's task_struct."""
        self._memory[_COUNT_AT : _COUNT_AT + 8] = bytes(8)
        self._run()
        return int.from_bytes(self._memory[_TASK_AT : _TASK_AT + 8], "little")

    def close(self) -> None:
        """Unload the program."""
        self._loaded.close()


def _reader_program(facts: KernelFacts, map_fd: int) -> bytes:
    """For each address of the map's value: the 8 bytes there, or -EFAULT among the failures; and the current task."""
    asm = Assembler()
    emit, jump, label = asm.emit, asm.jump, asm.label
    emit(LD_IMM64, R7, PSEUDO_MAP_VALUE, imm=map_fd)
    emit(0)  # second half: offset 0 in the value
    emit(CALL, imm=GET_CURRENT_TASK)
    emit(STX8, R7, R0, _TASK_AT)
    with each_number(asm, facts, _ITERATOR, (R7, _COUNT_AT), _WORDS):
        emit(LSH_K, R8, imm=3)
        emit(ADD, R8, R7)
        emit(LDX8, R3, R8, _ADDRESSES_AT)
        read_kernel(asm, _READ)
        emit(STX8, R8, R0, _FAILED_AT)
        emit(MOV_K, R1)
        jump(JNE_K, "store", R0)
        emit(LDX8, R1, R10, _READ)
        label("store")
        emit(STX8, R8, R1, _VALUES_AT)
    emit(MOV_K, R0)
    emit(EXIT)
    return asm.code()
