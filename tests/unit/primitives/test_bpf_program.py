"""The walk's program: its encoding, and what it does, run by a small interpreter over page tables built here.

The interpreter knows the instructions that the program uses (the kernel's instruction-set.rst); helper and kfuncs are
functions of the test. So every shape of entry is tested, also those that this machine's memory does not have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import numpy as np
import pytest

from pydamon.errors import MachineError
from pydamon.linux import bpf_syscall
from pydamon.linux.bpf_assembler import Assembler
from pydamon.linux.btf import Btf, BtfError
from pydamon.primitives import bpf_program as program
from pydamon.primitives.bpf_facts import KernelFacts, kernel_facts

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
TASK, MM, OTHER_MM = 0xFFFF_9000_0000_1000, 0xFFFF_9000_0000_8000, 0xFFFF_9000_0000_9000
STACK, VALUE, ITERATOR = 0xFFFF_C000_0000_1000, 0xFFFF_C100_0000_0000, 0xFFFF_C200_0000_0000
BASE, LIMIT = 0xFFFF_8880_0000_0000, 1 << 40
PRESENT, ACCESSED, LARGE, PROTNONE = program.PRESENT, program.ACCESSED_BIT, program.LARGE, program.PROTNONE
TABLE = PRESENT | 0x66


class Machine:
    """A task with page tables; runs the program on it. ``memory``: 8-byte words by virtual address."""

    def __init__(self) -> None:
        self.memory: dict[int, int] = {TASK + 1136: MM, MM + 120: BASE + 0x1000, OTHER_MM + 120: BASE + 0x1000}
        self.tables = 0x1000  # physical address of the last table
        self.task = TASK
        self.events: list[int] = []
        self.during: dict[int, int] = {}  # written when the iterator is destroyed: between the walk and its checks

    def map(self, address: int, entry: int, level: int = 1) -> None:
        """Let ``entry`` be what a walk of ``address`` finds at ``level`` (1: page table, 2: PMD, 3: PUD, 4: PGD)."""
        table = 0x1000
        for depth in range(4, 0, -1):
            slot = BASE + table + 8 * (address >> 12 + 9 * (depth - 1) & 0x1FF)
            if depth == level:
                self.memory[slot] = entry
                return
            if not self.memory.get(slot):
                self.tables += 0x1000
                self.memory[slot] = self.tables | TABLE
            table = self.memory[slot] & ~0xFFF

    def read(self, address: int) -> int | None:
        """A word of kernel memory; 0 in tables where nothing was put, None where there is no memory."""
        table = 0x1000 <= address - BASE < self.tables + 0x1000
        return self.memory.get(address, 0 if table else None)

    def walk(self, addresses: Iterable[int]) -> tuple[int, list[tuple[int, int]]]:
        """Run the program; returns its status, and entry and level per address."""
        wanted = list(addresses)
        value = bytearray(program.VALUE_SIZE)
        struct.pack_into("<iIQQQ", value, 0, 4711, len(wanted), BASE, (1 << 48) - 4096, LIMIT)
        struct.pack_into("<I", value, program.STATUS_AT, 99)
        struct.pack_into(f"<{len(wanted)}Q", value, program.ADDRESSES_AT, *wanted)
        self.run(program.page_table_walk(FACTS, map_fd=5), value)
        entries = np.frombuffer(value, np.uint64, len(wanted), program.ENTRIES_AT).tolist()
        levels = np.frombuffer(value, np.uint8, len(wanted), program.LEVELS_AT).tolist()
        return struct.unpack_from("<I", value, program.STATUS_AT)[0], list(zip(entries, levels, strict=True))

    def run(self, code: bytes, value: bytearray) -> None:
        stack, number = bytearray(512), bytearray(8)
        areas = {STACK - 512: stack, VALUE: value, ITERATOR: number}

        def place(address: int, size: int) -> tuple[bytearray, int] | None:
            for start, area in areas.items():
                if start <= address <= start + len(area) - size:
                    return area, address - start
            return None

        register, at, loop = [0] * 11, 0, [0, 0]
        register[10] = STACK
        while True:
            opcode, pair, off, imm = struct.unpack_from("<BBhi", code, 8 * at)
            dst, src = pair & 15, pair >> 4
            at += 1
            match opcode:
                case 0x95:
                    return
                case 0x18:
                    assert (src, imm) == (2, 5)  # the value of the map with that descriptor
                    register[dst], at = VALUE, at + 1
                case 0x05:
                    at += off
                case 0x15 | 0x55 | 0x35 | 0x45 | 0x1D | 0x5D | 0x3D:
                    left, right = register[dst], register[src] if opcode & 8 else imm & U64
                    jumps = {0x10: left == right, 0x50: left != right, 0x30: left >= right, 0x40: bool(left & right)}
                    at += off if jumps[opcode & 0xF0] else 0
                case 0xBF | 0xB7 | 0x0F | 0x07 | 0x5F | 0x57 | 0x67 | 0x77:
                    left, right = register[dst], register[src] if opcode & 8 else imm & U64
                    results = {0xB0: right, 0x00: left + right, 0x50: left & right}
                    shifts = {0x60: left << (right & 63), 0x70: left >> (right & 63)}
                    register[dst] = (results | shifts)[opcode & 0xF0] & U64
                case 0x79 | 0x61:
                    size = 8 if opcode == 0x79 else 4
                    where = place(register[src] + off, size)
                    if where is None:  # a load through a cast pointer: 0 if it faults
                        register[dst] = self.read(register[src] + off) or 0
                    else:
                        register[dst] = int.from_bytes(where[0][where[1] : where[1] + size], "little")
                case 0x7B | 0x63 | 0x73:
                    size = {0x7B: 8, 0x63: 4, 0x73: 1}[opcode]
                    where = place(register[dst] + off, size)
                    assert where is not None, "the program writes outside of its memory"
                    where[0][where[1] : where[1] + size] = (register[src] & (1 << 8 * size) - 1).to_bytes(
                        size, "little"
                    )
                case 0x85:
                    one, two, three = register[1:4]
                    result = 0
                    if src == 0:
                        assert (imm, two) == (113, 8)  # bpf_probe_read_kernel of 8 bytes
                        word, where = self.read(three), place(one, 8)
                        assert where is not None
                        result = 0 if word is not None else -14 & U64
                        where[0][where[1] : where[1] + 8] = (word or 0).to_bytes(8, "little")
                    else:
                        self.events.append(imm)
                    if src and imm == FROM_PID:
                        assert one == 4711
                        result = self.task
                    elif src and imm == NEW:
                        loop[:] = [two, three]
                    elif src and imm == NEXT:
                        number[:4] = loop[0].to_bytes(4, "little")
                        result = ITERATOR if loop[0] < loop[1] else 0
                        loop[0] += 1
                    elif src and imm == DESTROY:
                        self.memory.update(self.during)
                    elif src and imm == CAST:
                        assert two == 7
                        result = one
                    register[:6] = [result, *[0xDEAD] * 5]  # calls leave nothing in r1 to r5
                case _:
                    raise AssertionError(f"opcode {opcode:#x} is not one that the program should use")


A = 0x7F12_3456_7000


def test_a_4k_page_is_found_through_four_levels() -> None:
    machine = Machine()
    entry = 0x8000_0001_8AF1_3000 | PRESENT | ACCESSED | 0x46
    machine.map(A, entry)
    assert machine.walk([A, A + 0xFFF]) == (program.STATUS_OK, [(entry, program.LEVEL_4K)] * 2)


@pytest.mark.parametrize(
    ("level", "entry", "expected"),
    [
        (1, 0, program.LEVEL_ABSENT),
        (1, 0x0000_1234_0000_0000, program.LEVEL_ABSENT),  # swapped out: neither PRESENT nor PROTNONE
        (1, PROTNONE | ACCESSED | ~0x5000 & 0xF_FFFF_FFFF_F000, program.LEVEL_4K),  # PROT_NONE or NUMA hinting
        (2, 0, program.LEVEL_ABSENT),
        (2, PRESENT | LARGE | ACCESSED | 0x4020_0000, program.LEVEL_2M),
        (2, LARGE | 0x4020_0000, program.LEVEL_2M),  # in the middle of a split: PRESENT is off for a moment
        (2, LARGE | PROTNONE | 0x4020_0000, program.LEVEL_2M),
        (2, 0x1234_0000_0000, program.LEVEL_ABSENT),  # a huge page under migration
        (3, 0, program.LEVEL_ABSENT),
        (3, PRESENT | LARGE | ACCESSED | 0x8000_0000, program.LEVEL_1G),
        (4, 0, program.LEVEL_ABSENT),
    ],
)
def test_where_a_walk_ends(level: int, entry: int, expected: int) -> None:
    machine = Machine()
    machine.map(A, entry, level)
    status, ((found, found_level),) = machine.walk([A])
    assert (status, found, found_level) == (program.STATUS_OK, entry, expected)


@pytest.mark.parametrize("address", [1 << 47, U64 & ~0xFFF, BASE])
def test_kernel_addresses_are_not_walked(address: int) -> None:
    machine = Machine()
    machine.map(address & (1 << 47) - 1, PRESENT | ACCESSED)
    assert machine.walk([address]) == (program.STATUS_OK, [(0, program.LEVEL_UNKNOWN)])


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_table_that_cannot_be_is_unknown_not_absent(level: int) -> None:
    machine = Machine()
    machine.map(A, LIMIT | TABLE, level)  # behind the end of memory, though something can be read there
    machine.memory.update({BASE + LIMIT + slot: PRESENT | LARGE for slot in range(0, 4096, 8)})
    machine.map(A + (1 << 39), LIMIT - 0x1000 | TABLE, level)  # in memory that cannot be read
    unknown = (0, program.LEVEL_UNKNOWN)
    assert machine.walk([A, A + (1 << 39)]) == (program.STATUS_OK, [unknown, unknown])


def test_bits_above_the_physical_address_are_no_part_of_it() -> None:
    machine = Machine()
    entry = 0x1234_5000 | PRESENT | ACCESSED
    machine.map(A, entry)
    for slot in [at for at, word in machine.memory.items() if word & 0xFFF == TABLE]:
        machine.memory[slot] |= 1 << 63 | 1 << 59 | 1 << 51  # no-execute, protection key, memory encryption
    assert machine.walk([A]) == (program.STATUS_OK, [(entry, program.LEVEL_4K)])


def test_a_full_batch_and_no_more() -> None:
    machine = Machine()
    for page in range(program.BATCH):
        machine.map(A + page * 4096, page << 12 | PRESENT)
    wanted = [A + page * 4096 for page in range(program.BATCH)]
    status, found = machine.walk(wanted)
    assert (status, found) == (program.STATUS_OK, [(page << 12 | 1, program.LEVEL_4K) for page in range(program.BATCH)])
    value = bytearray(program.VALUE_SIZE)
    struct.pack_into("<iIQQQ", value, 0, 4711, 1 << 30, BASE, (1 << 48) - 4096, LIMIT)
    machine.run(program.page_table_walk(FACTS, map_fd=5), value)  # the interpreter checks where it writes


def test_no_such_process() -> None:
    machine = Machine()
    machine.task = 0
    assert machine.walk([A])[0] == program.STATUS_NO_TASK
    assert machine.events == [FROM_PID]  # there is nothing to release


@pytest.mark.parametrize("mm", [0, 0xFFFF_A000_0000_0000])
def test_no_address_space(mm: int) -> None:
    """A kernel thread has none; one that cannot be read is as good as none."""
    machine = Machine()
    machine.memory[TASK + 1136] = mm
    assert machine.walk([A])[0] == program.STATUS_NO_MM
    assert machine.events == [FROM_PID, LOCK, UNLOCK, RELEASE]


@pytest.mark.parametrize(
    "during", [{TASK + 1136: 0}, {TASK + 1136: OTHER_MM}, {MM + 120: BASE + 0x5000}], ids=["exit", "exec", "pgd"]
)
def test_an_address_space_that_is_exchanged_during_the_walk_is_noticed(during: dict[int, int]) -> None:
    machine = Machine()
    machine.map(A, PRESENT | ACCESSED)
    machine.during = during
    assert machine.walk([A])[0] == program.STATUS_CHANGED
    assert machine.events[-3:] == [DESTROY, UNLOCK, RELEASE]


def test_what_is_taken_is_given_back() -> None:
    machine = Machine()
    machine.map(A, PRESENT)
    machine.walk([A])
    assert [event for event in machine.events if event != CAST] == (
        [FROM_PID, LOCK, NEW, NEXT, NEXT, DESTROY, UNLOCK, RELEASE]
    )


def test_labels_may_come_before_and_after_their_jumps() -> None:
    asm = Assembler()
    asm.label("top")
    asm.emit(0xB7, 0, imm=-2)  # r0 = -2
    asm.jump(0x1D, "end", 0, 1)  # if r0 == r1 goto end
    asm.jump(0x05, "top")
    asm.label("end")
    asm.emit(0x95)
    assert asm.code().hex(" ", 8) == "b7000000feffffff 1d10010000000000 0500fdff00000000 9500000000000000"


def test_what_cannot_be_encoded_is_refused() -> None:
    asm = Assembler()
    asm.jump(0x05, "nowhere")
    with pytest.raises(ValueError, match="label nowhere is not defined"):
        asm.code()
    asm.label("nowhere")
    with pytest.raises(ValueError, match="defined twice"):
        asm.label("nowhere")
    asm.emit(0xB7, 0, imm=1 << 31)
    with pytest.raises(ValueError, match="instruction 1 does not fit"):
        asm.code()


class NamesOnly(Btf):
    """Type information that knows only names (-> ids); every member is at offset 0 but those given."""

    def __init__(self, **ids: int) -> None:
        self.ids_by_name = ids

    def find(self, kind: int, name: str) -> int | None:
        return self.ids_by_name.get(name)

    def member_offset(self, struct_name: str, member: str) -> int:
        return {"mm": 1136, "pgd": 120}.get(member, 0)


IDS = {
    "pt_regs": 7,
    "bpf_task_from_pid": 1,
    "bpf_task_from_vpid": FROM_PID,
    "bpf_task_release": RELEASE,
    "bpf_iter_num_new": NEW,
    "bpf_iter_num_next": NEXT,
    "bpf_iter_num_destroy": DESTROY,
    "bpf_rdonly_cast": CAST,
    "bpf_rcu_read_lock": LOCK,
    "bpf_rcu_read_unlock": UNLOCK,
}


def test_facts_prefer_the_kfunc_that_knows_namespaces() -> None:
    assert kernel_facts(NamesOnly(**IDS)) == FACTS
    older = kernel_facts(NamesOnly(**{name: i for name, i in IDS.items() if name != "bpf_task_from_vpid"}))
    assert (older.task_from_pid, older.by_namespace) == (1, False)


@pytest.mark.parametrize(
    "name", sorted(IDS.keys() - {"bpf_task_from_vpid", "bpf_rcu_read_lock", "bpf_rcu_read_unlock"})
)
def test_a_missing_fact_is_named(name: str) -> None:
    with pytest.raises(BtfError, match=name):
        kernel_facts(NamesOnly(**{n: i for n, i in IDS.items() if n not in (name, "bpf_task_from_vpid")}))


def test_five_level_paging_and_other_architectures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_syscall.platform, "machine", lambda: "x86_64")
    bpf_syscall.require_machine("flags\t\t: fpu vme lam57 nx\n")
    with pytest.raises(MachineError, match=r"^bpf: five-level paging \(la57\) .* no5lvl"):
        bpf_syscall.require_machine("flags\t\t: fpu la57 nx\n")
    monkeypatch.setattr(bpf_syscall.platform, "machine", lambda: "aarch64")
    with pytest.raises(MachineError, match=r"^bpf: .*x86-64.* this is aarch64$"):
        bpf_syscall.require_machine("")


def test_the_end_of_a_verifier_log_is_one_short_line() -> None:
    log = b"0: R1=ctx() R10=fp0\n; comment\n12: (85) call x#1\nR2 must be\n\nprocessed 13 insns (limit 1000000)\n"
    assert bpf_syscall.log_tail(log) == "; comment; 12: (85) call x#1; R2 must be"
    long = bpf_syscall.log_tail(b"x" * 1000)
    assert len(long) == 200
    assert long.startswith("…")
