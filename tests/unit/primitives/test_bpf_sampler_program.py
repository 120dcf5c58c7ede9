"""The sampler's program, interpreted: held against a literal model draw for draw, and case by case."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from tests.unit.primitives.bpf_machine import ACCESSED, BASE, DESTROY, LARGE, LIMIT, LOCK, PRESENT, TABLE, UNLOCK
from tests.unit.primitives.sampler_model import (
    HUGE,
    LOCKED,
    LRU,
    PAGE,
    UPTODATE,
    Model,
    PagedMachine,
    Program,
    Region,
    Target,
    agree,
    page_hash,
    random_memory,
)

from pydamon.primitives import bpf_sampler_layout as lay
from pydamon.primitives.bpf_sampler_layout import CHECK, DRAW, FRESH
from pydamon.primitives.page_tables import (
    ARM64_39,
    ARM64_48,
    LEVEL_2M,
    LEVEL_4K,
    LEVEL_ABSENT,
    X86_4,
    X86_5,
    PageTables,
)

A = 0x7F12_3440_0000  # a multiple of 2 MiB
PID = 11
OTHERS = (X86_5, ARM64_39, ARM64_48)
PLACES = {X86_4: A, X86_5: 0x12 << 48 | A, ARM64_39: A & (1 << 39) - 1, ARM64_48: 1 << 47 | A}


def _pair(machine: PagedMachine, targets: list[Target], resident: list[int], seed: int) -> tuple[Program, Model]:
    return Program(machine, targets, seed, resident), Model(machine, targets, seed, resident)


def _step(program: Program, model: Model, flags: int, clear: bool = True) -> None:
    """Run both, compare, and clear what they listed as the kernel would."""
    program.run(flags)
    model.run(flags)
    agree(program, model)
    if clear:
        for target in model.targets:
            for base, length in target.ranges:
                model.machine.clear(target.pid, base, length)


@pytest.mark.parametrize(
    ("tables", "seed"), [*((X86_4, seed) for seed in range(1, 13)), *itertools.product(OTHERS, range(1, 5))]
)
def test_program_and_model_draw_list_and_count_the_same(tables: PageTables, seed: int) -> None:
    chance = random.Random(seed)
    machine = PagedMachine(tables, masks=seed % 2 == 0)
    A = PLACES[tables]  # as everywhere else here
    targets: list[Target] = []
    resident: list[int] = []
    for pid in range(1, 1 + chance.randint(1, 3)):
        machine.add_task(pid, start=1000 + pid)
        pages = chance.choice((40, 700, 1600))
        there = random_memory(machine, pid, A, pages, chance)
        cuts = sorted({0, pages, *(chance.randrange(1, pages) for _ in range(chance.randint(0, 14)))})
        regions = []
        for begin, end in itertools.pairwise(cuts):
            start, stop = A + begin * PAGE, A + end * PAGE
            region = Region(start, end - begin, flags=chance.choice((0, 0, lay.CAREFUL)))
            inside = [at for at, page in enumerate(there) if start <= page < stop]
            if chance.random() < 0.7 and inside and len(resident) + len(there) < 60:
                region.rank, region.resident = len(resident) + inside[0], len(inside)
            regions.append(region)
        if any(region.resident for region in regions):
            resident += there
        refused = [(A + 10 * PAGE, 7 * PAGE)] if chance.random() < 0.3 else []
        targets.append(Target(pid, regions, refused))
    program, model = _pair(machine, targets, resident, seed)
    if chance.random() < 0.5:
        model.panel = {page_hash(A + page * PAGE) for page in range(0, 700, 3)}
        program.watch_panel(model.panel)
    if chance.random() < 0.2:
        model.vmemmap = 0
        program.header["vmemmap"] = 0
    _step(program, model, DRAW)
    for _ in range(6):
        for target in targets:
            for _ in range(60):
                machine.touch(target.pid, A + chance.randrange(1600) * PAGE)
        _step(program, model, CHECK | DRAW)
        if chance.random() < 0.5:
            for target in targets:
                machine.clear(target.pid, A, 1600 * PAGE)
            _step(program, model, FRESH | DRAW)
    if chance.random() < 0.5:
        machine.execute(targets[0].pid)
        _step(program, model, CHECK | DRAW)
    _step(program, model, CHECK)
    assert not any(region.watched for target in targets for region in target.regions)


def _one_page(machine: PagedMachine, entry: int, level: int = 1, pages: int = 1) -> tuple[Program, Model, Region]:
    machine.add_task(PID)
    machine.map(A, entry, level, machine.tops[PID])
    region = Region(A, pages)
    program, model = _pair(machine, [Target(PID, [region])], [], 77)
    return program, model, region


def test_a_clear_page_that_is_touched_counts_and_one_that_is_not_does_not() -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, 5 << 12 | PRESENT)
    _step(program, model, DRAW)
    _step(program, model, CHECK | DRAW)
    assert (region.accessed, region.unknown) == (0, 0)
    machine.touch(PID, A)
    machine.page(5)
    _step(program, model, CHECK | DRAW)
    assert (region.accessed, region.unknown) == (1, 0)
    assert model.targets[0].ranges == [(A, PAGE)]


@pytest.mark.parametrize(
    ("flags", "mapcount", "listed"),
    [(LRU, 1, True), (LRU, 2, False), (0, 1, False), (LRU | LOCKED, 1, False), (LRU | 1 << 18, 1, False)],
    ids=["ordinary", "shared", "on no list", "locked", "unevictable"],
)
def test_a_young_page_is_listed_only_if_it_is_surely_cleared(flags: int, mapcount: int, listed: bool) -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, 5 << 12 | PRESENT | ACCESSED)
    machine.page(5, flags, mapcount)
    _step(program, model, DRAW, clear=False)
    assert model.targets[0].ranges == ([(A, PAGE)] if listed else [])
    assert bool(region.watched) == listed
    assert int(program.regions["flags"][0]) == (0 if listed else lay.CAREFUL | lay.MET)
    _step(program, model, CHECK)
    assert (region.accessed, region.unknown) == ((1, 0) if listed else (0, 1))


def test_after_a_page_that_cannot_be_cleared_clear_ones_are_refused_on_the_same_grounds() -> None:
    """Or pages that are shared and cold would be watched, and pages that are shared and hot would not."""
    machine = PagedMachine()
    program, model, region = _one_page(machine, 5 << 12 | PRESENT)
    machine.page(5, mapcount=2)
    _step(program, model, DRAW)
    assert region.watched  # nothing was met yet
    program.regions["flags"][0] = region.flags = lay.CAREFUL
    _step(program, model, CHECK | DRAW)
    assert not region.watched
    _step(program, model, DRAW | FRESH)  # after all of the process was cleared it may be watched, young or not
    assert region.watched


@pytest.mark.parametrize(
    ("flags", "mapcount", "watched"),
    [(LRU, 2, True), (LRU | LOCKED, 1, True), (UPTODATE, 1, True), (UPTODATE, 0, False), (0, 1, False)],
    ids=["shared", "locked", "on no list", "zero page", "no struct page"],
)
def test_what_may_be_watched_once_all_of_the_process_was_cleared(flags: int, mapcount: int, watched: bool) -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, 5 << 12 | PRESENT | ACCESSED)
    machine.page(5, flags, mapcount)
    _step(program, model, DRAW | FRESH)
    assert bool(region.watched) == watched
    assert model.targets[0].ranges == []


def test_a_huge_page_is_listed_as_a_whole() -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, 512 << 12 | PRESENT | ACCESSED | LARGE, level=2, pages=512)
    machine.page(512, order=9)
    _step(program, model, DRAW)
    assert (model.targets[0].ranges, region.level) == ([(A, HUGE)], LEVEL_2M)
    machine.page(512, order=9, mapcount=2)
    machine.touch(PID, A)
    _step(program, model, CHECK | DRAW)
    assert model.targets[0].ranges == []


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("damage", ["none", "first", "last", "mapcount", "two tables"])
def test_a_folio_is_listed_as_a_whole_or_not_at_all(damage: str, masks: bool) -> None:
    machine = PagedMachine(masks=masks)
    machine.add_task(PID)
    start = A + HUGE - 2 * PAGE if damage == "two tables" else A + 16 * PAGE
    machine.page(64, order=2, mapcount=3 if damage == "mapcount" else 4)
    for page in range(4):
        frame = 64 + page + (100 if (damage, page) in (("first", 0), ("last", 3)) else 0)
        machine.map(start + page * PAGE, frame << 12 | PRESENT | ACCESSED, top=machine.tops[PID])
    region = Region(start + PAGE, 1)  # the second page
    program, model = _pair(machine, [Target(PID, [region])], [], 3)
    _step(program, model, DRAW)
    assert model.targets[0].ranges == ([(start, 4 * PAGE)] if damage == "none" else [])
    assert int(program.header["parts"][0]) == (damage == "none")


def test_absent_regions_draw_among_the_pages_that_are_resident() -> None:
    machine = PagedMachine()
    machine.add_task(PID)
    resident = [A + page * PAGE for page in (3, 4, 90)]
    for page in resident:
        machine.map(page, 5 << 12 | PRESENT, top=machine.tops[PID])
    regions = [Region(A + page * PAGE, 50, 0 if not page else 2, 2 if not page else 1) for page in (0, 50)]
    program, model = _pair(machine, [Target(PID, regions)], resident, 9)
    seen = set()
    for _ in range(20):
        _step(program, model, DRAW)
        seen |= {region.watched for region in regions}
        assert all(region.start <= region.drawn < region.start + 50 * PAGE for region in regions)
    assert seen == set(resident)


def test_a_window_that_outlives_its_address_space_says_nothing() -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, 5 << 12 | PRESENT)
    _step(program, model, DRAW)
    machine.execute(PID)
    machine.map(A, 5 << 12 | PRESENT | ACCESSED, top=machine.tops[PID])
    machine.page(5)
    _step(program, model, CHECK | DRAW)
    assert (region.accessed, region.unknown) == (0, 1)
    machine.touch(PID, A)
    _step(program, model, CHECK | DRAW)  # and then it is followed
    assert (region.accessed, region.unknown) == (1, 1)


def test_exec_to_a_table_at_the_same_address_is_noticed_by_its_number() -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, 5 << 12 | PRESENT)
    _step(program, model, DRAW)
    machine.memory[machine.tasks[PID] + 2016] += 1
    _step(program, model, CHECK)
    assert (region.accessed, region.unknown) == (0, 1)


@pytest.mark.parametrize("what", ["exec", "pgd", "exit"])
def test_an_address_space_exchanged_during_the_run_makes_its_windows_unknown(what: str) -> None:
    machine = PagedMachine()
    program, _, _ = _one_page(machine, 5 << 12 | PRESENT | ACCESSED)
    machine.page(5)
    mm = machine.memory[machine.tasks[PID] + 1136]
    changes: dict[str, Callable[[], object]] = {
        "exec": lambda: machine.execute(PID),
        "pgd": lambda: machine.memory.update({mm + 120: BASE}),
        "exit": lambda: machine.tasks.clear(),
    }
    machine.during = changes[what]
    program.run(DRAW)
    assert int(program.targets["status"][0]) == lay.CHANGED
    assert program.header["bad"][0] == 0  # it lives
    machine.during = lambda: None
    program.run(CHECK)
    assert program.regions["unknown"][0] == 1


@pytest.mark.parametrize("how", ["gone", "pid reused", "no mm"])
def test_a_target_that_has_ended_is_unknown_and_told(how: str) -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, 5 << 12 | PRESENT)
    _step(program, model, DRAW)
    task = machine.tasks[PID]
    if how == "gone":
        del machine.tasks[PID]
    else:
        machine.memory[task + (1136 if how == "no mm" else 1560)] = 0 if how == "no mm" else 999
    _step(program, model, CHECK | DRAW)
    assert int(program.targets["status"][0]) == (lay.NO_MM if how == "no mm" else lay.GONE)
    assert (region.unknown, region.watched, int(program.header["bad"][0])) == (1, 0, 1)


def test_a_table_that_cannot_be_read_is_unknown() -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, LIMIT | TABLE, level=2)
    machine.memory.update({BASE + LIMIT + slot: PRESENT | ACCESSED for slot in range(0, 4096, 8)})
    _step(program, model, DRAW)
    _step(program, model, CHECK)
    assert (region.accessed, region.unknown) == (0, 1)
    assert model.failed == 0  # nothing was watched at the check


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (0, 5 << 12 | PRESENT | ACCESSED, (1, 0)),  # it was faulted in
        (0, 5 << 12 | PRESENT, (0, 0)),
        (0, 0, (0, 0)),
        (5 << 12 | PRESENT, 0, (0, 1)),  # unmapped, and the bit is lost
        (5 << 12 | PRESENT, 5 << 12 | PRESENT | ACCESSED, (1, 0)),
    ],
)
def test_what_a_window_says_by_both_its_ends(before: int, after: int, expected: tuple[int, int]) -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, before)
    _step(program, model, DRAW)
    assert region.level == (LEVEL_4K if before else LEVEL_ABSENT)
    machine.map(A, after, top=machine.tops[PID])
    _step(program, model, CHECK)
    assert (region.accessed, region.unknown) == expected


def test_what_became_a_huge_page_in_the_window_says_nothing() -> None:
    machine = PagedMachine()
    program, model, region = _one_page(machine, 5 << 12 | PRESENT)
    _step(program, model, DRAW)
    machine.map(A, 512 << 12 | PRESENT | ACCESSED | LARGE, 2, machine.tops[PID])
    _step(program, model, CHECK)
    assert (region.accessed, region.unknown) == (0, 1)


def test_what_is_taken_is_given_back() -> None:
    machine = PagedMachine()
    program, model, _ = _one_page(machine, 5 << 12 | PRESENT)
    machine.events.clear()
    _step(program, model, DRAW)
    assert machine.events[0] == LOCK
    assert machine.events[-2:] == [DESTROY, UNLOCK]
    assert machine.events.count(101) == machine.events.count(102) == 2  # the task: at the start and at the end


def test_a_run_of_some_targets_leaves_the_others_alone() -> None:
    machine = PagedMachine()
    for pid in (1, 2, 3):
        machine.add_task(pid)
        machine.map(A, 5 << 12 | PRESENT, top=machine.tops[pid])
    program, _ = _pair(machine, [Target(pid, [Region(A, 1)]) for pid in (1, 2, 3)], [], 4)
    program.header["first_target"], program.header["end_target"] = 1, 2
    program.run(DRAW)
    assert program.regions["watched"][:3].tolist() == [0, A, 0]
    program.header["end_target"] = 1000  # as many as there is room for, and no more
    program.run(DRAW)


def test_every_page_is_drawn_equally_often() -> None:
    machine = PagedMachine()
    program, _, _ = _one_page(machine, 0, pages=16)
    drawn = [0] * 16
    for _ in range(1600):
        program.run(DRAW)
        drawn[(int(program.regions["drawn"][0]) - A) // PAGE] += 1
    chi_square = sum((count - 100) ** 2 / 100 for count in drawn)
    assert chi_square < 37.7  # 15 degrees of freedom, p = 0.001; the seed is fixed
