"""A machine that runs BPF programs over memory built by a test: so every shape of entry is tested, also those that this
machine's memory does not have.

It knows the instructions that the programs use (the kernel's instruction-set.rst); helper and kfuncs are its own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable

import numpy as np

from pydamon.primitives import bpf_program as program
from pydamon.primitives.bpf_facts import KernelFacts
from pydamon.primitives.page_tables import X86_4, PageTables

U64 = (1 << 64) - 1
FROM_PID, RELEASE, NEW, NEXT, DESTROY, CAST, LOCK, UNLOCK = range(101, 109)
FACTS = KernelFacts(
    task_mm=1136,
    mm_pgd=120,
    task_from_pid=FROM_PID,
    task_release=RELEASE,
    by_namespace=True,
    loop=(NEW, NEXT, DESTROY),
    cast=(CAST, 7),
    rcu=(LOCK, UNLOCK),
)
PID, TASK, MM, OTHER_MM = 4711, 0xFFFF_9000_0000_1000, 0xFFFF_9000_0000_8000, 0xFFFF_9000_0000_9000
STACK, VALUE, ITERATORS = 0xFFFF_C000_0000_1000, 0xFFFF_C100_0000_0000, 0xFFFF_C200_0000_0000
BASE, LIMIT = 0xFFFF_8880_0000_0000, 1 << 40
MASK = (1 << 48) - 4096
PRESENT, ACCESSED, LARGE, PROTNONE = 1 << 0, 1 << 5, 1 << 7, 1 << 8  # of x86-64
TABLE = PRESENT | 0x66
MAP_FD = 5


class Machine:
    """Tasks with page tables; runs programs on them. ``memory``: 8-byte words by virtual address."""

    def __init__(self, tables: PageTables = X86_4) -> None:
        self.format = tables
        self.memory: dict[int, int] = {TASK + 1136: MM, MM + 120: BASE + 0x1000, OTHER_MM + 120: BASE + 0x1000}
        self.tables = 0x1000  # physical address of the last table
        self.tasks = {PID: TASK}
        self.events: list[int] = []
        self.during: Callable[[], object] = lambda: None  # when an iterator ends: between the walk and its checks

    def table(self) -> int:
        """Physical address of a new table."""
        self.tables += 0x1000
        return self.tables

    def slot(self, address: int, level: int = 1, top: int = 0x1000) -> int:
        """Where the entry of ``address`` at that level is (1: the lowest table, 2: the one above, ...)."""
        table = top
        for depth in range(len(self.format.levels), 0, -1):
            slot = BASE + table + 8 * (address >> 12 + 9 * (depth - 1) & 0x1FF)
            if depth == level:
                return slot
            if not self.memory.get(slot):
                self.memory[slot] = self.table() | (TABLE if self.format.inverted else 0b11)
            table = self.memory[slot] & ~0xFFF
        raise ValueError(level)

    def map(self, address: int, entry: int, level: int = 1, top: int = 0x1000) -> None:
        """Let ``entry`` be what a walk of ``address`` finds at ``level``."""
        self.memory[self.slot(address, level, top)] = entry

    def entry(self, frame: int, young: bool = False, level: int = 1) -> int:
        """An entry that maps that frame (of x86-64 or arm64), in a table of that level."""
        if self.format.inverted:
            bits = PRESENT | (LARGE if level > 1 else 0)
        else:
            bits = 0b11 if level == 1 else 0b01
        return frame << 12 | bits | (self.format.accessed if young else 0)

    def read(self, address: int) -> int | None:
        """A word of kernel memory; 0 in tables where nothing was put, None where there is no memory."""
        table = 0x1000 <= address - BASE < self.tables + 0x1000
        return self.memory.get(address, 0 if table else None)

    def walk(self, addresses: Iterable[int]) -> tuple[int, list[tuple[int, int]]]:
        """Run the walk's program; returns its status, and entry and level per address."""
        wanted = list(addresses)
        value = bytearray(program.VALUE_SIZE)
        struct.pack_into("<iIQQQ", value, 0, PID, len(wanted), BASE, MASK, LIMIT)
        struct.pack_into("<I", value, program.STATUS_AT, 99)
        struct.pack_into(f"<{len(wanted)}Q", value, program.ADDRESSES_AT, *wanted)
        self.run(program.page_table_walk(FACTS, self.format, map_fd=MAP_FD), value)
        entries = np.frombuffer(value, np.uint64, len(wanted), program.ENTRIES_AT).tolist()
        levels = np.frombuffer(value, np.uint8, len(wanted), program.LEVELS_AT).tolist()
        return struct.unpack_from("<I", value, program.STATUS_AT)[0], list(zip(entries, levels, strict=True))

    def run(self, code: bytes, value: bytearray) -> None:
        """Run a program whose map's value is ``value``."""
        Run(self, code, value).to_end()


class Run:
    """One run of a program."""

    def __init__(self, machine: Machine, code: bytes, value: bytearray) -> None:
        self.machine = machine
        self.code = [(op, pair & 15, pair >> 4, off, imm) for op, pair, off, imm in struct.iter_unpack("<BBhi", code)]
        self.stack, self.value, self.numbers = bytearray(512), value, bytearray(16)
        self.register = [0] * 11
        self.register[10] = STACK
        self.loops: dict[int, list[int]] = {}  # iterator's address -> next number, end, where its number is

    def place(self, address: int, size: int) -> tuple[bytearray, int] | None:
        """The program's own memory at that address."""
        for start, area in ((VALUE, self.value), (STACK - 512, self.stack), (ITERATORS, self.numbers)):
            if start <= address <= start + len(area) - size:
                return area, address - start
        return None

    def own(self, address: int, size: int) -> tuple[bytearray, int]:
        """Likewise; the program must not write anywhere else."""
        where = self.place(address, size)
        assert where is not None, "the program writes outside of its memory"
        return where

    def to_end(self) -> None:
        register, at = self.register, 0
        while True:
            opcode, dst, src, off, imm = self.code[at]
            at += 1
            match opcode & 7:
                case 7:
                    right = register[src] if opcode & 8 else imm & U64
                    register[dst] = _OPERATIONS[opcode & 0xF0](register[dst], right) & U64
                case 5 if opcode == 0x95:
                    assert not self.loops, "an iterator is not given back"
                    return
                case 5 if opcode == 0x85:
                    register[:6] = [self.call(src, imm), *[0xDEAD] * 5]  # calls leave nothing in r1 to r5
                case 5:
                    right = register[src] if opcode & 8 else imm & U64
                    at += off if _JUMPS[opcode & 0xF0](register[dst], right) else 0
                case 0 if (src, imm) == (2, MAP_FD):  # the value of the map with that descriptor
                    register[dst], at = VALUE, at + 1
                case 0:
                    register[dst], at = imm & 0xFFFF_FFFF | (self.code[at][4] & 0xFFFF_FFFF) << 32, at + 1
                case 1:
                    register[dst] = self.load(register[src] + off, _SIZES[opcode & 0x18])
                case 2 | 3:
                    size = _SIZES[opcode & 0x18]
                    area, begin = self.own(register[dst] + off, size)
                    stored = (register[src] if opcode & 7 == 3 else imm) & (1 << 8 * size) - 1
                    area[begin : begin + size] = stored.to_bytes(size, "little")
                case _:
                    raise AssertionError(f"opcode {opcode:#x} is not one that the program should use")

    def load(self, address: int, size: int) -> int:
        where = self.place(address, size)
        if where is None:  # through a cast pointer: 0 if it faults
            return self.machine.read(address) or 0
        return int.from_bytes(where[0][where[1] : where[1] + size], "little")

    def call(self, kind: int, function: int) -> int:
        machine = self.machine
        one, two, three = self.register[1:4]
        if kind == 0:
            assert (function, two) == (113, 8)  # bpf_probe_read_kernel of 8 bytes
            word = machine.read(three)
            area, begin = self.own(one, 8)
            area[begin : begin + 8] = (word or 0).to_bytes(8, "little")
            return 0 if word is not None else -14 & U64
        machine.events.append(function)
        if function == FROM_PID:
            return machine.tasks.get(one, 0)
        if function == CAST:
            assert two == 7
            return one
        if function == NEW:
            assert one not in self.loops
            self.loops[one] = [two, three, 8 * len(self.loops)]
        elif function == NEXT:
            number, end, begin = self.loops[one]
            self.numbers[begin : begin + 4] = number.to_bytes(4, "little")
            self.loops[one][0] += 1
            return ITERATORS + begin if number < end else 0
        elif function == DESTROY:
            del self.loops[one]
            machine.during()
        return 0


_SIZES = {0x18: 8, 0x00: 4, 0x10: 1}


_OPERATIONS: dict[int, Callable[[int, int], int]] = {
    0x00: int.__add__,
    0x10: int.__sub__,
    0x20: int.__mul__,
    0x30: lambda left, right: left // right if right else 0,
    0x40: int.__or__,
    0x50: int.__and__,
    0x60: lambda left, right: left << (right & 63),
    0x70: lambda left, right: left >> (right & 63),
    0x90: lambda left, right: left % right if right else left,
    0xA0: int.__xor__,
    0xB0: lambda left, right: right,
    0xC0: lambda left, right: (left - (left >> 63 << 64)) >> (right & 63),
}
_JUMPS: dict[int, Callable[[int, int], bool]] = {
    0x00: lambda left, right: True,
    0x10: int.__eq__,
    0x30: int.__ge__,
    0x40: lambda left, right: bool(left & right),
    0x50: int.__ne__,
}
