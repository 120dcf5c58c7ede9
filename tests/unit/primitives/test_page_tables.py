"""The formats of page tables: walked by the program over tables built here, decoded, and told apart on machines."""

from __future__ import annotations

import os

import msgspec
import numpy as np
import pytest
from tests.unit.primitives.bpf_machine import BASE, LIMIT, Machine

from pydamon.errors import MachineError
from pydamon.primitives import bpf_program as program
from pydamon.primitives import page_tables
from pydamon.primitives.page_tables import (
    ARM64_39,
    ARM64_48,
    LEVEL_1G,
    LEVEL_2M,
    LEVEL_4K,
    LEVEL_ABSENT,
    LEVEL_UNKNOWN,
    X86_4,
    X86_5,
    PageTables,
)

EVERY = [X86_4, X86_5, ARM64_39, ARM64_48]
ARM = [ARM64_39, ARM64_48]
# Addresses whose index differs at each level.
ADDRESS = {X86_4: 0x7F12_3456_7000, X86_5: 0x91_7F12_3456_7000, ARM64_39: 0x12_3456_7000, ARM64_48: 0xFF12_3456_7000}
every = pytest.mark.parametrize("tables", EVERY, ids=lambda tables: tables.name)
arm = pytest.mark.parametrize("tables", ARM, ids=lambda tables: tables.name)

# Descriptors of arm64 as a running system has them: user memory, inner shareable, not global, read and write.
PAGE_ATTRIBUTES = 1 << 54 | 1 << 53 | 1 << 11 | 0b11 << 8 | 1 << 6
AF, CONTIGUOUS = 1 << 10, 1 << 52


def walked(machine: Machine, *addresses: int) -> list[tuple[int, int]]:
    status, found = machine.walk(addresses)
    assert status == program.STATUS_OK
    return found


@every
def test_a_page_is_found_through_all_levels(tables: PageTables) -> None:
    machine, address = Machine(tables), ADDRESS[tables]
    young, old = machine.entry(0x1234, young=True), machine.entry(0x1235)
    machine.map(address, young)
    machine.map(address + 4096, old)
    assert walked(machine, address, address + 4096, address + 8192) == [
        (young, LEVEL_4K),
        (old, LEVEL_4K),
        (0, LEVEL_ABSENT),
    ]
    assert len({slot & ~0xFFF for slot in machine.memory if BASE <= slot < BASE + LIMIT}) == len(tables.levels)
    entries = np.array([young, old], np.uint64)
    assert tables.accessed_of(entries).tolist() == [True, False]
    mask = np.uint64((1 << tables.frame_bits) - 4096)
    assert tables.frames_of(entries, mask).tolist() == [0x1234, 0x1235]


@every
@pytest.mark.parametrize(("level", "expected"), [(2, LEVEL_2M), (3, LEVEL_1G)])
def test_large_leaves(tables: PageTables, level: int, expected: int) -> None:
    machine, address = Machine(tables), ADDRESS[tables]
    entry = machine.entry(1 << 18, young=True, level=level)
    machine.map(address, entry, level)
    assert walked(machine, address) == [(entry, expected)]


@every
def test_nothing_at_any_level(tables: PageTables) -> None:
    for level in range(1, len(tables.levels) + 1):
        machine, address = Machine(tables), ADDRESS[tables]
        machine.map(address, 0, level)
        assert walked(machine, address) == [(0, LEVEL_ABSENT)]


@every
def test_addresses_that_are_not_user_space(tables: PageTables) -> None:
    machine = Machine(tables)
    end = 1 << tables.address_bits
    machine.map(end - 4096, machine.entry(5))
    assert walked(machine, end - 4096, end, BASE) == [
        (machine.entry(5), LEVEL_4K),
        (0, LEVEL_UNKNOWN),
        (0, LEVEL_UNKNOWN),
    ]


@every
def test_a_table_beyond_memory_is_not_believed(tables: PageTables) -> None:
    for level in range(2, len(tables.levels) + 1):
        machine, address = Machine(tables), ADDRESS[tables]
        machine.map(address, LIMIT | tables.table[1], level)
        assert walked(machine, address) == [(0, LEVEL_UNKNOWN)]


@arm
def test_attributes_of_a_descriptor_are_no_part_of_its_address(tables: PageTables) -> None:
    machine, address = Machine(tables), ADDRESS[tables]
    machine.map(address, machine.entry(0x1234))
    for slot in [at for at, word in machine.memory.items() if BASE <= at < BASE + LIMIT and word & 3 == 3]:
        machine.memory[slot] |= PAGE_ATTRIBUTES | 1 << 59 | 1 << 63  # the last two are of tables: PXN, NS
    ((entry, level),) = walked(machine, address)
    assert level == LEVEL_4K
    mask = np.uint64((1 << 48) - 4096)
    assert tables.frames_of(np.array([entry], np.uint64), mask).tolist() == [0x1234]


@arm
def test_invalid_descriptors_are_absent(tables: PageTables) -> None:
    """Swapped out, under migration, or mapped without access: bit 0 is off, whatever else is set."""
    machine, address = Machine(tables), ADDRESS[tables]
    machine.map(address, 0x1234_5000 | AF | 0b10)
    assert walked(machine, address) == [(0x1234_5000 | AF | 0b10, LEVEL_ABSENT)]
    machine.map(address, 0x1234_5000 | AF | 0b10, 2)
    assert walked(machine, address) == [(0x1234_5000 | AF | 0b10, LEVEL_ABSENT)]


@arm
@pytest.mark.parametrize("at", [0, 7, 15])
def test_one_access_flag_stands_for_a_contiguous_group(tables: PageTables, at: int) -> None:
    machine = Machine(tables)
    begin = ADDRESS[tables] & ~0xFFFF
    for page in range(48):
        machine.map(begin + page * 4096, machine.entry(0x1000 + page) | (CONTIGUOUS if page < 32 else 0))
    machine.map(begin + (16 + at) * 4096, machine.entry(0x1010 + at, young=True) | CONTIGUOUS)
    machine.map(begin + 40 * 4096, machine.entry(0x1028, young=True))
    entries = np.array([entry for entry, _ in walked(machine, *(begin + page * 4096 for page in range(48)))], np.uint64)
    young = np.flatnonzero(tables.accessed_of(entries)).tolist()
    assert young == [*range(16, 32), 40]
    mask = np.uint64((1 << 48) - 4096)
    assert tables.frames_of(entries, mask).tolist() == list(range(0x1000, 0x1030))


@arm
def test_a_group_that_cannot_be_read_has_no_access(tables: PageTables) -> None:
    machine, address = Machine(tables), ADDRESS[tables] | 0xF000
    machine.map(address, machine.entry(5) | CONTIGUOUS)
    assert walked(machine, address) == [(machine.entry(5) | CONTIGUOUS, LEVEL_4K)]


def test_an_entry_that_is_not_present_is_inverted_on_x86_only() -> None:
    mask = np.uint64((1 << 48) - 4096)
    inverted = np.array([~(0x1234 << 12) & int(mask) | 1 << 8], np.uint64)
    assert X86_4.frames_of(inverted, mask).tolist() == [0x1234]
    assert ARM64_48.frames_of(np.array([0x1234 << 12], np.uint64), mask).tolist() == [0x1234]


class TestThisMachine:
    @pytest.fixture(autouse=True)
    def _untried_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv(page_tables.TRY_UNTESTED, raising=False)

    def on(self, monkeypatch: pytest.MonkeyPatch, machine: str, page_size: int = 4096, stack: int = 0) -> None:
        monkeypatch.setattr("pydamon.primitives.page_tables.platform.machine", lambda: machine)
        monkeypatch.setattr(os, "sysconf", lambda name: page_size)
        monkeypatch.setattr(page_tables, "_highest_mapping", lambda: stack)

    def test_four_levels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on(monkeypatch, "x86_64")
        assert page_tables.of_this_machine("flags\t\t: fpu vme lam57 nx\n") is X86_4

    def test_five_levels(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on(monkeypatch, "x86_64")
        assert page_tables.of_this_machine("flags\t\t: fpu la57 nx\n") is X86_5

    @pytest.mark.parametrize(("stack", "found"), [(0x7F_FFFF_F000, ARM64_39), (0xFFFF_FFFF_F000, ARM64_48)])
    def test_arm64(self, monkeypatch: pytest.MonkeyPatch, stack: int, found: PageTables) -> None:
        self.on(monkeypatch, "aarch64", stack=stack)
        with pytest.raises(MachineError, match=rf"^bpf: nobody has tried .*{found.address_bits}-bit.*TRY_UNTESTED=1"):
            page_tables.of_this_machine("")
        monkeypatch.setenv(page_tables.TRY_UNTESTED, "0")
        with pytest.raises(MachineError, match="nobody has tried"):
            page_tables.of_this_machine("")
        monkeypatch.setenv(page_tables.TRY_UNTESTED, "1")
        assert page_tables.of_this_machine("") is found

    def test_other_page_sizes_and_machines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(page_tables.TRY_UNTESTED, "1")
        self.on(monkeypatch, "aarch64", page_size=65536)
        with pytest.raises(MachineError, match="knows pages of 4 KiB; here they have 65536 bytes"):
            page_tables.of_this_machine("")
        self.on(monkeypatch, "riscv64")
        with pytest.raises(MachineError, match=r"^bpf: .*knows x86-64 and arm64 only; this is riscv64$"):
            page_tables.of_this_machine("")

    def test_the_stack_is_the_highest_mapping(self) -> None:
        assert page_tables._highest_mapping() >> 39

    def test_physical_addresses(self) -> None:
        assert page_tables.physical_address_bits(X86_4, "address sizes\t: 46 bits physical, 48 bits virtual\n") == 46
        assert page_tables.physical_address_bits(X86_4, "") == 52
        assert page_tables.physical_address_bits(ARM64_48, "BogoMIPS\t: 50.00\n") == 48
        narrow = msgspec.structs.replace(X86_4, frame_bits=40)
        assert page_tables.physical_address_bits(narrow, "address sizes\t: 46 bits physical") == 40
