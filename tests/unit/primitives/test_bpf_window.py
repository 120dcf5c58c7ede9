"""What the bpf primitive concludes from page-table entries, with tables and clearing played by objects here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pydamon.linux.process import Process
from pydamon.primitives.base import ACCESSED, NOT_ACCESSED, UNKNOWN
from pydamon.primitives.bpf import BpfPrimitive
from pydamon.primitives.clearing import ADVISED, NOT_CLEARED, WHOLE
from pydamon.primitives.page_tables import LEVEL_2M, LEVEL_4K, LEVEL_ABSENT, LEVEL_UNKNOWN, X86_4

OLD, YOUNG = (X86_4.present, LEVEL_4K), (X86_4.present | X86_4.accessed, LEVEL_4K)
OLD_HUGE, YOUNG_HUGE = (X86_4.present, LEVEL_2M), (X86_4.present | X86_4.accessed, LEVEL_2M)
ABSENT, FAULT = (0, LEVEL_ABSENT), (0, LEVEL_UNKNOWN)
SWAPPED = (X86_4.accessed | 1 << 40, LEVEL_ABSENT)  # where the page is now: these bits mean something else


class Tables:
    """Stands in for PageTableWalk; addresses are indices into ``entries``."""

    def __init__(self, *entries: tuple[int, int]) -> None:
        self.entries = list(entries)
        self.space = 1000
        self.refreshed = self.users = 0

    def walk_space(self, pid: int, addresses: NDArray[np.uint64]) -> tuple[NDArray[Any], NDArray[Any], int]:
        found = [self.entries[at] if self.space else FAULT for at in addresses.tolist()]
        entries, levels = [entry for entry, _ in found], [level for _, level in found]
        return np.array(entries, np.uint64), np.array(levels, np.uint8), self.space

    def accessed(self, entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
        return X86_4.accessed_of(entries)

    def frames(self, entries: NDArray[np.uint64]) -> NDArray[np.uint64]:
        return entries >> np.uint64(12)

    def refresh(self) -> None:
        self.refreshed += 1


class Clears:
    """Stands in for Clearer: what it does to pages, by address; without an entry a page is cleared."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.resist: set[int] = set()  # pages that MADV_COLD cannot clear
        self.resist_all: set[int] = set()  # nor clear_refs
        self.again: set[int] = set()  # pages that are accessed at once
        self.may_whole = True
        self.helped: list[tuple[int, int]] = []
        self.cleared: list[int] = []

    def clear(self, addresses: NDArray[np.uint64], entries: object, levels: object) -> NDArray[np.uint8]:
        self.cleared += addresses.tolist()
        for at in set(addresses.tolist()) - self.resist - self.again:
            self.tables.entries[at] = (X86_4.present, self.tables.entries[at][1])
        return np.array([NOT_CLEARED if at in self.resist else ADVISED for at in addresses.tolist()], np.uint8)

    def certain(self, entries: NDArray[np.uint64], levels: object, done: NDArray[np.uint8]) -> NDArray[np.bool_]:
        return (done == ADVISED) | ((done == WHOLE) & (entries >> np.uint64(12) == 0))

    def clear_stuck(self, stuck: int, total: int) -> bool:
        if self.may_whole:
            for at in self.resist - self.resist_all:
                self.tables.entries[at] = (X86_4.present, self.tables.entries[at][1])
        return self.may_whole

    def stuck_helped(self, freed: int, stuck: int) -> None:
        self.helped.append((freed, stuck))

    def update(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process(os.getpid())
    yield process
    process.close()


def watch(process: Process, *entries: tuple[int, int]) -> tuple[BpfPrimitive, Tables, Clears]:
    tables = Tables(*entries)
    primitive = BpfPrimitive(process, tables)  # type: ignore[arg-type]
    primitive.clearer.close()
    clears = Clears(tables)
    primitive.clearer = clears  # type: ignore[assignment]
    return primitive, tables, clears


def all_of(tables: Tables) -> NDArray[np.uint64]:
    return np.arange(len(tables.entries), dtype=np.uint64)


@pytest.mark.parametrize(
    ("before", "after", "answer"),
    [
        (OLD, OLD, NOT_ACCESSED),
        (OLD, YOUNG, ACCESSED),
        (YOUNG, OLD, NOT_ACCESSED),
        (YOUNG, YOUNG, ACCESSED),
        (ABSENT, ABSENT, NOT_ACCESSED),
        (ABSENT, YOUNG, ACCESSED),
        (ABSENT, YOUNG_HUGE, ACCESSED),
        (ABSENT, OLD, NOT_ACCESSED),  # read ahead
        (SWAPPED, SWAPPED, NOT_ACCESSED),
        (SWAPPED, YOUNG, ACCESSED),
        (OLD, ABSENT, UNKNOWN),  # its bit went with it
        (OLD, SWAPPED, UNKNOWN),
        (OLD_HUGE, YOUNG_HUGE, ACCESSED),
        (OLD_HUGE, YOUNG, ACCESSED),  # split: its pages inherit the bit
        (OLD, YOUNG_HUGE, UNKNOWN),  # collapsed: the kernel sets the new bit
        (OLD, OLD_HUGE, NOT_ACCESSED),
        (OLD, FAULT, UNKNOWN),
        (FAULT, YOUNG, UNKNOWN),
        (FAULT, OLD, UNKNOWN),
    ],
)
def test_what_a_window_says(process: Process, before: tuple[int, int], after: tuple[int, int], answer: int) -> None:
    primitive, tables, _ = watch(process, before)
    assert primitive.prepare(all_of(tables)).tolist() == [before != FAULT]
    tables.entries[0] = after
    assert primitive.check().tolist() == [answer]


def test_only_pages_with_the_bit_set_are_cleared(process: Process) -> None:
    primitive, tables, clears = watch(process, OLD, YOUNG, ABSENT, YOUNG_HUGE, FAULT)
    assert primitive.prepare(all_of(tables)).tolist() == [True, True, True, True, False]
    assert clears.cleared == [1, 3]


def test_a_page_accessed_again_at_once_is_accessed(process: Process) -> None:
    primitive, tables, clears = watch(process, YOUNG, YOUNG)
    clears.again = {1}
    assert primitive.prepare(all_of(tables)).all()
    assert primitive.check().tolist() == [NOT_ACCESSED, ACCESSED]
    assert clears.helped == []


def test_stuck_pages_say_nothing_unless_clear_refs_helps(process: Process) -> None:
    hopeless = (X86_4.present | X86_4.accessed | 1 << 12, LEVEL_4K)
    primitive, tables, clears = watch(process, YOUNG, hopeless, YOUNG, YOUNG)
    clears.resist, clears.resist_all, clears.may_whole = {1, 2}, {1}, False
    assert primitive.prepare(all_of(tables)).tolist() == [True, False, False, True]
    assert primitive.check().tolist() == [NOT_ACCESSED, UNKNOWN, UNKNOWN, NOT_ACCESSED]
    clears.may_whole = True
    assert primitive.prepare(all_of(tables)).tolist() == [True, False, True, True]
    assert clears.helped == [(1, 2)]
    assert primitive.check().tolist() == [NOT_ACCESSED, UNKNOWN, NOT_ACCESSED, NOT_ACCESSED]


def test_replacing_a_stuck_page(process: Process) -> None:
    primitive, tables, clears = watch(process, YOUNG, YOUNG, YOUNG, YOUNG)
    clears.resist, clears.may_whole = {1}, False
    assert primitive.prepare(np.array([0, 1, 2], np.uint64)).tolist() == [True, False, True]
    tables.entries[0] = YOUNG
    assert primitive.replace(np.array([1]), np.array([3], np.uint64)).tolist() == [True]
    assert primitive.check().tolist() == [ACCESSED, NOT_ACCESSED, NOT_ACCESSED]
    assert clears.cleared == [0, 1, 2, 3]  # the replacement left the window of page 0 alone


@pytest.mark.parametrize("space", [0, 2000])
def test_another_address_space_is_unknown(process: Process, space: int) -> None:
    primitive, tables, _ = watch(process, OLD, YOUNG)
    primitive.prepare(all_of(tables))
    tables.space = space
    assert primitive.check().tolist() == [UNKNOWN, UNKNOWN]
    primitive.replace(np.array([0]), np.array([1], np.uint64))
    assert primitive.check().tolist() == [UNKNOWN, UNKNOWN]


def test_the_callers_arrays_are_not_kept(process: Process) -> None:
    primitive, tables, _ = watch(process, OLD, OLD)
    addresses = all_of(tables)
    usable = primitive.prepare(addresses)
    addresses[:], usable[:] = 0, False
    tables.entries[1] = YOUNG
    assert primitive.check().tolist() == [NOT_ACCESSED, ACCESSED]


def test_the_end_of_memory_is_read_again_after_an_unknown(process: Process) -> None:
    primitive, tables, _ = watch(process, OLD, FAULT)
    primitive.prepare(np.array([0], np.uint64))
    primitive.update()
    assert tables.refreshed == 0
    primitive.prepare(all_of(tables))
    primitive.update()
    primitive.update()
    assert tables.refreshed == 1
