"""The walk's program: its encoding, and what it does, run by an interpreter over page tables built here."""

from __future__ import annotations

import struct

import pytest
from tests.unit.primitives.bpf_machine import (
    ACCESSED,
    BASE,
    CAST,
    DESTROY,
    FACTS,
    FROM_PID,
    LARGE,
    LIMIT,
    LOCK,
    MAP_FD,
    MM,
    NEW,
    NEXT,
    OTHER_MM,
    PRESENT,
    PROTNONE,
    RELEASE,
    TABLE,
    TASK,
    U64,
    UNLOCK,
    Machine,
)

from pydamon.linux import bpf_syscall
from pydamon.linux.bpf_assembler import Assembler
from pydamon.linux.btf import Btf, BtfError
from pydamon.primitives import bpf_program as program
from pydamon.primitives import page_tables
from pydamon.primitives.bpf_lookup import kernel_facts

A = 0x7F12_3456_7000


def test_a_4k_page_is_found_through_four_levels() -> None:
    machine = Machine()
    entry = 0x8000_0001_8AF1_3000 | PRESENT | ACCESSED | 0x46
    machine.map(A, entry)
    assert machine.walk([A, A + 0xFFF]) == (program.STATUS_OK, [(entry, page_tables.LEVEL_4K)] * 2)


@pytest.mark.parametrize(
    ("level", "entry", "expected"),
    [
        (1, 0, page_tables.LEVEL_ABSENT),
        (1, 0x0000_1234_0000_0000, page_tables.LEVEL_ABSENT),  # swapped out: neither PRESENT nor PROTNONE
        (1, PROTNONE | ACCESSED | ~0x5000 & 0xF_FFFF_FFFF_F000, page_tables.LEVEL_4K),  # PROT_NONE or NUMA hinting
        (2, 0, page_tables.LEVEL_ABSENT),
        (2, PRESENT | LARGE | ACCESSED | 0x4020_0000, page_tables.LEVEL_2M),
        (2, LARGE | 0x4020_0000, page_tables.LEVEL_2M),  # in the middle of a split: PRESENT is off for a moment
        (2, LARGE | PROTNONE | 0x4020_0000, page_tables.LEVEL_2M),
        (2, 0x1234_0000_0000, page_tables.LEVEL_ABSENT),  # a huge page under migration
        (3, 0, page_tables.LEVEL_ABSENT),
        (3, PRESENT | LARGE | ACCESSED | 0x8000_0000, page_tables.LEVEL_1G),
        (4, 0, page_tables.LEVEL_ABSENT),
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
    assert machine.walk([address]) == (program.STATUS_OK, [(0, page_tables.LEVEL_UNKNOWN)])


@pytest.mark.parametrize("level", [2, 3, 4])
def test_a_table_that_cannot_be_is_unknown_not_absent(level: int) -> None:
    machine = Machine()
    machine.map(A, LIMIT | TABLE, level)  # behind the end of memory, though something can be read there
    machine.memory.update({BASE + LIMIT + slot: PRESENT | LARGE for slot in range(0, 4096, 8)})
    machine.map(A + (1 << 39), LIMIT - 0x1000 | TABLE, level)  # in memory that cannot be read
    unknown = (0, page_tables.LEVEL_UNKNOWN)
    assert machine.walk([A, A + (1 << 39)]) == (program.STATUS_OK, [unknown, unknown])


def test_bits_above_the_physical_address_are_no_part_of_it() -> None:
    machine = Machine()
    entry = 0x1234_5000 | PRESENT | ACCESSED
    machine.map(A, entry)
    for slot in [at for at, word in machine.memory.items() if word & 0xFFF == TABLE]:
        machine.memory[slot] |= 1 << 63 | 1 << 59 | 1 << 51  # no-execute, protection key, memory encryption
    assert machine.walk([A]) == (program.STATUS_OK, [(entry, page_tables.LEVEL_4K)])


def test_a_full_batch_and_no_more() -> None:
    machine = Machine()
    for page in range(program.BATCH):
        machine.map(A + page * 4096, page << 12 | PRESENT)
    wanted = [A + page * 4096 for page in range(program.BATCH)]
    status, found = machine.walk(wanted)
    assert status == program.STATUS_OK
    assert found == [(page << 12 | 1, page_tables.LEVEL_4K) for page in range(program.BATCH)]
    value = bytearray(program.VALUE_SIZE)
    struct.pack_into("<iIQQQ", value, 0, 4711, 1 << 30, BASE, (1 << 48) - 4096, LIMIT)
    # The interpreter checks where it writes.
    machine.run(program.page_table_walk(FACTS, page_tables.X86_4, map_fd=MAP_FD), value)


def test_no_such_process() -> None:
    machine = Machine()
    machine.tasks.clear()
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
    machine.during = lambda: machine.memory.update(during)
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


def test_the_end_of_a_verifier_log_is_one_short_line() -> None:
    log = b"0: R1=ctx() R10=fp0\n; comment\n12: (85) call x#1\nR2 must be\n\nprocessed 13 insns (limit 1000000)\n"
    assert bpf_syscall.log_tail(log) == "; comment; 12: (85) call x#1; R2 must be"
    of_7_3 = b"0: R1=ctx() R10=fp0\n0: (95) exit\nR0 !read_ok\n\nVerification failed: Register Type Safety\n\nReason:\n"
    assert bpf_syscall.log_tail(of_7_3) == "0: R1=ctx() R10=fp0; 0: (95) exit; R0 !read_ok"
    long = bpf_syscall.log_tail(b"x" * 1000)
    assert len(long) == 200
    assert long.startswith("…")
